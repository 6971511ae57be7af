"""Raw records to all daily tables, as a run of `rebuild_job` makes them.

python benchmarks/peers/rebuild_ours.py LAKE PROCESSES      LAKE: a directory, or a place in an object store

Two processes stand for two runs at once, each with half of the days: what the run queue makes of a large rebuild.
"""

from __future__ import annotations

import sys
import time
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

from shared_days import peak_memory, share_days

from calls_assets.derive import publish_day
from calls_assets.lake import Lake
from calls_assets.settings import Location


def main() -> None:
    """Makes the tables of every day; prints when it began and the peak of memory of all processes together, in MiB."""
    started = time.monotonic()
    place, processes = sys.argv[1], int(sys.argv[2])
    root = place if "://" in place else Path(place)
    days = sorted(Lake.open(root).raw_keys())
    print(started, share_days(partial(publish, root), days, processes))


def publish(root: Location, days: list[date]) -> float:
    """Makes the tables of some days; gives this process's peak of memory."""
    lake = Lake.open(root)
    for day in days:
        publish_day(lake, day, timezone=ZoneInfo("UTC"), reread_after=(timedelta(days=7),))
    return peak_memory()


if __name__ == "__main__":
    main()
