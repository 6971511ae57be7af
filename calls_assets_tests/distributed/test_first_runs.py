"""The first look into the run queue of a new Dagster storage: one fetching run, as at every later look."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from sqlalchemy.exc import IntegrityError

from calls_assets.defs import build_definitions
from calls_assets.settings import Settings
from calls_assets_tests.e2e.dagster_dev import ROOT

FIRST_DAY = date(2025, 2, 20)
LAUNCHED = frozenset({dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED})


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """Gives a Dagster instance that never ran anything, with the committed settings; launching only marks a run."""
    config = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    config["run_launcher"] = {"module": "dagster._core.test_utils", "class": "MockedRunLauncher"}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.from_config(str(tmp_path)) as fresh:
        yield fresh


def queue_runs(instance: dg.DagsterInstance, context: WorkspaceProcessContext, job_name: str, count: int) -> None:
    """Hands runs of a job to the run coordinator, as sensor, schedule, backfill and UI all do."""
    job = build_definitions(Settings(start_date=FIRST_DAY)).resolve_job_def(job_name)
    location = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="calls_assets.definitions"))
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), job_name)
    for offset in range(count):
        tags = {"dagster/partition": str(FIRST_DAY + timedelta(offset))}
        run = instance.create_run_for_job(job, tags=tags, remote_job_origin=origin)
        instance.run_coordinator.submit_run(dg.SubmitRunContext(run, context.create_request_context()))


def launched(instance: dg.DagsterInstance) -> list[str]:
    """Lists the runs that were launched and have not ended."""
    return [run.run_id for run in instance.get_runs(dg.RunsFilter(statuses=list(LAUNCHED)))]


def look(context: WorkspaceProcessContext) -> None:
    """Lets the daemon look into the queue once."""
    with QueuedRunCoordinatorDaemon(interval_seconds=1) as daemon:
        list(daemon.run_iteration(context))


def test_a_new_storage_launches_one_fetching_run(instance: dg.DagsterInstance) -> None:
    """Of four sweeps one is launched at the first look, none beside it later, and the next when it has ended."""
    with WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as context:
        queue_runs(instance, context, "sweep_job", 4)
        look(context)
        first = launched(instance)
        assert len(first) == 1
        look(context)
        assert launched(instance) == first
        ended = instance.get_run_by_id(first[0])
        assert ended is not None
        instance.report_run_failed(ended)
        look(context)
        assert len(launched(instance)) == 1
        assert launched(instance) != first


def test_runs_that_do_not_fetch_are_launched_side_by_side(instance: dg.DagsterInstance) -> None:
    """Rebuilds are in no pool: as many as the queue takes, beside a sweep."""
    with WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as context:
        queue_runs(instance, context, "sweep_job", 2)
        queue_runs(instance, context, "rebuild_job", 3)
        look(context)
        jobs = sorted(run.job_name for run in instance.get_runs(dg.RunsFilter(statuses=list(LAUNCHED))))
        assert jobs == ["rebuild_job", "rebuild_job", "rebuild_job", "sweep_job"]


def test_two_processes_that_write_the_limit_at_once_are_no_failure(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes second queues its run all the same; a storage that does not take the limit is not passed over."""
    storage = instance.event_log_storage
    write = storage.initialize_concurrency_limit_to_default
    came_first = [False, True]

    def lose(pool: str) -> bool:
        if came_first.pop():
            write(pool)
        raise IntegrityError("INSERT", None, Exception("duplicate key"))

    monkeypatch.setattr(storage, "initialize_concurrency_limit_to_default", lose)
    with WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as context:
        queue_runs(instance, context, "sweep_job", 1)
        assert instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])) == 1
        storage.delete_concurrency_limit("calls_api")
        with pytest.raises(IntegrityError):
            queue_runs(instance, context, "sweep_job", 1)
        assert instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])) == 1
