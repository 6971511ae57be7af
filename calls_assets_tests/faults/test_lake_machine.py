"""The lake as a state machine: whatever is done to it in whatever order, its tables show what the account said.

Days are swept, read again, compacted, published and rebuilt in any order, by a lake opened anew each time, while calls
appear, end, get tags and move to other days. The model is a dictionary: for each id all that the account ever said.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from datetime import date, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from hypothesis import Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from calls_assets.api import Answer
from calls_assets.lake import Lake
from calls_assets.lake.raw import merge_rows
from calls_assets_tests.faults import world as w
from calls_assets_tests.faults.counts import IS_TORTURE, SEED, choose, tell
from calls_assets_tests.faults.disk import MemoryStorage
from calls_assets_tests.ingest.model import ModelCall, ModelVendor

pytestmark = pytest.mark.timeout(900)
DAYS = tuple(w.FIRST + timedelta(days=offset) for offset in range(3))
_LATE = (0, 600, 7_200, 90_000, 500_000)


def draw_calls(random: Random) -> list[ModelCall]:
    """Draws calls that appear, end, change and move at all ages."""
    calls, id_, count = [], 0, 15
    for index in range(count):
        id_ += random.choice((1, 1, 1, 3))
        started_at = w.MIDNIGHT + timedelta(days=len(DAYS)) * ((index + random.random()) / count)
        moves = random.random() < 0.4
        calls.append(
            ModelCall(
                id_,
                started_at,
                seconds=random.choice((30, 2_000)),
                appears_after=random.choice((0, 0, *_LATE)),
                tagged_after=random.choice(_LATE),
                moved_after=random.choice(_LATE[1:]) if moves else None,
                moved_to=w.MIDNIGHT + random.random() * timedelta(days=len(DAYS)) if moves else None,
            )
        )
    return calls


class RememberedVendor(ModelVendor):
    """An account of which everything it says is remembered."""

    def __post_init__(self) -> None:
        """Begins with nothing said."""
        super().__post_init__()
        self.said: dict[int, list[tuple[datetime, dict[str, Any]]]] = {}

    async def fetch(self, call_id: int) -> Answer:
        """Answers, and remembers it."""
        answer = await super().fetch(call_id)
        if answer.body is not None:
            self.said.setdefault(call_id, []).append((answer.fetched_at, json.loads(answer.body)["calls"]))
        return answer

    def expect_calls(self, day: date) -> list[dict[str, Any]]:
        """Gives the rows of `calls`, from what was said last about each id."""
        rows = []
        for call_id, answers in self.said.items():
            read_at, body = answers[-1]
            started_at = datetime.fromtimestamp(body["started_at"], w.ZONE)
            if started_at.date() == day:
                rows.append(
                    {
                        "call_id": call_id,
                        "started_at": started_at,
                        "is_ended": body["is_ended"],
                        "duration_seconds": body["duration"],
                        "tags": body["tags"],
                        "read_count": len(answers),
                        "first_read_at": answers[0][0],
                        "last_read_at": read_at,
                    }
                )
        return sorted(rows, key=lambda row: (row["started_at"], row["call_id"]))

    def expect_changes(self, day: date) -> list[tuple[object, ...]]:
        """Gives the rows of `call_changes`, from all that was said about the day's calls."""
        changes = []
        for row in self.expect_calls(day):
            answers = self.said[row["call_id"]]
            for (_, old), (changed_at, new) in pairwise(answers):
                changes += [
                    (row["call_id"], changed_at, field, old[field], new[field])
                    for field in sorted(new)
                    if old[field] != new[field]
                ]
        return sorted(changes, key=lambda change: change[:3])


