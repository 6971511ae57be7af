"""Raw reads: how answers become segments, and segments versions. Pure functions of tables.

A day of raw is a SET of reads: (id, instant, content). Segments are only a representation of it: a row holds one
content and every instant at which it was read. Reading expands rows to reads, drops doubles, orders them and joins
runs of equal content. So merging segments, merging them twice, or stopping half-way never changes what is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from calls_assets.lake.schemas import CALL_EVENTS, CALL_RECORDS, INSTANT, VERSIONS


@dataclass(frozen=True, slots=True)
class Read:
    """One answer of the API.

    Attributes:
        call_id: The id asked for.
        fetched_at: When it was given (UTC).
        http_status: 200 or 404.
        started_at: The call's start (UTC); None for 404 and quarantined answers.
        is_ended: Whether the call was over; None as above.
        error: Why a 200 is quarantined.
        payload: The body; None for 404.
    """

    call_id: int
    fetched_at: datetime
    http_status: int
    started_at: datetime | None
    is_ended: bool | None
    error: str | None
    payload: bytes | None


def hash_content(http_status: int, payload: bytes | None) -> bytes:
    """Gives the 16 bytes that tell contents apart."""
    return hashlib.blake2b(payload or b"", digest_size=16, salt=str(http_status).encode()).digest()


def reads_to_rows(reads: Sequence[Read]) -> pa.Table:
    """Makes the rows of a segment of answers, by id."""
    ordered = sorted(reads, key=attrgetter("call_id", "fetched_at"))
    fetched_at = pa.array([read.fetched_at for read in ordered], INSTANT)
    return pa.table(
        {
            "call_id": [read.call_id for read in ordered],
            "fetched_at": fetched_at,
            "http_status": [read.http_status for read in ordered],
            "started_at": [read.started_at for read in ordered],
            "is_ended": [read.is_ended for read in ordered],
            "content_hash": [hash_content(read.http_status, read.payload) for read in ordered],
            "error": [read.error for read in ordered],
            "payload": [read.payload for read in ordered],
            "reads": pa.ListArray.from_arrays(np.arange(len(ordered) + 1, dtype=np.int32), fetched_at),
        },
        schema=CALL_RECORDS.schema,
    )


@dataclass(frozen=True, slots=True)
class _Reads:
    """The reads of a table of segment rows, without doubles, by (id, instant, content); arrays of equal length.

    Attributes:
        row: Index of the row that holds the content.
        call_id: The id.
        read_us: The instant.
        high: First half of the content's hash.
        low: Second half.
    """

    row: np.ndarray
    call_id: np.ndarray
    read_us: np.ndarray
    high: np.ndarray
    low: np.ndarray

    @classmethod
    def of_rows(cls, rows: pa.Table) -> _Reads:
        """Expands rows to reads."""
        lists = _combine(rows["reads"])
        row = pc.list_parent_indices(lists).to_numpy()
        read_us = pc.list_flatten(lists).cast(pa.int64()).to_numpy()
        call_id = rows["call_id"].to_numpy()[row]
        halves = _hash_halves(_combine(rows["content_hash"]))[row]
        # The newest row last among equal reads: what it says about a content (its start, its error) holds.
        age = rows["fetched_at"].cast(pa.int64()).to_numpy()[row]
        order = np.lexsort((age, halves[:, 1], halves[:, 0], read_us, call_id))
        reads = cls(row, call_id, read_us, halves[:, 0], halves[:, 1]).take(order)
        doubles = _repeats(reads.call_id, reads.read_us, reads.high, reads.low)
        return reads.take(np.flatnonzero(~np.append(doubles[1:], False)[: len(row)]))

    def take(self, order: np.ndarray) -> _Reads:
        """Selects and reorders."""
        return _Reads(self.row[order], self.call_id[order], self.read_us[order], self.high[order], self.low[order])


def _combine(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _hash_halves(hashes: pa.Array) -> np.ndarray:
    data = np.frombuffer(hashes.buffers()[1] or b"", dtype=">u8").astype(np.uint64)
    return data[2 * hashes.offset : 2 * (hashes.offset + len(hashes))].reshape(-1, 2)


def _repeats(*columns: np.ndarray) -> np.ndarray:
    """Marks the rows that equal the row before in all columns."""
    marks = np.zeros(len(columns[0]), dtype=bool)
    if len(marks):
        marks[1:] = True
        for column in columns:
            marks[1:] &= column[1:] == column[:-1]
    return marks


def _spans(*columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the runs of rows that agree in all columns: first and last index of each."""
    first = np.flatnonzero(~_repeats(*columns))
    return first, np.append(first[1:], len(columns[0]))[: len(first)] - 1


def rows_to_versions(rows: pa.Table) -> pa.Table:
    """Gives one row per run of equal answers about an id, by id and first read (schema `VERSIONS`)."""
    reads = _Reads.of_rows(rows)
    first, last = _spans(reads.call_id, reads.high, reads.low)
    chosen = rows.select(VERSIONS.names[:7]).take(pa.array(reads.row[last]))
    columns = dict(zip(chosen.column_names, chosen.columns, strict=True))
    columns["first_read_at"] = _instants(reads.read_us[first])
    columns["last_read_at"] = _instants(reads.read_us[last])
    columns["read_count"] = pa.array((last - first + 1).astype(np.int32))
    return pa.table(columns, schema=VERSIONS)


def rows_to_newest(rows: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gives, for each id in rising order: the row of its newest read, that read's instant, the number of reads."""
    reads = _Reads.of_rows(rows)
    first, last = _spans(reads.call_id)
    return reads.row[last], reads.read_us[last], (last - first + 1).astype(np.int32)


def merge_rows(rows: pa.Table) -> pa.Table:
    """Gives the same set of reads with each content of an id in one row, by id and newest read."""
    reads = _Reads.of_rows(rows)
    reads = reads.take(np.lexsort((reads.read_us, reads.low, reads.high, reads.call_id)))
    first, last = _spans(reads.call_id, reads.high, reads.low)
    merged = rows.take(pa.array(reads.row[last]))
    offsets = pa.array(np.append(first, len(reads.row)).astype(np.int32))
    replaced = {
        "fetched_at": _instants(reads.read_us[last]),
        "reads": pa.ListArray.from_arrays(offsets, _instants(reads.read_us)),
    }
    columns = {name: replaced.get(name, merged[name]) for name in CALL_RECORDS.schema.names}
    table = pa.table(columns, schema=CALL_RECORDS.schema)
    order = np.lexsort((reads.read_us[last], reads.call_id[last]))
    return table if np.array_equal(order, np.arange(len(order))) else table.take(pa.array(order))


def merge_events(events: pa.Table) -> pa.Table:
    """Gives the same set of deliveries, each once, by call and reception."""
    keys = list(CALL_EVENTS.key)
    merged = events.group_by(keys).aggregate([]).select(keys).sort_by([(name, "ascending") for name in keys])
    return merged.cast(CALL_EVENTS.schema).combine_chunks()


def _instants(microseconds: np.ndarray) -> pa.Array:
    return pa.array(microseconds, pa.int64()).cast(INSTANT)
