"""How cost grows: a tick, a sweep of today and its tables, with days behind, calls of a day, new calls; and its files.

    python benchmarks/growth.py             # QUICK=1: less of both

By [`growth.py`](../benchmarks/growth.py) itself: a lake with raw segments of so many days and so many calls a day is
written, then an account in memory answers. What is measured is ours alone, as CPU seconds of that process. The sweep
finds 200 calls more in today than the one before; or as many as said, in a day of 10,000. The tables are made after
each such sweep, as runs make them; "all calls" is the first time. With days behind, these have tables too: a run also
looks which of them no longer show their raw ("stale days"), and makes `agents`, which is of all days. Files are counted
after so many sweeps of a day that each found new calls: raw files if none were merged, and as runs leave them, which
merge them when the tables show them.
"""

from __future__ import annotations

import asyncio
import gc
import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

from harness import OURS, QUICK, emit

from calls_assets.api import Answer, ClientStats
from calls_assets.derive import publish_agents, publish_day
from calls_assets.ingest import SweepOptions, sweep
from calls_assets.ingest.sweep import probe_new_calls
from calls_assets.lake import Lake, Read

TODAY = date(2026, 1, 31)
ZONE = ZoneInfo("UTC")
NEW = 200
ROUNDS = 3 if QUICK else 7
DAYS_BEHIND = (30, 100) if QUICK else (30, 365, 1_100)
CALLS_A_DAY = (1_000, 10_000) if QUICK else (1_000, 10_000, 100_000, 1_000_000)
NEW_CALLS = (20, 200) if QUICK else (20, 200, 2_000, 20_000)
SWEEPS_A_DAY = (1, 10) if QUICK else (1, 10, 100, 300)
OPTIONS = SweepOptions(
    timezone=ZONE, reread_after=(timedelta(days=7),), id_scan=True, concurrency=64, requests_per_second=1e6
)


class Account:
    """Answers from arithmetic: ids 1, 2, 3 … spread evenly over the days, up to `highest`; room for `more` today."""

    is_paused = False

    def __init__(self, days: int, calls_a_day: int, more: int) -> None:
        self.begin = datetime(TODAY.year, TODAY.month, TODAY.day, tzinfo=UTC) - timedelta(days=days)
        self.step = timedelta(hours=18) / (calls_a_day + 2 * more)
        self.calls_a_day, self.days, self.highest = calls_a_day, days, (days + 1) * calls_a_day
        self.now = self.begin + timedelta(days=days, hours=20)
        self.stats = ClientStats()

    def started_at(self, call_id: int) -> datetime:
        """Tells when a call began."""
        day, place = divmod(call_id - 1, self.calls_a_day)
        if day > self.days:  # new calls of today
            day, place = self.days, call_id - 1 - self.days * self.calls_a_day
        return self.begin + timedelta(days=day) + place * self.step

    def body(self, call_id: int) -> bytes:
        """Gives what the API says of a call."""
        seconds = self.started_at(call_id).timestamp()
        return b'{"calls":{"id":%d,"started_at":%d,"is_ended":true,"duration":60,"all_agents":[{"id":%d}]}}' % (
            call_id,
            seconds,
            1 + call_id % 20,
        )

    def read(self, call_id: int) -> Read:
        """Gives what the lake has of a call."""
        return Read(call_id, self.now, 200, self.started_at(call_id), True, None, self.body(call_id))

    async def fetch(self, call_id: int) -> Answer:
        """Answers at once."""
        self.stats.requests += 1
        if call_id > self.highest:
            return Answer(call_id, self.now, 404, None)
        return Answer(call_id, self.now, 200, self.body(call_id))


def main() -> None:
    """Prints the CPU milliseconds of ticks, sweeps and tables."""
    for days in DAYS_BEHIND:
        measure(days, 1_000, "days behind", days)
        measure_other_days(days)
    for calls in CALLS_A_DAY:
        measure(3, calls, "calls a day", calls)
    for new in NEW_CALLS:
        with make_lake(3, 10_000, new * (ROUNDS + 2)) as (lake, account):
            asyncio.run(sweep_today(lake, account))
            make_tables(lake)
            sweeps, tables = zip(*(run_new(lake, account, new) for _ in range(ROUNDS)), strict=True)
            for metric, taken in (("sweep, CPU ms", sweeps), ("tables, CPU ms", tables)):
                emit("growth with new calls", OURS, metric, taken, x=new, x_label="new calls")
    measure_files()


