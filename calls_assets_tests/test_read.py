"""Reading tables as data frames."""

from __future__ import annotations

import importlib.util
import shutil
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calls_assets.lake import DATASETS, CorruptFileError, LakeError, parquet
from calls_assets.read import read_table, snapshot
from calls_assets_tests.lakes import DAYS, EMPTY_DAY, FinishedLake

DAY = DAYS[30]


@pytest.fixture
def root(finished_lake: FinishedLake, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Gives the lake's directory, which the environment names too."""
    monkeypatch.setenv("CALLS_DATA_DIR", str(finished_lake.root))
    return finished_lake.root


def test_every_table_and_mart_is_read_whole(finished_lake: FinishedLake, root: Path) -> None:
    """All days in order, the declared types, and the day of each row as the last column."""
    for name, table in DATASETS.items():
        rows = read_table(name, format="pyarrow", data_dir=root)
        days = DAYS if table.is_daily else [None]
        expected = [
            {**row, **({"call_date": day} if day else {})} for day in days for row in finished_lake.rows(name, day)
        ]
        assert rows.to_pylist() == expected
        assert pa.schema(list(rows.schema)[: len(table.schema)]).equals(table.schema)


def test_days_and_columns_are_chosen(root: Path) -> None:
    """Both ends included, as dates or texts; columns in the order asked for, the day only if it is."""
    assert root.is_dir()
    frame = read_table("calls", DAY, "2025-03-18", columns=["call_date", "is_answered", "call_id"])
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == ["call_date", "is_answered", "call_id"]
    assert sorted(set(frame["call_date"])) == [date(2025, 3, 16), date(2025, 3, 17), date(2025, 3, 18)]
    assert [str(type_) for type_ in frame.dtypes] == ["date32[day][pyarrow]", "bool[pyarrow]", "int64[pyarrow]"]
    assert len(read_table("calls", DAY, DAY, columns=["call_id"]).columns) == 1
    assert set(read_table("calls", datetime(2025, 4, 13, 9), columns=["call_date"])["call_date"]) == {*DAYS[-2:]}  # noqa: DTZ001
    assert set(read_table("calls", None, DAYS[0], columns=["call_date"])["call_date"]) == {DAYS[0]}


def test_pandas_keeps_types_and_nulls(finished_lake: FinishedLake, root: Path) -> None:
    """Ids stay whole numbers beside NULLs, lists stay lists, instants have their zone."""
    frame = read_table("calls", DAY, DAY, data_dir=root)
    rows = finished_lake.rows("calls", DAY)
    assert str(frame.dtypes["campaign_id"]) == "int64[pyarrow]"
    assert frame["campaign_id"].isna().sum() == sum(row["campaign_id"] is None for row in rows) > 0
    assert str(frame.dtypes["started_at"]) == "timestamp[us, tz=UTC][pyarrow]"
    told = [row["tags"] for row in rows if row["tags"] is not None]
    assert frame["tags"].dropna().tolist() == told != []


@pytest.mark.parametrize(
    "days", [("2031-01-01", None), (None, "1999-12-31"), (EMPTY_DAY, EMPTY_DAY), (DAYS[9], DAYS[3])]
)
def test_no_days_give_an_empty_frame_with_the_right_types(
    root: Path, days: tuple[date | str | None, date | str | None]
) -> None:
    """Beyond the stored days, a day without calls, and an end before the start."""
    whole = read_table("calls", DAY, DAY, data_dir=root)
    frame = read_table("calls", *days, data_dir=root)
    assert len(frame) == 0
    assert frame.dtypes.equals(whole.dtypes)


def test_only_the_files_needed_are_opened(root: Path, tmp_path: Path) -> None:
    """A damaged file of another day does no harm; one of these days is named."""
    shutil.copytree(root, tmp_path / "lake")
    broken = tmp_path / f"lake/tables/calls/call_date={DAYS[0]}/calls.parquet"
    broken.write_bytes(b"damaged")
    assert len(read_table("calls", DAYS[1], data_dir=tmp_path / "lake")) > 5_000
    with pytest.raises(CorruptFileError, match=f"call_date={DAYS[0]}/calls.parquet is damaged"):
        read_table("calls", data_dir=tmp_path / "lake")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "call"}, "'call' is no table or mart: did you mean 'calls'?"),
        ({"name": "xyz"}, "'xyz' is no table or mart: there are call_agents, "),
        (
            {"name": "calls", "columns": ["call_id", "talk_time"]},
            "'talk_time' is no column of calls: did you mean 'talk_t",
        ),
        ({"name": "agents", "columns": ["call_date"]}, "'call_date' is no column of agents"),
        ({"name": "agents", "start": DAY}, "agents is not daily: read it without start and end"),
        ({"name": "calls", "start": "yesterday"}, "'yesterday' is no day: give a date or a text such as"),
        ({"name": "calls", "format": "panda"}, "'panda' is no format: did you mean 'pandas'?"),
    ],
)
def test_wrong_words_are_explained(root: Path, arguments: dict[str, object], message: str) -> None:
    """One line that says what there is."""
    assert root.is_dir()
    with pytest.raises(ValueError, match=r"^'|^agents") as caught:
        read_table(**arguments)  # type: ignore[call-overload] # wrong on purpose
    assert str(caught.value).startswith(message)


