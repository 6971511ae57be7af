"""Whatever a server says comes to a row, a quarantined read or a typed error, soon, and the others are read."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from calls_assets.api import CallsClient, ContractError
from calls_assets.api.client import _ENVELOPE
from calls_assets.ingest.sweep import LAND_EVERY_BYTES
from calls_assets_tests.api.server import serve
from calls_assets_tests.faults import atheris_decoder, fuzz, hostile, wire
from calls_assets_tests.faults.counts import SEED, choose, tell

pytestmark = pytest.mark.timeout(900)
client_module = importlib.import_module("calls_assets.api.client")
contract_module = importlib.import_module("calls_assets.api.contract")
STEP = 12  # every twelfth id is hostile: amid the others, refusals do not come ten in a row
AT_ONCE = 8
MOST_MEMORY = 64 * 2**20
MOST_SECONDS = 60.0


async def ask_each(cases: Sequence[wire.Case]) -> list[str]:
    """Asks for every case alone."""
    ids = {1_000 + number: case for number, case in enumerate(cases)}
    problems = []
    async with serve(hostile.script_for(ids, 10)) as served:
        todo = list(ids.items())
        for first in range(0, len(todo), AT_ONCE):
            some = todo[first : first + AT_ONCE]
            for found in await asyncio.gather(*(hostile.ask_alone(served.url, id_, case) for id_, case in some)):
                problems += found
    return problems


def test_every_hostile_answer_comes_to_what_it_has_to() -> None:
    """Alone, within a bounded time, and the connection's next answer is not harmed; no other host is asked."""

    async def main() -> tuple[list[str], int, int]:
        async with serve(hostile.script_for({}, 10)) as other:
            cases = wire.list_cases(other.url)
            return await ask_each(cases), len(cases), other.connections

    began = time.monotonic()
    problems, count, elsewhere = asyncio.run(main())
    seconds = round(time.monotonic() - began, 1)
    tell("hostile answers, alone", cases=count, violations=len(problems), asked_elsewhere=elsewhere, seconds=seconds)
    assert problems == []
    assert elsewhere == 0
    assert count >= 100


def pick(*names: str) -> list[wire.Case]:
    """Gives cases by name."""
    return [case for case in wire.list_cases("http://127.0.0.1:1") if case.name in names]


