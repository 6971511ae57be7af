"""Tests of the lake over real files: in a directory, and most of them once more in an object store."""

from __future__ import annotations

import errno
import io
import json
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calls_assets.lake import (
    CALL_RECORDS,
    TABLES,
    CorruptFileError,
    Lake,
    LakeError,
    LocalStorage,
    Read,
    Storage,
    open_storage,
    parquet,
    verify,
)
from calls_assets.lake import lake as lake_module
from calls_assets.lake.dictionary import render_data_dictionary
from calls_assets.settings import Location

DAY = date(2025, 5, 20)
NOON = datetime(2025, 5, 20, 12, tzinfo=UTC)
ROOT = Path(__file__).parents[2]


def make_read(call_id: int, minute: int = 0, body: bytes | None = b'{"calls":{}}') -> Read:
    """Makes a plain read."""
    status = 404 if body is None else 200
    return Read(
        call_id, NOON + timedelta(minutes=minute), status, NOON if body else None, True if body else None, None, body
    )


def agents_table(*ids: int) -> pa.Table:
    """Makes rows for the agents table."""
    rows = [{"agent_id": i, "first_seen_at": NOON, "last_seen_at": NOON} for i in ids]
    return pa.Table.from_pylist(rows, schema=TABLES["agents"].schema)


def damage(storage: Storage, key: str) -> None:
    """Flips one byte in the first data page."""
    data = bytearray(storage.read(key))
    data[20] ^= 0xFF
    storage.replace(key, bytes(data))


def test_landed_reads_are_read_back(place: Location) -> None:
    """A segment's name tells its ids; the day gives every read."""
    lake = Lake.open(place)
    segment = lake.land(DAY, [make_read(7), make_read(3, body=None)])
    assert (segment.lowest_id, segment.highest_id, segment.day) == (3, 7, DAY)
    assert lake.segments() == lake.segments(DAY) == [segment]
    raw = lake.read_day(DAY)
    assert raw.versions["call_id"].to_pylist() == [3, 7]
    assert raw.versions["payload"].to_pylist() == [None, b'{"calls":{}}']
    index = lake.read_index([DAY]).to_pylist()
    assert [(row["day"], row["call_id"], row["http_status"], row["read_count"]) for row in index] == [
        (DAY, 3, 404, 1),
        (DAY, 7, 200, 1),
    ]


def test_a_day_without_raw_is_empty(place: Location) -> None:
    """Nothing stored is no error."""
    lake = Lake.open(place)
    assert lake.read_day(DAY).versions.num_rows == 0
    assert lake.read_index([DAY]).num_rows == lake.read_index([]).num_rows == 0


def test_files_have_the_promised_format(place: Location) -> None:
    """Compression zstd, page index, statistics, checksums, descriptions on every column."""
    lake = Lake.open(place)
    lake.write_table("agents", None, agents_table(1, 2))
    file = pq.ParquetFile(pa.BufferReader(lake.storage.read("tables/agents/agents.parquet")))
    column = file.metadata.row_group(0).column(0)
    assert (column.compression, column.has_column_index, column.has_offset_index) == ("ZSTD", True, True)
    assert (column.statistics.min, column.statistics.max) == (1, 2)
    assert file.schema_arrow.equals(TABLES["agents"].schema, check_metadata=False)
    assert all(field.metadata[b"description"] for field in file.schema_arrow)
    damage(lake.storage, "tables/agents/agents.parquet")
    with pytest.raises(CorruptFileError, match=r"tables/agents/agents\.parquet is damaged"):
        lake.read_table("agents")


def test_only_values_that_repeat_have_a_dictionary() -> None:
    """Ids and instants in order take less room without one; lists keep theirs."""
    rows = pa.table({"id": range(2_000), "kind": ["a", "b"] * 1_000, "tags": [["a", "b"]] * 2_000})
    group = pq.read_metadata(pa.BufferReader(parquet.encode("k", rows))).row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    assert {column.path_in_schema: column.has_dictionary_page for column in columns} == {
        "id": False,
        "kind": True,
        "tags.list.element": True,
    }


