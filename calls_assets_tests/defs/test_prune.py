"""Pruning Dagster's history: only runs that newer ones have replaced, and nothing of anybody else's."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from calls_assets.defs import build_definitions
from calls_assets.defs.prune import list_replaced_runs
from calls_assets.settings import Settings
from calls_assets_tests.defs.scripted import RANGE_END, RANGE_START

SETTINGS = Settings(start_date=date(2025, 1, 1), timezone=ZoneInfo("UTC"))
DAY = "dagster/partition"
CALLS = frozenset({dg.AssetKey("calls")})
SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE
LATER = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture
def memory() -> dg.DagsterInstance:
    """Gives an instance in memory."""
    return dg.DagsterInstance.ephemeral()


def add(
    instance: dg.DagsterInstance,
    tags: dict[str, str],
    status: dg.DagsterRunStatus = SUCCESS,
    *,
    job: str = "sweep_job",
    assets: frozenset[dg.AssetKey] | None = None,
) -> str:
    """Puts a run on record; gives its id."""
    run = dg.DagsterRun(job_name=job, status=status, tags=tags, asset_selection=assets)
    return instance.add_run(run).run_id


def replaced(instance: dg.DagsterInstance, before: datetime = LATER) -> set[str]:
    """Gives the ids of the runs that would be deleted."""
    return {run.run_id for run in list_replaced_runs(instance, before)}


def test_all_but_the_newest_sweep_of_a_day_are_replaced(memory: dg.DagsterInstance) -> None:
    """Failed and cancelled ones too, and those that only made some tables; a failure after the last success stays."""
    monday = {DAY: "2025-06-02"}
    old = {add(memory, monday), add(memory, monday, FAILURE), add(memory, monday, assets=CALLS, job="__ASSET_JOB")}
    old.add(add(memory, monday, job="rebuild_job"))
    newest, failed = add(memory, monday), add(memory, monday, FAILURE)
    other = add(memory, {DAY: "2025-06-03"})
    assert replaced(memory) == old
    assert not {newest, failed, other} & replaced(memory)


def test_a_run_of_several_days_stays_until_each_was_swept_again(memory: dg.DagsterInstance) -> None:
    """A backfill's runs hold what the UI shows of old days."""
    backfill = add(memory, {RANGE_START: "2025-06-02", RANGE_END: "2025-06-04"})
    add(memory, {DAY: "2025-06-02"})
    add(memory, {DAY: "2025-06-04"})
    assert replaced(memory) == set()
    add(memory, {DAY: "2025-06-03"})
    assert replaced(memory) == {backfill}


def test_a_sweep_of_some_assets_replaces_no_whole_one(memory: dg.DagsterInstance) -> None:
    """The whole one still holds the others; a rebuild does not replace a sweep."""
    monday = {DAY: "2025-06-02"}
    add(memory, monday)
    add(memory, monday, assets=CALLS)
    add(memory, monday, job="rebuild_job")
    assert replaced(memory) == set()


def test_what_is_not_ours_or_not_old_or_not_over_stays(memory: dg.DagsterInstance) -> None:
    """Other projects' runs, young ones, runs at work, runs without days; at most so many at once."""
    monday = {DAY: "2025-06-02"}
    add(memory, monday, job="other_job")
    add(memory, monday, dg.DagsterRunStatus.STARTED)
    add(memory, {}, assets=frozenset({dg.AssetKey("agents")}), job="__ASSET_JOB")
    ours = [add(memory, monday) for _ in range(3)]
    assert replaced(memory, datetime.now(UTC) - timedelta(days=1)) == set()
    assert replaced(memory) == set(ours[:2])
    assert [run.run_id for run in list_replaced_runs(memory, LATER, most=1)] == ours[:1]


def test_the_job_deletes_runs_with_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events, output and SQLite's file of the run are gone; the partition is still shown as materialized."""

    @dg.asset(partitions_def=dg.DailyPartitionsDefinition("2025-06-01"))
    def calls() -> None:
        """Stands in for the asset of that name."""

    day = "2025-06-02"
    job = dg.Definitions([calls], jobs=[dg.define_asset_job("sweep_job", "*")]).resolve_job_def("sweep_job")
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides={"telemetry": {"enabled": False}}) as instance:
        ids = [job.execute_in_process(partition_key=day, instance=instance).run_id for _ in range(2)]
        files = [{path for path in tmp_path.rglob("*") if id_ in str(path)} for id_ in ids]
        assert all(files)
        monkeypatch.setattr("calls_assets.defs.prune.list_replaced_runs", lambda i, _: list_replaced_runs(i, LATER))
        prune = build_definitions(SETTINGS).resolve_job_def("prune_job")
        assert prune.execute_in_process(instance=instance).success
        assert instance.get_run_by_id(ids[0]) is None
        assert instance.get_run_by_id(ids[1]) is not None
        assert not [path for path in files[0] if path.is_file()]
        assert [path for path in files[1] if path.is_file()]
        assert instance.get_materialized_partitions(dg.AssetKey("calls")) == {day}


def test_zero_days_keep_everything() -> None:
    """Then there is no job and no schedule; otherwise the schedule is on."""
    definitions = build_definitions(SETTINGS)
    assert definitions.resolve_schedule_def("nightly_prune").default_status == dg.DefaultScheduleStatus.RUNNING
    kept = build_definitions(replace(SETTINGS, keep_runs_days=0))
    names = {job.name for job in kept.jobs or ()} | {schedule.name for schedule in kept.schedules or ()}
    assert not {"prune_job", "nightly_prune"} & names
