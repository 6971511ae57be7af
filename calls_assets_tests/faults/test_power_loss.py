"""Power loss: at every moment of a lake's life, every state that a crash may leave of what is not fsynced.

The operations of real sweeps, compactions and publishes are recorded; a model of the disk enumerates the states. In
each of them every file must be whole, and what was reported as landed or written must be there; from a sample of them
one more sweep and publish must complete the days.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from random import Random

import pytest

from calls_assets.lake import CorruptFileError, Lake, LocalStorage
from calls_assets.lake.parquet import decode
from calls_assets_tests.faults import world as w
from calls_assets_tests.faults.counts import SEED, choose, tell
from calls_assets_tests.faults.disk import Disk, MemoryStorage, State
from calls_assets_tests.faults.recorder import (
    DiedError,
    Entry,
    Event,
    Landed,
    MakeDirectory,
    RecordedLake,
    Recorder,
    Replaced,
    SyncDirectory,
    SyncFile,
)
from calls_assets_tests.faults.twins import InPlaceStorage

pytestmark = pytest.mark.timeout(900)
_DAY = re.compile(r"call_date=([0-9-]{10})")
_TWIN_EVENTS = 120


def live(lake: Lake, world: w.World) -> None:
    """A lake's life: swept, published, swept again with changes, published again, compacted."""
    for time in (world.early, world.late):
        w.sweep_days(lake, world.vendor(time), world.days[:1])
        w.run_days(lake, world.vendor(time), world.days)


def record(world: w.World, storage_type: type[LocalStorage] = LocalStorage) -> list[Event]:
    """Lives a life on a real directory; gives the events."""
    with w.fast_directory() as root:
        recorder = Recorder(root)
        with recorder.installed():
            live(RecordedLake(storage_type(root), recorder.events), world)
        return recorder.events


@dataclass
class Examination:
    """Questions the states of one life.

    Attributes:
        world: The account.
        recoveries: How many different states are completed by a sweep and publish.
        states: States seen.
        different: Different ones among them.
        recovered: States completed.
        violations: What was wrong.
    """

    world: w.World
    recoveries: int
    states: int = 0
    different: int = 0
    recovered: int = 0
    violations: list[str] = field(default_factory=list)

    def run(self, events: Iterable[Event], random: Random) -> Examination:
        """Enumerates the states after every event and questions the different ones."""
        disk, seen = Disk(), dict[State, int]()
        landed: set[w.StoredRead] = set()
        reported: dict[str, int] = {}
        newest: dict[str, int] = {}
        for event in events:
            is_report = isinstance(event, Landed | Replaced)
            if isinstance(event, Landed):
                landed |= event.reads
            elif isinstance(event, Replaced):
                reported[event.key] = newest[event.key]
            elif isinstance(event, Entry) and event.inode is not None:
                newest[f"{event.directory}/{event.name}"] = event.inode
            if not disk.take(event) and not is_report:
                continue
            reports = len(landed) + len(reported)
            for state in disk.states(random):
                self.states += 1
                # A state that was fine is asked again only after more was reported.
                if seen.get(state) != reports:
                    self.different += state not in seen
                    seen[state] = reports
                    self.violations += _question(state, landed, reported)
        chosen = random.sample(list(seen), min(self.recoveries, len(seen)))
        for state in chosen:
            self.recovered += 1
            self.violations += _complete(state, self.world)
        return self


def _question(state: State, landed: set[w.StoredRead], reported: dict[str, int]) -> list[str]:
    """Asks whether every file is whole, and everything reported is there."""
    problems, reads, inodes = [], set[w.StoredRead](), dict[str, int]()
    for key, inode, content in state:
        inodes[key] = inode
        found = _parse(key, content)
        if isinstance(found, str):
            problems.append(f"unreadable: {key}: {found}")
        elif found:
            day = date.fromisoformat(_DAY.findall(key)[0])
            reads |= {(day, *read) for read in found}
    if lost := landed - reads:
        problems.append(f"lost: {len(lost)} landed reads")
    old = [key for key, inode in reported.items() if inodes.get(key, 0) < inode]
    return problems + [f"lost: {key} as it was reported" for key in old]


@lru_cache(maxsize=10_000)
def _parse(key: str, content: bytes) -> str | frozenset[tuple[int, int, int]]:
    """Reads a file; gives a segment's reads, or what is wrong."""
    try:
        if key.endswith(".json"):
            json.loads(content)
            return frozenset()
        rows = decode(key, content)
    except (CorruptFileError, ValueError) as error:
        return str(error)
    if not key.startswith("raw/"):
        return frozenset()
    return frozenset(
        (row["call_id"], w.to_us(moment), row["http_status"]) for row in rows.to_pylist() for moment in row["reads"]
    )


