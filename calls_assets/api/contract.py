"""The contract with the vendor: a body's bytes in, one typed and normalised `Call` out.

What belongs here: every known quirk of the payload, and the decision what is a quirk and what breaks the contract.
What stays out: HTTP, storage, and anything computed from more than one field.

Quirks that are accepted: "nothing" as null, a missing key, "", [], {} or 0 wherever an object, a list or an id is
documented; ids as text; phone numbers as JSON numbers; flags as 0/1 or text; instants as whole, fractional or textual
epoch seconds; recordings as bare URLs; names with stray blanks or the text "null null"; unknown keys and values.
Of a repeated key the last one counts. Anything else is a `ContractError` that names the field and quotes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import msgspec

from calls_assets.api.documented import MAX_DEPTH, YEAR_2100, decode_documented
from calls_assets.api.errors import ContractError

_HIGHEST_INT64 = 2**63 - 1
_LOWEST_INT64 = -(2**63)
_EXACT_FLOATS = 2**53  # beyond it a JSON number read as a float has lost digits
_INTEGER_TEXT = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_SECONDS_TEXT = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?", re.ASCII)
_FLAG_WORDS = {"true": True, "1": True, "false": False, "0": False, "": None}
_NO_NAME = frozenset({"", "null", "null null"})
_ERROR_PATH = re.compile(r" - at `\$\.calls(?:\[[^\]]*\])?\.([^`]+)`")
_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[{]|([\]}])', re.DOTALL)
_ITEM = TypeVar("_ITEM")


class Leg(msgspec.Struct, frozen=True, gc=False):
    """One agent's part of a call: an entry of `all_agents` or `answered_agents`.

    Attributes:
        id: The agent.
        user_id: The agent's login, a second id space.
        alias: Display name, trimmed.
        sip: SIP address.
        started_at: When the leg began (UTC).
        type: The vendor's kind of leg.
        is_any_transfer: Whether the leg came from a transfer.
        hangup_reason: The vendor's reason.
    """

    id: int | None = None
    user_id: int | None = None
    alias: str | None = None
    sip: str | None = None
    started_at: datetime | None = None
    type: str | None = None
    is_any_transfer: bool | None = None
    hangup_reason: str | None = None


class ExternalNumber(msgspec.Struct, frozen=True, gc=False):
    """A number outside the contact centre that took part in a call.

    Attributes:
        number: Its digits as the vendor wrote them.
        is_any_transfer: Whether it was reached by a transfer.
    """

    number: str | None = None
    is_any_transfer: bool | None = None


class Recording(msgspec.Struct, frozen=True, gc=False):
    """One recording of a call. The URL is a secret: some need no login.

    Attributes:
        id: The vendor's id.
        url: Where it lies, with or without a scheme.
    """

    id: int | None = None
    url: str | None = None


class Call(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One call as the vendor describes it, normalised; None means "the vendor did not say".

    Attributes:
        id: The call.
        started_at: Its start (UTC).
        is_inbound: Whether the contact called the centre.
        is_answered: Whether anybody answered.
        is_in_queue: Whether it waits in a queue.
        is_ended: Whether it is over.
        type: The vendor's status of the call.
        duration_seconds: The vendor's `duration`.
        talk_time_seconds: The vendor's `talk_time`.
        requested_callback: Whether the contact asked to be called back.
        is_answered_within_sla: Whether it was answered within the account's service level.
        is_data_cached: The vendor's own caching flag.
        original_call_id: The call this one continues.
        contact_id: The contact.
        contact_full_name: The contact's name, trimmed.
        contact_number: The contact's number, digits as given.
        contact_national_number: The same without country code.
        contact_number_country_code: The country code.
        contact_list_ids: The lists the contact is on.
        number_id: The centre's number.
        number: Its digits.
        number_alias: Its name, trimmed.
        campaign_id: The campaign.
        campaign_name: Its name, trimmed.
        ring_group_id: The ring group.
        ring_group_name: Its name, trimmed.
        ivr_id: The menu.
        ivr_name: Its name, trimmed.
        disposition_id: The disposition.
        disposition_code: Its code, free text.
        disposition_note: The agent's note.
        agent_ids: The agents, in the vendor's order.
        all_agents: Every leg.
        answered_agents: The legs that answered.
        external_numbers: Outside numbers.
        recordings: Recordings.
        tags: Tags.
    """

    id: int
    started_at: datetime
    is_inbound: bool | None = None
    is_answered: bool | None = None
    is_in_queue: bool | None = None
    is_ended: bool | None = None
    type: str | None = None
    duration_seconds: int | None = None
    talk_time_seconds: int | None = None
    requested_callback: bool | None = None
    is_answered_within_sla: bool | None = None
    is_data_cached: bool | None = None
    original_call_id: int | None = None
    contact_id: int | None = None
    contact_full_name: str | None = None
    contact_number: str | None = None
    contact_national_number: str | None = None
    contact_number_country_code: str | None = None
    contact_list_ids: list[int] | None = None
    number_id: int | None = None
    number: str | None = None
    number_alias: str | None = None
    campaign_id: int | None = None
    campaign_name: str | None = None
    ring_group_id: int | None = None
    ring_group_name: str | None = None
    ivr_id: int | None = None
    ivr_name: str | None = None
    disposition_id: int | None = None
    disposition_code: str | None = None
    disposition_note: str | None = None
    agent_ids: list[int] | None = None
    all_agents: list[Leg] = []
    answered_agents: list[Leg] = []
    external_numbers: list[ExternalNumber] = []
    recordings: list[Recording] = []
    tags: list[str] | None = None


