"""Lakes outlive versions: old files beside new ones, a column that is added, a change that would break readers."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from calls_assets.derive import publish_agents, publish_day
from calls_assets.lake import DATASETS, TABLES, Lake, verify
from calls_assets.lake.catalog import write_catalog
from calls_assets.lake.contract import describe_contract, find_breaks, main
from calls_assets.lake.dictionary import render_data_dictionary
from calls_assets.lake.schemas import Table
from calls_assets.read import read_table
from calls_assets_tests.lakes import ZONE
from calls_assets_tests.readers.engines import ENGINES, Engine, expect

FIXTURES = Path(__file__).parents[1] / "fixtures"
RECORDED = Path(__file__).parents[2] / "docs/schema.json"
OLD_DAYS = [date(2025, 2, 14), date(2025, 2, 15)]
NEW_DAY = date(2025, 2, 16)
CALL_DATE = pa.field("call_date", pa.date32())
ADDED = pa.field("sentiment_score", pa.float64(), metadata={"description": "How the caller felt, -1 to 1."})


@pytest.fixture(params=sorted(path.name for path in FIXTURES.glob("lake_schema_*")))
def old_lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    """Gives a copy of a lake that an older version wrote."""
    return Lake.open(Path(shutil.copytree(FIXTURES / request.param, tmp_path / "data")))


@pytest.fixture
def wider(monkeypatch: pytest.MonkeyPatch) -> Table:
    """Adds a column to `calls`, as one does: last in the registry, and allowed to be NULL."""
    table = replace(TABLES["calls"], schema=TABLES["calls"].schema.append(ADDED))
    monkeypatch.setitem(TABLES, "calls", table)
    monkeypatch.setitem(DATASETS, "calls", table)
    return table


def add_day(lake: Lake) -> list[dict[str, Any]]:
    """Writes a new day with today's columns; gives its rows."""
    shift = timedelta(days=(NEW_DAY - OLD_DAYS[0]).days)
    rows: list[dict[str, Any]] = lake.read_table("calls", OLD_DAYS[0]).to_pylist()
    for index, row in enumerate(rows):
        row |= {"call_id": row["call_id"] + 10**6, "started_at": row["started_at"] + shift}
        row[ADDED.name] = index / 8
    lake.write_table("calls", NEW_DAY, pa.Table.from_pylist(rows, schema=DATASETS["calls"].schema))
    return rows


def with_days(lake: Lake, days: list[date], **missing: None) -> list[dict[str, Any]]:
    """Reads rows of `calls`, with columns their files do not have."""
    return [missing | row | {"call_date": day} for day in days for row in lake.read_table("calls", day).to_pylist()]


def test_a_lake_of_an_older_version_is_whole_and_is_made_again_from_raw(old_lake: Lake) -> None:
    """Every seal is right, and today's code makes of its raw what is in its tables, plus columns added since."""
    assert verify(old_lake) == []
    held = {(name, day): old_lake.read_table(name, day) for name in TABLES for day in old_lake.table_days(name)}
    assert {day for _, day in held} == set(OLD_DAYS)
    for day in OLD_DAYS:
        publish_day(old_lake, day, timezone=ZONE, reread_after=(timedelta(days=7),))
    publish_agents(old_lake)
    for (name, day), table in held.items():
        assert old_lake.read_table(name, day).select(table.column_names).equals(table), (name, day)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_old_and_new_days_are_read_together(old_lake: Lake, engine: Engine, tmp_path: Path) -> None:
    """With today's columns."""
    add_day(old_lake)
    schema = DATASETS["calls"].schema
    missing = dict.fromkeys(set(schema.names) - set(old_lake.read_table("calls", OLD_DAYS[0]).column_names))
    rows = with_days(old_lake, [*OLD_DAYS, NEW_DAY], **missing)
    assert engine.describe(tmp_path / "data", DATASETS["calls"]) == expect(schema.append(CALL_DATE), rows, engine)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_an_added_column_is_null_in_old_days(old_lake: Lake, wider: Table, engine: Engine, tmp_path: Path) -> None:
    """For every reader, whatever is asked of the other columns."""
    new = add_day(old_lake)
    rows = with_days(old_lake, [*OLD_DAYS, NEW_DAY], **{ADDED.name: None})
    described = engine.describe(tmp_path / "data", wider)
    assert described == expect(wider.schema.append(CALL_DATE), rows, engine)
    assert described.columns[ADDED.name].nulls == len(rows) - len(new) > 0
    assert described.columns[ADDED.name].total == sum(row[ADDED.name] for row in new) > 0


