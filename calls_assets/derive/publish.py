"""Publishing: writes the tables of a day so that they show all of its raw, whoever else is writing.

What belongs here: the order of writing and the second look at raw. What stays out: what the rows are (`day`,
`agents`) and how files are replaced (`lake`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from calls_assets.derive.agents import derive_agents
from calls_assets.derive.day import derive_day
from calls_assets.lake import DAILY_TABLES, TABLES_PREFIX, Lake, LakeError, StoredFile

_ATTEMPTS = 20
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
) -> PublishReport:
    """Derives a day from raw and writes its tables, `calls` last.

    When raw changed meanwhile the day is derived again, so of two writers the last one shows everything.

    Args:
        lake: The lake.
        day: The day.
        timezone: Zone of the days.
        reread_after: Ages at which calls are read again.
        names: The tables to write.

    Raises:
        LakeError: Raw cannot be read or a table not written; tables written before stay.
    """
    replaced: set[str] = set()
    for _ in range(_ATTEMPTS):
        raw = lake.read_day(day)
        tables = derive_day(raw.versions, day, events=raw.events, timezone=timezone, reread_after=reread_after)
        replaced |= {name for name in DAILY_TABLES if name in names and lake.write_table(name, day, tables[name])}
        if lake.is_current(raw):
            if set(names) >= set(DAILY_TABLES):
                lake.mark_published(raw)
            counts = {name: len(tables[name]) for name in DAILY_TABLES if name in names}
            return PublishReport(day=day, row_counts=counts, replaced=frozenset(replaced))
    raise LakeError(f"the raw files of {day} keep changing while its tables are made: try again")


def publish_agents(lake: Lake) -> int:
    """Derives `agents` from the tables of all days and writes it.

    Returns:
        The number of agents.
    """
    for _ in range(_ATTEMPTS):
        seen = _list_sources(lake)
        days = sorted(set(lake.table_days("calls")) & set(lake.table_days("call_agents")))
        agents = derive_agents(
            (lake.read_table("calls", day, _CALL_COLUMNS), lake.read_table("call_agents", day, _LEG_COLUMNS))
            for day in days
        )
        lake.write_table("agents", None, agents)
        if _list_sources(lake) == seen:
            return len(agents)
    raise LakeError("the tables keep changing while agents is made: try again")


def _list_sources(lake: Lake) -> list[StoredFile]:
    return [file for name in ("calls", "call_agents") for file in lake.list_files(f"{TABLES_PREFIX}{name}/")]
