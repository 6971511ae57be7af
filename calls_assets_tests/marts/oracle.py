"""An oracle: the marts' rows from the tables' rows, in plain Python, written from the data dictionary and not from SQL.

It knows all days at once, so it also shows that the few days a mart is made from are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

Row = dict[str, Any]
Key = tuple[Any, ...]
WEEK = timedelta(days=7)


def group(rows: Iterable[Row], key: Callable[[Row], Key]) -> dict[Key, list[Row]]:
    """Collects rows of equal keys."""
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def order(rows: Iterable[Row], columns: Collection[str]) -> list[Row]:
    """Sorts rows by columns, NULL last."""
    return sorted(rows, key=lambda row: [(row[column] is None, row[column] or 0) for column in columns])


def divide(numerator: int | None, denominator: int | None) -> float | None:
    """Gives a quotient, None where there is none."""
    return numerator / denominator if numerator is not None and denominator else None


def quantile(values: list[int], share: float) -> float | None:
    """Gives a quantile, between two values in proportion."""
    if not values:
        return None
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def is_connected(call: Row) -> bool:
    """Tells whether a call is over and was answered."""
    return bool(call["is_ended"] and call["is_answered"])


def is_offered(call: Row) -> bool:
    """Tells whether a call is over and came in."""
    return bool(call["is_ended"] and call["is_inbound"])


def has_disposition(call: Row) -> bool:
    """Tells whether a call has an outcome."""
    return call["disposition_id"] is not None or call["disposition_code"] is not None


def expect_service_intervals(calls: Iterable[Row], zone: ZoneInfo) -> list[Row]:
    """Gives the rows of service_intervals."""

    def start(call: Row) -> datetime:
        started_at: datetime = call["started_at"]
        local = started_at.astimezone(zone)
        return started_at - timedelta(minutes=local.minute % 30, seconds=local.second, microseconds=local.microsecond)

    named = ("is_inbound", "campaign_id", "campaign_name", "ring_group_id", "ring_group_name")
    rows = []
    for key, members in group(calls, lambda call: (start(call), *(call[name] for name in named))).items():
        ended = [call for call in members if call["is_ended"]]
        connected = [call for call in ended if call["is_answered"]]
        offered = [call for call in ended if call["is_inbound"]]
        outbound = [call for call in ended if call["is_inbound"] is False]
        answered = [call for call in offered if call["is_answered"]]
        unanswered = [call for call in offered if call["is_answered"] is False]
        within = sum(call["is_answered_within_sla"] is True for call in answered)
        wishes = [call for call in unanswered if call["requested_callback"]]
        told = [call["is_abandoned"] for call in offered if call["is_abandoned"] is not None]
        waits = [call["waiting_seconds"] for call in answered if call["waiting_seconds"] is not None]
        talks = [call["talk_time_seconds"] for call in connected if call["talk_time_seconds"] is not None]
        row = {
            "interval_start_at": key[0],
            "interval_start_local": key[0].astimezone(zone).replace(tzinfo=None),
            **dict(zip(named, key[1:], strict=True)),
            "calls": len(members),
            "ended_calls": len(ended),
            "connected_calls": len(connected),
            "offered_calls": len(offered),
            "answered_calls": len(answered),
            "unanswered_calls": len(unanswered) - len(wishes),
            "callbacks_requested": sum(call["requested_callback"] is True for call in offered),
            "unanswered_callback_calls": len(wishes),
            "answer_rate": divide(len(answered), len(offered)),
            "answered_within_sla_calls": within,
            "sla_unknown_calls": sum(call["is_answered_within_sla"] is None for call in answered),
            "offered_without_callbacks_calls": len(offered) - len(wishes),
            "service_level_strict": divide(within, len(offered)),
            "service_level_answered": divide(within, len(answered)),
            "service_level_without_callbacks": divide(within, len(offered) - len(wishes)),
            "abandonment_known_calls": len(told),
            "abandoned_calls": sum(told) if told else None,
            "abandonment_rate": divide(sum(told), len(told)),
            "wait_known_calls": len(waits),
            "answered_wait_seconds": sum(waits) if waits else None,
            "average_speed_of_answer_seconds": divide(sum(waits), len(waits)),
            "talk_known_calls": len(talks),
            "talk_seconds": sum(talks),
            "mean_talk_seconds": divide(sum(talks), len(talks)),
            "p50_talk_seconds": quantile(talks, 0.5),
            "p90_talk_seconds": quantile(talks, 0.9),
            "transferred_calls": (transferred := sum(call["is_transferred"] is True for call in connected)),
            "transfer_rate": divide(transferred, len(connected)),
            "disposed_calls": (disposed := sum(map(has_disposition, connected))),
            "disposition_coverage": divide(disposed, len(connected)),
            "recorded_calls": (recorded := sum((call["recording_count"] or 0) > 0 for call in connected)),
            "recording_coverage": divide(recorded, len(connected)),
            "outbound_calls": len(outbound),
            "outbound_answered_calls": (reached := sum(call["is_answered"] is True for call in outbound)),
            "outbound_connect_rate": divide(reached, len(outbound)),
        }
        rows.append(row)
    return order(rows, ["interval_start_at", *named])


REASONS = {
    "LOSE_RACE": "lost_race_legs",
    "ORIGINATOR_CANCEL": "caller_hangup_legs",
    "NO_ANSWER": "no_answer_legs",
    "NO_USER_RESPONSE": "no_answer_legs",
    "ALLOTTED_TIMEOUT": "no_answer_legs",
    "CALL_REJECTED": "declined_legs",
    "USER_BUSY": "declined_legs",
    None: "unknown_reason_legs",
}


def expect_agent_days(calls: Iterable[Row], legs: Iterable[Row]) -> list[Row]:
    """Gives the rows of agent_days."""
    call_of = {call["call_id"]: call for call in calls}
    legs_of = group(legs, lambda leg: (leg["agent_id"],))
    handled_by = group(filter(is_connected, call_of.values()), lambda call: (call["answered_agent_id"],))
    rows = []
    for key in legs_of.keys() | handled_by.keys():
        mine, handled = legs_of.get(key, []), handled_by.get(key, [])
        offered = [leg for leg in mine if call_of[leg["call_id"]]["is_inbound"]]
        missed = [leg for leg in offered if not leg["is_answered"]]
        taken = {leg["call_id"] for leg in mine if leg["is_answered"]}
        last = sorted(mine, key=lambda leg: (call_of[leg["call_id"]]["started_at"], leg["call_id"], leg["leg"]))
        aliases = [leg["alias"] for leg in last if leg["alias"] is not None and key != (None,)]
        talks = [call["talk_time_seconds"] for call in handled if call["talk_time_seconds"] is not None]
        reasons = dict.fromkeys((*REASONS.values(), "other_reason_legs"), 0)
        for leg in missed:
            reasons[REASONS.get(leg["hangup_reason"], "other_reason_legs")] += 1
        rows.append(
            {
                "agent_id": key[0],
                "alias": aliases[-1] if aliases else None,
                "legs": len(mine),
                "offered_legs": len(offered),
                "answered_legs": len(offered) - len(missed),
                **reasons,
                "transfer_legs": sum(leg["is_any_transfer"] is True for leg in mine),
                "calls": len({leg["call_id"] for leg in mine}),
                "answered_calls": len(taken),
                "transferred_calls": sum(call_of[call_id]["is_transferred"] is True for call_id in taken),
                "handled_calls": len(handled),
                "talk_known_calls": len(talks),
                "talk_seconds": sum(talks),
                "mean_talk_seconds": divide(sum(talks), len(talks)),
                "disposed_calls": (disposed := sum(map(has_disposition, handled))),
                "disposition_coverage": divide(disposed, len(handled)),
            }
        )
    return order(rows, ["agent_id"])


def expect_disposition_days(calls: Iterable[Row]) -> list[Row]:
    """Gives the rows of disposition_days."""
    calls = list(calls)
    wider = ("campaign_id", "campaign_name", "is_inbound")
    named = ("disposition_id", "disposition_code", *wider)
    sizes = group(calls, lambda call: tuple(call[name] for name in wider))
    rows = []
    for key, members in group(calls, lambda call: tuple(call[name] for name in named)).items():
        connected = list(filter(is_connected, members))
        talks = [call["talk_time_seconds"] for call in connected if call["talk_time_seconds"] is not None]
        rows.append(
            {
                **dict(zip(named, key, strict=True)),
                "calls": len(members),
                "group_calls": len(sizes[key[2:]]),
                "share": len(members) / len(sizes[key[2:]]),
                "connected_calls": len(connected),
                "talk_known_calls": len(talks),
                "talk_seconds": sum(talks),
                "mean_talk_seconds": divide(sum(talks), len(talks)),
            }
        )
    return order(rows, named)


def expect_call_journeys(
    calls_of_days: Mapping[date, Iterable[Row]], legs: Iterable[Row], over: Collection[date]
) -> dict[date, list[Row]]:
    """Gives the rows of call_journeys of every day.

    Args:
        calls_of_days: All calls, by day.
        legs: All legs.
        over: The days that are in the lake and over.
    """
    calls = [{**call, "day": day} for day, rows in calls_of_days.items() for call in rows]
    calls.sort(key=lambda call: (call["started_at"], call["call_id"]))
    agents = group((leg for leg in legs if leg["is_answered"]), lambda leg: (leg["call_id"],))

    before: dict[int, tuple[Row, str]] = {}  # what a call continues, and by which link
    by_id: dict[int, Row] = {}
    last_of_contact: dict[int, Row] = {}
    for call in calls:
        original = by_id.get(call["original_call_id"])
        previous = last_of_contact.get(call["contact_id"]) if call["is_inbound"] else None
        if original is not None and is_near(original, call):
            before[call["call_id"]] = original, "continued"
        elif previous is not None and is_near(previous, call):
            is_redial = call["started_at"] - previous["started_at"] <= timedelta(minutes=15)
            before[call["call_id"]] = previous, "redial" if is_redial else "repeat"
        by_id[call["call_id"]] = call
        if call["is_inbound"] and call["contact_id"] is not None:
            last_of_contact[call["contact_id"]] = call

    uncut: dict[int, date] = {}  # week of the first call of the whole chain
    chains: dict[int, list[Row]] = {}
    first_of: dict[int, int] = {}
    for call in calls:
        key, week = call["call_id"], monday(call["day"])
        previous, link = before.get(key, (None, None))
        uncut[key] = uncut[previous["call_id"]] if previous else week
        if previous and monday(previous["day"]) != week and uncut[key] < week - WEEK:
            previous = link = None
        first_of[key] = first_of[previous["call_id"]] if previous else key
        chains.setdefault(first_of[key], []).append({**call, "link": link})

    days: dict[date, list[Row]] = {day: [] for day in calls_of_days}
    for members in chains.values():
        row = describe_journey(members, agents, over)
        days[members[0]["day"]].append(row)
    return {day: order(rows, ["first_call_id"]) for day, rows in days.items()}


def describe_journey(members: list[Row], agents: Mapping[Key, list[Row]], over: Collection[date]) -> Row:
    """Gives the row of one chain, whose calls are in order."""
    first, last = members[0], members[-1]
    links = [call["link"] for call in members]
    until = min(last["day"] + WEEK, monday(first["day"]) + timedelta(days=13))
    span = (until - first["day"]).days + 1
    is_complete = all(first["day"] + timedelta(days=offset) in over for offset in range(span))
    inbound = list(filter(is_offered, members))
    is_resolved = None
    if inbound and "repeat" in links:
        is_resolved = False
    elif inbound and is_complete:
        is_resolved = any(call["is_answered"] for call in inbound)
    answering = {leg["agent_id"] for call in members for leg in agents.get((call["call_id"],), [])} - {None}
    return {
        "first_call_id": first["call_id"],
        "first_started_at": first["started_at"],
        "first_started_at_local": first["started_at_local"],
        **{
            name: first[name]
            for name in ("is_inbound", "contact_id", "campaign_id", "campaign_name", "ring_group_id", "ring_group_name")
        },
        "last_call_id": last["call_id"],
        "last_started_at": last["started_at"],
        "calls": len(members),
        "inbound_calls": len(inbound),
        "connected_calls": sum(map(is_connected, members)),
        "continued_calls": links.count("continued"),
        "redial_calls": links.count("redial"),
        "repeat_calls": links.count("repeat"),
        "agents": len(answering),
        "talk_seconds": sum(call["talk_time_seconds"] or 0 for call in members if is_connected(call)),
        "span_seconds": int((last["started_at"] - first["started_at"]).total_seconds()),
        "is_complete": is_complete,
        "is_resolved_without_repeat": is_resolved,
    }


def is_near(earlier: Row, call: Row) -> bool:
    """Tells whether a call can continue another one: within 7 days."""
    return bool(call["started_at"] - earlier["started_at"] <= WEEK and call["day"] - earlier["day"] <= WEEK)


def monday(day: date) -> date:
    """Gives the Monday of a day's week."""
    return day - timedelta(days=day.weekday())
