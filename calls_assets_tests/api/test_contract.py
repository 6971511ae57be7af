"""Bodies in, typed calls or one kind of error out."""

from __future__ import annotations

import copy
import json
import re
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from calls_assets.api import (
    Call,
    ContractError,
    ExternalNumber,
    Leg,
    Recording,
    decode_call,
    glance_at,
    payload_fields,
)
from calls_assets.api.documented import decode_documented

START = datetime(2025, 5, 21, 14, 51, 24, tzinfo=UTC)
LEG: dict[str, Any] = {
    "id": 1,
    "user_id": 43,
    "alias": "Agent Name",
    "sip": "sip:agent@example.com",
    "started_at": 1747839084,
    "type": "agent",
    "is_any_transfer": False,
    "hangup_reason": "NORMAL_CLEARING",
}
DOCUMENTED: dict[str, Any] = {
    "id": 1234,
    "is_inbound": False,
    "is_answered": True,
    "is_in_queue": False,
    "contact": {
        "id": 4321,
        "full_name": "John Doe",
        "number_country_code": "1",
        "national_number": "234567890",
        "number": "1234567890",
        "list_ids": [1, 2, 3],
    },
    "agents": [1],
    "all_agents": [LEG],
    "answered_agents": [LEG],
    "external_numbers": [{"number": "1234567890", "is_any_transfer": False}],
    "number": {
        "id": 1,
        "number": "1234567891",
        "numberWithAlias": "1234567891 (Number Alias/Friendly Name)",
        "alias": "Number Alias/Friendly Name",
    },
    "started_at": 1747839084,
    "duration": 5,
    "talk_time": 5,
    "requested_callback": False,
    "is_ended": True,
    "type": "answered",
    "is_answered_within_sla": True,
    "is_data_cached": True,
    "original_call_id": 2,
    "campaign": {"id": 1, "name": "Campaign Name"},
    "ring_group": {"id": 1, "name": "Ring Group Name"},
    "ivr": {"id": 1, "name": "IVR Name"},
    "disposition": {"id": 1, "code": "Successful Deal", "note": "This is a note for the disposition"},
    "recordings": [{"id": 12, "url": "https://media.example.com/Recording/1234567890.mp3"}],
    "tags": ["tag1", "tag2", "tag3"],
}
TYPED_LEG = Leg(1, 43, "Agent Name", "sip:agent@example.com", START, "agent", False, "NORMAL_CLEARING")
TYPED = Call(
    id=1234,
    started_at=START,
    is_inbound=False,
    is_answered=True,
    is_in_queue=False,
    is_ended=True,
    type="answered",
    duration_seconds=5,
    talk_time_seconds=5,
    requested_callback=False,
    is_answered_within_sla=True,
    is_data_cached=True,
    original_call_id=2,
    contact_id=4321,
    contact_full_name="John Doe",
    contact_number="1234567890",
    contact_national_number="234567890",
    contact_number_country_code="1",
    contact_list_ids=[1, 2, 3],
    number_id=1,
    number="1234567891",
    number_alias="Number Alias/Friendly Name",
    campaign_id=1,
    campaign_name="Campaign Name",
    ring_group_id=1,
    ring_group_name="Ring Group Name",
    ivr_id=1,
    ivr_name="IVR Name",
    disposition_id=1,
    disposition_code="Successful Deal",
    disposition_note="This is a note for the disposition",
    agent_ids=[1],
    all_agents=[TYPED_LEG],
    answered_agents=[TYPED_LEG],
    external_numbers=[ExternalNumber("1234567890", False)],
    recordings=[Recording(12, "https://media.example.com/Recording/1234567890.mp3")],
    tags=["tag1", "tag2", "tag3"],
)
EMPTY = Call(id=1234, started_at=START)
MISSING = object()


def pack(call: object) -> bytes:
    """Gives the body around a call object."""
    return json.dumps({"calls": call}).encode()


