"""What is made again, and what is left as it is because nothing it is made of has changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calls_assets.derive import agents_publish, derive_day, publish, publish_agents, publish_day
from calls_assets.derive.agents import describe_agents
from calls_assets.lake import DAILY_TABLES, Lake, Read, parquet
from calls_assets.lake.lake import RawDay
from calls_assets.lake.schemas import CALL_EVENTS
from calls_assets_tests.derive import versions
from calls_assets_tests.derive.versions import SAMPLE
from calls_assets_tests.faults.disk import MemoryStorage

ZONE = ZoneInfo("UTC")
DAY = date(2025, 5, 21)
RUNGS = (timedelta(days=7),)


def read(call_id: int, duration: int = 1) -> Read:
    """Makes an answer about a call of the day."""
    at = datetime(DAY.year, DAY.month, DAY.day, 12, tzinfo=UTC)
    body = b'{"calls": {"id": %d, "started_at": %d, "is_ended": true, "duration": %d, "all_agents": [{"id": 7}]}}' % (
        call_id,
        at.timestamp(),
        duration,
    )
    return Read(call_id, at + timedelta(days=10, seconds=duration), 200, at, True, None, body)


def derive_all(lake: Lake) -> dict[str, pa.Table]:
    """Derives the day from all that raw has."""
    raw = lake.read_day(DAY)
    return derive_day(raw.versions, DAY, timezone=ZONE, reread_after=RUNGS, events=raw.events)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Gives a lake of one day with two calls, published."""
    lake = Lake.open(tmp_path)
    lake.land(DAY, [read(1), read(2)])
    publish_day(lake, DAY, timezone=ZONE, reread_after=RUNGS)
    publish_agents(lake, unless_current=True)
    return lake


AGENTS: list[int] = []
"""Stands for the agents in what is derived; days stand there with the ids that raw has of them."""


