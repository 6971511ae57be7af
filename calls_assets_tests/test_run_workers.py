"""Run workers are forked from a process that has loaded everything (in `dagster dev`: `e2e/test_dagster_dev.py`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from calls_assets.lake import open_storage
from calls_assets.simulator import Account, Vendor, create_app, serve
from calls_assets_tests.e2e.dagster_dev import ROOT
from calls_assets_tests.e2e.running import TOKEN, make_environment, read_rows

SLOW_TO_LOAD = ("calls_assets", "duckdb", "httptools", "httpx", "numpy", "pandas", "pyarrow", "pygal")

SWEEP = """
import importlib, json, os, sys, threading
importlib.import_module("calls_assets.fork_server")
before = set(sys.modules)
threads = len(threading.enumerate())
import dagster as dg
from calls_assets.definitions import defs
with dg.DagsterInstance.from_config(os.environ["DAGSTER_HOME"]) as instance:
    defs.resolve_job_def("sweep_job").execute_in_process(partition_key=sys.argv[1], instance=instance)
print(json.dumps([threads, sorted(set(sys.modules) - before)]))
"""

FORKS = """
import gc, json, os, signal, sys, time
from multiprocessing import forkserver
from calls_assets.run_workers import _Context

def work(answers):
    is_whole = "pandas" in sys.modules and gc.get_freeze_count() > 10_000
    answers.put([os.getppid(), is_whole, signal.getsignal(signal.SIGTERM)])

def run(context):
    answers = context.Queue()
    process = context.Process(target=work, args=[answers])
    process.start()
    told = answers.get(timeout=60)
    process.join()
    return told

if __name__ == "__main__":
    context = _Context()
    context.set_forkserver_preload(["calls_assets.fork_server"])
    first, server = run(context), forkserver._forkserver._forkserver_pid
    os.kill(server, signal.SIGTERM)
    time.sleep(0.5)
    second = run(context)
    os.unlink(forkserver._forkserver._forkserver_address)
    print(json.dumps([os.getpid(), server, signal.getsignal(signal.SIGTERM), first, second, run(context)]))
"""

STORES = """
import os, sys
from calls_assets.lake import open_storage
from calls_assets.run_workers import _Context

def work(answers, key):
    storage = open_storage(sys.argv[1])
    storage.put_new(key, b"landed")
    answers.put([os.getppid(), storage.read(key)])

if __name__ == "__main__":
    context = _Context()
    context.set_forkserver_preload(["calls_assets.fork_server"])
    servers = set()
    for key in ("raw/one", "raw/two"):
        answers = context.Queue()
        process = context.Process(target=work, args=[answers, key])
        process.start()
        server, content = answers.get(timeout=60)
        process.join()
        assert (process.exitcode, content) == (0, b"landed")
        servers.add(server)
    assert len(servers) == 1 and os.getpid() not in servers
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


def test_runs_start_also_where_something_is_wrong(tmp_path: Path) -> None:
    """A module that cannot be loaded, a signal to all processes, the socket's file cleaned away: the last by itself."""
    script = tmp_path / "forks.py"
    script.write_text(FORKS)
    environment = os.environ | {"MPLBACKEND": "module://nowhere", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    pid, server, handler, *runs = json.loads(done.stdout)
    assert runs == [[server, True, handler], [server, True, handler], [pid, False, handler]]
    assert "not forked" in done.stderr


def test_forks_use_an_object_store(address: str, tmp_path: Path) -> None:
    """Its library's threads do not survive a fork: they start in the run, not where it is forked from."""
    script = tmp_path / "stores.py"
    script.write_text(STORES)
    command = [sys.executable, str(script), address]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(open_storage(address).list("raw/")) == 2
