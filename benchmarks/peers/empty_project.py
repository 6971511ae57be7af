"""An empty asset in a project of its own: what Dagster alone takes."""

import dagster as dg


@dg.asset
def empty() -> None:
    """Does nothing."""


defs = dg.Definitions(assets=[empty])
