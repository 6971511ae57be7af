"""Rebuild: raw records to all daily tables, beside the same in DuckDB's SQL.

    python benchmarks/rebuild.py             # QUICK=1: fewer days

A day has 10,000 bodies. Both read the same raw Parquet files, day by day, and write the seven tables as zstd Parquet.
That their rows are the same is checked first, on a small lake; in `call_changes` values are compared as JSON, because
DuckDB leaves the keys of objects in the vendor's order. Of the bodies one in 17 is an earlier read of a call, three in
a hundred calls have one of the vendor's oddities, one answer in a thousand is quarantined, one id in fifty is missing.

Work is unequal, in DuckDB's favour: it takes what raw says is valid, without holding it against the contract again, and
a field of another type than the documented becomes NULL; it knows only the oddities that occur here. Ours decodes
against the whole contract, looks for webhook deliveries, compares with the files that are there, seals each file and
makes it durable (fsync), marks each day as published.

Ours is [`python benchmarks/peers/rebuild_ours.py LAKE PROCESSES`](../benchmarks/peers/rebuild_ours.py), DuckDB's
[`python benchmarks/peers/rebuild_duckdb.py LAKE OUT THREADS PROCESSES`](../benchmarks/peers/rebuild_duckdb.py) with
[its SQL](../benchmarks/peers/rebuild_duckdb.sql); the lake is made by [`raw_lake.py`](../benchmarks/raw_lake.py).

One core: one process, or one thread, on one core. Two cores: two runs at once, each with half of the days, as the run
queue makes of a large rebuild; of DuckDB one process with two threads, and two processes that share the days as ours.
Peak memory of two processes is the sum of both.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from harness import OURS, PEERS, QUICK, emit, tell
from raw_lake import make_raw_lake

from calls_assets.lake import DAILY_TABLES

DUCKDB, TWO_DUCKDBS = "DuckDB", "DuckDB, two processes"
CORES = {1: "one core", 2: "two cores"}
BODIES_A_DAY = 10_000
ROUNDS = int(os.environ.get("ROUNDS", "3"))
SIZES = ((2, 1),) if QUICK else ((10, ROUNDS), (100, ROUNDS))  # days, rounds


@dataclass(frozen=True, slots=True)
class Run:
    """What one rebuild took.

    Attributes:
        seconds: From start to end, without starting the interpreter.
        cpu_seconds: User and system time, starting included.
        peak: MiB.
    """

    seconds: float
    cpu_seconds: float
    peak: float


def main() -> None:
    """Checks the rows, then measures."""
    root = Path(tempfile.mkdtemp(prefix="rebuild-"))
    try:
        compare_rows(root / "small")
        for days, rounds in SIZES:
            measure(root / str(days), days, rounds)
    finally:
        shutil.rmtree(root)


def compare_rows(root: Path) -> None:
    """Ends the benchmark when the two do not give the same rows."""
    make_raw_lake(root, days=2, bodies_a_day=2_000)
    rebuild_ours(root, 1)
    rebuild_duckdb(root, 1)
    for name in DAILY_TABLES:
        folders = sorted((root / "tables" / name).iterdir())
        for folder in folders:
            ours, theirs = (
                read_rows(path / f"{name}.parquet") for path in (folder, root / "duckdb" / name / folder.name)
            )
            if not ours or ours != theirs:
                sys.exit(f"{name} of {folder.name} differs: {len(ours)} rows, {len(theirs)} of DuckDB")
        tell(f"{name}: the same rows")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Reads rows; JSON texts of changes as values."""
    rows: list[dict[str, Any]] = pq.ParquetFile(path).read().to_pylist()
    for row in rows:
        row.update({name: json.loads(row[name]) for name in ("old_value", "new_value") if row.get(name) is not None})
    return rows


def measure(root: Path, days: int, rounds: int) -> None:
    """Makes a lake and rebuilds it, each in turn."""
    began = time.monotonic()
    bodies = make_raw_lake(root, days=days, bodies_a_day=BODIES_A_DAY)
    tell(f"{bodies:,} bodies in {days} days, made in {time.monotonic() - began:.0f} s")
    contenders: dict[tuple[str, int], Callable[[Path, int], Run]] = {
        (name, cores): rebuild
        for name, cores, rebuild in (
            (OURS, 1, rebuild_ours),
            (DUCKDB, 1, rebuild_duckdb),
            (OURS, 2, rebuild_ours),
            (DUCKDB, 2, rebuild_duckdb),
            (TWO_DUCKDBS, 2, partial(rebuild_duckdb, processes=2)),
        )
        if cores <= (os.cpu_count() or 1)
    }
    runs: dict[tuple[str, int], list[Run]] = {key: [] for key in contenders}
    for _ in range(rounds):
        for key, rebuild in contenders.items():
            runs[key].append(rebuild(root, key[1]))
            tell(f"{key}: {runs[key][-1]}")
    for (name, cores), found in runs.items():
        benchmark = f"rebuild of {days} days, {CORES[cores]}"
        emit(benchmark, name, "bodies/s", [bodies / run.seconds for run in found])
        emit(benchmark, name, "CPU µs/body, start included", [1e6 * run.cpu_seconds / bodies for run in found])
        emit(benchmark, name, "peak memory, MiB", [run.peak for run in found])


def rebuild_ours(root: Path, cores: int) -> Run:
    """Makes the tables from nothing."""
    for name in ("tables", "published"):
        shutil.rmtree(root / name, ignore_errors=True)
    return run("rebuild_ours.py", [str(root), str(cores)], cores)


def rebuild_duckdb(root: Path, cores: int, *, processes: int = 1) -> Run:
    """Makes the tables beside the lake."""
    shutil.rmtree(root / "duckdb", ignore_errors=True)
    numbers = [str(cores // processes), str(processes)]
    return run("rebuild_duckdb.py", [str(root), str(root / "duckdb"), *numbers], cores)


def run(script: str, arguments: Sequence[str], cores: int) -> Run:
    """Runs a contender on so many cores."""
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, allowed[-cores:])
    try:
        before = os.times()
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, str(PEERS / script), *arguments], stdout=subprocess.PIPE, text=True, check=True
        )
        ended = time.monotonic()
    finally:
        os.sched_setaffinity(0, allowed)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    started, peak = map(float, done.stdout.split())
    return Run(seconds=ended - max(began, started), cpu_seconds=cpu, peak=peak)


if __name__ == "__main__":
    main()
