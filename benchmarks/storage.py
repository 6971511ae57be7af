"""The lake in a directory beside the lake in an object store: a sweep of a day, and a rebuild.

    python benchmarks/storage.py             # QUICK=1: smaller, once

The object store is moto's S3 server on loopback, a program in Python that shares the two cores with everybody else, and
a proxy before it that counts: how many requests a day takes is a figure for any store, the seconds are for this one
only, which answers neither as fast as a real one nor as far away. The sweep is that of the first table: 10,000 calls of
one day, answers landed, seven tables made and checked. The rebuild makes the tables of ten days from raw. Both are the
programs of the first and the third table, [`ours.py`](../benchmarks/peers/ours.py) and
[`rebuild_ours.py`](../benchmarks/peers/rebuild_ours.py), told another place.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from harness import CONTENDERS, OURS, PEERS, QUICK, emit, run_once, run_server, tell
from raw_lake import make_raw_lake

from calls_assets.lake import Lake, open_storage
from calls_assets.lake.copy import copy_lake
from calls_assets.settings import Location
from calls_assets_tests.stores import BUCKET, StoreProxy, serve_proxy, serve_store

ROUNDS = 1 if QUICK else int(os.environ.get("ROUNDS", "5"))
CALLS = 2_000 if QUICK else 10_000
DAYS = 2 if QUICK else 10
DIRECTORY, STORE = f"{OURS}, in a directory", f"{OURS}, in an object store"
ASKED = {"PUT": "PUTs a day", "GET": "GETs and listings a day", "POST": "deletions a day"}


def main() -> None:
    """Measures both and prints."""
    root = Path(tempfile.mkdtemp(prefix="storage-"))
    try:
        with serve_store() as url, serve_proxy(url) as proxy:
            os.environ.update(proxy.environment())
            measure_sweep(proxy)
            measure_rebuild(root, proxy)
    finally:
        shutil.rmtree(root)


def measure_sweep(proxy: StoreProxy) -> None:
    """Sweeps a day into a new lake each time."""
    ours = next(contender for contender in CONTENDERS if contender.name == OURS)
    speeds: dict[str, list[float]] = {DIRECTORY: [], STORE: []}
    with run_server(CALLS) as server:
        for _ in range(ROUNDS):
            for name, found in speeds.items():

                def prepare(name: str = name) -> dict[str, str]:
                    proxy.heard.clear()
                    return {"CALLS_DATA_DIR": new_address(), **proxy.environment()} if name == STORE else {}

                run = run_once(ours, server, {"calls": CALLS}, count=CALLS, prepare=prepare)
                if not run.is_success:
                    sys.exit(f"the sweep failed: {name}")
                tell(f"{name}: {run.work_seconds:.2f} s, {len(proxy.heard)} requests to the store")
                found.append(CALLS / run.work_seconds)
    benchmark = f"a sweep of a day of {CALLS:,} calls"
    for name, found in speeds.items():
        emit(benchmark, name, "calls/s", found)
    emit_requests(benchmark, proxy, days=1)


def measure_rebuild(root: Path, proxy: StoreProxy) -> None:
    """Makes all tables of a lake from nothing."""
    bodies = make_raw_lake(root / "lake", days=DAYS, bodies_a_day=CALLS)
    places: dict[str, Location] = {DIRECTORY: root / "lake", STORE: new_address()}
    copy_lake(open_storage(places[DIRECTORY]), open_storage(places[STORE]), log=tell)
    speeds: dict[str, list[float]] = {DIRECTORY: [], STORE: []}
    for _ in range(ROUNDS):
        for name, place in places.items():
            lake = Lake.open(place)
            for file in [*lake.list_files("tables/"), *lake.list_files("published/")]:
                lake.storage.delete(file.key)
            proxy.heard.clear()
            command = [sys.executable, str(PEERS / "rebuild_ours.py"), str(place), "1"]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            seconds = time.monotonic() - float(done.stdout.split()[0])
            tell(f"{name}: {seconds:.2f} s, {len(proxy.heard)} requests to the store")
            speeds[name].append(bodies / seconds)
    benchmark = f"a rebuild of {DAYS} days of {CALLS:,} calls"
    for name, found in speeds.items():
        emit(benchmark, name, "bodies/s", found)
    emit_requests(benchmark, proxy, days=DAYS)


def emit_requests(benchmark: str, proxy: StoreProxy, *, days: int) -> None:
    """Prints what the store was asked in the last round."""
    asked = Counter(heard.method for heard in proxy.heard)
    for method, metric in ASKED.items():
        emit(benchmark, STORE, metric, [asked[method] / days])


def new_address() -> str:
    """Gives an empty place in the store."""
    return f"s3://{BUCKET}/{secrets.token_hex(6)}/lake"


if __name__ == "__main__":
    main()
