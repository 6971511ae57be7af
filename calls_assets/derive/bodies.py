"""Many bodies to columns: what `api.decode_call` says of each, in much less time.

Nearly all bodies are as documented. Those are decoded in C (`api.documented`) and normalised by column; any other body
goes through the contract. Both ways give the same values.

What belongs here: normalising by column. What stays out: quirks (`api.contract`) and versions (`day`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, compress
from typing import Any, TypeAlias

import msgspec
import numpy as np
from msgspec.structs import astuple

from calls_assets.api.contract import Call, Leg, decode_call
from calls_assets.api.documented import (
    MAX_DEPTH,
    Contact,
    Disposition,
    Documented,
    Named,
    Number,
    PlainExternalNumber,
    PlainLeg,
    PlainRecording,
    decode_documented,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NO_NAME = frozenset({"", "null", "null null"})

Row: TypeAlias = tuple[Any, ...]
"""What a body says: the values of `Documented`'s fields, in order. Legs may be the contract's."""

Columns: TypeAlias = dict[str, Any]
"""Columns by name: lists, tuples or arrays of numpy."""

_FIELDS = Documented.__struct_fields__
_AnyLeg: TypeAlias = PlainLeg | Leg
_LegKey: TypeAlias = tuple[int | None, int | datetime | None]


def read_body(call_id: int, body: bytes) -> Row:
    """Reads one body.

    Args:
        call_id: The id that was asked for; the body must be about it.
        body: The bytes of a 200.

    Raises:
        ContractError: The contract does not take the body.
    """
    read = decode_documented(call_id, body)
    return _to_row(decode_call(call_id, body)) if read is None else astuple(read)


def _to_row(call: Call) -> Row:
    """Gives what the contract made of a body in the form of one that is as documented."""
    return (
        call.id,
        call.started_at,
        call.is_inbound,
        call.is_answered,
        call.is_in_queue,
        call.type,
        call.duration_seconds,
        call.talk_time_seconds,
        call.requested_callback,
        call.is_ended,
        call.is_answered_within_sla,
        call.is_data_cached,
        call.original_call_id,
        Contact(
            call.contact_id,
            call.contact_full_name,
            call.contact_number,
            call.contact_national_number,
            call.contact_number_country_code,
            call.contact_list_ids,
        ),
        Number(call.number_id, call.number, call.number_alias),
        Named(call.campaign_id, call.campaign_name),
        Named(call.ring_group_id, call.ring_group_name),
        Named(call.ivr_id, call.ivr_name),
        Disposition(call.disposition_id, call.disposition_code, call.disposition_note),
        call.agent_ids,
        call.all_agents,
        call.answered_agents,
        [PlainExternalNumber(external.number, external.is_any_transfer) for external in call.external_numbers],
        [PlainRecording(recording.id, recording.url) for recording in call.recordings],
        call.tags,
    )


def make_columns(rows: Sequence[Row]) -> tuple[Columns, dict[str, Columns]]:
    """Turns what bodies say into columns, normalised as the contract has it.

    Args:
        rows: Of `read_body`, in the order of their calls.

    Returns:
        The columns of `calls` that a body decides (but `started_at` and `is_ended`, which the sweep has read), and
        those of the tables of its lists by name, in order of call and position.
    """
    by_field: dict[str, Sequence[Any]] = dict(
        zip(_FIELDS, zip(*rows, strict=True) if rows else ((),) * len(_FIELDS), strict=True)
    )
    call_ids = by_field["id"]
    disposition = _split(by_field["disposition"], Disposition(), ("disposition_id", "code", "note"))
    answered = by_field["answered_agents"]
    legs, leg_counts, answered_counts, transferred = _make_legs(call_ids, by_field["all_agents"], answered)
    recordings, recording_counts = _make_recordings(call_ids, by_field["recordings"])
    external_numbers = _make_external_numbers(call_ids, by_field["external_numbers"])
    transferred.update(compress(external_numbers["call_id"].tolist(), external_numbers["is_any_transfer"]))
    calls: Columns = {
        "call_id": call_ids,
        "is_inbound": by_field["is_inbound"],
        "is_answered": by_field["is_answered"],
        "is_in_queue": by_field["is_in_queue"],
        "type": _fill(by_field["type"]),
        "duration_seconds": by_field["duration"],
        "talk_time_seconds": by_field["talk_time"],
        "requested_callback": by_field["requested_callback"],
        "is_answered_within_sla": by_field["is_answered_within_sla"],
        "is_data_cached": by_field["is_data_cached"],
        "original_call_id": _fill(by_field["original_call_id"]),
        **_split(
            by_field["contact"],
            Contact(),
            (
                "contact_id",
                "contact_full_name",
                "contact_number",
                "contact_national_number",
                "contact_number_country_code",
                "contact_list_ids",
            ),
        ),
        **_split(by_field["number"], Number(), ("number_id", "number", "number_alias")),
        **_split(by_field["campaign"], Named(), ("campaign_id", "campaign_name")),
        **_split(by_field["ring_group"], Named(), ("ring_group_id", "ring_group_name")),
        **_split(by_field["ivr"], Named(), ("ivr_id", "ivr_name")),
        "disposition_id": disposition["disposition_id"],
        "disposition_code": disposition["code"],
        "agent_ids": by_field["agents"],
        "answered_agent_id": [(legs[0].id or None) if legs else None for legs in answered],
        "agent_leg_count": leg_counts,
        "answered_leg_count": answered_counts,
        "is_transferred": [call_id in transferred for call_id in call_ids],
        "recording_count": recording_counts,
        "tags": by_field["tags"],
    }
    children = {
        "call_agents": legs,
        "recordings": recordings,
        "dispositions": _keep_some({"call_id": call_ids, **disposition}),
        "call_tags": _flatten(call_ids, by_field["tags"], "tag"),
        "external_numbers": external_numbers,
    }
    return calls, children


class _Names(dict[str | None, str | None]):
    """Names as the contract has them, each looked at once."""

    def __missing__(self, given: str | None) -> str | None:
        name = None if given is None else given.strip()
        self[given] = name = None if name is None or name.lower() in _NO_NAME else name
        return name


def _fill(values: Iterable[Any]) -> list[Any]:
    """Makes None of the ids and texts that mean nothing: 0 and "" (not for flags and seconds)."""
    return [value or None for value in values]


def _name(values: Iterable[str | None]) -> list[str | None]:
    return list(map(_Names().__getitem__, values))


_NAMES = frozenset({"contact_full_name", "number_alias", "campaign_name", "ring_group_name", "ivr_name"})
_AS_THEY_ARE = frozenset({"contact_list_ids"})


def _values_of(objects: Sequence[Any], width: int) -> list[tuple[Any, ...]]:
    """Gives the values of each field of objects that have so many."""
    return list(zip(*map(astuple, objects), strict=True)) if objects else [()] * width


def _split(objects: Sequence[Any], nothing: msgspec.Struct, names: Sequence[str]) -> Columns:
    """Gives the columns of objects, normalised."""
    values = _values_of([item or nothing for item in objects], len(names))
    columns: Columns = {}
    for name, column in zip(names, values, strict=True):
        columns[name] = column if name in _AS_THEY_ARE else _name(column) if name in _NAMES else _fill(column)
    return columns


def _keep_some(columns: Columns) -> Columns:
    """Drops the rows that have only a call."""
    _, *said = columns.values()
    is_kept = [any(values) for values in zip(*said, strict=True)]
    return {name: list(compress(column, is_kept)) for name, column in columns.items()}


def _place(call_ids: Sequence[int], counts: Sequence[int], position: str) -> Columns:
    """Gives the call and the position of each item of lists of these lengths."""
    lengths = np.array(counts, dtype=np.int64)
    first = np.cumsum(lengths) - lengths
    return {
        "call_id": np.repeat(np.array(call_ids, dtype=np.int64), lengths),
        position: np.arange(lengths.sum()) - np.repeat(first, lengths),
    }


def _flatten(call_ids: Sequence[int], lists: Sequence[Sequence[object] | None], name: str) -> Columns:
    lengths = [len(items) if items else 0 for items in lists]
    return _place(call_ids, lengths, "position") | {name: list(chain.from_iterable(items or () for items in lists))}


def _make_recordings(
    call_ids: Sequence[int], lists: Sequence[list[PlainRecording] | None]
) -> tuple[Columns, list[int]]:
    kept = [[item for item in items if item.id or item.url] if items else () for items in lists]
    counts = list(map(len, kept))
    recording_id, url = _values_of(list(chain.from_iterable(kept)), 2)
    return _place(call_ids, counts, "position") | {"recording_id": _fill(recording_id), "url": _fill(url)}, counts


def _make_external_numbers(call_ids: Sequence[int], lists: Sequence[list[PlainExternalNumber] | None]) -> Columns:
    columns = _flatten(call_ids, lists, "external")
    number, is_any_transfer = _values_of(columns.pop("external"), 2)
    return columns | {"number": _fill(number), "is_any_transfer": is_any_transfer}


def _make_legs(
    call_ids: Sequence[int], rung: Sequence[list[_AnyLeg] | None], answered: Sequence[list[_AnyLeg] | None]
) -> tuple[Columns, list[int], list[int], set[int]]:
    """Gives the columns of `call_agents`, each call's legs and answered legs, and the calls with a transferred leg."""
    lists = [legs or () for legs in rung]
    answered_at: list[tuple[int, int]] = []
    surplus_at: list[tuple[int, int]] = []
    for place, entries in enumerate(answered):
        if entries:
            legs = lists[place]
            found, surplus = _match_legs(legs, entries)
            answered_at += [(place, leg) for leg in found]
            if surplus:
                surplus_at += [(place, len(legs) + index) for index in range(len(surplus))]
                lists[place] = [*legs, *surplus]
    counts = list(map(len, lists))
    columns = _place(call_ids, counts, "leg")
    first = np.cumsum([0, *counts])
    is_answered, is_surplus = np.zeros((2, first[-1]), dtype=bool)
    for marks, places in ((is_answered, answered_at), (is_answered, surplus_at), (is_surplus, surplus_at)):
        if places:
            of_call, of_leg = np.array(places).T
            marks[first[of_call] + of_leg] = True
    agent_id, user_id, alias, sip, started_at, kind, is_any_transfer, hangup_reason = _values_of(
        list(chain.from_iterable(lists)), len(PlainLeg.__struct_fields__)
    )
    columns |= {
        "agent_id": _fill(agent_id),
        "user_id": _fill(user_id),
        "alias": _name(alias),
        "sip": _fill(sip),
        "type": _fill(kind),
        "started_at": [_to_microseconds(at) if at else None for at in started_at],
        "is_answered": is_answered,
        "is_any_transfer": is_any_transfer,
        "hangup_reason": _fill(hangup_reason),
    }
    transferred = np.flatnonzero(np.array([bool(flag) for flag in is_any_transfer], dtype=bool) & ~is_surplus)
    # Each entry of `answered_agents` answers one leg or is one itself.
    answered_counts = [len(entries) if entries else 0 for entries in answered]
    return columns, counts, answered_counts, set(columns["call_id"][transferred].tolist())


