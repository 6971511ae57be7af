"""Dagster overhead: a sweep of a day as a command, beside an empty asset.

    python benchmarks/overhead.py             # QUICK=1: one round

Every contender is `dagster asset materialize`, a process of its own. The floor is an empty asset in the same project.
A sweep is everything: raw records, deliveries, seven tables, agents, marts, catalogue and the report of the day, with
all asset checks. The day has 2,000 calls; each sweep with new calls finds 200 more of it. The range is 30 days without
anything to do, in one run. The server answers at once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from harness import DAY, OURS, PEERS, QUICK, ROOT, TOKEN, Server, emit, run_server, tell

ROUNDS = 1 if QUICK else 5
CALLS = 2_000
NEW = 200
RANGE_DAYS = 30
FLOOR = "empty asset in the same project"
ALONE = "empty asset in an empty project"
IDLE = f"{OURS}, nothing to do"
BUSY = f"{OURS}, {NEW} new calls"


@dataclass(frozen=True, slots=True)
class Run:
    """What one command took.

    Attributes:
        seconds: From start to end.
        cpu_seconds: User and system time.
    """

    seconds: float
    cpu_seconds: float


def main() -> None:
    """Measures the commands in turn."""
    root = Path(tempfile.mkdtemp(prefix="overhead-"))
    try:
        with run_server(CALLS + NEW * (ROUNDS + 1)) as server:
            environment = make_environment(root, server.url)
            measure_commands(server, environment)
            measure_range(environment)
    finally:
        shutil.rmtree(root)


def make_environment(root: Path, url: str) -> dict[str, str]:
    """Gives the variables of a deployment below a directory."""
    home = root / "dagster_home"
    home.mkdir()
    shutil.copy(ROOT / "dagster.yaml", home)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CALLS_", "DAGSTER_")) and name != "PYTHONDONTWRITEBYTECODE"
    }
    return kept | {
        "DAGSTER_HOME": str(home),
        "CALLS_DATA_DIR": str(root / "lake"),
        "CALLS_API_BASE_URL": url,
        "CALLS_API_TOKEN": TOKEN,
        "CALLS_API_REQUESTS_PER_SECOND": "100000",
        "CALLS_START_DATE": str(date.fromisoformat(DAY) - timedelta(days=RANGE_DAYS - 1)),
        "CALLS_BACKFILL_DAYS_PER_RUN": "0",
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(PEERS))),
    }


def measure_commands(server: Server, environment: Mapping[str, str]) -> None:
    """A day with nothing to do, and with new calls, beside the floors."""
    sweep = ("-m", "calls_assets.definitions", "--select", "*", "--partition", DAY)
    calls = CALLS
    server.configure({"calls": calls})
    materialize(environment, *sweep)
    runs: dict[str, list[Run]] = {IDLE: [], BUSY: [], FLOOR: [], ALONE: []}
    for _ in range(ROUNDS):
        runs[FLOOR].append(materialize(environment, "-m", "empty_asset", "--select", "empty"))
        runs[ALONE].append(materialize(environment, "-m", "empty_project", "--select", "empty"))
        runs[IDLE].append(materialize(environment, *sweep))
        calls += NEW
        server.configure({"calls": calls})
        runs[BUSY].append(materialize(environment, *sweep))
        if server.stats()["calls"] < NEW:
            sys.exit("the new calls were not found")
    report("a sweep of a day as a command", runs)


def measure_range(environment: Mapping[str, str]) -> None:
    """Thirty days in one run, when all of it is done."""
    first = date.fromisoformat(DAY) - timedelta(days=RANGE_DAYS - 1)
    sweep = ("-m", "calls_assets.definitions", "--select", "*", "--partition-range", f"{first}...{DAY}")
    materialize(environment, *sweep)
    runs: dict[str, list[Run]] = {f"{OURS}, {RANGE_DAYS} days": [], FLOOR: []}
    for _ in range(1 if QUICK else 3):
        runs[FLOOR].append(materialize(environment, "-m", "empty_asset", "--select", "empty"))
        runs[f"{OURS}, {RANGE_DAYS} days"].append(materialize(environment, *sweep))
    report("a range in one run", runs)


def report(benchmark: str, runs: Mapping[str, list[Run]]) -> None:
    """Prints the figures."""
    for name, found in runs.items():
        emit(benchmark, name, "seconds", [run.seconds for run in found])
        floors = [run.seconds for run in runs[FLOOR]]
        emit(
            benchmark,
            name,
            "seconds beyond the floor",
            [run.seconds - floor for run, floor in zip(found, floors, strict=True)],
        )
        emit(benchmark, name, "CPU seconds", [run.cpu_seconds for run in found])


def materialize(environment: Mapping[str, str], *arguments: str) -> Run:
    """Runs the command."""
    before, began = os.times(), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "asset", "materialize", *arguments],
        env=dict(environment),
        cwd=environment["DAGSTER_HOME"],
        capture_output=True,
        text=True,
        check=False,
    )
    ended, after = time.monotonic(), os.times()
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    tell(f"{' '.join(arguments)}: {ended - began:.2f} s, CPU {cpu:.2f} s")
    return Run(ended - began, cpu)


if __name__ == "__main__":
    main()
