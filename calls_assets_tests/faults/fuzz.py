"""Mutated bodies against the contract and the tables: every answer is a typed call or a contract error."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from hypothesis import strategies as st

from calls_assets.api import Call, ContractError, Glance, decode_call, glance_at, payload_fields
from calls_assets.derive import derive_day
from calls_assets_tests.derive.versions import SAMPLE, START, to_table, version

CANARY = "Zebediah"  # in the bodies' names: a reason that shows it quotes the body
FIRST_ID = 1_000_000
RUNGS = (timedelta(hours=1),)
DAY = datetime.fromtimestamp(START, UTC).date()
ZONE = ZoneInfo("UTC")
READ_AT = datetime(2025, 6, 1, tzinfo=UTC)
CHUNK = 500
MOST_SECONDS = 5.0
"""What a body may take: thousands of times what it does, for a busy machine's pauses."""

MOST_CHUNK_SECONDS = 60.0
"""What the tables of a chunk may take, the first of which waits for libraries to start."""

_SEED_CALL = SAMPLE | {"contact": SAMPLE["contact"] | {"full_name": CANARY}, "tags": [CANARY]}
_SEED_TEXT = json.dumps(_SEED_CALL)
_VALUES: tuple[Any, ...] = (
    *(None, "", [], {}, 0, 1, -1, True, False, 0.5, -0.0, 1e300, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64),
    *("0", "1", "-1", "1e5", "null", "null null", " ", "\0", "\ud83d\ude00", "x" * 5_000, "9" * 400, "1747839084.5"),
    *([None], [[]], [0], ["1"], [{}], [1, "2", None], [{"id": 1}], {"id": 1}, {"id": "x"}, {"name": [1]}),
    *(START, str(START), START + 0.25, START * 1_000, 4_102_444_799, 4_102_444_800, "true", "FALSE", CANARY),
    *([CANARY], {CANARY: CANARY}),
)
_VALUE_TEXTS = [json.dumps(value) for value in _VALUES]
_TOKENS = (
    *(
        b"null",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"-0",
        b"1E400",
        b"9" * 60,
        b'"\\ud800"',
        b'"\\u0000"',
        b"\xff",
        b"\xc3(",
    ),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b'"',
        b"\\",
        b"[" * 70 + b"]" * 70,
        b"\xef\xbb\xbf",
        b"true",
        b"\0",
        b'"id":',
    ),
)


@dataclass(slots=True)
class Fuzzed:
    """What a run of the fuzzer showed.

    Attributes:
        bodies: Bodies tried.
        accepted: Bodies that were typed calls.
        rows: Rows of `calls` made from them.
        reasons: How often each reason was given.
        problems: Crashes, hangs, untyped calls, quoting reasons.
        longest_seconds: What the slowest body took.
        longest_chunk_seconds: What the slowest chunk of the tables took.
        was_accepted: Whether the last body was.
    """

    bodies: int = 0
    accepted: int = 0
    rows: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    longest_seconds: float = 0.0
    longest_chunk_seconds: float = 0.0
    was_accepted: bool = False


def fuzz(random: Random, bodies: int) -> Fuzzed:
    """Tries bodies; accepted ones go through the tables in chunks."""
    found = Fuzzed()
    accepted: list[tuple[int, bytes]] = []
    for id_ in range(FIRST_ID, FIRST_ID + bodies):
        body = mutate(random, id_)
        found.bodies += 1
        problem = find_crash(id_, body, found)
        if problem is not None:
            found.problems.append(f"{problem}: {body[:300]!r}")
        elif found.was_accepted:
            accepted.append((id_, body))
        if len(accepted) == CHUNK or (accepted and found.bodies == bodies):
            _derive(accepted, found)
            accepted.clear()
    return found


def find_crash(id_: int, body: bytes, found: Fuzzed | None = None) -> str | None:
    """Decodes a body; names what is wrong with how that ends, and when, None for nothing."""
    began = time.perf_counter()
    problem = _find_crash(id_, body, found)
    seconds = time.perf_counter() - began
    if found is not None:
        found.longest_seconds = max(found.longest_seconds, seconds)
    return problem or (f"hang: {seconds:.1f} s" if seconds > MOST_SECONDS else None)


