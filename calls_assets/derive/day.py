"""One day's raw versions to one day's tables.

Of each call the newest valid version decides, and only in the day its start falls in. A body is decoded once, in chunks
of calls; what the versions' own columns tell (starts, days, how often and when read) is computed for all rows at once.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from operator import attrgetter, itemgetter
from typing import TypeAlias
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from calls_assets.api.contract import Call, Leg, decode_call, payload_fields
from calls_assets.api.errors import ContractError
from calls_assets.api.events import Event, decode_event
from calls_assets.lake.schemas import DAILY_TABLES, TABLES

_CALLS_PER_CHUNK = 5_000
_CALLS = TABLES["calls"].schema
_CHILDREN = {name: TABLES[name].schema for name in DAILY_TABLES if name != "calls"}
_FROM_EVENT = frozenset({"ended_at", "waiting_seconds", "is_abandoned"})
_EVENT_COLUMNS = ("call_id", "payload")
_MINUTE_US = 60_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_LegKey: TypeAlias = tuple[int | None, datetime | None]


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
        with _paused_collector():
            chunk = _decode_chunk(valid, is_here, slice(first, first + calls_per_chunk))
            batches["calls"].append(_make_calls(valid, chunk, newest_events, reread_after))
            for name, schema in _CHILDREN.items():
                by_column = zip(*chunk.children[name], strict=True)
                columns = dict(zip(schema.names, by_column, strict=True)) if chunk.children[name] else {}
                batches[name].append(_make_batch(columns, schema))
    tables = {name: pa.Table.from_batches(batches[name], TABLES[name].schema) for name in DAILY_TABLES}
    # The other tables are in order by construction: calls are taken by id, their children by position.
    tables["calls"] = tables["calls"].sort_by([(name, "ascending") for name in TABLES["calls"].sort_by])
    return tables


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
        is_answer = pc.and_(pc.equal(table["http_status"], 200), pc.is_null(table["error"]))
        table = table.filter(pc.and_(is_answer, pc.is_valid(table["started_at"])))
        # The hash decides between contents read in the same microsecond: any rule will do, but there must be one.
        keys = ("call_id", "first_read_at", "last_read_at", "content_hash")
        rows = _one_batch(table.sort_by([(name, "ascending") for name in keys]))
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
        bodies: list[bytes] = self.payload.take(pa.array(self.payload_row[first_row : last_row + 1])).to_pylist()
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


@contextmanager
def _paused_collector() -> Iterator[None]:
    """Keeps the cycle collector off: it would walk a chunk's many live objects again and again, and none is garbage."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Chunk:
    """What the bodies of some calls gave.

    Attributes:
        calls: The day's calls, decoded.
        first_rows: For each of them the first row among the valid versions.
        rows: For each of them the row that decides.
        children: The rows of the other tables, each in the order of the table's columns.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.first_rows: list[int] = []
        self.rows: list[int] = []
        self.children: dict[str, list[tuple[object, ...]]] = {name: [] for name in _CHILDREN}


def _decode_chunk(valid: _Valid, is_here: np.ndarray, calls: slice) -> _Chunk:
    """Decodes the calls at these places among all calls, and keeps those of the day."""
    chunk = _Chunk()
    first_rows, last_rows = valid.first_row[calls].tolist(), valid.last_row[calls].tolist()
    base = first_rows[0]
    bodies = valid.bodies(base, last_rows[-1])
    read_at = valid.rows["first_read_at"]
    for first_row, last_row, call_id in zip(
        first_rows, last_rows, valid.rows["call_id"].take(pa.array(first_rows)).to_pylist(), strict=True
    ):
        for row in range(last_row, first_row - 1, -1):
            # Calls of other days are decoded too: only a version that decodes can move a call to another day.
            try:
                call = decode_call(call_id, bodies[row - base])
            except ContractError:
                continue
            if is_here[row]:
                chunk.calls.append(call)
                chunk.first_rows.append(first_row)
                chunk.rows.append(row)
                _add_children(chunk, call)
                if row > first_row:
                    span = slice(first_row - base, row + 1 - base)
                    _add_changes(chunk, call_id, bodies[span], read_at[first_row : row + 1].to_pylist())
            break
    return chunk


def _add_children(chunk: _Chunk, call: Call) -> None:
    children = chunk.children
    for position, (leg, is_answered) in enumerate(_match_legs(call)):
        who = (leg.id, leg.user_id, leg.alias, leg.sip, leg.type, leg.started_at)
        children["call_agents"].append((call.id, position, *who, is_answered, leg.is_any_transfer, leg.hangup_reason))
    for position, recording in enumerate(call.recordings):
        children["recordings"].append((call.id, position, recording.id, recording.url))
    disposition = (call.disposition_id, call.disposition_code, call.disposition_note)
    if disposition != (None, None, None):
        children["dispositions"].append((call.id, *disposition))
    for position, tag in enumerate(call.tags or ()):
        children["call_tags"].append((call.id, position, tag))
    for position, external in enumerate(call.external_numbers):
        children["external_numbers"].append((call.id, position, external.number, external.is_any_transfer))


def _match_legs(call: Call) -> list[tuple[Leg, bool]]:
    """Gives a call's legs, each with whether it was answered.

    The same agent can have several legs, even with the same start: each entry of `answered_agents` answers one leg of
    `all_agents` at most, the earliest that is left. Entries without such a leg come last.
    """
    # Plain dictionaries: a Counter costs a third of all that is done here for a call.
    unmatched: dict[_LegKey, int] = {}
    for leg in call.answered_agents:
        key = _leg_key(leg)
        unmatched[key] = unmatched.get(key, 0) + 1
    matched: dict[_LegKey, int] = {}
    legs: list[tuple[Leg, bool]] = []
    for leg in call.all_agents:
        key = _leg_key(leg)
        is_answered = unmatched.get(key, 0) > 0
        if is_answered:
            unmatched[key] -= 1
            matched[key] = matched.get(key, 0) + 1
        legs.append((leg, is_answered))
    for leg in call.answered_agents:
        key = _leg_key(leg)
        if matched.get(key):
            matched[key] -= 1
        else:
            legs.append((leg, True))
    return legs


def _leg_key(leg: Leg) -> _LegKey:
    return leg.id, leg.started_at


def _add_changes(chunk: _Chunk, call_id: int, bodies: Sequence[bytes], read_at: Sequence[datetime]) -> None:
    """Adds what changed from each of a call's versions to the next."""
    old: dict[str, str] | None = None
    for body, changed_at in zip(bodies, read_at, strict=True):
        try:
            new = payload_fields(body)
        except ContractError:
            continue
        if old is not None:
            for field in sorted(old.keys() | new.keys()):
                old_value, new_value = old.get(field), new.get(field)
                if old_value != new_value:
                    chunk.children["call_changes"].append((call_id, field, old_value, new_value, changed_at))
        old = new


