"""Raw records to all daily tables, as a run of `rebuild_job` makes them.

python benchmarks/peers/rebuild_ours.py LAKE PROCESSES      LAKE: a directory, or a place in an object store

Two processes stand for two runs at once, each with half of the days: what the run queue makes of a large rebuild.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from datetime import date, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from calls_assets.derive import publish_day
from calls_assets.lake import Lake
from calls_assets.settings import Location


def main() -> None:
    """Makes the tables of every day; prints when it began and the peak of memory of all processes together, in MiB."""
    started = time.monotonic()
    place, processes = sys.argv[1], int(sys.argv[2])
    root = place if "://" in place else Path(place)
    days = sorted(Lake.open(root).raw_keys())
    shares = [days[index::processes] for index in range(processes)]
    if processes == 1:
        peaks = [publish(root, days)]
    else:
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            peaks = pool.starmap(publish, [(root, share) for share in shares])
    print(started, sum(peaks))


def publish(root: Location, days: list[date]) -> float:
    """Makes the tables of some days; gives this process's peak of memory."""
    lake = Lake.open(root)
    for day in days:
        publish_day(lake, day, timezone=ZoneInfo("UTC"), reread_after=(timedelta(days=7),))
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
