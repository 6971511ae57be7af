"""A finished lake, made without a network: sixty days of the simulator's calls, odd ones among them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from calls_assets.derive import publish_agents, publish_day
from calls_assets.lake import TABLES, Lake, Read
from calls_assets.lake.catalog import write_catalog
from calls_assets.marts import publish_marts
from calls_assets.settings import Settings
from calls_assets.simulator import Account, Vendor

ZONE = ZoneInfo("Africa/Casablanca")
LONG_DAY = date(2025, 2, 23)  # went back at 3:00 local, 2:00 UTC
SHORT_DAY = date(2025, 4, 6)
FIRST = date(2025, 2, 14)
DAYS = [FIRST + timedelta(days=offset) for offset in range(60)]
EMPTY_DAY = date(2025, 3, 12)
WEBHOOK_DAYS = DAYS[20:40]
NOW = datetime(2025, 9, 1, tzinfo=UTC)
_MAY_BE_UNTOLD = (
    "is_inbound",
    "is_answered",
    "is_ended",
    "requested_callback",
    "is_answered_within_sla",
    "is_transferred",
    "talk_time_seconds",
    "contact_id",
    "answered_agent_id",
    "recording_count",
)


def root_of(settings: Settings) -> Path:
    """Gives the directory of a lake that is in one."""
    assert isinstance(settings.data_dir, Path)
    return settings.data_dir


@dataclass(frozen=True)
class FinishedLake:
    """The lake.

    Attributes:
        root: Its directory.
        lake: The lake.
        days: Its days.
    """

    root: Path
    lake: Lake
    days: list[date]

    def rows(self, name: str, day: date | None = None) -> list[dict[str, Any]]:
        """Gives a file's rows, for the caller to change."""
        return [row.copy() for row in _read_rows(self.root, name, day)]


@cache
def _read_rows(root: Path, name: str, day: date | None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = Lake.open(root).read_table(name, day).to_pylist()
    return rows


def open_lake(root: Path) -> FinishedLake:
    """Opens a lake that was made."""
    return FinishedLake(root, Lake.open(root), DAYS)


def make_lake(root: Path) -> None:
    """Makes tables, marts and catalogue of sixty days of about a hundred calls."""
    lake = Lake.open(root)
    vendor = Vendor(Account(seed=11, first_day=FIRST - timedelta(days=1), calls_per_day=100, timezone=ZONE.key))
    dice = Random(5)
    for day in DAYS:
        if day != EMPTY_DAY:
            lake.land(day, read_day(vendor, day, NOW))
        publish_day(lake, day, timezone=ZONE, reread_after=(timedelta(days=7),))
        calls = lake.read_table("calls", day).to_pylist()
        for call in calls:
            _complicate(call, dice, has_webhook=day in WEBHOOK_DAYS)
        if day == LONG_DAY:  # two calls in the half hour that came twice
            for call, hour in zip(calls, (1, 2), strict=False):
                call["started_at"] = datetime(day.year, day.month, day.day, hour, 30, tzinfo=UTC)
                call["started_at_local"] = call["started_at"].astimezone(ZONE).replace(tzinfo=None)
        legs = lake.read_table("call_agents", day).to_pylist()
        for leg in legs:
            if dice.random() < 0.05:
                leg["hangup_reason"] = dice.choice([None, "USER_BUSY", "CALL_REJECTED", "NO_USER_RESPONSE", "NEW_WORD"])
            if dice.random() < 0.01:
                leg["agent_id"] = None
        lake.write_table("call_agents", day, to_table("call_agents", legs))
        lake.write_table("calls", day, to_table("calls", calls))
    publish_agents(lake)
    publish_marts(lake, DAYS, now=NOW, timezone=ZONE)
    write_catalog(lake)


def read_day(vendor: Vendor, day: date, now: datetime) -> list[Read]:
    """Reads all calls of a day from the simulator, without a network."""
    reads = []
    for call_id in vendor.ids_of_day(day):
        payload = vendor.answer(call_id, now)
        if payload is not None:
            started_at = datetime.fromtimestamp(payload["started_at"], UTC)
            body = json.dumps({"calls": payload}).encode()
            reads.append(Read(call_id, now, 200, started_at, bool(payload["is_ended"]), None, body))
    return reads


def to_table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Makes a table of the registry's schema; columns that are not given are NULL."""
    schema = TABLES[name].schema
    return pa.Table.from_pylist([{column: row.get(column) for column in schema.names} for row in rows], schema=schema)


def _complicate(call: dict[str, Any], dice: Random, *, has_webhook: bool) -> None:
    """Adds what the simulator never says, or always does: webhook data, calls under way, values not told."""
    if has_webhook and call["is_inbound"] and dice.random() < 0.8:
        call["waiting_seconds"] = int(60 * dice.random())
        call["is_abandoned"] = not call["is_answered"] and not call["requested_callback"] and dice.random() < 0.7
        call["ended_at"] = call["started_at"] + timedelta(seconds=call["waiting_seconds"] + call["duration_seconds"])
    if dice.random() < 0.05:
        column = dice.choice(_MAY_BE_UNTOLD)
        call[column] = None
    if dice.random() < 0.02:
        call["is_ended"] = False
    if dice.random() < 0.02:
        call["original_call_id"] = call["call_id"] + dice.choice([-300, -5, -1, 0, 1, 5, 10**9])
