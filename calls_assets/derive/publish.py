"""Publishing: writes the tables of a day so that they show all of its raw, whoever else is writing.

What belongs here: the order of writing and the second look at raw. What stays out: what the rows are (`day`,
`agents`) and how files are replaced (`lake`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from calls_assets.derive.agents import derive_agents
from calls_assets.derive.day import derive_day, identify_source
from calls_assets.lake import DAILY_TABLES, TABLES, TABLES_PREFIX, CorruptFileError, Lake, LakeError, StoredFile
from calls_assets.lake.recipe import make_recipe

_ATTEMPTS = 20
_CODE = ("calls_assets.derive", "calls_assets.api", "calls_assets.lake")
_CALL_COLUMNS = ("call_id", "started_at", "agent_ids")
_LEG_COLUMNS = ("call_id", "leg", "agent_id", "user_id", "alias", "sip", "started_at")


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
        unless_current: Leave them as they are when they are whole and were made of the same answers in the same way.

    Raises:
        LakeError: Raw cannot be read or a table not written; tables written before stay.
    """
    recipe = make_recipe(_CODE, timezone.key, reread_after, *(TABLES[name].schema for name in DAILY_TABLES))
    shown = lake.published_day(day) if unless_current else None
    if shown and shown.recipe != recipe:
        shown = None
    if shown and shown.segment_keys == lake.raw_keys_of(day):
        counts = _count_rows(lake, day, names, shown.seals)
        if counts is not None:
            return PublishReport(day=day, row_counts=counts, replaced=frozenset())
    replaced: set[str] = set()
    for _ in range(_ATTEMPTS):
        seals = dict(shown.seals) if shown else {}
        raw = lake.read_day(day)
        source = identify_source(raw.versions, raw.events)
        counts = _count_rows(lake, day, names, shown.seals) if shown and shown.source == source else None
        if counts is None:
            tables = derive_day(raw.versions, day, events=raw.events, timezone=timezone, reread_after=reread_after)
            counts = {}
            for name in (name for name in DAILY_TABLES if name in names):
                is_replaced, seals[name] = lake.put_table(name, day, tables[name])
                replaced |= {name} if is_replaced else set()
                counts[name] = len(tables[name])
        if lake.is_current(raw):
            if set(names) >= set(DAILY_TABLES):
                lake.mark_published(raw, recipe, source, seals)
            return PublishReport(day=day, row_counts=counts, replaced=frozenset(replaced))
    raise LakeError(f"the raw files of {day} keep changing while its tables are made: try again")


def _count_rows(lake: Lake, day: date, names: Collection[str], seals: Mapping[str, str]) -> dict[str, int] | None:
    """Gives the rows of a day's tables; None when one is missing, damaged or not the one with this seal."""
    counts = {}
    for name in (name for name in DAILY_TABLES if name in names):
        try:
            counts[name], seal = lake.count_rows(name, day)
        except (FileNotFoundError, CorruptFileError):
            return None
        if seal != seals.get(name):
            return None
    return counts


def publish_agents(lake: Lake, *, unless_current: bool = False) -> int:
    """Derives `agents` from the tables of all days and writes it.

    Args:
        lake: The lake.
        unless_current: Leave it as it is when it is whole and was made of the same files in the same way.

    Returns:
        The number of agents.
    """
    for _ in range(_ATTEMPTS):
        seen = _list_sources(lake)
        recipe = make_recipe(_CODE, TABLES["agents"].schema, seen)
        if unless_current and lake.read_made_of("agents").get("recipe") == recipe:
            with contextlib.suppress(FileNotFoundError, CorruptFileError):
                return lake.count_rows("agents")[0]
        days = sorted(set(lake.table_days("calls")) & set(lake.table_days("call_agents")))
        agents = derive_agents(
            (lake.read_table("calls", day, _CALL_COLUMNS), lake.read_table("call_agents", day, _LEG_COLUMNS))
            for day in days
        )
        lake.write_table("agents", None, agents)
        if _list_sources(lake) == seen:
            if unless_current:
                lake.write_made_of("agents", {"recipe": recipe})
            return len(agents)
    raise LakeError("the tables keep changing while agents is made: try again")


def _list_sources(lake: Lake) -> list[StoredFile]:
    return [file for name in ("calls", "call_agents") for file in lake.list_files(f"{TABLES_PREFIX}{name}/")]