def _complete(state: State, world: w.World) -> list[str]:
    """Sweeps and publishes the days of a lake that a crash left."""
    lake, vendor = Lake(MemoryStorage({key: content for key, _, content in state})), world.vendor(world.late)
    try:
        w.run_days(lake, vendor, world.days)
        problems = w.find_differences(lake, vendor, world.days)
    except Exception as error:  # noqa: BLE001 - a recovery that fails is a violation
        problems = [f"{type(error).__name__}: {error}"]
    return [f"not completed: {problem}" for problem in problems]


def test_every_state_a_power_loss_may_leave_is_whole() -> None:
    """Nothing torn, nothing reported and lost, and the next sweep and publish complete the days."""
    wanted, lives, total = choose(3_000, 100_000), 0, Examination(w.World.draw(Random(SEED)), 0)
    while total.states < wanted:
        random = Random(SEED + lives)
        world = w.World.draw(random, calls_per_day=random.choice((4, 8)), days=random.choice((2, 3)))
        one = Examination(world, choose(20, 20)).run(record(world), random)
        lives += 1
        total.states += one.states
        total.different += one.different
        total.recovered += one.recovered
        total.violations += one.violations
    counts = {"states": total.states, "different": total.different, "completed": total.recovered, "lives": lives}
    tell("power_loss", **counts, violations=len(total.violations))
    assert total.violations == []


def test_what_a_dead_writer_left_half_durable_endangers_no_reads() -> None:
    """A writer dies before a directory is fsynced, the next one goes on, then the power fails: no landed read is lost.

    A table that the dead writer moved into place, and the next one found as it should be, may be the old one again:
    publishing the day makes it anew.
    """
    world, deaths, total, rebuilt = w.World.draw(Random(SEED)), 0, Examination(w.World.draw(Random(SEED)), 0), 0
    moments = [at for at, event in enumerate(record(world)) if isinstance(event, SyncDirectory)]
    for dies_at in moments[: choose(12, 300)]:
        with w.fast_directory() as root:
            recorder = Recorder(root, dies_at)
            with recorder.installed():
                with pytest.raises(DiedError):
                    live(RecordedLake(LocalStorage(root), recorder.events), world)
                recorder.survive()
                live(RecordedLake(LocalStorage(root), recorder.events), world)
        one = Examination(world, 5).run(recorder.events, Random(SEED))
        fatal = [text for text in one.violations if not text.startswith("lost: tables/")]
        deaths += 1
        rebuilt += len(one.violations) - len(fatal)
        total.states += one.states
        total.recovered += one.recovered
        total.violations += fatal
    counts = {"deaths": deaths, "states": total.states, "completed": total.recovered, "old_tables": rebuilt}
    tell("power_loss after a death", **counts, violations=len(total.violations))
    assert total.violations == []


def without(*kinds: type[Event]) -> Callable[[list[Event]], list[Event]]:
    """Gives a protocol that leaves out some fsyncs."""
    return lambda events: [event for event in events if not isinstance(event, kinds)]


def without_parents(events: list[Event]) -> list[Event]:
    """Gives a protocol that fsyncs no directory in which it has just made another."""
    return [
        event
        for before, event in zip([None, *events], events, strict=False)
        if not (isinstance(event, SyncDirectory) and isinstance(before, MakeDirectory))
    ]


@pytest.mark.parametrize(
    ("storage_type", "change", "symptoms"),
    [
        (InPlaceStorage, without(), {"unreadable"}),
        (LocalStorage, without(SyncFile, SyncDirectory), {"unreadable", "lost"}),
        (LocalStorage, without(SyncFile), {"unreadable"}),
        (LocalStorage, without(SyncDirectory), {"lost"}),
        (LocalStorage, without_parents, {"lost"}),
    ],
    ids=["in place", "no fsync", "directory fsync only", "file fsync only", "no fsync of new directories' parents"],
)
def test_broken_protocols_are_caught(
    storage_type: type[LocalStorage], change: Callable[[list[Event]], list[Event]], symptoms: set[str]
) -> None:
    """Each known-bad protocol shows its known symptom."""
    world = w.World.draw(Random(SEED))
    events = change(record(world, storage_type))[:_TWIN_EVENTS]
    found = Examination(world, 0).run(events, Random(SEED))
    caught = {text.partition(":")[0] for text in found.violations}
    tell("power_loss twin", symptoms=sorted(caught), states=found.states, caught=len(found.violations))
    assert caught >= symptoms