class LakeMachine(RuleBasedStateMachine):
    """What can be done to a lake."""

    lake_type: ClassVar[type[Lake]] = Lake
    steps: ClassVar[Counter[str]] = Counter()

    @initialize(number=st.integers(0, 2**32))
    def begin(self, number: int) -> None:
        """Draws an account; some hours of its first day are past."""
        self.vendor = RememberedVendor(draw_calls(Random(number)), w.MIDNIGHT + timedelta(hours=8))
        self.files: dict[str, bytes] = {}
        self.storage = MemoryStorage(self.files)

    def open(self, step: str) -> Lake:
        """Opens the lake anew: nothing is remembered but files."""
        self.steps[step] += 1
        return self.lake_type(self.storage)

    def begun(self, days: Collection[date]) -> list[date]:
        """Leaves out days to come: nobody may sweep them."""
        return sorted(day for day in days if day <= self.vendor.time.date())

    @rule(hours=st.sampled_from((0.1, 1, 5, 24, 72)))
    def wait(self, hours: float) -> None:
        """Time passes."""
        self.steps["wait"] += 1
        self.vendor.time += timedelta(hours=hours)

    @rule(days=st.sets(st.sampled_from(DAYS), min_size=1), reread_final=st.booleans())
    def sweep(self, days: set[date], *, reread_final: bool) -> None:
        """A run sweeps some days."""
        lake = self.open("sweep")
        if begun := self.begun(days):
            w.sweep_days(lake, self.vendor, begun, reread_final=reread_final)

    @rule(day=st.sampled_from(DAYS))
    def compact(self, day: date) -> None:
        """A day's segments are merged."""
        self.open("compact").compact(day)

    @rule(day=st.sampled_from(DAYS))
    def publish(self, day: date) -> None:
        """A day is published, and shows all that was said."""
        w.publish_days(self.open("publish"), [day])
        self.check([day])

    @rule()
    def rebuild(self) -> None:
        """All tables are lost, and made again from raw; no file differs from what it was."""
        lake = self.open("rebuild")
        w.publish_days(lake, DAYS)
        before = dict(self.files)
        for key in before:
            if key.startswith(("tables/", "published/")):
                lake.storage.delete(key)
        w.publish_days(lake, DAYS)
        assert self.files == before
        self.check(DAYS)

    def check(self, days: Collection[date]) -> None:
        """Compares tables with the model."""
        lake = self.lake_type(self.storage)
        for day in days:
            expected = self.vendor.expect_calls(day)
            shown = lake.read_table("calls", day).to_pylist()
            assert [{name: row[name] for name in expected[0]} for row in shown] == expected if expected else not shown
            changes = [
                (
                    row["call_id"],
                    row["changed_at"],
                    row["field"],
                    json.loads(row["old_value"]),
                    json.loads(row["new_value"]),
                )
                for row in lake.read_table("call_changes", day).to_pylist()
            ]
            assert changes == self.vendor.expect_changes(day)

    def teardown(self) -> None:
        """In the end one sweep and publish of all days shows the account as it is."""
        if not hasattr(self, "vendor"):
            return
        self.vendor.time = max(self.vendor.time, w.MIDNIGHT + timedelta(days=12))
        lake = self.open("end")
        w.sweep_and_compact(lake, self.vendor, DAYS)
        w.publish_days(lake, DAYS)
        assert w.find_differences(lake, self.vendor, DAYS) == []
        self.check(DAYS)


def run(machine: type[LakeMachine], examples: int, phases: Collection[Phase] = (Phase.generate, Phase.shrink)) -> None:
    """Runs a machine with the seed of this run."""
    seed(SEED)(machine)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30 if IS_TORTURE else 15,
            deadline=None,
            database=None,
            phases=phases,
            report_multiple_bugs=False,
        ),
    )


def test_any_order_of_work_shows_what_the_account_said() -> None:
    """Rows, counts of reads, their instants, and every change."""
    LakeMachine.steps.clear()
    examples = choose(25, 400)
    run(LakeMachine, examples)
    tell("lake_machine", examples=examples, steps=LakeMachine.steps.total(), **LakeMachine.steps, violations=0)


class ForgetfulLake(Lake):
    """Compacts all segments but the oldest, and deletes that one too."""

    def compact(self, day: date) -> bool:
        """Merges, and loses a segment."""
        segments = self.segments(day)
        if len(segments) < 2:
            return False
        rows = pa.concat_tables([self.read_segment(segment.key) for segment in segments[1:]])
        self._put_segment(day, merge_rows(rows))
        for segment in segments:
            self.storage.delete(segment.key)
        return True


class RootlessLake(Lake):
    """Lets a call that moves leave its history behind."""

    def copy_reads(self, call_ids: Collection[int], source: date, target: date) -> None:
        """Copies nothing."""


@pytest.mark.parametrize("broken", [ForgetfulLake, RootlessLake])
def test_broken_lakes_are_caught(broken: type[Lake]) -> None:
    """A compaction that drops a segment, a move without history."""

    class Broken(LakeMachine):
        """The machine over a broken lake."""

        lake_type = broken

    with pytest.raises(AssertionError):
        run(Broken, 100, [Phase.generate])
    tell("lake_machine twin", twin=broken.__name__, caught=1)
