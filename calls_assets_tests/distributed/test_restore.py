"""The drill beyond one machine: PostgreSQL from a dump, and a lake out of one object store into another."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
import yaml

from calls_assets.cli import main
from calls_assets_tests.defs.scripted import ScriptedVendor
from calls_assets_tests.distributed.servers import Postgres, run_postgres
from calls_assets_tests.e2e.dagster_dev import ROOT
from calls_assets_tests.e2e.running import read_rows
from calls_assets_tests.e2e.test_backup import DAYS, at, sweep, verify

CALLS = 20


def open_instance(home: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> dg.DagsterInstance:
    """Opens Dagster's storage in the database "dagster", with the committed settings."""
    variables = {"HOST": "127.0.0.1", "PORT": str(postgres.port), "DB": "dagster", "USER": "calls", "PASSWORD": "any"}
    for name, value in variables.items():
        monkeypatch.setenv(f"DAGSTER_POSTGRES_{name}", value)
    home.mkdir()
    settings = yaml.safe_load((ROOT / "deploy/dagster-postgres.yaml").read_text())
    # Without compute logs: Dagster may leave the processes that copy them behind.
    settings["compute_logs"] = {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    return dg.DagsterInstance.from_config(str(home))


@pytest.mark.timeout(300)
def test_database_and_lake_come_back_from_dump_and_copy(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On another server, at another place: the history is there, and only what came after the backup is asked for."""
    monkeypatch.chdir(tmp_path)
    script = ScriptedVendor(failing={130, 131})
    for number, day in enumerate(DAYS):
        script.add_day(100 + number * CALLS, CALLS, at(day))
    saved, elsewhere = tmp_path / "saved", f"{address}-elsewhere"
    materialized = {day.isoformat() for day in DAYS}
    with script.deployed(tmp_path, data_dir=address, reread_after=(timedelta(hours=1),)) as settings:
        with run_postgres() as postgres:
            postgres.create_database("dagster")
            with open_instance(tmp_path / "home", postgres, monkeypatch) as instance:
                kept = sweep(settings, instance)
            dump = postgres.dump("dagster")
            assert main(["copy-lake", address, str(saved)]) == 0
            new, script.failing = script.failing, set()
            with open_instance(tmp_path / "home after", postgres, monkeypatch) as instance:
                lost = sweep(settings, instance)

        script.asked.clear()
        restored = replace(settings, data_dir=elsewhere)
        with run_postgres() as postgres:
            postgres.create_database("dagster")
            postgres.load("dagster", dump)
            assert main(["copy-lake", str(saved), elsewhere]) == 0
            with open_instance(tmp_path / "home elsewhere", postgres, monkeypatch) as instance:
                assert {run.run_id for run in instance.get_runs()} == {kept}
                assert instance.get_materialized_partitions(dg.AssetKey("call_records")) == materialized
                capsys.readouterr()
                assert verify(restored, monkeypatch) == 1
                (finding, _) = capsys.readouterr().out.splitlines()
                assert "2 ids have no answer, the first 130 to 131" in finding
                assert not script.asked
                assert sweep(restored, instance) not in {kept, lost}
                assert len(instance.get_runs()) == 2
        assert dict(script.asked) == dict.fromkeys(new, 1)
        assert verify(restored, monkeypatch) == 0
        assert [len(read_rows(elsewhere, "calls", day)) for day in DAYS] == [CALLS] * len(DAYS)