def test_equal_rows_keep_the_file(place: Location) -> None:
    """A day whose rows did not change keeps its file, also when another writer version wrote it."""
    lake = Lake.open(place)
    assert lake.write_table("agents", None, agents_table(1))
    key = "tables/agents/agents.parquet"
    before = lake.list_files("tables/")
    assert not lake.write_table("agents", None, agents_table(1))
    assert lake.list_files("tables/") == before
    lake.storage.replace(key, parquet.encode(key, agents_table(1), compression="snappy"))
    assert not lake.write_table("agents", None, agents_table(1))
    assert lake.write_table("agents", None, agents_table(1, 2))
    assert lake.read_table("agents")["agent_id"].to_pylist() == [1, 2]


def test_rows_that_break_the_schema_are_refused(place: Location) -> None:
    """A NULL where none may be, and a missing column, leave the file as it was."""
    lake = Lake.open(place)
    lake.write_table("agents", None, agents_table(1))
    broken = agents_table(2).set_column(4, "first_seen_at", pa.array([None], pa.timestamp("us", "UTC")))
    with pytest.raises(LakeError, match="NULL in first_seen_at"):
        lake.write_table("agents", None, broken)
    with pytest.raises(LakeError, match="do not fit its schema"):
        lake.write_table("agents", None, agents_table(2).drop_columns(["sip"]))
    assert lake.read_table("agents")["agent_id"].to_pylist() == [1]


def test_a_daily_table_needs_its_day(tmp_path: Path) -> None:
    """And a table that is not daily has none."""
    lake = Lake.open(tmp_path)
    with pytest.raises(ValueError, match="daily"):
        lake.table_key("calls")
    with pytest.raises(ValueError, match="not daily"):
        lake.table_key("agents", DAY)


def test_compaction_leaves_one_file_and_every_read(place: Location) -> None:
    """What is read stays the same, and a raw day read before is known to be out of date."""
    lake = Lake.open(place)
    for minute in range(3):
        lake.land(DAY, [make_read(1, minute), make_read(2 + minute, minute, b"{}")])
    before = lake.read_day(DAY)
    assert lake.is_current(before)
    assert lake.compact(DAY)
    assert not lake.is_current(before)
    assert len(lake.segments(DAY)) == 1
    assert lake.read_day(DAY).versions.equals(before.versions)
    assert not lake.compact(DAY)
    assert lake.read_segment(lake.segments(DAY)[0].key).schema.equals(CALL_RECORDS.schema)


