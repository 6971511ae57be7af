"""A crowd of processes over one lake: writers that do whole runs of the same days, readers that watch them.

What belongs here: what each process does and writes down. What stays out: how many there are, and the verdict at rest.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from multiprocessing.context import BaseContext
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from random import Random
from typing import TypeAlias

import pyarrow as pa

from calls_assets.lake import DAILY_TABLES, Lake, LakeError, Read, Segment
from calls_assets_tests.faults import world as w

Opener: TypeAlias = Callable[[Path], Lake]
Publisher: TypeAlias = Callable[[Lake, Sequence[date]], None]
Counter: TypeAlias = "Synchronized[int]"
_TRY_AGAIN = 30
COMMITS = ("landings", "compactions", "publishes")
"""What counts as a commit: a segment that is new, segments merged into one, a day of which a table was replaced."""


@dataclass
class Diary:
    """What one process did and saw.

    Attributes:
        landed: Reads reported to it as landed: day, id, instant, status.
        problems: What must not happen.
    """

    landed: list[tuple[str, int, int, int]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Writes it down."""
        path.write_text(json.dumps({"landed": self.landed, "problems": self.problems}))


@dataclass(frozen=True)
class Crowd:
    """What the processes share.

    Attributes:
        root: The lake.
        world: The account.
        open_lake: Opens the lake.
        publish: Publishes days.
        counters: By all so far: each kind of `COMMITS`, days published `unchanged`, `reads` of tables and of raw,
            `retries` of publishes that others kept from ending, `failures` of processes.
        wanted: Commits and reads after which everyone stops.
    """

    root: Path
    world: w.World
    open_lake: Opener
    publish: Publisher
    counters: Mapping[str, Counter]
    wanted: tuple[int, int]

    def is_over(self) -> bool:
        """Tells whether there was enough of both, or someone failed."""
        is_enough = count_commits(self.counters) >= self.wanted[0] and self.counters["reads"].value >= self.wanted[1]
        return is_enough or self.counters["failures"].value > 0

    def write(self, seed: int, diary_path: Path) -> None:
        """Does runs until it is over: sweeps, lands, compacts, publishes."""
        random, diary = Random(seed), Diary()
        try:
            while not self.is_over():
                self._run_once(random, diary)
        except Exception:  # noqa: BLE001 - the verdict is made elsewhere
            self._fail(diary)
        diary.save(diary_path)

    def _fail(self, diary: Diary) -> None:
        diary.problems.append(f"a process failed: {traceback.format_exc()}")
        add(self.counters["failures"])

    def _run_once(self, random: Random, diary: Diary) -> None:
        lake = self.open_lake(self.root)
        assert isinstance(lake, WatchedLake)
        lake.diary, lake.counters, lake.replaced = diary, self.counters, set()
        days = random.sample(self.world.days, random.randint(1, len(self.world.days)))
        time = self.world.early + timedelta(hours=random.randrange(200), microseconds=random.randrange(10**6))
        match random.randrange(6):
            case 0:
                for day in days:
                    lake.compact(day)
            case 1:
                self._publish(lake, days)
            case kind:
                report = w.sweep_days(lake, self.world.vendor(time), days, reread_final=kind > 3)
                touched = sorted(report.touched_days)
                for day in touched if kind == 2 else ():
                    lake.compact(day)
                self._publish(lake, sorted({*days, *touched}))
                for day in touched:
                    lake.compact(day)

    def _publish(self, lake: WatchedLake, days: Sequence[date]) -> None:
        for attempt in range(_TRY_AGAIN):
            try:
                self.publish(lake, days)
            except LakeError as error:
                if "keep changing" not in str(error) or attempt == _TRY_AGAIN - 1:
                    raise
                add(self.counters["retries"])
            else:
                break
        add(self.counters["publishes"], len(lake.replaced))
        add(self.counters["unchanged"], len({*days} - lake.replaced))
        lake.replaced.clear()

    def read(self, seed: int, diary_path: Path) -> None:
        """Reads until it is over: every file whole, and of raw never less than was seen before."""
        random, diary = Random(seed), Diary()
        seen: dict[date, set[tuple[int, bytes]]] = {day: set() for day in self.world.days}
        try:
            while not self.is_over():
                self._read_once(random, diary, seen)
                add(self.counters["reads"])
        except Exception:  # noqa: BLE001 - the verdict is made elsewhere
            self._fail(diary)
        diary.save(diary_path)

    def _read_once(self, random: Random, diary: Diary, seen: dict[date, set[tuple[int, bytes]]]) -> None:
        lake = Lake.open(self.root)
        day, name = random.choice(self.world.days), random.choice((*DAILY_TABLES, "raw", "raw", "agents"))
        if name == "raw":
            versions = lake.read_day(day).versions.to_pylist()
            found = {(row["call_id"], row["content_hash"]) for row in versions}
            if gone := seen[day] - found:
                diary.problems.append(f"a reader misses {len(gone)} of {len(seen[day])} answers seen before")
            seen[day] |= found
        elif name == "agents":
            lake.read_table(name)
        else:
            table = lake.read_table(name, day)
            if name == "calls" and len(set(table["call_id"].to_pylist())) != len(table):
                diary.problems.append("a reader sees a call twice in a day")


class WatchedLake(Lake):
    """A lake that writes down what it has reported as landed, and counts what it has really changed."""

    diary: Diary
    counters: Mapping[str, Counter]
    replaced: set[date]

    def land(self, day: date, reads: Sequence[Read]) -> Segment:
        """Lands, then tells."""
        segment = super().land(day, reads)
        self.diary.landed += [(str(day), r.call_id, w.to_us(r.fetched_at), r.http_status) for r in reads]
        add(self.counters["landings"])
        return segment

    def compact(self, day: date) -> bool:
        """Merges, then tells."""
        has_merged = super().compact(day)
        add(self.counters["compactions"], int(has_merged))
        return has_merged

    def put_table(self, name: str, day: date | None, table: pa.Table) -> tuple[bool, str]:
        """Writes, then keeps in mind the day of which a file was replaced."""
        is_replaced, seal = super().put_table(name, day, table)
        if is_replaced and day is not None:
            self.replaced.add(day)
        return is_replaced, seal


def make_counters(context: BaseContext) -> dict[str, Counter]:
    """Gives what a crowd counts with, all zero."""
    return {name: context.Value("q") for name in (*COMMITS, "unchanged", "reads", "retries", "failures")}


def add(counter: Counter, count: int = 1) -> None:
    """Counts on."""
    with counter.get_lock():
        counter.value += count


def count_commits(counters: Mapping[str, Counter]) -> int:
    """Gives how often something was really created or replaced."""
    return sum(counters[name].value for name in COMMITS)
