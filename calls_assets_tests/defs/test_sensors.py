"""Tests of the sensor and the schedule against a real Dagster instance and a simulated vendor over HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from calls_assets.defs import build_definitions
from calls_assets.defs.resources import CallsApi
from calls_assets.defs.runs import SILENT_FOR, end_dead_runs, pause_after_failures
from calls_assets.defs.sensors import days_behind
from calls_assets.derive import publish_day
from calls_assets.lake import Lake, Read
from calls_assets.settings import Settings
from calls_assets.simulator import Account, SettableClock, Vendor, create_app, serve
from calls_assets_tests.defs.conftest import TODAY
from calls_assets_tests.e2e.running import TABLES, TOKEN, read_rows, read_stats
from calls_assets_tests.e2e.test_dagster_dev import zone_at_noon


def evaluate(
    settings: Settings, instance: dg.DagsterInstance, name: str = "new_call_ids"
) -> Sequence[dg.RunRequest] | str:
    """Evaluates a sensor: the runs it asks for, or why it skips."""
    definitions = build_definitions(settings)
    sensor = definitions.resolve_sensor_def(name)
    with dg.build_sensor_context(
        instance=instance, repository_def=definitions.get_repository_def(), resources=definitions.resources
    ) as context:
        outcome = sensor.evaluate_tick(context)
    assert outcome.cursor is None
    assert all(request.run_key is None for request in outcome.run_requests or ())
    return outcome.run_requests or str(outcome.skip_message)


def tick(settings: Settings, instance: dg.DagsterInstance, name: str = "new_call_ids") -> list[str] | str:
    """Evaluates a sensor: the partitions it asks for, or why it skips."""
    outcome = evaluate(settings, instance, name)
    return outcome if isinstance(outcome, str) else [str(request.partition_key) for request in outcome]


SHOWN = ("call_records", *TABLES)


def sweep(settings: Settings, instance: dg.DagsterInstance, day: date, *assets: str) -> dg.ExecuteInProcessResult:
    """Runs the sweep job for a day; when assets are named, only what it does for these."""
    job = build_definitions(settings).resolve_job_def("sweep_job")
    only = [dg.AssetKey(name) for name in assets]
    return job.execute_in_process(partition_key=day.isoformat(), instance=instance, asset_selection=only or None)


def add_run(instance: dg.DagsterInstance, day: date, status: dg.DagsterRunStatus) -> None:
    """Puts a sweep of a day on record."""
    instance.add_run(dg.DagsterRun(job_name="sweep_job", status=status, tags={"dagster/partition": day.isoformat()}))


@dataclass
class OneMore:
    """A day that was swept, and one call since; then the account stands still.

    Attributes:
        settings: Of the deployment.
        day: The day.
        call_id: The call that the lake has not.
    """

    settings: Settings
    day: date
    call_id: int


@pytest.fixture
def one_more(settings: Settings, instance: dg.DagsterInstance) -> Iterator[OneMore]:
    """Gives a lake that is one call behind."""
    zone = zone_at_noon()
    clock = SettableClock(datetime.now(UTC) - timedelta(hours=1))
    day = clock().astimezone(zone).date()
    account = Account(
        first_day=day, calls_per_day=200, timezone=zone.key, first_id=400, missing_share=0, late_share=0, disorder=0
    )
    vendor = Vendor(account)
    with serve(create_app(vendor, token=TOKEN, clock=clock)) as server:
        settings = replace(settings, api_base_url=server.url, timezone=zone)
        assert sweep(settings, instance, day, "call_records", *TABLES).success
        assert tick(settings, instance) == "no new calls"
        highest = vendor.highest_id(clock())
        assert highest is not None
        clock.set(vendor.started_at(highest + 1))
        yield OneMore(settings, day, highest + 1)


def test_an_empty_lake_starts_with_today(settings: Settings, instance: dg.DagsterInstance) -> None:
    """The first tick asks for a sweep and nothing of the API."""
    assert tick(settings, instance) == [TODAY.isoformat()]


def test_new_calls_start_a_sweep_and_none_do_not(settings: Settings, instance: dg.DagsterInstance) -> None:
    """An idle tick costs two requests; days missed since the last stored one are asked for too."""
    first_day = TODAY - timedelta(days=5)
    # Without missing ids: behind one, a tick may need minutes to see the next call.
    account = Account(first_day=first_day, calls_per_day=200, first_id=400, missing_share=0, late_share=0)
    clock = SettableClock(datetime.now(UTC))  # which stands still: no call begins between the sweep and the tick
    with serve(create_app(Vendor(account), token=TOKEN, clock=clock)) as server:
        settings = replace(settings, api_base_url=server.url)
        assert sweep(settings, instance, TODAY - timedelta(days=2), *SHOWN).success
        requested = tick(settings, instance)
        assert requested == [(TODAY - timedelta(days=back)).isoformat() for back in (2, 1, 0)]
        for back in (1, 0):
            assert sweep(settings, instance, TODAY - timedelta(days=back), *SHOWN).success
        before = read_stats(server.url)["requests"]
        assert tick(settings, instance) == "no new calls"
        assert read_stats(server.url)["requests"] - before == 2


def test_days_that_were_missed_between_others_are_made_up_for(settings: Settings, instance: dg.DagsterInstance) -> None:
    """Of the last month, as soon as a day before them has tables; one that failed just now has its pause."""
    lake = Lake.open(settings.data_dir)
    first_day = TODAY - timedelta(days=100)

    def behind() -> list[int]:
        return [(TODAY - day).days for days in days_behind(lake, TODAY, first_day) for day in days]

    def publish(back: int) -> None:
        publish_day(lake, TODAY - timedelta(days=back), timezone=settings.timezone, reread_after=settings.reread_after)

    assert behind() == [0]
    publish(60)
    assert behind() == list(range(31, -1, -1))
    for back in (10, 9, 6, 2):
        publish(back)
    assert behind() == [8, 7, 5, 4, 3, 2, 1, 0]
    publish(0)
    assert behind() == [8, 7, 5, 4, 3, 1, 0]
    add_run(instance, TODAY - timedelta(days=5), dg.DagsterRunStatus.FAILURE)
    requests = evaluate(settings, instance)
    assert not isinstance(requests, str)
    wanted = [(TODAY - timedelta(days=back)).isoformat() for back in (8, 7, 4, 3, 1, 0)]
    assert [request.partition_key for request in requests] == wanted
    assert [request.tags["dagster/priority"] for request in requests] == ["7"] * 5 + ["10"]


def test_a_missed_day_does_not_have_today_swept_without_new_calls(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    """It is asked for itself, when its pause is over."""
    lake, missed = Lake.open(settings.data_dir), TODAY - timedelta(days=5)
    for day in (TODAY - timedelta(days=6), TODAY):
        publish_day(lake, day, timezone=settings.timezone, reread_after=settings.reread_after)
    lake.land(missed, [Read(1, datetime.now(UTC), 404, started_at=None, is_ended=None, error=None, payload=None)])
    with serve(create_app(Vendor(Account(first_day=TODAY, calls_per_day=0)), token=TOKEN)) as server:
        settings = replace(settings, api_base_url=server.url)
        assert tick(settings, instance) == [missed.isoformat()]
        add_run(instance, missed, dg.DagsterRunStatus.CANCELED)
        assert tick(settings, instance) == "no new calls"


def test_a_tick_that_was_lost_changes_nothing(one_more: OneMore, instance: dg.DagsterInstance) -> None:
    """It saw a call, and died before its request was stored: the next one asks for the same, word by word."""
    lost, again = (evaluate(one_more.settings, instance) for _ in range(2))
    assert not isinstance(again, str)
    assert [request.partition_key for request in again] == [one_more.day.isoformat()]
    assert again[0].run_config == {"ops": {"call_records": {"config": {"seen_id": one_more.call_id}}}}
    assert again == lost


def test_a_run_that_failed_changes_nothing_but_the_time(
    one_more: OneMore, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever became of the run that a tick asked for: after the pause the next tick asks for the same."""
    before = evaluate(one_more.settings, instance)
    for status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED):
        add_run(instance, one_more.day, status)
        assert "failed: waiting" in tick(one_more.settings, instance)
    later = datetime.now(UTC) + timedelta(minutes=2, seconds=1)
    monkeypatch.setattr(CallsApi, "now", staticmethod(lambda: later))
    after = evaluate(one_more.settings, instance)
    assert after == before
    assert not isinstance(after, str)


