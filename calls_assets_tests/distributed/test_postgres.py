"""Dagster's storage in PostgreSQL: a real server, the committed settings, everything that starts runs, and a crash."""

from __future__ import annotations

import json
import logging
import shutil
import time
import urllib.request
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
import yaml
from dagster._core.test_utils import freeze_time
from dagster._core.workspace.load_target import ModuleTarget
from dagster._scheduler.scheduler import launch_scheduled_runs
from starlette.applications import Starlette
from starlette.routing import Mount

from calls_assets.simulator import Account, FaultPlan, SettableClock, Vendor, create_app, serve
from calls_assets_tests.distributed.meter import Meter, overlaps
from calls_assets_tests.distributed.servers import run_postgres
from calls_assets_tests.e2e.dagster_dev import ROOT, DagsterDev, dagster_dev
from calls_assets_tests.e2e.running import TABLES, TOKEN, make_environment, read_rows
from calls_assets_tests.e2e.test_dagster_dev import zone_at_noon
from calls_assets_tests.faults.test_webhook import SECRET, running
from calls_assets_tests.workspaces import open_workspace

IN_FLIGHT = 3
PROBES = 1
"""The sensor asks beside a run, one request at a time."""

PLAIN: dict[str, Any] = {"late_share": 0.0, "missing_share": 0.0, "disorder": 0, "moves_share": 0.0}


def tick_schedule(home: Path, zone: ZoneInfo) -> None:
    """Lets the scheduler wake at three at night and at a quarter past: its own code, with the clock set."""
    shown = datetime.combine(datetime.now(zone).date(), clock_time(3), zone)
    target = ModuleTarget("calls_assets.definitions", None, str(ROOT), "calls_assets")
    with (
        dg.DagsterInstance.from_config(str(home)) as instance,
        open_workspace(instance, target) as context,
    ):
        for minutes in (0, 16):
            now = (shown + timedelta(minutes=minutes)).astimezone(UTC)
            with freeze_time(now):
                list(launch_scheduled_runs(context, logging.getLogger("scheduler"), now, {}))


def deliver(url: str, call_id: int, started_at: datetime) -> None:
    """Posts what the vendor posts when a call has ended."""
    body = {
        "id": call_id,
        "waitingTime": 18,
        "abandoned": 0,
        "startedDate": started_at.isoformat(),
        "endedDate": (started_at + timedelta(seconds=60)).isoformat(),
    }
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310 - our own server
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - our own server
        assert response.status == 200


def waits_of(lake: Path, day: date, call_id: int) -> list[float | None]:
    """Gives the wait of a call as the table has it."""
    return [row["waiting_seconds"] for row in read_rows(lake, "calls", day) if row["call_id"] == call_id]


def calls_of(vendor: Vendor, day: date) -> set[int]:
    """Lists the calls of a day that is over."""
    return {id_ for id_ in vendor.ids_of_day(day) if vendor.answer(id_, datetime.now(UTC)) is not None}


def fetches(run: dict[str, Any]) -> bool:
    """Tells whether a run has the asset that asks the API."""
    selected = run["assetSelection"]
    return run["jobName"] == "sweep_job" or {"path": ["call_records"]} in (selected or [])


def ended(dev: DagsterDev, tag: str, name: str) -> list[dict[str, Any]]:
    """Lists the runs that succeeded and that somebody started."""
    return dev.runs(statuses=["SUCCESS"], tags=[{"key": tag, "value": name}])


@pytest.mark.timeout(1_500)
def test_everything_that_starts_runs_works_on_postgres(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedule, sensor, webhook, a backfill, twelve runs at once, and the server gone meanwhile: all days complete."""
    zone = zone_at_noon()
    today = datetime.now(zone).date()
    days = [today - timedelta(days=back) for back in range(8, -1, -1)]
    vendor = Vendor(Account(**PLAIN, first_day=days[0], calls_per_day=100, timezone=zone.key, first_id=8_000))
    clock = SettableClock(datetime.now(UTC) - timedelta(hours=3), speed=0)
    meter = Meter(create_app(vendor, token=TOKEN, faults=FaultPlan(latency_seconds=0.002), clock=clock))
    with run_postgres() as postgres, serve(Starlette(routes=[Mount("/", meter)])) as server:
        environment = make_environment(
            tmp_path,
            server.url,
            CALLS_START_DATE=str(days[0]),
            CALLS_TIMEZONE=zone.key,
            CALLS_POLL_SECONDS="5",
            CALLS_API_CONCURRENCY=str(IN_FLIGHT),
            CALLS_WEBHOOK_SECRET=SECRET,
            **postgres.create_database("dagster"),
        )
        home, lake = Path(environment["DAGSTER_HOME"]), Path(environment["CALLS_DATA_DIR"])
        settings = yaml.safe_load((ROOT / "deploy/dagster-postgres.yaml").read_text())
        # A run that the crash hit while it started is given up after five minutes: here after one.
        settings["run_monitoring"] |= {"start_timeout_seconds": 60, "poll_interval_seconds": 5}
        (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
        shutil.copy(tmp_path / "settings.yaml", home / "dagster.yaml")
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        tick_schedule(home, zone)
        with dagster_dev(environment, tmp_path / "settings.yaml") as dev, running(environment) as receiver:
            wait = partial(dev.wait_for, seconds=600)
            wait("the schedule's sweeps", lambda: len(ended(dev, "dagster/schedule_name", "nightly_sweep")) == 2)
            clock.advance(timedelta(hours=2))
            wait("a sweep by the sensor", lambda: ended(dev, "dagster/sensor_name", "new_call_ids"))

            yesterday = days[-2]
            call = vendor.ids_of_day(yesterday)[20]
            payload = vendor.answer(call, datetime.now(UTC))
            assert payload is not None
            deliver(receiver.url, call, datetime.fromtimestamp(payload["started_at"], UTC))
            backfill = dev.backfill(["call_records", *TABLES], [str(day) for day in days[4:7]])
            sweeps = [(["call_records", "calls"], str(day)) for day in days[2:4]]
            tables = [([table], str(yesterday)) for table in (*TABLES, "calls", "call_agents", "call_tags")]
            launched = dev.launch(*sweeps, *tables)
            assert len(launched) == 12
            wait("the first of them", lambda: dev.runs(runIds=launched, statuses=["SUCCESS"]))
            postgres.stop()
            time.sleep(1)
            postgres.start()

            # Runs that were at work may fail at the loss of their storage: what they did is asked for once more.
            wait("the end of the backfill", lambda: dev.backfill_status(backfill) != "REQUESTED")
            wait("the end of all runs", lambda: not dev.unended())
            if dev.runs(statuses=["FAILURE"]):
                again = [(["call_records", "calls"], str(day)) for day in days[2:-1]]
                # The web server may still hold a connection to the server that went; started twice does no harm.
                wait("the start of the repeats", lambda: dev.launch(*again))
                wait("the repeats", lambda: not dev.unended())
            wait("the delivery's row", lambda: waits_of(lake, yesterday, call) == [18])
            for day in days[2:-1]:
                assert {row["call_id"] for row in read_rows(lake, "calls", day)} == calls_of(vendor, day), day
            assert overlaps([run for run in dev.runs() if fetches(run)]) == []
        assert meter.peak <= IN_FLIGHT + PROBES
