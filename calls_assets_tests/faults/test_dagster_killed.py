"""Dagster's own processes killed at random while calls go on: two ticks later everything is in the tables."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from calls_assets.defs.runs import SILENT_FOR
from calls_assets.simulator import Account, RunningServer, Vendor, create_app, serve
from calls_assets_tests.e2e.dagster_dev import DagsterDev, dagster_dev
from calls_assets_tests.e2e.running import TOKEN, make_environment, materialize, read_rows
from calls_assets_tests.e2e.test_dagster_dev import ended_sweeps, zone_at_noon
from calls_assets_tests.faults.counts import SEED, choose, tell

CYCLES = choose(6, 102)
VICTIMS = ("worker", "fork server", "code server", "daemon", "everything", "everything and its history")
PATIENCE_SECONDS = 150
"""For a run to begin: with other work beside it a machine takes long to start Dagster."""
DAYS_BACK = 3
PLAIN: dict[str, Any] = {"late_share": 0.0, "missing_share": 0.0, "disorder": 0}
"""Behind a hole in the ids the frontier may wait for minutes (`ingest.locate`): that is not what is tested here."""


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    """Gives an account with many calls right now."""
    zone = zone_at_noon()
    first_day = datetime.now(zone).date() - timedelta(days=DAYS_BACK)
    return Vendor(Account(first_day=first_day, calls_per_day=3_000, timezone=zone.key, first_id=300, **PLAIN))


@pytest.fixture(scope="module")
def server(vendor: Vendor) -> Iterator[RunningServer]:
    """Serves it, with some latency: so that runs last long enough to be killed."""
    with serve(create_app(vendor, token=TOKEN)) as running:
        yield running


def kill(dev: DagsterDev, victim: str, random: Random) -> str:
    """Kills one process, or all; gives what it was."""
    processes = dev.processes()
    if victim in {"worker", "fork server"}:
        until = time.monotonic() + PATIENCE_SECONDS
        while not processes["worker"] and time.monotonic() < until:
            time.sleep(0.05)
            processes = dev.processes()
        time.sleep(random.uniform(0, 0.3))
    pids = processes.get(victim) or []
    if not pids:
        os.killpg(dev.process.pid, signal.SIGKILL)
        return "everything"
    with contextlib.suppress(ProcessLookupError):
        os.kill(random.choice(pids), signal.SIGKILL)
    return victim


def find_missing(vendor: Vendor, lake: Path, days: list[date], until: datetime) -> set[int]:
    """Lists the ids that the API had at an instant and the tables do not show."""
    zone = ZoneInfo(vendor.account.timezone)
    ids = range(vendor.ids_of_day(days[0]).start - 100, vendor.ids_of_day(days[-1]).stop + 100)
    expected = {
        id_
        for id_ in ids
        if vendor.answer(id_, until) is not None and vendor.started_at(id_).astimezone(zone).date() in days
    }
    shown: set[int] = set()
    for day in days:
        with contextlib.suppress(FileNotFoundError):
            rows = [row["call_id"] for row in read_rows(lake, "calls", day)]
            assert len(rows) == len(set(rows))
            shown |= set(rows)
    return expected - shown


@pytest.mark.timeout(1_200)
def test_everything_arrives_whatever_is_killed(vendor: Vendor, server: RunningServer, tmp_path: Path) -> None:
    """Workers, their fork server, code server, daemon, all at once, the history deleted: no id lost without a human."""
    random = Random(SEED)
    zone = zone_at_noon()
    today = datetime.now(zone).date()
    environment = make_environment(
        tmp_path,
        server.url,
        CALLS_START_DATE=str(today - timedelta(days=10)),
        CALLS_TIMEZONE=vendor.account.timezone,
        CALLS_POLL_SECONDS="5",
        CALLS_API_REQUESTS_PER_SECOND="400",
    )
    lake, home = Path(environment["CALLS_DATA_DIR"]), Path(environment["DAGSTER_HOME"])
    killed: Counter[str] = Counter()
    for cycle in range(CYCLES):
        victim = VICTIMS[cycle % len(VICTIMS)]
        with dagster_dev(environment) as dev:
            dev.wait_for("the web server", dev.is_up, 180)
            time.sleep(random.uniform(0, 6))
            killed[kill(dev, victim, random)] += 1
            time.sleep(random.uniform(0, 2))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(dev.process.pid, signal.SIGKILL)
        if victim == "everything and its history":
            shutil.rmtree(home)
            home.mkdir()
    until = datetime.now(UTC)
    with dagster_dev(environment) as dev:
        before = len(dev.wait_for("the web server", lambda: [*ended_sweeps(dev, "SUCCESS"), ""], 180))
        # A run of the last cycle that is still shown as started is ended when it has been silent long enough.
        seconds = 120 + SILENT_FOR.total_seconds()
        dev.wait_for("two sweeps", lambda: len(ended_sweeps(dev, "SUCCESS")) > before, seconds)
    missing = find_missing(vendor, lake, [today], until)
    tell("dagster_killed", cycles=CYCLES, killed=dict(killed), missing=len(missing))
    assert not missing
    assert {"worker", "fork server", "code server", "daemon", "everything"} <= set(killed)


def test_runs_of_one_day_started_together_are_harmless(vendor: Vendor, server: RunningServer, tmp_path: Path) -> None:
    """Two commands at once, which Dagster's queue does not hold apart: every call once."""
    day = datetime.now(zone_at_noon()).date() - timedelta(days=2)
    environment = make_environment(
        tmp_path, server.url, CALLS_START_DATE=str(day), CALLS_TIMEZONE=vendor.account.timezone
    )
    command = [
        *(sys.executable, "-m", "dagster", "asset", "materialize", "-m", "calls_assets.definitions"),
        *("--select", "*", "--partition", day.isoformat()),
    ]
    runs = []
    for name in ("one", "other"):
        # A home each: Dagster cannot make the databases of one home twice at once.
        home = tmp_path / name
        home.mkdir()
        variables = environment | {"DAGSTER_HOME": str(home)}
        with (tmp_path / f"{name}.log").open("wb") as log:
            runs.append(subprocess.Popen(command, env=variables, stdout=log, stderr=log))
    codes = [run.wait(200) for run in runs]
    assert codes == [0, 0], [(tmp_path / f"{name}.log").read_text()[-3000:] for name in ("one", "other")]
    lake = Path(environment["CALLS_DATA_DIR"])
    assert not find_missing(vendor, lake, [day], datetime.now(UTC))


