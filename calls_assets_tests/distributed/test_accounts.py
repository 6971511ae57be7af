"""Two accounts on one machine and one PostgreSQL server: a deployment each, side by side, without mixing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from calls_assets.simulator import Account, Vendor, create_app, serve
from calls_assets_tests.distributed.servers import Postgres, run_postgres
from calls_assets_tests.e2e.dagster_dev import ROOT
from calls_assets_tests.e2e.running import make_environment, materialize, read_rows, read_stats

FIRST = date(2025, 3, 3)
DAYS = [FIRST, FIRST + timedelta(days=1)]


@dataclass(frozen=True)
class Deployment:
    """One account's deployment.

    Attributes:
        vendor: The account.
        url: Where its API is.
        environment: Variables of its processes.
    """

    vendor: Vendor
    url: str
    environment: Mapping[str, str]

    @property
    def lake(self) -> Path:
        """Its lake."""
        return Path(self.environment["CALLS_DATA_DIR"])

    def start(self) -> subprocess.Popen[bytes]:
        """Starts a run of both days."""
        command = [
            *(sys.executable, "-m", "dagster", "asset", "materialize", "-m", "calls_assets.definitions"),
            *("--select", "group:raw or group:tables", "--partition-range", f"{DAYS[0]}...{DAYS[-1]}"),
        ]
        with (self.lake.parent / "run.log").open("wb") as log:
            return subprocess.Popen(command, env=dict(self.environment), stdout=log, stderr=log)


def deploy(stack: ExitStack, root: Path, name: str, seed: int, postgres: Postgres) -> Deployment:
    """Makes a deployment: a directory, a database, an API and a token of its own."""
    directory = root / name
    directory.mkdir()
    vendor = Vendor(
        Account(seed=seed, first_day=FIRST - timedelta(days=1), calls_per_day=60, timezone="UTC", first_id=seed * 1_000)
    )
    server = stack.enter_context(serve(create_app(vendor, token=f"token-of-{name}")))
    environment = make_environment(
        directory,
        server.url,
        CALLS_API_TOKEN=f"token-of-{name}",
        CALLS_START_DATE=str(FIRST),
        CALLS_BACKFILL_DAYS_PER_RUN="0",
        **postgres.create_database(name),
    )
    settings = (ROOT / "deploy/dagster-postgres.yaml").read_text()
    (Path(environment["DAGSTER_HOME"]) / "dagster.yaml").write_text(settings)
    return Deployment(vendor, server.url, environment)


@pytest.mark.timeout(600)
def test_two_accounts_run_side_by_side_without_mixing(tmp_path: Path) -> None:
    """Each lake has its own account's calls and no others; a lake is not filled from the other account."""
    with run_postgres() as postgres, ExitStack() as stack:
        north, south = (deploy(stack, tmp_path, name, seed, postgres) for name, seed in (("north", 3), ("south", 70)))
        runs = [deployment.start() for deployment in (north, south)]
        codes = [run.wait(400) for run in runs]
        assert codes == [0, 0], [(tmp_path / name / "run.log").read_text()[-3000:] for name in ("north", "south")]
        for deployment in (north, south):
            assert set(read_stats(deployment.url)["by_status"]) <= {"200", "404"}
            for day in DAYS:
                found = {row["call_id"]: row["started_at"] for row in read_rows(deployment.lake, "calls", day)}
                assert found == starts_of(deployment.vendor, day)

        asked = read_stats(south.url)["requests"]
        crossed = materialize(
            {**south.environment, "CALLS_DATA_DIR": str(north.lake)}, "--partition", str(DAYS[0]), select="call_records"
        )
        assert crossed.returncode != 0
        assert "this lake was filled from" in crossed.stderr + crossed.stdout
        assert read_stats(south.url)["requests"] == asked


def starts_of(vendor: Vendor, day: date) -> dict[int, datetime]:
    """Gives the start of every call of a day."""
    near = vendor.ids_of_day(day)
    answers = (vendor.answer(id_, datetime.now(UTC)) for id_ in range(max(1, near.start - 200), near.stop + 200))
    starts = {answer["id"]: datetime.fromtimestamp(answer["started_at"], UTC) for answer in answers if answer}
    return {id_: start for id_, start in starts.items() if start.date() == day}
