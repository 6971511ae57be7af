"""Marts: the KPI definitions, one SQL file each, run by DuckDB over the tables of the lake.

Belongs here: what a measure is (`*.sql`), which days a mart is made from (`weeks`), making and writing marts
(`publish`). Stays out: columns and their descriptions (`lake.mart_schemas`), reading and writing files (`lake`).
"""

from calls_assets.marts.publish import MartsReport, publish_marts
from calls_assets.marts.weeks import days_with_journeys_through, journey_days

__all__ = ["MartsReport", "days_with_journeys_through", "journey_days", "publish_marts"]