def test_a_segment_that_goes_while_reading_is_no_loss(place: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader lists again when a compaction came between."""
    storage = open_storage(place)
    read, raced = storage.read, list[str]()

    def race(key: str) -> bytes:
        """Compacts just before the first read of a segment."""
        if not raced:
            raced.append(key)
            Lake.open(place).compact(DAY)
        return read(key)

    Lake(storage).land(DAY, [make_read(1)])
    Lake(storage).land(DAY, [make_read(2)])
    monkeypatch.setattr(storage, "read", race)
    assert Lake(storage).read_day(DAY).versions["call_id"].to_pylist() == [1, 2]
    assert raced


def test_a_damaged_segment_is_named_and_the_others_used(place: Location) -> None:
    """By default it is an error; with `on_corrupt` it is reported, and never compacted away."""
    lake = Lake.open(place)
    bad = lake.land(DAY, [make_read(1)])
    lake.land(DAY, [make_read(2)])
    lake.land(DAY, [make_read(3)])
    damage(lake.storage, bad.key)
    with pytest.raises(CorruptFileError, match=bad.key.replace(".", r"\.")):
        lake.read_day(DAY)
    seen: list[CorruptFileError] = []
    tolerant = Lake.open(place, on_corrupt=seen.append)
    assert tolerant.read_day(DAY).versions["call_id"].to_pylist() == [2, 3]
    assert [error.key for error in seen] == [bad.key]
    assert tolerant.compact(DAY)
    assert bad in tolerant.segments(DAY)
    assert [(f.key, "is damaged" in f.problem) for f in verify(lake)] == [(bad.key, True)]
    lake.set_aside(bad.key)
    assert verify(lake) == []
    assert lake.storage.read(bad.key + ".damaged")


def test_the_highest_call_is_found_from_the_end_of_a_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing ids above it are passed, and what stands before it is not read: here it is damaged."""
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 2)
    lake = Lake.open(tmp_path)
    key = lake.land(DAY, [make_read(id_, body=None if id_ > 5 else b"{}") for id_ in range(1, 9)]).key
    assert lake.find_highest_call(key) == 5
    damage(lake.storage, key)
    assert lake.find_highest_call(key) == 5
    with pytest.raises(CorruptFileError):
        lake.read_segment(key)
    nothing = lake.land(DAY, [make_read(9, body=None)]).key
    assert lake.find_highest_call(nothing) == 0
    (tmp_path / nothing).write_bytes(b"PAR1")
    with pytest.raises(CorruptFileError):
        lake.find_highest_call(nothing)


def test_a_segment_that_the_system_does_not_give_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the bytes themselves can be."""

    class Failing(io.BytesIO):
        def read(self, _size: int | None = -1, /) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    lake = Lake.open(tmp_path)
    key = lake.land(DAY, [make_read(1)]).key
    monkeypatch.setattr(LocalStorage, "open", lambda _storage, _key: Failing(bytes(4_000)))
    with pytest.raises(LakeError, match="input/output error") as caught:
        lake.find_highest_call(key)
    assert not isinstance(caught.value, CorruptFileError)


def test_the_highest_call_is_found_in_a_store_without_parts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store needs no verb beyond those it promises, and a file that it gives whole is fetched once, as it stays."""
    local = LocalStorage(tmp_path)
    fetched: list[str] = []

    def read(key: str) -> bytes:
        fetched.append(key)
        return local.read(key)

    store = SimpleNamespace(read=read, list=local.list, locate=local.locate)
    keys = [Lake(local).land(DAY, [make_read(id_), make_read(id_ + 1, body=None)]).key for id_ in (3, 5)]
    monkeypatch.setattr(lake_module, "_KEPT_HIGHEST_CALLS", 1)
    for key, highest in zip([*keys, *keys], [3, 5, 3, 5], strict=True):
        for _ in range(2):
            assert Lake(cast("Storage", store)).find_highest_call(key) == highest
    assert fetched == [*keys, *keys]


def test_the_lake_refuses_another_source(place: Location) -> None:
    """Two accounts in one lake would mix their ids."""
    lake = Lake.open(place)
    lake.bind("UTC", "https://api.example.com/v2")
    lake.bind("UTC", "https://api.example.com/v2")
    with pytest.raises(LakeError, match=r"filled from https://api\.example\.com/v2"):
        Lake.open(place).bind("UTC", "https://other.example.com")
    with pytest.raises(LakeError, match="days of UTC and is now asked for days of Asia/Tokyo: set CALLS_TIMEZONE back"):
        lake.bind("Asia/Tokyo")
    content = {"source": "https://api.example.com/v2", "timezone": "UTC"}
    assert json.loads(lake.storage.read("lake.json")) == content
    lake.storage.replace("lake.json", b"{")
    with pytest.raises(LakeError, match="restore it"):
        lake.bind("UTC", "https://api.example.com/v2")