def _match_legs(legs: Sequence[_AnyLeg], answered: Sequence[_AnyLeg]) -> tuple[list[int], list[_AnyLeg]]:
    """Gives the places of a call's legs that were answered, and the entries of `answered_agents` that are no such leg.

    The same agent can have several legs, even with the same start: each entry of `answered_agents` answers one leg of
    `all_agents` at most, the earliest that is left. Entries without such a leg are answered legs too: they come last.
    """
    if len(answered) == 1 and answered[0].id and answered[0].started_at:  # as in nearly all calls, and faster
        agent_id, started_at = answered[0].id, answered[0].started_at
        for place, leg in enumerate(legs):
            if leg.id == agent_id and leg.started_at == started_at:
                return [place], []
        return [], list(answered)
    # Plain dictionaries: a Counter costs a third of all that is done here for a call.
    unmatched: dict[_LegKey, int] = {}
    for leg in answered:
        key = _leg_key(leg)
        unmatched[key] = unmatched.get(key, 0) + 1
    matched: dict[_LegKey, int] = {}
    places = []
    for place, leg in enumerate(legs):
        key = _leg_key(leg)
        if unmatched.get(key, 0) > 0:
            unmatched[key] -= 1
            matched[key] = matched.get(key, 0) + 1
            places.append(place)
    surplus = []
    for leg in answered:
        key = _leg_key(leg)
        if matched.get(key):
            matched[key] -= 1
        else:
            surplus.append(leg)
    return places, surplus


