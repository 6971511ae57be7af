"""Checks: what must hold between the tables of a day and of the days beside it, counted.

What belongs here: the counting. What stays out: severities and how Dagster is told (`defs.checks`).
"""

from __future__ import annotations

from datetime import date, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from calls_assets.lake import Lake


def count_doubles(lake: Lake, day: date) -> int:
    """Counts the rows of `calls` beyond one for each call, in a day and against the days beside it.

    Raises:
        LakeError: A file is damaged or cannot be read.
    """
    ids = _read_ids(lake, "calls", day)
    beside = [_read_ids(lake, "calls", day + timedelta(days=offset)) for offset in (-1, 1)]
    elsewhere = pc.sum(pc.is_in(ids, value_set=pa.chunked_array([c for b in beside for c in b.chunks], pa.int64())))
    return len(ids) - int(pc.count_distinct(ids).as_py()) + (elsewhere.as_py() or 0)


def count_orphans(lake: Lake, name: str, day: date) -> int:
    """Counts the rows of a day's table whose call is not in `calls`.

    Raises:
        LakeError: A file is damaged or cannot be read.
    """
    ids, calls = _read_ids(lake, name, day), _read_ids(lake, "calls", day)
    return pc.sum(pc.invert(pc.is_in(ids, value_set=calls))).as_py() or 0


def _read_ids(lake: Lake, name: str, day: date) -> pa.ChunkedArray:
    try:
        return lake.read_table(name, day, ["call_id"])["call_id"]
    except FileNotFoundError:
        return pa.chunked_array([], pa.int64())
