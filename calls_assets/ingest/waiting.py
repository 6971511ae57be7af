"""What waits in the inbox, by the day whose run takes care of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import date, datetime
from zoneinfo import ZoneInfo

import pyarrow as pa

from calls_assets.inbox import PATIENT_ATTEMPTS, Delivery, Inbox, Waiting, is_due
from calls_assets.ingest.knowledge import Kind, Knowledge, day_of, to_us
from calls_assets.ingest.sweep import Wanted
from calls_assets.lake import CALL_EVENTS, Lake
from calls_assets.settings import Settings


def group_waiting(inbox: Inbox, settings: Settings, today: date) -> dict[date, list[Waiting]]:
    """Groups what waits by day: that of the call's start; today's run takes what tells no day that has a partition."""
    groups: dict[date, list[Waiting]] = {}
    for item in inbox.waiting():
        day = item.day(settings.timezone) if isinstance(item, Delivery) else None
        home = day if day is not None and settings.start_date <= day <= today else today
        groups.setdefault(home, []).append(item)
    return groups


def list_wanted(items: Iterable[Waiting], timezone: ZoneInfo, now: datetime) -> dict[int, Wanted]:
    """Gives the ids to ask for. A delivery's call that was missing is to be read again when its pause is over."""
    wanted: dict[int, Wanted] = {}
    for item in items:
        since = now if isinstance(item, Delivery) and item.attempts and is_due(item, now) else item.since
        day = item.day(timezone) if isinstance(item, Delivery) else None
        for id_ in [item.call_id] if isinstance(item, Delivery) else item.ids():
            if id_ not in wanted or wanted[id_].since < since:
                wanted[id_] = Wanted(since, day)
    return wanted


def settle_waiting(lake: Lake, inbox: Inbox, items: Collection[Waiting], settings: Settings, now: datetime) -> int:
    """Lands the events of deliveries, then removes whatever has landed whole; gives the number of deliveries landed.

    An event is stored in the day its delivery names and in the day of its call. What the API did not answer, or does
    not have yet, goes on waiting; after three days a call that it still does not have is given up.
    """
    knowledge = Knowledge(settings.timezone)
    segments = lake.segments()
    for item in items:
        for first, last in [(item.call_id, item.call_id)] if isinstance(item, Delivery) else item.ranges:
            knowledge.load_range(lake, segments, first, last)
    events: dict[date, list[dict[str, object]]] = {}
    landed = 0
    for item in items:
        if isinstance(item, Delivery):
            try:
                payload = inbox.read(item)
            except FileNotFoundError:
                continue  # another run has settled it
            landed += 1
            row = {"call_id": item.call_id, "received_at": item.since, "payload": payload}
            for day in _days_of_event(item, knowledge, settings.timezone):
                events.setdefault(day, []).append(row)
    for day, rows in sorted(events.items()):
        lake.land_events(day, pa.Table.from_pylist(rows, CALL_EVENTS.schema))
    for item in items:
        ids = [item.call_id] if isinstance(item, Delivery) else item.ids()
        states = [knowledge.known.get(id_) for id_ in ids]
        is_answered = all(state is not None and state.read_us >= to_us(item.since) for state in states)
        # The ids that a user named may well be missing; a call that was delivered must come.
        is_found = not isinstance(item, Delivery) or {state.kind for state in states if state} == {Kind.CALL}
        if is_answered and (is_found or item.attempts >= PATIENT_ATTEMPTS):
            inbox.settle(item)
        elif is_due(item, now):
            inbox.postpone(item)
    return landed


def _days_of_event(delivery: Delivery, knowledge: Knowledge, timezone: ZoneInfo) -> set[date]:
    state = knowledge.known.get(delivery.call_id)
    named = delivery.day(timezone)
    days = {named} if named is not None else set()
    if state is not None and state.kind is Kind.CALL:
        days.add(day_of(state.started_us, timezone))
    return days or {delivery.since.astimezone(timezone).date()}
