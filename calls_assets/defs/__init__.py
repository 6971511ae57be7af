"""Dagster definitions: the only package that imports dagster.

One module per Dagster concept. What belongs here: names, descriptions, events, triggers. What stays out: the work
itself, which `ingest`, `derive` and `lake` do and which runs and is tested without Dagster.
"""

from calls_assets.defs.build import build_definitions

__all__ = ["build_definitions"]
