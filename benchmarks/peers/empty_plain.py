"""An empty asset in the same project, loaded as Dagster loads any: nothing is kept from the collector of garbage.

What `calls_assets.definitions` adds to the definitions makes the command of every asset in the project shorter, the
floor's too.
"""

import dagster as dg

from calls_assets.defs import build_definitions
from calls_assets.settings import Settings, load_environment


@dg.asset
def empty() -> None:
    """Does nothing."""


load_environment()
defs = dg.Definitions.merge(build_definitions(Settings.from_env()), dg.Definitions(assets=[empty]))
