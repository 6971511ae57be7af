"""The main job on an object store, PostgreSQL and Celery together: what it must be on one machine, it must be here.

The checks are those of `e2e`, run by `make torture`; in `make test`, `test_celery.py` stands for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, time, timedelta
from pathlib import Path

import pytest

from calls_assets.lake import DAILY_TABLES, MARTS
from calls_assets.simulator import SettableClock, create_app, serve
from calls_assets_tests.distributed.meter import overlaps
from calls_assets_tests.distributed.test_celery import SUCCESS, deploy
from calls_assets_tests.distributed.test_postgres import fetches
from calls_assets_tests.e2e import test_sample as sample
from calls_assets_tests.e2e.dagster_dev import DagsterDev
from calls_assets_tests.e2e.running import TOKEN, days_between
from calls_assets_tests.e2e.test_backfill import FIRST, LAST, ZONE, check_range, make_vendor
from calls_assets_tests.e2e.test_dagster_dev import check_sensor_and_backfill
from calls_assets_tests.stores import StoreProxy

pytestmark = pytest.mark.long
ASSETS = ["call_records", *DAILY_TABLES, "agents", *MARTS, "daily_report", "catalog"]


@contextmanager
def on_workers(root: Path, base_url: str, **settings: str) -> Iterator[DagsterDev]:
    """Runs Dagster on PostgreSQL, and its runs on Celery workers."""
    with deploy(root, base_url, **settings) as deployment:
        yield deployment.dev


def sweep_days(dev: DagsterDev, days: list[str]) -> None:
    """Makes every asset of the days, as a backfill in the UI does, and waits for its end."""
    backfill = dev.backfill(ASSETS, days)
    dev.wait_for("the backfill", lambda: dev.backfill_status(backfill) == SUCCESS, 1_800)


def test_days_in_one_range_are_right_and_cost_no_request_twice(tmp_path: Path, store: StoreProxy, address: str) -> None:
    """As on one machine: every row against the oracle, at most 1.02 requests per id, none on repeating."""
    vendor = make_vendor()
    clock = SettableClock(datetime.combine(LAST + timedelta(days=60), time(), ZONE), speed=0)
    settings = {
        "CALLS_DATA_DIR": address,
        "CALLS_TIMEZONE": ZONE.key,
        "CALLS_BACKFILL_DAYS_PER_RUN": "0",
        "CALLS_API_CONCURRENCY": "32",
        "CALLS_POLL_SECONDS": "86400",
        **store.environment(),
    }
    with (
        serve(create_app(vendor, token=TOKEN, base_path="/api/v2", clock=clock)) as server,
        on_workers(tmp_path, f"{server.url}/api/v2", **settings) as dev,
    ):
        # The sensor looks once, and starts a sweep of today, of which this account has no calls.
        dev.wait_for("the sensor's run", lambda: dev.runs(pipelineName="sweep_job"), 300)
        dev.wait_for("its end", lambda: not dev.unended(), 600)
        days = [str(day) for day in days_between(FIRST, LAST)]
        check_range(address, vendor, server.url, lambda: sweep_days(dev, days))
        assert [run["status"] for run in dev.runs(statuses=["FAILURE", "CANCELED"])] == []
        assert overlaps([run for run in dev.runs() if fetches(run)]) == []


def test_sensor_runs_and_backfill(tmp_path: Path, store: StoreProxy, address: str) -> None:
    """As on one machine: sensor, a failed run and its alert, a backfill with one event per day."""
    check_sensor_and_backfill(tmp_path, address, on_workers, **store.environment())


def test_the_documented_sample_comes_out_in_every_table(tmp_path: Path, store: StoreProxy, address: str) -> None:
    """As on one machine: the one call of the account in whole rows."""
    settings = {"CALLS_DATA_DIR": address, "CALLS_TIMEZONE": sample.ZONE, "CALLS_POLL_SECONDS": "86400"}
    with sample.serve_sample() as url, on_workers(tmp_path, url, **settings, **store.environment()) as dev:
        dev.wait_for("the sensor's look", dev.ticks, 300)
        dev.wait_for("the end of its run, if any", lambda: not dev.unended(), 600)
        sweep_days(dev, [str(sample.DAY)])
    sample.check_sample(address)