def test_a_directory_without_a_lake_is_named(tmp_path: Path) -> None:
    """And nothing is created in it: readers may have no right to write."""
    message = r"there is no lake in .*nowhere: name its directory or address in data_dir or CALLS_DATA_DIR"
    with pytest.raises(LakeError, match=message):
        read_table("calls", data_dir=tmp_path / "nowhere")
    assert len(read_table("calls", data_dir=tmp_path)) == 0
    assert len(read_table("agents", data_dir=tmp_path)) == 0
    assert list(tmp_path.iterdir()) == []


def test_days_made_before_a_column_was_added_have_null_in_it(root: Path, tmp_path: Path) -> None:
    """Together with newer days."""
    shutil.copytree(root, tmp_path / "lake")
    key = f"tables/calls/call_date={DAY}/calls.parquet"
    path = tmp_path / "lake" / key
    path.write_bytes(parquet.encode(key, pq.ParquetFile(path).read().drop_columns(["is_final", "tags"])))
    rows = read_table("calls", DAYS[29], DAYS[31], format="pyarrow", data_dir=tmp_path / "lake")
    assert rows.schema.names == [*DATASETS["calls"].schema.names, "call_date"]
    finals = {day: {row["is_final"] for row in rows.to_pylist() if row["call_date"] == day} for day in DAYS[29:32]}
    assert finals == {DAYS[29]: {True}, DAYS[30]: {None}, DAYS[31]: {True}}
    assert read_table("calls", DAY, DAY, columns=["tags"], data_dir=tmp_path / "lake")["tags"].isna().all()


def test_polars_where_it_is_installed(root: Path) -> None:
    """Else the message says what to install."""
    if importlib.util.find_spec("polars") is None:
        with pytest.raises(ImportError, match="pip install polars"):
            read_table("calls", DAY, DAY, format="polars", data_dir=root)
        return
    frame = read_table("calls", DAY, DAY, format="polars", data_dir=root)
    assert frame.to_arrow().to_pylist() == read_table("calls", DAY, DAY, format="pyarrow", data_dir=root).to_pylist()


def test_a_snapshot_has_the_tables_and_days_asked_for(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the environment or by name, days as for `read_table`; all of it when nothing is said; gone afterwards."""
    monkeypatch.chdir(tmp_path)
    with snapshot("calls", DAYS[3], f"{DAYS[4]}", directory=".") as directory:
        assert directory.parent == tmp_path  # absolute: tools may run elsewhere
        found = read_table("calls", format="pyarrow", data_dir=directory)
        assert found.equals(read_table("calls", DAYS[3], DAYS[4], format="pyarrow"))
        assert [path.name for path in (directory / "tables").iterdir()] == ["calls"]
    with snapshot(["agents", "service_intervals"], DAYS[3], data_dir=root, directory=tmp_path) as directory:
        assert len(read_table("agents", data_dir=directory)) == len(read_table("agents")) > 0
        assert len(list((directory / "marts/service_intervals").iterdir())) == len(DAYS) - 3
    with snapshot(directory=tmp_path) as directory:
        assert {path.name for path in directory.glob("*/*")} == {*DATASETS}
        with duckdb.connect(str(directory / "catalog.duckdb"), read_only=True) as catalog:
            assert catalog.sql("SELECT count(*) FROM calls_enriched").fetchall() == [(len(read_table("calls")),)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": "call"}, "'call' is no table or mart: did you mean 'calls'?"),
        ({"names": ["calls", "xyz"]}, "'xyz' is no table or mart: there are call_agents, "),
        ({"start": "yesterday"}, "'yesterday' is no day: give a date or a text such as"),
    ],
)
def test_a_snapshot_of_wrong_words_is_explained(
    root: Path, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    """As for `read_table`; nothing is made."""
    with (
        pytest.raises(ValueError, match=r"^'") as caught,
        snapshot(**arguments, directory=tmp_path / "x", data_dir=root),
    ):
        pass
    assert str(caught.value).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_a_snapshot_of_no_lake_is_refused(tmp_path: Path) -> None:
    """And nothing is made."""
    with pytest.raises(LakeError, match=r"there is no lake in .*nowhere"), snapshot(data_dir=tmp_path / "nowhere"):
        pass
    assert list(tmp_path.iterdir()) == []