class Glance(NamedTuple):
    """What a sweep needs to know of a call.

    Attributes:
        started_at: Its start (UTC).
        is_ended: Whether it is over.
    """

    started_at: datetime
    is_ended: bool | None


def glance_at(call_id: int, body: bytes) -> Glance:
    """Judges one body as `decode_call` does, at a fraction of the cost where it has none of the vendor's quirks.

    Args:
        call_id: The id that was asked for.
        body: The bytes of a 200.

    Raises:
        ContractError: `decode_call` raises it.
    """
    documented = decode_documented(call_id, body)
    if documented is not None:
        return Glance(datetime.fromtimestamp(documented.started_at, UTC), documented.is_ended)
    call = decode_call(call_id, body)
    return Glance(call.started_at, call.is_ended)


def decode_call(call_id: int, body: bytes) -> Call:
    """Reads one body.

    Args:
        call_id: The id that was asked for; the body must be about it.
        body: The bytes of a 200.

    Raises:
        ContractError: The body is not JSON, not about that call, cannot be dated, or has a documented field of a
            wrong type; whatever the bytes are, nothing else is raised.
    """
    wire = _unwrap(_decode(body, _ENVELOPE))
    if _read_id(wire.id, "id") != call_id:
        raise ContractError("id is not the requested one")
    started_at = _read_instant(wire.started_at, "started_at")
    if started_at is None:
        raise ContractError("started_at is missing")
    contact = _read_object(wire.contact, _NO_CONTACT, "contact")
    number = _read_object(wire.number, _NO_NUMBER, "number")
    campaign = _read_object(wire.campaign, _NO_NAMED, "campaign")
    ring_group = _read_object(wire.ring_group, _NO_NAMED, "ring_group")
    ivr = _read_object(wire.ivr, _NO_NAMED, "ivr")
    disposition = _read_object(wire.disposition, _NO_DISPOSITION, "disposition")
    return Call(
        id=call_id,
        started_at=started_at,
        is_inbound=_read_flag(wire.is_inbound, "is_inbound"),
        is_answered=_read_flag(wire.is_answered, "is_answered"),
        is_in_queue=_read_flag(wire.is_in_queue, "is_in_queue"),
        is_ended=_read_flag(wire.is_ended, "is_ended"),
        type=_read_text(wire.type, "type"),
        duration_seconds=_read_seconds(wire.duration, "duration"),
        talk_time_seconds=_read_seconds(wire.talk_time, "talk_time"),
        requested_callback=_read_flag(wire.requested_callback, "requested_callback"),
        is_answered_within_sla=_read_flag(wire.is_answered_within_sla, "is_answered_within_sla"),
        is_data_cached=_read_flag(wire.is_data_cached, "is_data_cached"),
        original_call_id=_read_id(wire.original_call_id, "original_call_id"),
        contact_id=_read_id(contact.id, "contact.id"),
        contact_full_name=_read_name(contact.full_name, "contact.full_name"),
        contact_number=_read_phone(contact.number, "contact.number"),
        contact_national_number=_read_phone(contact.national_number, "contact.national_number"),
        contact_number_country_code=_read_phone(contact.number_country_code, "contact.number_country_code"),
        contact_list_ids=_read_ids(contact.list_ids, "contact.list_ids"),
        number_id=_read_id(number.id, "number.id"),
        number=_read_phone(number.number, "number.number"),
        number_alias=_read_name(number.alias, "number.alias"),
        campaign_id=_read_id(campaign.id, "campaign.id"),
        campaign_name=_read_name(campaign.name, "campaign.name"),
        ring_group_id=_read_id(ring_group.id, "ring_group.id"),
        ring_group_name=_read_name(ring_group.name, "ring_group.name"),
        ivr_id=_read_id(ivr.id, "ivr.id"),
        ivr_name=_read_name(ivr.name, "ivr.name"),
        disposition_id=_read_id(disposition.id, "disposition.id"),
        disposition_code=_read_text(disposition.code, "disposition.code"),
        disposition_note=_read_text(disposition.note, "disposition.note"),
        agent_ids=_read_ids(wire.agents, "agents"),
        all_agents=_read_list(wire.all_agents, _read_leg, "all_agents"),
        answered_agents=_read_list(wire.answered_agents, _read_leg, "answered_agents"),
        external_numbers=_read_list(wire.external_numbers, _read_external_number, "external_numbers"),
        recordings=_read_list(wire.recordings, _read_recording, "recordings"),
        tags=_read_tags(wire.tags),
    )


