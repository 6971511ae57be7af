"""Runs: which days are being swept right now, and how the last sweeps of a day ended.

What belongs here: questions to Dagster's run storage, asked by sensor and schedule to be considerate. Their answers are
never needed for correctness: that is recomputed from the lake.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import dagster as dg

from calls_assets.defs.jobs import REBUILD_JOB, SWEEP_JOB
from calls_assets.lake import DAILY_TABLES, MARTS

_PARTITION = "dagster/partition"
_RANGE_START = "dagster/asset_partition_range_start"
_RANGE_END = "dagster/asset_partition_range_end"
_FIRST_PAUSE = timedelta(minutes=1)
_LONGEST_PAUSE = timedelta(minutes=30)
SILENT_FOR = timedelta(minutes=3)
"""A run at work logs every few seconds, or a line for each day, or for four weeks of marts or pages."""

_OUR_ASSETS = frozenset(
    dg.AssetKey(name) for name in ("call_records", "call_events", *DAILY_TABLES, *MARTS, "daily_report")
)
_IN_FLIGHT = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


def is_in_flight(instance: dg.DagsterInstance, day: date) -> bool:
    """Tells whether a run that sweeps the day is queued or at work: a job's, a backfill's or one by hand."""
    runs = instance.get_runs(dg.RunsFilter(statuses=list(_IN_FLIGHT)), limit=200)
    return any(_covers(run, day) and is_sweep(run) for run in runs)


def end_dead_runs(instance: dg.DagsterInstance, now: datetime) -> list[str]:
    """Marks our runs at work that have said nothing for three minutes as failed; gives their ids.

    When a machine dies, nobody reports the end of its runs: they would hold the pool for ever. Dagster's run
    monitoring cannot tell with the default launcher. Should such a run be alive after all, another one beside it is
    harmless to the lake.
    """
    ended = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        run = record.dagster_run
        newest = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
        spoke_at = newest[0].timestamp if newest else record.update_timestamp.timestamp()
        if is_ours(run) and now - datetime.fromtimestamp(spoke_at, UTC) >= SILENT_FOR:
            instance.report_run_failed(run, f"the run has said nothing for {SILENT_FOR}: its process is gone")
            ended.append(run.run_id)
    return ended


def is_ours(run: dg.DagsterRun) -> bool:
    """Tells whether a run is this project's: several may share one instance."""
    return run.job_name in {SWEEP_JOB, REBUILD_JOB} or not _OUR_ASSETS.isdisjoint(run.asset_selection or ())


def assets_of(run: dg.DagsterRun) -> frozenset[dg.AssetKey]:
    """Gives the daily assets that a run makes: those it selects, or all."""
    return _OUR_ASSETS & run.asset_selection if run.asset_selection else _OUR_ASSETS


def days_of(run: dg.DagsterRun) -> tuple[str, str] | None:
    """Gives the first and the last day of a run, or None for a run without days."""
    first = run.tags.get(_PARTITION) or run.tags.get(_RANGE_START)
    last = run.tags.get(_PARTITION) or run.tags.get(_RANGE_END)
    return None if first is None or last is None else (first, last)


def _covers(run: dg.DagsterRun, day: date) -> bool:
    days = days_of(run)
    return days is not None and days[0] <= day.isoformat() <= days[1]


def is_sweep(run: dg.DagsterRun) -> bool:
    """Tells whether a run asks the API; else it makes again what it was asked for."""
    if run.asset_selection:
        return dg.AssetKey("call_records") in run.asset_selection
    return run.job_name == SWEEP_JOB


def pause_after_failures(instance: dg.DagsterInstance, day: date, now: datetime) -> timedelta | None:
    """Gives how long to wait still before the day is swept again, when its last sweeps failed; None to go on.

    One minute after one failure, then twice as long each time, half an hour at most.
    """
    records = instance.get_run_records(
        dg.RunsFilter(
            job_name=SWEEP_JOB,
            tags={_PARTITION: day.isoformat()},
            statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED],
        ),
        limit=8,
    )
    failures = 0
    for record in records:
        if record.dagster_run.status == dg.DagsterRunStatus.SUCCESS:
            break
        failures += 1
    if not failures:
        return None
    ended = records[0].end_time or records[0].update_timestamp.timestamp()
    pause = min(_FIRST_PAUSE * 2 ** (failures - 1), _LONGEST_PAUSE)
    left = datetime.fromtimestamp(ended, UTC) + pause - now
    return left if left > timedelta(0) else None
