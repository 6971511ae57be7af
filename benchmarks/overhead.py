"""Dagster overhead: a sweep of a day beside an empty asset, as a command and from a sensor's tick.

    python benchmarks/overhead.py             # QUICK=1: one round

As a command, every contender is `dagster asset materialize`, a process of its own. The floor is an empty asset in the
same project ([`-m empty_asset`](../benchmarks/peers/empty_asset.py)). Our definitions make its command shorter too, as
they keep the collector of garbage from what is loaded; "collector not spared" is the same without that
([`-m empty_plain`](../benchmarks/peers/empty_plain.py)); and there is an empty asset in a project of its own
([`-m empty_project`](../benchmarks/peers/empty_project.py)). Ours is `-m calls_assets.definitions --select "*"` with a
partition or a range; within one process all are run by [`in_process.py`](../benchmarks/peers/in_process.py).

A sweep is everything: raw records, deliveries, seven tables, agents, marts, catalogue and the report of the day, with
all asset checks. The day is under way, in a zone in which it is late in the evening; it has 2,000 calls, and each sweep
with new calls finds 200 more of it. The server answers at once. Within one process: the same jobs again and again,
after one of each, so that nothing is to be loaded any more; and besides a sweep "up to the tables", which is what the
section on throughput measures: raw records, deliveries, seven tables and agents, with all checks, but no marts, no
catalogue and no report.

A range is 30 days in one run, of 300 calls each: a backfill that has all of them to fetch, and the same with nothing to
do.

An event: one materialization of a partition, stored in Dagster's own SQLite storage and in
[ours](../calls_assets/run_history.py), which keeps its connections open; in one process, in turn.

From the tick: `dagster dev` with the shipped dagster.yaml, on the simulator, of which new calls come all the time. The
sensor `new_call_ids` looks every five seconds. Measured from the beginning of a tick that saw a call to the moment at
which today's `calls` was replaced, and to the end of its run; the first run, which also loads what the others are
forked from, is left out. Beside it the same with run workers as Dagster starts them
([`spawned_runs.py`](../benchmarks/peers/spawned_runs.py)), and an empty asset in a project that is loaded and has a
sensor that always asks for a run ([`empty_runs.py`](../benchmarks/peers/empty_runs.py)).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import yaml
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from harness import OURS, PEERS, QUICK, ROOT, TOKEN, Server, emit, run_server, tell

from calls_assets.run_history import PooledSqliteStorage
from calls_assets.simulator import Account, Vendor, create_app, serve
from calls_assets_tests.e2e.dagster_dev import DagsterDev, dagster_dev

ROUNDS = 1 if QUICK else int(os.environ.get("ROUNDS", "5"))
CALLS = 2_000
NEW = 200
RANGE_DAYS, CALLS_OF_A_DAY = 30, 300
WATCHED_SECONDS = 60
EVENTS = 200
FLOOR = "empty asset in the same project"
PLAIN = f"{FLOOR}, collector not spared"
ALONE = "empty asset in an empty project"
IDLE = f"{OURS}, nothing to do"
BUSY = f"{OURS}, {NEW} new calls"
TABLES_IDLE = f"{OURS}, up to the tables, nothing to do"
TABLES_BUSY = f"{OURS}, up to the tables, {NEW} new calls"


@dataclass(frozen=True, slots=True)
class Ticking:
    """A sensor in `dagster dev`.

    Attributes:
        module: What is loaded.
        sensor: Its name.
        job: What it runs.
    """

    module: str
    sensor: str
    job: str


TICKING = {
    OURS: Ticking("calls_assets.definitions", "new_call_ids", "sweep_job"),
    f"{OURS}, workers of Dagster's": Ticking("spawned_runs", "new_call_ids", "sweep_job"),
    "empty asset, workers of Dagster's": Ticking("empty_runs", "always", "empty_job"),
}


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
        zone = zone_at(23)
        today = datetime.now(zone).date()
        with run_server(CALLS + NEW * (3 * ROUNDS + 2), "--day", str(today), "--zone", zone.key) as server:
            environment = make_environment(root, server.url) | {
                "CALLS_TIMEZONE": zone.key,
                "CALLS_START_DATE": str(today - timedelta(days=RANGE_DAYS - 1)),
            }
            measure_commands(server, environment, today)
            measure_in_process(environment, today, CALLS + NEW * ROUNDS)
        measure_backfill(root)
        measure_events(root)
        measure_ticks(root / "dev")
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
        "CALLS_BACKFILL_DAYS_PER_RUN": "0",
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(PEERS))),
    }


def measure_commands(server: Server, environment: Mapping[str, str], day: date) -> None:
    """A day with nothing to do, and with new calls, beside the floors."""
    sweep = ("-m", "calls_assets.definitions", "--select", "*", "--partition", str(day))
    calls = CALLS
    server.configure({"calls": calls})
    materialize(environment, *sweep)
    runs: dict[str, list[Run]] = {IDLE: [], BUSY: [], FLOOR: [], PLAIN: [], ALONE: []}
    for _ in range(ROUNDS):
        runs[PLAIN].append(materialize(environment, "-m", "empty_plain", "--select", "empty"))
        runs[FLOOR].append(materialize(environment, "-m", "empty_asset", "--select", "empty"))
        runs[ALONE].append(materialize(environment, "-m", "empty_project", "--select", "empty"))
        runs[IDLE].append(materialize(environment, *sweep))
        calls += NEW
        server.configure({"calls": calls})
        runs[BUSY].append(materialize(environment, *sweep))
        # A few were asked for a moment ago, and are not again within the hour: these calls say that they had begun.
        if server.stats()["calls"] < 0.9 * NEW:
            sys.exit("the new calls were not found")
    report("a sweep of a day as a command", runs)


def measure_in_process(environment: Mapping[str, str], day: date, calls: int) -> None:
    """The same within one process, which is warm."""
    command = [sys.executable, str(PEERS / "in_process.py"), str(day), str(calls), str(NEW), str(ROUNDS)]
    done = subprocess.run(
        command, env=dict(environment), cwd=environment["DAGSTER_HOME"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    found: dict[str, list[list[float]]] = json.loads(done.stdout)
    names = {
        "empty": FLOOR,
        "tables, idle": TABLES_IDLE,
        "tables, busy": TABLES_BUSY,
        "idle": IDLE,
        "busy": BUSY,
    }
    report(
        "a sweep of a day within one process",
        {name: [Run(*run) for run in found[key]] for key, name in names.items()},
    )


def measure_backfill(root: Path) -> None:
    """Thirty days in one run, when all is to be fetched, and when all is done."""
    backfill, idle = (f"{OURS}, {RANGE_DAYS} days, {what}" for what in ("all to fetch", "nothing to do"))
    runs: dict[str, list[Run]] = {backfill: [], idle: [], FLOOR: []}
    zone = zone_at(23)
    today = datetime.now(zone).date()
    first = today - timedelta(days=RANGE_DAYS - 1)
    sweep = ("-m", "calls_assets.definitions", "--select", "*", "--partition-range", f"{first}...{today}")
    options = ("--day", str(today), "--days", str(RANGE_DAYS), "--zone", zone.key)
    with run_server(CALLS_OF_A_DAY * RANGE_DAYS, *options) as server:
        for number in range(1 if QUICK else 3):
            place = root / f"backfill {number}"
            place.mkdir()
            environment = make_environment(place, server.url) | {
                "CALLS_TIMEZONE": zone.key,
                "CALLS_START_DATE": str(first),
            }
            for _ in range(2):  # the first makes Dagster's databases
                floor = materialize(environment, "-m", "empty_asset", "--select", "empty")
            runs[FLOOR].append(floor)
            server.configure({})
            runs[backfill].append(materialize(environment, *sweep))
            if server.stats()["calls"] < 0.8 * CALLS_OF_A_DAY * RANGE_DAYS:
                sys.exit("the calls of the range were not found")
            runs[idle].append(materialize(environment, *sweep))
    report("a range in one run", runs)


def measure_events(root: Path) -> None:
    """Stores events in Dagster's storage of files and in ours."""
    storages = {OURS: PooledSqliteStorage, "Dagster's own storage": DagsterSqliteStorage}
    homes = {name: root / f"events of {kind.__name__}" for name, kind in storages.items()}
    instances = {name: make_instance(homes[name], kind) for name, kind in storages.items()}
    seconds: dict[str, list[float]] = {name: [] for name in storages}
    for number in range(ROUNDS + 1):
        for name, instance in instances.items():
            began = time.monotonic()
            for event in range(EVENTS):
                instance.report_runless_asset_event(dg.AssetMaterialization("calls", partition=str(event)))
            if number:  # the first makes the databases
                seconds[name].append((time.monotonic() - began) / EVENTS)
    for name, instance in instances.items():
        instance.dispose()
        emit("an event in Dagster's run history", name, "milliseconds", [1000 * value for value in seconds[name]])