def _find_crash(id_: int, body: bytes, found: Fuzzed | None) -> str | None:
    if found is not None:
        found.was_accepted = False
    if _judge(decode_call, id_, body) != _judge(glance_at, id_, body):
        return "a glance that tells otherwise"
    try:
        call = decode_call(id_, body)
    except ContractError as error:
        reason = str(error)
        if found is not None:
            found.reasons[reason] = found.reasons.get(reason, 0) + 1
        if CANARY in reason or not 0 < len(reason) < 100 or not reason.isprintable():
            return "a reason that quotes"
        return None if isinstance(error.__context__, ContractError | None) else "the decoder's error in the traceback"
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        return f"crash: {type(error).__name__}"
    if found is not None:
        found.accepted += 1
        found.was_accepted = True
    try:
        if msgspec.msgpack.decode(msgspec.msgpack.encode(call), type=Call) != call or call.id != id_:
            return "a call that is not its type"
        payload_fields(body)
    except Exception as error:  # noqa: BLE001 - as above
        return f"crash after decoding: {type(error).__name__}"
    return None


def _judge(read: Callable[[int, bytes], Call | Glance], id_: int, body: bytes) -> object:
    """Gives what a sweep learns of a body."""
    try:
        call = read(id_, body)
    except Exception as error:  # noqa: BLE001 - which it is counts too
        return type(error), str(error)
    return call.started_at, call.is_ended


def _derive(accepted: list[tuple[int, bytes]], found: Fuzzed) -> None:
    """Derives the tables of calls each of which was the documented one before."""
    rows, began = [], time.perf_counter()
    for id_, body in accepted:
        call = decode_call(id_, body)
        now = version(body, READ_AT, call_id=id_)
        rows.append(now | {"started_at": call.started_at, "is_ended": call.is_ended})
        rows.append(version(_SEED_CALL | {"id": id_}, READ_AT - timedelta(days=1)))
    try:
        tables = derive_day(to_table(rows), DAY, timezone=ZONE, reread_after=RUNGS)
        for table in tables.values():
            table.validate(full=True)
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        found.problems.append(f"crash in derive_day: {type(error).__name__}: {error}"[:300])
        return
    expected = {id_ for id_, body in accepted if decode_call(id_, body).started_at.date() == DAY}
    if set(tables["calls"]["call_id"].to_pylist()) != expected:
        found.problems.append("the tables show other calls than were accepted")
    found.rows += tables["calls"].num_rows
    seconds = time.perf_counter() - began
    found.longest_chunk_seconds = max(found.longest_chunk_seconds, seconds)
    if seconds > MOST_CHUNK_SECONDS:
        found.problems.append(f"hang in derive_day: {seconds:.1f} s")


def mutate(random: Random, id_: int) -> bytes:
    """Makes a body: the documented call with some values exchanged, and sometimes some bytes."""
    call = json.loads(_SEED_TEXT) | {"id": id_}
    for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
        _exchange(random, call)
    envelope = random.choice(
        ({"calls": call},) * 12 + ({"calls": [call]}, {"calls": [call, call]}, {"call": call}, [call])
    )
    body = json.dumps(envelope, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    for _ in range(random.choice((0, 0, 0, 1, 2))):
        body = _damage(random, body)
    return body


def _exchange(random: Random, call: dict[str, Any]) -> None:
    holder: Any = call
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            return
        key = random.choice(keys)
        if isinstance(holder[key], dict | list) and holder[key] and random.random() < 0.6:
            holder = holder[key]
            continue
        action = random.random()
        if action < 0.75:
            holder[key] = json.loads(random.choice(_VALUE_TEXTS))  # fresh: a later step may change it
        elif action < 0.85:
            del holder[key]
        elif isinstance(holder, list):
            holder *= 2
        else:
            holder[random.choice(("unknown", "id", "Ünbekannt", "a.b", ""))] = holder.get(key)
        return


def _damage(random: Random, body: bytes) -> bytes:
    at = random.randrange(len(body) + 1)
    action = random.randrange(5)
    if action == 0:
        return body[:at] + bytes((random.randrange(256),)) + body[at + 1 :]
    if action == 1:
        return body[:at]
    if action == 2:
        return body[:at] + random.choice(_TOKENS) + body[at:]
    if action == 3:
        end = min(len(body), at + random.randrange(1, 20))
        return body[:at] + body[end:]
    start = body.find(b":", at) + 1
    end = min((place for place in (body.find(mark, start) for mark in (b",", b"}", b"]")) if place > 0), default=start)
    return body[:start] + random.choice(_TOKENS) + body[end:] if start else body


def json_bodies() -> st.SearchStrategy[bytes]:
    """Draws JSON in the place of documented values, for the call 7."""
    plain = st.sampled_from([value for value in _VALUES if not isinstance(value, list | dict)])
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | plain
    values = st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner), max_leaves=8
    )
    others = {key: values for key in SAMPLE if key not in {"id", "started_at"}}
    call = st.fixed_dictionaries({"id": st.just(7), "started_at": st.just(START)}, optional=others)
    return call.map(lambda drawn: json.dumps({"calls": drawn}).encode("utf-8", "surrogatepass"))