def payload_fields(body: bytes) -> dict[str, str]:
    """Flattens the call object inside a body, for comparing two reads of a call field by field.

    Objects are descended into, lists are kept whole. Values are JSON text with the keys of objects sorted, so that
    equal values have equal texts.

    Args:
        body: A body that `decode_call` accepts.

    Returns:
        Dotted path → JSON text, for example `{"contact.id": "4321", "tags": '["vip"]'}`.

    Raises:
        ContractError: The body is not one `decode_call` would accept.
    """
    fields: dict[str, str] = {}
    _flatten(_unwrap(_decode(body, _RAW_ENVELOPE)), "", fields)
    return fields


class _Named(msgspec.Struct, gc=False):
    id: Any = None
    name: Any = None


class _Contact(msgspec.Struct, gc=False):
    id: Any = None
    full_name: Any = None
    number: Any = None
    national_number: Any = None
    number_country_code: Any = None
    list_ids: Any = None


class _Number(msgspec.Struct, gc=False):
    id: Any = None
    number: Any = None
    alias: Any = None


class _Disposition(msgspec.Struct, gc=False):
    id: Any = None
    code: Any = None
    note: Any = None


class _Leg(msgspec.Struct, gc=False):
    id: Any = None
    user_id: Any = None
    alias: Any = None
    sip: Any = None
    started_at: Any = None
    type: Any = None
    is_any_transfer: Any = None
    hangup_reason: Any = None


class _ExternalNumber(msgspec.Struct, gc=False):
    number: Any = None
    is_any_transfer: Any = None


class _Recording(msgspec.Struct, gc=False):
    id: Any = None
    url: Any = None


# What may stand where an object or a list is documented; which of these values mean "nothing" is decided in Python.
_Blank = str | int | None
_BlankList = dict[str, Any] | str | int | None


class _Wire(msgspec.Struct, gc=False):
    """The call object as it comes: C decodes the shape, the `_read_…` functions judge the values."""

    id: Any = None
    started_at: Any = None
    is_inbound: Any = None
    is_answered: Any = None
    is_in_queue: Any = None
    is_ended: Any = None
    type: Any = None
    duration: Any = None
    talk_time: Any = None
    requested_callback: Any = None
    is_answered_within_sla: Any = None
    is_data_cached: Any = None
    original_call_id: Any = None
    contact: _Contact | list[Any] | _Blank = None
    number: _Number | list[Any] | _Blank = None
    campaign: _Named | list[Any] | _Blank = None
    ring_group: _Named | list[Any] | _Blank = None
    ivr: _Named | list[Any] | _Blank = None
    disposition: _Disposition | list[Any] | _Blank = None
    agents: Any = None
    all_agents: list[_Leg | _Blank] | _BlankList = None
    answered_agents: list[_Leg | _Blank] | _BlankList = None
    external_numbers: list[_ExternalNumber | _Blank] | _BlankList = None
    recordings: list[_Recording | _Blank] | _BlankList = None
    tags: Any = None


