"""An API that loses answers costs time and nothing else: every row, none twice, politely, or the ids by name."""

from __future__ import annotations

import asyncio
import importlib
import math
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import dagster as dg
import httpx
import pytest

from calls_assets.api import CallsClient, parse_retry_after
from calls_assets.api.client import _Pacer
from calls_assets.ingest import SweepFailedError, coverage
from calls_assets.lake import DAILY_TABLES, Lake
from calls_assets.settings import Settings
from calls_assets_tests.api.server import serve
from calls_assets_tests.defs.scripted import run
from calls_assets_tests.faults import canaries, lossy, patience
from calls_assets_tests.faults.counts import IS_TORTURE, SEED, choose, tell

pytestmark = pytest.mark.timeout(900)
client_module = importlib.import_module("calls_assets.api.client")
sweep_module = importlib.import_module("calls_assets.ingest.sweep")  # the package's attribute is the function
RATE = 300.0
MOST_REQUESTS_PER_ID = 1.6
TYPED_END_SECONDS = 60.0
ROUNDS = 2  # a sweep asks once more for what failed


def draw_api(
    random: Random, *, count: int = 150, failing: float = 0.3, pauses: int = 0, first_id: int = 1
) -> lossy.LossyApi:
    """Gives an account with a deadline that fits the length of the run."""
    deadline = 1.0 if IS_TORTURE else 0.2
    return lossy.LossyApi(random, count, failing=failing, pauses=pauses, timeout_seconds=deadline, first_id=first_id)


def find_losses(root: Path, api: lossy.LossyApi, outcome: lossy.Outcome, *, rate: float = RATE) -> list[str]:
    """Asks everything that must hold after a sweep in which no id was given up."""
    per_id = len(outcome.heard) / len({one.call_id for one in outcome.heard})
    problems = lossy.find_wrong_rows(root, api)
    problems += lossy.find_haste(outcome.heard, rate)
    problems += lossy.find_impatience(outcome.heard, api.floors)
    if outcome.failure is not None or outcome.report is None or outcome.report.failed_ids:
        problems.append(f"the sweep gave up: {outcome.failure}")
    if per_id > MOST_REQUESTS_PER_ID:
        problems.append(f"{per_id:.2f} requests per id")
    if len(outcome.heard) > outcome.sent:
        problems.append(f"{len(outcome.heard)} requests arrived, {outcome.sent} were counted")
    return problems


def test_thirty_percent_lost_attempts_lose_no_row(tmp_path: Path) -> None:
    """Eleven kinds of failure, real HTTP: all rows, no duplicate, few requests, within the rate and after pauses."""
    api = draw_api(Random(SEED), count=choose(600, 10_000), pauses=choose(2, 60), first_id=8_100)
    outcome = lossy.run_once(tmp_path, api, rate=RATE)
    problems = find_losses(tmp_path, api, outcome)
    ids = len({one.call_id for one in outcome.heard})
    tell(
        "lossy api, 30 %",
        calls=len(api.ids_of_day),
        ids=ids,
        rows_missing_or_wrong=len(lossy.find_wrong_rows(tmp_path, api)),
        requests=len(outcome.heard),
        requests_per_id=round(len(outcome.heard) / ids, 3),
        rate=RATE,
        busiest_second=lossy.busiest(outcome.heard),
        pauses=len(api.floors),
        failures=dict(sorted(api.befell.items())),
        violations=len(problems),
        seconds=round(outcome.seconds, 1),
    )
    assert problems == []
    assert api.befell.keys() == set(lossy.WAYS)


