"""Publishing: makes the marts of days from the tables in the lake and writes them.

What belongs here: which tables a mart is made from, and the second look at them. What stays out: what the rows are
(`*.sql`) and how files are replaced (`lake`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from calls_assets.lake import MARTS, TABLES, CorruptFileError, Lake, LakeError, StoredFile
from calls_assets.lake.recipe import make_recipe
from calls_assets.marts.query import connect, run_mart
from calls_assets.marts.weeks import journey_days, monday_of

if TYPE_CHECKING:
    import duckdb

_ATTEMPTS = 20
_JOURNEYS = "call_journeys"
_SOURCES: Mapping[str, Mapping[str, tuple[str, ...] | None]] = {
    "service_intervals": {"calls": None},
    "agent_days": {"calls": None, "call_agents": None},
    "disposition_days": {"calls": None},
    _JOURNEYS: {
        "calls": (
            "call_id",
            "started_at",
            "started_at_local",
            "is_inbound",
            "is_answered",
            "is_ended",
            "talk_time_seconds",
            "original_call_id",
            "contact_id",
            "campaign_id",
            "campaign_name",
            "ring_group_id",
            "ring_group_name",
        ),
        "call_agents": ("call_id", "agent_id", "is_answered"),
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MartsReport:
    """What was written for a day.

    Attributes:
        day: The day.
        row_counts: Rows of each mart written.
        replaced: Names of the marts whose rows changed.
    """

    day: date
    row_counts: dict[str, int]
    replaced: frozenset[str]


def publish_marts(
    lake: Lake,
    days: Iterable[date],
    *,
    now: datetime,
    timezone: ZoneInfo,
    names: Collection[str] = tuple(MARTS),
    unless_current: bool = False,
) -> dict[date, MartsReport]:
    """Makes marts of days and writes those whose rows changed.

    When the tables change meanwhile the marts are made again, so of two writers the last one shows everything.

    Args:
        lake: The lake; it has the tables of the days.
        days: The days. Those of one week cost little more than one of them: `call_journeys` is made by the week.
        now: The time: a journey is complete when the days in which it could grow are over.
        timezone: Zone of the days.
        names: The marts to write.
        unless_current: Leave those as they are that are whole and were made of the same files in the same way.

    Raises:
        LakeError: A day has no tables, a file cannot be read or written; marts written before stay.
    """
    counts: dict[date, dict[str, int]] = {day: {} for day in sorted(set(days))}
    replaced: dict[date, set[str]] = {day: set() for day in counts}
    today = now.astimezone(timezone).date()
    made_of = {day: lake.read_made_of(str(day)) for day in counts} if unless_current else None
    with ExitStack() as stack:
        connection = cache(lambda: stack.enter_context(connect()))
        for monday, week in groupby(counts, monday_of):
            of_week = list(week)
            for name in (name for name in MARTS if name in names):
                for group in [of_week] if name == _JOURNEYS else [[day] for day in of_week]:
                    work = _Work(lake, connection, name, group, monday, today)
                    for day, count, is_replaced in _publish(work, made_of):
                        counts[day][name] = count
                        replaced[day] |= {name} if is_replaced else set()
    for day, held in (made_of or {}).items():
        lake.write_made_of(str(day), held)
    return {day: MartsReport(day=day, row_counts=counts[day], replaced=frozenset(replaced[day])) for day in counts}


@dataclass(frozen=True, slots=True)
class _Work:
    """A mart to make for days of one week.

    Attributes:
        lake: The lake.
        connection: Opens the database that makes it, once.
        name: The mart.
        days: The days.
        monday: Of their week.
        today: The local day.
    """

    lake: Lake
    connection: Callable[[], duckdb.DuckDBPyConnection]
    name: str
    days: list[date]
    monday: date
    today: date


def _publish(work: _Work, made_of: Mapping[date, dict[str, Any]] | None) -> Iterator[tuple[date, int, bool]]:
    """Writes a mart for its days; yields for each its rows and whether they changed."""
    lake, name, days = work.lake, work.name, work.days
    replaced: set[date] = set()
    span = journey_days(work.monday) if name == _JOURNEYS else days
    for _ in range(_ATTEMPTS):
        seen = _list_sources(lake, name, span)  # before the days: one that appears later is a difference then
        keys = {file.key for file in seen}
        stored = {day for day in span if all(lake.table_key(source, day) in keys for source in _SOURCES[name])}
        missing = [day for day in days if day not in stored]
        if missing:
            raise LakeError(f"{missing[0]} has no tables in the lake: materialize them before its marts")
        read_days = [day for day in span if day in stored]
        unknown = [day for day in span if day not in stored or day >= work.today]
        parameters = {"monday": work.monday, "unknown_days": unknown} if name == _JOURNEYS else None
        recipe = make_recipe(["calls_assets.marts"], MARTS[name].schema, parameters, seen)
        if made_of is not None and not replaced:
            held = _count_current(lake, name, days, recipe, made_of)
            if held is not None:
                yield from ((day, count, False) for day, count in held.items())
                return
        tables = {
            source: _read(lake, source, read_days, columns, with_day=name == _JOURNEYS)
            for source, columns in _SOURCES[name].items()
        }
        rows = run_mart(work.connection(), name, tables, parameters)
        if name == _JOURNEYS:
            by_day = {day: rows.filter(pc.equal(rows["call_date"], pa.scalar(day))) for day in days}
        else:
            by_day = {days[0]: rows}
        replaced |= {day for day in days if lake.write_table(name, day, by_day[day])}
        if _list_sources(lake, name, span) == seen:
            for day in days:
                if made_of is not None:
                    made_of[day][name] = recipe
                yield day, len(by_day[day]), day in replaced
            return
    raise LakeError(f"the tables of {days[0]} keep changing while {name} is made: try again")


def _count_current(
    lake: Lake, name: str, days: Iterable[date], recipe: str, made_of: Mapping[date, dict[str, Any]]
) -> dict[date, int] | None:
    """Gives the rows of a mart by day; None when a day is not current, or missing or damaged."""
    if any(made_of[day].get(name) != recipe for day in days):
        return None
    try:
        return {day: lake.count_rows(name, day)[0] for day in days}
    except (FileNotFoundError, CorruptFileError):
        return None


def _read(lake: Lake, name: str, days: list[date], columns: tuple[str, ...] | None, *, with_day: bool) -> pa.Table:
    """Reads a table's days into one; a column that was added after a day was made is NULL in it."""
    parts = [TABLES[name].schema.empty_table().select(columns or TABLES[name].schema.names)]
    for day in days:
        rows = lake.read_table(name, day, columns)
        parts.append(rows.append_column("call_date", pa.repeat(pa.scalar(day), len(rows))) if with_day else rows)
    return pa.concat_tables(parts, promote_options="default")


def _list_sources(lake: Lake, name: str, days: list[date]) -> list[StoredFile]:
    return [file for source in _SOURCES[name] for file in lake.list_table_files(source, days)]
