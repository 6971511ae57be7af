"""What happens in one call, decided once, and what of it can be seen at a moment.

`tell_story` draws the whole course of a call from its dice; `describe` shows the part that has happened, in the
documented form. Nothing changes any more six days and some hours after a call began.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log
from random import Random
from typing import Any, TypeAlias

from calls_assets.simulator.people import (
    CAMPAIGNS,
    DISPOSITIONS,
    HANGUPS,
    LINES,
    MENUS,
    NOTES,
    QUEUES,
    TAGS,
    Agent,
    Contact,
)

Payload: TypeAlias = dict[str, Any]
Named: TypeAlias = tuple[int, str]

LONGEST_SECONDS = 7_200
"""No call lasts longer: 90 minutes of talk, a few of menu, queue and ringing before."""

_SLA_SECONDS = 30
_RING_SECONDS = 15
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of call.

    Attributes:
        is_inbound: Whether the contact called.
        is_answered: Whether an agent and the contact came to talk.
        type: The vendor's status once it ended.
        share: Share of all calls.
        requested_callback: Whether the contact asked to be called back.
    """

    is_inbound: bool
    is_answered: bool
    type: str
    share: float
    requested_callback: bool = False


KINDS = (
    Kind(True, True, "answered", 0.470),
    Kind(True, False, "abandoned", 0.065),
    Kind(True, False, "missed", 0.025),
    Kind(True, False, "voicemail", 0.020),
    Kind(True, False, "callback", 0.025, requested_callback=True),
    Kind(True, False, "ivr", 0.015),
    Kind(False, True, "answered", 0.225),
    Kind(False, False, "no_answer", 0.110),
    Kind(False, False, "busy", 0.030),
    Kind(False, False, "failed", 0.015),
)


@dataclass(frozen=True, slots=True)
class Leg:
    """One agent's part, in Unix seconds.

    Attributes:
        agent: Who.
        begins: When it began to ring.
        answered: When it was answered, or None.
        ends: When it was over.
        reason: Why.
        is_transfer: Whether a transfer brought the call there.
    """

    agent: Agent
    begins: int
    answered: int | None
    ends: int
    reason: str
    is_transfer: bool = False


@dataclass(slots=True)
class Story:
    """The whole course of a call; moments in Unix seconds.

    Attributes:
        call_id: The call.
        kind: Its sort.
        starts: When it began.
        ends: When it was over.
        answered: When contact and agent began to talk, or None.
        held: Seconds on hold, within the connected time.
        original_call_id: The call it continues, or None.
        contact: Who, or None for a caller without a number.
        named: When the contact's name was filled in.
        line: The centre's number: id, digits, alias.
        queue: Ring group, or None.
        menu: IVR, or None.
        campaign: Campaign, or None.
        legs: Agents' parts in order.
        external: Outside numbers: digits, whether a transfer brought it in, since when.
        disposition: Id, code, note, when it was set, when its note was written; or None.
        recordings: Id, URL, since when.
        tags: Tag, since when.
        cached: When the vendor had cached the call.
    """

    call_id: int
    kind: Kind
    starts: int
    ends: int
    original_call_id: int | None
    contact: Contact | None
    line: tuple[int, str, str]
    answered: int | None = None
    held: int = 0
    named: int = 0
    cached: int = 0
    queue: Named | None = None
    menu: Named | None = None
    campaign: Named | None = None
    legs: list[Leg] = field(default_factory=list)
    external: list[tuple[str, bool, int]] = field(default_factory=list)
    disposition: tuple[int, str, str, int, int] | None = None
    recordings: list[tuple[int, str, int]] = field(default_factory=list)
    tags: list[tuple[str, int]] = field(default_factory=list)


def tell_story(
    call_id: int,
    starts: int,
    kind: Kind,
    *,
    original_call_id: int | None,
    contact: Contact,
    agents: Sequence[Agent],
    dice: Random,
) -> Story:
    """Decides everything about a call.

    Args:
        call_id: The call.
        starts: When it begins (Unix seconds).
        kind: Its sort.
        original_call_id: The call it continues, or None.
        contact: Who calls or is called.
        agents: The account's agents.
        dice: A generator of this call's own: the same dice tell the same story.
    """
    story = Story(
        call_id=call_id,
        kind=kind,
        starts=starts,
        ends=starts,
        original_call_id=original_call_id,
        contact=contact,
        line=_pick(LINES, dice),
    )
    if kind.is_inbound:
        _tell_inbound(story, agents, dice)
    else:
        _tell_outbound(story, agents, dice)
    _tell_paperwork(story, dice)
    return story


