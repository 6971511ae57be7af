"""The lake: raw segments and table files of one account, over a storage.

What belongs here: names of files, writing, reading, compaction. What stays out: what the vendor's bodies mean (`api`,
`derive`) and which ids to ask for (`ingest`).

    lake.json                                                            source and time zone of the days
    raw/call_records/call_date=D/<uuid7>_<lowest id>_<highest id>.parquet  segments
    tables/<table>/call_date=D/<table>.parquet, tables/agents/agents.parquet
    marts/<mart>/call_date=D/<mart>.parquet
    published/D.json                                                     which raw the tables of D show
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import uuid6

from calls_assets.lake import parquet
from calls_assets.lake.errors import CorruptFileError, LakeError
from calls_assets.lake.mart_schemas import DATASETS
from calls_assets.lake.raw import Read, merge_rows, reads_to_rows, rows_to_newest, rows_to_versions
from calls_assets.lake.schemas import CALL_RECORDS, INDEX, INSTANT
from calls_assets.lake.storage import LocalStorage, Storage, StoredFile

RAW_PREFIX = "raw/call_records/"
TABLES_PREFIX = "tables/"
SET_ASIDE_SUFFIX = ".damaged"
_SOURCE_KEY = "lake.json"
_PUBLISHED_PREFIX = "published/"
_COMPACT_BYTES = 64 * 2**20
_COMPACT_SEGMENTS = 8
_LIST_AGAIN = 20
_SEGMENT = re.compile(
    r"raw/call_records/call_date=(?P<day>\d{4}-\d\d-\d\d)/[0-9a-f-]{36}_(?P<lowest>\d{1,19})_(?P<highest>\d{1,19})\.parquet"
)
_INDEX_COLUMNS = ("call_id", "fetched_at", "http_status", "started_at", "is_ended", "error", "content_hash", "reads")


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """One file of raw reads; its name tells its ids, so that planning opens no file.

    Attributes:
        day: The day it is stored in.
        key: Its path in the lake.
        lowest_id: Lowest id it holds.
        highest_id: Highest id it holds.
        size: Length in bytes.
    """

    day: date
    key: str
    lowest_id: int
    highest_id: int
    size: int


@dataclass(frozen=True, slots=True)
class RawDay:
    """The reads of one day.

    Attributes:
        day: The day.
        segment_keys: The files they came from.
        versions: One row per run of equal answers about an id (schema `schemas.VERSIONS`).
    """

    day: date
    segment_keys: frozenset[str]
    versions: pa.Table


@dataclass(frozen=True, slots=True)
class Published:
    """What the tables of a day show.

    Attributes:
        segment_keys: The raw files they were made from.
        settled_at: Every id of the day was read at this instant or later; None when it has none.
    """

    segment_keys: frozenset[str]
    settled_at: datetime | None


def _raise_corrupt(error: CorruptFileError) -> None:
    raise error


class Lake:
    """The files of one account.

    Args:
        storage: Where they are.
        on_corrupt: Called for a damaged segment, which is then left out of what is read; raises by default.
    """

    def __init__(self, storage: Storage, *, on_corrupt: Callable[[CorruptFileError], None] | None = None) -> None:
        self.storage = storage
        self._on_corrupt = on_corrupt or _raise_corrupt

    @classmethod
    def open(cls, data_dir: Path, *, on_corrupt: Callable[[CorruptFileError], None] | None = None) -> Lake:
        """Opens the lake in a directory, which is created when missing, and removes what dead writers left.

        Raises:
            LakeError: The directory cannot be used.
        """
        with _explained(f"use the data directory {data_dir}"):
            storage = LocalStorage(data_dir)
            storage.clean_temporary()
        return cls(storage, on_corrupt=on_corrupt)

    def bind(self, timezone: str, base_url: str | None = None) -> None:
        """Remembers what the lake is filled from and whose days it has; refuses anything else afterwards.

        Args:
            timezone: Zone of the days.
            base_url: The API; None when it is not asked, and then only the zone is compared.

        Raises:
            LakeError: The lake has days of another zone, or was filled from another source.
        """
        content = json.dumps({"source": base_url, "timezone": timezone}).encode()
        try:
            held = self._read(_SOURCE_KEY)
        except FileNotFoundError:
            if base_url is None:
                return
            with _explained(f"write {_SOURCE_KEY}"), contextlib.suppress(FileExistsError):
                self.storage.put_new(_SOURCE_KEY, content)
                return
            held = self._read(_SOURCE_KEY)
        try:
            known = json.loads(held)
            source, zone = known["source"], known["timezone"]
        except (ValueError, KeyError, TypeError):
            raise LakeError(f"{_SOURCE_KEY} is not readable: restore it as {content.decode()}") from None
        if zone != timezone:
            raise LakeError(
                f"this lake has the days of {zone} and is now asked for days of {timezone}: "
                "set CALLS_TIMEZONE back, or CALLS_DATA_DIR to a new directory"
            )
        if base_url is not None and source != base_url:
            raise LakeError(
                f"this lake was filled from {source} and is now asked to be filled from {base_url}: "
                "set CALLS_API_BASE_URL back, or CALLS_DATA_DIR to a new directory"
            )

    def list_files(self, prefix: str) -> list[StoredFile]:
        """Lists the files below a prefix that ends with `/`.

        Raises:
            LakeError: They cannot be listed.
        """
        with _explained(f"list {prefix}"):
            return self.storage.list(prefix)

    def _read(self, key: str) -> bytes:
        with _explained(f"read {key}"):
            return self.storage.read(key)

    # Raw

    def segments(self, day: date | None = None) -> list[Segment]:
        """Lists the segments of a day, or of all days, by day and age."""
        prefix = RAW_PREFIX if day is None else f"{RAW_PREFIX}call_date={day}/"
        found = []
        for key, size, _ in self.list_files(prefix):
            match = _SEGMENT.fullmatch(key)
            if match:
                stored_day = date.fromisoformat(match["day"])
                found.append(Segment(stored_day, key, int(match["lowest"]), int(match["highest"]), size))
        return sorted(found)

    def land(self, day: date, reads: Sequence[Read]) -> Segment:
        """Stores answers under a day: durable when this returns.

        Raises:
            LakeError: They cannot be written; nothing stored before is touched.
        """
        return self._put_segment(day, reads_to_rows(reads))

    def copy_reads(self, call_ids: Collection[int], source: date, target: date) -> None:
        """Stores what one day knows of some ids under another day too: a call that moves takes its history along."""
        _, rows = self._read_rows(source, None)
        rows = rows.filter(pc.is_in(rows["call_id"], value_set=pa.array(sorted(call_ids), pa.int64())))
        if len(rows):
            self._put_segment(target, merge_rows(rows))

    def _put_segment(self, day: date, rows: pa.Table) -> Segment:
        lowest, highest = rows["call_id"][0].as_py(), rows["call_id"][-1].as_py()
        key = f"{RAW_PREFIX}call_date={day}/{uuid6.uuid7()}_{lowest}_{highest}.parquet"
        data = parquet.encode(rows)
        with _explained(f"write {key}"):
            self.storage.put_new(key, data)
        return Segment(day, key, lowest, highest, len(data))

    def read_index(self, days: Iterable[date]) -> pa.Table:
        """Gives the newest answer for each (day, id) of the days, without the bodies (schema `schemas.INDEX`)."""
        parts = [self._index_day(day) for day in sorted(set(days))]
        return pa.concat_tables(parts) if parts else INDEX.empty_table()

    def _index_day(self, day: date) -> pa.Table:
        _, rows = self._read_rows(day, _INDEX_COLUMNS)
        row, read_us, count = rows_to_newest(rows)
        chosen = rows.take(pa.array(row))
        days = pa.array(np.full(len(row), (day - date(1970, 1, 1)) // timedelta(days=1), dtype=np.int32)).cast(
            pa.date32()
        )
        columns = {"day": days, "read_at": pa.array(read_us, pa.int64()).cast(INSTANT), "read_count": pa.array(count)}
        return pa.table(
            {name: columns.get(name, chosen[name] if name in chosen.column_names else None) for name in INDEX.names},
            schema=INDEX,
        )

    def read_day(self, day: date) -> RawDay:
        """Gives all reads of a day.

        Raises:
            CorruptFileError: A segment is damaged (unless `on_corrupt` lets it pass).
        """
        keys, rows = self._read_rows(day, None)
        return RawDay(day, keys, rows_to_versions(rows))

    def is_current(self, raw: RawDay) -> bool:
        """Tells whether a day's raw still is what was read."""
        return raw.segment_keys == {segment.key for segment in self.segments(raw.day)}

    def mark_published(self, raw: RawDay) -> None:
        """Remembers that the tables of a day show this raw, so that a day touched later is known to be stale."""
        newest = raw.versions.group_by("call_id").aggregate([("last_read_at", "max")])
        oldest = pc.min(newest["last_read_at_max"]).as_py()
        content = {"segments": sorted(raw.segment_keys), "settled_at": oldest.isoformat() if oldest else None}
        key = f"{_PUBLISHED_PREFIX}{raw.day}.json"
        data = json.dumps(content).encode()
        with contextlib.suppress(FileNotFoundError):
            if self._read(key) == data:
                return
        with _explained(f"write {key}"):
            self.storage.replace(key, data)

    def published(self) -> dict[date, Published]:
        """Tells, for every day whose tables were written, which raw they show."""
        found = {}
        for key, _, _ in self.list_files(_PUBLISHED_PREFIX):
            # A mark that is damaged or just being removed only means that the day is made again.
            with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
                content = json.loads(self._read(key))
                instant = content["settled_at"] and datetime.fromisoformat(content["settled_at"])
                found[date.fromisoformat(key[len(_PUBLISHED_PREFIX) : -len(".json")])] = Published(
                    frozenset(content["segments"]), instant
                )
        return found

    def published_days(self) -> list[date]:
        """Lists the days whose tables were written, by the names of their marks alone."""
        keys = [key for key, _, _ in self.list_files(_PUBLISHED_PREFIX)]
        matches = (re.fullmatch(rf"{_PUBLISHED_PREFIX}(\d{{4}}-\d\d-\d\d)\.json", key) for key in keys)
        return sorted(date.fromisoformat(match[1]) for match in matches if match)

    def stale_days(self) -> list[date]:
        """Lists the days whose tables were written and whose raw has changed since."""
        stored: dict[date, set[str]] = {}
        for segment in self.segments():
            stored.setdefault(segment.day, set()).add(segment.key)
        return sorted(day for day, mark in self.published().items() if mark.segment_keys != stored.get(day, set()))

    def _read_rows(self, day: date, columns: Sequence[str] | None) -> tuple[frozenset[str], pa.Table]:
        """Reads every segment of a day; when one has gone (compacted), lists again."""
        for _ in range(_LIST_AGAIN):
            keys = [segment.key for segment in self.segments(day)]
            tables = [CALL_RECORDS.schema.empty_table().select(list(columns or CALL_RECORDS.schema.names))]
            try:
                for key in keys:
                    try:
                        tables.append(self.read_segment(key, columns))
                    except CorruptFileError as error:
                        self._on_corrupt(error)
            except FileNotFoundError:
                continue
            return frozenset(keys), pa.concat_tables(tables)
        raise LakeError(f"the raw files of {day} keep changing while they are read: try again")

    def read_segment(self, key: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Reads one segment's rows (schema `CALL_RECORDS`).

        Raises:
            FileNotFoundError: It is gone.
            CorruptFileError: It is damaged.
        """
        names = list(columns or CALL_RECORDS.schema.names)
        table = parquet.decode(key, self._read(key), names)
        schema = pa.schema([CALL_RECORDS.schema.field(name) for name in names])
        try:
            return table.select(names).cast(schema)
        except (pa.ArrowException, KeyError, ValueError):
            raise CorruptFileError(key, "its columns are not those of call_records") from None

    def compact(self, day: date) -> bool:
        """Merges a day's segments into one: writes the merged one, then deletes the others.

        A day of many bytes waits until it has eight segments, so that small additions stay cheap. What is read from
        the day stays the same at every moment. Damaged segments are left alone.

        Returns:
            Whether anything was merged.
        """
        segments = self.segments(day)
        is_large = sum(segment.size for segment in segments) > _COMPACT_BYTES
        if len(segments) < (_COMPACT_SEGMENTS if is_large else 2):
            return False
        tables, merged_keys = [], []
        for segment in segments:
            try:
                tables.append(self.read_segment(segment.key))
            except FileNotFoundError:
                return False  # someone else is compacting
            except CorruptFileError as error:
                self._on_corrupt(error)
            else:
                merged_keys.append(segment.key)
        if len(tables) < 2:
            return False
        self._put_segment(day, merge_rows(pa.concat_tables(tables)))
        for key in merged_keys:
            with _explained(f"delete {key}"):
                self.storage.delete(key)
        return True

    def set_aside(self, key: str) -> None:
        """Keeps a damaged segment under another name, out of what is read."""
        with _explained(f"set aside {key}"):
            with contextlib.suppress(FileExistsError):
                self.storage.put_new(key + SET_ASIDE_SUFFIX, self._read(key))
            self.storage.delete(key)

    # Tables

    def table_key(self, name: str, day: date | None = None) -> str:
        """Gives the path of a table's or mart's file.

        Raises:
            ValueError: A daily table without a day, or the other way round.
        """
        table = DATASETS[name]
        if table.is_daily != (day is not None):
            raise ValueError(f"table {name} is {'daily' if day is None else 'not daily'}")
        return f"{table.tree}/{name}/{'' if day is None else f'call_date={day}/'}{name}.parquet"

    def write_table(self, name: str, day: date | None, table: pa.Table) -> bool:
        """Replaces a table's file in one step, unless its rows are the same already.

        Args:
            name: A name of the registry.
            day: The day, None for a table that is not daily.
            table: Rows in the registry's columns and order.

        Returns:
            Whether the file was replaced.

        Raises:
            LakeError: The rows break the schema, or cannot be written; the file is as before.
        """
        schema = DATASETS[name].schema
        key = self.table_key(name, day)
        for field in schema:
            if not field.nullable and field.name in table.column_names and table[field.name].null_count:
                raise LakeError(f"rows for {key} have NULL in {field.name}, which is never NULL")
        try:
            table = table.select(schema.names).cast(schema).combine_chunks()
        except (pa.ArrowException, KeyError, ValueError) as problem:
            raise LakeError(f"rows for {key} do not fit its schema: {type(problem).__name__}") from None
        data = parquet.encode(table)
        with contextlib.suppress(FileNotFoundError, CorruptFileError):
            held = self._read(key)
            # The second look is for files of another writer version: other bytes, same rows.
            if held == data or parquet.decode(key, held).equals(table):
                return False
        with _explained(f"write {key}"):
            self.storage.replace(key, data)
        return True

    def read_table(self, name: str, day: date | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Reads a table's file, page checksums verified.

        Raises:
            FileNotFoundError: There is none.
            CorruptFileError: It is damaged.
        """
        key = self.table_key(name, day)
        return parquet.decode(key, self._read(key), columns)

    def table_days(self, name: str) -> list[date]:
        """Lists the days a daily table or mart has a file for."""
        tree = DATASETS[name].tree
        pattern = re.compile(rf"{tree}/{name}/call_date=(\d{{4}}-\d\d-\d\d)/{name}\.parquet")
        matches = (pattern.fullmatch(key) for key, _, _ in self.list_files(f"{tree}/{name}/"))
        return sorted(date.fromisoformat(match[1]) for match in matches if match)


@contextlib.contextmanager
def _explained(deed: str) -> Iterator[None]:
    """Turns the system's refusal into one clear line; a missing or existing file stays what it is."""
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as problem:
        raise LakeError(
            f"cannot {deed}: {(problem.strerror or 'input/output error').lower()}; what is stored is unchanged"
        ) from problem