def test_a_place_may_be_written_out(tmp_path: Path) -> None:
    """A directory as a string is one; an address that no lake can be in is told as such."""
    key = Lake.open(str(tmp_path / "lake")).land(DAY, [make_read(1)]).key
    assert (tmp_path / "lake" / key).exists()
    (tmp_path / "file").touch()
    with pytest.raises(LakeError, match=r"cannot use the data directory .*/file: not a directory"):
        Lake.open(str(tmp_path / "file"))
    for address in ("ftp://host/lake", "s3://user:secret@bucket/lake"):
        with pytest.raises(LakeError, match="write it as s3://bucket/prefix") as caught:
            Lake.open(address)
        assert "secret" not in str(caught.value)


def test_a_directory_that_cannot_be_used_is_one_clear_line(tmp_path: Path) -> None:
    """A file in the place of the directory, and the system's refusal of a write."""
    (tmp_path / "file").write_text("")
    with pytest.raises(LakeError, match="cannot use the data directory") as caught:
        Lake.open(tmp_path / "file" / "data")
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was stored before stays."""
    lake = Lake.open(tmp_path)
    lake.land(DAY, [make_read(1)])

    def refuse(_descriptor: int, _data: memoryview) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        with pytest.raises(LakeError, match="no space left on device; what is stored is unchanged"):
            lake.land(DAY, [make_read(2)])
        with pytest.raises(LakeError, match="no space left"):
            lake.write_table("agents", None, agents_table(1))
    assert lake.read_day(DAY).versions["call_id"].to_pylist() == [1]
    assert list((tmp_path / ".tmp").iterdir()) == []


def test_verify_names_what_is_wrong_with_tables(place: Location) -> None:
    """Doubles, disorder, orphans, missing files, other columns, foreign files."""
    lake = Lake.open(place)
    fields = {"started_at": NOON, "read_count": 1, "first_read_at": NOON, "last_read_at": NOON}
    fields |= {"last_changed_at": NOON, "is_final": True}
    calls = pa.Table.from_pylist([{"call_id": i, **fields} for i in (1, 2)], schema=TABLES["calls"].schema)
    for name, table in TABLES.items():
        if table.is_daily:
            lake.write_table(name, DAY, table.schema.empty_table())
    lake.write_table("calls", DAY, calls)
    assert verify(lake) == []
    other = DAY + timedelta(days=1)
    lake.write_table("calls", other, pa.concat_tables([calls.slice(1), calls.slice(1)]))
    lake.write_table(
        "dispositions", other, pa.table({"call_id": [9], "disposition_id": [1], "code": ["x"], "note": ["y"]})
    )
    lake.write_table("call_tags", DAY, pa.table({"call_id": [2, 1], "position": [0, 0], "tag": ["x", "y"]}))
    lake.storage.put_new("tables/calls/stray", b"")
    problems = {(finding.key, finding.problem) for finding in verify(lake)}
    missing = {
        (lake.table_key(name, other), "is missing though the day has other tables")
        for name in TABLES
        if TABLES[name].is_daily and name not in {"calls", "dispositions"}
    }
    assert problems == missing | {
        ("tables/calls/stray", "is no file of the lake"),
        (lake.table_key("calls", other), "has several rows for one call_id"),
        (lake.table_key("calls", other), "shows 2 calls that another day shows too, such as 2"),
        (lake.table_key("calls", DAY), "shows 1 calls that another day shows too, such as 2"),
        (lake.table_key("dispositions", other), "has rows of calls that are not in calls"),
        (lake.table_key("call_tags", DAY), "is not in the order of call_id, position"),
    }


def test_the_data_dictionary_is_current() -> None:
    """The page in docs is what the registry says: `make docs` writes it."""
    assert (ROOT / "docs/data-dictionary.md").read_text(encoding="utf-8") == render_data_dictionary()


def test_every_column_has_a_description() -> None:
    """Analysts read them in their tools."""
    for table in (*TABLES.values(), CALL_RECORDS):
        assert all(field.metadata[b"description"] for field in table.schema), table.name
        assert set(table.key) | set(table.sort_by) <= set(table.schema.names)
