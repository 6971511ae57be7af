"""Partitions: one set of days for every daily asset."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

import dagster as dg

from calls_assets.settings import Settings


def build_partitions(settings: Settings) -> dg.DailyPartitionsDefinition:
    """Gives the days from the start date on, the current day included, in the deployment's time zone."""
    return dg.DailyPartitionsDefinition(
        start_date=settings.start_date.isoformat(), timezone=settings.timezone.key, end_offset=1
    )


def to_days(partition_keys: Iterable[str]) -> list[date]:
    """Converts partition keys to days, rising."""
    return sorted(date.fromisoformat(key) for key in partition_keys)
