"""The main job into an object store, as users run it: the dagster command, a vendor and an S3 server over HTTP."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from calls_assets.api import connect
from calls_assets.cli import main
from calls_assets.derive import publish_agents, publish_day
from calls_assets.ingest import SweepOptions, sweep
from calls_assets.lake import DATASETS, Lake, open_storage
from calls_assets.marts import publish_marts
from calls_assets.read import read_table
from calls_assets.settings import Settings
from calls_assets.simulator import Account, Vendor, create_app, serve
from calls_assets_tests.e2e.running import TOKEN, make_environment, materialize
from calls_assets_tests.faults.counts import tell
from calls_assets_tests.stores import SECRET, StoreFiles, StoreProxy

DAY = date(2025, 3, 11)
READ_COLUMNS = {"first_read_at", "last_read_at", "last_changed_at"}


def read_all(name: str, data_dir: str) -> pa.Table:
    """Gives a table or mart without the instants of reading."""
    rows = read_table(name, format="pyarrow", data_dir=data_dir)
    return rows.select([column for column in rows.column_names if column not in READ_COLUMNS])


def fill_directory(settings: Settings) -> None:
    """Sweeps and publishes the day into a directory, without Dagster."""
    lake = Lake.open(settings.data_dir)

    async def sweep_day() -> None:
        async with connect(settings) as client:
            options = SweepOptions.from_settings(settings)
            await sweep(lake, client, [DAY], options=options, now=now, log=lambda _line: None)

    def now() -> datetime:
        return datetime.now(UTC)

    asyncio.run(sweep_day())
    publish_day(lake, DAY, timezone=settings.timezone, reread_after=settings.reread_after)
    publish_agents(lake)
    publish_marts(lake, [DAY], now=now(), timezone=settings.timezone)


def test_a_day_in_an_object_store_has_the_rows_of_one_in_a_directory(
    tmp_path: Path, store: StoreProxy, address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every table and mart; the report and the catalogue are there too, verify finds nothing, no log has a secret."""
    vendor = Vendor(Account(seed=7, first_id=5_000, first_day=date(2025, 3, 9), calls_per_day=80, missing_share=0.02))
    with serve(create_app(vendor, token=TOKEN)) as server:
        environment = make_environment(tmp_path, server.url, CALLS_DATA_DIR=address, **store.environment())
        run = materialize(environment, "--partition", DAY.isoformat())
        assert run.returncode == 0, run.stderr[-3000:]
        assert SECRET not in run.stdout + run.stderr
        tell("object store, a day by dagster", requests=store.count(), puts=store.count("PUT"))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert main(["verify"]) == 0, capsys.readouterr().out
        assert main(["doctor"]) == 0, capsys.readouterr().out
        assert f"object store {address} is writable" in capsys.readouterr().out
        fill_directory(Settings.from_env({**environment, "CALLS_DATA_DIR": f"{tmp_path}/local"}))

    for name in DATASETS:
        assert read_all(name, address).equals(read_all(name, f"{tmp_path}/local")), name
    assert len(read_all("calls", address)) > 30
    storage = open_storage(address, is_writable=False)
    assert storage.read("reports/latest.html") == storage.read(f"reports/call_date={DAY}/report.html")
    (tmp_path / "catalog.duckdb").write_bytes(storage.read("catalog.duckdb"))
    with duckdb.connect(str(tmp_path / "catalog.duckdb"), read_only=True) as connection:
        connection.register_filesystem(StoreFiles())
        shown = connection.sql("SELECT count(*) FROM calls_enriched WHERE call_date = DATE '2025-03-11'").fetchall()
    assert shown == [(len(read_all("calls", address)),)]
