"""What several packages of tests share."""

from __future__ import annotations

import os
import secrets
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from pytest import TerminalReporter  # noqa: PT013 - for the annotation

from calls_assets.lake import object_storage
from calls_assets.settings import Location
from calls_assets_tests.faults.counts import IS_TORTURE, LINES
from calls_assets_tests.lakes import FinishedLake, make_lake, open_lake
from calls_assets_tests.stores import BUCKET, StoreProxy, serve_proxy, serve_store

# How fast examples are made says something about the machine, not about the tests.
settings.register_profile("calls-assets", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calls-assets")


UNCOVERED = (
    "distributed/",
    "e2e/",
    "faults/",
    "deploy/",
    "readers/test_same",
    "readers/test_while",
    "ingest/test_holes.py",
    "ingest/test_sweep_old",
    "ingest/test_sweep_under_way.py::test_everything_late_arrives",
    "ingest/test_sweep_under_way.py::test_a_day_swept_every_minute",
    "marts/test_journeys.py::test_four_weeks",
    "report/test_publish.py::test_the_largest",
    "simulator/test_webhook.py::test_a_boundary",
    "simulator/test_webhook.py::test_missing",
    "simulator/test_webhook.py::test_no_call",
    "simulator/test_webhook.py::test_spans",
    "simulator/test_webhook.py::test_the_shares",
)
"""Tests of processes, protocols, other people's programs and weeks of an account: what they cover others cover too.

To measure it makes a test of sweeps take nearly three times as long.
"""


_LONGEST_SECONDS = 10_800
"""What a test of `make torture` may take, whatever it says of its short form."""


_MINUTES = 1_200
"""A test that is given as many seconds takes minutes."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Puts the tests in order, and leaves what is `long` to `make torture`."""
    if not IS_TORTURE and (long := [item for item in items if item.get_closest_marker("long")]):
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
    items[:] = deal(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    if IS_TORTURE:
        for item in items:
            item.add_marker(pytest.mark.timeout(_LONGEST_SECONDS), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Measures no coverage where it only costs time, nor in the set-up of what such a test is the first to want.

    By pytest-cov's mark `no_cover` it would go on in processes of pytest-xdist, which have two collectors (7.1).
    """
    _, _, place = item.nodeid.partition("calls_assets_tests/")
    if not place.startswith(UNCOVERED):
        return (yield)
    with unmeasured(item.config):
        return (yield)


@contextmanager
def unmeasured(config: pytest.Config) -> Iterator[None]:
    """Suspends the measuring of coverage, in this thread and in those that begin meanwhile."""
    if not config.pluginmanager.hasplugin("_cov"):  # a trace may be a debugger's
        yield
        return
    trace, trace_of_threads = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    try:
        yield
    finally:
        sys.settrace(trace)
        threading.settrace(trace_of_threads)


def deal(items: list[pytest.Item], processes: int) -> list[pytest.Item]:
    """Orders tests so that those that take minutes are the first ones of every second process.

    pytest-xdist's "worksteal" gives each process an equal part of the list, in its order; one that has done its part
    takes the last tests of others. So what comes first is begun first, and is not waited for alone in the end. Not in
    every process: each starts a Dagster of its own, and together they would wait for the machine beyond their patience.
    Those of Spark come first in the second process, so that no other starts one of its own.
    """
    limits = [item.get_closest_marker("timeout") for item in items]
    minutes = [item for item, limit in zip(items, limits, strict=True) if limit and limit.args[0] >= _MINUTES]
    of_spark = [item for item in items if item.name.endswith("Spark]") and item not in minutes]
    others = [item for item in items if item not in minutes and item not in of_spark]
    dealt: list[pytest.Item] = []
    for process in range(processes):
        if process % 2 == 0:
            dealt += minutes[process // 2 :: (processes + 1) // 2]
        if process == min(1, processes - 1):
            dealt += of_spark
        end = max(0, len(items) * (process + 1) // processes - len(dealt))
        dealt += others[:end]
        del others[:end]
    return dealt


@pytest.fixture(scope="session")
def finished_lake(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> FinishedLake:
    """Gives sixty days of tables and marts, to all workers the same; not to be written to."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with FileLock(shared / "finished.lock"):
        if not (shared / "finished").exists():
            with unmeasured(pytestconfig):  # whoever comes first waits for it, and others for them
                make_lake(shared / "sixty-days/data")
            (shared / "finished").touch()
    return open_lake(shared / "sixty-days/data")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:  # noqa: ANN401 - a class of xdist
    """Takes over the counts of a worker."""
    LINES.extend(getattr(node, "workeroutput", {}).get("counts", ()))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hands over the counts of this worker."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["counts"] = LINES


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Prints the harnesses' counts, seeds included, captured or not."""
    for line in LINES:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def store_url() -> Iterator[str]:
    """Gives the address of an S3 server."""
    with serve_store() as url:
        yield url


@pytest.fixture
def store(store_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreProxy]:
    """Gives the proxy before the S3 server; the environment names it, and repeated attempts follow at once."""
    monkeypatch.setattr(object_storage, "_FIRST_PAUSE_SECONDS", 0.001)
    with serve_proxy(store_url) as proxy:
        for name, text in proxy.environment().items():
            monkeypatch.setenv(name, text)
        yield proxy


@pytest.fixture
def address(store: StoreProxy) -> str:
    """Gives the address of an empty place in the store."""
    assert store.count() == 0
    return f"s3://{BUCKET}/{secrets.token_hex(6)}/lake"


@pytest.fixture(params=["directory", "object store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """Gives an empty place for a lake: a directory, and once more one in an object store."""
    if request.param == "directory":
        return tmp_path
    found: str = request.getfixturevalue("address")
    return found
