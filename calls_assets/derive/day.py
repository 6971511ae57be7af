"""One day's raw versions to one day's tables.

Of each call the newest valid version decides, and only in the day its start falls in. A body is decoded once, in chunks
of calls; what the versions' own columns tell (starts, days, how often and when read) is computed for all rows at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from calls_assets.api.contract import payload_fields
from calls_assets.api.errors import ContractError
from calls_assets.api.events import Event, decode_event
from calls_assets.collector import hold_collector
from calls_assets.derive.bodies import Columns, Row, keep_differing, make_columns, read_body, read_members
from calls_assets.lake.schemas import DAILY_TABLES, TABLES

_CALLS_PER_CHUNK = 500
"""What is made of so many calls stays in the cache of a processor core; ten times as many take a quarter longer."""
_CALLS = TABLES["calls"].schema
_CHILDREN = {name: TABLES[name].schema for name in DAILY_TABLES if name != "calls"}
_FROM_EVENT = frozenset({"ended_at", "waiting_seconds", "is_abandoned"})
_EVENT_COLUMNS = ("call_id", "payload")
_MINUTE_US = 60_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def derive_day(
    versions: pa.Table,
    day: date,
    *,
    timezone: ZoneInfo,
    reread_after: tuple[timedelta, ...],
    events: pa.Table | None = None,
    calls_per_chunk: int = _CALLS_PER_CHUNK,
) -> dict[str, pa.Table]:
    """Derives every daily table of a day.

    A 404 or a quarantined answer never removes what an earlier valid answer gave. A stored body that the contract no
    longer takes counts as quarantined: the next older valid version decides instead, or else the call is left out.

    Args:
        versions: One row per run of equal answers about an id (schema `VERSIONS`), in any order.
        day: The local day.
        timezone: Decides which calls are the day's, and what their wall clock showed.
        reread_after: Ages after the start at which a call is read again, rising; past the last an ended call is final.
        events: Deliveries of the webhook (schema `CALL_EVENTS`), in any order; of each call the newest decides.
        calls_per_chunk: Calls decoded at a time: bounds the Python objects alive, no influence on the result.

    Returns:
        Each name of `DAILY_TABLES` with its table: the registry's schema and order of rows.
    """
    valid = _Valid.of_versions(versions, timezone)
    newest_events = _decode_events(events)
    is_here = valid.local_day == np.datetime64(day, "D")
    batches: dict[str, list[pa.RecordBatch]] = {name: [] for name in DAILY_TABLES}
    for first in range(0, len(valid.first_row), calls_per_chunk):
        with hold_collector():
            chunk = slice(first, first + calls_per_chunk)
            for name, batch in _make_batches(valid, is_here, chunk, newest_events, reread_after).items():
                batches[name].append(batch)
    tables = {name: pa.Table.from_batches(batches[name], TABLES[name].schema) for name in DAILY_TABLES}
    # The others are in order by construction: calls are taken by id, their children by position.
    for name in ("calls", "call_changes"):
        tables[name] = tables[name].sort_by([(column, "ascending") for column in TABLES[name].sort_by])
    return tables


def _select_valid(versions: pa.Table) -> pa.Table:
    """Selects the valid versions, by call and time of reading."""
    is_answer = pc.and_(pc.equal(versions["http_status"], 200), pc.is_null(versions["error"]))
    valid = versions.filter(pc.and_(is_answer, pc.is_valid(versions["started_at"])))
    # The hash decides between contents read in the same microsecond: any rule will do, but there must be one.
    keys = ("call_id", "first_read_at", "last_read_at", "content_hash")
    return valid.sort_by([(name, "ascending") for name in keys])


@dataclass(frozen=True, slots=True)
class _Valid:
    """The valid versions by call and time of reading. Arrays have one entry per row, the last two one per call.

    Attributes:
        rows: The versions but for their bodies.
        payload: The bodies of all versions, valid or not.
        payload_row: Where in `payload` a row's body is.
        local_us: The start's wall clock, as microseconds since 1970-01-01T00:00 on that clock.
        local_day: The start's local day.
        reads_before: Reads of all rows before this one.
        first_row: The call's first row.
        last_row: The call's last row.
    """

    rows: pa.RecordBatch
    payload: pa.Array
    payload_row: np.ndarray
    local_us: np.ndarray
    local_day: np.ndarray
    reads_before: np.ndarray
    first_row: np.ndarray
    last_row: np.ndarray

    @classmethod
    def of_versions(cls, versions: pa.Table, timezone: ZoneInfo) -> _Valid:
        """Selects, orders and groups the valid versions."""
        table = versions.drop_columns(["payload"]).append_column("payload_row", pa.array(np.arange(len(versions))))
        rows = _one_batch(_select_valid(table))
        call_id = rows["call_id"].to_numpy()
        first_row = np.flatnonzero(np.append(True, call_id[1:] != call_id[:-1])[: len(call_id)])
        local_us = _to_wall_clock(rows["started_at"].cast(pa.int64()).to_numpy(), timezone)
        return cls(
            rows=rows,
            payload=_one_batch(versions.select(["payload"]))["payload"],
            payload_row=rows["payload_row"].to_numpy(),
            local_us=local_us,
            local_day=local_us.astype("datetime64[us]").astype("datetime64[D]"),
            reads_before=np.append(0, np.cumsum(rows["read_count"].to_numpy(), dtype=np.int64))[:-1],
            first_row=first_row,
            last_row=np.append(first_row[1:], len(call_id))[: len(first_row)] - 1,
        )

    def bodies(self, first_row: int, last_row: int) -> list[bytes]:
        """Gives the bodies of adjacent rows, both ends included."""
        taken = self.payload.take(pa.array(self.payload_row[first_row : last_row + 1]))
        bodies: list[bytes] = taken.to_numpy(zero_copy_only=False).tolist()
        return bodies


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    columns = [pa.concat_arrays(column.chunks) if column.num_chunks else column.combine_chunks() for column in table]
    return pa.RecordBatch.from_arrays(columns, schema=table.schema)


def _to_wall_clock(instants_us: np.ndarray, timezone: ZoneInfo) -> np.ndarray:
    """Moves UTC microseconds to the local wall clock.

    By `zoneinfo`, as everything else that asks for a local day, and not by Arrow, which knows only the system's zones.
    Offsets are looked up once per minute that occurs: since 1972 every zone has changed its clock at a full minute.
    """
    minutes, minute_of = np.unique(instants_us // _MINUTE_US, return_inverse=True)
    local = [(_EPOCH + timedelta(minutes=minute)).astimezone(timezone) for minute in minutes.tolist()]
    offsets = [(time.utcoffset() or timedelta()) // timedelta(microseconds=1) for time in local]
    return instants_us + np.array(offsets, dtype=np.int64)[minute_of]


class _Chunk:
    """What the bodies of some calls gave.

    Attributes:
        bodies: What the day's calls say.
        first_rows: For each of them the first row among the valid versions.
        rows: For each of them the row that decides.
        changes: The rows of `call_changes`, in the order of its columns.
    """

    def __init__(self) -> None:
        self.bodies: list[Row] = []
        self.first_rows: list[int] = []
        self.rows: list[int] = []
        self.changes: list[tuple[object, ...]] = []


def _make_batches(
    valid: _Valid,
    is_here: np.ndarray,
    calls: slice,
    events: Mapping[int, Event],
    reread_after: tuple[timedelta, ...],
) -> dict[str, pa.RecordBatch]:
    """Makes the rows of all tables of the calls at these places among all calls."""
    chunk = _decode_chunk(valid, is_here, calls)
    of_calls, of_children = make_columns(chunk.bodies)
    by_column = zip(*chunk.changes, strict=True) if chunk.changes else ()
    of_children["call_changes"] = dict(zip(_CHILDREN["call_changes"].names, by_column, strict=bool(chunk.changes)))
    batches = {name: _make_batch(of_children[name], schema) for name, schema in _CHILDREN.items()}
    batches["calls"] = _make_calls(valid, chunk, of_calls, events, reread_after)
    return batches


def _decode_chunk(valid: _Valid, is_here: np.ndarray, calls: slice) -> _Chunk:
    """Decodes the calls at these places among all calls, and keeps those of the day."""
    chunk = _Chunk()
    first_rows, last_rows = valid.first_row[calls].tolist(), valid.last_row[calls].tolist()
    base = first_rows[0]
    bodies = valid.bodies(base, last_rows[-1])
    of_day = is_here[base : last_rows[-1] + 1].tolist()
    read_at = valid.rows["first_read_at"]
    for first_row, last_row, call_id in zip(
        first_rows, last_rows, valid.rows["call_id"].to_numpy()[valid.first_row[calls]].tolist(), strict=True
    ):
        for row in range(last_row, first_row - 1, -1):
            # Calls of other days are decoded too: only a version that decodes can move a call to another day.
            try:
                body = read_body(call_id, bodies[row - base])
            except ContractError:
                continue
            if of_day[row - base]:
                chunk.bodies.append(body)
                chunk.first_rows.append(first_row)
                chunk.rows.append(row)
                if row > first_row:
                    span = slice(first_row - base, row + 1 - base)
                    _add_changes(chunk, call_id, bodies[span], read_at[first_row : row + 1].to_pylist())
            break
    return chunk


def _add_changes(chunk: _Chunk, call_id: int, bodies: Sequence[bytes], read_at: Sequence[datetime]) -> None:
    """Adds what changed from each of a call's versions to the next."""
    old_body: bytes | None = None
    old_members: dict[str, msgspec.Raw] | None = None
    for body, changed_at in zip(bodies, read_at, strict=True):
        members = read_members(body)
        try:
            if old_body is None:
                if members is None:
                    payload_fields(body)  # does the contract take it?
            else:
                pair = (
                    (old_body, body) if members is None or old_members is None else keep_differing(old_members, members)
                )
                old, new = map(payload_fields, pair)
                for field in sorted(old.keys() | new.keys()):
                    if old.get(field) != new.get(field):
                        chunk.changes.append((call_id, field, old.get(field), new.get(field), changed_at))
        except ContractError:
            continue
        old_body, old_members = body, members


