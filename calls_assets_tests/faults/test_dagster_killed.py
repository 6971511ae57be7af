"""Dagster's own processes killed at random while calls go on: two ticks later everything is in the tables."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import chain, cycle, islice
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from calls_assets.simulator import Account, RunningServer, SettableClock, Vendor, create_app, serve
from calls_assets_tests.e2e.dagster_dev import ROOT, DagsterDev, dagster_dev
from calls_assets_tests.e2e.running import TABLES, TOKEN, days_between, make_environment, materialize, read_rows
from calls_assets_tests.e2e.test_dagster_dev import ended_sweeps, zone_at_noon
from calls_assets_tests.faults.counts import IS_TORTURE, SEED, choose, tell

HISTORY = "everything and its history"
VICTIMS = (("worker", HISTORY), ("fork server", "code server"), ("daemon", HISTORY))
"""Who is killed one after the other in a life of Dagster, at the end of which everything is. A run that was at work
then holds the pool for three minutes, unless its history goes: so it does before the fork server's life, which needs a
run."""
LIVES = [(victim,) for victim in islice(cycle(chain(*VICTIMS)), 101)] if IS_TORTURE else [*VICTIMS]
"""In the long form each victim has a life to itself."""
LOOKS = range(5, len(LIVES), 19) if IS_TORTURE else range(len(LIVES) - 1, len(LIVES))
"""The lives after which everything must come: the last one, in the long form behind each victim once."""
PATIENCE_SECONDS = 150
"""For a run to begin: with other work beside it a machine takes long to start Dagster."""
RECOVERY_SECONDS = choose(600, 1_500)
"""For every id to come: a dead run is waited for three minutes, and in the long form a pause may be sixteen."""
WAITS = ("is under way", "failed: waiting")
DAYS_BACK = 3
PLAIN: dict[str, Any] = {"late_share": 0.0, "missing_share": 0.0, "disorder": 0}
"""Behind a hole in the ids the frontier may wait for minutes (`ingest.locate`): that is not what is tested here."""


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    """Gives an account with many calls right now."""
    zone = zone_at_noon()
    first_day = datetime.now(zone).date() - timedelta(days=DAYS_BACK)
    return Vendor(Account(first_day=first_day, calls_per_day=3_000, timezone=zone.key, first_id=70_000, **PLAIN))


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


def list_ids(vendor: Vendor, days: list[date], now: datetime) -> set[int]:
    """Lists the ids of calls of some days in a row that the API has at an instant."""
    zone = ZoneInfo(vendor.account.timezone)
    ids = range(vendor.ids_of_day(days[0]).start - 100, vendor.ids_of_day(days[-1]).stop + 100)
    return {
        id_
        for id_ in ids
        if vendor.answer(id_, now) is not None and vendor.started_at(id_).astimezone(zone).date() in days
    }


def list_shown(lake: Path, days: list[date]) -> set[int]:
    """Lists the ids of calls that the tables show; none twice."""
    shown: list[int] = []
    for day in days:
        with contextlib.suppress(FileNotFoundError):
            shown += [row["call_id"] for row in read_rows(lake, "calls", day, ["call_id"])]
    assert len(shown) == len(set(shown))
    return set(shown)


def root_of(run: dict[str, Any]) -> str:
    """Gives the run that a run repeats, or itself."""
    return str(run["tags"].get("dagster/root_run_id", run["runId"]))


def count_ticks(dev: DagsterDev, since: datetime, left_behind: set[str]) -> int:
    """Counts the ticks of `new_call_ids` since an instant that could do something.

    Not those that were skipped because a run of the day was under way or had just failed, nor those that found nothing
    to do while a run that the faults left behind, or Dagster's repeat of it, had not ended: it holds the pool.
    """
    ends = [run["endTime"] or math.inf for run in dev.runs() if root_of(run) in left_behind]
    return sum(
        bool(tick["runIds"])
        or not (
            tick["endTimestamp"] < max(ends, default=0) or any(reason in (tick["skipReason"] or "") for reason in WAITS)
        )
        for tick in dev.ticks()
        if (tick["endTimestamp"] or 0) >= since.timestamp()
    )


def wait_for_ids(dev: DagsterDev, lake: Path, days: list[date], ids: set[int], since: datetime) -> int:
    """Waits until the tables show all ids; gives the number of ticks that took since an instant: two at most."""
    dev.wait_for("the web server", dev.is_up, 180)
    left_behind = {root_of(run) for run in dev.runs(statuses=["QUEUED", "STARTING", "STARTED", "CANCELING"])}

    def look() -> tuple[int] | None:
        ticks = count_ticks(dev, since, left_behind)
        missing = ids - list_shown(lake, days)
        assert not missing or ticks <= 2, f"ids missing after {ticks} ticks: {len(missing)}"
        return None if missing else (ticks,)

    return dev.wait_for("every id", look, RECOVERY_SECONDS)[0]


@pytest.mark.timeout(1_200)
def test_everything_arrives_whatever_is_killed(vendor: Vendor, server: RunningServer, tmp_path: Path) -> None:
    """Workers, their fork server, code server, daemon, all at once, the history deleted: two ticks later all is there.

    The lake begins with the first of four days, so that the sensor has three to make up for.
    """
    random = Random(SEED)
    today = datetime.now(zone_at_noon()).date()
    days = days_between(today - timedelta(days=DAYS_BACK), today)
    environment = make_environment(
        tmp_path,
        server.url,
        CALLS_START_DATE=str(today - timedelta(days=10)),
        CALLS_TIMEZONE=vendor.account.timezone,
        CALLS_POLL_SECONDS="5",
        CALLS_API_REQUESTS_PER_SECOND="400",
    )
    lake, home = Path(environment["CALLS_DATA_DIR"]), Path(environment["DAGSTER_HOME"])
    seeded = materialize(environment, "--partition", days[0].isoformat())
    assert seeded.returncode == 0, seeded.stderr[-3000:]
    killed: Counter[str] = Counter()
    behind, ticks = [], []
    for life, victims in enumerate(LIVES):
        with dagster_dev(environment) as dev:
            dev.wait_for("the web server", dev.is_up, 180)
            time.sleep(random.uniform(0, 6))
            for victim in victims:
                killed[kill(dev, victim, random)] += 1
                time.sleep(random.uniform(0, 2))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(dev.process.pid, signal.SIGKILL)
        if HISTORY in victims:
            shutil.rmtree(home)
            home.mkdir()
        if life in LOOKS:
            now = datetime.now(UTC)
            ids = list_ids(vendor, days, now)
            behind.append(len(ids - list_shown(lake, days)))
            with dagster_dev(environment) as dev:
                ticks.append(wait_for_ids(dev, lake, days, ids, now))
    tell("dagster_killed", lives=len(LIVES), killed=dict(killed), days=len(days), behind=behind, ticks=ticks, missing=0)
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
    assert list_shown(Path(environment["CALLS_DATA_DIR"]), [day]) == list_ids(vendor, [day], datetime.now(UTC))


@dataclass
class Still:
    """A deployment on an account that stands still until its clock is set.

    Attributes:
        vendor: The account.
        clock: Its clock.
        environment: Of the deployment.
        days: Days of calls, the last one today.
    """

    vendor: Vendor
    clock: SettableClock
    environment: dict[str, str]
    days: list[date]

    @property
    def lake(self) -> Path:
        """Where the rows come."""
        return Path(self.environment["CALLS_DATA_DIR"])

    def ids(self, days: list[date]) -> set[int]:
        """Lists the ids of calls of some days that the API has."""
        return list_ids(self.vendor, days, self.clock())

    def files(self) -> set[Path]:
        """Lists the files of raw of the days before today."""
        return {path for day in self.days[:-1] for path in self.lake.glob(f"raw/call_records/call_date={day}/*")}


@pytest.fixture
def still(vendor: Vendor, tmp_path: Path) -> Iterator[Still]:
    """Gives an account that stands still, slow enough for three days to last a minute."""
    clock = SettableClock(datetime.now(UTC) - timedelta(minutes=20))
    today = clock().astimezone(ZoneInfo(vendor.account.timezone)).date()
    days = days_between(today - timedelta(days=DAYS_BACK), today)
    with serve(create_app(vendor, token=TOKEN, clock=clock)) as server:
        environment = make_environment(
            tmp_path,
            server.url,
            CALLS_START_DATE=str(days[0]),
            CALLS_TIMEZONE=vendor.account.timezone,
            CALLS_POLL_SECONDS="5",
            CALLS_REREAD_AFTER="1h",
            CALLS_API_REQUESTS_PER_SECOND="200",
        )
        yield Still(vendor, clock, environment, days)


def end_by_hand(dev: DagsterDev, still: Still) -> str:
    """Sweeps today, starts a backfill of the days before, and ends the run for one more call while it waits behind.

    Returns:
        The backfill, at work.
    """
    dev.wait_for("a first sweep", lambda: ended_sweeps(dev, "SUCCESS"), 300)
    backfill = dev.backfill(["call_records", *TABLES], [day.isoformat() for day in still.days[:-1]])
    tags = [{"key": "dagster/backfill", "value": backfill}]
    dev.wait_for("the backfill's run", lambda: dev.runs(tags=tags, statuses=["STARTED"]), PATIENCE_SECONDS)
    highest = still.vendor.highest_id(still.clock())
    assert highest is not None
    still.clock.set(still.vendor.started_at(highest + 1))
    queued = {"pipelineName": "sweep_job", "statuses": ["QUEUED"]}
    (run, *_) = dev.wait_for("a run for one more call", lambda: dev.runs(**queued), PATIENCE_SECONDS)
    dev.terminate(run["runId"])
    assert [run["runId"] for run in dev.runs(pipelineName="sweep_job", statuses=["CANCELED"])] == [run["runId"]]
    return backfill


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("victim", ["worker and daemon", pytest.param("everything", marks=pytest.mark.long)])
def test_a_run_ended_by_hand_and_a_backfill_that_is_killed_need_no_human(still: Still, victim: str) -> None:
    """Dagster is started again, no more: the run is asked for by the next tick, and the backfill goes on where it was.

    What had landed is not asked for again.
    """
    with dagster_dev(still.environment) as dev:
        backfill = end_by_hand(dev, still)
        landed = still.files()
        dev.wait_for("answers that landed", lambda: still.files() - landed, PATIENCE_SECONDS)
        if victim == "everything":
            os.killpg(dev.process.pid, signal.SIGKILL)
        else:
            processes = dev.processes()
            for pid in (*processes["worker"], *processes["daemon"]):
                os.kill(pid, signal.SIGKILL)
        dev.process.wait(PATIENCE_SECONDS)
    now, today, ids = datetime.now(UTC), still.days[-1:], still.ids(still.days)
    behind = len(ids - list_shown(still.lake, still.days))
    with dagster_dev(still.environment) as dev:
        ticks = wait_for_ids(dev, still.lake, today, still.ids(today), now)
        dev.wait_for("the backfill", lambda: dev.backfill_status(backfill) == "COMPLETED_SUCCESS", RECOVERY_SECONDS)
    assert list_shown(still.lake, still.days) == ids
    for day in still.days[:-1]:
        assert {(row["is_final"], row["read_count"]) for row in read_rows(still.lake, "calls", day)} == {(True, 1)}
    tell("dagster_interrupted", victim=victim, behind=behind, ticks=ticks, missing=0)


@pytest.mark.long
def test_run_keys_as_memory_are_caught(still: Still, tmp_path: Path) -> None:
    """A sensor that leaves it to run keys what it has asked for never comes back to the run that was ended by hand."""
    workspace = tmp_path / "twin.yaml"
    module = {"module_name": "calls_assets_tests.faults.run_key_twin", "working_directory": str(ROOT)}
    workspace.write_text(json.dumps({"load_from": [{"python_module": module | {"location_name": "calls_assets"}}]}))
    with dagster_dev(still.environment, workspace=workspace) as dev:
        end_by_hand(dev, still)
        today = still.days[-1:]
        with pytest.raises(AssertionError, match="ids missing after 3 ticks: 1"):
            wait_for_ids(dev, still.lake, today, still.ids(today), datetime.now(UTC))
