"""Runs on Celery workers over an object store: a rebuild spreads, a worker dies, the API sees one fetching run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from calls_assets.defs.runs import SILENT_FOR, end_dead_runs
from calls_assets.lake import DAILY_TABLES, MARTS, Lake
from calls_assets.settings import Location
from calls_assets.simulator import Account, FaultPlan, Vendor, create_app, serve
from calls_assets_tests.distributed.meter import Meter, overlaps
from calls_assets_tests.distributed.servers import run_postgres, run_redis
from calls_assets_tests.distributed.workers import Worker, run_worker
from calls_assets_tests.e2e.dagster_dev import DagsterDev, dagster_dev
from calls_assets_tests.e2e.running import TOKEN, days_between, make_environment, materialize
from calls_assets_tests.e2e.test_dagster_dev import zone_at_noon
from calls_assets_tests.faults.counts import IS_TORTURE, choose, tell
from calls_assets_tests.lakes import read_day
from calls_assets_tests.stores import StoreProxy

IN_FLIGHT, RATE = 4, 200
PROBES = 1
"""The sensor asks beside a run, one request at a time."""

DAYS, CALLS_PER_DAY, DAYS_PER_RUN = choose(8, 60), choose(150, 500), choose(1, 3)
PATIENCE = choose(600, 1_800)
SUCCESS = "COMPLETED_SUCCESS"
NAMES = (*DAILY_TABLES, *MARTS)
PLAIN: dict[str, Any] = {"late_share": 0.0, "missing_share": 0.0, "disorder": 0, "moves_share": 0.0}


@dataclass(frozen=True)
class Deployment:
    """Dagster with its runs on two workers.

    Attributes:
        dev: Web server, daemon and code server.
        workers: Where runs are executed.
        home: DAGSTER_HOME of the first.
        environment: Variables of all of them.
    """

    dev: DagsterDev
    workers: list[Worker]
    home: Path
    environment: dict[str, str]


@contextmanager
def deploy(root: Path, base_url: str, **settings: str) -> Iterator[Deployment]:
    """Runs PostgreSQL, Redis, Dagster with the committed settings, and two workers of one process each."""
    with ExitStack() as stack:
        postgres = stack.enter_context(run_postgres())
        redis = stack.enter_context(run_redis(root))
        environment = make_environment(
            root,
            base_url,
            DAGSTER_CELERY_BROKER=f"{redis}/0",
            DAGSTER_CELERY_BACKEND=f"{redis}/1",
            **postgres.create_database("dagster"),
            **settings,
        )
        dev = stack.enter_context(dagster_dev(environment, "deploy/dagster-celery.yaml"))
        # First, since it makes the tables: of two processes that do so at once, one can fail.
        dev.wait_for("the web server", dev.is_up, PATIENCE)
        workers = [stack.enter_context(run_worker(root, name, environment)) for name in ("one", "other")]
        dev.wait_for("the workers", lambda: all(worker.is_ready() for worker in workers), PATIENCE)
        yield Deployment(dev, workers, Path(environment["DAGSTER_HOME"]), environment)


def copy_raw(location: Location, target: Path) -> None:
    """Copies what the API said into a new lake, wherever the two are."""
    source, copy = Lake.open(location), Lake.open(target)
    for file in source.list_files("raw/"):
        copy.storage.put_new(file.key, source.storage.read(file.key))


def rebuild(deployment: Deployment, location: Location, days: list[date]) -> float:
    """Makes all tables of the days anew on the workers there are; gives the seconds from launch to end."""
    lake = Lake.open(location)
    for tree in ("tables/", "marts/", "published/"):
        for file in lake.list_files(tree):
            lake.storage.delete(file.key)
    began = time.monotonic()
    backfill = deployment.dev.backfill(list(NAMES), [str(day) for day in days])
    deployment.dev.wait_for("a rebuild", lambda: deployment.dev.backfill_status(backfill) == SUCCESS, PATIENCE)
    return time.monotonic() - began


def read_all(location: Location, days: list[date]) -> dict[tuple[str, date], pa.Table]:
    """Reads every table and mart of the days."""
    lake = Lake.open(location)
    return {(name, day): lake.read_table(name, day) for name in NAMES for day in days}


def kill_at_work(one: Worker, other: Worker, before: set[str]) -> str:
    """Kills a worker in the middle of a run, when both have done a task that was not done before; gives the run."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        run_id = one.at_work()
        if run_id is not None and one.tasks("succeeded") - before and other.tasks("succeeded") - before:
            one.kill()
            assert one.at_work() == run_id
            return run_id
        time.sleep(0.02)
    raise AssertionError(f"no run on both workers:\n{one.log.read_text()[-2000:]}")