def with_field(path: str, value: object) -> bytes:
    """Gives the documented body with one field changed; list entries are the first ones."""
    call = copy.deepcopy(DOCUMENTED)
    *parents, last = path.split(".")
    target: Any = call
    for parent in parents:
        target = target[int(parent)] if parent.isdigit() else target[parent]
    key = int(last) if last.isdigit() else last
    if value is MISSING:
        del target[key]
    else:
        target[key] = value
    return pack(call)


def decode_field(path: str, value: object) -> Call:
    """Decodes the documented body with one field changed."""
    return decode_call(1234, with_field(path, value))


def test_the_documented_call_is_read_in_full() -> None:
    """Every field of the vendor's documentation lands in its place."""
    assert decode_call(1234, pack(DOCUMENTED)) == TYPED


def test_a_call_of_id_and_start_alone_is_a_call() -> None:
    """All else may be missing."""
    assert decode_call(1234, pack({"id": 1234, "started_at": 1747839084})) == EMPTY


@pytest.mark.parametrize("blank", [None, "", [], MISSING])
def test_every_blank_of_every_field_means_nothing(blank: object) -> None:
    """Whatever the vendor writes for "nothing", wherever, a call without the rest is what is read."""
    call: dict[str, object] = {"id": 1234, "started_at": 1747839084}
    if blank is not MISSING:
        call = dict.fromkeys(DOCUMENTED, blank) | call
    listed: list[Any] | None = [] if blank == [] else None
    assert decode_call(1234, pack(call)) == msgspec.structs.replace(EMPTY, agent_ids=listed, tags=listed)


@pytest.mark.parametrize("blank", [0, {}])
@pytest.mark.parametrize(
    "field",
    ["contact", "number", "campaign", "ring_group", "ivr", "disposition", "all_agents", "recordings", "tags", "agents"],
)
def test_zero_and_an_empty_object_stand_for_no_object_and_no_list(field: str, blank: object) -> None:
    """The vendor's zero for a missing object, and an empty object for either, are nothing."""
    call = decode_field(field, blank)
    names = [name for name in Call.__struct_fields__ if getattr(call, name) != getattr(TYPED, name)]
    assert names
    assert all(getattr(call, name) in (None, []) for name in names)


def test_blanks_inside_objects_mean_nothing() -> None:
    """An object whose members are all blank says as little as none."""
    blanks: list[object] = [None, "", []]
    for blank in blanks:
        call: dict[str, Any] = dict.fromkeys(DOCUMENTED, blank) | {"id": 1234, "started_at": 1747839084}
        for name in ("contact", "number", "campaign", "ring_group", "ivr", "disposition"):
            call[name] = dict.fromkeys(DOCUMENTED[name], blank)
        call["contact"]["list_ids"] = None
        call["agents"] = call["tags"] = None
        assert decode_call(1234, pack(call)) == EMPTY


@pytest.mark.parametrize(("value", "expected"), [("17", 17), (17.0, 17), (0, None), ("0", None), ("", None)])
@pytest.mark.parametrize(
    ("path", "attribute"),
    [
        ("contact.id", "contact_id"),
        ("number.id", "number_id"),
        ("campaign.id", "campaign_id"),
        ("ring_group.id", "ring_group_id"),
        ("ivr.id", "ivr_id"),
        ("disposition.id", "disposition_id"),
        ("original_call_id", "original_call_id"),
    ],
)
def test_ids_come_as_text_too_and_zero_is_none(path: str, attribute: str, value: object, expected: int | None) -> None:
    """An id is a whole number however it is written."""
    assert getattr(decode_field(path, value), attribute) == expected


