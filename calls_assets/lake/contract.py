"""The tables' contract as data: what readers rely on, recorded in docs/schema.json and only ever extended.

    python -m calls_assets.lake.contract docs/schema.json   # record what was added; refuses what breaks readers

A change breaks readers when a query that worked on the recorded columns can fail or mean something else: a table or
column that is gone, renamed, retyped or moved, one that may be NULL from now on, another key or another place. A table
or column may be added; a new column comes last and may be NULL, because files of older versions do not have it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from calls_assets.lake.mart_schemas import DATASETS
from calls_assets.lake.schemas import Table

_ADVICE = (
    "Give the new meaning a new column, last in its table, and keep the old one filled; or a new table. "
    "If it cannot be avoided, release a new major version, say in CHANGELOG.md what readers must change and how lakes "
    "are rebuilt, and delete docs/schema.json before `make docs`."
)


def describe_contract() -> dict[str, Any]:
    """Gives every table and mart: its place, key, and columns in order with type and whether they may be NULL."""
    return {name: _describe(table) for name, table in DATASETS.items()}


def _describe(table: Table) -> dict[str, Any]:
    columns = [{"name": field.name, "type": str(field.type), "may_be_null": field.nullable} for field in table.schema]
    return {"tree": table.tree, "is_daily": table.is_daily, "key": list(table.key), "columns": columns}


def find_breaks(recorded: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """Compares a contract with the recorded one.

    Returns:
        A line for each change that breaks readers; the last line says what to do instead. Empty when there is none.
    """
    breaks = []
    for name, old in recorded.items():
        new = current.get(name)
        if new is None:
            breaks.append(f"{name}: the table is gone")
            continue
        breaks += [
            f"{name}: {trait} was {old[trait]} and is {new[trait]}"
            for trait in ("tree", "is_daily", "key")
            if old[trait] != new[trait]
        ]
        places = {column["name"]: place for place, column in enumerate(new["columns"])}
        for place, column in enumerate(old["columns"]):
            label = f"{name}.{column['name']}"
            if column["name"] not in places:
                breaks.append(f"{label}: the column is gone")
                continue
            now = new["columns"][places[column["name"]]]
            if now["type"] != column["type"]:
                breaks.append(f"{label}: was {column['type']} and is {now['type']}")
            if now["may_be_null"] and not column["may_be_null"]:
                breaks.append(f"{label}: was never NULL and may be")
            if places[column["name"]] != place:
                breaks.append(f"{label}: was column {place + 1} and is column {places[column['name']] + 1}")
        known = {column["name"] for column in old["columns"]}
        breaks += [
            f"{name}.{column['name']}: a new column that is never NULL, which files of older versions cannot fulfil"
            for column in new["columns"]
            if column["name"] not in known and not column["may_be_null"]
        ]
    return [*breaks, _ADVICE] if breaks else []


def main(path: Path) -> int:
    """Records the contract in a file, unless it would break the one that is recorded there."""
    breaks = find_breaks(json.loads(path.read_text()), describe_contract()) if path.exists() else []
    if breaks:
        sys.stderr.write("\n".join([f"{path}: this change breaks readers", *breaks, ""]))
        return 1
    path.write_text(json.dumps(describe_contract(), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
