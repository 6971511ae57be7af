"""Publishing: writes the tables of a day so that they show all of its raw, whoever else is writing.

What belongs here: the order of writing and the second look at raw. What stays out: what the rows are (`day`), how files
are replaced (`lake`), and the table that has no days (`agents_publish`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from calls_assets.derive.day import derive_day
from calls_assets.lake import (
    DAILY_TABLES,
    TABLES,
    CorruptFileError,
    Lake,
    LakeError,
    Published,
    RawDay,
)
from calls_assets.lake.recipe import make_recipe

_ATTEMPTS = 20
_CODE = ("calls_assets.derive", "calls_assets.api", "calls_assets.lake")
_LIBRARIES = (pa.__version__, msgspec.__version__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishReport:
    """What was written for a day.

    Attributes:
        day: The day.
        row_counts: Rows of each table written.
        replaced: Names of the tables whose rows changed.
    """

    day: date
    row_counts: dict[str, int]
    replaced: frozenset[str]


def publish_day(
    lake: Lake,
    day: date,
    *,
    timezone: ZoneInfo,
    reread_after: tuple[timedelta, ...],
    names: Collection[str] = DAILY_TABLES,
    unless_current: bool = False,
) -> PublishReport:
    """Derives a day from raw and writes its tables, `calls` last.

    When raw changed meanwhile it is looked at again, so of two writers the last one shows everything.

    Args:
        lake: The lake.
        day: The day.
        timezone: Zone of the days.
        reread_after: Ages at which calls are read again.
        names: The tables to write.
        unless_current: Keep what is whole and was made of the same answers in the same way: all tables, or the rows of
            all calls of which there is nothing new.

    Raises:
        LakeError: Raw cannot be read or a table not written; tables written before stay.
    """
    schemas = (TABLES[name].schema for name in DAILY_TABLES)
    recipe = make_recipe(_CODE, *_LIBRARIES, timezone.key, *_edges(day, timezone), reread_after, *schemas)
    wanted = [name for name in DAILY_TABLES if name in names]
    derive = partial(derive_day, day=day, timezone=timezone, reread_after=reread_after)
    replaced: set[str] = set()
    for _ in range(_ATTEMPTS):
        shown = lake.published_day(day) if unless_current else None
        made = None
        if shown and shown.recipe == recipe:
            keys = lake.raw_keys_of(day)
            if shown.segment_keys == keys:
                counts = _count_rows(lake, day, wanted, shown.seals)
                if counts is not None:
                    return PublishReport(day=day, row_counts=counts, replaced=frozenset(replaced))
            elif shown.segment_keys < keys:
                made = _add_changed(lake, day, shown, wanted, derive)
        if made is None:
            raw = lake.read_day(day)
            made = _Made(raw, derive(raw.versions, events=raw.events), {})
        counts, seals = {}, {}
        for name in wanted:
            if name in made.kept:
                counts[name], seals[name] = made.kept[name]
            else:
                counts[name] = len(made.tables[name])
                is_replaced, seals[name] = lake.put_table(name, day, made.tables[name])
                replaced |= {name} if is_replaced else set()
        if lake.is_current(made.raw):
            if len(wanted) == len(DAILY_TABLES):
                lake.mark_published(made.raw, recipe, seals)
            return PublishReport(day=day, row_counts=counts, replaced=frozenset(replaced))
    raise LakeError(f"the raw files of {day} keep changing while its tables are made: try again")


def _edges(day: date, timezone: ZoneInfo) -> tuple[datetime, datetime]:
    """Gives the instants at which a day begins and ends: laws that decide have changed when they have."""
    begin, end = (
        datetime(edge.year, edge.month, edge.day, tzinfo=timezone).astimezone(UTC)
        for edge in (day, day + timedelta(days=1))
    )
    return begin, end


@dataclass(frozen=True, slots=True)
class _Made:
    """The tables of a day, made.

    Attributes:
        raw: What they show.
        tables: Those to be written.
        kept: Of those whose files show it already, the number of rows and the file's seal.
    """

    raw: RawDay
    tables: dict[str, pa.Table]
    kept: dict[str, tuple[int, str]]


def _add_changed(
    lake: Lake, day: date, shown: Published, names: Sequence[str], derive: Callable[..., dict[str, pa.Table]]
) -> _Made | None:
    """Derives the calls that new raw files are about, and takes all others from the tables that are there.

    A row is of one call, and made of nothing but what raw has of it. As long as all files are there that the tables
    show, whatever raw has of the other calls is in these, and shown.

    Returns:
        What `derive` would give of all of raw; None when a table or a raw file is gone, damaged or another one.
    """
    try:
        held = {name: lake.read_sealed_table(name, day) for name in names}
        if any(seal != shown.seals.get(name) for name, (_, seal) in held.items()):
            return None
        raw = lake.read_day(day, shown.segment_keys)
    except (FileNotFoundError, CorruptFileError):
        return None  # what is damaged in raw is told by who reads all of it
    if not shown.segment_keys <= raw.segment_keys:
        return None
    made = _Made(raw, {}, {})
    parts = derive(raw.versions, events=raw.events)
    for name, (rows, seal) in held.items():
        is_changed = pc.is_in(rows["call_id"], value_set=raw.call_ids)
        if rows.filter(is_changed).equals(parts[name]):
            made.kept[name] = len(rows), seal
        else:
            order = [(column, "ascending") for column in TABLES[name].sort_by]
            rest = rows.filter(pc.invert(is_changed)).cast(parts[name].schema)
            made.tables[name] = pa.concat_tables([rest, parts[name]]).sort_by(order)
    return made


def _count_rows(lake: Lake, day: date, names: Collection[str], seals: Mapping[str, str]) -> dict[str, int] | None:
    """Gives the rows of a day's tables; None when one is missing, damaged or not the one with this seal."""
    counts = {}
    for name in names:
        try:
            counts[name], seal = lake.count_rows(name, day)
        except (FileNotFoundError, CorruptFileError):
            return None
        if seal != seals.get(name):
            return None
    return counts
