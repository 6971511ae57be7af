"""Alerts: sensors that post failed runs and checks that began to fail to `CALLS_ALERT_URL`; none without it.

What belongs here: what an alert says. It is built from Dagster's events, which hold no personal data; of an error that
nobody foresaw only the type is told, because its text is not ours. What stays out: delivery (`calls_assets.alerts`).

An alert that its receiver does not take is given up, and the sensor's tick shows as failed: nothing waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from calls_assets.alerts import post_alert
from calls_assets.defs.runs import days_of
from calls_assets.settings import Settings

_LONGEST_TEXT = 300
_MOST_CHECKS = 20
_INTERVAL_SECONDS = 30


def build_alerts(settings: Settings) -> list[dg.SensorDefinition]:
    """Makes the sensors, or none when no address is configured."""
    url = settings.alert_url
    if url is None:
        return []

    @dg.run_failure_sensor(
        name="run_failure_alert",
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Posts each failed run to CALLS_ALERT_URL.",
    )
    def run_failure_alert(context: dg.RunFailureSensorContext) -> None:
        errors = [explain_step(event) for event in context.get_step_failure_events()]
        error = errors[0] if errors else _shorten(context.failure_event.message or "no reason is known")
        post_alert(url, describe_run(context.dagster_run, settings, event="run_failed", what=error))

    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        name="failed_check_alert",
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Posts checks of severity error to CALLS_ALERT_URL, when they begin to fail for a day.",
    )
    def failed_check_alert(context: dg.RunStatusSensorContext) -> None:
        checks = list_failed_checks(context.instance, context.dagster_run)
        if checks:
            what = "; ".join(f"{check['check']} of {check['asset']} fails" for check in checks)
            body = describe_run(context.dagster_run, settings, event="check_failed", what=_shorten(what))
            post_alert(url, {**body, "checks": checks})

    return [run_failure_alert, failed_check_alert]


def explain_step(event: dg.DagsterEvent) -> str:
    """Says what a step died of: the text of a failure that the project raised, else the type of the error."""
    failure = event.step_failure_data
    if failure.user_failure_data is not None and failure.user_failure_data.description:
        return _shorten(failure.user_failure_data.description)
    error = failure.error
    while error is not None and error.cause is not None:
        error = error.cause
    return f"{event.step_key}: {error.cls_name if error is not None else 'an unknown error'}, see the run's log"


def describe_run(run: dg.DagsterRun, settings: Settings, *, event: str, what: str) -> dict[str, Any]:
    """Builds the body of an alert; `text` alone is enough for a chat service."""
    days = days_of(run)
    first, last = days or (None, None)
    place = "" if first is None else f" for {first}" if first == last else f" for {first} to {last}"
    body = {
        "text": f"calls-assets: {run.job_name}{place}: {what}",
        "event": event,
        "run_id": run.run_id,
        "job": run.job_name,
        "first_day": first,
        "last_day": last,
        "error": what,
    }
    return body if settings.ui_url is None else body | {"url": f"{settings.ui_url}/runs/{run.run_id}"}


def list_failed_checks(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[dict[str, str | None]]:
    """Lists the checks of severity error that failed in a run and had not failed in the one before it.

    The one before is the last successful run of the same job for the same days: so that a day that is swept every
    minute says once that a check fails.
    """
    failed = _failed_checks(instance, run.run_id)
    if not failed:
        return []
    earlier = _run_before(instance, run)
    known = _failed_checks(instance, earlier.run_id) if earlier is not None else {}
    return [_describe_check(check) for key, check in failed.items() if key not in known][:_MOST_CHECKS]


def _failed_checks(instance: dg.DagsterInstance, run_id: str) -> Mapping[tuple[str, str | None], Any]:
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
    found = [record.event_log_entry.get_dagster_event().asset_check_evaluation_data for record in records]
    return {
        (check.asset_check_key.to_user_string(), check.partition): check
        for check in found
        if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR
    }


def _run_before(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRun | None:
    days = days_of(run)
    same: Sequence[dg.DagsterRun] = instance.get_runs(
        dg.RunsFilter(job_name=run.job_name, statuses=[dg.DagsterRunStatus.SUCCESS]), limit=200
    )
    ids = [other.run_id for other in same]
    older = same[ids.index(run.run_id) + 1 :] if run.run_id in ids else same
    return next((other for other in older if days_of(other) == days), None)


def _describe_check(check: Any) -> dict[str, str | None]:  # noqa: ANN401 - its type changes between minor versions
    return {
        "asset": check.asset_key.to_user_string(),
        "check": check.check_name,
        "day": check.partition,
        "description": _shorten(check.description or ""),
    }


def _shorten(text: str) -> str:
    line = text.strip().split("\n", 1)[0]
    return line if len(line) <= _LONGEST_TEXT else f"{line[: _LONGEST_TEXT - 1]}…"
