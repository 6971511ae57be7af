"""Verify: reads every file of the lake and names what is wrong, with its remedy.

What belongs here: what the files alone can show (readable, checksums, schema, keys, order, parents, one row per call
over all days). What stays out: accounting for ids (`ingest.coverage`) and comparing tables with raw (`derive`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from calls_assets.lake.errors import CorruptFileError
from calls_assets.lake.lake import EVENTS_PREFIX, RAW_PREFIX, SET_ASIDE_SUFFIX, TABLES_PREFIX, Lake
from calls_assets.lake.mart_schemas import DATASETS, MARTS
from calls_assets.lake.raw import rows_to_versions
from calls_assets.lake.schemas import DAILY_TABLES, TABLES, Table

MARTS_PREFIX = "marts/"
_SWEEP_AGAIN = "materialize call_records for this day: it is set aside and its ids are asked for again"
_RESTORE = "restore it from a backup, or move it away: deliveries cannot be asked for again"
_DERIVE_AGAIN = (
    "materialize the tables and marts for this day (rebuild_job): they are made again from raw, without the API"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong in the lake.

    Attributes:
        key: The file or directory.
        problem: What is wrong.
        remedy: What to do.
    """

    key: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.key}: {self.problem}; to heal it, {self.remedy}"


def verify(lake: Lake) -> list[Finding]:
    """Reads the whole lake once, a day at a time."""
    return [
        *_verify_raw(lake),
        *_verify_events(lake),
        *_verify_tables(lake),
        *_verify_marts(lake),
        *_verify_marks(lake),
    ]


def _verify_raw(lake: Lake) -> Iterator[Finding]:
    known = {segment.key: segment for segment in lake.segments()}
    for key, _, _ in lake.list_files(RAW_PREFIX):
        segment = known.get(key)
        if segment is None:
            if not key.endswith(SET_ASIDE_SUFFIX):
                yield Finding(key, "is no file of the lake", "move it elsewhere")
            continue
        try:
            rows = lake.read_segment(key)
            rows_to_versions(rows)
        except FileNotFoundError:
            continue  # compacted meanwhile
        except CorruptFileError as error:
            yield Finding(key, f"is damaged ({error.reason})", _SWEEP_AGAIN)
            continue
        ids = (pc.min(rows["call_id"]).as_py(), pc.max(rows["call_id"]).as_py())
        if ids != (segment.lowest_id, segment.highest_id):
            yield Finding(key, "holds other ids than its name says", _SWEEP_AGAIN)


def _verify_events(lake: Lake) -> Iterator[Finding]:
    known = {key for _, key in lake.event_files()}
    for key, _, _ in lake.list_files(EVENTS_PREFIX):
        if key not in known:
            yield Finding(key, "is no file of the lake", "move it elsewhere")
            continue
        try:
            lake.read_events_file(key)
        except FileNotFoundError:
            continue  # compacted meanwhile
        except CorruptFileError as error:
            yield Finding(key, f"is damaged ({error.reason})", _RESTORE)


def _verify_tables(lake: Lake) -> Iterator[Finding]:
    files: dict[tuple[str, date | None], str] = {
        (name, day): lake.table_key(name, day) for name in DAILY_TABLES for day in lake.table_days(name)
    }
    files |= {(name, None): lake.table_key(name) for name, table in TABLES.items() if not table.is_daily}
    expected = set(files.values())
    for key, _, _ in lake.list_files(TABLES_PREFIX):
        if key not in expected:
            yield Finding(key, "is no file of the lake", "move it elsewhere")
    shown: list[tuple[date, pa.ChunkedArray]] = []
    for day in sorted({day for _, day in files if day is not None}):
        read: dict[str, pa.Table] = {}
        for name in DAILY_TABLES:
            if (name, day) not in files:
                yield Finding(lake.table_key(name, day), "is missing though the day has other tables", _DERIVE_AGAIN)
            else:
                yield from _verify_file(lake, name, day, read)
        if "calls" not in read:
            continue
        ids = read["calls"]["call_id"]
        shown.append((day, ids))
        for name, table in read.items():
            if not pc.all(pc.is_in(table["call_id"], value_set=ids.combine_chunks())).as_py() and len(table):
                yield Finding(lake.table_key(name, day), "has rows of calls that are not in calls", _DERIVE_AGAIN)
    for name, table in TABLES.items():
        if not table.is_daily:
            yield from _verify_file(lake, name, None, {})
    yield from _verify_one_row_per_call(lake, shown)


def _verify_marts(lake: Lake) -> Iterator[Finding]:
    files = {lake.table_key(name, day): (name, day) for name in MARTS for day in lake.table_days(name)}
    for key, _, _ in lake.list_files(MARTS_PREFIX):
        if key not in files:
            yield Finding(key, "is no file of the lake", "move it elsewhere")
    for name, day in files.values():
        yield from _verify_file(lake, name, day, {})


def _verify_marks(lake: Lake) -> Iterator[Finding]:
    readable = lake.published()
    for day in lake.published_days():
        if day not in readable:
            yield Finding(lake.mark_key(day), "is damaged", _DERIVE_AGAIN)


def _verify_file(lake: Lake, name: str, day: date | None, read: dict[str, pa.Table]) -> Iterator[Finding]:
    key, table = lake.table_key(name, day), DATASETS[name]
    try:
        rows = lake.read_table(name, day)
    except FileNotFoundError:
        return
    except CorruptFileError as error:
        yield Finding(key, f"is damaged ({error.reason})", _DERIVE_AGAIN)
        return
    if not rows.schema.equals(table.schema):
        yield Finding(key, "has other columns than this version writes", _DERIVE_AGAIN)
        return
    read[name] = rows
    yield from (Finding(key, problem, _DERIVE_AGAIN) for problem in _find_disorder(rows, table))


def _find_disorder(rows: pa.Table, table: Table) -> Iterator[str]:
    if len(rows.group_by(list(table.key)).aggregate([])) != len(rows):
        yield f"has several rows for one {', '.join(table.key)}"
    keys = rows.select(list(table.sort_by))
    if not keys.equals(keys.sort_by([(name, "ascending") for name in table.sort_by])):
        yield f"is not in the order of {', '.join(table.sort_by)}"
    for field in table.schema:
        if not field.nullable and rows[field.name].null_count:
            yield f"has NULL in {field.name}, which is never NULL"


def _verify_one_row_per_call(lake: Lake, shown: list[tuple[date, pa.ChunkedArray]]) -> Iterator[Finding]:
    if not shown:
        return
    ids = pa.concat_arrays([chunk for _, column in shown for chunk in column.chunks] or [pa.array([], pa.int64())])
    counts = pc.value_counts(ids)
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if not len(repeated):
        return
    for day, column in shown:
        doubles = column.filter(pc.is_in(column, value_set=repeated))
        if len(doubles):
            yield Finding(
                lake.table_key("calls", day),
                f"shows {len(doubles)} calls that another day shows too, such as {doubles[0].as_py()}",
                _DERIVE_AGAIN,
            )
