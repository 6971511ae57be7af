"""Concurrency: eight writers do runs of the same days while four readers watch.

Nobody may fail or see a torn file, no landed read may be lost, and at rest the tables are what a rebuild gives.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest

from calls_assets.derive import derive_day, publish_agents
from calls_assets.lake import DAILY_TABLES, Lake
from calls_assets.lake.raw import merge_rows
from calls_assets_tests.faults import world as w
from calls_assets_tests.faults.counts import SEED, choose, tell
from calls_assets_tests.faults.crowd import COMMITS, Crowd, Opener, Publisher, WatchedLake, count_commits, make_counters
from calls_assets_tests.faults.twins import SlowInPlaceStorage
from calls_assets_tests.ingest.model import RUNGS

pytestmark = [
    # Forking is the method; a child does nothing but its part.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.timeout(900),
]
_WRITERS, _READERS = 8, 4


def gather(
    root: Path,
    wanted: tuple[int, int],
    open_lake: Opener = WatchedLake.open,
    publish: Publisher = w.publish_days,
    days: int = 2,
) -> tuple[dict[str, int], list[str]]:
    """Lets the crowd work; gives what was done, and the violations."""
    world = w.World.draw(Random(SEED), days=days)
    lake = Lake.open(root / "lake")
    w.sweep_and_compact(lake, world.vendor(world.early), world.days)
    w.publish_days(lake, world.days)
    context = get_context("fork")
    counters = make_counters(context)
    crowd = Crowd(root / "lake", world, open_lake, publish, counters, wanted)
    tasks = [crowd.write] * _WRITERS + [crowd.read] * _READERS
    processes = [
        context.Process(target=task, args=(SEED + number, root / f"{number}.json")) for number, task in enumerate(tasks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    diaries = [json.loads((root / f"{number}.json").read_text()) for number in range(len(tasks))]
    problems = [text for diary in diaries for text in diary["problems"]]
    landed = {(date.fromisoformat(day), *rest) for diary in diaries for day, *rest in diary["landed"]}
    counts = {"commits": count_commits(counters), "landed": len(landed)}
    counts |= {name: counter.value for name, counter in counters.items()}
    lake = Lake.open(root / "lake")
    problems += [f"{path.name} is left in .tmp" for path in (root / "lake/.tmp").iterdir()]
    return counts, problems + judge(lake, world, landed)


def judge(lake: Lake, world: w.World, landed: set[w.StoredRead]) -> list[str]:
    """Questions the lake at rest."""
    lost = landed - w.stored_reads(lake)
    problems = [f"{len(lost)} landed reads are lost"] if lost else []
    for day in world.days:
        rebuilt = derive_day(lake.read_day(day).versions, day, timezone=w.ZONE, reread_after=RUNGS)
        problems += [
            f"{day}: {name} at rest is not what a rebuild gives"
            for name in DAILY_TABLES
            if not lake.read_table(name, day).equals(rebuilt[name])
        ]
    agents = lake.read_table("agents")
    publish_agents(lake)
    if not agents.equals(lake.read_table("agents")):
        problems.append("agents at rest is not what a rebuild gives")
    vendor = world.vendor(world.late)
    w.sweep_and_compact(lake, vendor, world.days)
    w.publish_days(lake, world.days)
    return problems + w.find_differences(lake, vendor, world.days)


def test_a_crowd_of_writers_and_readers_loses_and_tears_nothing() -> None:
    """Whatever the interleaving."""
    wanted = choose(60, 500), choose(600, 10_000)
    with w.fast_directory() as root:
        counts, violations = gather(root, wanted)
    tell("concurrency", **counts, violations=len(violations))
    assert violations == []
    assert counts["commits"] >= wanted[0]
    assert counts["reads"] >= wanted[1]
    assert all(counts[name] for name in COMMITS)


class DestructiveLake(WatchedLake):
    """Deletes the merged segments before it writes the one that replaces them."""

    def compact(self, day: date) -> bool:
        """Merges, the wrong way round."""
        tables = []
        for segment in self.segments(day):
            try:
                tables.append(self.read_segment(segment.key))
            except FileNotFoundError:
                return False
            self.storage.delete(segment.key)
        if tables:
            self._put_segment(day, merge_rows(pa.concat_tables(tables)))
        return bool(tables)


def publish_once(lake: Lake, days: Sequence[date]) -> None:
    """Publishes without looking at raw a second time; now and then it writes what it read when all others rest."""
    for day in days:
        tables = derive_day(lake.read_day(day).versions, day, timezone=w.ZONE, reread_after=RUNGS)
        if Random().random() < 0.25:
            wait_for_others(lake)
        for name in DAILY_TABLES:
            lake.write_table(name, day, tables[name])
    publish_agents(lake)


def wait_for_others(lake: Lake) -> None:
    """Waits until nobody has landed or published anything for a moment."""
    assert isinstance(lake, WatchedLake)
    seen, now = -1, 0
    while now != seen:
        seen, now = now, count_commits(lake.counters) + lake.counters["unchanged"].value
        time.sleep(1.0)  # a process of several on a busy machine needs a while for one step


@pytest.mark.parametrize(
    ("open_lake", "publish", "what"),
    [
        (lambda root: WatchedLake(SlowInPlaceStorage(root)), w.publish_days, "is damaged"),
        (DestructiveLake.open, w.publish_days, "misses"),
        (WatchedLake.open, publish_once, "at rest is not what a rebuild gives"),
    ],
    ids=["in place", "deletes before it writes", "publishes once"],
)
def test_broken_protocols_are_caught(open_lake: Opener, publish: Publisher, what: str) -> None:
    """Each twin shows its symptom, at the latest after a few rounds."""
    caught, rounds, counts = 0, 0, dict[str, int]()
    while not caught and rounds < 10:
        with w.fast_directory() as root:
            try:
                counts, violations = gather(root, (60, 100), open_lake, publish)
            except Exception as error:  # noqa: BLE001 - the lake at rest cannot even be questioned
                violations = [str(error)]
        caught = sum(what in text for text in violations)
        rounds += 1
    tell("concurrency twin", twin=what, **counts, rounds=rounds, caught=caught)
    assert caught