@pytest.fixture
def derived(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Gives a list of what is derived from now on: the ids of calls."""
    done: list[list[int]] = []

    def derive_some(table: pa.Table, *arguments: Any, **options: Any) -> dict[str, pa.Table]:  # noqa: ANN401 - passes everything on
        done.append(sorted(set(table["call_id"].to_pylist())))
        return derive_day(table, *arguments, **options)

    def derive_them(*arguments: Any) -> pa.Table:  # noqa: ANN401 - passes everything on
        done.append(AGENTS)
        return describe_agents(*arguments)

    monkeypatch.setattr(publish, "derive_day", derive_some)
    monkeypatch.setattr(agents_publish, "describe_agents", derive_them)
    return done


def again(lake: Lake, rungs: tuple[timedelta, ...] = RUNGS) -> publish.PublishReport:
    """Publishes the day unless it is current."""
    return publish_day(lake, DAY, timezone=ZONE, reread_after=rungs, unless_current=True)


def test_a_quiet_repeat_derives_nothing_and_reports_the_same(lake: Lake, derived: list[list[int]]) -> None:
    """Rows are counted from the files that are there."""
    report = again(lake)
    assert publish_agents(lake, unless_current=True) == 1
    assert derived == []
    assert (report.row_counts["calls"], report.row_counts["call_agents"], report.replaced) == (2, 2, frozenset())
    assert tuple(report.row_counts) == DAILY_TABLES


def test_who_asks_for_the_tables_gets_them_made(lake: Lake, derived: list[list[int]]) -> None:
    """A rebuild does not trust what is there."""
    publish_day(lake, DAY, timezone=ZONE, reread_after=RUNGS)
    publish_agents(lake)
    assert derived == [[1, 2], AGENTS]


def _add_a_read(lake: Lake) -> None:
    lake.land(DAY, [read(1, duration=2)])


def _read_it_again(lake: Lake) -> None:
    lake.land(DAY, [replace(read(1), fetched_at=read(1, duration=2).fetched_at)])


def _add_a_delivery(lake: Lake) -> None:
    row = {"call_id": 1, "received_at": read(1).fetched_at, "payload": b"{}"}
    lake.land_events(DAY, pa.Table.from_pylist([row], CALL_EVENTS.schema))


def _damage(lake: Lake) -> None:
    key = lake.table_key("call_agents", DAY)
    lake.storage.replace(key, lake.storage.read(key)[:-9] + b"123456789")


def _delete(lake: Lake) -> None:
    lake.storage.delete(lake.table_key("recordings", DAY))


def _write_calls_only(lake: Lake) -> None:
    publish_day(lake, DAY, timezone=ZONE, reread_after=(timedelta(days=30),), names=["calls"])


def _forget(lake: Lake) -> None:
    lake.storage.delete(lake.mark_key(DAY))


def _put_another_day_in_place(lake: Lake) -> None:
    key = lake.table_key("calls", DAY)
    other = parquet.encode(lake.table_key("calls", date(2025, 5, 20)), lake.read_table("calls", DAY))
    lake.storage.replace(key, other)


@pytest.mark.parametrize(
    ("change", "ids"),
    [
        (_add_a_read, [1]),
        (_read_it_again, [1]),
        (_add_a_delivery, [1]),
        (_write_calls_only, [1, 2]),
        (_damage, [1, 2]),
        (_delete, [1, 2]),
        (_forget, [1, 2]),
        (_put_another_day_in_place, [1, 2]),
    ],
    ids=lambda item: getattr(item, "__name__", "ids"),
)
def test_what_has_changed_is_derived(
    lake: Lake, derived: list[list[int]], change: Callable[[Lake], None], ids: list[int]
) -> None:
    """Once: calls of which raw has something new; all when a table or the mark is not what it was."""
    change(lake)
    derived.clear()
    again(lake)
    assert derived == [ids]
    expected = derive_all(lake)
    assert all(lake.read_table(name, DAY).equals(expected[name]) for name in DAILY_TABLES)
    again(lake)
    assert derived == [ids]


@pytest.mark.parametrize("change", [_damage, _delete, _put_another_day_in_place], ids=lambda f: f.__name__)
def test_calls_are_not_put_into_tables_that_are_not_what_they_were(
    lake: Lake, derived: list[list[int]], change: Callable[[Lake], None]
) -> None:
    """All are derived, though raw has something new of one."""
    change(lake)
    _add_a_read(lake)
    again(lake)
    assert derived == [[1, 2]]
    expected = derive_all(lake)
    assert all(lake.read_table(name, DAY).equals(expected[name]) for name in DAILY_TABLES)


def change_after_the_listing(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Has something change between the look at which raw files there are and the look at them."""
    list_keys, changes = Lake.raw_keys_of, [change]

    def list_and_change(self: Lake, day: date) -> frozenset[str]:
        keys = list_keys(self, day)
        while changes:
            changes.pop()()
        return keys

    monkeypatch.setattr(Lake, "raw_keys_of", list_and_change)


def test_a_file_that_goes_meanwhile_is_shown_no_more(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set aside, for example: it was the only one with the second call."""
    (segment,) = lake.segments(DAY)
    change_after_the_listing(monkeypatch, lambda: lake.storage.delete(segment.key))
    _add_a_read(lake)
    again(lake)
    assert lake.read_table("calls", DAY)["call_id"].to_pylist() == [1]
    assert lake.stale_days() == []


def test_a_file_that_comes_meanwhile_is_shown_too(
    lake: Lake, derived: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its calls are among those that are new."""
    change_after_the_listing(monkeypatch, lambda: lake.land(DAY, [read(2, duration=2)]))
    _add_a_read(lake)
    assert again(lake).replaced == {"calls", "call_changes"}
    assert derived == [[1, 2]]
    assert lake.read_table("calls", DAY)["read_count"].to_pylist() == [2, 2]
    assert lake.stale_days() == []


def _miss_an_id(lake: Lake) -> None:
    lake.land(DAY, [Read(3, read(1).fetched_at, 404, None, None, None, None)])


def _quarantine(lake: Lake) -> None:
    lake.land(DAY, [Read(3, read(1).fetched_at, 200, None, None, "not JSON", b"{")])


@pytest.mark.parametrize("change", [_miss_an_id, _quarantine], ids=lambda f: f.__name__)
def test_tables_are_left_when_raw_says_nothing_new_of_calls(
    lake: Lake, derived: list[list[int]], change: Callable[[Lake], None]
) -> None:
    """What is new in raw is looked at once, and no file written but the mark."""
    before = lake.list_files("tables/")
    change(lake)
    assert lake.stale_days() == [DAY]
    assert again(lake).row_counts["calls"] == 2
    assert lake.stale_days() == []
    again(lake)
    assert derived == [[3]]
    assert lake.list_files("tables/") == before
    _delete(lake)
    change(lake)
    again(lake)
    assert derived == [[3], [1, 2, 3]]


def test_merged_files_stay_shown(lake: Lake, derived: list[list[int]]) -> None:
    """They are merged when the tables show all: then only what comes later is derived."""
    _add_a_read(lake)
    _add_a_delivery(lake)
    again(lake)
    _deliver_more(lake)
    assert not lake.compact(DAY)
    again(lake)
    derived.clear()
    settled_at = settled(lake)
    assert lake.compact(DAY)
    assert len(lake.raw_keys_of(DAY)) == 2
    assert lake.stale_days() == []
    assert settled(lake) == settled_at
    again(lake)
    assert derived == []
    lake.land(DAY, [read(2, duration=3)])
    again(lake)
    assert derived == [[2]]


def test_many_files_are_merged_before_they_are_shown_and_have_all_derived(lake: Lake, derived: list[list[int]]) -> None:
    """Sixteen: nothing tells any more what of the merged file is new."""
    for number in range(15):
        assert not lake.compact(DAY)
        lake.land(DAY, [read(1, duration=2 + number)])
    assert lake.compact(DAY)
    assert len(lake.segments(DAY)) == 1
    assert lake.stale_days() == [DAY]
    again(lake)
    assert derived == [[1, 2]]


def test_a_mark_that_another_writer_makes_while_raw_is_merged_is_no_wrong_one(
    lake: Lake, derived: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever stays: the day is made again until it is right."""
    _add_a_read(lake)
    again(lake)
    write_mark = Lake._write_mark

    def write_late(self: Lake, day: date, content: dict[str, Any]) -> None:
        monkeypatch.undo()
        monkeypatch.setattr(publish, "derive_day", derive_day)
        lake.land(DAY, [read(2, duration=2)])
        again(lake)
        write_mark(self, day, content)

    monkeypatch.setattr(Lake, "_write_mark", write_late)
    assert lake.compact(DAY)
    assert lake.stale_days() == [DAY]
    again(lake)
    assert lake.stale_days() == []
    expected = derive_all(lake)
    assert all(lake.read_table(name, DAY).equals(expected[name]) for name in DAILY_TABLES)
    assert derived == [[1]]


def _deliver_more(lake: Lake) -> None:
    at = read(1).fetched_at + timedelta(minutes=1)
    lake.land_events(
        DAY, pa.Table.from_pylist([{"call_id": 2, "received_at": at, "payload": b"{}"}], CALL_EVENTS.schema)
    )


def settled(lake: Lake) -> datetime | None:
    """Gives since when all ids of the day are read, as its mark has it."""
    mark = lake.published_day(DAY)
    assert mark
    return mark.settled_at


@pytest.mark.parametrize("change", [lambda _: None, _miss_an_id], ids=["nothing", "an id that is missing"])
def test_a_day_is_derived_after_a_writer_of_older_answers_that_died(lake: Lake, change: Callable[[Lake], None]) -> None:
    """The mark says what another writer made meanwhile, which this one wrote over."""
    older = lake.read_table("calls", DAY)
    _add_a_read(lake)
    again(lake)
    newer = lake.read_table("calls", DAY)
    lake.write_table("calls", DAY, older)
    change(lake)
    assert again(lake).replaced == {"calls"}
    assert lake.read_table("calls", DAY).equals(newer)


@pytest.mark.parametrize("is_alone", [True, False], ids=["alone", "beside another writer"])
def test_a_day_is_derived_again_when_raw_is_what_it_was_after_all(
    lake: Lake, derived: list[list[int]], monkeypatch: pytest.MonkeyPatch, is_alone: bool
) -> None:
    """A segment that is set aside while its answers are being shown: they are not in the end."""
    before = {name: lake.read_table(name, DAY) for name in DAILY_TABLES}
    segment = lake.land(DAY, [read(1, duration=2)])
    is_current = Lake.is_current

    def set_aside(self: Lake, raw: RawDay) -> bool:
        if segment.key in raw.segment_keys:
            lake.storage.delete(segment.key)
            for name in () if is_alone else DAILY_TABLES:
                lake.write_table(name, DAY, before[name])
        return is_current(self, raw)

    monkeypatch.setattr(Lake, "is_current", set_aside)
    assert again(lake).replaced == {"calls", "call_changes"}
    assert all(lake.read_table(name, DAY).equals(before[name]) for name in DAILY_TABLES)
    assert lake.stale_days() == []
    derived.clear()
    again(lake)
    assert derived == []


def test_a_day_is_derived_when_it_would_be_made_in_another_way(
    lake: Lake, derived: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other ages of reading again decide what is final; another release may make other rows."""
    again(lake, rungs=(timedelta(days=30),))
    assert derived == [[1, 2]]
    assert lake.read_table("calls", DAY)["is_final"].to_pylist() == [False, False]
    monkeypatch.setattr(publish, "_CODE", ("calls_assets.derive",))
    again(lake, rungs=(timedelta(days=30),))
    assert derived == [[1, 2]] * 2


def test_agents_are_derived_when_a_days_tables_have_changed(lake: Lake, derived: list[list[int]]) -> None:
    """And when their file is gone."""
    _add_a_read(lake)
    again(lake)
    publish_agents(lake, unless_current=True)
    lake.storage.delete(lake.table_key("agents"))
    publish_agents(lake, unless_current=True)
    assert derived == [[1], AGENTS, AGENTS]


_answers = st.lists(
    st.tuples(
        st.integers(1, 6),  # id
        st.integers(0, 9),  # when it was read
        st.sampled_from(["documented", "bare", "moved away", "missing", "quarantined"]),
        st.integers(0, 3),  # what is different in it
    ),
    min_size=1,
    max_size=5,
)
_steps = st.lists(
    st.one_of(
        _answers.map(lambda answers: ("land", answers)),
        st.tuples(
            st.just("deliver"), st.lists(st.tuples(st.integers(1, 6), st.integers(0, 9)), min_size=1, max_size=3)
        ),
        st.just(("compact", [])),
        st.just(("publish", [])),
    ),
    min_size=4,
    max_size=10,
)


def answer(call_id: int, minute: int, kind: str, variant: int) -> Read:
    """Makes one of the answers above."""
    at = datetime(2025, 5, 25, tzinfo=UTC) + timedelta(minutes=minute)
    if kind == "missing":
        return Read(call_id, at, 404, None, None, None, None)
    if kind == "quarantined":
        return Read(call_id, at, 200, None, None, "not JSON", b"{")
    call = SAMPLE if kind == "documented" else {"is_ended": True}
    started = versions.START + 60 * call_id + (86_400 if kind == "moved away" else 0)
    legs = [{**SAMPLE["all_agents"][0], "id": agent} for agent in range(variant)]
    more = {"id": call_id, "started_at": started, "duration": variant, "all_agents": legs, "tags": ["late"] * variant}
    body = json.dumps({"calls": {**call, **more}}).encode()
    return Read(call_id, at, 200, datetime.fromtimestamp(started, UTC), True, None, body)


@settings(max_examples=25, deadline=None)
@given(_steps)
def test_what_is_added_gives_the_tables_that_deriving_all_of_raw_gives(steps: list[tuple[str, list[Any]]]) -> None:
    """Whatever comes in whatever order: the same files to the byte, and the same mark."""
    lake = Lake(MemoryStorage({}))
    for step, items in [*steps, ("publish", [])]:
        if step == "land":
            lake.land(DAY, [answer(*item) for item in {item[:2]: item for item in items}.values()])
        elif step == "deliver":
            at = datetime(2025, 5, 24, tzinfo=UTC)
            rows = [
                {"call_id": id_, "received_at": at + timedelta(minutes=minute), "payload": b'{"id": %d}' % id_}
                for id_, minute in items
            ]
            lake.land_events(DAY, pa.Table.from_pylist(rows, CALL_EVENTS.schema))
        elif step == "compact":
            lake.compact(DAY)
        else:
            again(lake)
            added = {file.key: lake.storage.read(file.key) for file in lake.list_files("")}
            publish_day(lake, DAY, timezone=ZONE, reread_after=RUNGS)
            assert {file.key: lake.storage.read(file.key) for file in lake.list_files("")} == added
