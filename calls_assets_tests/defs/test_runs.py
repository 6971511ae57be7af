"""Which runs ask the API, and what they make."""

from __future__ import annotations

import dagster as dg
import pytest

from calls_assets.defs.jobs import REBUILD_JOB, SWEEP_JOB
from calls_assets.defs.runs import assets_of, is_sweep


@pytest.mark.parametrize("selection", [None, frozenset[dg.AssetKey]()])
def test_a_run_without_a_selection_makes_all_of_its_job(selection: frozenset[dg.AssetKey] | None) -> None:
    """Dagster gives none to runs of a sensor, and an empty one to runs within a process of Python."""
    run = dg.DagsterRun(job_name=SWEEP_JOB, asset_selection=selection)
    assert is_sweep(run)
    assert dg.AssetKey("daily_report") in assets_of(run)
    assert not is_sweep(dg.DagsterRun(job_name=REBUILD_JOB, asset_selection=selection))


def test_a_run_asks_the_api_when_it_makes_call_records() -> None:
    """Whatever its job is called: a run by hand has Dagster's own."""
    for name, expected in (("call_records", True), ("calls", False)):
        run = dg.DagsterRun(job_name="__ASSET_JOB", asset_selection=frozenset({dg.AssetKey(name)}))
        assert is_sweep(run) is expected
        assert assets_of(run) == {dg.AssetKey(name)}
