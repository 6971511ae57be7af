"""The stages of a day's work, each with a prepared lake to start from, and what a crash in one of them left.

What belongs here: running one stage in a forked child that fails at a point, and questioning the lake afterwards.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from calls_assets.lake import Lake, LakeError, Read, Segment
from calls_assets.lake.object_storage import PROBE_KEY
from calls_assets_tests.faults import world as w
from calls_assets_tests.faults.failpoints import Failpoints, Point

Opener = Callable[[Path], Lake]
AFTER = timedelta(seconds=1)
"""From a stage to the sweep that repairs what it left: nothing becomes due in between."""
_WHAT_STAYS = ("raw/", "tables/", "published/", "made_of/", PROBE_KEY)
"""How the names of a lake's files begin; nothing here binds the lake or makes marts or a catalogue."""


class TellingLake(Lake):
    """A lake that tells what it has reported as landed."""

    pipe: int | None = None

    def land(self, day: date, reads: Sequence[Read]) -> Segment:
        """Lands, then tells."""
        segment = super().land(day, reads)
        self.tell(day, reads)
        return segment

    def tell(self, day: date, reads: Sequence[Read]) -> None:
        """Writes one line per read to the pipe; a pipe is no file of the lake, so no point is counted."""
        lines = (f"{day} {r.call_id} {w.to_us(r.fetched_at)} {r.http_status}\n" for r in reads)
        if self.pipe is not None:
            os.write(self.pipe, "".join(lines).encode())


class Stage(NamedTuple):
    """One stage of the work.

    Attributes:
        name: Its name.
        time: When it happens.
        act: What is done.
    """

    name: str
    time: datetime
    act: Callable[[Lake, w.World], None]


def make_stages(world: w.World) -> list[Stage]:
    """Gives a life of a lake in order; the lake before each stage is what the stages before it made."""
    return [
        Stage("first sweep", world.early, lambda lake, world: sweep_at(lake, world, world.early)),
        Stage("first publish", world.early, lambda lake, world: w.publish_days(lake, world.days[:1])),
        Stage("second sweep", world.late, lambda lake, world: sweep_at(lake, world, world.late)),
        Stage("replace", world.late, lambda lake, world: w.publish_days(lake, world.days[:1])),
        Stage("compact", world.late, compact),
    ]


def sweep_at(lake: Lake, world: w.World, time: datetime) -> None:
    """Sweeps the world's days at an instant."""
    w.sweep_days(lake, world.vendor(time), world.days)


def compact(lake: Lake, world: w.World) -> None:
    """Merges the segments of each day."""
    for day in world.days:
        lake.compact(day)


@dataclass
class Crash:
    """What a writer left.

    Attributes:
        acknowledged: The reads it reported as landed.
        problems: What went wrong otherwise.
    """

    acknowledged: set[w.StoredRead]
    problems: list[str]

    @classmethod
    def of_lines(cls, text: str) -> Crash:
        """Takes a `TellingLake`'s lines for reads, and all others for problems."""
        crash = cls(set(), [])
        for line in text.splitlines():
            match line.split(" "):
                case [day, call_id, instant, http_status]:
                    crash.acknowledged.add((date.fromisoformat(day), int(call_id), int(instant), int(http_status)))
                case _:
                    crash.problems.append(line)
        return crash


def run_stage(stage: Stage, world: w.World, root: Path, point: Point | None, open_lake: Opener) -> Crash:
    """Does a stage in a forked child that fails at a point."""
    told, pipe = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(told)
        _run_child(stage, world, root, point, open_lake, pipe=pipe)
    os.close(pipe)
    with os.fdopen(told) as lines:
        crash = Crash.of_lines(lines.read())
    _, status = os.waitpid(pid, 0)
    was_killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if point is not None and was_killed != (point.mode in {"kill before", "kill after", "half"}):
        crash.problems.append(f"the point was not reached ({status=})")
    return crash


def _run_child(stage: Stage, world: w.World, root: Path, point: Point | None, open_lake: Opener, *, pipe: int) -> None:
    tell, is_good = os.write, False
    try:
        lake = open_lake(root)
        lake.pipe = pipe  # type: ignore[attr-defined] # a TellingLake
        before = _open_files()
        failpoints = Failpoints(root, point)
        failpoints.install()
        try:
            stage.act(lake, world)
        except LakeError:
            is_good = point is not None
        else:
            is_good = True
        if point is None:
            tell(pipe, f"operations:{','.join(failpoints.operations)}\n".encode())
        elif len(failpoints.operations) <= point.at:
            tell(pipe, b"point:was not reached\n")
        elif _open_files() != before:
            tell(pipe, b"descriptors:are left open\n")
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent is to know
        tell(pipe, f"exception:{type(error).__name__}:{error}\n".replace(" ", "_").encode())
    finally:
        os._exit(0 if is_good else 1)


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0


def record_operations(stage: Stage, world: w.World, root: Path, open_lake: Opener) -> list[str]:
    """Does a stage without failing and gives the names of its file operations."""
    crash = run_stage(stage, world, root, None, open_lake)
    (line,) = crash.problems
    assert line.startswith("operations:"), line
    return line.removeprefix("operations:").split(",")


class Expected(NamedTuple):
    """What must hold after a stage, whatever happened to it.

    Attributes:
        stored: The reads stored before it.
        changes: What `call_changes` shows in the end.
    """

    stored: set[w.StoredRead]
    changes: list[tuple[object, ...]]


def expect(stage: Stage, world: w.World, before: Lake, after: Lake) -> Expected:
    """Gives what must hold after a stage, from the lakes before and after it when nothing goes wrong."""
    w.run_days(after, world.vendor(stage.time + AFTER), world.days)
    return Expected(w.stored_reads(before), w.list_changes(after, world.days))


def recover(stage: Stage, world: w.World, lake: Lake, crash: Crash, *, expected: Expected) -> list[str]:
    """Questions the lake that a crash left, completes its days, and questions it again.

    Args:
        stage: The stage that crashed.
        world: The account.
        lake: The lake, opened anew.
        crash: What the writer told.
        expected: What must hold.
    """
    torn = [
        f"{file.key} is left of a dead writer" for file in lake.list_files("") if not file.key.startswith(_WHAT_STAYS)
    ]
    torn += w.find_unreadable(lake)
    problems = crash.problems + torn
    if torn:
        return problems
    stored = w.stored_reads(lake)
    if lost := (crash.acknowledged | expected.stored) - stored:
        problems.append(f"{len(lost)} landed reads are lost: {sorted(lost)[:3]}")
    vendor = world.vendor(stage.time + AFTER)
    w.run_days(lake, vendor, world.days)
    ids = {call.id for call in world.calls if call.is_known(vendor.time)}
    answered = {call_id for _, call_id, instant, status in stored if instant >= w.to_us(stage.time) and status == 200}
    if again := answered & ids & vendor.asked.keys():
        problems.append(f"ids {sorted(again)} are stored and were asked for again")
    problems += w.find_differences(lake, vendor, world.days)
    if not problems and w.list_changes(lake, world.days) != expected.changes:
        problems.append("call_changes does not show what changed")
    return problems
