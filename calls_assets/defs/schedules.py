"""Schedules: every night the days with reads that are due, and a wide look ahead for new ids."""

from collections.abc import Iterator
from datetime import UTC, timedelta

import dagster as dg

from calls_assets.defs.jobs import SWEEP_JOB
from calls_assets.defs.resources import CallsApi, LakeStore
from calls_assets.defs.runs import is_in_flight
from calls_assets.defs.sensors import days_behind
from calls_assets.ingest import due_days
from calls_assets.lake import LakeError
from calls_assets.settings import Settings


def build_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """Makes the schedules."""

    @dg.schedule(
        name="nightly_sweep",
        job_name=SWEEP_JOB,
        cron_schedule="15 3 * * *",  # no zone changes its clock then
        execution_timezone=settings.timezone.key,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Sweeps yesterday, today and every day with calls that are due to be read again.",
    )
    def nightly_sweep(
        context: dg.ScheduleEvaluationContext,
        calls_api: dg.ResourceParam[CallsApi],
        lake_store: dg.ResourceParam[LakeStore],
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        problem = settings.api_problem()
        if problem is not None:
            yield dg.SkipReason(problem)
            return
        now = context.scheduled_execution_time.astimezone(UTC)
        today = now.astimezone(settings.timezone).date()
        try:
            lake = lake_store.open(lambda error: context.log.warning(str(error)))
            missed, recent = days_behind(lake, today, settings.start_date)
            days = {*due_days(lake, now=now, options=calls_api.options), *missed, *recent}
        except LakeError as error:
            yield dg.SkipReason(f"could not look: {error}")
            return
        days = {day for day in {*days, today - timedelta(days=1), today} if settings.start_date <= day <= today}
        if not days:
            yield dg.SkipReason(f"the first day is CALLS_START_DATE={settings.start_date}")
        for day in sorted(days, reverse=True):
            if is_in_flight(context.instance, day):
                continue
            config = {"ops": {"call_records": {"config": {"look_far_ahead": day == today}}}}
            yield dg.RunRequest(
                run_key=f"{now:%Y-%m-%dT%H:%M}/{day}",  # a tick repeated after a crash starts no second run
                partition_key=day.isoformat(),
                run_config=config,
                tags={"dagster/priority": "5"},
            )

    return [nightly_sweep]
