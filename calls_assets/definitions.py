"""The Dagster entry point: the definitions for the settings of the environment and of `.env`."""

from __future__ import annotations

import atexit

from calls_assets.collector import hold_collector, spare_loaded

with hold_collector():
    import dagster as dg

    from calls_assets.defs import build_definitions
    from calls_assets.run_workers import fork_run_workers
    from calls_assets.settings import Settings, load_environment

    fork_run_workers()
    load_environment()
    defs: dg.Definitions = build_definitions(Settings.from_env())
    spare_loaded()
atexit.register(spare_loaded)  # what a run has loaded since
