"""A lake of raw records, made fast: one day of the simulator's calls, again and again under other ids and days.

What belongs here: raw segments for benchmarks that need many bodies. Every day has ids that do not exist, quarantined
answers, the vendor's oddities, and calls that were read before while they were under way.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec

from calls_assets.lake import Lake, Read
from calls_assets.simulator import Account, Vendor

FIRST_DAY = date(2025, 5, 1)
ZONE = "UTC"
_SECONDS_A_DAY = 86_400
_EARLY_EVERY = 16  # one call in so many was read before, while it was under way
_BAD_EVERY = 1_000
_STARTED_AT = re.compile(rb'"started_at":(\d+)')


@dataclass(frozen=True, slots=True)
class _Template:
    """One answer of the first day."""

    call_id: int
    started_at: int
    is_ended: bool
    read_at: datetime
    body: bytes | None


def make_raw_lake(root: Path, *, days: int, bodies_a_day: int) -> int:
    """Writes raw records.

    Args:
        root: A new directory.
        days: How many days.
        bodies_a_day: How many answers with a body each of them has, about.

    Returns:
        The number of bodies.
    """
    lake = Lake.open(root)
    lake.bind(ZONE, "http://127.0.0.1")
    templates = _make_templates(round(bodies_a_day / 1.25))  # the first day is busier than the mean
    step = max(template.call_id for template in templates) + 1
    for index in range(days):
        shift = index * _SECONDS_A_DAY
        move = _move_starts(shift)
        reads = []
        for template in templates:
            call_id, body = template.call_id + index * step, template.body
            if body is not None:
                body = _STARTED_AT.sub(move, body.replace(b'"id":%d' % template.call_id, b'"id":%d' % call_id, 1))
            reads.append(_make_read(template, call_id, template.started_at + shift, shift, body))
        lake.land(FIRST_DAY + timedelta(days=index), reads)
    return days * sum(template.body is not None for template in templates)


def _move_starts(shift: int) -> Callable[[re.Match[bytes]], bytes]:
    return lambda match: b'"started_at":%d' % (int(match[1]) + shift)


def _make_read(template: _Template, call_id: int, started_at: int, shift: int, body: bytes | None) -> Read:
    read_at = template.read_at + timedelta(seconds=shift)
    if body is None:
        return Read(call_id, read_at, 404, None, None, None, None)
    if template.call_id % _BAD_EVERY == 0:
        return Read(call_id, read_at, 200, None, None, "not JSON", body[:-1])
    return Read(call_id, read_at, 200, datetime.fromtimestamp(started_at, UTC), template.is_ended, None, body)


def _make_templates(calls: int) -> list[_Template]:
    # A Thursday is about as busy as the mean day.
    account = Account(timezone=ZONE, first_day=FIRST_DAY, calls_per_day=calls, late_share=0.0)
    vendor = Vendor(account)
    midnight = datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day, tzinfo=UTC)
    later = midnight + timedelta(days=9)
    templates = []
    for call_id in vendor.ids_of_day(FIRST_DAY):
        payload = vendor.answer(call_id, later)
        if payload is None:
            templates.append(_Template(call_id, 0, False, later, None))
            continue
        seconds = payload["started_at"]
        if not midnight.timestamp() <= seconds < midnight.timestamp() + _SECONDS_A_DAY:
            continue
        if call_id % _EARLY_EVERY == 0:
            soon = datetime.fromtimestamp(seconds + 20, UTC)
            early = vendor.answer(call_id, soon)
            if early is not None:
                body = msgspec.json.encode({"calls": early})
                templates.append(_Template(call_id, early["started_at"], bool(early["is_ended"]), soon, body))
        body = msgspec.json.encode({"calls": payload})
        templates.append(_Template(call_id, seconds, bool(payload["is_ended"]), later, body))
    return templates
