"""Sensors: `new_call_ids` looks beyond the highest stored id, `call_inbox` into the inbox; both start sweeps.

A tick of `new_call_ids` asks at most two ids and stores nothing: what it saw is found again by the sweep. Cursors are
not used, and runs have no run keys: a lost tick or a failed run costs nothing but time.
"""

import asyncio
from datetime import date, timedelta

import dagster as dg

from calls_assets.api import ApiError
from calls_assets.defs.jobs import SWEEP_JOB
from calls_assets.defs.resources import CallsApi, LakeStore
from calls_assets.defs.runs import SILENT_FOR, end_dead_runs, is_in_flight, pause_after_failures
from calls_assets.inbox import Inbox, is_due
from calls_assets.ingest import group_waiting, probe_new_calls
from calls_assets.lake import Lake, LakeError
from calls_assets.settings import Settings, SettingsError

INBOX_INTERVAL_SECONDS = 5
"""A look at the inbox asks the API nothing."""

CATCH_UP_DAYS = 31
"""Days that a sensor or the nightly schedule makes up for after an outage; more is a backfill's matter."""


def days_behind(lake: Lake, today: date, first_day: date) -> tuple[list[date], list[date]]:
    """Lists the days to make up for, of the last month, rising.

    What lies before the first of these that has tables is a backfill's matter, unless none of them has, but an older
    one: then it is the whole month.

    Returns:
        Those without tables before the last day that has some, and those from that day to today.
    """
    earliest = max(first_day, today - timedelta(days=CATCH_UP_DAYS))
    published = {day for day in lake.published_days() if day <= today}
    last = max(*published, earliest) if published else today
    first = min((day for day in published if day >= earliest), default=last)
    days = [first + timedelta(days=offset) for offset in range((today - first).days + 1)]
    return [day for day in days if day < last and day not in published], [day for day in days if day >= last]


def build_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """Makes the sensors."""

    @dg.sensor(
        name="new_call_ids",
        job_name=SWEEP_JOB,
        minimum_interval_seconds=settings.poll_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks for calls beyond the highest stored id and sweeps today, and the days that were missed.",
    )
    def new_call_ids(
        context: dg.SensorEvaluationContext,
        calls_api: dg.ResourceParam[CallsApi],
        lake_store: dg.ResourceParam[LakeStore],
    ) -> dg.SensorResult | dg.SkipReason:
        now = calls_api.now()
        for run_id in end_dead_runs(context.instance, now):
            context.log.warning(f"run {run_id} has said nothing for {SILENT_FOR}: marked as failed")
        problem = settings.api_problem()
        if problem is not None:
            return dg.SkipReason(problem)
        if not settings.id_scan:
            return dg.SkipReason("CALLS_ID_SCAN is off: ids are not searched")
        today = now.astimezone(settings.timezone).date()
        if today < settings.start_date:
            return dg.SkipReason(f"the first day is CALLS_START_DATE={settings.start_date}")
        if is_in_flight(context.instance, today):
            return dg.SkipReason(f"a sweep of {today} is under way")
        pause = pause_after_failures(context.instance, today, now)
        if pause is not None:
            return dg.SkipReason(f"the last sweep of {today} failed: waiting {pause.total_seconds():.0f} s more")
        try:
            lake = lake_store.open(lambda error: context.log.warning(str(error)))
            seen_id = asyncio.run(_probe(calls_api, lake))
            missed, recent = days_behind(lake, today, settings.start_date)
            days = [
                day
                for day in (*missed, *recent)
                if day == today or pause_after_failures(context.instance, day, now) is None
            ]
            # What a run stored before it ended is not seen beyond the highest stored id.
            days = days if seen_id else [day for day in days if not lake.is_shown(day)]
            if not days:
                return dg.SkipReason("no new calls")
        except (ApiError, LakeError, SettingsError) as error:
            return dg.SkipReason(f"could not look: {error}")
        # A hint, so that the sweep need not search for what was seen: nothing is wrong without it.
        hint = {"ops": {"call_records": {"config": {"seen_id": seen_id}}}} if seen_id else {}
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(
                    partition_key=day.isoformat(),
                    run_config=hint if day == today else {},
                    # Today must not wait for what was missed before days that were not.
                    tags={"dagster/priority": "7" if day in missed else "10"},
                )
                for day in days
                if not is_in_flight(context.instance, day)
            ]
        )

    @dg.sensor(
        name="call_inbox",
        job_name=SWEEP_JOB,
        minimum_interval_seconds=INBOX_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sweeps the days for which deliveries of the webhook, or ids that a user named, wait in the inbox.",
    )
    def call_inbox(
        context: dg.SensorEvaluationContext,
        calls_api: dg.ResourceParam[CallsApi],
        lake_store: dg.ResourceParam[LakeStore],
    ) -> dg.SensorResult | dg.SkipReason:
        now, today = calls_api.now(), calls_api.today()
        try:
            waiting = group_waiting(Inbox(lake_store.open().storage), settings, today)
        except (LakeError, OSError) as error:
            return dg.SkipReason(f"could not look: {error}")
        due = sorted(day for day, items in waiting.items() if any(is_due(item, now) for item in items))
        if not due:
            count = sum(map(len, waiting.values()))
            return dg.SkipReason(f"{count} waiting, none is due" if count else "nothing waits")
        problem = settings.api_problem()
        if problem is not None:
            return dg.SkipReason(problem)
        days = [
            day
            for day in due
            if settings.start_date <= day
            and not is_in_flight(context.instance, day)
            and pause_after_failures(context.instance, day, now) is None
        ]
        if not days:
            return dg.SkipReason("sweeps of the days waiting are under way, or have failed just now")
        return dg.SensorResult(
            run_requests=[dg.RunRequest(partition_key=day.isoformat(), tags={"dagster/priority": "10"}) for day in days]
        )

    return [new_call_ids, call_inbox]


async def _probe(api: CallsApi, lake: Lake) -> int | None:
    async with api.connect(is_probe=True) as client:
        return await probe_new_calls(lake, client, now=api.now, options=api.options)
