"""Jobs: sweep everything for a day, or make the tables again from raw."""

from __future__ import annotations

from typing import Any

import dagster as dg

SWEEP_JOB = "sweep_job"
REBUILD_JOB = "rebuild_job"
_TAGS = {"dagster/max_runtime": 24 * 3600}


def build_jobs() -> list[Any]:
    """Makes the jobs; their partitions are those of the assets."""
    return [
        dg.define_asset_job(
            SWEEP_JOB,
            selection=dg.AssetSelection.all(),
            tags=_TAGS,
            description="Makes a day complete as of now: asks for what is missing or due, makes its tables.",
        ),
        dg.define_asset_job(
            REBUILD_JOB,
            selection=dg.AssetSelection.all() - dg.AssetSelection.groups("raw"),
            tags=_TAGS,
            description="Makes the tables of a day again from the stored raw records; the API is not asked.",
        ),
    ]
