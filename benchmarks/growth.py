"""How cost grows: the sensor's tick and a sweep of today, with the days behind and with the calls of a day.

    python benchmarks/growth.py             # QUICK=1: less of both

A lake with raw segments of so many days and so many calls a day is written, then an account in memory answers: what is
measured is ours alone, as CPU seconds of this process. The sweep finds `NEW` calls more in today than the one before.
"""

from __future__ import annotations

import asyncio
import gc
import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

from harness import OURS, QUICK, emit

from calls_assets.api import Answer, ClientStats
from calls_assets.ingest import SweepOptions, sweep
from calls_assets.ingest.sweep import probe_new_calls
from calls_assets.lake import Lake, Read

TODAY = date(2026, 1, 31)
ZONE = ZoneInfo("UTC")
NEW = 200
ROUNDS = 3 if QUICK else 7
DAYS_BEHIND = (30, 100) if QUICK else (30, 365, 1_100)
CALLS_A_DAY = (1_000, 10_000) if QUICK else (1_000, 10_000, 100_000, 1_000_000)
OPTIONS = SweepOptions(
    timezone=ZONE, reread_after=(timedelta(days=7),), id_scan=True, concurrency=64, requests_per_second=1e6
)


class Account:
    """Answers from arithmetic: ids 1, 2, 3 … spread evenly over the days, up to `highest`."""

    is_paused = False

    def __init__(self, days: int, calls_a_day: int) -> None:
        self.begin = datetime(TODAY.year, TODAY.month, TODAY.day, tzinfo=UTC) - timedelta(days=days)
        self.step = timedelta(hours=18) / (calls_a_day + 2 * NEW * (ROUNDS + 2))
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
        return b'{"calls":{"id":%d,"started_at":%d,"is_ended":true,"duration":60}}' % (call_id, seconds)

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
    """Prints the CPU milliseconds of ticks and sweeps."""
    for days in DAYS_BEHIND:
        measure(days, 1_000, "days behind", days)
    for calls in CALLS_A_DAY:
        measure(3, calls, "calls a day", calls)


def measure(days: int, calls_a_day: int, axis: str, value: int) -> None:
    """Writes a lake and measures a tick and a sweep of today on it."""
    root = Path(tempfile.mkdtemp(prefix="growth-"))
    try:
        lake, account = Lake.open(root), Account(days, calls_a_day)
        for index in range(days + 1):
            ids = range(index * calls_a_day + 1, (index + 1) * calls_a_day + 1)
            lake.land(account.begin.date() + timedelta(days=index), [account.read(id_) for id_ in ids])
        gc.collect()

        async def tick() -> None:
            await probe_new_calls(lake, account, now=lambda: account.now, options=OPTIONS)

        async def sweep_today() -> None:
            await sweep(lake, account, [TODAY], options=OPTIONS, now=lambda: account.now, log=lambda _line: None)

        asyncio.run(sweep_today())
        note = partial(emit, f"growth with {axis}", OURS, x=value, x_label=axis)
        note("tick, CPU ms", [cpu_of(tick) for _ in range(ROUNDS)])
        note("sweep, nothing new, CPU ms", [cpu_of(sweep_today) for _ in range(ROUNDS)])
        note(f"sweep, {NEW} new, CPU ms", list(sweep_new(lake, account, sweep_today)))
    finally:
        shutil.rmtree(root)


def sweep_new(
    lake: Lake, account: Account, sweep_today: Callable[[], Coroutine[object, object, None]]
) -> Iterator[float]:
    """Has new calls come, sweeps, compacts: as runs do."""
    for _ in range(ROUNDS):
        account.highest += NEW
        account.now += timedelta(minutes=5)
        before = account.stats.requests
        yield cpu_of(sweep_today)
        assert account.stats.requests - before >= NEW
        lake.compact(TODAY)


def cpu_of(work: Callable[[], Coroutine[object, object, None]]) -> float:
    """Gives the CPU milliseconds of a piece of work."""
    before = time.process_time()
    asyncio.run(work())
    return 1_000 * (time.process_time() - before)


if __name__ == "__main__":
    main()