@pytest.mark.parametrize("call_id", ["1234", 1234.0, 1234])
def test_the_calls_own_id_may_be_text(call_id: object) -> None:
    """The id is compared as a number."""
    assert decode_field("id", call_id) == TYPED


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True),
        (False, False),
        (1, True),
        (0, False),
        ("1", True),
        ("0", False),
        ("true", True),
        ("False", False),
        ("", None),
        (None, None),
    ],
)
@pytest.mark.parametrize("name", ["is_inbound", "is_ended", "requested_callback", "is_answered_within_sla"])
def test_flags_come_as_numbers_and_words_too(name: str, value: object, expected: bool | None) -> None:
    """A flag is a flag however it is written."""
    assert getattr(decode_field(name, value), name) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (4930123456789, "4930123456789"),
        (4930123456789.0, "4930123456789"),
        ("0049301", "0049301"),
        ("", None),
        (0, None),
    ],
)
@pytest.mark.parametrize(("path", "attribute"), [("contact.number", "contact_number"), ("number.number", "number")])
def test_phone_numbers_are_text_with_their_digits(
    path: str, attribute: str, value: object, expected: str | None
) -> None:
    """A number written as a JSON number keeps its digits, one written as text keeps its zeros."""
    assert getattr(decode_field(path, value), attribute) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [("  Ann  ", "Ann"), ("null null", None), (" Null NULL ", None), ("   ", None), ("Nullah", "Nullah")],
)
def test_names_lose_stray_blanks_and_the_word_null(value: str, expected: str | None) -> None:
    """Names are trimmed; the vendor's text for "no name" is none."""
    assert decode_field("contact.full_name", value).contact_full_name == expected
    assert decode_field("all_agents.0.alias", value).all_agents[0].alias == expected


def test_free_text_is_kept_as_it_is() -> None:
    """Codes, notes and tags are the agents' own words."""
    text = "  Sale (new/renewed): 50 % - \N{GRINNING FACE} \0 "
    assert decode_field("disposition.code", text).disposition_code == text
    assert decode_field("disposition.note", text).disposition_note == text
    assert (decode_field("tags.0", text).tags or [])[0] == text


@pytest.mark.parametrize("value", ["1747839084", 1747839084.0, "1747839084.0"])
def test_instants_come_as_text_and_fractions_too(value: object) -> None:
    """Epoch seconds are read however they are written."""
    assert decode_field("started_at", value) == TYPED
    assert decode_field("all_agents.0.started_at", value) == TYPED


def test_fractions_of_a_second_are_kept() -> None:
    """A fractional start keeps its microseconds."""
    assert decode_field("started_at", 1747839084.25).started_at == START.replace(microsecond=250_000)


@pytest.mark.parametrize("value", [0, "0", None, "", []])
def test_a_leg_without_a_start_has_none(value: object) -> None:
    """Zero is not 1970."""
    assert decode_field("all_agents.0.started_at", value).all_agents[0].started_at is None


@pytest.mark.parametrize("value", [0, None, "", "0", MISSING])
def test_a_call_without_a_start_cannot_be_dated(value: object) -> None:
    """No start, no day: the call is quarantined."""
    with pytest.raises(ContractError, match=r"^started_at is missing$"):
        decode_field("started_at", value)


@pytest.mark.parametrize("value", [-1, 4_102_444_800, 1747839084000, 1e300, "999999999999"])
def test_a_start_outside_the_years_is_refused(value: object) -> None:
    """Milliseconds, or times before 1970, are not guessed at."""
    with pytest.raises(ContractError, match=r"^started_at is not between"):
        decode_field("started_at", value)


def test_recordings_come_as_bare_urls_too() -> None:
    """Lists of URLs and of objects are read alike; what is empty is dropped."""
    mixed = ["media.example.com/1.mp3", {"id": "5", "url": "u"}, {"id": 6}, "", None, {"id": 0, "url": ""}]
    expected = [Recording(None, "media.example.com/1.mp3"), Recording(5, "u"), Recording(6, None)]
    assert decode_field("recordings", mixed).recordings == expected


def test_lists_drop_what_is_nothing() -> None:
    """Blank entries of lists are no entries."""
    assert decode_field("tags", ["a", None, "", "b"]).tags == ["a", "b"]
    assert decode_field("agents", [1, None, "2", 0]).agent_ids == [1, 2]
    assert decode_field("all_agents", [None, LEG, ""]).all_agents == [TYPED_LEG]
    assert decode_field("external_numbers", [None, {"number": 5}]).external_numbers == [ExternalNumber("5", None)]


