"""Days shared among processes, and what memory that takes: the same for both contenders of the rebuild."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

_Day = TypeVar("_Day")


def share_days(publish: Callable[[list[_Day]], float], days: Sequence[_Day], processes: int) -> float:
    """Has each process publish its share of the days; gives the peaks of memory of all together, in MiB.

    Args:
        publish: Publishes some days and gives `peak_memory`; it can be pickled.
        days: The days.
        processes: How many; a single one is this.
    """
    shares = [list(days[index::processes]) for index in range(processes)]
    if processes == 1:
        return publish(shares[0])
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return sum(pool.map(publish, shares, chunksize=1))


def peak_memory() -> float:
    """Gives this process's peak of memory, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
