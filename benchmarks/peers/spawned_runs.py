"""calls-assets with run workers as Dagster starts them: each loads everything anew."""

import dagster as dg

from calls_assets.defs import build_definitions
from calls_assets.settings import Settings

defs: dg.Definitions = build_definitions(Settings.from_env())
