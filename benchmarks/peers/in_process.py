"""An empty asset and sweeps of a day, run again and again within one process that has loaded everything.

A sweep up to the tables has the assets of the groups `raw` and `tables`; the others have all.

    python benchmarks/peers/in_process.py DAY CALLS NEW ROUNDS

CALLS are those that the server has to begin with; NEW more come before each sweep that is to find some. Prints seconds
and CPU seconds of each run as JSON. The first of each is not counted.
"""

import json
import os
import sys
import time
import urllib.request

import dagster as dg
import empty_asset


def main() -> None:
    """Runs all of them in turn."""
    day, (calls, new, rounds) = sys.argv[1], map(int, sys.argv[2:])
    job = empty_asset.defs.resolve_implicit_global_asset_job_def()
    keys = sorted(job.asset_layer.executable_asset_keys)
    empty = [key for key in keys if key == empty_asset.empty.key]
    sweep = [key for key in keys if key != empty_asset.empty.key]
    tables = [key for key in sweep if job.asset_layer.get(key).group_name in {"raw", "tables"}]
    found: dict[str, list[tuple[float, float]]] = {}
    with dg.DagsterInstance.get() as instance:

        def run(name: str, selection: list[dg.AssetKey], partition: str | None) -> None:
            began, before = time.perf_counter(), time.process_time()
            result = job.execute_in_process(instance=instance, asset_selection=selection, partition_key=partition)
            assert result.success
            found.setdefault(name, []).append((time.perf_counter() - began, time.process_time() - before))

        def find(name: str, selection: list[dg.AssetKey]) -> None:
            nonlocal calls
            calls += new
            urllib.request.urlopen(f"{os.environ['CALLS_API_BASE_URL']}/set?calls={calls}", timeout=10).close()
            run(name, selection, day)
            with urllib.request.urlopen(f"{os.environ['CALLS_API_BASE_URL']}/stats", timeout=10) as answer:
                assert json.load(answer)["calls"] >= 0.9 * new

        for _ in range(rounds + 1):
            run("empty", empty, None)
            run("tables, idle", tables, day)
            find("tables, busy", tables)
            find("busy", sweep)
            run("idle", sweep, day)
    json.dump({name: runs[1:] for name, runs in found.items()}, sys.stdout)


if __name__ == "__main__":
    main()
