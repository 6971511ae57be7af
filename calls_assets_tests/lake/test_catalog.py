"""The catalogue: what SQL tools see of a finished lake."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calls_assets.lake import DATASETS, Lake, LakeError, describe
from calls_assets.lake.catalog import CATALOG_KEY, write_catalog
from calls_assets.settings import Location
from calls_assets_tests.lakes import DAYS, EMPTY_DAY, FinishedLake

VIEWS = {*DATASETS, "calls_enriched", "service_days"}
DAY = DAYS[30]


@pytest.fixture
def root(finished_lake: FinishedLake, tmp_path: Path) -> Path:
    """Gives a lake of the same days to write to, with a few of its days."""
    root = tmp_path / "lake"

    def is_left_out(directory: str, names: list[str]) -> list[str]:
        return [name for name in names if name.startswith("call_date=") and name[10:] not in {f"{DAY}", f"{EMPTY_DAY}"}]

    shutil.copytree(finished_lake.root, root, ignore=is_left_out)
    return root


def open_catalog(root: Path) -> duckdb.DuckDBPyConnection:
    """Opens the catalogue as tools do."""
    return duckdb.connect(str(root / CATALOG_KEY), read_only=True)


def test_every_view_shows_the_rows_of_its_files(finished_lake: FinishedLake) -> None:
    """Columns in the registry's order, the day beside them; NULLs, lists and the empty day included."""
    with open_catalog(finished_lake.root) as connection:
        for name, table in DATASETS.items():
            days = DAYS if table.is_daily else [None]
            expected = [
                {**row, **({"call_date": day} if day else {})} for day in days for row in finished_lake.rows(name, day)
            ]
            order = ", ".join([*(["call_date"] if table.is_daily else []), *table.sort_by])
            found = connection.sql(f"FROM {name} ORDER BY {order}").to_arrow_table()
            assert found.column_names == [*table.schema.names, *(["call_date"] if table.is_daily else [])]
            assert found.to_pylist() == expected, name


def test_a_day_asked_for_is_the_only_file_read(finished_lake: FinishedLake) -> None:
    """Also behind the views that join tables."""
    with open_catalog(finished_lake.root) as connection:
        for view in ("calls", "calls_enriched", "service_days", "call_journeys"):
            plan = connection.execute(f"EXPLAIN FROM {view} WHERE call_date = DATE '{DAY}'").fetchall()[0][1]
            assert "1/60" in plan, plan
            assert "60/60" not in plan


def test_views_and_columns_tell_what_they_are(finished_lake: FinishedLake) -> None:
    """The data dictionary's words, on every view and column."""
    with open_catalog(finished_lake.root) as connection:
        views = dict(connection.sql("SELECT view_name, comment FROM duckdb_views() WHERE NOT internal").fetchall())
        columns = connection.sql(
            "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal"
        ).fetchall()
    assert set(views) == VIEWS
    assert all(views.values())
    assert all(comment for *_, comment in columns)
    told = {(view, column): comment for view, column, comment in columns}
    for name, table in DATASETS.items():
        assert views[name] == table.description
        assert all(told[name, field.name] == describe(field) for field in table.schema)


def test_service_days_are_the_intervals_added_up(finished_lake: FinishedLake) -> None:
    """Counts are sums; ratios come from sums and not from ratios."""
    with open_catalog(finished_lake.root) as connection:
        days = connection.sql("SELECT * FROM service_days").to_arrow_table().to_pylist()
    assert len({(row["call_date"], row["is_inbound"]) for row in days}) == len(days)
    for row in days:
        rows = finished_lake.rows("service_intervals", row["call_date"])
        parts = [part for part in rows if part["is_inbound"] == row["is_inbound"]]
        answered, offered = (sum(part[name] for part in parts) for name in ("answered_calls", "offered_calls"))
        assert (row["answered_calls"], row["offered_calls"]) == (answered, offered)
        assert row["answer_rate"] == (answered / offered if offered else None)
    assert sum(row["calls"] for row in days) == sum(len(finished_lake.rows("calls", day)) for day in DAYS)


def test_enriched_calls_are_the_calls_and_no_more(finished_lake: FinishedLake) -> None:
    """One row per call, with direction, outcome and names."""
    with open_catalog(finished_lake.root) as connection:
        rows = connection.sql("SELECT * FROM calls_enriched").to_arrow_table().to_pylist()
    aliases = {row["agent_id"]: row["alias"] for row in finished_lake.rows("agents")}
    calls = {row["call_id"]: row for day in DAYS for row in finished_lake.rows("calls", day)}
    assert len(rows) == len(calls)
    for row in rows:
        call = calls[row["call_id"]]
        assert row["direction"] == {True: "inbound", False: "outbound", None: None}[call["is_inbound"]]
        assert (row["outcome"] == "answered") == bool(call["is_ended"] and call["is_answered"])
        assert (row["hour_local"], row["weekday_local"]) == (
            call["started_at_local"].hour,
            call["started_at_local"].isoweekday(),
        )
        assert row["answered_agent_alias"] == aliases.get(call["answered_agent_id"])
    assert {row["outcome"] for row in rows} == {"under way", "answered", "callback", "unanswered"}


def test_a_lake_without_files_has_empty_views(place: Location, tmp_path: Path) -> None:
    """With all columns and their types, so that reports can be built before the first day is there."""
    lake = Lake.open(place)
    write_catalog(lake)
    (tmp_path / CATALOG_KEY).write_bytes(lake.storage.read(CATALOG_KEY))
    with open_catalog(tmp_path) as connection:
        for name, table in DATASETS.items():
            found = connection.sql(f"FROM {name}").to_arrow_table()
            assert found.num_rows == 0
            assert found.column_names[: len(table.schema)] == table.schema.names
            assert [pa.types.is_temporal(type_) for type_ in found.schema.types[: len(table.schema)]] == [
                pa.types.is_temporal(type_) for type_ in table.schema.types
            ]


