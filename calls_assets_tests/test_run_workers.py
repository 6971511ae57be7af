"""Run workers are forked from a process that has loaded everything, and end when they are told to."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from calls_assets.run_workers import LOADED
from calls_assets.simulator import Account, Vendor, create_app, serve
from calls_assets_tests.e2e.dagster_dev import dagster_dev
from calls_assets_tests.e2e.running import TOKEN, make_environment, materialize, read_rows, read_stats

SLOW_TO_LOAD = ("aiohttp", "calls_assets", "duckdb", "httpx", "matplotlib", "numpy", "pandas", "pyarrow", "uvloop")
REQUESTS_PER_SECOND = "20"
"""So slow that a run can be ended under way."""

SWEEP = f"""
import importlib, json, os, sys, threading
for name in {LOADED!r}:
    importlib.import_module(name)
before = set(sys.modules)
threads = len(threading.enumerate())
import dagster as dg
from calls_assets.definitions import defs
with dg.DagsterInstance.from_config(os.environ["DAGSTER_HOME"]) as instance:
    defs.resolve_job_def("sweep_job").execute_in_process(partition_key=sys.argv[1], instance=instance)
print(json.dumps([threads, sorted(set(sys.modules) - before)]))
"""


@pytest.fixture
def account() -> Account:
    """Gives an account whose second day is over, and none of it due to be read again."""
    return Account(first_day=datetime.now(UTC).date() - timedelta(days=4), calls_per_day=300)


def test_a_run_has_nothing_large_left_to_load(account: Account, tmp_path: Path) -> None:
    """Nor do the modules start threads, which a fork would lose."""
    day = account.first_day + timedelta(days=1)
    with serve(create_app(Vendor(account), token=TOKEN)) as server:
        environment = make_environment(tmp_path, server.url, CALLS_START_DATE=str(day))
        done = subprocess.run(
            [sys.executable, "-c", SWEEP, str(day)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    threads, late = json.loads(done.stdout.splitlines()[-1])
    assert threads == 1
    assert {name for name in late if name.startswith(SLOW_TO_LOAD)} <= {
        "calls_assets.definitions",
        "calls_assets.run_workers",
    }
    assert len(read_rows(tmp_path / "lake", "calls", day)) > 100


@pytest.mark.timeout(600)
def test_runs_in_dagster_dev_are_forks_and_can_be_ended(account: Account, tmp_path: Path) -> None:
    """A run ended in the UI ends soon and keeps what it landed; the next one asks for the rest."""
    day = account.first_day + timedelta(days=1)
    with serve(create_app(Vendor(account), token=TOKEN)) as server:
        environment = make_environment(tmp_path, server.url, CALLS_START_DATE=str(day))
        with dagster_dev(environment | {"CALLS_API_REQUESTS_PER_SECOND": REQUESTS_PER_SECOND}) as dev:
            dev.wait_for("the web server", dev.is_up, 180)
            (run_id,) = dev.launch((["call_records"], day.isoformat()))
            dev.wait_for("a fetching worker", lambda: read_stats(server.url)["distinct_ids"] > 100)
            (worker,) = dev.processes()["worker"]
            dev.terminate(run_id)
            dev.wait_for("its end", lambda: dev.runs(runIds=[run_id])[0]["status"] == "CANCELED", 60)
            dev.wait_for("the end of its process", lambda: worker not in dev.processes()["worker"], 60)
            assert len(dev.processes()["fork server"]) == 1
        done = materialize(environment, "--partition", day.isoformat())
        assert done.returncode == 0, done.stderr[-3000:]
        asked = read_stats(server.url, ids=True)["per_id"]
    files = (tmp_path / "lake/raw").rglob("*.parquet")
    before = min(files, key=lambda path: path.stat().st_mtime_ns)
    landed = pq.ParquetFile(before).read(["call_id"]).column("call_id").to_pylist()
    assert len(landed) > 50
    assert {asked[str(id_)] for id_ in landed} == {1}
    assert len(read_rows(tmp_path / "lake", "calls", day)) > 250
