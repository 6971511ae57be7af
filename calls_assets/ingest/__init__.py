"""Ingest: which ids to ask for, and in which order, so that days of the lake become complete.

`sweep` is the one operation: locate the days' ids, plan what to request, fetch, land. `knowledge` holds what the
lake already says, `plan` the pure rules, `locate` the search over the API, `coverage` the proof of completeness.
"""

from calls_assets.ingest.coverage import MAX_GAP, MAX_HOLE, Coverage, coverage
from calls_assets.ingest.plan import SweepOptions, due_days
from calls_assets.ingest.sweep import (
    CallSource,
    PlanReport,
    SweepFailedError,
    SweepReport,
    Wanted,
    make_plan,
    probe_new_calls,
    sweep,
)
from calls_assets.ingest.waiting import group_waiting, list_wanted, settle_waiting

__all__ = [
    "MAX_GAP",
    "MAX_HOLE",
    "CallSource",
    "Coverage",
    "PlanReport",
    "SweepFailedError",
    "SweepOptions",
    "SweepReport",
    "Wanted",
    "coverage",
    "due_days",
    "group_waiting",
    "list_wanted",
    "make_plan",
    "probe_new_calls",
    "settle_waiting",
    "sweep",
]
