"""The Dagster entry point: the definitions for the settings of the environment and of `.env`."""

from __future__ import annotations

import dagster as dg

from calls_assets.defs import build_definitions
from calls_assets.settings import Settings, load_environment

load_environment()
defs: dg.Definitions = build_definitions(Settings.from_env())
