"""The fast reading of bodies says what the contract says, or leaves the body to it."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calls_assets.api import documented
from calls_assets.api.contract import payload_fields
from calls_assets.api.errors import ContractError
from calls_assets.derive.bodies import keep_differing, make_columns, read_body, read_members
from calls_assets_tests.derive.versions import SAMPLE, START

CALL_ID = 1234
ODD: list[Any] = [
    *(None, "", [], {}, 0, -1, 1, 1.0, 0.5, -0.0, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 1e16, 1e300, 4_102_444_800),
    *(
        True,
        False,
        "0",
        "1",
        "true",
        "4321",
        " ",
        "  Ann ",
        "null null",
        "NULL",
        "\u00a0x\u2003",
        "\x1f",
        "é",
        "\ud7ff",
    ),
    *([None], [""], [0], [1, 0], ["7"], [{}], [[]], [{"id": 0}], [{"url": ""}], "media.example/1.mp3"),
    *({"id": 0}, {"id": "5", "x": [1]}, {"x": {"y": {}}}),
    *([{"id": 1, "started_at": START}, {"id": None, "started_at": START}, {"id": 0, "started_at": START}],),
    *([{"id": 1, "started_at": START + 0.5}], [{"id": 1, "started_at": START, "is_any_transfer": True}]),
]


def read(call_id: int, body: bytes) -> Any:  # noqa: ANN401 - whatever is to be compared
    """Gives the columns of one body, or why there are none."""
    try:
        calls, children = make_columns([read_body(call_id, body)])
    except ContractError as error:
        return str(error)
    # As text: 1, 1.0 and True are not the same here.
    return [{name: repr(list(column)) for name, column in columns.items()} for columns in (calls, *children.values())]


def check_both_ways(monkeypatch: pytest.MonkeyPatch, body: bytes) -> bool:
    """Compares a body read fast with the same read by the contract; tells whether the fast way took it."""
    taken = []
    decode = documented._DECODE

    def note(given: bytes) -> Any:  # noqa: ANN401 - the decoder's own
        decoded = decode(given)
        taken.append(given)
        return decoded

    def refuse(_given: bytes) -> Any:  # noqa: ANN401 - never returns
        raise ValueError

    with monkeypatch.context() as patch:
        patch.setattr(documented, "_DECODE", note)
        fast = read(CALL_ID, body)
        patch.setattr(documented, "_DECODE", refuse)
        assert fast == read(CALL_ID, body)
    return bool(taken)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:  # noqa: ANN401 - a JSON value
    """Lists the paths of all values inside a value."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(inner for key, item in items for inner in places(item, (*path, key)))]


PLACES = places(SAMPLE)[1:]


def vary(changes: list[tuple[tuple[Any, ...], Any]]) -> bytes:
    """Makes the documented body with other values at some places; `KeyError` there drops the key."""
    payload: Any = copy.deepcopy(SAMPLE)
    for path, value in changes:
        holder = payload
        try:
            for key in path[:-1]:
                holder = holder[key]
            if value is KeyError:
                del holder[path[-1]]
            else:
                holder[path[-1]] = copy.deepcopy(value)
        except (KeyError, TypeError, IndexError):
            continue  # an earlier change has taken the place away
    return json.dumps({"calls": payload}, ensure_ascii=False).encode()


def test_the_documented_body_is_read_fast_and_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the fast way would be none."""
    assert check_both_ways(monkeypatch, vary([]))


@pytest.mark.parametrize("path", PLACES, ids=lambda path: ".".join(map(str, path)))
def test_every_odd_value_at_every_place_is_read_as_the_contract_reads_it(
    monkeypatch: pytest.MonkeyPatch, path: tuple[Any, ...]
) -> None:
    """One change at a time, at each place of the documented call."""
    for value in [*ODD, KeyError]:
        check_both_ways(monkeypatch, vary([(path, value)]))


@settings(max_examples=150, deadline=None)
@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from([*ODD, KeyError])), max_size=4))
def test_several_odd_values_are_read_as_the_contract_reads_them(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    """Changes together."""
    with pytest.MonkeyPatch.context() as patch:
        check_both_ways(patch, vary(changes))


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, len(vary([]))), put=st.binary(max_size=3), cut=st.integers(0, 3))
def test_damaged_bytes_are_read_as_the_contract_reads_them(at: int, put: bytes, cut: int) -> None:
    """Bytes replaced, dropped or added anywhere: not JSON, not UTF-8, another value, another key."""
    body = vary([])
    with pytest.MonkeyPatch.context() as patch:
        check_both_ways(patch, body[:at] + put + body[at + cut :])


@pytest.mark.parametrize(
    "body",
    [
        b'{"calls": [{"id": 1234, "started_at": 1747839084}]}',
        b'{"calls": {"id": 1234, "started_at": 1747839084, "id": 5}}',
        b'{"calls": {"id": 5, "started_at": 1747839084, "id": 1234}}',
        b'{"calls": {"id": 1234, "started_at": 1747839084, "x": "\xff"}}',
        b'{"calls": {"id": 1234, "started_at": 1747839084, "x": "\\ud800"}}',
        b'{"calls": {"id": 1234, "started_at": 1747839084, "x": ' + b"[" * 70 + b"]" * 70 + b"}}",
        b'{"calls": {"id": 1234, "started_at": 1747839084, "x": [' + b"[]," * 70 + b"1]}}",
        b"\xef\xbb\xbf" + b'{"calls": {"id": 1234, "started_at": 1747839084}}',
        b"",
    ],
)
def test_other_forms_of_an_envelope_are_read_as_the_contract_reads_them(
    monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    """Lists, repeated keys, bytes that are no text, depths: all as by the contract."""
    check_both_ways(monkeypatch, body)


def _by_members(old: bytes, new: bytes) -> Callable[[], Any]:
    first, second = read_members(old), read_members(new)
    assert first is not None
    assert second is not None
    return lambda: [payload_fields(body) for body in keep_differing(first, second)]


@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from([*ODD, KeyError])), max_size=2)),
        min_size=2,
        max_size=2,
    )
)
def test_leaving_out_what_is_written_the_same_leaves_all_differences(changes: list[Any]) -> None:
    """The fields that differ between two bodies are those that differ between their rests, and have the same values."""
    old, new = (vary(*change) for change in changes)
    whole = [payload_fields(body) for body in (old, new)]
    rest = _by_members(old, new)()
    for before, after in (whole, rest):
        same = {field for field in before if before[field] == after.get(field)}
        for field in same:
            del before[field], after[field]
    assert whole == rest


@pytest.mark.parametrize(
    "body",
    [
        b'{"calls": {"id": 1, "a.b": 2, "a": {"b": 3}}}',  # a path that two members have
        b'{"calls": {"id": 1, "x": "\xff"}}',
        b'{"calls": {"id": 1, "x": ' + b"[" * 65 + b"]" * 65 + b"}}",
        b'{"calls": [{"id": 1}]}',
        b'{"calls"',
    ],
)
def test_bodies_that_cannot_be_compared_member_by_member_are_left_whole(body: bytes) -> None:
    """They are flattened whole, by the contract."""
    assert read_members(body) is None
