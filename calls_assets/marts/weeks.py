"""Weeks: which days' tables the journeys of a day are made from, and the other way round.

A call continues one that began within 7 days, and a chain that has gone through a whole week (Monday to Sunday) is cut
at its end. So the journeys of a week are known from its calls, those of the week after, which they may reach into, and
those of the two weeks before: the last to see which chains come in, the one before that to see which have to be cut.
"""

from __future__ import annotations

from datetime import date, timedelta

_WEEKS_BEFORE = 2
_WEEKS_AFTER = 1


def monday_of(day: date) -> date:
    """Gives the Monday of the day's week."""
    return day - timedelta(days=day.weekday())


def journey_days(day: date) -> list[date]:
    """Lists the days that the journeys of a day are made from: four calendar weeks, its own the third."""
    return _weeks(day, _WEEKS_BEFORE, _WEEKS_AFTER)


def days_with_journeys_through(day: date) -> list[date]:
    """Lists the days whose journeys are made from this one too: when it changes, theirs may."""
    return _weeks(day, _WEEKS_AFTER, _WEEKS_BEFORE)


def _weeks(day: date, before: int, after: int) -> list[date]:
    first = monday_of(day) - timedelta(weeks=before)
    return [first + timedelta(days=offset) for offset in range(7 * (before + 1 + after))]
