"""An empty asset whose sensor always asks for a run: what Dagster takes from a tick to the end."""

import dagster as dg

from calls_assets.defs import build_definitions
from calls_assets.settings import Settings

build_definitions(Settings.from_env())  # loading the project is part of it


@dg.asset
def empty() -> None:
    """Does nothing."""


job = dg.define_asset_job("empty_job", [empty])


@dg.sensor(job=job, minimum_interval_seconds=5, default_status=dg.DefaultSensorStatus.RUNNING)
def always() -> dg.RunRequest:
    """Asks for a run."""
    return dg.RunRequest()


defs = dg.Definitions(assets=[empty], jobs=[job], sensors=[always], executor=dg.in_process_executor)