def make_instance(home: Path, storage: type[DagsterSqliteStorage]) -> dg.DagsterInstance:
    """Makes an instance with a storage in a directory."""
    home.mkdir()
    custom = {"module": storage.__module__, "class": storage.__name__, "config": {"base_dir": str(home)}}
    (home / "dagster.yaml").write_text(yaml.safe_dump({"storage": {"custom": custom}}))
    return dg.DagsterInstance.from_config(str(home))


def measure_ticks(root: Path) -> None:
    """Lets sensors work for a while: ours, ours without forked run workers, and one of an empty asset."""
    zone = zone_at(12)
    today = datetime.now(zone).date()
    account = Account(first_day=today - timedelta(days=1), calls_per_day=20_000, timezone=zone.key)
    with serve(create_app(Vendor(account), token=TOKEN)) as vendor:
        for name, ticking in TICKING.items():
            home = root / ticking.module
            home.mkdir(parents=True)
            environment = make_environment(home, vendor.url) | {
                "CALLS_START_DATE": str(today),
                "CALLS_TIMEZONE": zone.key,
                "CALLS_POLL_SECONDS": "5",
            }
            workspace = home / "workspace.yaml"
            target = {"module_name": ticking.module, "working_directory": str(ROOT), "location_name": "calls_assets"}
            workspace.write_text(yaml.safe_dump({"load_from": [{"python_module": target}]}))
            with dagster_dev(environment, workspace=workspace) as dev:
                rows, ends = watch(dev, ticking, home / f"lake/tables/calls/call_date={today}/calls.parquet")
            tell(f"{name}: {len(ends)} ticks with a run")
            if rows:
                emit("from a tick in dagster dev", name, "seconds to the row", rows)
            emit("from a tick in dagster dev", name, "seconds to the end of the run", ends)


