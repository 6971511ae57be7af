"""Ingest: which ids to ask for, and in which order, so that days of the lake become complete.

`sweep` is the one operation: locate the days' ids, plan what to request, fetch, land. `knowledge` holds what the
lake already says, `plan` the pure rules, `locate` the search over the API, `coverage` the proof of completeness.
"""

from calls_assets.ingest.coverage import Coverage, coverage
from calls_assets.ingest.plan import SweepOptions, due_days, overdue_count
from calls_assets.ingest.sweep import (
    CallSource,
    PlanReport,
    SweepFailedError,
    SweepReport,
    make_plan,
    probe_new_calls,
    sweep,
)

__all__ = [
    "CallSource",
    "Coverage",
    "PlanReport",
    "SweepFailedError",
    "SweepOptions",
    "SweepReport",
    "coverage",
    "due_days",
    "make_plan",
    "overdue_count",
    "probe_new_calls",
    "sweep",
]