def test_a_list_of_one_call_is_an_envelope_too() -> None:
    """The plural key may hold a list of one."""
    assert decode_call(1234, pack([DOCUMENTED])) == TYPED
    assert payload_fields(pack([DOCUMENTED])) == payload_fields(pack(DOCUMENTED))


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b"null", b'"text"', b"5", pack(None), pack([]), pack([DOCUMENTED] * 2), pack("x"), pack([1])]
)
def test_anything_but_one_call_in_its_envelope_is_refused(body: bytes) -> None:
    """No call, several calls and other shapes break the contract."""
    with pytest.raises(ContractError, match="envelope"):
        decode_call(1234, body)
    with pytest.raises(ContractError, match="envelope"):
        payload_fields(body)


@pytest.mark.parametrize("value", [1235, "1235", None, 0, -1234, MISSING])
def test_another_calls_body_is_refused(value: object) -> None:
    """A mismatch of ids is never stored as the other call."""
    with pytest.raises(ContractError, match=r"^id is not the requested one$"):
        decode_field("id", value)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("id", True, "id"),
        ("id", "12 34", "id"),
        ("contact", "somebody", "contact"),
        ("contact", True, "contact"),
        ("contact", 5, "contact"),
        ("contact", [1], "contact"),
        ("contact.id", "4_321", "contact.id"),
        ("contact.id", "\u0661", "contact.id"),
        ("contact.id", 1.5, "contact.id"),
        ("contact.id", {"a": 1}, "contact.id"),
        ("contact.id", 2**63, "contact.id"),
        ("contact.id", -(2**63) - 1, "contact.id"),
        ("contact.id", "9999999999999999999", "contact.id"),
        ("contact.id", 10**400, "contact.id"),
        ("contact.full_name", 5, "contact.full_name"),
        ("contact.number", 1.5, "contact.number"),
        ("contact.number", True, "contact.number"),
        ("contact.number", 2.0**60, "contact.number"),
        ("contact.list_ids", "1,2", "contact.list_ids"),
        ("contact.list_ids", [1, True], "contact.list_ids[1]"),
        ("duration", "five", "duration"),
        ("duration", True, "duration"),
        ("talk_time", 2**64, "talk_time"),
        ("started_at", True, "started_at"),
        ("started_at", "2025-05-21", "started_at"),
        ("is_ended", 2, "is_ended"),
        ("is_ended", "yes please", "is_ended"),
        ("is_ended", 1.0, "is_ended"),
        ("type", 5, "type"),
        ("agents", 1, "agents"),
        ("agents", [{"id": 1}], "agents[0]"),
        ("all_agents", "x", "all_agents"),
        ("all_agents", [LEG, "x"], "all_agents[1]"),
        ("all_agents", [LEG, {"started_at": "soon"}], "all_agents[1].started_at"),
        ("all_agents", [LEG, {"id": 2**63}], "all_agents[1].id"),
        ("all_agents", [True], "all_agents[0]"),
        ("external_numbers", [{"number": []}, {"number": {"a": 1}}], "external_numbers[1].number"),
        ("recordings", [5], "recordings[0]"),
        ("recordings", [{"url": 5}], "recordings[0].url"),
        ("tags", "vip", "tags"),
        ("tags", ["a", 5], "tags[1]"),
        ("disposition", "Done", "disposition"),
        ("disposition.code", ["Done"], "disposition.code"),
    ],
)
def test_a_wrong_type_is_refused_by_the_name_of_its_field(path: str, value: object, named: str) -> None:
    """The reason begins with the path and quotes nothing of the value."""
    with pytest.raises(ContractError) as caught:
        decode_field(path, value)
    assert str(caught.value).split(" ")[0] == named


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (pack(DOCUMENTED)[:-1], "not JSON"),
        (pack(DOCUMENTED) + b"}", "not JSON"),
        (b"\xef\xbb\xbf" + pack(DOCUMENTED), "not JSON"),
        (pack(DOCUMENTED | {"duration": float("nan")}), "not JSON"),
        (pack(DOCUMENTED | {"duration": float("inf")}), "not JSON"),
        (pack(DOCUMENTED | {"unknown": float("nan")}), "not JSON"),
        (pack(DOCUMENTED | {"type": "\ud83d"}), "not JSON"),
        (pack(DOCUMENTED | {"unknown": "\udc00 "}), "not JSON"),
        (b'{"calls": {"id": 1234, "started_at": 1747839084, "type": "\xff"}}', "not UTF-8"),
        (b'{"calls": {"id": 1234, "started_at": 1747839084, "unknown": "\xff"}}', "not UTF-8"),
        (b'{"calls": {"id": 1234, "started_at": 1747839084, "\xff": 1}}', "not UTF-8"),
        (json.dumps({"calls": DOCUMENTED}).encode("utf-16"), "not UTF-8"),
        (b"[" * 100_000, "not one call in an envelope"),
        (b'{"calls":' * 100_000, "nested too deeply"),
        (b'{"calls":{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}}", "nested too deeply"),
        (b'{"calls":{"x":' + b"[" * 63 + b"]" * 63 + b"}}", "nested too deeply"),
        (b'{"calls": {"id": 1234, "started_at": 1e999}}', "started_at has a wrong type or size"),
    ],
)
def test_bytes_that_are_no_sound_json_are_refused(body: bytes, reason: str) -> None:
    """Whatever the parser dies of, a short reason is what comes out."""
    with pytest.raises(ContractError) as caught:
        decode_call(1234, body)
    assert str(caught.value) == reason
    assert caught.value.__context__ is None