@pytest.mark.parametrize("broken", ["limiter", "retry-after", "landing", "repeats"])
def test_a_broken_client_is_caught(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness reports a client without a limiter, without patience, a pushy one; a lake with a hole."""

    async def at_once(_pacer: _Pacer) -> None:
        await asyncio.sleep(0)

    async def fetch_twice(client: CallsClient, call_id: int) -> object:
        await fetch(client, call_id)
        return await fetch(client, call_id)

    fetch, land = CallsClient.fetch, Lake.land
    api = draw_api(Random(SEED), count=60, pauses=3 if broken == "retry-after" else 0)
    if broken == "limiter":
        monkeypatch.setattr(_Pacer, "wait_for_turn", at_once)
    elif broken == "retry-after":
        monkeypatch.setattr(CallsClient, "_heed_retry_after", lambda _client, _response: 0.0)
    elif broken == "landing":
        monkeypatch.setattr(Lake, "land", lambda lake, day, reads: land(lake, day, reads[len(reads) // 2 :]))
    else:
        monkeypatch.setattr(CallsClient, "fetch", fetch_twice)
    rate = 100.0 if broken == "limiter" else 2 * RATE
    problems = find_losses(tmp_path, api, lossy.run_once(tmp_path, api, rate=rate), rate=rate)
    sign = {
        "limiter": "requests within 1.0 s",
        "retry-after": "before the pause was over",
        "landing": "no row",
        "repeats": "requests per id",
    }
    caught = sum(sign[broken] in problem for problem in problems)
    tell("lossy api, twin", twin=broken, requests_per_second=rate, problems=len(problems), caught=caught)
    assert caught


def list_given_up(root: Path, api: lossy.LossyApi, outcome: lossy.Outcome) -> set[int]:
    """Gives the ids of the day that the report or the lake names as without a valid answer."""
    failed = outcome.report.failed_ids if outcome.report else ()
    _, quarantined = lossy.stored_ids(root)
    return set(api.ids_of_day) & {*failed, *quarantined}


def find_silence(root: Path, api: lossy.LossyApi, outcome: lossy.Outcome, attempts: int) -> list[str]:
    """Asks what must hold when ids may be given up.

    Every id has its row, but for those of which all attempts in both rounds fail: they are named. Too many of them fail
    the sweep.
    """
    if outcome.report is None:
        return [f"no report: {outcome.failure}"]
    failed = outcome.report.failed_ids
    _, quarantined = lossy.stored_ids(root)
    given_up, doomed = list_given_up(root, api, outcome), api.doomed(ROUNDS * attempts)
    problems = lossy.find_wrong_rows(root, api, without=sorted(doomed))
    problems += [f"{id_} is given up before its last attempt" for id_ in sorted(given_up - doomed)]
    problems += [f"{id_} has no answer and no name" for id_ in sorted(doomed - given_up)]
    few = 5 if outcome.report.landed else 0
    is_too_many = len(failed) > max(few, 0.05 * outcome.report.requested)
    if is_too_many != isinstance(outcome.failure, SweepFailedError):
        problems.append(f"{len(failed)} of {outcome.report.requested} ids failed, and the sweep says {outcome.failure}")
    if is_too_many and f"{len(failed)} of" not in str(outcome.failure):
        problems.append("the failure does not tell how many")
    unaccounted = outcome.report.coverage[lossy.DAY].unaccounted
    problems += [
        f"{id_} failed and counts as accounted for"
        for id_ in failed
        if id_ in set(api.ids_of_day) - quarantined and not any(first <= id_ <= last for first, last in unaccounted)
    ]
    if len(quarantined & set(api.ids_of_day)) > outcome.report.coverage[lossy.DAY].quarantined:
        problems.append(f"{len(quarantined)} ids are quarantined, and the sweep tells of fewer")
    asked = max(Counter(one.call_id for one in outcome.heard).values())
    if asked > ROUNDS * attempts:
        problems.append(f"one id was asked for {asked} times")
    return problems


def draw_worse_api(name: object) -> lossy.LossyApi:
    """Gives an account of which most attempts fail; a busy machine adds no failure to its deadline."""
    api = draw_api(Random(f"{SEED} {name}"), count=choose(80, 3_000), failing=0.6)
    api.timeout_seconds = max(api.timeout_seconds, 0.4)
    return api


@pytest.mark.parametrize("attempts", [1, 2, 5, 10])
def test_sixty_percent_lost_attempts_lose_no_row_or_name_the_ids(attempts: int, tmp_path: Path) -> None:
    """What has no row is named and had all its attempts; few are; more than five percent fail the sweep."""
    api = draw_worse_api(attempts)
    outcome = lossy.run_once(tmp_path, api, rate=3_000.0, attempts=attempts, jitter=0.01)
    problems = find_silence(tmp_path, api, outcome, attempts)
    given_up = list_given_up(tmp_path, api, outcome)
    expected = len(api.ids_of_day) * api.failing ** (ROUNDS * attempts)
    most = int(expected + 5 * math.sqrt(expected) + 2)  # of seeds, one in tens of thousands gives more
    tell(
        "lossy api, 60 %",
        attempts=attempts,
        calls=len(api.ids_of_day),
        given_up=len(given_up),
        most=most,
        named_by_the_report=len(given_up & set(outcome.report.failed_ids if outcome.report else ())),
        sweep_failed=outcome.failure is not None,
        requests=len(outcome.heard),
        violations=len(problems),
    )
    assert problems == []
    assert len(given_up) <= most
    # With two attempts the share that fails is close to five percent; `find_silence` compares it with the outcome.
    if attempts == 2:
        assert given_up
    else:
        assert (outcome.failure is not None) == (attempts == 1)


def test_a_run_of_which_too_many_ids_fail_names_them_and_publishes_the_others(tmp_path: Path) -> None:
    """With one attempt an id the run fails; its tables show every answered call, the ids without one are known."""
    api = draw_worse_api("run")
    with canaries.serve_aside(api.script()) as served, dg.DagsterInstance.ephemeral() as instance:
        settings = Settings(
            data_dir=tmp_path,
            start_date=lossy.DAY,
            api_base_url=served.url,
            api_token=lossy.TOKEN,
            requests_per_second=3_000,
            timeout_seconds=api.timeout_seconds,
            max_attempts=1,
        )
        ran = run(settings, instance, lossy.DAY)
    lake, doomed = Lake.open(tmp_path), api.doomed(ROUNDS)
    _, quarantined = lossy.stored_ids(tmp_path)
    shown = lake.read_table("calls", lossy.DAY)["call_id"].to_pylist()
    unaccounted = next(coverage(lake, [lossy.DAY], lossy.ZONE)).unaccounted
    named = {id_ for first, last in unaccounted for id_ in range(first, last + 1)}
    named |= {int(id_) for id_ in re.findall(r"\d+", ran.failure.partition("(first: ")[2])}  # those before any call too
    tell("lossy api, failed run", calls=len(api.ids_of_day), shown=len(shown), given_up=len(doomed))
    assert not ran.success
    assert re.search(r"\d+ of \d+ ids had no answer", ran.failure)
    assert sorted(shown) == sorted(set(api.ids_of_day) - doomed)
    assert doomed <= named | quarantined
    assert {name for name, day in ran.materialized if day == str(lossy.DAY)} >= set(DAILY_TABLES)


@pytest.mark.parametrize("broken", ["success", "haste", "silence"])
def test_a_sweep_that_gives_up_wrongly_is_caught(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness reports any number of failures called a success, attempts not made, a failed id kept quiet."""
    if broken == "success":
        monkeypatch.setattr(sweep_module, "FAILED_SHARE", 1.0)
    api = draw_api(Random(SEED), count=80, failing=0.8)
    outcome = lossy.run_once(tmp_path, api, rate=3_000.0, attempts=2 - (broken == "haste"), jitter=0.01)
    if broken == "silence" and outcome.report:
        outcome = replace(outcome, report=replace(outcome.report, failed_ids=()))
    sign = {"success": "the sweep says None", "haste": "before its last attempt", "silence": "no answer and no name"}
    problems = find_silence(tmp_path, api, outcome, 2)
    caught = sum(sign[broken] in problem for problem in problems)
    tell("lossy api, 80 %, twin", twin=broken, problems=len(problems), caught=caught)
    assert caught


def die_and_recover(root: Path, api: lossy.LossyApi, *, forget: bool = False) -> tuple[list[str], dict[str, object]]:
    """Lets an API die half-way, by silence and then by refusing, and come back; `forget` loses the lake on the way.

    Returns:
        What went wrong, and the counts.
    """

    async def main() -> tuple[list[str], dict[str, object]]:
        problems, seconds = [], []
        api.dies_after = 200 + len(api.ids_of_day) // 2
        async with serve(api.script()) as served:
            silent = await lossy.sweep_over(root, api, served.url, served.heard, rate=RATE, attempts=5)
        refused = await lossy.sweep_over(root, api, served.url, served.heard, rate=RATE, attempts=5)
        for name, outcome in (("silence", silent), ("refusal", refused)):
            seconds.append(round(outcome.seconds, 1))
            if not isinstance(outcome.failure, SweepFailedError) or outcome.report is None:
                problems.append(f"{name} ends with {outcome.failure}")
        stored, _ = lossy.stored_ids(root)
        if forget:
            shutil.rmtree(root)
        api.dies_after = math.inf
        async with serve(api.script()) as served:
            back = await lossy.sweep_over(root, api, served.url, served.heard, rate=RATE, attempts=5)
        problems += [f"{one.call_id} was stored and asked for again" for one in back.heard if one.call_id in stored]
        problems += lossy.find_wrong_rows(root, api)
        if len(stored) < len(api.ids_of_day) // 4:
            problems.append(f"only {len(stored)} calls were stored when the API died")
        return problems, {"stored_before": len(stored), "asked_after": len(back.heard), "typed_end_seconds": seconds}

    return asyncio.run(main())


def test_a_dead_api_ends_the_sweep_and_costs_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An API that falls silent or refuses ends the sweep with its kind of error; the next sweep asks for the rest."""
    most = TYPED_END_SECONDS
    if not IS_TORTURE:
        monkeypatch.setattr(sweep_module, "GIVE_UP_SECONDS", 1.0)
        most = 10.0
    api = draw_api(Random(SEED), count=choose(300, 3_000), failing=0.0)
    api.timeout_seconds = choose(1, 30)
    problems, counts = die_and_recover(tmp_path, api)
    ends = counts["typed_end_seconds"]
    assert isinstance(ends, list)
    working = (200 + len(api.ids_of_day) / 2) / RATE
    problems += [f"it took {seconds} s to give up" for seconds in ends if seconds > working + most]
    tell("lossy api, dead", **counts, violations=len(problems))
    assert problems == []


@pytest.mark.parametrize("broken", ["forgets", "waits"])
def test_a_sweep_that_forgets_or_waits_for_ever_is_caught(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The harness reports a lake lost on the way, and a sweep that does not give up."""
    monkeypatch.setattr(sweep_module, "GIVE_UP_SECONDS", 1.0 if broken == "forgets" else math.inf)
    api = draw_api(Random(SEED), failing=0.0)
    if broken == "forgets":
        problems, counts = die_and_recover(tmp_path, api, forget=True)
        caught = sum("was stored and asked for again" in problem for problem in problems)
        tell("lossy api, dead, twin", twin=broken, **counts, caught=caught)
        assert caught
        return
    api.dies_after = 100
    api.timeout_seconds = 60.0

    async def main() -> None:
        async with serve(api.script()) as served, asyncio.timeout(2.5):
            await lossy.sweep_over(tmp_path, api, served.url, served.heard, rate=RATE)

    tell("lossy api, dead, twin", twin=broken)
    with pytest.raises(TimeoutError):
        asyncio.run(main())


def test_no_request_comes_before_a_retry_after_moment() -> None:
    """Seconds, dates in three forms, skewed clocks, the past, absurd wishes and garbage, in virtual time."""
    kept = patience.keep_pauses(Random(SEED), 1_000)
    tell(
        "retry-after",
        cases=sum(kept.cases.values()),
        kinds=dict(sorted(kept.cases.items())),
        violations=len(kept.problems),
    )
    assert kept.problems == []
    assert len(kept.cases) == 7


@pytest.mark.parametrize("broken", ["ignored", "own clock", "taken literally"])
def test_a_client_that_reads_retry_after_wrongly_is_caught(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness reports a client that ignores it, one with its own clock, one that waits for hours."""

    def trust_own_clock(client: CallsClient, response: httpx.Response) -> float:
        seconds = parse_retry_after(response.headers.get("retry-after", ""), client._clock()) or 0.0
        client._pacer.pause(seconds)
        return seconds

    if broken == "ignored":
        monkeypatch.setattr(CallsClient, "_heed_retry_after", lambda _client, _response: 0.0)
    elif broken == "own clock":
        monkeypatch.setattr(CallsClient, "_heed_retry_after", trust_own_clock)
    else:
        monkeypatch.setattr(client_module, "_LONGEST_RETRY_AFTER_SECONDS", 5_000.0)
    kept = patience.keep_pauses(Random(SEED), 200)
    tell("retry-after, twin", twin=broken, cases=sum(kept.cases.values()), caught=len(kept.problems))
    assert kept.problems
