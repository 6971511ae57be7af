"""Chains of calls: what continues what, where a chain is cut, and when it is over."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calls_assets.marts import days_with_journeys_through, journey_days
from calls_assets.marts.query import run_mart
from calls_assets_tests.lakes import to_table
from calls_assets_tests.marts.oracle import Row, expect_call_journeys, monday

MONDAY = date(2025, 5, 12)
NOON = datetime(2025, 5, 14, 12, tzinfo=UTC)  # a Wednesday
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
DATABASE = duckdb.connect()


def a_call(call_id: int, started_at: datetime = NOON, **fields: Any) -> Row:  # noqa: ANN401 - columns of any type
    """Makes an answered inbound call of contact 1."""
    return {
        "call_id": call_id,
        "started_at": started_at,
        "started_at_local": started_at.replace(tzinfo=None),
        "is_inbound": True,
        "is_answered": True,
        "is_ended": True,
        "contact_id": 1,
        **fields,
    }


def make_journeys(calls: list[Row], week: date = MONDAY, *, unknown_days: tuple[date, ...] = ()) -> list[Row]:
    """Makes the journeys of a week from the days that they are made from."""
    days = journey_days(week)
    day_of = {call["call_id"]: call.get("day", call["started_at"].date()) for call in calls}
    read = [call for call in calls if day_of[call["call_id"]] in days]
    table = to_table("calls", read)
    table = table.append_column("call_date", pa.array([day_of[call["call_id"]] for call in read], pa.date32()))
    tables = {"calls": table, "call_agents": to_table("call_agents", [])}
    parameters = {"monday": week, "unknown_days": [day for day in days if day in unknown_days]}
    rows: list[Row] = run_mart(DATABASE, "call_journeys", tables, parameters).to_pylist()
    return rows


def chains(calls: list[Row], week: date = MONDAY) -> list[tuple[int, int, int]]:
    """Gives first call, last call and number of calls of each journey."""
    return [(row["first_call_id"], row["last_call_id"], row["calls"]) for row in make_journeys(calls, week)]


def test_a_contact_who_calls_again_within_seven_days_is_in_the_same_journey() -> None:
    """Up to 15 minutes it is a redial, up to 7 days a repeat, later another matter."""
    calls = [a_call(1), a_call(2, NOON + 15 * MINUTE), a_call(3, NOON + 31 * MINUTE)]
    (row,) = make_journeys(calls)
    assert (row["calls"], row["redial_calls"], row["repeat_calls"]) == (3, 1, 1)
    assert row["is_resolved_without_repeat"] is False
    assert chains([a_call(1), a_call(2, NOON + 7 * DAY)]) == [(1, 2, 2)]
    assert chains([a_call(1), a_call(2, NOON + 7 * DAY + timedelta(seconds=1))]) == [(1, 1, 1)]


@pytest.mark.parametrize("link", [{"contact_id": 1}, {"contact_id": None, "original_call_id": 1}])
def test_seven_days_are_no_more_than_seven_days_of_the_calendar(link: dict[str, Any]) -> None:
    """168 hours over a day of 23 can begin eight days before, and those are not among the days that are read."""
    for days_before, expected in ((7, [(1, 2, 2)]), (8, [(1, 1, 1), (2, 2, 1)])):
        first = a_call(1, NOON - 7 * DAY, day=NOON.date() - days_before * DAY)
        calls = [first, a_call(2, **link)]
        assert [*chains(calls, MONDAY - 7 * DAY), *chains(calls)] == expected


@pytest.mark.parametrize(
    "other", [{"contact_id": 2}, {"contact_id": None}, {"is_inbound": False}, {"is_inbound": None}]
)
def test_other_contacts_unknown_ones_and_agents_calls_are_no_repeats(other: dict[str, Any]) -> None:
    """And neither is a call after such a one."""
    later = NOON + 60 * MINUTE
    assert chains([a_call(1), a_call(2, later, **other)]) == [(1, 1, 1), (2, 2, 1)]
    assert chains([a_call(1, **other), a_call(2, later)]) == [(1, 1, 1), (2, 2, 1)]
    if "contact_id" in other:
        assert chains([a_call(1, contact_id=None), a_call(2, later, contact_id=None)]) == [(1, 1, 1), (2, 2, 1)]


def test_transfers_and_callbacks_continue_the_call_they_name() -> None:
    """Whoever is called; they explain the call, so it is no repeat."""
    calls = [
        a_call(1, is_answered=False, requested_callback=True),
        a_call(2, NOON + 30 * MINUTE, is_inbound=False, contact_id=9, original_call_id=1),
        a_call(3, NOON + 60 * MINUTE, original_call_id=2),
    ]
    (row,) = make_journeys(calls)
    assert (row["first_call_id"], row["last_call_id"], row["calls"], row["continued_calls"]) == (1, 3, 3, 2)
    assert row["is_resolved_without_repeat"] is True


@pytest.mark.parametrize("original", [2, 3, 999, None])
def test_links_to_itself_to_later_calls_and_to_nowhere_end_cleanly(original: int | None) -> None:
    """Rings of two and three calls as well: every call is in one journey."""
    calls = [
        a_call(1, contact_id=None, original_call_id=3),
        a_call(2, NOON + MINUTE, contact_id=None, original_call_id=original),
        a_call(3, NOON + 2 * MINUTE, contact_id=None, original_call_id=2),
        a_call(4, NOON + 8 * DAY, contact_id=None, original_call_id=1),
    ]
    assert chains(calls) == [(1, 1, 1), (2, 3, 2)]


def test_calls_of_the_same_second_continue_the_lower_id() -> None:
    """Time alone does not put them in order."""
    calls = [a_call(5, contact_id=None, original_call_id=6), a_call(6, contact_id=None, original_call_id=5)]
    assert chains(calls) == [(5, 6, 2)]


def test_a_line_that_rings_every_day_is_cut_by_the_week() -> None:
    """A chain that fills a week ends with it, wherever one looks at it from; one that only crosses weeks does not."""
    start = datetime(2025, 4, 24, 12, tzinfo=UTC)
    daily = [a_call(1 + day, start + day * DAY) for day in range(40)]
    found = [
        (row["first_started_at"].date(), row["last_started_at"].date())
        for week in range(-3, 4)
        for row in make_journeys(daily, MONDAY + week * 7 * DAY)
    ]
    assert found == [
        (date(2025, 4, 24), date(2025, 5, 4)),  # Thursday to the Sunday of the week after
        (date(2025, 5, 5), date(2025, 5, 11)),
        (date(2025, 5, 12), date(2025, 5, 18)),
        (date(2025, 5, 19), date(2025, 5, 25)),
        (date(2025, 5, 26), date(2025, 6, 1)),
        (date(2025, 6, 2), date(2025, 6, 2)),
    ]
    assert chains([a_call(1, NOON + 4 * DAY), a_call(2, NOON + 6 * DAY)]) == [(1, 2, 2)]


def test_a_journey_is_complete_when_no_day_is_left_in_which_it_could_grow() -> None:
    """Until then whether it is resolved is unknown, unless a repeat has come already."""
    calls = [a_call(1), a_call(2, NOON + DAY, contact_id=2), a_call(3, NOON + 2 * DAY, contact_id=2)]
    for unknown_day, complete in [
        (date(2025, 5, 13), (True, True)),
        (date(2025, 5, 14), (False, True)),
        (date(2025, 5, 21), (False, False)),
        (date(2025, 5, 23), (True, False)),
        (date(2025, 5, 24), (True, True)),
    ]:
        one, other = make_journeys(calls, unknown_days=(unknown_day,))
        assert (one["is_complete"], other["is_complete"]) == complete
        assert one["is_resolved_without_repeat"] is (True if complete[0] else None)
        assert other["is_resolved_without_repeat"] is False


def test_a_matter_is_resolved_only_if_someone_answered() -> None:
    """Nobody answered: not resolved. Nobody called in: nothing to resolve."""
    (row,) = make_journeys([a_call(1, is_answered=False)])
    assert (row["is_complete"], row["is_resolved_without_repeat"]) == (True, False)
    (row,) = make_journeys([a_call(1, is_inbound=False)])
    assert (row["is_complete"], row["is_resolved_without_repeat"]) == (True, None)


def test_the_days_read_are_four_weeks_and_the_days_affected_are_their_mirror() -> None:
    """A day is read for exactly the days that say they read it."""
    assert journey_days(date(2025, 5, 14)) == [date(2025, 4, 28) + offset * DAY for offset in range(28)]
    for day in (MONDAY, date(2025, 5, 14), date(2025, 5, 18)):
        around = [day + offset * DAY for offset in range(-40, 41)]
        assert days_with_journeys_through(day) == [other for other in around if day in journey_days(other)]


moments = st.builds(
    lambda day, minute: datetime(2025, 4, 21, tzinfo=UTC) + day * DAY + minute * MINUTE,
    st.integers(0, 48),
    st.sampled_from([0, 1, 16, 700, 1439]),
)
random_calls = st.lists(
    st.tuples(
        moments, st.sampled_from([1, 1, 1, 2, None]), st.sampled_from([True, True, False, None]), st.integers(-3, 40)
    ),
    max_size=40,
)


@settings(max_examples=25, deadline=None)
@given(drawn=random_calls)
def test_four_weeks_are_enough_to_find_every_chain(drawn: list[tuple[datetime, int | None, bool | None, int]]) -> None:
    """Week by week the journeys are those of a calculation that knows all days, and have each call once."""
    calls = [
        a_call(number, started_at, contact_id=contact, is_inbound=is_inbound, original_call_id=original)
        for number, (started_at, contact, is_inbound, original) in enumerate(drawn, start=1)
    ]
    calls = [{**call, **dict.fromkeys(_UNUSED)} for call in calls]
    days = [date(2025, 4, 14) + offset * DAY for offset in range(70)]
    expected = expect_call_journeys(
        {day: [c for c in calls if c["started_at"].date() == day] for day in days}, [], days
    )
    found = 0
    for week in sorted({monday(day) for day in days[:63]}):
        rows = make_journeys(calls, week)
        of_week = [row for offset in range(7) for row in expected[week + offset * DAY]]
        for row in rows:
            del row["call_date"]
        assert sorted(rows, key=lambda row: row["first_call_id"]) == sorted(
            of_week, key=lambda row: row["first_call_id"]
        )
        found += sum(row["calls"] for row in rows)
    assert found == len(calls)


_UNUSED = ("talk_time_seconds", "campaign_id", "campaign_name", "ring_group_id", "ring_group_name")