def repeat(dev: DagsterDev, dead: str) -> None:
    """Waits until Dagster has started a dead run again; else does so by hand.

    Dagster stores that a run has failed before it changes the run's status. When its daemon looks in between, the
    retry is lost for good, and the backfill waits for it: seen on a machine under heavy load.
    """
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if any(run["tags"].get("dagster/parent_run_id") == dead for run in dev.runs()):
            return
        time.sleep(1)
    (run,) = dev.runs(runIds=[dead])
    first, last = (run["tags"][f"dagster/asset_partition_range_{end}"] for end in ("start", "end"))
    for day in days_between(date.fromisoformat(first), date.fromisoformat(last)):
        dev.launch((list(NAMES), str(day)))


@pytest.mark.timeout(1_500)
def test_a_rebuild_spreads_over_workers_and_one_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: StoreProxy, address: str
) -> None:
    """Sweeps are one at a time over all workers; a rebuild is on both, and right though one is killed at its run."""
    zone = zone_at_noon()
    today = datetime.now(zone).date()
    days = [today - timedelta(days=back) for back in range(DAYS - 1, -1, -1)]
    swept = [days[-2], days[-1], days[0]]
    vendor = Vendor(
        Account(**PLAIN, first_day=days[0] - timedelta(days=1), calls_per_day=CALLS_PER_DAY, timezone=zone.key)
    )
    lake = Lake.open(address)
    for day in days[1:-2]:
        lake.land(day, read_day(vendor, day, datetime.now(UTC)))
    meter = Meter(create_app(vendor, token=TOKEN, faults=FaultPlan(latency_seconds=0.02)))
    with (
        serve(Starlette(routes=[Mount("/", meter)])) as server,
        deploy(
            tmp_path,
            server.url,
            CALLS_DATA_DIR=address,
            CALLS_TIMEZONE=zone.key,
            CALLS_START_DATE=str(days[0]),
            CALLS_API_CONCURRENCY=str(IN_FLIGHT),
            CALLS_API_REQUESTS_PER_SECOND=str(RATE),
            CALLS_BACKFILL_DAYS_PER_RUN=str(DAYS_PER_RUN),
            CALLS_POLL_SECONDS="86400",
            **store.environment(),
        ) as deployment,
    ):
        dev, (one, other) = deployment.dev, deployment.workers
        wait = partial(dev.wait_for, seconds=PATIENCE)
        sweeps = dev.launch(*((["call_records"], str(day)) for day in swept))
        wait("the sweeps", lambda: len(dev.runs(runIds=sweeps, statuses=["SUCCESS"])) == len(sweeps))
        wait("the sensor's run, if any", lambda: not dev.unended())
        assert overlaps(dev.runs()) == []
        assert meter.count() > 2 * IN_FLIGHT
        assert meter.peak <= IN_FLIGHT + PROBES
        assert meter.busiest(1.0) <= RATE * 1.25

        before = one.tasks("succeeded") | other.tasks("succeeded")
        backfill = dev.backfill(list(NAMES), [str(day) for day in days])
        dead = kill_at_work(one, other, before)
        tags = [{"key": "dagster/backfill", "value": backfill}]
        wait("all its runs", lambda: len(dev.runs(tags=tags)) == -(-DAYS // DAYS_PER_RUN))
        wait("the other's runs", lambda: dev.unended() == [dead])
        for name, value in deployment.environment.items():
            monkeypatch.setenv(name, value)
        with dg.DagsterInstance.from_config(str(deployment.home)) as instance:
            # The sensor's part, with its clock put forward.
            assert end_dead_runs(instance, datetime.now(UTC) + SILENT_FOR) == [dead]
        repeat(dev, dead)
        wait("the repeat", lambda: not dev.unended())
        assert [run["runId"] for run in dev.runs(statuses=["FAILURE", "CANCELED"])] == [dead]

        alone = tmp_path / "alone"
        alone.mkdir()
        copy_raw(address, alone / "lake")
        run = materialize(
            make_environment(alone, server.url, CALLS_TIMEZONE=zone.key, CALLS_BACKFILL_DAYS_PER_RUN="0"),
            "--partition-range",
            f"{days[0]}...{days[-1]}",
            select="group:tables or group:marts",
        )
        assert run.returncode == 0, run.stderr[-3000:]
        expected = read_all(alone / "lake", days)
        found = read_all(address, days)
        assert [key for key, rows in expected.items() if not rows.equals(found[key])] == []
        assert sum(len(expected["calls", day]) for day in days) > 0.5 * DAYS * CALLS_PER_DAY

        if IS_TORTURE:  # a figure, not a promise: it says as much about the machine
            alone_seconds = rebuild(deployment, address, days)
            with run_worker(tmp_path, "third", deployment.environment) as third:
                wait("the third worker", third.is_ready)
                both_seconds = rebuild(deployment, address, days)
            tell("celery", days=DAYS, one_worker=round(alone_seconds, 1), two_workers=round(both_seconds, 1))