class _Envelope(msgspec.Struct, gc=False):
    calls: _Wire | list[_Wire]


class _RawEnvelope(msgspec.Struct, gc=False):
    calls: dict[str, msgspec.Raw] | list[dict[str, msgspec.Raw]]


_NO_CONTACT = _Contact()
_NO_NUMBER = _Number()
_NO_NAMED = _Named()
_NO_DISPOSITION = _Disposition()
_ENVELOPE = msgspec.json.Decoder(_Envelope)
_RAW_ENVELOPE = msgspec.json.Decoder(_RawEnvelope)
_RAW_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_VALUE = msgspec.json.Decoder()
_ENCODER = msgspec.json.Encoder(order="sorted")


def _decode(body: bytes, decoder: msgspec.json.Decoder[_ITEM]) -> _ITEM:
    try:
        if not body.isascii():
            body.decode()  # keys and values that are skipped are not checked by the decoder
        envelope = decoder.decode(body)
    except msgspec.ValidationError as error:
        reason = _describe(error)
    except UnicodeDecodeError:
        reason = "not UTF-8"
    except RecursionError:
        reason = "nested too deeply"
    except ValueError:
        reason = "not JSON"
    else:
        if body.count(b"{") + body.count(b"[") <= MAX_DEPTH or _is_shallow(body):
            return envelope
        reason = "nested too deeply"
    raise ContractError(reason)  # outside the handlers: the decoder's error stays out of the traceback


def _describe(error: msgspec.ValidationError) -> str:
    """Names the field of a shape error; msgspec shows types and documented names only, never values."""
    path = _ERROR_PATH.search(str(error))
    return f"{path[1]} has a wrong type or size" if path else "not one call in an envelope"


def _is_shallow(body: bytes) -> bool:
    depth = 0
    for match in _BRACKETS.finditer(body):
        if match[1]:
            depth -= 1
        elif match[0][0] != ord('"'):
            depth += 1
            if depth > MAX_DEPTH:
                return False
    return True


def _unwrap(envelope: Any) -> Any:  # noqa: ANN401 - one of the two envelopes, with the type of its own content
    calls = envelope.calls
    if type(calls) is list:
        if len(calls) != 1:
            raise ContractError("the envelope does not hold exactly one call")
        return calls[0]
    return calls


def _flatten(members: dict[str, msgspec.Raw], prefix: str, fields: dict[str, str]) -> None:
    for key, raw in members.items():
        path = prefix + key
        data = bytes(raw).strip()
        if data.startswith(b"{") and (inner := _RAW_OBJECT.decode(data)):
            _flatten(inner, path + ".", fields)
        else:
            fields[path] = _canonical(data)


def _canonical(data: bytes) -> str:
    try:
        return _ENCODER.encode(_VALUE.decode(data)).decode()
    except ValueError:  # a number no Python type holds, in a field nobody documents: its own text will do
        return data.decode()


def _is_blank(value: object) -> bool:
    """Whether a value is one of the vendor's ways to say "nothing" (never a flag)."""
    return value is None or value in ("", [], {}) or (type(value) is int and value == 0)


def _read_object(value: Any, blank: _ITEM, path: str) -> _ITEM:  # noqa: ANN401 - a JSON value
    if type(value) is type(blank):
        return value
    if _is_blank(value):
        return blank
    raise ContractError(f"{path} is not an object")


def _read_list(value: object, read_item: Callable[[Any], _ITEM | None], path: str) -> list[_ITEM]:
    if type(value) is list:
        items = []
        for index, item in enumerate(value):
            try:
                read = read_item(item)
            except ContractError as error:
                raise ContractError(f"{path}[{index}]{error}") from None
            if read is not None:
                items.append(read)
        return items
    if _is_blank(value):
        return []
    raise ContractError(f"{path} is not a list")


def _read_ids(value: object, path: str) -> list[int] | None:
    """Reads a list of ids; [] stays [], the other blanks are None."""
    if type(value) is list:
        return _read_list(value, _read_listed_id, path)
    if _is_blank(value):
        return None
    raise ContractError(f"{path} is not a list")


