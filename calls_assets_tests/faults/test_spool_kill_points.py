"""Kill points of the inbox: every file operation of storing, postponing, landing and settling deliveries.

A fork per point, as in `test_kill_points`. A delivery that was reported as stored is in the spool or in raw afterwards,
every file is readable, nothing temporary stays; settling again brings each event into raw once and empties the spool.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import cast

import pytest

from calls_assets.inbox import Inbox
from calls_assets.ingest import settle_waiting
from calls_assets.lake import Lake, LakeError, Read, verify
from calls_assets.settings import Settings
from calls_assets_tests.faults import world as w
from calls_assets_tests.faults.counts import SEED, choose, tell
from calls_assets_tests.faults.failpoints import Point, list_points
from calls_assets_tests.faults.stages import Opener, Stage, TellingLake, record_operations, run_stage
from calls_assets_tests.faults.twins import InPlaceStorage

pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.timeout(900),
]
DAY = date(2025, 6, 2)
RECEIVED = datetime(2025, 6, 2, 12, tzinfo=UTC)
SETTINGS = Settings(start_date=DAY)
STORED = 299
"""Stands in the child's lines for "this delivery was reported as stored"."""


def make_body(call_id: int) -> bytes:
    """Gives a delivery."""
    return json.dumps({"id": call_id, "startedDate": "2025-06-02T11:00:00+00:00", "waitingTime": 3}).encode()


def make_read(call_id: int, at: datetime) -> Read:
    """Gives an answer about a call of the day."""
    start = RECEIVED - timedelta(hours=1)
    body = json.dumps({"calls": {"id": call_id, "started_at": int(start.timestamp()), "is_ended": True}}).encode()
    return Read(call_id, at, 200, start, True, None, body)


def work(lake: Lake, _: w.World) -> None:
    """Receives four deliveries and a request, tries one in vain, reads two of the calls, settles."""
    inbox, telling = Inbox(lake.storage), cast(TellingLake, lake)
    try:
        for call_id in (1, 2, 3, 4):
            delivery = inbox.put(make_body(call_id), RECEIVED + timedelta(seconds=call_id))
            if telling.pipe is not None:
                line = f"{DAY} {call_id} {w.to_us(delivery.since)} {STORED}\n"
                os.write(telling.pipe, line.encode())
        inbox.enqueue([(1, 2)], RECEIVED)
        inbox.postpone(inbox.deliveries()[0])
        later = RECEIVED + timedelta(minutes=2)
        lake.land(DAY, [make_read(1, later), make_read(2, later)])
        settle_waiting(lake, inbox, [*inbox.deliveries(), *inbox.requests()], SETTINGS, later)
    except OSError as problem:
        raise LakeError(str(problem)) from None


def list_events(lake: Lake) -> Counter[tuple[int, int]]:
    """Counts the events in raw by call and reception, each day's once."""
    found: Counter[tuple[int, int]] = Counter()
    for day in {day for day, _ in lake.event_files()}:
        for row in lake.read_events(day).to_pylist():
            found[row["call_id"], w.to_us(row["received_at"])] += 1
    return found


def examine(root: Path, acknowledged: set[tuple[int, int]], open_lake: Opener) -> list[str]:
    """Questions what a crash left, settles again, and questions it once more."""
    lake = open_lake(root)
    inbox = Inbox(lake.storage)
    problems = [f"{path.name} is left of a dead writer" for path in (root / ".tmp").iterdir()]
    problems += [str(finding) for finding in verify(lake) if "calls" not in finding.key.split("/")[1:2]]
    bodies = {(item.call_id, w.to_us(item.since)): inbox.read(item) for item in inbox.deliveries()}
    problems += [f"delivery of {key[0]} is torn" for key, body in bodies.items() if body != make_body(key[0])]
    if lost := acknowledged - bodies.keys() - list_events(lake).keys():
        problems.append(f"{len(lost)} stored deliveries are lost")
    later = RECEIVED + timedelta(hours=1)
    lake.land(DAY, [make_read(call_id, later) for call_id in (1, 2, 3, 4)])
    settle_waiting(lake, inbox, [*inbox.deliveries(), *inbox.requests()], SETTINGS, later)
    events = list_events(lake)
    if inbox.files():
        problems.append("the spool is not empty in the end")
    if not acknowledged <= events.keys() or set(events.values()) - {1}:
        problems.append("events are missing or doubled in the end")
    return problems


def torment(open_lake: Opener, points: int) -> tuple[int, list[str]]:
    """Fails at each of a sample of points; gives how many, and the violations."""
    world = w.World.draw(Random(SEED), calls_per_day=4)
    stage = Stage("inbox", RECEIVED, work)
    violations: list[str] = []
    with w.fast_directory() as directory:
        base = directory / "base"
        base.mkdir()
        chosen = list_points(record_operations(stage, world, base, TellingLake.open))
        if len(chosen) > points:
            chosen = Random(SEED).sample(chosen, points)
        for number, point in enumerate(chosen):
            root = directory / f"work {number}"
            root.mkdir()
            violations += try_point(stage, world, root, point, open_lake)
            shutil.rmtree(root)
    return len(chosen), violations


def try_point(stage: Stage, world: w.World, root: Path, point: Point, open_lake: Opener) -> list[str]:
    """Fails at one point; gives the violations."""
    crash = run_stage(stage, world, root, point, open_lake)
    told = {(call_id, instant) for _, call_id, instant, status in crash.acknowledged if status == STORED}
    try:
        found = crash.problems + examine(root, told, open_lake)
    except Exception as error:  # noqa: BLE001 - a recovery that fails is a violation
        found = [*crash.problems, f"recovery failed: {type(error).__name__}: {error}"]
    return [f"{point}: {problem}" for problem in found]


def test_every_kill_point_of_the_inbox_is_survived() -> None:
    """Killed or refused at any file operation: no stored delivery is lost or doubled."""
    points, violations = torment(TellingLake.open, choose(100, 100_000))
    tell("spool_kill_points", points=points, violations=len(violations))
    assert violations == []


def test_a_spool_that_writes_in_place_is_caught() -> None:
    """The twin: half a delivery under its final name."""

    def open_in_place(root: Path) -> Lake:
        return TellingLake(InPlaceStorage(root))

    assert torment(open_in_place, 80)[1]
