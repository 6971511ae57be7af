"""Concurrency over an object store: writers do runs of the same days in processes of their own while readers watch.

Each process is spawned and has a client of its own; now and then a request goes wrong. Nobody may fail, no landed read
may be lost, readers find every table that was there before, and at rest the tables are what a rebuild gives. The store
shows no object but whole ones, as S3 does: until a writer has mended what another store kept, readers would see it.
"""

from __future__ import annotations

import json
import time
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import cast

import pytest

from calls_assets.lake import Lake
from calls_assets_tests.faults import world as w
from calls_assets_tests.faults.counts import SEED, choose, tell
from calls_assets_tests.faults.crowd import Crowd, Opener, WatchedLake, count_commits, make_counters
from calls_assets_tests.faults.test_concurrency import DestructiveLake, judge
from calls_assets_tests.faults.test_object_store import count_faults, fail_some
from calls_assets_tests.stores import StoreProxy

pytestmark = pytest.mark.timeout(900)
_SHARE = 0.02


def gather(
    store: StoreProxy, address: str, diaries: Path, wanted: tuple[int, int], open_lake: Opener = WatchedLake.open
) -> tuple[dict[str, object], list[str]]:
    """Lets the crowd work; gives what was done, and the violations."""
    random = Random(SEED)
    world = w.World.draw(random)
    lake = Lake.open(address)
    w.sweep_and_compact(lake, world.vendor(world.early), world.days)
    w.publish_days(lake, world.days)
    context = get_context("spawn")
    counters = make_counters(context)
    # A crowd does nothing with the place but open it, and what opens directories opens addresses.
    crowd = Crowd(cast("Path", address), world, open_lake, w.publish_days, counters, wanted)
    tasks = [crowd.write] * choose(3, 8) + [crowd.read] * choose(1, 4)
    store.is_strict = True
    fail_some(store, random, _SHARE)
    processes = [
        context.Process(target=task, args=(SEED + number, diaries / f"{number}.json"))
        for number, task in enumerate(tasks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    befell, requests = count_faults(store), store.count()
    store.choose = lambda _heard: None
    told = [json.loads((diaries / f"{number}.json").read_text()) for number in range(len(tasks))]
    landed = {(date.fromisoformat(day), *rest) for one in told for day, *rest in one["landed"]}
    counts: dict[str, object] = {"processes": len(tasks), "commits": count_commits(counters), "landed": len(landed)}
    counts |= {name: counter.value for name, counter in counters.items()}
    counts |= {"requests": requests, "by_kind": befell}
    return counts, [text for one in told for text in one["problems"]] + judge(lake, world, landed)


def test_a_crowd_of_processes_loses_and_tears_nothing(store: StoreProxy, address: str, tmp_path: Path) -> None:
    """Whatever the interleaving."""
    began = time.monotonic()
    counts, violations = gather(store, address, tmp_path, (choose(20, 400), choose(40, 4_000)))
    seconds = round(time.monotonic() - began, 1)
    tell("object store, crowd", **counts, violations=len(violations), seconds=seconds)
    assert violations == []


@pytest.mark.long
def test_a_crowd_that_deletes_before_it_writes_is_caught(store: StoreProxy, address: str, tmp_path: Path) -> None:
    """A reader misses what it has seen before, at the latest after a few rounds."""
    for number in range(10):
        try:
            _, violations = gather(store, f"{address}/{number}", tmp_path, (10, 20), DestructiveLake.open)
        except Exception as error:  # noqa: BLE001 - the lake at rest cannot even be questioned
            violations = [str(error)]
        if any("misses" in text or "are lost" in text for text in violations):
            tell("object store, crowd twin", rounds=number + 1)
            return
    pytest.fail("nothing was noticed")
