"""Publishing `agents`, which is made of the tables of all days: only those that have changed are read again.

What belongs here: which days are read, and the second look at them. What stays out: what the rows are (`agents`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date
from itertools import groupby
from typing import NamedTuple

import pyarrow as pa

from calls_assets.derive.agents import describe_agents, find_sightings
from calls_assets.lake import TABLES, TABLES_PREFIX, CorruptFileError, Lake, LakeError, StoredFile
from calls_assets.lake.recipe import make_recipe

_ATTEMPTS = 20
_NAME = "agents"
_CODE = ("calls_assets.derive", "calls_assets.lake")
_COLUMNS = {
    "calls": ("call_id", "started_at", "agent_ids"),
    "call_agents": ("call_id", "leg", "agent_id", "user_id", "alias", "sip", "started_at"),
}
_CONTENTS = b"contents"
_MONTHS_BY_DAY = 2


def publish_agents(lake: Lake, *, unless_current: bool = False) -> int:
    """Derives `agents` from the tables of all days and writes it.

    Args:
        lake: The lake.
        unless_current: Leave it as it is when it is whole and was made of the same files in the same way; else read the
            days that have changed, and take what was found in the others before.

    Returns:
        The number of agents.

    Raises:
        LakeError: A table cannot be read, `agents` not written, or the tables keep changing.
    """
    is_written = False
    for _ in range(_ATTEMPTS):
        seen = _list_sources(lake)
        recipe = make_recipe(_CODE, TABLES[_NAME].schema, seen)
        # Not what is there since this call: it may stand over the rows that another one says it made.
        if unless_current and not is_written and lake.read_made_of(_NAME).get("recipe") == recipe:
            with suppress(FileNotFoundError, CorruptFileError):
                return lake.count_rows(_NAME)[0]
        held = _read_sightings(lake) if unless_current else {}
        try:
            found = {
                group.recipe: held[group.recipe] if group.recipe in held else _find_sightings(lake, group.days)
                for group in _group_days(lake, seen)
            }
        except FileNotFoundError:
            continue  # deleted since it was listed
        agents = describe_agents(found.values())
        lake.write_table(_NAME, None, agents)
        is_written = True
        if _list_sources(lake) == seen:
            if unless_current:
                _keep_sightings(lake, found)
                lake.write_made_of(_NAME, {"recipe": recipe})
            return len(agents)
    raise LakeError("the tables keep changing while agents is made: try again")


def _list_sources(lake: Lake) -> list[StoredFile]:
    return [file for name in _COLUMNS for file in lake.list_files(f"{TABLES_PREFIX}{name}/")]


class _Group(NamedTuple):
    """Days whose sightings are kept together.

    Attributes:
        days: The days.
        recipe: Identifies the files of their tables, and how sightings are found in them.
    """

    days: tuple[date, ...]
    recipe: str


def _group_days(lake: Lake, seen: Sequence[StoredFile]) -> list[_Group]:
    """Groups the days that have tables by month; each day of the last two months, which change often, is on its own."""
    files: dict[date, list[StoredFile]] = {}
    for file in seen:
        match = re.search(r"/call_date=(\d{4}-\d\d-\d\d)/", file.key)
        day = date.fromisoformat(match[1]) if match else None
        if day and file.key in {lake.table_key(name, day) for name in _COLUMNS}:
            files.setdefault(day, []).append(file)
    days = sorted(day for day, of_day in files.items() if len(of_day) == len(_COLUMNS))
    from_month = _month_of(days[-1]) - _MONTHS_BY_DAY + 1 if days else 0
    groups = groupby(days, lambda day: (_month_of(day), day if _month_of(day) >= from_month else None))
    return [
        _Group(of_group, make_recipe(_CODE, TABLES[_NAME].schema, [files[day] for day in of_group]))
        for of_group in (tuple(group) for _, group in groups)
    ]


def _month_of(day: date) -> int:
    return 12 * day.year + day.month


def _find_sightings(lake: Lake, days: Sequence[date]) -> pa.Table:
    (calls, of_calls), (legs, of_legs) = _COLUMNS.items()
    return find_sightings((lake.read_table(calls, day, of_calls), lake.read_table(legs, day, of_legs)) for day in days)


def _keep_sightings(lake: Lake, found: Mapping[str, pa.Table]) -> None:
    """Stores what was found, so that it is read again only where files have changed."""
    rows = pa.concat_tables([find_sightings([]), *found.values()])
    contents = json.dumps([[recipe, len(table)] for recipe, table in found.items()])
    lake.write_kept(_NAME, rows.replace_schema_metadata({_CONTENTS: contents}))


def _read_sightings(lake: Lake) -> dict[str, pa.Table]:
    """Gives what was found before, by recipe; nothing when it is gone."""
    rows = lake.read_kept(_NAME)
    found, first = {}, 0
    for recipe, count in json.loads((rows.schema.metadata or {}).get(_CONTENTS, b"[]")):
        found[recipe] = rows.slice(first, count).replace_schema_metadata()
        first += count
    return found