def _read_listed_id(value: object) -> int | None:
    return _read_id(value, "")


def _read_leg(value: _Leg | _Blank) -> Leg | None:
    if type(value) is not _Leg:
        _check_blank(value)
        return None
    return Leg(
        _read_id(value.id, ".id"),
        _read_id(value.user_id, ".user_id"),
        _read_name(value.alias, ".alias"),
        _read_text(value.sip, ".sip"),
        _read_instant(value.started_at, ".started_at"),
        _read_text(value.type, ".type"),
        _read_flag(value.is_any_transfer, ".is_any_transfer"),
        _read_text(value.hangup_reason, ".hangup_reason"),
    )


def _read_external_number(value: _ExternalNumber | _Blank) -> ExternalNumber | None:
    if type(value) is not _ExternalNumber:
        _check_blank(value)
        return None
    return ExternalNumber(_read_phone(value.number, ".number"), _read_flag(value.is_any_transfer, ".is_any_transfer"))


def _read_recording(value: _Recording | _Blank) -> Recording | None:
    if type(value) is str:
        return Recording(None, value) if value else None
    if type(value) is not _Recording:
        _check_blank(value)
        return None
    recording = Recording(_read_id(value.id, ".id"), _read_text(value.url, ".url"))
    return None if recording.id is None and recording.url is None else recording


def _read_tags(value: object) -> list[str] | None:
    return None if type(value) is not list and _is_blank(value) else _read_list(value, _read_tag, "tags")


def _read_tag(value: object) -> str | None:
    return _read_text(value, "")


def _check_blank(value: object) -> None:
    if not _is_blank(value):
        raise ContractError(" is not an object")


def _read_text(value: object, path: str) -> str | None:
    if type(value) is str:
        return value or None
    if value is None or value == []:
        return None
    raise ContractError(f"{path} is not text")


def _read_name(value: object, path: str) -> str | None:
    text = _read_text(value, path)
    if text is None:
        return None
    text = text.strip()
    return None if text.lower() in _NO_NAME else text


def _read_phone(value: object, path: str) -> str | None:
    if type(value) is str:
        return value or None
    number = _read_integer(value, path, "a phone number")
    return str(number) if number else None


def _read_id(value: object, path: str) -> int | None:
    if type(value) is int and 0 < value <= _HIGHEST_INT64:
        return value
    return _read_integer(value, path, "an id") or None


def _read_seconds(value: object, path: str) -> int | None:
    if type(value) is int and 0 <= value <= _HIGHEST_INT64:
        return value
    return _read_integer(value, path, "a number of seconds")


def _read_integer(value: object, path: str, what: str) -> int | None:
    if value is None or value in ("", [], {}):
        return None
    if type(value) is str:
        is_whole = _INTEGER_TEXT.fullmatch(value) is not None
    elif type(value) is float:
        is_whole = value.is_integer() and abs(value) <= _EXACT_FLOATS
    else:
        is_whole = type(value) is int
    if not is_whole or not isinstance(value, str | float | int):
        raise ContractError(f"{path} is not {what}")
    number = int(value)
    if not _LOWEST_INT64 <= number <= _HIGHEST_INT64:
        raise ContractError(f"{path} is beyond 64 bits")
    return number


def _read_flag(value: object, path: str) -> bool | None:
    if value is True or value is False or value is None:
        return value
    if type(value) is int and value in {0, 1}:
        return value == 1
    if type(value) is str and value.lower() in _FLAG_WORDS:
        return _FLAG_WORDS[value.lower()]
    if value == []:
        return None
    raise ContractError(f"{path} is not a flag")


def _read_instant(value: object, path: str) -> datetime | None:
    if type(value) is int or type(value) is float:
        seconds: float = value
    elif value is None or value in ("", [], {}):
        return None
    elif type(value) is str and _SECONDS_TEXT.fullmatch(value):
        seconds = float(value)
    else:
        raise ContractError(f"{path} is not an instant in epoch seconds")
    if seconds == 0:
        return None
    if not 0 < seconds < YEAR_2100:
        raise ContractError(f"{path} is not between the years 1970 and 2100")
    return datetime.fromtimestamp(seconds, UTC)
