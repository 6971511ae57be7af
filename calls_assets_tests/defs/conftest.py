"""A simulated vendor over HTTP, the settings of a fresh deployment, and a Dagster instance of its own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from calls_assets.settings import Settings
from calls_assets.simulator import Account, RunningServer, Vendor, create_app, serve
from calls_assets_tests.e2e.running import TOKEN

TODAY = datetime.now(UTC).date()


@pytest.fixture(scope="session")
def vendor() -> Vendor:
    """Gives an account that began five days ago."""
    return Vendor(Account(first_day=TODAY - timedelta(days=5), calls_per_day=200, timezone="UTC", first_id=400))


@pytest.fixture
def vendor_server(vendor: Vendor) -> Iterator[RunningServer]:
    """Serves the account."""
    with serve(create_app(vendor, token=TOKEN)) as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path, vendor_server: RunningServer) -> Settings:
    """Gives the settings of a fresh deployment."""
    return Settings(
        data_dir=tmp_path / "lake",
        start_date=TODAY - timedelta(days=10),
        api_base_url=vendor_server.url,
        api_token=TOKEN,
        requests_per_second=5_000,
        timezone=ZoneInfo("UTC"),
    )


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """Gives a Dagster instance in memory: a tenth of a file's cost for each event."""
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def stored_instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Gives a Dagster instance with SQLite storage, which others can open by its reference."""
    home = tmp_path / "dagster_home"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home), overrides={"telemetry": {"enabled": False}}) as local:
        yield local