def test_what_is_stored_and_not_shown_is_asked_for_without_new_calls(
    one_more: OneMore, instance: dg.DagsterInstance
) -> None:
    """A run that ended between raw and tables leaves a call that no probe sees any more: a tick looks for it."""
    assert sweep(one_more.settings, instance, one_more.day, "call_records").success
    assert one_more.call_id not in shown(one_more)
    requested = evaluate(one_more.settings, instance)
    assert not isinstance(requested, str)
    assert [(request.partition_key, request.run_config) for request in requested] == [(one_more.day.isoformat(), {})]
    assert sweep(one_more.settings, instance, one_more.day, *SHOWN).success
    assert one_more.call_id in shown(one_more)
    assert tick(one_more.settings, instance) == "no new calls"


def test_a_sweep_that_died_before_it_found_a_call_is_made_again(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    """Nothing but missing ids is stored: the two that a probe asks then may be missing ones for half an hour."""
    lake = Lake.open(settings.data_dir)
    lake.bind(settings.timezone.key)
    lake.land(TODAY, [Read(1, datetime.now(UTC), 404, started_at=None, is_ended=None, error=None, payload=None)])
    with serve(create_app(Vendor(Account(first_day=TODAY, calls_per_day=0)), token=TOKEN)) as server:
        assert tick(replace(settings, api_base_url=server.url), instance) == [TODAY.isoformat()]


def shown(one_more: OneMore) -> set[int]:
    """Lists the calls that the day's table shows."""
    return {row["call_id"] for row in read_rows(Path(one_more.settings.data_dir), "calls", one_more.day)}


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
    assert sweep(settings, instance, TODAY, *SHOWN).success
    assert "denied access" in tick(replace(settings, api_token="wrong"), instance)
    assert "could not look: call" in tick(replace(settings, api_base_url="http://127.0.0.1:9"), instance)


def test_the_nightly_schedule_sweeps_what_is_due(settings: Settings, stored_instance: dg.DagsterInstance) -> None:
    """Yesterday and today always, with a look far ahead for today; older days while they have due reads."""
    old = TODAY - timedelta(days=3)
    assert sweep(settings, stored_instance, old, *SHOWN).success
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
