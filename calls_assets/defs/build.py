"""Puts the definitions together for one deployment's settings."""

from __future__ import annotations

import warnings

import dagster as dg

from calls_assets.defs.alerts import build_alerts
from calls_assets.defs.assets import build_assets
from calls_assets.defs.jobs import build_jobs
from calls_assets.defs.partitions import build_partitions
from calls_assets.defs.prune import build_prune
from calls_assets.defs.resources import CallsApi, LakeStore
from calls_assets.defs.schedules import build_schedules
from calls_assets.defs.sensors import build_sensors
from calls_assets.settings import Settings


def build_definitions(settings: Settings) -> dg.Definitions:
    """Makes all definitions.

    Args:
        settings: The deployment's settings; without an API everything loads, and what needs the API says so.
    """
    partitions = build_partitions(settings)
    prune_jobs, prune_schedules = build_prune(settings)
    with warnings.catch_warnings():
        # Backfill policies are marked as beta and checks by partition as a preview in Dagster 1.13. We depend on both
        # (a range in one run; an answer of each check for each day) and pin the minor version.
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.Definitions(
            assets=build_assets(settings, partitions),
            jobs=[*build_jobs(), *prune_jobs],
            schedules=[*build_schedules(settings), *prune_schedules],
            sensors=[*build_sensors(settings), *build_alerts(settings)],
            executor=dg.in_process_executor,  # five steps in five processes take five times as long
            resources={"calls_api": CallsApi(settings), "lake_store": LakeStore(settings)},
        )