def _leg_key(leg: _AnyLeg) -> _LegKey:
    return leg.id or None, leg.started_at or None


def _to_microseconds(at: int | datetime) -> int:
    return at * 1_000_000 if isinstance(at, int) else (at - _EPOCH) // _MICROSECOND


def read_members(body: bytes) -> dict[str, msgspec.Raw] | None:
    """Splits the call object inside a body into its members as they are written, to compare it with another one's.

    Returns:
        The members by key; None when they cannot be compared one by one.
    """
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH:
        return None
    try:
        if not body.isascii():
            body.decode()
        members = _DECODE_MEMBERS(body).calls
    except ValueError:
        return None
    # A dot would make of a key the path of another one's member.
    return None if any("." in key for key in members) else members


def keep_differing(old: Mapping[str, msgspec.Raw], new: Mapping[str, msgspec.Raw]) -> tuple[bytes, bytes]:
    """Makes bodies of what two calls have not written the same: the rest need not be compared."""
    differing = {key: value for key, value in new.items() if old.get(key) != value}
    gone = {key: value for key, value in old.items() if key in differing or key not in new}
    return _ENCODE({"calls": gone}), _ENCODE({"calls": differing})


class _Members(msgspec.Struct, gc=False):
    calls: dict[str, msgspec.Raw]


_DECODE_MEMBERS = msgspec.json.Decoder(_Members).decode
_ENCODE = msgspec.json.Encoder().encode
