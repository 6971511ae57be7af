"""The drill: a backup taken while sweeps are at work, restored elsewhere; and a lost DAGSTER_HOME."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import yaml

from calls_assets.cli import main
from calls_assets.defs import build_definitions
from calls_assets.derive import publish_day
from calls_assets.lake import DAILY_TABLES, Lake
from calls_assets.settings import Settings
from calls_assets_tests.defs.scripted import RANGE_END, RANGE_START, ScriptedVendor
from calls_assets_tests.e2e.running import read_rows

SCRIPT = Path(__file__).parent.parent.parent / "deploy/backup.sh"
DAYS = [date(2025, 6, 2) + timedelta(days=offset) for offset in range(3)]
CALLS = 60


def at(day: date) -> datetime:
    """Gives the midnight that begins a day."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


@pytest.fixture
def script() -> ScriptedVendor:
    """Gives an account with sixty calls on each of two days, and one on the day after."""
    script = ScriptedVendor()
    for number, day in enumerate(DAYS[:2]):
        script.add_day(100 + number * CALLS, CALLS, at(day))
    script.add_day(100 + 2 * CALLS, 1, at(DAYS[2]))
    return script


@pytest.fixture
def settings(tmp_path: Path, script: ScriptedVendor) -> Iterator[Settings]:
    """Gives the settings of a deployment on that account."""
    with script.deployed(tmp_path, reread_after=(timedelta(hours=1),)) as deployed:
        yield deployed


def open_home(path: Path) -> dg.DagsterInstance:
    """Opens Dagster's storage in a directory."""
    path.mkdir(exist_ok=True)
    # Without compute logs: Dagster may leave the processes that copy them behind.
    logs = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
    (path / "dagster.yaml").write_text(yaml.safe_dump({"telemetry": {"enabled": False}, "compute_logs": logs}))
    return dg.DagsterInstance.from_config(str(path))


def sweep(settings: Settings, instance: dg.DagsterInstance, *, again: bool = False) -> str:
    """Sweeps the days in one run of the job, raw only; gives the run's id."""
    result = (
        build_definitions(settings)
        .resolve_job_def("sweep_job")
        .execute_in_process(
            tags={RANGE_START: DAYS[0].isoformat(), RANGE_END: DAYS[-1].isoformat()},
            run_config={"ops": {"call_records": {"config": {"reread_final": again}}}},
            asset_selection=[dg.AssetKey("call_records")],
            instance=instance,
        )
    )
    assert result.success
    return result.run_id


def verify(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> int:
    """Makes the tables of all days, as after a restore, and runs `calls-assets verify`; gives its exit code."""
    lake = Lake.open(settings.data_dir)
    for day in DAYS:
        publish_day(lake, day, timezone=settings.timezone, reread_after=settings.reread_after, names=DAILY_TABLES)
    monkeypatch.setenv("CALLS_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("CALLS_API_BASE_URL", str(settings.api_base_url))
    monkeypatch.setenv("CALLS_REREAD_AFTER", "1h")
    return main(["verify"])


def test_a_backup_taken_amid_sweeps_is_a_whole_lake(
    settings: Settings,
    script: ScriptedVendor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Restored elsewhere it lacks what had no answer and nothing else: the next sweep asks for just that."""
    monkeypatch.chdir(tmp_path)
    script.failing = {130, 131}
    home, backup = tmp_path / "dagster_home", tmp_path / "backup"
    begun, enough = threading.Event(), threading.Event()
    run_ids: list[str] = []

    with open_home(home) as instance:
        run_ids.append(sweep(settings, instance))

        def keep_sweeping() -> None:
            while not enough.is_set():  # every run adds segments and merges them
                begun.set()
                run_ids.append(sweep(settings, instance, again=True))

        sweeping = threading.Thread(target=keep_sweeping)
        sweeping.start()
        assert begun.wait(60)
        saved = subprocess.run(
            ["sh", SCRIPT, settings.data_dir, backup, home],
            env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        is_amid = sweeping.is_alive()
        enough.set()
        sweeping.join(120)
    assert is_amid
    assert saved.returncode == 0, saved.stderr

    elsewhere = tmp_path / "elsewhere/lake"
    restored = replace(settings, data_dir=elsewhere)
    shutil.copytree(backup / "lake", elsewhere)
    assert (elsewhere / "raw").stat().st_mode & 0o077 == 0
    assert verify(restored, monkeypatch) == 1
    findings = capsys.readouterr().out.splitlines()
    assert len(findings) == 2, findings
    assert "2 ids have no answer, the first 130 to 131" in findings[0]

    script.failing = set()
    script.asked.clear()
    with open_home(backup / "dagster_home") as instance:
        held = {run.run_id for run in instance.get_runs()}
        assert run_ids[0] in held
        assert held <= set(run_ids)
        sweep(restored, instance)
    assert dict(script.asked) == {130: 1, 131: 1}
    assert verify(restored, monkeypatch) == 0
    assert [len(read_rows(elsewhere, "calls", day)) for day in DAYS] == [CALLS, CALLS, 1]


@pytest.mark.parametrize(("failures", "code", "passes"), [(0, 0, 2), (3, 0, 4), (99, 1, 20)])
def test_a_pass_in_which_a_file_went_is_repeated(failures: int, code: int, passes: int, tmp_path: Path) -> None:
    """At least two passes; when files go in every one, the backup says that it is none."""
    (tmp_path / "lake/raw").mkdir(parents=True)
    (tmp_path / "lake/lake.json").write_text("{}")
    (tmp_path / "cp").write_text(
        f"""#!/bin/sh
        [ "$1" = -a ] && exec /bin/cp "$@"
        echo pass >> {tmp_path}/passes
        [ "$(wc -l < {tmp_path}/passes)" -gt {failures} ]"""
    )
    (tmp_path / "cp").chmod(0o755)
    saved = subprocess.run(
        ["sh", SCRIPT, tmp_path / "lake", tmp_path / "backup"], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=False
    )
    assert saved.returncode == code
    assert len((tmp_path / "passes").read_text().splitlines()) == passes


def test_a_lost_dagster_home_costs_no_request(
    settings: Settings, script: ScriptedVendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a new one the days are shown as never materialized; making them asks for no known id."""
    monkeypatch.chdir(tmp_path)
    with dg.DagsterInstance.ephemeral() as instance:
        sweep(settings, instance)
    script.asked.clear()
    with dg.DagsterInstance.ephemeral() as instance:
        assert instance.get_materialized_partitions(dg.AssetKey("call_records")) == set()
        sweep(settings, instance)
        found = instance.get_materialized_partitions(dg.AssetKey("call_records"))
        assert found == {day.isoformat() for day in DAYS}
    assert not set(script.calls) & set(script.asked)
    assert verify(settings, monkeypatch) == 0
