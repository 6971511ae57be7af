"""A finished lake in an object store, as its readers see it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from calls_assets.lake import DATASETS, Lake, LakeError, object_storage, open_storage, parquet
from calls_assets.lake.catalog import CATALOG_KEY, write_catalog
from calls_assets.lake.copy import copy_lake
from calls_assets.read import read_table
from calls_assets_tests.lakes import DAYS, FinishedLake
from calls_assets_tests.stores import BUCKET, Heard, StoreFiles, StoreProxy, make_store_environment

FEW = DAYS[15:19]
PAGE = (Path(__file__).parents[2] / "docs/bi.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def remote(finished_lake: FinishedLake, store_url: str) -> Iterator[str]:
    """Gives the address of a copy of four of the finished lake's days; the environment names the store."""
    address = f"s3://{BUCKET}/{secrets.token_hex(6)}/lake"
    with pytest.MonkeyPatch.context() as patch:
        for name, text in make_store_environment(store_url).items():
            patch.setenv(name, text)
        lake = Lake.open(address)
        for name, table in DATASETS.items():
            for day in FEW if table.is_daily else [None]:
                lake.write_table(name, day, finished_lake.lake.read_table(name, day))
        yield address


def open_catalog(address: str, tmp_path: Path) -> duckdb.DuckDBPyConnection:
    """Opens the catalogue with another program's eyes on the store."""
    path = tmp_path / CATALOG_KEY
    path.write_bytes(open_storage(address, is_writable=False).read(CATALOG_KEY))
    connection = duckdb.connect(str(path), read_only=True)
    connection.register_filesystem(StoreFiles())
    return connection


def test_tables_are_read_as_from_a_directory(remote: str, store: StoreProxy, finished_lake: FinishedLake) -> None:
    """The days asked for, and one request for each of them beside the listing."""
    for name in ("calls", "service_intervals"):
        store.heard.clear()
        found = read_table(name, FEW[1], FEW[2], format="pyarrow", data_dir=remote)
        assert found.equals(read_table(name, FEW[1], FEW[2], format="pyarrow", data_dir=finished_lake.root))
        assert [one.method for one in store.heard] == ["GET"] * 4  # is there a lake, its days, two files
        assert sum(name in one.key for one in store.heard) == 2
    assert len(read_table("agents", data_dir=remote)) == len(finished_lake.rows("agents"))


@pytest.fixture
def large(remote: str, finished_lake: FinishedLake, monkeypatch: pytest.MonkeyPatch) -> tuple[str, pa.Table]:
    """Gives the address of a lake with a day of many calls, and its rows."""
    monkeypatch.setattr(object_storage, "_FIRST_BYTES", 2**14)
    rows = pa.concat_tables([finished_lake.lake.read_table("calls", day) for day in DAYS] * 4)
    Lake.open(f"{remote}/large").write_table("calls", FEW[0], rows)
    return f"{remote}/large", rows


def test_of_a_large_file_the_ranges_of_some_columns_are_got(store: StoreProxy, large: tuple[str, pa.Table]) -> None:
    """Not the rest of it; of all columns, the file in one request."""
    address, rows = large
    (size,) = (file.size for file in open_storage(address, is_writable=False).list("tables/"))
    for columns, is_whole in ((["call_id", "is_answered"], False), (rows.schema.names, True)):
        store.heard.clear()
        found = read_table("calls", columns=columns, format="pyarrow", data_dir=address)
        assert found.equals(rows.select(columns))
        ranges = [heard.range for heard in store.heard if heard.key.endswith("calls.parquet")]
        if is_whole:
            assert ranges == [None]
        else:
            assert sum(last + 1 - first for first, last in filter(None, ranges)) < size / 2
            assert None not in ranges
            assert len(ranges) <= 6