def test_an_added_column_is_in_everything_we_make(old_lake: Lake, wider: Table, tmp_path: Path) -> None:
    """The catalogue with its comment, the frames, the data dictionary, the contract; the days from raw follow."""
    new = add_day(old_lake)
    write_catalog(old_lake)
    query = f"SELECT call_date, count({ADDED.name}) AS n FROM calls GROUP BY ALL ORDER BY ALL"  # noqa: S608 - our name
    with duckdb.connect(str(tmp_path / "data/catalog.duckdb"), read_only=True) as connection:
        assert connection.sql(query).fetchall() == [(OLD_DAYS[0], 0), (OLD_DAYS[1], 0), (NEW_DAY, len(new))]
        (comment,) = connection.sql(
            f"SELECT comment FROM duckdb_columns() WHERE table_name = 'calls' AND column_name = '{ADDED.name}'"  # noqa: S608
        ).fetchall()
        assert comment == ("How the caller felt, -1 to 1.",)
    frame = read_table("calls", OLD_DAYS[0], NEW_DAY, columns=["call_id", ADDED.name], data_dir=tmp_path / "data")
    assert int(frame[ADDED.name].notna().sum()) == len(new)
    assert f"| `{ADDED.name}` | double | How the caller felt" in render_data_dictionary()
    assert wider.schema.names[-1] == ADDED.name
    assert find_breaks(json.loads(RECORDED.read_text()), describe_contract()) == []


def test_the_recorded_contract_is_todays() -> None:
    """So that a column is protected from the day it is added: `make docs` records it."""
    recorded = json.loads(RECORDED.read_text())
    breaks = find_breaks(recorded, describe_contract())
    assert not breaks, "\n".join(breaks)
    assert recorded == describe_contract(), "run `make docs` to record what was added"


def _column(contract: dict[str, Any], name: str) -> dict[str, Any]:
    return next(column for column in contract["calls"]["columns"] if column["name"] == name)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda contract: contract.pop("calls"), "calls: the table is gone"),
        (lambda contract: contract["calls"].update(key=["contact_id"]), r"calls: key was \['call_id'\] and is"),
        (lambda contract: contract["calls"].update(tree="marts"), "calls: tree was tables and is marts"),
        (lambda contract: _column(contract, "tags").update(name="labels"), "calls.tags: the column is gone"),
        (lambda contract: _column(contract, "call_id").update(type="string"), "call_id: was int64 and is string"),
        (lambda contract: _column(contract, "call_id").update(may_be_null=True), "call_id: was never NULL and may be"),
        (
            lambda contract: contract["calls"]["columns"].insert(0, contract["calls"]["columns"].pop()),
            "calls.call_id: was column 1 and is column 2",
        ),
        (
            lambda contract: contract["calls"]["columns"].append({"name": "a", "type": "string", "may_be_null": False}),
            "calls.a: a new column that is never NULL",
        ),
    ],
)
def test_a_change_that_breaks_readers_is_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[dict[str, Any]], object],
    line: str,
) -> None:
    """With what it breaks and what to do instead, and the record stays."""
    path = tmp_path / "schema.json"
    assert main(path) == 0
    before = path.read_text()
    changed = describe_contract()
    change(changed)
    monkeypatch.setattr("calls_assets.lake.contract.describe_contract", lambda: changed)
    assert main(path) == 1
    assert path.read_text() == before
    said = capsys.readouterr().err
    assert re.search(line, said), said
    assert "Give the new meaning a new column" in said