def _make_batch(columns: Mapping[str, Sequence[object] | np.ndarray | pa.Array], schema: pa.Schema) -> pa.RecordBatch:
    arrays = [pa.array(columns.get(field.name, ()), field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _decode_events(events: pa.Table | None) -> dict[int, Event]:
    """Gives the newest delivery of each call, among those that the contract takes."""
    newest: dict[int, Event] = {}
    if events is not None:
        order = [("call_id", "ascending"), ("received_at", "ascending"), ("payload", "ascending")]
        for call_id, payload in zip(*(events.sort_by(order)[name].to_pylist() for name in _EVENT_COLUMNS), strict=True):
            with suppress(ContractError):
                newest[call_id] = decode_event(payload)
    return newest


def _make_calls(
    valid: _Valid,
    chunk: _Chunk,
    of_bodies: Columns,
    events: Mapping[int, Event],
    reread_after: tuple[timedelta, ...],
) -> pa.RecordBatch:
    """Makes the rows of `calls`: what the bodies say, and how they were read."""
    row, first_row = np.array(chunk.rows, dtype=np.int64), np.array(chunk.first_rows, dtype=np.int64)
    decisive, first = valid.rows.take(pa.array(row)), valid.rows.take(pa.array(first_row))
    reads = valid.reads_before[row] - valid.reads_before[first_row] + decisive["read_count"].to_numpy()
    is_final = pc.fill_null(decisive["is_ended"], False)
    if reread_after:
        final_from = pc.add(decisive["started_at"], pa.scalar(reread_after[-1], pa.duration("us")))
        is_final = pc.and_(is_final, pc.greater_equal(decisive["last_read_at"], final_from))
    of_calls = [events.get(call_id) for call_id in of_bodies["call_id"]] if events else None
    columns: dict[str, Sequence[object] | np.ndarray | pa.Array] = {
        **of_bodies,
        # Start and end as the sweep sees them, so that it and the tables agree on the day and on what is final.
        "started_at": decisive["started_at"],
        "started_at_local": pa.array(valid.local_us[row], pa.timestamp("us")),
        "is_ended": decisive["is_ended"],
        "read_count": reads,
        "first_read_at": first["first_read_at"],
        "last_read_at": decisive["last_read_at"],
        "last_changed_at": decisive["first_read_at"],
        "is_final": is_final,
    }
    for name in _FROM_EVENT:
        columns[name] = (
            pa.nulls(len(row), _CALLS.field(name).type)
            if of_calls is None
            else [getattr(event, name, None) for event in of_calls]
        )
    return _make_batch(columns, _CALLS)
