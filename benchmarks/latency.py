"""Against latency and against a rate limit: the share of what is possible at all that a contender reaches.

    python benchmarks/latency.py             # QUICK=1: fewer calls, one round

Contenders, commands and server are those of the section before; slow ones run once. Singer's tap asks for 200 calls
under latency, as it has one request in flight: its CPU a call is mostly its start.

Latency: every answer takes 50 ms more; with 16 or 64 requests in flight, 320 or 1,280 a second are possible. "While
fetching" is the rate of the middle 80 %: of all answers, 404s included, and of the calls among them. Ours searches for
the day's ids, and asks meanwhile for those it is sure of; the others are told them, and all their answers are calls.
"From first to last answer" includes whatever a contender does between requests.

Rate limit: 50 a second, more is answered 429 with Retry-After. `bucket` lets unused turns of the last second be used at
once, `window` allows no more than 50 in any second. Who can be told the limit is told it; the others may retry. All
requests count, but "calls while fetching" leaves out what ours asks for to find the ids: 600 calls are few for a
search, and take it 960 requests. Above 100 % is who began with a full bucket or went on until refused; who ended at the
first refusal has no share (-).
"""

from __future__ import annotations

import os
from collections import defaultdict
from functools import partial

from harness import CONTENDERS, OURS, QUICK, Contender, Run, Server, emit_runs, run_once, run_server, tell

LATENCY_MS = 50
COUNTS = {16: 800, 64: 3_000} if QUICK else {16: 10_000, 64: 10_000}
ROUNDS = int(os.environ.get("ROUNDS", "3")) if not QUICK else 1
RATE = 50
RATE_COUNT = 500 if QUICK else 600
RATE_IN_FLIGHT = 16
_SINGER = "Singer tap, partitions, no log"
_ONE_AT_A_TIME = {_SINGER}
_AGAINST_LATENCY = (
    OURS,
    "script, aiohttp",
    "script, httpx over aiohttp",
    "script, httpx",
    "dlt, async",
    "dlt, as documented",
    "Airbyte CDK",
    _SINGER,
)
_AGAINST_LIMIT = (OURS, "script, httpx over aiohttp", "dlt, async", "dlt, as documented", "Airbyte CDK", _SINGER)
_KEEPS_TO_A_RATE = {OURS, "Airbyte CDK"}


def main() -> None:
    """Measures both and prints."""
    with run_server(max(COUNTS.values())) as server:
        for in_flight, count in COUNTS.items():
            measure_latency(server, in_flight, count)
        for rule in ("bucket", "window"):
            measure_limit(server, rule)


def measure_latency(server: Server, in_flight: int, count: int) -> None:
    """Fetches from a server that takes its time."""
    runs: dict[str, list[Run]] = defaultdict(list)
    possible = in_flight * 1000 / LATENCY_MS
    for number in range(ROUNDS):
        for contender in _pick(_AGAINST_LATENCY):
            if contender.is_slow and number:
                continue
            calls = 200 if contender.name in _ONE_AT_A_TIME else count
            options: dict[str, float | str] = {"calls": max(calls, 500), "latency_ms": LATENCY_MS}
            run = run_once(contender, server, options, count=calls, in_flight=in_flight)
            rate = run.stats["middle_per_second"] or 0.0
            tell(
                f"latency {in_flight} in flight {contender.name}: {rate:.0f}/s while fetching, {run.work_seconds:.2f} s"
                f"{'' if run.is_success else ', FAILED'}"
            )
            if run.is_success:
                runs[contender.name].append(run)
    if not runs[OURS]:
        raise SystemExit("no run of ours succeeded: see .bench/run/ours/stderr")
    benchmark = f"latency, {in_flight} in flight"
    for name, done in runs.items():
        for metric, key in (
            ("% of possible, answers while fetching", "middle_per_second"),
            ("% of possible, calls while fetching", "calls_middle_per_second"),
            ("% of possible, from first to last answer", "answered_per_second"),
        ):
            emit_runs(benchmark, name, metric, done, partial(_share, key, possible))
        emit_runs(benchmark, name, "most in flight", done, lambda run: run.stats["peak_in_flight"])
        emit_runs(benchmark, name, "CPU ms/call", done, lambda run: 1000 * run.cpu_seconds / run.stats["calls"])


def measure_limit(server: Server, rule: str) -> None:
    """Fetches from a server that refuses more than the limit."""
    runs: dict[str, list[Run]] = defaultdict(list)
    for number in range(ROUNDS):
        for contender in _pick(_AGAINST_LIMIT):
            if contender.is_slow and number:
                continue
            options: dict[str, float | str] = {"calls": RATE_COUNT, "rate": RATE, "rule": rule}
            rate = RATE if contender.name in _KEEPS_TO_A_RATE else None
            run = run_once(contender, server, options, count=RATE_COUNT, in_flight=RATE_IN_FLIGHT, rate=rate)
            stats = run.stats
            tell(
                f"rate limit {rule} {contender.name}: {stats['calls']} calls, "
                f"{stats['answered_per_second'] or 0:.2f}/s, {stats['refused']} refused"
                f"{'' if run.is_success else ', FAILED'}"
            )
            runs[contender.name].append(run)
    benchmark = f"rate limit, {rule}"
    for name, done in runs.items():
        if all(run.is_success for run in done):
            for metric, key in (
                ("% of the limit", "answered_per_second"),
                ("% of the limit, calls while fetching", "calls_middle_per_second"),
            ):
                emit_runs(benchmark, name, metric, done, partial(_share, key, RATE))
        emit_runs(benchmark, name, f"calls got, of {RATE_COUNT}", done, lambda run: run.stats["calls"])
        emit_runs(benchmark, name, "refusals (429)", done, lambda run: run.stats["refused"])


def _share(key: str, possible: float, run: Run) -> float:
    return float(100 * run.stats[key] / possible)


def _pick(names: tuple[str, ...]) -> list[Contender]:
    return [contender for contender in CONTENDERS if contender.name in names]


if __name__ == "__main__":
    main()
