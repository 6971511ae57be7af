"""The page for analysts: every query and every recipe on it is run as it stands there."""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from calls_assets_tests.lakes import FinishedLake

PAGE = (Path(__file__).parents[1] / "docs/bi.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### (.+?)\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE))
QUERIES = {
    title: re.findall(r"```sql\n(.*?)```", text, re.DOTALL) for title, text in SECTIONS.items() if title[0].isdigit()
}
RECIPES = {title: "".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)) for title, text in SECTIONS.items()}
LIBRARIES = {"DuckDB", "pandas", "pyarrow", "Polars", "DataFusion", "Spark", "ClickHouse (chdb)"}
MARCH = [date(2025, 3, 1) + timedelta(days=offset) for offset in range(31)]


@pytest.fixture
def at_the_lake(finished_lake: FinishedLake, monkeypatch: pytest.MonkeyPatch) -> FinishedLake:
    """Works in the directory that has the lake as `data`."""
    assert finished_lake.root.name == "data"
    monkeypatch.chdir(finished_lake.root.parent)
    return finished_lake


def run(query: str) -> list[dict[str, Any]]:
    """Runs a query on the catalogue, read-only."""
    with duckdb.connect("data/catalog.duckdb", read_only=True) as connection:
        rows: list[dict[str, Any]] = connection.sql(query).to_arrow_table().to_pylist()
        return rows


def test_the_page_has_ten_queries_and_the_promised_recipes() -> None:
    """So that the tests below cannot pass on an empty page."""
    assert [int(title.split(".")[0]) for title in QUERIES] == list(range(1, 11))
    assert all(len(queries) == 1 for queries in QUERIES.values())
    assert {title for title, code in RECIPES.items() if code} == {*LIBRARIES, "A snapshot", "Asking again"}
    assert {title for title in SECTIONS if title.endswith("(not run here)")} == {
        f"{tool} (not run here)" for tool in ("Power BI", "Tableau", "Superset", "Metabase", "Evidence")
    }


@pytest.mark.parametrize("title", QUERIES)
def test_the_query_runs_and_finds_something(at_the_lake: FinishedLake, title: str) -> None:
    """Every column has a value in some row."""
    assert at_the_lake.days
    rows = run(QUERIES[title][0])
    assert rows
    assert all(any(row[column] is not None for row in rows) for column in rows[0])


@pytest.mark.usefixtures("at_the_lake")
def test_every_column_of_a_view_says_what_it_is() -> None:
    """The query of the introduction."""
    (introduction,) = re.findall(r"```sql\n(.*?)```", PAGE.split("### 1.")[0], re.DOTALL)
    assert all(row["comment"] for row in run(introduction))


def test_the_figures_are_those_of_the_tables(at_the_lake: FinishedLake) -> None:
    """Some of the answers, from the rows of the tables in plain Python."""
    calls = [call for day in MARCH for call in at_the_lake.rows("calls", day)]
    offered = [call for call in calls if call["is_ended"] and call["is_inbound"]]
    queries = list(QUERIES.values())

    (row,) = run(queries[0][0])
    assert (row["first_day"], row["last_day"]) == (at_the_lake.days[0], at_the_lake.days[-1])
    assert row["calls"] == sum(len(at_the_lake.rows("calls", day)) for day in at_the_lake.days)

    assert sum(row["offered_calls"] for row in run(queries[1][0])) == len(offered)
    assert sum(row["answered"] for row in run(queries[2][0])) == sum(call["is_answered"] is True for call in offered)
    heat = run(queries[4][0])
    in_four_weeks = [call for call in calls if call["is_inbound"] and 3 <= call["started_at_local"].day <= 30]
    assert sum(row[f"{weekday}"] for row in heat for weekday in range(1, 8)) == len(in_four_weeks)
    assert sum(row["handled"] for row in run(queries[5][0])) == sum(
        bool(call["is_ended"] and call["is_answered"]) for call in calls
    )
    assert sum(row["share"] for row in run(queries[6][0])) == pytest.approx(1)


@pytest.mark.parametrize("title", [*sorted(LIBRARIES), "A snapshot"])
def test_the_recipe_counts_the_inbound_calls_of_march(at_the_lake: FinishedLake, title: str) -> None:
    """As the tables have them."""
    names: dict[str, Any] = {}
    # Absolute, because Spark's own process stays in the directory it was started in.
    code = RECIPES[title].replace("data/tables", f"{at_the_lake.root}/tables")
    exec(compile(code, title, "exec"), names)  # noqa: S102 - our own page
    assert names["inbound"] == sum(
        call["is_inbound"] is True for day in MARCH for call in at_the_lake.rows("calls", day)
    )
