"""An empty asset in the same project: what Dagster and loading the project take."""

import dagster as dg

from calls_assets import definitions


@dg.asset
def empty() -> None:
    """Does nothing."""


defs = dg.Definitions.merge(definitions.defs, dg.Definitions(assets=[empty]))
