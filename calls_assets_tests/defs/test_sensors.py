"""Tests of the sensor and the schedule against a real Dagster instance and a simulated vendor over HTTP."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from calls_assets.defs import build_definitions
from calls_assets.defs.runs import SILENT_FOR, end_dead_runs, pause_after_failures
from calls_assets.settings import Settings
from calls_assets.simulator import Account, Vendor, create_app, serve
from calls_assets_tests.defs.conftest import TODAY
from calls_assets_tests.e2e.running import TOKEN, read_stats


def tick(settings: Settings, instance: dg.DagsterInstance, name: str = "new_call_ids") -> list[str] | str:
    """Evaluates a sensor: the partitions it asks for, or why it skips."""
    definitions = build_definitions(settings)
    sensor = definitions.resolve_sensor_def(name)
    with dg.build_sensor_context(
        instance=instance, repository_def=definitions.get_repository_def(), resources=definitions.resources
    ) as context:
        outcome = sensor.evaluate_tick(context)
    if outcome.run_requests:
        assert all(request.run_key is None for request in outcome.run_requests)
        return [str(request.partition_key) for request in outcome.run_requests]
    return str(outcome.skip_message)


def sweep(settings: Settings, instance: dg.DagsterInstance, day: date) -> dg.ExecuteInProcessResult:
    """Runs the sweep job for a day."""
    job = build_definitions(settings).resolve_job_def("sweep_job")
    return job.execute_in_process(partition_key=day.isoformat(), instance=instance)


def add_run(instance: dg.DagsterInstance, day: date, status: dg.DagsterRunStatus) -> None:
    """Puts a sweep of a day on record."""
    instance.add_run(dg.DagsterRun(job_name="sweep_job", status=status, tags={"dagster/partition": day.isoformat()}))


def test_an_empty_lake_starts_with_today(settings: Settings, instance: dg.DagsterInstance) -> None:
    """The first tick asks for a sweep and nothing of the API."""
    assert tick(settings, instance) == [TODAY.isoformat()]


def test_new_calls_start_a_sweep_and_none_do_not(settings: Settings, instance: dg.DagsterInstance) -> None:
    """An idle tick costs two requests; days missed since the last stored one are asked for too."""
    first_day = TODAY - timedelta(days=5)
    # Without missing ids: behind one, a tick may need minutes to see the next call.
    account = Account(first_day=first_day, calls_per_day=200, first_id=400, missing_share=0, late_share=0)
    with serve(create_app(Vendor(account), token=TOKEN)) as server:
        settings = replace(settings, api_base_url=server.url)
        assert sweep(settings, instance, TODAY - timedelta(days=2)).success
        requested = tick(settings, instance)
        assert requested == [(TODAY - timedelta(days=back)).isoformat() for back in (2, 1, 0)]
        assert sweep(settings, instance, TODAY).success
        before = read_stats(server.url)["requests"]
        assert tick(settings, instance) == "no new calls"
        assert read_stats(server.url)["requests"] - before == 2


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
def test_a_day_with_a_run_in_flight_is_not_requested_again(
    settings: Settings, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    """Whether that run waits or works."""
    add_run(instance, TODAY, status)
    assert tick(settings, instance) == f"a sweep of {TODAY} is under way"


def test_a_range_in_flight_covers_its_days(settings: Settings, instance: dg.DagsterInstance) -> None:
    """A backfill over today keeps the sensor from starting another run; one of the tables alone does not."""
    tags = {
        "dagster/asset_partition_range_start": (TODAY - timedelta(days=3)).isoformat(),
        "dagster/asset_partition_range_end": TODAY.isoformat(),
    }

    def add_backfill(*names: str) -> None:
        instance.add_run(
            dg.DagsterRun(
                job_name="__ASSET_JOB",
                status=dg.DagsterRunStatus.STARTED,
                tags=tags,
                asset_selection={dg.AssetKey(name) for name in names},
            )
        )

    add_backfill("calls")
    assert tick(settings, instance) == [TODAY.isoformat()]
    add_backfill("calls", "call_records")
    assert "under way" in tick(settings, instance)


def test_a_run_whose_machine_died_does_not_block_for_ever(settings: Settings, instance: dg.DagsterInstance) -> None:
    """Three minutes without a word end it, so that the pool is free; runs of other projects are left alone."""
    add_run(instance, TODAY, dg.DagsterRunStatus.STARTED)
    other = dg.DagsterRun(job_name="other_job", status=dg.DagsterRunStatus.STARTED)
    instance.add_run(other)
    now = datetime.now(UTC)
    assert end_dead_runs(instance, now + SILENT_FOR / 2) == []
    assert "under way" in tick(settings, instance)
    (ended,) = end_dead_runs(instance, now + SILENT_FOR)
    run = instance.get_run_by_id(ended)
    assert run is not None
    assert (run.job_name, run.status) == ("sweep_job", dg.DagsterRunStatus.FAILURE)
    assert "failed: waiting" in tick(settings, instance)


def test_a_failed_run_is_tried_again_after_a_pause(settings: Settings, instance: dg.DagsterInstance) -> None:
    """A minute after one failure, twice as long after each further one, and none after a success."""
    now = datetime.now(UTC)
    assert pause_after_failures(instance, TODAY, now) is None
    add_run(instance, TODAY, dg.DagsterRunStatus.FAILURE)
    assert "failed: waiting" in tick(settings, instance)
    later = now + timedelta(seconds=70)
    assert pause_after_failures(instance, TODAY, later) is None
    add_run(instance, TODAY, dg.DagsterRunStatus.FAILURE)
    pause = pause_after_failures(instance, TODAY, later)
    assert pause is not None
    assert timedelta(seconds=30) < pause < timedelta(seconds=60)
    for _ in range(8):
        add_run(instance, TODAY, dg.DagsterRunStatus.FAILURE)
    assert pause_after_failures(instance, TODAY, now + timedelta(minutes=31)) is None
    add_run(instance, TODAY, dg.DagsterRunStatus.SUCCESS)
    assert tick(settings, instance) == [TODAY.isoformat()]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"api_base_url": None}, "CALLS_API_BASE_URL is not set"),
        ({"api_token": None}, "neither CALLS_API_TOKEN nor"),
        ({"id_scan": False}, "CALLS_ID_SCAN is off"),
        ({"start_date": TODAY + timedelta(days=2)}, "the first day is CALLS_START_DATE"),
    ],
)
def test_the_sensor_says_why_it_does_nothing(
    settings: Settings, instance: dg.DagsterInstance, change: dict[str, Any], reason: str
) -> None:
    """Not configured is a reason, not a failure."""
    assert reason in tick(replace(settings, **change), instance)


def test_an_api_that_refuses_is_a_reason_to_skip(settings: Settings, instance: dg.DagsterInstance) -> None:
    """The token is refused, or nobody listens: one line, and the next tick tries again."""
    assert sweep(settings, instance, TODAY).success
    assert "denied access" in tick(replace(settings, api_token="wrong"), instance)
    assert "could not look: call" in tick(replace(settings, api_base_url="http://127.0.0.1:9"), instance)


def test_the_nightly_schedule_sweeps_what_is_due(settings: Settings, stored_instance: dg.DagsterInstance) -> None:
    """Yesterday and today always, with a look far ahead for today; older days while they have due reads."""
    old = TODAY - timedelta(days=3)
    assert sweep(settings, stored_instance, old).success
    definitions = build_definitions(settings)
    schedule = definitions.resolve_schedule_def("nightly_sweep")

    def evaluate(moment: datetime) -> dict[str, bool]:
        with dg.build_schedule_context(
            instance=stored_instance,
            scheduled_execution_time=moment,
            resources=definitions.resources,
            repository_def=definitions.get_repository_def(),
        ) as context:
            outcome = schedule.evaluate_tick(context)
        assert outcome.run_requests is not None
        return {
            str(request.partition_key): request.run_config["ops"]["call_records"]["config"]["look_far_ahead"]
            for request in outcome.run_requests
        }

    tonight = datetime.now(UTC)
    expected = {TODAY.isoformat(): True, (TODAY - timedelta(days=1)).isoformat(): False}
    assert expected.items() <= evaluate(tonight).items()
    assert old.isoformat() in evaluate(datetime.combine(old, datetime.min.time(), UTC) + timedelta(days=9))
