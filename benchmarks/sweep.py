"""Sweep throughput: 10,000 calls by id, 64 requests in flight, from a server that answers at once.

    python benchmarks/sweep.py             # QUICK=1: 2,000 calls, one round

The commands below run in environments made of the lock files beside them, and are told by
[`harness.py`](../benchmarks/harness.py) in variables what to ask [`server.py`](../benchmarks/server.py) for.

Rounds are interleaved: each contender runs once, then all again. Medians; slow contenders run in every other round.
The count excludes what we ask for beyond the 10,000 to find them; the time does not.
"""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from functools import partial

from harness import CONTENDERS, QUICK, Run, emit_runs, run_once, run_server, tell

COUNT = 2_000 if QUICK else 10_000
FEW = 500
ROUNDS = int(os.environ.get("ROUNDS", "5")) if not QUICK else 1


def main() -> None:
    """Measures and prints."""
    runs: dict[str, list[Run]] = defaultdict(list)
    starts: dict[str, list[Run]] = defaultdict(list)
    with run_server(COUNT) as server:
        for number in range(ROUNDS):
            for contender in CONTENDERS:
                if contender.is_slow and number % 2:
                    continue
                for count, found in ((FEW, starts), (COUNT, runs)):
                    run = run_once(contender, server, {"calls": count}, count=count)
                    tell(
                        f"sweep {number + 1}/{ROUNDS} {contender.name}: {count} calls, {run.work_seconds:.2f} s of "
                        f"{run.whole_seconds:.2f} s, CPU {run.cpu_seconds:.2f} s{'' if run.is_success else ', FAILED'}"
                    )
                    if run.is_success:
                        found[contender.name].append(run)
    if missing := [contender.name for contender in CONTENDERS if not (runs[contender.name] and starts[contender.name])]:
        raise SystemExit(f"no run succeeded of: {'; '.join(missing)} (see .bench/run/*/stderr)")
    for name, done in runs.items():
        start = statistics.median(run.cpu_seconds for run in starts[name])
        emit_runs("sweep", name, "calls/s", done, lambda run: COUNT / run.work_seconds)
        emit_runs("sweep", name, "calls/s, start included", done, lambda run: COUNT / run.whole_seconds)
        emit_runs("sweep", name, "CPU ms/call", done, lambda run: 1000 * run.cpu_seconds / COUNT)
        emit_runs("sweep", name, "CPU ms/call, start excluded", done, partial(_cost, start))
        emit_runs("sweep", name, "requests", done, lambda run: run.stats["requests"])


def _cost(start: float, run: Run) -> float:
    """Gives what a call more costs (ms): the difference between many calls and few, so no interpreter and imports."""
    return 1000 * (run.cpu_seconds - start) / (COUNT - FEW)


if __name__ == "__main__":
    main()
