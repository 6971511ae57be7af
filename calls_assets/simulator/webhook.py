"""The vendor's webhook: what it posts about a call, and when.

What belongs here: bodies in the observed form, their quirks, their moments. What stays out: sending them (`posting`).
Nobody documents the webhook. Invented are the values of `action`, the details of `transfer_details`, the e-mail
addresses, and that a body already knows what agents entered within three minutes of the end.
"""

from __future__ import annotations

from datetime import datetime
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from calls_assets.simulator.arrivals import to_datetime
from calls_assets.simulator.chance import Topic, chance, mix
from calls_assets.simulator.people import Contact
from calls_assets.simulator.story import Leg, Payload, Story
from calls_assets.simulator.vendor import Vendor

REPEAT_SHARE = 0.05
LATE_SHARE = 0.05

_PACE_SECONDS = 4  # a delivery takes so long at most: enough to shuffle calls that end together
_LATE_SECONDS = 600
_REPEAT_SECONDS = 600
_LONGEST_DELAY = _PACE_SECONDS + _LATE_SECONDS + _REPEAT_SECONDS
_KNOWN_SECONDS = 180
_LONE_AGENT_SHARE = 0.05
_BARE_AGENT_SHARE = 0.03
_BARE_URL_SHARE = 0.7
_TICKS = 64  # moments are whole 64ths of a second: the same number as a float and as a datetime


def delivery(vendor: Vendor, call_id: int) -> Payload | None:
    """The body that is posted about a call, the same at every repetition.

    It says of direction, status, start, durations and people what the vendor's answer says once the call has ended;
    a start that is corrected later stays the first one here. `endedDate` is 0 to 2 s after
    `startedDate + waitingTime + duration`.

    Args:
        vendor: Whose call.
        call_id: Any id.

    Returns:
        A fresh dict, or None for an id that never exists.

    Raises:
        ValueError: The id is more than a century of calls above the account's first.
    """
    story = vendor.tell(call_id)
    if story is None:
        return None
    zone = ZoneInfo(vendor.account.timezone)
    dice = Random(mix(vendor.account.seed, Topic.WEBHOOK, call_id))
    known = story.ends + _KNOWN_SECONDS
    connected = story.ends - story.answered if story.answered is not None else 0
    waited = story.ends - story.starts - connected
    line_id, line, alias = story.line
    disposition = story.disposition
    code, note = "", ""
    if disposition is not None and disposition[3] <= known:
        code, note = disposition[1], disposition[2] if disposition[4] <= known else ""
    return {
        "id": call_id,
        "type": "inbound" if story.kind.is_inbound else "outbound",
        "call_type": story.kind.type,
        "duration": connected,
        "talkTime": connected - story.held,
        "waitingTime": max(0, waited - int(3 * dice.random())),
        "startedDate": _write_date(story.starts, zone),
        "endedDate": _write_date(story.ends, zone),
        "tags": [tag for tag, since in story.tags if since <= known],
        "contact": _describe_contact(story.contact, zone, is_named=story.named <= known),
        "agents": _describe_agents(story, dice),
        "number": {"id": line_id, "number": line, "alias": alias},
        "call_recordings": [
            url.removeprefix("https://") if dice.random() < _BARE_URL_SHARE else url
            for _, url, since in story.recordings
            if since <= known
        ],
        "campaign": story.campaign[1] if story.campaign else "",
        "abandoned": int(story.kind.type == "abandoned"),
        "disposition": {"code": code, "note": note},
        "external_numbers": [
            {"number": number, "is_any_transfer": is_transfer} for number, is_transfer, _ in story.external
        ],
        "transfer_details": [
            {"agent_id": leg.agent.id, "type": "attended", "date": _write_date(leg.begins, zone)}
            for leg in story.legs
            if leg.is_transfer
        ],
    }


def deliveries_between(
    vendor: Vendor,
    since: datetime,
    until: datetime,
    *,
    repeat_share: float = REPEAT_SHARE,
    late_share: float = LATE_SHARE,
) -> list[tuple[datetime, int, Payload]]:
    """What is posted in a span of the clock.

    Most calls are posted within seconds of their end, so that those that end together are out of order.

    Args:
        vendor: Whose calls.
        since: The span's begin, with a zone.
        until: Its end, itself outside: spans that touch share no delivery and leave none out.
        repeat_share: Share of calls posted a second time, up to 10 minutes after the first.
        late_share: Share of calls posted late, by 5 seconds to 10 minutes.

    Returns:
        When (UTC), call and body of each, in order.

    Raises:
        ValueError: A moment has no zone.
    """
    if since.tzinfo is None or until.tzinfo is None:
        raise ValueError("since and until need a time zone")
    first, last = since.timestamp(), until.timestamp()
    due = sorted(
        (moment, call_id)
        for call_id, end in vendor.ended_between(first - _LONGEST_DELAY, last)
        for moment in _due_moments(vendor.account.seed, call_id, end, repeat_share, late_share)
        if first <= moment < last
    )
    bodies = ((moment, call_id, delivery(vendor, call_id)) for moment, call_id in due)
    return [(to_datetime(moment), call_id, body) for moment, call_id, body in bodies if body is not None]


def _due_moments(seed: int, call_id: int, end: int, repeat_share: float, late_share: float) -> list[float]:
    moment = end + _ticks(_PACE_SECONDS * chance(seed, Topic.WEBHOOK_PACE, call_id))
    if chance(seed, Topic.WEBHOOK_LATE, call_id) < late_share:
        moment += 5 + _ticks((_LATE_SECONDS - 5) * chance(seed, Topic.WEBHOOK_LATE_SECONDS, call_id))
    if chance(seed, Topic.WEBHOOK_REPEAT, call_id) >= repeat_share:
        return [moment]
    # The third power: half of the repetitions come within a good minute.
    pause = 1 + _ticks((_REPEAT_SECONDS - 1) * chance(seed, Topic.WEBHOOK_REPEAT_SECONDS, call_id) ** 3)
    return [moment, moment + pause]


def _ticks(seconds: float) -> float:
    return int(seconds * _TICKS) / _TICKS


def _write_date(seconds: float, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(seconds, zone).isoformat()


def _describe_contact(contact: Contact | None, zone: ZoneInfo, *, is_named: bool) -> Payload | None:
    if contact is None:
        return None
    first, _, last = contact.full_name.partition(" ")
    created = 1_600_000_000 + contact.id * 7_919 % 100_000_000  # some day in 2020 to 2023
    return {
        "id": contact.id,
        "firstName": first if is_named else None,
        "lastName": last if is_named else None,
        "email": f"contact-{contact.id}@example.com" if contact.id % 3 else "",
        "phone": "1" + contact.national_number,
        "createDate": _write_date(created, zone),
        "additionalFields": {"Simulated": "yes"} if contact.id % 10 == 0 else {},
    }


def _describe_agents(story: Story, dice: Random) -> Any:  # noqa: ANN401 - a list, one object or a bare value
    which = dice.random()
    agents = [
        {"id": leg.agent.id, "name": leg.agent.alias, "action": _name_action(leg), "type": "agent"}
        for leg in story.legs
    ]
    if agents and which < _LONE_AGENT_SHARE:
        return agents[-1]
    if which < _LONE_AGENT_SHARE + _BARE_AGENT_SHARE:
        return agents[-1]["id"] if agents else ""
    return agents


def _name_action(leg: Leg) -> str:
    if leg.answered is None:
        return "missed"
    return "transferred" if leg.is_transfer else "answered"