def test_many_brackets_are_not_deep() -> None:
    """A long call, and brackets within text, do not count as nesting."""
    call = DOCUMENTED | {"all_agents": [LEG] * 200, "unknown": '[{"' * 200, "deep": [[[[1]]]]}
    assert len(decode_call(1234, pack(call)).all_agents) == 200
    assert payload_fields(pack(call))["deep"] == "[[[[1]]]]"


def test_the_last_of_two_equal_keys_counts_for_both_readers() -> None:
    """A repeated key is read the same way everywhere."""
    body = b'{"calls": {"id": 9, "id": 1234, "started_at": 1747839084, "type": "a", "type": "b"}}'
    assert decode_call(1234, body).type == "b"
    assert payload_fields(body)["type"] == '"b"'


def test_unknown_keys_and_values_are_normal() -> None:
    """What nobody documented does not disturb what is."""
    call = DOCUMENTED | {"type": "brand_new", "wait": {"a": [1, {"b": None}]}, "": 1, "10": 10**400}
    assert decode_call(1234, pack(call)) == msgspec.structs.replace(TYPED, type="brand_new")


def test_payload_fields_descend_into_objects_and_keep_lists_whole() -> None:
    """Paths are dotted, values are JSON text, and the order of keys does not matter."""
    body = b"""{"calls": {"id": 1, "n": null, "e": {}, "t": "\\u00e9\\n", "f": 1.50, "c": {"x": {"y": true}},
        "l": [ {"b": 1, "a": [ ] } ], "huge": 1e999, "big": 123456789012345678901234567890}}"""
    assert payload_fields(body) == {
        "id": "1",
        "n": "null",
        "e": "{}",
        "t": '"\u00e9\\n"',
        "f": "1.5",
        "c.x.y": "true",
        "l": '[{"a":[],"b":1}]',
        "huge": "1e999",
        "big": "123456789012345678901234567890",
    }


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["0", "1", "1747839084", "null null", 2**63, -(2**63), 10**30, 1747839084]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*DOCUMENTED, *LEG]), inner, max_size=4)
    ),
    max_leaves=8,
)