def _make_batch(columns: Mapping[str, Sequence[object] | pa.Array], schema: pa.Schema) -> pa.RecordBatch:
    arrays = [pa.array(columns.get(field.name, ()), field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _is_transferred(call: Call) -> bool:
    return any(leg.is_any_transfer for leg in call.all_agents) or any(
        external.is_any_transfer for external in call.external_numbers
    )


_COMPUTED: dict[str, Callable[[Call], object]] = {
    "answered_agent_id": lambda call: call.answered_agents[0].id if call.answered_agents else None,
    "is_transferred": _is_transferred,
    "recording_count": lambda call: len(call.recordings),
}


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
    valid: _Valid, chunk: _Chunk, events: Mapping[int, Event], reread_after: tuple[timedelta, ...]
) -> pa.RecordBatch:
    """Makes the rows of `calls`: what the bodies say, and how they were read."""
    row, first_row = np.array(chunk.rows, dtype=np.int64), np.array(chunk.first_rows, dtype=np.int64)
    decisive, first = valid.rows.take(pa.array(row)), valid.rows.take(pa.array(first_row))
    reads = valid.reads_before[row] - valid.reads_before[first_row] + decisive["read_count"].to_numpy()
    is_final = pc.fill_null(decisive["is_ended"], False)
    if reread_after:
        final_from = pc.add(decisive["started_at"], pa.scalar(reread_after[-1], pa.duration("us")))
        is_final = pc.and_(is_final, pc.greater_equal(decisive["last_read_at"], final_from))
    legs = chunk.children["call_agents"]
    call_id, is_answered = itemgetter(0), itemgetter(_CHILDREN["call_agents"].get_field_index("is_answered"))
    leg_count = Counter(map(call_id, legs))
    answered_leg_count = Counter(map(call_id, filter(is_answered, legs)))
    columns: dict[str, Sequence[object] | pa.Array] = {
        "call_id": decisive["call_id"],
        # Start and end as the sweep sees them, so that it and the tables agree on the day and on what is final.
        "started_at": decisive["started_at"],
        "started_at_local": pa.array(valid.local_us[row], pa.timestamp("us")),
        "is_ended": decisive["is_ended"],
        "agent_leg_count": [leg_count[call.id] for call in chunk.calls],
        "answered_leg_count": [answered_leg_count[call.id] for call in chunk.calls],
        "read_count": reads,
        "first_read_at": first["first_read_at"],
        "last_read_at": decisive["last_read_at"],
        "last_changed_at": decisive["first_read_at"],
        "is_final": is_final,
        **{name: [compute(call) for call in chunk.calls] for name, compute in _COMPUTED.items()},
    }
    for name in _CALLS.names:
        if name in _FROM_EVENT:
            columns[name] = [getattr(events.get(call.id), name, None) for call in chunk.calls]
        elif name not in columns:
            columns[name] = list(map(attrgetter(name), chunk.calls))
    return _make_batch(columns, _CALLS)