def measure(days: int, calls_a_day: int, axis: str, value: int) -> None:
    """Measures a tick and sweeps of today."""
    with make_lake(days, calls_a_day, NEW * (ROUNDS + 2)) as (lake, account):

        async def tick() -> None:
            await probe_new_calls(lake, account, now=lambda: account.now, options=OPTIONS)

        asyncio.run(sweep_today(lake, account))
        note = partial(emit, f"growth with {axis}", OURS, x=value, x_label=axis)
        note("tick, CPU ms", [cpu_of(tick()) for _ in range(ROUNDS)])
        note("sweep, nothing new, CPU ms", [cpu_of(sweep_today(lake, account)) for _ in range(ROUNDS)])
        everything = make_tables(lake)
        sweeps, tables = zip(*(run_new(lake, account, NEW) for _ in range(ROUNDS)), strict=True)
        note(f"sweep, {NEW} new, CPU ms", sweeps)
        note("tables, all calls, CPU ms", [everything])
        note(f"tables, {NEW} new, CPU ms", tables)


def measure_other_days(days: int) -> None:
    """Measures what a run with new calls does about the days behind."""
    with make_lake(days, 1_000, NEW * (ROUNDS + 2)) as (lake, account):
        for index in range(days):
            make_tables(lake, account.begin.date() + timedelta(days=index))
        asyncio.run(sweep_today(lake, account))
        make_tables(lake)
        make_agents = partial(publish_agents, lake, unless_current=True)
        make_agents()
        stale, agents = [], []
        for _ in range(ROUNDS):
            run_new(lake, account, NEW)
            stale.append(time_cpu(lake.stale_days))
            agents.append(time_cpu(make_agents))
        for metric, taken in (("stale days, CPU ms", stale), (f"agents, {NEW} new, CPU ms", agents)):
            emit("growth with days behind", OURS, metric, taken, x=days, x_label="days behind")


def measure_files() -> None:
    """Counts the raw files of today after many sweeps with new calls."""
    for metric, is_merged in (("raw files, never merged", False), ("raw files, merged as by runs", True)):
        with make_lake(3, 1_000, 20 * SWEEPS_A_DAY[-1]) as (lake, account):
            for number in range(1, SWEEPS_A_DAY[-1] + 1):
                sweep_new(lake, account, 20)
                if is_merged:
                    lake.compact(TODAY)
                if number in SWEEPS_A_DAY:
                    count = len(lake.segments(TODAY))
                    emit("files of a day", OURS, metric, [count], x=number, x_label="sweeps of the day")


@contextmanager
def make_lake(days: int, calls_a_day: int, more: int) -> Iterator[tuple[Lake, Account]]:
    """Writes a lake of whole days and of today, in which so many calls more can come."""
    root = Path(tempfile.mkdtemp(prefix="growth-"))
    try:
        lake, account = Lake.open(root), Account(days, calls_a_day, more)
        for index in range(days + 1):
            ids = range(index * calls_a_day + 1, (index + 1) * calls_a_day + 1)
            lake.land(account.begin.date() + timedelta(days=index), [account.read(id_) for id_ in ids])
        gc.collect()
        yield lake, account
    finally:
        shutil.rmtree(root)


async def sweep_today(lake: Lake, account: Account) -> None:
    """Sweeps."""
    await sweep(lake, account, [TODAY], options=OPTIONS, now=lambda: account.now, log=lambda _line: None)


def run_new(lake: Lake, account: Account, count: int) -> tuple[float, float]:
    """Has new calls come and does what a run does; gives the CPU milliseconds of the sweep and of the tables."""
    taken = sweep_new(lake, account, count), make_tables(lake)
    lake.compact(TODAY)
    return taken


def make_tables(lake: Lake, day: date = TODAY) -> float:
    """Makes a day's tables; gives the CPU milliseconds."""
    publish = partial(publish_day, timezone=ZONE, reread_after=OPTIONS.reread_after, unless_current=True)
    return time_cpu(partial(publish, lake, day))


def sweep_new(lake: Lake, account: Account, count: int) -> float:
    """Has new calls come, and sweeps; gives the CPU milliseconds."""
    account.highest += count
    account.now += timedelta(seconds=20)
    before = account.stats.requests
    taken = cpu_of(sweep_today(lake, account))
    assert account.stats.requests - before >= count
    return taken


def cpu_of(work: Coroutine[object, object, None]) -> float:
    """Gives the CPU milliseconds of a piece of work."""
    return time_cpu(partial(asyncio.run, work))


def time_cpu(work: Callable[[], object]) -> float:
    """Does the same for a function."""
    before = time.process_time()
    work()
    return 1_000 * (time.process_time() - before)


if __name__ == "__main__":
    main()