def test_a_file_that_is_replaced_between_two_ranges_is_read_as_it_is_now(
    store: StoreProxy, large: tuple[str, pa.Table]
) -> None:
    """Whole, and no mixture of two versions."""
    address, rows = large
    newer = rows.slice(len(rows) // 3)

    def choose(heard: Heard) -> None:
        if heard.range is not None and heard.range[0] > 0:
            store.choose = lambda _heard: None
            Lake.open(address).write_table("calls", FEW[0], newer)

    store.choose = choose
    found = read_table("calls", columns=["call_id", "is_answered"], format="pyarrow", data_dir=address)
    assert found.equals(newer.select(["call_id", "is_answered"]))


def test_damage_in_the_ranges_is_named(large: tuple[str, pa.Table]) -> None:
    """Pages are compared with their checksums, and a store that fails is not called damage."""
    address, _ = large
    storage = open_storage(address)
    key = Lake.open(address).table_key("calls", FEW[0])
    held = bytearray(storage.read(key))
    held[6:64] = bytes(58)
    storage.replace(key, bytes(held))
    with pytest.raises(LakeError, match=f"call_date={FEW[0]}/calls.parquet is damaged"):
        read_table("calls", columns=["call_id", "is_answered"], data_dir=address)


def test_the_catalogue_names_files_by_their_addresses(
    remote: str, store: StoreProxy, finished_lake: FinishedLake, tmp_path: Path
) -> None:
    """Made without an extension, with one look at each table's newest day; every view shows the rows of its files."""
    lake = Lake.open(remote)
    store.heard.clear()
    write_catalog(lake)
    reads = [one.key.rpartition("/")[2] for one in store.heard if one.method == "GET" and one.key]
    assert sorted(reads) == sorted(f"{name}.parquet" for name in DATASETS)
    with open_catalog(remote, tmp_path) as connection:
        for name, table in DATASETS.items():
            days = FEW if table.is_daily else [None]
            expected = [
                {**row, **({"call_date": day} if day else {})} for day in days for row in finished_lake.rows(name, day)
            ]
            order = ", ".join([*(["call_date"] if table.is_daily else []), *table.sort_by])
            assert connection.sql(f"FROM {name} ORDER BY {order}").to_arrow_table().to_pylist() == expected, name
        comments = connection.sql("SELECT comment FROM duckdb_columns() WHERE NOT internal").fetchall()
        assert all(comment for (comment,) in comments)
        connection.sql("FROM calls_enriched").fetchall()


def test_a_column_that_the_newest_day_does_not_have_yet_is_null(remote: str, tmp_path: Path) -> None:
    """A lake made by an older version has its catalogue all the same."""
    lake = Lake.open(f"{remote}/older")
    held = Lake(open_storage(remote, is_writable=False)).read_table("agents")
    key = lake.table_key("agents")
    lake.storage.replace(key, parquet.encode(key, held.drop_columns(["sip"])))
    write_catalog(lake)
    with open_catalog(f"{remote}/older", tmp_path) as connection:
        assert connection.sql("SELECT count(*), count(sip) FROM agents").fetchall() == [(len(held), 0)]
        assert connection.sql("FROM calls").fetchall() == []


def test_a_damaged_newest_day_leaves_the_catalogue_as_it_was(remote: str) -> None:
    """The error names the file."""
    lake = Lake.open(f"{remote}/damaged")
    write_catalog(lake)
    before = lake.storage.read(CATALOG_KEY)
    lake.storage.replace(lake.table_key("calls", FEW[0]), b"PAR1")
    with pytest.raises(LakeError, match=f"call_date={FEW[0]}/calls.parquet is damaged"):
        write_catalog(lake)
    assert lake.storage.read(CATALOG_KEY) == before


def test_the_recipes_for_a_remote_lake_run_as_they_stand(remote: str, finished_lake: FinishedLake) -> None:
    """Those of docs/bi.md; the address is this one."""
    (section,) = re.findall(r"^## A lake in an object store\n(.*?)(?=^## )", PAGE, re.DOTALL | re.MULTILINE)
    recipes = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(recipes) >= 2
    day = FEW[1]
    expected = sum(row["is_inbound"] is True for row in finished_lake.rows("calls", day))
    for code in recipes:
        names: dict[str, Any] = {}
        ready = code.replace("s3://bucket/prefix", remote).replace("2025-03-01", day.isoformat())
        exec(compile(ready, "docs/bi.md", "exec"), names)  # noqa: S102 - our own page
        assert names["inbound"] == expected
    assert day > date(2025, 2, 1)


def test_a_lake_can_be_copied_out_of_the_store(remote: str, tmp_path: Path) -> None:
    """Into a directory, where the usual readers are at home."""
    Lake.open(remote).bind("UTC", "https://api.example.com")
    copy_lake(open_storage(remote, is_writable=False), open_storage(tmp_path / "back"))
    assert len(read_table("calls", data_dir=tmp_path / "back")) == len(read_table("calls", data_dir=remote))