def _tell_inbound(story: Story, agents: Sequence[Agent], dice: Random) -> None:
    kind = story.kind
    story.menu = _pick(MENUS, dice) if dice.random() < 0.8 else None
    in_menu = 2 + int(8 * dice.random()) if story.menu else 0
    if dice.random() < 0.02:
        story.contact = None  # a withheld number
    if kind.type == "ivr":
        story.ends = story.starts + in_menu + 5
        return
    story.queue = _pick(QUEUES, dice)
    at = story.starts + in_menu + _exponential(dice, 12, 240)
    if kind.type in {"voicemail", "callback"}:
        story.ends = at + 15 + _exponential(dice, 25, 180)
        return
    rings = sum(dice.random() < 0.2 for _ in range(3)) + (kind.type == "missed")
    if kind.is_answered:
        if dice.random() < 0.15:  # the queue rings several at once: all but one lose the race
            answered = at + 2 + int(8 * dice.random())
            for _ in range(rings):
                story.legs.append(Leg(_pick(agents, dice), at, None, answered, "LOSE_RACE"))
        else:
            for _ in range(rings):
                story.legs.append(Leg(_pick(agents, dice), at, None, at + _RING_SECONDS, "NO_ANSWER"))
                at += _RING_SECONDS
            answered = at + 1 + int(9 * dice.random())
        _tell_talk(story, agents, dice, rings_at=at, answered=answered, mean_seconds=260)
        return
    for _ in range(rings):
        story.legs.append(Leg(_pick(agents, dice), at, None, at + _RING_SECONDS, "NO_ANSWER"))
        at += _RING_SECONDS
    story.ends = at + 1 + _exponential(dice, 30, 400)
    if kind.type == "abandoned" and dice.random() < 0.6:
        story.legs.append(Leg(_pick(agents, dice), at, None, story.ends, "ORIGINATOR_CANCEL"))


def _tell_outbound(story: Story, agents: Sequence[Agent], dice: Random) -> None:
    story.campaign = _pick(CAMPAIGNS, dice) if dice.random() < 0.6 else None
    contact = story.contact
    if contact is not None:
        story.external.append(("1" + contact.national_number, False, story.starts))
    if story.kind.is_answered:
        answered = story.starts + 4 + _exponential(dice, 10, 45)
        _tell_talk(story, agents, dice, rings_at=story.starts, answered=answered, mean_seconds=150)
        return
    story.ends = story.starts + (
        2 + int(3 * dice.random()) if story.kind.type == "failed" else 10 + int(35 * dice.random())
    )
    reason = {"busy": "USER_BUSY", "failed": "UNALLOCATED_NUMBER"}.get(story.kind.type, "NO_ANSWER")
    story.legs.append(Leg(_pick(agents, dice), story.starts, None, story.ends, reason))