def check(body: bytes) -> None:
    """Decodes: either a call that every later step can take, or the one error."""
    try:
        call = decode_call(1234, body)
    except ContractError as error:
        assert len(str(error)) < 100  # noqa: PT017 - success is as good as this error
        with pytest.raises(ContractError, match=f"^{re.escape(str(error))}$"):
            glance_at(1234, body)
        return
    assert glance_at(1234, body) == (call.started_at, call.is_ended)
    assert call.id == 1234
    assert call.started_at.tzinfo is UTC
    for value in msgspec.to_builtins(call).values():
        assert not isinstance(value, int) or -(2**63) <= value < 2**63
        assert value != ""
    json.dumps(msgspec.to_builtins(call), ensure_ascii=False).encode()  # valid UTF-8 throughout
    for text in payload_fields(body).values():
        json.loads(text)


def test_the_documented_body_is_judged_at_a_glance() -> None:
    """What a sweep needs of a call without quirks costs no full decoding."""
    for call in (DOCUMENTED, DOCUMENTED | {"unknown": [1], "contact": None}):
        assert decode_documented(1234, pack(call)) is not None
    assert decode_documented(1235, pack(DOCUMENTED)) is None
    assert decode_documented(1234, pack(DOCUMENTED | {"deep": [[]] * 64})) is None
    assert decode_documented(1234, pack(DOCUMENTED | {"type": "brand"}).replace(b"brand", b"\xc3(")) is None


@pytest.mark.parametrize("path", [*DOCUMENTED, *(f"contact.{key}" for key in DOCUMENTED["contact"]), *LEG])
def test_a_glance_takes_and_refuses_what_decoding_does(path: str) -> None:
    """Field by field, with values on both sides of every limit."""
    strange: tuple[object, ...] = (
        None,
        "",
        [],
        {},
        0,
        -1,
        1,
        2,
        True,
        0.0,
        1.5,
        2.0,
        2**63 - 1,
        2**63,
        -(2**63),
        1747839084,
        4102444800,
    )
    others: tuple[object, ...] = (
        "x",
        "1",
        "true",
        "null null",
        " ",
        [None],
        [[]],
        [0],
        [-1],
        ["1"],
        [2**63],
        [{}],
        [{"id": -1}],
        [True],
    )
    for value in (*strange, *others):
        if path in DOCUMENTED:
            check(pack(DOCUMENTED | {path: value}))
        if path in LEG:
            check(pack(DOCUMENTED | {"all_agents": [LEG, LEG | {path: value}]}))
        if path.startswith("contact."):
            check(pack(DOCUMENTED | {"contact": DOCUMENTED["contact"] | {path.partition(".")[2]: value}}))


@given(st.binary(max_size=200))
@example(b"\xff")
def test_any_bytes_give_a_call_or_the_one_error(body: bytes) -> None:
    """Nothing but `ContractError` escapes."""
    check(body)


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from(sorted(DOCUMENTED)), JSON_VALUES, max_size=4))
def test_any_values_in_documented_fields_give_a_sound_call_or_the_one_error(changes: dict[str, object]) -> None:
    """Whatever stands in a field, what is accepted fits the tables."""
    check(pack(DOCUMENTED | changes))


@settings(max_examples=100)
@given(st.sampled_from(["contact", "number", "disposition"]), st.sampled_from(sorted(LEG)), JSON_VALUES)
def test_any_values_inside_objects_give_a_sound_call_or_the_one_error(name: str, key: str, value: object) -> None:
    """The same holds one level down, and for legs."""
    check(pack(DOCUMENTED | {name: DOCUMENTED[name] | {key: value}, "all_agents": [LEG | {key: value}]}))


@settings(max_examples=150)
@given(st.integers(0, 1_500), st.integers(0, 8), st.binary(max_size=4))
def test_any_damage_to_a_body_gives_a_call_or_the_one_error(position: int, removed: int, inserted: bytes) -> None:
    """Flipped, lost and added bytes never crash the reader."""
    body = pack(DOCUMENTED)
    check(body[:position] + inserted + body[position + removed :])
