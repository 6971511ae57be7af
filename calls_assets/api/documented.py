"""The documented body, strictly: decoded in C for the many bodies that have no quirk.

It must never take a body that the contract refuses, nor read another value in it: it is the stricter one, and gives
None where in doubt. Its values are as they were written: not trimmed, 0 and "" not yet nothing.

What belongs here: the documented shape. What stays out: quirks, and what values mean (`contract`).
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

MAX_DEPTH = 64  # far above the documented 4, far below any recursion limit
YEAR_2100 = 4_102_444_800

# Up to 2^53 a number means the same as an integer and as a float; what is beyond is left to the contract.
_Id: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_ListedId: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
_Seconds: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Instant: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=YEAR_2100)]
_Start: TypeAlias = Annotated[int, msgspec.Meta(ge=1, lt=YEAR_2100)]
_Tag: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]


class Named(msgspec.Struct, gc=False):
    """A campaign, a ring group or an IVR."""

    id: _Id | None = None
    name: str | None = None


class Contact(msgspec.Struct, gc=False):
    """The other side of a call."""

    id: _Id | None = None
    full_name: str | None = None
    number: str | None = None
    national_number: str | None = None
    number_country_code: str | None = None
    list_ids: list[_ListedId] | None = None


class Number(msgspec.Struct, gc=False):
    """The account's number."""

    id: _Id | None = None
    number: str | None = None
    alias: str | None = None


class Disposition(msgspec.Struct, gc=False):
    """What the agent set."""

    id: _Id | None = None
    code: str | None = None
    note: str | None = None


class PlainLeg(msgspec.Struct, gc=False):
    """The fields of the contract's `Leg`, in its order."""

    id: _Id | None = None
    user_id: _Id | None = None
    alias: str | None = None
    sip: str | None = None
    started_at: _Instant | None = None
    type: str | None = None
    is_any_transfer: bool | None = None
    hangup_reason: str | None = None


class PlainExternalNumber(msgspec.Struct, gc=False):
    """A number outside the account."""

    number: str | None = None
    is_any_transfer: bool | None = None


class PlainRecording(msgspec.Struct, gc=False):
    """A recording."""

    id: _Id | None = None
    url: str | None = None


class Documented(msgspec.Struct, gc=False, kw_only=True):
    """The object `calls`."""

    id: _ListedId
    started_at: _Start
    is_inbound: bool | None = None
    is_answered: bool | None = None
    is_in_queue: bool | None = None
    type: str | None = None
    duration: _Seconds | None = None
    talk_time: _Seconds | None = None
    requested_callback: bool | None = None
    is_ended: bool | None = None
    is_answered_within_sla: bool | None = None
    is_data_cached: bool | None = None
    original_call_id: _Id | None = None
    contact: Contact | None = None
    number: Number | None = None
    campaign: Named | None = None
    ring_group: Named | None = None
    ivr: Named | None = None
    disposition: Disposition | None = None
    agents: list[_ListedId] | None = None
    all_agents: list[PlainLeg] | None = None
    answered_agents: list[PlainLeg] | None = None
    external_numbers: list[PlainExternalNumber] | None = None
    recordings: list[PlainRecording] | None = None
    tags: list[_Tag] | None = None


class _Envelope(msgspec.Struct, gc=False):
    calls: Documented


_DECODE = msgspec.json.Decoder(_Envelope).decode


def decode_documented(call_id: int, body: bytes) -> Documented | None:
    """Reads one body, unless it must be looked into.

    Args:
        call_id: The id that was asked for; the body must be about it.
        body: The bytes of a 200.
    """
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH:  # no more brackets than levels: not nested too deeply
        return None
    try:
        if not body.isascii():
            body.decode()  # what the decoder skips it does not check
        read = _DECODE(body).calls
    except (ValueError, RecursionError):  # every error of msgspec, and of UTF-8
        return None
    return read if read.id == call_id else None
