"""What is known of ids: the same whether the raw index is loaded at once, in parts, or row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from calls_assets.ingest.knowledge import Kind, Knowledge, day_of, to_us
from calls_assets.ingest.plan import SweepOptions, due_ids, is_due
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


@given(rows, st.integers(0, 130), st.sets(st.integers(0, 3), min_size=1))
def test_due_ids_are_those_of_the_days_that_are_due(found: list[dict[str, Any]], hours: int, offsets: set[int]) -> None:
    """A call belongs to the local day it starts in, another answer to the day it is stored in."""
    knowledge = load(pa.Table.from_pylist(found, INDEX))
    days = {FIRST + timedelta(days=offset) for offset in offsets}
    now = MIDNIGHT + timedelta(hours=hours)
    options = SweepOptions(timezone=ZONE, reread_after=RUNGS)
    due = [
        id_
        for id_, state in sorted(knowledge.known.items())
        if (day_of(state.started_us, ZONE) if state.kind is Kind.CALL else state.day) in days
        and is_due(id_, state, knowledge, to_us(now), options.rungs_us)
    ]
    assert list(due_ids(knowledge, days, now=now, options=options)) == due