def watch(dev: DagsterDev, ticking: Ticking, table: Path) -> tuple[list[float], list[float]]:
    """Watches a sensor's runs, and the file of a table; gives seconds from ticks to rows and to ends of runs."""
    dev.wait_for("a first run", lambda: list_ended(dev, ticking.job), 300)
    replaced: list[float] = []
    began, until = time.time(), time.monotonic() + WATCHED_SECONDS
    while time.monotonic() < until:
        changed_at = table.stat().st_mtime if table.exists() else 0.0
        if changed_at not in replaced:
            replaced.append(changed_at)
        time.sleep(0.05)
    runs = list_ended(dev, ticking.job)
    rows, ends = [], []
    for tick in dev.ticks(ticking.sensor):
        for run in (runs[run_id] for run_id in tick["runIds"] if run_id in runs and tick["timestamp"] > began):
            ends.append(run["endTime"] - tick["timestamp"])
            rows += [at - tick["timestamp"] for at in replaced if tick["timestamp"] < at <= run["endTime"]][:1]
    if not ends:
        sys.exit(f"no tick of {ticking.sensor} had a run")
    return rows, ends


def zone_at(hour: int) -> ZoneInfo:
    """Gives a zone in which it is this hour, or the nearest that there is; its name counts westwards."""
    return ZoneInfo(f"Etc/GMT{max(-14, min(12, datetime.now(UTC).hour - hour)):+d}")


def list_ended(dev: DagsterDev, job: str) -> dict[str, dict[str, Any]]:
    """Gives a job's runs that succeeded, by id."""
    return {run["runId"]: run for run in dev.runs(statuses=["SUCCESS"], pipelineName=job)}


def report(benchmark: str, runs: Mapping[str, list[Run]]) -> None:
    """Prints the figures."""
    for name, found in runs.items():
        emit(benchmark, name, "seconds", [run.seconds for run in found])
        for metric, floor in (("seconds beyond the floor", FLOOR), ("seconds beyond Dagster's floor", PLAIN)):
            if floor in runs:
                emit(
                    benchmark,
                    name,
                    metric,
                    [run.seconds - least.seconds for run, least in zip(found, runs[floor], strict=True)],
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