def _tell_talk(
    story: Story, agents: Sequence[Agent], dice: Random, *, rings_at: int, answered: int, mean_seconds: int
) -> None:
    """From the first answer to the end, with transfers."""
    ends = answered + 5 + _exponential(dice, mean_seconds, 5_400)
    reason = HANGUPS[int(dice.random() * len(HANGUPS))]
    agent = _pick(agents, dice)
    story.answered, story.ends = answered, ends
    stages: list[tuple[Agent, int]] = []  # who took over, and when it began to ring there
    if dice.random() < 0.08 and ends - answered > 60:
        first = answered + (ends - answered) // 3
        stages.append((_pick(agents, dice), first))
        if dice.random() < 0.25:  # handed back: the same agent twice
            stages.append((agent, first + (ends - first) // 2))
    legs = [(agent, rings_at, answered, False), *((who, at, min(at + 6, ends), True) for who, at in stages)]
    for number, (who, begins, taken, is_transfer) in enumerate(legs):
        is_last = number == len(legs) - 1
        over = ends if is_last else legs[number + 1][2]
        story.legs.append(Leg(who, begins, taken, over, reason if is_last else "ATTENDED_TRANSFER", is_transfer))
    if dice.random() < 0.02:
        story.external.append((f"1{201 + int(700 * dice.random())}5550199", True, answered + (ends - answered) // 2))
    if dice.random() < 0.15:
        story.held = min(5 + _exponential(dice, 30, 300), (ends - answered) // 2)


def _tell_paperwork(story: Story, dice: Random) -> None:
    """What arrives after the end: disposition, note, tags, recordings."""
    ends, contact = story.ends, story.contact
    story.cached = ends + 5 * _MINUTE + int(_HOUR * dice.random())
    if contact is not None and dice.random() < 0.02:
        story.named = ends + _lag(dice)
    if dice.random() < (0.92 if story.kind.is_answered else 0.25):
        id_, code = _pick(DISPOSITIONS, dice)
        note = _pick(NOTES, dice) if dice.random() < 0.4 else ""
        is_set = ends + _lag(dice)
        story.disposition = (id_, code, note, is_set, is_set if dice.random() < 0.7 else max(is_set, ends + _lag(dice)))
    if dice.random() < 0.25:
        first = int(len(TAGS) * dice.random())
        for step in range(1 + int(3 * dice.random())):
            story.tags.append((TAGS[(first + 3 * step) % len(TAGS)], ends + _lag(dice)))
    if story.answered is not None and dice.random() < 0.88:
        for number in range(2 if any(leg.is_transfer for leg in story.legs) else 1):
            url = f"https://recordings.example/v1/{story.call_id}-{number}.mp3?key={int(dice.random() * 2**48):012x}"
            story.recordings.append((story.call_id * 2 + number, url, ends + 20 + _lag(dice)))
    if story.kind.type == "voicemail":
        story.recordings.append(
            (story.call_id * 2, f"https://recordings.example/v1/voicemail/{story.call_id}.mp3", ends + _lag(dice))
        )


def describe(story: Story, now: float) -> Payload:
    """The call as the vendor shows it at a moment, with the documented names, nesting and order.

    Args:
        story: The call.
        now: The moment (Unix seconds), not before the start.
    """
    kind, answered = story.kind, story.answered
    is_ended = now >= story.ends
    is_answered = answered is not None and now >= answered
    connected = int(min(now, story.ends)) - answered if answered is not None and is_answered else 0
    talked = min(connected, story.ends - answered - story.held) if answered is not None else 0
    is_waiting = not is_answered and not is_ended
    taken = [leg for leg in story.legs if leg.answered is not None and now >= leg.answered]
    if is_ended:
        type_ = kind.type
    elif is_answered:
        type_ = "in_progress"
    else:
        type_ = "queued" if kind.is_inbound else "ringing"
    line_id, line, alias = story.line
    disposition = story.disposition
    return {
        "id": story.call_id,
        "is_inbound": kind.is_inbound,
        "is_answered": is_answered,
        "is_in_queue": is_waiting and story.queue is not None,
        "contact": _describe_contact(story.contact, is_named=now >= story.named),
        "agents": list(dict.fromkeys(leg.agent.id for leg in taken)),
        "all_agents": [_describe_leg(leg, now) for leg in story.legs if now >= leg.begins],
        "answered_agents": [_describe_leg(leg, now) for leg in taken],
        "external_numbers": [
            {"number": number, "is_any_transfer": is_transfer}
            for number, is_transfer, since in story.external
            if now >= since
        ],
        "number": {"id": line_id, "number": line, "numberWithAlias": f"{line} ({alias})", "alias": alias},
        "started_at": story.starts,
        "duration": connected,
        "talk_time": talked,
        "requested_callback": kind.requested_callback and is_ended,
        "is_ended": is_ended,
        "type": type_,
        "is_answered_within_sla": (
            kind.is_inbound and is_answered and answered is not None and answered - story.starts <= _SLA_SECONDS
        ),
        "is_data_cached": now >= story.cached,
        "original_call_id": story.original_call_id,
        "campaign": _describe_named(story.campaign),
        "ring_group": _describe_named(story.queue),
        "ivr": _describe_named(story.menu),
        "disposition": (
            {"id": disposition[0], "code": disposition[1], "note": disposition[2] if now >= disposition[4] else ""}
            if disposition is not None and now >= disposition[3]
            else None
        ),
        "recordings": [{"id": id_, "url": url} for id_, url, since in story.recordings if now >= since],
        "tags": [tag for tag, since in story.tags if now >= since],
    }


def _describe_leg(leg: Leg, now: float) -> Payload:
    return {
        "id": leg.agent.id,
        "user_id": leg.agent.user_id,
        "alias": leg.agent.alias,
        "sip": leg.agent.sip,
        "started_at": leg.begins,
        "type": "agent",
        "is_any_transfer": leg.is_transfer,
        "hangup_reason": leg.reason if now >= leg.ends else None,
    }


def _describe_contact(contact: Contact | None, *, is_named: bool) -> Payload | None:
    if contact is None:
        return None
    return {
        "id": contact.id,
        "full_name": contact.full_name if is_named else "",
        "number_country_code": "1",
        "national_number": contact.national_number,
        "number": "1" + contact.national_number,
        "list_ids": list(contact.list_ids),
    }


def _describe_named(named: Named | None) -> Payload | None:
    return None if named is None else {"id": named[0], "name": named[1]}


def _pick(choices: Sequence[Any], dice: Random) -> Any:  # noqa: ANN401 - the element type is the caller's
    return choices[int(len(choices) * dice.random())]


def _exponential(dice: Random, mean: float, most: int) -> int:
    return min(most, int(-mean * log(1 - dice.random())))


def _lag(dice: Random) -> int:
    """Seconds from the end of a call until a detail is there: mostly minutes, for a few up to six days."""
    which, within = dice.random(), dice.random()
    if which < 0.70:
        return 10 + int(170 * within)
    if which < 0.88:
        return 3 * _MINUTE + int(2 * _HOUR * within)
    if which < 0.97:
        return 2 * _HOUR + int(22 * _HOUR * within)
    return _DAY + int(5 * _DAY * within)
