"""From a delivery to its row: the time through receiver, sensor, run and tables, beside an empty Dagster run.

    python benchmarks/webhook_latency.py [calls]

Both are measured in the same way in one run, one after the other: a file appears, a sensor that ticks every five
seconds finds it, a run starts from the queue (`dagster.yaml` as committed), and its result is there. The floor's run
does nothing but write a file. Prints one JSON line with medians and worst cases, in seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq

from calls_assets.simulator import Account, Vendor, create_app, serve
from calls_assets_tests.e2e.dagster_dev import ROOT, dagster_dev
from calls_assets_tests.e2e.running import TOKEN, make_environment

SECRET = "benchmark-secret-0123456789"  # noqa: S105 - of a receiver that lives for a minute
FLOOR = """
import os, pathlib, dagster as dg
box = pathlib.Path(os.environ["FLOOR_BOX"])

@dg.asset
def empty():
    for path in box.glob("*.in"):
        path.rename(path.with_suffix(".out"))

job = dg.define_asset_job("empty_job", selection=[empty])

@dg.sensor(job=job, minimum_interval_seconds=5, default_status=dg.DefaultSensorStatus.RUNNING)
def look():
    return dg.RunRequest() if list(box.glob("*.in")) else dg.SkipReason("nothing")

defs = dg.Definitions(assets=[empty], jobs=[job], sensors=[look], executor=dg.in_process_executor)
"""


def wait_for(look: Callable[[], bool], seconds: float = 60) -> float:
    """Waits until something is there; gives how long it took."""
    began = time.monotonic()
    while not look():
        if time.monotonic() - began > seconds:
            raise TimeoutError
        time.sleep(0.02)
    return time.monotonic() - began


def has_row(lake: Path, call_id: int) -> bool:
    """Tells whether a call is in today's table with its wait."""
    for path in lake.glob("tables/calls/*/calls.parquet"):
        rows = pq.ParquetFile(path).read(columns=["call_id", "waiting_seconds"]).to_pylist()
        if {"call_id": call_id, "waiting_seconds": 18} in rows:
            return True
    return False


def measure_deliveries(root: Path, count: int) -> list[float]:
    """Times deliveries, one after the other, at moments that do not depend on the sensor's."""
    today = datetime.now(UTC).date()
    vendor = Vendor(Account(first_day=today - timedelta(days=2), calls_per_day=4_000, timezone="UTC", first_id=500))
    now = datetime.now(UTC)
    ids = [i for i in vendor.ids_of_day(today - timedelta(days=1)) if vendor.answer(i, now) is not None][:count]
    with serve(create_app(vendor, token=TOKEN)) as server:
        environment = make_environment(
            root,
            server.url,
            CALLS_ID_SCAN="off",
            CALLS_WEBHOOK_SECRET=SECRET,
            CALLS_START_DATE=str(today - timedelta(9)),
        )
        command = [str(Path(sys.executable).parent / "calls-assets"), "webhook", "--port", "0"]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as receiver:
            assert receiver.stdout is not None
            url = receiver.stdout.readline().split()[-1].replace("<secret>", SECRET)
            try:
                with dagster_dev(environment) as dev:
                    dev.wait_for("the sensor", lambda: dev.ticks("call_inbox"))
                    times = []
                    for number, call_id in enumerate(ids):
                        start = vendor.started_at(call_id).isoformat()
                        body = json.dumps({"id": call_id, "startedDate": start, "waitingTime": 18}).encode()
                        began = time.monotonic()
                        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=10) as answer:
                            assert answer.status == 200
                        wait_for(lambda call_id=call_id: has_row(Path(environment["CALLS_DATA_DIR"]), call_id))
                        times.append(time.monotonic() - began)
                        time.sleep(3 + (number * 0.73) % 5)
                    return times
            finally:
                receiver.terminate()


def measure_floor(root: Path, count: int) -> list[float]:
    """Times empty runs, in the same way."""
    home, box = root / "dagster_home", root / "box"
    for directory in (home, box):
        directory.mkdir(parents=True)
    shutil.copy(ROOT / "dagster.yaml", home / "dagster.yaml")
    (root / "floor.py").write_text(FLOOR)
    environment = os.environ | {"DAGSTER_HOME": str(home), "FLOOR_BOX": str(box)}
    command = [sys.executable, "-m", "dagster", "dev", "-f", str(root / "floor.py"), "--port", "0"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            times = []
            for number in range(count + 1):
                (box / f"{number}.in").touch()
                taken = wait_for(lambda number=number: (box / f"{number}.out").exists(), 90)
                times.append(taken)
                time.sleep(3 + (number * 0.73) % 5)
            return times[1:]
        finally:
            process.terminate()


def main() -> None:
    """Measures both and prints them."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory() as directory:
        for name in ("ours", "floor"):
            (Path(directory) / name).mkdir()
        floor = measure_floor(Path(directory) / "floor", count)
        ours = measure_deliveries(Path(directory) / "ours", count)
    result = {
        "calls": len(ours),
        "delivery_to_row": {"median": round(statistics.median(ours), 2), "worst": round(max(ours), 2)},
        "empty_run": {"median": round(statistics.median(floor), 2), "worst": round(max(floor), 2)},
        "ratio_of_medians": round(statistics.median(ours) / statistics.median(floor), 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
