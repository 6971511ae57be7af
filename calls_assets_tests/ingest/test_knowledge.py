"""What is known of ids: the same whether the raw index is loaded at once, in parts, or row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls_assets.ingest.knowledge import Kind, Knowledge, Known, day_of, to_us
from calls_assets.ingest.plan import SweepOptions, count_due, due_ids
from calls_assets.lake.schemas import INDEX

ZONE = ZoneInfo("America/New_York")
FIRST = date(2025, 11, 1)
"""The third day has 25 hours."""
MIDNIGHT = datetime(2025, 11, 1, 4, tzinfo=UTC)
RUNGS = (timedelta(hours=1), timedelta(days=1))

rows = st.lists(
    st.fixed_dictionaries(
        {
            "day": st.integers(0, 3).map(lambda days: FIRST + timedelta(days=days)),
            "call_id": st.integers(1, 12),
            "read_at": st.integers(0, 120).map(lambda hours: MIDNIGHT + timedelta(hours=hours)),
            "read_count": st.just(1),
            "http_status": st.sampled_from([200, 200, 200, 404]),
            "started_at": st.none() | st.integers(-6, 110).map(lambda hours: MIDNIGHT + timedelta(hours=hours)),
            "is_ended": st.none() | st.booleans(),
            "error": st.sampled_from([None, None, None, "broken"]),
        }
    ),
    max_size=30,
    unique_by=lambda row: (row["day"], row["call_id"]),
)


def load(*indices: pa.Table) -> Knowledge:
    """Loads one index after the other."""
    knowledge = Knowledge(ZONE)
    for index in indices:
        knowledge._add_index(index)
    return knowledge


def describe(knowledge: Knowledge) -> list[Any]:
    """Gives all that is known."""
    days = [FIRST + timedelta(days=offset) for offset in range(4)]
    ids, starts = knowledge.calls()
    strays = knowledge.strays(days)
    return [
        sorted(knowledge.known.items()),
        knowledge.highest,
        ids.tolist(),
        starts.tolist(),
        strays,
        [knowledge.find_missing_copies(id_) for id_ in strays],
    ]


def split(index: pa.Table) -> Iterator[pa.Table]:
    """Gives the rows one by one."""
    return (index.slice(row, 1) for row in range(index.num_rows))


@given(rows, st.integers(0, 30))
def test_the_index_is_known_alike_at_once_in_two_parts_and_row_by_row(found: list[dict[str, Any]], cut: int) -> None:
    """Ids stored in several days, away from home, missing here and found there."""
    index = pa.Table.from_pylist(found, INDEX)
    whole = load(index)
    assert describe(whole) == describe(load(*split(index)))
    assert describe(load(index.slice(0, cut), index.slice(cut))) == describe(load(*split(index)))


@given(rows, st.sets(st.integers(0, 30)))
def test_calls_are_in_order_whenever_they_are_asked_for(found: list[dict[str, Any]], asked_after: set[int]) -> None:
    """Calls come, start otherwise, are missing again, and are looked at in between."""
    knowledge = Knowledge(ZONE)
    for number, row in enumerate(found):
        is_call = row["http_status"] == 200 and row["started_at"] is not None
        started_us = to_us(row["started_at"]) if is_call else 0
        kind = Kind.CALL if is_call else Kind.MISSING
        knowledge.add(row["call_id"], Known(kind, started_us, True, to_us(row["read_at"]), row["day"]))
        if number in asked_after or number == len(found) - 1:
            ids, starts = (array.tolist() for array in knowledge.calls())
            known = sorted(knowledge.known.items())
            assert list(zip(ids, starts, strict=True)) == [
                (id_, state.started_us) for id_, state in known if state.kind is Kind.CALL
            ]


@pytest.mark.parametrize(
    ("kind", "started_us", "expected"), [(Kind.CALL, 70, [(1, 70), (2, 20)]), (Kind.MISSING, 0, [(2, 20)])]
)
def test_calls_that_start_otherwise_or_are_gone_are_sorted_anew(
    kind: Kind, started_us: int, expected: list[tuple[int, int]]
) -> None:
    """Also beside one that is new."""
    knowledge = Knowledge(ZONE)
    knowledge.add(1, Known(Kind.CALL, 10, False, 100, FIRST))
    knowledge.calls()
    knowledge.add(2, Known(Kind.CALL, 20, False, 100, FIRST))
    knowledge.add(1, Known(kind, started_us, False, 200, FIRST))
    ids, starts = knowledge.calls()
    assert list(zip(ids.tolist(), starts.tolist(), strict=True)) == expected


def test_a_new_call_and_a_call_read_again_are_no_reason_to_sort_all_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a day of a million calls that would take seconds, many times in a sweep."""
    knowledge = Knowledge(ZONE)
    for id_ in (1, 3, 5):
        knowledge.add(id_, Known(Kind.CALL, 10 * id_, False, 100, FIRST))
    knowledge.calls()

    def refuse(*_: object) -> None:
        raise AssertionError("sorted anew")

    monkeypatch.setattr(np, "argsort", refuse)
    knowledge.add(3, Known(Kind.CALL, 30, True, 200, FIRST))
    knowledge.add(6, Known(Kind.CALL, 60, True, 200, FIRST))
    knowledge.add(2, Known(Kind.CALL, 20, True, 200, FIRST))
    ids, starts = knowledge.calls()
    assert ids.tolist() == [1, 2, 3, 5, 6]
    assert starts.tolist() == [10, 20, 30, 50, 60]