@pytest.mark.parametrize("broken", ["fragile", "patient", "trusting", "mistaken"])
def test_a_broken_client_is_caught(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness reports a crash on depth, a missing deadline, a wrong id believed, a redirect mistaken."""

    class Fragile:
        def decode(self, body: bytes) -> object:
            try:
                return _ENVELOPE.decode(body)
            except RecursionError as error:
                raise RuntimeError from error

    async def wait_long(client: CallsClient, call_id: int, path: str, *, is_repeat: bool) -> object:
        return await client._exchange(call_id, path)

    if broken == "fragile":
        monkeypatch.setattr(client_module, "_ENVELOPE", Fragile())
        cases, sign = pick("depth 100,000, lists"), "crash"
    elif broken == "patient":
        monkeypatch.setattr(hostile, "MOST_SECONDS", 1.5)
        monkeypatch.setattr(CallsClient, "_attempt", wait_long)
        cases, sign = pick("silence"), "hang"
    elif broken == "trusting":
        monkeypatch.setattr(hostile, "decode_call", lambda _id, _body: None)
        cases, sign = pick("wrong id"), "wrong id: row"
    else:
        monkeypatch.setattr(client_module, "_REDIRECT_STATUSES", frozenset())
        cases, sign = pick("redirect 302"), "refused"
    problems = asyncio.run(ask_each(cases))
    tell("hostile answers, twin", twin=broken, cases=len(cases), problems=problems)
    assert any(sign in problem for problem in problems)


def spread(cases: Sequence[wire.Case], random: Random) -> tuple[dict[int, wire.Case], int]:
    """Gives each case an id amid ordinary ones, and the number of ids."""
    shuffled = random.sample(cases, len(cases))
    return {STEP * (number + 5): case for number, case in enumerate(shuffled)}, STEP * (len(cases) + 15)


def test_a_sweep_goes_on_past_every_hostile_answer(tmp_path: Path) -> None:
    """All cases amid ordinary calls: each comes to what it has to, the others are stored, time and memory bounded.

    A hostile answer can break the connection under the last attempt for another that would be quarantined. That id is
    then named, rightly, and here asked for again.
    """
    cases, count = spread(wire.list_cases("http://127.0.0.1:1"), Random(SEED))
    quiet = {id_: replace(case, speak=hostile.behave) for id_, case in cases.items()}

    async def main() -> tuple[Measured, Measured, dict[int, str], list[str]]:
        problems = []
        async with serve(hostile.script_for(cases, count)) as served:
            loud = await measure(served.url, tmp_path / "lake")
            losses = hostile.find_losses(tmp_path / "lake", loud.failed_ids, cases, count)
            for id_, came_to in losses.items():
                case = cases.get(id_)
                if case and case.comes_to == ("quarantined",) and came_to == "named":
                    problems += await hostile.ask_alone(served.url, id_, case)
                else:
                    problems.append(f"{case.name if case else id_}: {came_to}")
        async with serve(hostile.script_for(quiet, count)) as served:
            return loud, await measure(served.url, tmp_path / "normal"), losses, problems

    loud, normal, losses, problems = asyncio.run(main())
    memory = loud.peak_bytes - normal.peak_bytes
    if loud.seconds > MOST_SECONDS:
        problems.append(f"the sweep took {loud.seconds:.0f} s")
    states = hostile.look_up(tmp_path / "lake")
    kinds = Counter(states[id_].partition(":")[0] for id_ in cases if id_ in states)
    tell(
        "hostile answers, amid a sweep",
        ids=count,
        cases=len(cases),
        ended_as={**kinds, "named": len(loud.failed_ids)},
        extra_memory_mib=round(memory / 2**20, 1),
        unlucky=[cases[id_].name for id_ in losses if id_ in cases],
        violations=len(problems),
        seconds=round(loud.seconds, 1),
    )
    assert problems == []
    assert len(losses) <= 3
    assert memory <= MOST_MEMORY


@dataclass(frozen=True, slots=True)
class Measured:
    """A sweep in a process of its own: its peak memory, the ids it named, and how long it took."""

    peak_bytes: int
    failed_ids: list[int]
    seconds: float


async def measure(url: str, root: Path, *options: str) -> Measured:
    """Sweeps in a process of its own."""
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "calls_assets_tests.faults.hostile", url, str(root), *options),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return Measured(**json.loads(output), seconds=time.monotonic() - began)


@pytest.mark.parametrize("options", [(), ("by-number",)], ids=["by bytes", "by number"])
def test_many_answers_just_within_the_limit_do_not_fill_the_memory(options: tuple[str, ...], tmp_path: Path) -> None:
    """They are stored by their bytes; a sweep that waits for two thousand of them is caught.

    As many bytes as make a segment, and an answer of each request in flight, are being stored, and as many come
    meanwhile; what is stored is there twice more, as a column and as the file. The allocator keeps some beside it.
    """
    body_limit_bytes = hostile.config_for("http://127.0.0.1:1").body_limit_bytes
    most = 4 * (LAND_EVERY_BYTES + hostile.OPTIONS.concurrency * body_limit_bytes) + 32 * 2**20
    large = wire.Case("just within the limit", ("row",), hostile.fill_up)
    cases, count = spread([large] * 60, Random(SEED))

    async def main() -> int:
        async with serve(hostile.script_for(cases, count)) as served:
            many = await measure(served.url, tmp_path / "many", *options)
        assert hostile.find_losses(tmp_path / "many", many.failed_ids, cases, count) == {}
        async with serve(hostile.script_for({}, count)) as served:
            return many.peak_bytes - (await measure(served.url, tmp_path / "none")).peak_bytes

    memory = asyncio.run(main())
    tell("hostile answers, just within the limit", options=options, extra_memory_mib=round(memory / 2**20, 1))
    assert (memory <= most) == (not options)


def test_a_client_without_a_body_limit_is_caught(tmp_path: Path) -> None:
    """The harness measures what endless bodies cost it."""
    cases, count = spread(pick("endless, no length"), Random(SEED))

    async def main() -> int:
        async with serve(hostile.script_for(cases, count)) as served:
            capped = await measure(served.url, tmp_path / "capped")
            uncapped = await measure(served.url, tmp_path / "uncapped", "no-limit")
            return uncapped.peak_bytes - capped.peak_bytes

    memory = asyncio.run(main())
    tell("hostile answers, twin", twin="no body limit", cases=len(cases), extra_memory_mib=round(memory / 2**20, 1))
    assert memory > MOST_MEMORY


def test_no_body_crashes_contract_or_tables() -> None:
    """Mutated bodies: each soon a typed call that the tables take, or a contract error that quotes nothing."""
    began = time.monotonic()
    bodies = choose(5_000, 1_000_000)
    outcome = fuzz.fuzz(Random(SEED), bodies)
    tell(
        "fuzzed bodies",
        bodies=outcome.bodies,
        accepted=outcome.accepted,
        refused=outcome.bodies - outcome.accepted,
        rows=outcome.rows,
        reasons=len(outcome.reasons),
        violations=len(outcome.problems),
        longest_body_ms=round(1_000 * outcome.longest_seconds, 1),
        longest_chunk_ms=round(1_000 * outcome.longest_chunk_seconds, 1),
        seconds=round(time.monotonic() - began, 1),
    )
    assert outcome.problems == []
    assert outcome.bodies >= bodies
    assert 0.05 < outcome.accepted / outcome.bodies < 0.95
    assert len(outcome.reasons) > 20


@settings(max_examples=choose(150, 20_000), deadline=None, derandomize=False, database=None)
@seed(SEED)
@given(st.binary(max_size=300) | fuzz.json_bodies())
def test_no_body_of_hypothesis_crashes_the_contract(body: bytes) -> None:
    """Whatever bytes or JSON values there are in place of the documented ones."""
    assert fuzz.find_crash(7, body) is None


@pytest.mark.parametrize("broken", ["decoder", "talker", "types", "sleeper"])
def test_a_broken_contract_is_caught(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness reports another exception, a reason that quotes the body, a value of a wrong type, a long wait."""

    def crash(body: bytes, decoder: object) -> object:
        if b"\\u" in body:  # as soon as a letter is escaped
            raise UnicodeError
        return decode(body, decoder)

    def sleep(body: bytes, decoder: object) -> object:
        if b"\\u" in body:
            time.sleep(0.1)
        return decode(body, decoder)

    def talk(value: object, path: str) -> object:
        if isinstance(value, list | dict):
            raise ContractError(f"{path} is {value!r}")
        return read_text(value, path)

    decode, read_text = contract_module._decode, contract_module._read_text
    bodies, sign = 2_000, {"decoder": "crash: U", "talker": "quotes", "types": "after decoding", "sleeper": "hang"}
    if broken == "decoder":
        monkeypatch.setattr(contract_module, "_decode", crash)
    elif broken == "talker":
        monkeypatch.setattr(contract_module, "_read_text", talk)
    elif broken == "types":
        monkeypatch.setattr(contract_module, "_read_seconds", lambda value, _path: value)
    else:
        monkeypatch.setattr(fuzz, "MOST_SECONDS", 0.1)
        monkeypatch.setattr(contract_module, "_decode", sleep)
        bodies = 50
    outcome = fuzz.fuzz(Random(SEED), bodies)
    caught = sum(sign[broken] in problem for problem in outcome.problems)
    tell("fuzzed bodies, twin", twin=broken, bodies=outcome.bodies, caught=caught)
    assert caught


def test_the_target_of_atheris_tells_good_from_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a coverage-guided fuzzer calls takes the bodies it begins with, and reports a contract that is broken."""

    def try_seeds() -> None:
        for body in atheris_decoder.list_seeds():
            atheris_decoder.try_body(body)

    try_seeds()
    monkeypatch.setattr(contract_module, "_read_seconds", lambda value, _path: value)
    with pytest.raises(AssertionError, match="after decoding"):
        try_seeds()
