"""The lake as a state machine: whatever is done to it in whatever order, its tables show what the account said.

Days are swept, read again, compacted, published and rebuilt in any order, by a lake opened anew each time, while calls
appear, end, get tags, legs, recordings and outcomes, and move to other days. The model is a dictionary: for each id all
that the account ever said. Which rows follow from it tells the end-to-end tests' oracle, which uses no code of ours.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Collection
from datetime import date, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from calls_assets.api import Answer
from calls_assets.lake import DAILY_TABLES, Lake, Storage
from calls_assets.lake.object_storage import ObjectStorage
from calls_assets.lake.raw import merge_rows
from calls_assets_tests.e2e import oracle
from calls_assets_tests.faults import world as w
from calls_assets_tests.faults.counts import IS_TORTURE, SEED, choose, tell
from calls_assets_tests.faults.disk import MemoryStorage
from calls_assets_tests.ingest.model import RUNGS, ModelCall, ModelVendor

pytestmark = pytest.mark.timeout(900)
DAYS = tuple(w.FIRST + timedelta(days=offset) for offset in range(3))
_LATE = (0, 600, 7_200, 90_000, 500_000)
_VALUES = ("old_value", "new_value")


def draw_details(random: Random, start: int) -> list[tuple[int, dict[str, Any]]]:
    """Draws what a body says besides, and from when on: legs, recordings, outcomes that come, change and go."""
    details = []
    for after in sorted(random.sample(_LATE, random.randrange(4))):
        legs = [
            {
                "id": agent,
                "user_id": 100 + agent,
                "alias": random.choice((f"Agent {agent}", " ", None)),
                "sip": f"sip:{agent}@example.com",
                "started_at": start + 10 * number,
                "type": "agent",
                "is_any_transfer": random.random() < 0.2,
                "hangup_reason": random.choice(("NORMAL_CLEARING", "USER_BUSY", "")),
            }
            for number, agent in enumerate(random.choices(range(1, 5), k=random.randrange(4)))
        ]
        numbers = [random.randrange(1, 9) for _ in range(random.randrange(3))]
        fields = {
            "agents": [leg["id"] for leg in legs],
            "all_agents": legs,
            "answered_agents": random.sample(legs, min(len(legs), 1)),
            "recordings": [{"id": number, "url": f"https://example.com/{number}"} for number in numbers],
            "disposition": random.choice((None, {"id": len(legs) + 1, "code": "Sale", "note": f"note {numbers}"})),
            "external_numbers": [{"number": f"555{number}", "is_any_transfer": number > 6} for number in numbers],
            "contact": {"id": 7, "full_name": random.choice(("Jane Doe", "null")), "list_ids": numbers},
        }
        details.append((after, {name: fields[name] for name in random.sample(sorted(fields), random.randrange(1, 8))}))
    return details


def flatten(value: Any, path: str = "") -> dict[str, str]:  # noqa: ANN401 - any JSON value
    """Gives the fields of a body as `call_changes` names them: dotted paths, values as JSON."""
    if not isinstance(value, dict):
        return {path: json.dumps(value, sort_keys=True)}
    inner = (flatten(item, f"{path}.{name}" if path else name) for name, item in value.items())
    return {name: text for fields in inner for name, text in fields.items()}


def draw_calls(random: Random) -> list[ModelCall]:
    """Draws calls that appear, end, change and move at all ages.

    Within what a ladder of seven days promises: none changes any more when it is final, seven days after its start as
    the API then tells it; and none appears days late amid ids whose starts were moved by days, from which the time of
    one that is missing is estimated.
    """
    calls, id_, count = list[ModelCall](), random.choice(w.FIRST_IDS), 15
    end = w.MIDNIGHT + timedelta(days=len(DAYS))
    for index in range(count):
        id_ += random.choice((1, 1, 1, 3)) if calls else 0
        started_at = w.MIDNIGHT + (end - w.MIDNIGHT) * ((index + random.random()) / count)
        details = draw_details(random, int(started_at.timestamp()))
        tagged_after = random.choice(_LATE)
        last_change = started_at + timedelta(seconds=max(tagged_after, *(after for after, _ in details), 2_000))
        earliest = max(w.MIDNIGHT, last_change - RUNGS[-1])
        moves = random.random() < 0.4
        calls.append(
            ModelCall(
                id_,
                started_at,
                seconds=random.choice((30, 2_000)),
                appears_after=random.choice((0, 0, *_LATE[:-1])),
                tagged_after=tagged_after,
                moved_after=random.choice(_LATE[1:]) if moves else None,
                moved_to=earliest + random.random() * (end - earliest) if moves else None,
                details=details,
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

    def truth(self, day: date, zone: ZoneInfo) -> dict[int, dict[str, object]]:
        """Gives the calls of a day without their details, which `find_differences` does not look at."""
        found = super().truth(day, zone)
        return {
            id_: {name: body[name] for name in ModelCall(id_, w.MIDNIGHT).body(self.time)}
            for id_, body in found.items()
        }

    def expect_day(self, day: date) -> dict[str, list[dict[str, Any]]]:
        """Gives the rows of each table of a day, from all that was said about each id."""
        tables = oracle.expect_day((answers[-1][1] for answers in self.said.values()), day, w.ZONE)
        tables["call_changes"] = []
        for row in tables["calls"]:
            answers = self.said[row["call_id"]]
            read_at, body = answers[-1]
            earlier = [moment for moment, other in answers if other != body]
            row |= {
                "read_count": len(answers),
                "first_read_at": answers[0][0],
                "last_read_at": read_at,
                "last_changed_at": next(moment for moment, _ in answers if not earlier or moment > earlier[-1]),
                "is_final": body["is_ended"] and read_at - row["started_at"] >= RUNGS[-1],
            }
            for (_, old_body), (changed_at, new_body) in pairwise(answers):
                old, new = flatten(old_body), flatten(new_body)
                tables["call_changes"] += [
                    {
                        "call_id": row["call_id"],
                        "field": field,
                        "old_value": old.get(field),
                        "new_value": new.get(field),
                        "changed_at": changed_at,
                    }
                    for field in old.keys() | new.keys()
                    if old.get(field) != new.get(field)
                ]
        tables["call_changes"].sort(key=lambda row: (row["call_id"], row["changed_at"], row["field"]))
        return tables


class LakeMachine(RuleBasedStateMachine):
    """What can be done to a lake."""

    lake_type: ClassVar[type[Lake]] = Lake
    steps: ClassVar[Counter[str]] = Counter()
    rows: ClassVar[Counter[str]] = Counter()

    @initialize(number=st.integers(0, 2**32))
    def begin(self, number: int) -> None:
        """Draws an account; some hours of its first day are past."""
        self.vendor = RememberedVendor(draw_calls(Random(number)), w.MIDNIGHT + timedelta(hours=8))
        self.storage = self.make_storage()

    def make_storage(self) -> Storage:
        """Gives an empty place."""
        return MemoryStorage({})

    def read_all(self) -> dict[str, bytes]:
        """Gives every file."""
        return {file.key: self.storage.read(file.key) for file in self.storage.list("")}

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
        before = self.read_all()
        for key in before:
            if key.startswith(("tables/", "published/")):
                lake.storage.delete(key)
        w.publish_days(lake, DAYS)
        assert self.read_all() == before
        self.check(DAYS)

    def check(self, days: Collection[date]) -> None:
        """Compares tables with the model."""
        lake = self.lake_type(self.storage)
        for day in days:
            expected = self.vendor.expect_day(day)
            assert expected.keys() == set(DAILY_TABLES)
            for name in DAILY_TABLES:
                shown = lake.read_table(name, day).to_pylist()
                if name == "call_changes":
                    for row in shown:
                        row |= {key: row[key] and json.dumps(json.loads(row[key]), sort_keys=True) for key in _VALUES}
                assert shown == expected[name]
                self.rows[name] += len(shown)

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
        agents = {row["agent_id"]: row for row in lake.read_table("agents").to_pylist()}
        seen = {id_: (row["first_seen_at"], row["last_seen_at"]) for id_, row in agents.items()}
        assert seen == oracle.expect_agents(self.vendor.expect_day(day) for day in DAYS)


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
    """Every column of every table: rows, counts of reads, their instants, and every change."""
    LakeMachine.steps.clear()
    LakeMachine.rows.clear()
    examples, violation = choose(16, 400), ""
    try:
        run(LakeMachine, examples)
    except Exception as error:
        violation = type(error).__name__
        raise
    finally:
        steps, rows = dict(LakeMachine.steps), dict(LakeMachine.rows)
        tell("lake_machine", examples=examples, steps=steps, compared_rows=rows, violation=violation)
    assert all(LakeMachine.rows[name] for name in DAILY_TABLES)


@pytest.mark.long
def test_an_object_store_shows_the_same(address: str) -> None:
    """Each life in a place of its own, over HTTP."""

    class Remote(LakeMachine):
        """The machine over an object store."""

        steps: ClassVar[Counter[str]] = Counter()
        rows: ClassVar[Counter[str]] = Counter()

        def make_storage(self) -> Storage:
            """Gives an empty prefix."""
            return ObjectStorage(f"{address}/{secrets.token_hex(6)}")

    run(Remote, 20, [Phase.generate])
    tell("lake_machine, object store", examples=20, steps=dict(Remote.steps), compared_rows=dict(Remote.rows))
    assert Remote.rows.total()


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

    Broken.rows.clear()
    try:
        with pytest.raises(AssertionError):
            run(Broken, 100, [Phase.generate])
    finally:
        tell("lake_machine twin", twin=broken.__name__, compared_rows=Broken.rows.total())