@given(rows)
def test_strays_are_the_ids_of_several_days_and_those_away_from_home(found: list[dict[str, Any]]) -> None:
    """A call is at home in the local day it starts in."""
    places = Counter(row["call_id"] for row in found)
    away = {
        row["call_id"]
        for row in found
        if row["http_status"] == 200 and row["error"] is None and row["started_at"] is not None
        if row["started_at"].astimezone(ZONE).date() != row["day"]
    }
    days = {row["day"] for row in found}
    strays = load(pa.Table.from_pylist(found, INDEX)).strays(days)
    assert strays == sorted(away | {id_ for id_, count in places.items() if count > 1})


def is_due(id_: int, state: Known, known: dict[int, Known], now_us: int) -> bool:
    """The rules of re-reading in words of one id, as docs and ADRs have them."""
    rungs_us = [rung // timedelta(microseconds=1) for rung in RUNGS]
    minute_us = 60_000_000

    def has_passed_a_rung(anchor_us: int) -> bool:
        return any(state.read_us < anchor_us + rung_us <= now_us for rung_us in rungs_us)

    if state.kind is Kind.CALL:
        age_us, age_at_read_us = now_us - state.started_us, state.read_us - state.started_us
        is_under_way = not state.is_ended and age_us <= rungs_us[-1]
        is_time = age_us >= 5 * minute_us and age_us >= 4 * age_at_read_us
        return has_passed_a_rung(state.started_us) or (is_under_way and is_time)
    starts = {other: held.started_us for other, held in known.items() if held.kind is Kind.CALL}
    before_us = starts[max(below)] if (below := [other for other in starts if other < id_]) else None
    after_us = starts[min(above)] if (above := [other for other in starts if other > id_]) else None
    if after_us is not None and state.read_us <= after_us:
        return now_us > state.read_us
    if after_us is None and state.kind is Kind.MISSING:
        return False
    day_after = state.day + timedelta(days=1)
    return has_passed_a_rung(
        before_us
        if before_us is not None
        else to_us(datetime(day_after.year, day_after.month, day_after.day, tzinfo=ZONE).astimezone(UTC))
    )


@given(rows, st.integers(0, 130 * 60), st.sets(st.integers(0, 3), min_size=1), st.booleans())
def test_due_ids_are_those_of_the_days_that_are_due(
    found: list[dict[str, Any]], minutes: int, offsets: set[int], reread_final: bool
) -> None:
    """A call belongs to the local day it starts in, another answer to the day it is stored in."""
    knowledge = load(pa.Table.from_pylist(found, INDEX))
    days = {FIRST + timedelta(days=offset) for offset in offsets}
    now = MIDNIGHT + timedelta(minutes=minutes)
    options = SweepOptions(timezone=ZONE, reread_after=RUNGS)
    day_of_id = {
        id_: day_of(state.started_us, ZONE) if state.kind is Kind.CALL else state.day
        for id_, state in knowledge.known.items()
    }
    due = [
        id_
        for id_, state in sorted(knowledge.known.items())
        if day_of_id[id_] in days and (reread_final or is_due(id_, state, knowledge.known, to_us(now)))
    ]
    assert due_ids(knowledge, days, now=now, options=options, reread_final=reread_final) == due
    if not reread_final:
        assert count_due(knowledge, sorted(days), now=now, options=options) == Counter(day_of_id[id_] for id_ in due)


@pytest.mark.parametrize("is_ended", [False, True])
def test_a_call_is_due_to_the_minute(is_ended: bool) -> None:
    """Around five minutes, four times the age at which it was read, and the rungs."""
    started_us, minute_us = to_us(MIDNIGHT), 60_000_000
    minutes = [0, 1, 2, 4, 5, 6, 19, 20, 21, 59, 60, 61, 239, 240, 241, 1_439, 1_440, 1_441]
    knowledge = Knowledge(ZONE)
    for id_, read_after in enumerate(minutes):
        state = Known(Kind.CALL, started_us, is_ended, started_us + read_after * minute_us, FIRST)
        knowledge.add(id_, state)
    options = SweepOptions(timezone=ZONE, reread_after=RUNGS)
    for age in minutes:
        now = MIDNIGHT + timedelta(minutes=age)
        due = [id_ for id_, state in knowledge.known.items() if is_due(id_, state, knowledge.known, to_us(now))]
        assert due_ids(knowledge, [FIRST], now=now, options=options) == due
