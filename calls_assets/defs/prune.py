"""Pruning: `prune_job` deletes old runs of ours that newer ones replaced, with their logs; Dagster keeps all.

Deleting a run takes its materializations out of the asset history, so a run stays until a newer sweep has made the same
assets of the same days: what the UI shows of assets and partitions does not change. What belongs here: which runs
those are. The lake is not touched.
(Dagster reads the annotations of decorated functions, so they are not postponed here.)
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.storage.event_log import SqliteEventLogStorage  # its file per run outlives the run

from calls_assets.defs.jobs import SWEEP_JOB
from calls_assets.defs.runs import assets_of, days_of, is_ours
from calls_assets.settings import Settings

PRUNE_JOB = "prune_job"
MOST_RUNS = 5_000
"""Deleted in one go: the next night goes on."""

_FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_PAGE = 500


def build_prune(settings: Settings) -> tuple[list[dg.JobDefinition], list[dg.ScheduleDefinition]]:
    """Makes the job and its schedule, or none when runs are kept for ever."""
    if not settings.keep_runs_days:
        return [], []

    @dg.op(name="delete_old_runs", description="Deletes old runs that newer ones have replaced, with their logs.")
    def delete_old_runs(context: dg.OpExecutionContext) -> None:
        before = datetime.now(UTC) - timedelta(days=settings.keep_runs_days)
        count = 0
        for run in list_replaced_runs(context.instance, before):
            delete_run(context.instance, run.run_id)
            count += 1
        context.log.info(f"{count:,} runs from before {before:%Y-%m-%d %H:%M} deleted")

    @dg.job(
        name=PRUNE_JOB,
        tags={"dagster/max_runtime": 3600},
        description=f"Deletes runs older than {settings.keep_runs_days} days that newer ones have replaced.",
    )
    def prune_job() -> None:
        delete_old_runs()

    schedule = dg.ScheduleDefinition(
        name="nightly_prune",
        job=prune_job,
        cron_schedule="45 4 * * *",
        execution_timezone=settings.timezone.key,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    return [prune_job], [schedule]


def list_replaced_runs(instance: dg.DagsterInstance, before: datetime, *, most: int = MOST_RUNS) -> list[dg.DagsterRun]:
    """Lists finished runs of ours from before an instant that newer sweeps have replaced, oldest first.

    Args:
        instance: Where the runs are.
        before: Runs created later are left alone.
        most: How many to list at most.
    """
    newest = _NewestSweeps(instance)
    found: list[dg.DagsterRun] = []
    for record in _pages(instance, before):
        run = record.dagster_run
        if run.job_name == PRUNE_JOB or (is_ours(run) and newest.replace(record)):
            found.append(run)
            if len(found) == most:
                break
    return found


def delete_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Deletes a run, its events and what its process printed."""
    instance.delete_run(run_id)
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    storage: Any = instance.event_log_storage
    if isinstance(storage, SqliteEventLogStorage):
        for suffix in ("", "-wal", "-shm"):
            Path(f"{storage.path_for_shard(run_id)}{suffix}").unlink(missing_ok=True)


def _pages(instance: dg.DagsterInstance, before: datetime) -> Iterator[dg.RunRecord]:
    cursor: str | None = None
    while True:
        page = instance.get_run_records(
            dg.RunsFilter(statuses=_FINISHED, created_before=before), limit=_PAGE, cursor=cursor, ascending=True
        )
        yield from page
        if len(page) < _PAGE:
            return
        cursor = page[-1].dagster_run.run_id


class _NewestSweeps:
    """The newest successful sweep of each day, asked for once."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._of_day: dict[str, dg.RunRecord | None] = {}

    def replace(self, record: dg.RunRecord) -> bool:
        """Tells whether newer sweeps have made all assets of all days of a run; without days it is never replaced."""
        days = days_of(record.dagster_run)
        if days is None:
            return False
        first, last = date.fromisoformat(days[0]), date.fromisoformat(days[1])
        for offset in range((last - first).days + 1):
            newer = self._find((first + timedelta(days=offset)).isoformat())
            if (
                newer is None
                or newer.storage_id <= record.storage_id
                or not assets_of(record.dagster_run) <= assets_of(newer.dagster_run)
            ):
                return False
        return True

    def _find(self, day: str) -> dg.RunRecord | None:
        if day not in self._of_day:
            filters = dg.RunsFilter(
                job_name=SWEEP_JOB, tags={"dagster/partition": day}, statuses=[dg.DagsterRunStatus.SUCCESS]
            )
            self._of_day[day] = next(iter(self._instance.get_run_records(filters, limit=1)), None)
        return self._of_day[day]
