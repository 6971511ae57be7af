"""The lake: raw segments and table files of one account, over a storage.

What belongs here: names of files, writing, reading, compaction. What stays out: what the vendor's bodies mean (`api`,
`derive`) and which ids to ask for (`ingest`).

    lake.json                                                            source and time zone of the days
    raw/call_records/call_date=D/<uuid7>_<lowest id>_<highest id>.parquet  segments
    raw/call_events/call_date=D/<uuid7>.parquet                          deliveries of the webhook
    tables/<table>/call_date=D/<table>.parquet, tables/agents/agents.parquet
    marts/<mart>/call_date=D/<mart>.parquet
    published/D.json                                                     which raw the tables of D show
    made_of/D.json, made_of/<report-D|agents|catalog>.json             of what marts, pages, agents, catalogue are made
    made_of/agents.parquet                                               what each day says of its agents
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import uuid6

from calls_assets.lake import parquet
from calls_assets.lake.errors import CorruptFileError, LakeError
from calls_assets.lake.location import open_storage
from calls_assets.lake.mart_schemas import DATASETS
from calls_assets.lake.raw import Read, merge_events, merge_rows, reads_to_rows, rows_to_newest, rows_to_versions
from calls_assets.lake.schemas import CALL_EVENTS, CALL_RECORDS, INDEX, INSTANT
from calls_assets.lake.storage import Partial, ReplacedError, Seekable, Storage, StoredFile
from calls_assets.settings import Location

RAW_PREFIX = "raw/call_records/"
EVENTS_PREFIX = "raw/call_events/"
TABLES_PREFIX = "tables/"
SET_ASIDE_SUFFIX = ".damaged"
SOURCE_KEY = "lake.json"
_PUBLISHED_PREFIX = "published/"
_MADE_OF_PREFIX = "made_of/"
_COMPACT_BYTES = 64 * 2**20
_COMPACT_SEGMENTS = 8
_COMPACT_UNSHOWN = 16
_LIST_AGAIN = 20
_KEPT_HIGHEST_CALLS = 1_000
_highest_calls: dict[str, int] = {}
"""What `find_highest_call` found in stores that give whole files only: else every tick would fetch the newest again."""
_SEGMENT = re.compile(
    r"raw/call_records/call_date=(?P<day>\d{4}-\d\d-\d\d)/[0-9a-f-]{36}_(?P<lowest>\d{1,19})_(?P<highest>\d{1,19})\.parquet"
)
_EVENTS_FILE = re.compile(r"raw/call_events/call_date=(?P<day>\d{4}-\d\d-\d\d)/[0-9a-f-]{36}\.parquet")
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
    """The reads and events of one day, or those about some of its calls.

    Attributes:
        day: The day.
        segment_keys: All files of the day.
        call_ids: The ids that the rest is about, each once; those of all answers and deliveries, or some.
        versions: One row per run of equal answers about an id (schema `schemas.VERSIONS`).
        events: One row per delivery (schema `schemas.CALL_EVENTS`), by call and reception.
        settled_at: Every id of the day was read at this instant or later; None when it has none.
    """

    day: date
    segment_keys: frozenset[str]
    call_ids: pa.Array
    versions: pa.Table
    events: pa.Table
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Published:
    """What the tables of a day show.

    Attributes:
        segment_keys: The raw files whose answers they show.
        settled_at: Every id of the day was read at this instant or later; None when it has none.
        recipe: What identifies how they were made; empty when that is not known.
        seals: Of each table's file, by the table's name.
    """

    segment_keys: frozenset[str]
    settled_at: datetime | None
    recipe: str
    seals: Mapping[str, str]


def _select(key: str, table: pa.Table, schema: pa.Schema) -> pa.Table:
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowException, KeyError, ValueError):
        raise CorruptFileError(key, "its columns are not those of its kind") from None


def _find_highest_call(key: str, file: BinaryIO) -> int:
    for rows in parquet.decode_backwards(
        key, file, ("call_id", "http_status", "error", "started_at")
    ):  # rows are by id
        is_call = pc.and_(pc.equal(rows["http_status"], 200), pc.is_null(rows["error"]))
        is_call = pc.and_(is_call, pc.is_valid(rows["started_at"]))
        highest = pc.max(rows["call_id"].filter(is_call)).as_py()
        if highest is not None:
            return int(highest)
    return 0


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
    def open(
        cls,
        location: Location,
        *,
        on_corrupt: Callable[[CorruptFileError], None] | None = None,
        is_single_writer: bool = False,
    ) -> Lake:
        """Opens the lake for writing.

        Args:
            location: A directory, which is created when missing and cleared of what dead writers left, or an address
                such as `s3://bucket/prefix`.
            on_corrupt: As for the class.
            is_single_writer: The user's word that one process at a time writes (`location.open_storage`).

        Raises:
            LakeError: It cannot be used.
        """
        with _explained(f"use the {'object store' if '://' in str(location) else 'data directory'} {location}"):
            storage = open_storage(location, is_single_writer=is_single_writer)
        return cls(storage, on_corrupt=on_corrupt)

    def bind(self, timezone: str, base_url: str | None = None) -> None:
        """Remembers what the lake is filled from and whose days it has; refuses anything else afterwards.

        Args:
            timezone: Zone of the days.
            base_url: The API; None when it is not asked, and then only the zone is compared.

        Raises:
            LakeError: The lake has days of another zone, or was filled from another source.
        """
        try:
            self.check_binding(timezone, base_url)
        except FileNotFoundError:
            if base_url is None:
                return
            with _explained(f"write {SOURCE_KEY}"), contextlib.suppress(FileExistsError):
                self.storage.put_new(SOURCE_KEY, _make_binding(timezone, base_url))
            self.check_binding(timezone, base_url)

    def check_binding(self, timezone: str, base_url: str | None = None) -> None:
        """Compares what the lake remembers to be filled from with the settings.

        Args:
            timezone: Zone of the days.
            base_url: The API; None leaves it out.

        Raises:
            FileNotFoundError: It remembers nothing yet.
            LakeError: They differ.
        """
        held = self._read(SOURCE_KEY)
        try:
            known = json.loads(held)
            source, zone = known["source"], known["timezone"]
        except (ValueError, KeyError, TypeError):
            content = _make_binding(timezone, base_url).decode()
            raise LakeError(f"{SOURCE_KEY} is not readable: restore it as {content}") from None
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

    def has_files(self) -> bool:
        """Tells whether there is anything where the lake should be.

        Raises:
            LakeError: It cannot be looked at.
        """
        with _explained("look into the lake"):
            return self.storage.has_files()

    def list_files(self, prefix: str, after: str = "") -> list[StoredFile]:
        """Lists the files below a prefix that ends with `/`, those whose keys come after another.

        Raises:
            LakeError: They cannot be listed.
        """
        with _explained(f"list {prefix}"):
            return self.storage.list(prefix, after)

    def list_table_files(self, name: str, days: Iterable[date]) -> list[StoredFile]:
        """Lists a daily table's files of some days: a directory is asked for each day, an object store once."""
        keys = sorted(self.table_key(name, day) for day in days)
        if isinstance(self.storage, Seekable):
            return [file for key in keys for file in self.list_files(f"{key.rpartition('/')[0]}/")]
        folder = f"{DATASETS[name].tree}/{name}/"
        wanted = {*keys}
        return [file for file in self.list_files(folder, min(keys).rpartition("/")[0]) if file.key in wanted]

    def _read(self, key: str) -> bytes:
        with _explained(f"read {key}"):
            return self.storage.read(key)

    # Raw

    def segments(self, day: date | None = None, *, since: date | None = None) -> list[Segment]:
        """Lists the segments of a day, or of all days, or of those since a day, by day and age."""
        prefix = RAW_PREFIX if day is None else f"{RAW_PREFIX}call_date={day}/"
        found = []
        for key, size, _ in self.list_files(prefix, "" if since is None else f"{RAW_PREFIX}call_date={since}/"):
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
        wanted = pa.array(sorted(call_ids), pa.int64())
        rows = self._read_rows(source, None)
        rows = rows.filter(pc.is_in(rows["call_id"], value_set=wanted))
        if len(rows):
            self._put_segment(target, merge_rows(rows))
        events = self.read_events(source)
        self.land_events(target, events.filter(pc.is_in(events["call_id"], value_set=wanted)))

    def land_events(self, day: date, events: pa.Table) -> None:
        """Stores deliveries under a day: durable when this returns.

        Args:
            day: The day.
            events: Rows of the schema `CALL_EVENTS`; those that are stored there already are left out.

        Raises:
            LakeError: They cannot be written; nothing stored before is touched.
        """
        held = self.read_events(day)
        known = set(zip(*(held[name].to_pylist() for name in CALL_EVENTS.key), strict=True))
        rows = [row for row in events.to_pylist() if tuple(row[name] for name in CALL_EVENTS.key) not in known]
        if rows:
            self._put_events(day, pa.Table.from_pylist(rows, CALL_EVENTS.schema))

    def _put_events(self, day: date, events: pa.Table) -> str:
        key = f"{EVENTS_PREFIX}call_date={day}/{uuid6.uuid7()}.parquet"
        data = parquet.encode(key, merge_events(events))
        with _explained(f"write {key}"):
            self.storage.put_new(key, data)
        return key

    def event_files(self, day: date | None = None) -> list[tuple[date, str]]:
        """Lists the files of deliveries of a day, or of all days."""
        prefix = EVENTS_PREFIX if day is None else f"{EVENTS_PREFIX}call_date={day}/"
        matches = (_EVENTS_FILE.fullmatch(file.key) for file in self.list_files(prefix))
        return [(date.fromisoformat(match["day"]), match[0]) for match in matches if match]

    def read_events_file(self, key: str) -> pa.Table:
        """Reads one file of deliveries (schema `CALL_EVENTS`).

        Raises:
            FileNotFoundError: It is gone.
            CorruptFileError: It is damaged.
        """
        return _select(key, parquet.decode(key, self._read(key)), CALL_EVENTS.schema)

    def read_events(self, day: date) -> pa.Table:
        """Gives the deliveries of a day (schema `CALL_EVENTS`), by call and reception.

        Raises:
            CorruptFileError: A file is damaged (unless `on_corrupt` lets it pass).
        """
        return merge_events(pa.concat_tables(self._read_deliveries(day)[1].values()))

    def _read_deliveries(self, day: date) -> tuple[frozenset[str], dict[str, pa.Table]]:
        return self._read_all(
            day,
            lambda: [key for _, key in self.event_files(day)],
            self.read_events_file,
            CALL_EVENTS.schema.empty_table(),
        )

    def raw_keys(self) -> dict[date, set[str]]:
        """Lists the files of raw by day."""
        stored: dict[date, set[str]] = {}
        for segment in self.segments():
            stored.setdefault(segment.day, set()).add(segment.key)
        for day, key in self.event_files():
            stored.setdefault(day, set()).add(key)
        return stored

    def _put_segment(self, day: date, rows: pa.Table) -> Segment:
        lowest, highest = rows["call_id"][0].as_py(), rows["call_id"][-1].as_py()
        key = f"{RAW_PREFIX}call_date={day}/{uuid6.uuid7()}_{lowest}_{highest}.parquet"
        data = parquet.encode(key, rows)
        with _explained(f"write {key}"):
            self.storage.put_new(key, data)
        return Segment(day, key, lowest, highest, len(data))

    def read_index(self, days: Iterable[date]) -> pa.Table:
        """Gives the newest answer for each (day, id) of the days, without the bodies (schema `schemas.INDEX`)."""
        parts = [self._index_day(day) for day in sorted(set(days))]
        return pa.concat_tables(parts) if parts else INDEX.empty_table()

    def _index_day(self, day: date) -> pa.Table:
        rows = self._read_rows(day, _INDEX_COLUMNS)
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

    def read_day(self, day: date, shown: Collection[str] | None = None) -> RawDay:
        """Gives all reads and events of a day.

        Args:
            day: The day.
            shown: Raw files; only what is about calls is given that some other file is about. None gives all.

        Raises:
            CorruptFileError: A file is damaged (unless `on_corrupt` lets it pass).
        """
        keys, segments = self._read_segments(day, None)
        event_keys, deliveries = self._read_deliveries(day)
        rows, events = pa.concat_tables(segments.values()), pa.concat_tables(deliveries.values())
        newest = rows.group_by("call_id").aggregate([("fetched_at", "max")])
        settled_at = pc.min(newest["fetched_at_max"]).as_py()
        new = (table for key, table in (segments | deliveries).items() if shown is None or key not in shown)
        new_ids = [chunk for table in new for chunk in table["call_id"].chunks]
        call_ids = pc.unique(pa.chunked_array(new_ids, pa.int64()))
        if shown is not None:
            rows, events = (table.filter(pc.is_in(table["call_id"], value_set=call_ids)) for table in (rows, events))
        return RawDay(
            day=day,
            segment_keys=keys | event_keys,
            call_ids=call_ids,
            versions=rows_to_versions(rows),
            events=merge_events(events),
            settled_at=settled_at,
        )

    def is_current(self, raw: RawDay) -> bool:
        """Tells whether a day's raw still is what was read."""
        return raw.segment_keys == self.raw_keys_of(raw.day)

    def raw_keys_of(self, day: date) -> frozenset[str]:
        """Lists the files of a day's raw."""
        return frozenset(segment.key for segment in self.segments(day)) | {key for _, key in self.event_files(day)}

    def mark_key(self, day: date) -> str:
        """Gives the path of a day's mark."""
        return f"{_PUBLISHED_PREFIX}{day}.json"

    def mark_published(self, raw: RawDay, recipe: str, seals: Mapping[str, str]) -> None:
        """Remembers that the tables of a day show this raw, so that a day touched later is known to be stale.

        Args:
            raw: The raw.
            recipe: Identifies how the tables were made of it.
            seals: Of the tables' files, by the tables' names.
        """
        self._write_mark(
            raw.day,
            {
                "segments": sorted(raw.segment_keys),
                "settled_at": raw.settled_at.isoformat() if raw.settled_at else None,
                "recipe": recipe,
                "seals": dict(seals),
            },
        )

    def _write_mark(self, day: date, content: dict[str, object]) -> None:
        key = self.mark_key(day)
        data = _seal_mark(key, content)
        with contextlib.suppress(FileNotFoundError):
            if self._read(key) == data:
                return
        with _explained(f"write {key}"):
            self.storage.replace(key, data)

    def _read_mark(self, day: date) -> dict[str, Any]:
        """Gives a mark; nothing when it is missing, damaged or just being removed: then the day is made again."""
        key = self.mark_key(day)
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
            return _open_mark(key, self._read(key))
        return {}

    def published(self) -> dict[date, Published]:
        """Tells, for every day whose tables were written, which raw they show."""
        found = {}
        for day in self.published_days():
            mark = self.published_day(day)
            if mark is not None:
                found[day] = mark
        return found

    def published_day(self, day: date) -> Published | None:
        """Tells which raw the tables of a day show; None when that is not known."""
        content = self._read_mark(day)
        with contextlib.suppress(KeyError, TypeError, ValueError):
            instant = content["settled_at"] and datetime.fromisoformat(content["settled_at"])
            made = (content.get(name, default) for name, default in (("recipe", ""), ("seals", {})))
            return Published(frozenset(content["segments"]), instant, *made)
        return None

    def read_made_of(self, name: str) -> dict[str, Any]:
        """Gives what something was made of when it was made last; nothing when that is not known.

        Args:
            name: Of what: `agents`, `catalog`, the day of marts, or `report-` and the day of a page.
        """
        key = f"{_MADE_OF_PREFIX}{name}.json"
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
            return _open_mark(key, self._read(key))
        return {}

    def write_made_of(self, name: str, content: dict[str, Any]) -> None:
        """Remembers what something was made of, so that it is not made again of the same."""
        key = f"{_MADE_OF_PREFIX}{name}.json"
        if self.read_made_of(name) != content:
            with _explained(f"write {key}"):
                self.storage.replace(key, _seal_mark(key, content))

    def read_kept(self, name: str) -> pa.Table:
        """Reads what `write_kept` stored; without columns when it is missing or damaged, as it can be made again."""
        key = f"{_MADE_OF_PREFIX}{name}.parquet"
        with contextlib.suppress(FileNotFoundError, CorruptFileError):
            return parquet.decode(key, self._read(key))
        return pa.table({})

    def write_kept(self, name: str, rows: pa.Table) -> None:
        """Keeps rows that something was made of on the way, and the metadata of their schema."""
        key = f"{_MADE_OF_PREFIX}{name}.parquet"
        with _explained(f"write {key}"):
            self.storage.replace(key, parquet.encode(key, rows))

    def published_days(self) -> list[date]:
        """Lists the days whose tables were written, by the names of their marks alone."""
        keys = [key for key, _, _ in self.list_files(_PUBLISHED_PREFIX)]
        matches = (re.fullmatch(rf"{_PUBLISHED_PREFIX}(\d{{4}}-\d\d-\d\d)\.json", key) for key in keys)
        return sorted(date.fromisoformat(match[1]) for match in matches if match)

    def stale_days(self) -> list[date]:
        """Lists the days whose tables were written and whose raw has changed since."""
        stored = self.raw_keys()
        return sorted(day for day, mark in self.published().items() if mark.segment_keys != stored.get(day, set()))

    def is_shown(self, day: date) -> bool:
        """Tells whether the tables of a day show all of its raw; of a day without any, nothing is to be shown."""
        mark = self.published_day(day)
        return self.raw_keys_of(day) == (mark.segment_keys if mark else frozenset())

    def _read_rows(self, day: date, columns: Sequence[str] | None) -> pa.Table:
        return pa.concat_tables(self._read_segments(day, columns)[1].values())

    def _read_segments(self, day: date, columns: Sequence[str] | None) -> tuple[frozenset[str], dict[str, pa.Table]]:
        return self._read_all(
            day,
            lambda: [segment.key for segment in self.segments(day)],
            lambda key: self.read_segment(key, columns),
            CALL_RECORDS.schema.empty_table().select(list(columns or CALL_RECORDS.schema.names)),
        )

    def _read_all(
        self, day: date, list_keys: Callable[[], list[str]], read: Callable[[str], pa.Table], empty: pa.Table
    ) -> tuple[frozenset[str], dict[str, pa.Table]]:
        """Reads every raw file of a day; when one has gone (compacted), lists again.

        Returns:
            The files that there are; what was read by file, and an empty table under no name.
        """
        for _ in range(_LIST_AGAIN):
            keys = list_keys()
            tables = {"": empty}
            try:
                for key in keys:
                    try:
                        tables[key] = read(key)
                    except CorruptFileError as error:
                        self._on_corrupt(error)
            except FileNotFoundError:
                continue
            return frozenset(keys), tables
        raise LakeError(f"the raw files of {day} keep changing while they are read: try again")

    def read_segment(self, key: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Reads one segment's rows (schema `CALL_RECORDS`).

        Raises:
            FileNotFoundError: It is gone.
            CorruptFileError: It is damaged.
        """
        names = list(columns or CALL_RECORDS.schema.names)
        schema = pa.schema([CALL_RECORDS.schema.field(name) for name in names])
        return _select(key, parquet.decode(key, self._read(key), names), schema)

    def find_highest_call(self, key: str) -> int:
        """Gives the highest id of a call in a segment, 0 when it has none, from as little of the file as it takes.

        Raises:
            FileNotFoundError: It is gone.
            CorruptFileError: It is damaged, as far as it was read.
        """
        if isinstance(self.storage, Seekable):
            with _explained(f"read {key}"), self.storage.open(key) as file:
                return _find_highest_call(key, file)
        address = self.storage.locate(key)
        highest = _highest_calls.get(address)
        if highest is None:
            highest = _find_highest_call(key, io.BytesIO(self._read(key)))
            if len(_highest_calls) >= _KEPT_HIGHEST_CALLS:
                _highest_calls.clear()
            _highest_calls[address] = highest
        return highest

    def compact(self, day: date) -> bool:
        """Merges a day's segments into one, and its deliveries: writes the merged file, then deletes the others.

        A day of many bytes waits until it has eight segments, so that small additions stay cheap. A day that has tables
        waits until they show all of it, or until it has sixteen files: of a merged file that the tables do not show,
        nothing tells what is new. What is read from the day stays the same at every moment. Damaged files are left
        alone.

        Returns:
            Whether anything was merged.
        """
        segments = self.segments(day)
        keys, event_keys = [segment.key for segment in segments], [key for _, key in self.event_files(day)]
        is_large = sum(segment.size for segment in segments) > _COMPACT_BYTES
        if len(keys) < (_COMPACT_SEGMENTS if is_large else 2):
            keys = []
        if max(len(keys), len(event_keys)) < 2:
            return False
        mark = self._read_mark(day)
        shown = set(mark.get("segments", ()))
        if shown and not shown.issuperset(keys + event_keys) and len(keys + event_keys) < _COMPACT_UNSHOWN:
            return False
        done = [
            self._merge(keys, self.read_segment, lambda rows: self._put_segment(day, merge_rows(rows)).key),
            self._merge(event_keys, self.read_events_file, lambda rows: self._put_events(day, rows)),
        ]
        merged_keys = {key for merged, _ in done for key in merged}
        if merged_keys and shown.issuperset(merged_keys):
            new_keys = {new_key for merged, new_key in done if merged}
            self._write_mark(day, mark | {"segments": sorted(shown - merged_keys | new_keys)})
        return bool(merged_keys)

    def _merge(
        self, keys: Sequence[str], read: Callable[[str], pa.Table], put: Callable[[pa.Table], str]
    ) -> tuple[list[str], str]:
        """Merges files; gives those that were, and the new one; none when there are fewer than two."""
        tables, merged_keys = [], []
        for key in keys:
            try:
                tables.append(read(key))
            except FileNotFoundError:
                return [], ""  # someone else is compacting
            except CorruptFileError as error:
                self._on_corrupt(error)
            else:
                merged_keys.append(key)
        if len(tables) < 2:
            return [], ""
        new_key = put(pa.concat_tables(tables))
        for key in merged_keys:
            with _explained(f"delete {key}"):
                self.storage.delete(key)
        return merged_keys, new_key

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
        """Does what `put_table` does; tells whether the file was replaced."""
        return self.put_table(name, day, table)[0]

    def put_table(self, name: str, day: date | None, table: pa.Table) -> tuple[bool, str]:
        """Replaces a table's file in one step, unless its rows are the same already.

        Args:
            name: A name of the registry.
            day: The day, None for a table that is not daily.
            table: Rows in the registry's columns and order.

        Returns:
            Whether the file was replaced, and the seal of the one that is there now.

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
        data = parquet.encode(key, table)
        with contextlib.suppress(FileNotFoundError, CorruptFileError):
            held = self._read(key)
            # The second look is for files of another writer version: other bytes, same rows.
            if held == data or parquet.decode(key, held).equals(table):
                return False, parquet.read_seal(held)
        with _explained(f"write {key}"):
            self.storage.replace(key, data)
        return True, parquet.read_seal(data)

    def count_rows(self, name: str, day: date | None = None) -> tuple[int, str]:
        """Gives the number of a table's rows and the seal of its file, which is compared with its bytes.

        Raises:
            FileNotFoundError: There is none.
            CorruptFileError: It is damaged.
        """
        key = self.table_key(name, day)
        return parquet.count_rows(key, self._read(key))

    def read_table(self, name: str, day: date | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Reads a table's file, page checksums verified.

        Raises:
            FileNotFoundError: There is none.
            CorruptFileError: It is damaged.
        """
        key = self.table_key(name, day)
        return parquet.decode(key, self._read(key), columns)

    def read_sealed_table(self, name: str, day: date) -> tuple[pa.Table, str]:
        """Gives what `read_table` does, and the seal of the file, which tells its rows from all others."""
        key = self.table_key(name, day)
        data = self._read(key)
        return parquet.decode(key, data), parquet.read_seal(data)

    def read_columns(self, name: str, day: date | None, columns: Sequence[str]) -> pa.Table:
        """Reads some columns of a table's file, as readers do.

        From an object store their ranges are got, unless they are most of the file: their pages are compared with their
        checksums, not the file with its seal. Otherwise this is `read_table`.

        Raises:
            FileNotFoundError: There is none.
            CorruptFileError: It is damaged.
        """
        if isinstance(self.storage, Partial) and 2 * len(columns) < len(DATASETS[name].schema):
            key = self.table_key(name, day)
            with contextlib.suppress(ReplacedError), _explained(f"read {key}"):
                return parquet.decode_parts(key, self.storage.open_parts(key), columns)
        return self.read_table(name, day, columns)

    def table_days(self, name: str) -> list[date]:
        """Lists the days a daily table or mart has a file for."""
        tree = DATASETS[name].tree
        pattern = re.compile(rf"{tree}/{name}/call_date=(\d{{4}}-\d\d-\d\d)/{name}\.parquet")
        matches = (pattern.fullmatch(key) for key, _, _ in self.list_files(f"{tree}/{name}/"))
        return sorted(date.fromisoformat(match[1]) for match in matches if match)


def _make_binding(timezone: str, base_url: str | None) -> bytes:
    return json.dumps({"source": base_url, "timezone": timezone}).encode()


def _seal_mark(key: str, content: dict[str, object]) -> bytes:
    """Serialises a mark with a hash of its name and content."""
    seal = hashlib.blake2b(json.dumps([key, content]).encode(), digest_size=16).hexdigest()
    return json.dumps(content | {"seal": seal}).encode()


def _open_mark(key: str, data: bytes) -> dict[str, Any]:
    """Parses a mark; raises ValueError when it is not as it was written under this name."""
    content: dict[str, Any] = dict(json.loads(data))
    content.pop("seal", None)
    if _seal_mark(key, content) != data:
        raise ValueError("the mark does not match its seal")
    return content


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