@pytest.mark.parametrize("name", ["it's", "a b", "[1]*?", "ü", 'double"quote'])
def test_the_lake_may_be_in_a_directory_of_any_name(root: Path, name: str) -> None:
    """Quotes and the characters of patterns are taken as they are."""
    moved = root.rename(root.parent / name)
    write_catalog(Lake.open(moved))
    with open_catalog(moved) as connection:
        assert connection.sql("SELECT count(DISTINCT call_date) FROM calls").fetchall() == [(1,)]


def test_with_relative_paths_the_lake_can_be_moved(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools run in the data directory, or name it."""
    write_catalog(Lake.open(root), relative=True)
    moved = root.rename(root.parent / "elsewhere")
    with open_catalog(moved) as connection:
        with pytest.raises(duckdb.IOException, match="No files found"):
            connection.sql("FROM calls").fetchall()
        connection.execute("SET file_search_path = ?", [str(moved)])
        by_setting = connection.sql("SELECT count(*) FROM calls").fetchall()
    monkeypatch.chdir(moved)
    with open_catalog(Path()) as connection:
        assert connection.sql("SELECT count(*) FROM calls").fetchall() == by_setting != [(0,)]


def test_days_made_before_a_column_was_added_are_shown_with_the_others(root: Path) -> None:
    """Whichever of the files is older; and when all of them are."""
    lake = Lake.open(root)
    for older in ([DAY], [EMPTY_DAY], [DAY, EMPTY_DAY]):
        for day in older:
            path = root / lake.table_key("calls", day)
            pq.write_table(pq.ParquetFile(path).read().drop_columns(["is_final"]), path)
        write_catalog(lake)
        with open_catalog(root) as connection:
            found = connection.sql("SELECT call_date, count(*), count(is_final) FROM calls GROUP BY ALL").fetchall()
            assert [(row[0], row[1] > 0, row[2] > 0) for row in found] == [(DAY, True, DAY not in older)]
        for day in older:
            path = root / lake.table_key("calls", day)
            rows = pq.ParquetFile(path).read()
            pq.write_table(rows.append_column("is_final", pa.repeat(pa.scalar(True), len(rows))), path)


def test_a_day_is_read_without_a_look_into_all_files(root: Path) -> None:
    """Only where columns differ have views to look first which there are."""
    lake = Lake.open(root)
    count = f"SELECT count(call_id) FROM calls WHERE call_date = DATE '{EMPTY_DAY}'"  # noqa: S608 - our own day
    path = root / lake.table_key("calls", DAY)
    for rows in (pq.ParquetFile(path).read(), pq.ParquetFile(path).read().drop_columns(["is_final"])):
        pq.write_table(rows, path)
        write_catalog(lake)
        path.write_bytes(b"PAR1 this is no Parquet file PAR1")
        with open_catalog(root) as connection:
            if "is_final" in rows.column_names:
                assert connection.sql(count).fetchall() == [(0,)]
            else:
                with pytest.raises(duckdb.Error, match=f"{DAY}"):
                    connection.sql(count).fetchall()
        pq.write_table(rows, path)


def test_tools_that_have_it_open_go_on_while_it_is_replaced(root: Path) -> None:
    """It is put in place in one step, and leaves nothing beside it."""
    lake = Lake.open(root)
    assert set(write_catalog(lake)) == VIEWS
    with open_catalog(root) as connection:
        before = connection.sql("SELECT count(*) FROM calls_enriched").fetchall()
        write_catalog(lake)
        assert connection.sql("SELECT count(*) FROM calls_enriched").fetchall() == before
    assert {path.name for path in root.iterdir() if path.is_file()} == {CATALOG_KEY}


def test_a_damaged_file_leaves_the_catalogue_as_it_was(root: Path) -> None:
    """The error names the file."""
    lake = Lake.open(root)
    write_catalog(lake)
    held = (root / CATALOG_KEY).read_bytes()
    (root / lake.table_key("calls", DAY)).write_bytes(b"PAR1 this is no Parquet file PAR1")
    with pytest.raises(LakeError, match=rf"cannot make catalog\.duckdb: .*{DAY}"):
        write_catalog(lake)
    assert (root / CATALOG_KEY).read_bytes() == held


def test_files_that_are_none_of_the_lakes_are_not_shown(root: Path) -> None:
    """What set aside files and strangers hold stays out."""
    lake = Lake.open(root)
    path = root / lake.table_key("calls", DAY)
    shutil.copy(path, path.with_name("copy.parquet"))
    write_catalog(lake)
    with open_catalog(root) as connection:
        assert connection.sql("SELECT count(*) = count(DISTINCT call_id), min(call_date) FROM calls").fetchall() == [
            (True, date.fromisoformat(f"{DAY}"))
        ]


def test_a_catalogue_whose_views_would_be_the_same_is_left_as_it_is(root: Path) -> None:
    """Days that come or change do not touch it; a table's first file, a lost or changed catalogue do."""
    lake = Lake.open(root)
    names = write_catalog(lake, unless_current=True)
    path = root / CATALOG_KEY

    def is_left() -> bool:
        before = path.stat().st_ino if path.exists() else None
        assert write_catalog(lake, unless_current=True) == names
        return path.stat().st_ino == before

    assert is_left()
    lake.write_table("calls", DAYS[0], lake.read_table("calls", DAY))
    assert is_left()
    path.write_bytes(path.read_bytes() + b"x")
    assert not is_left()
    path.unlink()
    assert not is_left()
    shutil.rmtree(root / "marts/agent_days")
    assert not is_left()
    assert is_left()