def test_a_backfill_that_is_killed_goes_on_where_it_was(vendor: Vendor, server: RunningServer, tmp_path: Path) -> None:
    """A range killed in the middle, then started again: what had landed is not asked for again."""
    today = datetime.now(zone_at_noon()).date()
    days = [today - timedelta(days=back) for back in (3, 2, 1)]
    environment = make_environment(
        tmp_path,
        server.url,
        CALLS_START_DATE=str(days[0]),
        CALLS_TIMEZONE=vendor.account.timezone,
        CALLS_BACKFILL_DAYS_PER_RUN="0",
        CALLS_API_REQUESTS_PER_SECOND="1000",
    )
    lake = Path(environment["CALLS_DATA_DIR"])
    arguments = ("--partition-range", f"{days[0]}...{days[-1]}")
    command = [
        *(sys.executable, "-m", "dagster", "asset", "materialize", "-m", "calls_assets.definitions"),
        *("--select", "*", *arguments),
    ]
    run = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while len(list(lake.glob("raw/call_records/*/*.parquet"))) < 4 and time.monotonic() < until:
        time.sleep(0.05)
    run.kill()
    assert run.wait() == -signal.SIGKILL
    landed = set(lake.glob("raw/call_records/*/*.parquet"))
    assert landed
    again = materialize(environment, *arguments)
    assert again.returncode == 0, again.stderr[-3000:]
    assert not find_missing(vendor, lake, days, datetime.now(UTC))
    for day in days:
        rows = read_rows(lake, "calls", day)
        assert all(row["read_count"] == 1 for row in rows if row["is_final"])
