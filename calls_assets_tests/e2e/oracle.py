"""An oracle: the tables' rows from the vendor's payloads, written from the data dictionary and not with our code.

It leaves out what depends on when calls were read (`read_count`, `first_read_at`, …): tests check those apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

Row = dict[str, Any]
READ_COLUMNS = ("read_count", "first_read_at", "last_read_at", "last_changed_at", "is_final")


def nothing(value: object) -> bool:
    """Tells whether the vendor says nothing."""
    return value is None or value in ("", [], {})


def text(value: Any) -> str | None:  # noqa: ANN401 - any JSON value
    """Gives a text."""
    return None if nothing(value) else str(value)


def name(value: Any) -> str | None:  # noqa: ANN401 - any JSON value
    """Gives a name without stray blanks."""
    stripped = "" if nothing(value) else value.strip()
    return None if stripped.lower() in {"", "null", "null null"} else stripped


def ident(value: Any) -> int | None:  # noqa: ANN401 - any JSON value
    """Gives an id."""
    return None if nothing(value) or int(value) == 0 else int(value)


def phone(value: Any) -> str | None:  # noqa: ANN401 - any JSON value
    """Gives a telephone number."""
    return None if nothing(value) or value == 0 else str(value)


def number(value: Any) -> int | None:  # noqa: ANN401 - any JSON value
    """Gives a whole number."""
    return None if nothing(value) else int(value)


def flag(value: Any) -> bool | None:  # noqa: ANN401 - any JSON value
    """Gives a flag."""
    return None if nothing(value) else {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]


def instant(value: Any) -> datetime | None:  # noqa: ANN401 - any JSON value
    """Gives an instant."""
    return None if nothing(value) or float(value) == 0 else datetime.fromtimestamp(float(value), UTC)


def items(value: Any) -> list[Any]:  # noqa: ANN401 - any JSON value
    """Gives a list."""
    return value if isinstance(value, list) else []


def inner(value: Any) -> Row:  # noqa: ANN401 - any JSON value
    """Gives an object."""
    return value if isinstance(value, dict) else {}


def ids(value: Any) -> list[int] | None:  # noqa: ANN401 - any JSON value
    """Gives a list of ids."""
    return [int(item) for item in value] if isinstance(value, list) else None


def legs(call: Row) -> list[Row]:
    """Gives the rows of call_agents."""
    answered = [
        (ident(leg.get("id")), instant(leg.get("started_at")), leg) for leg in items(call.get("answered_agents"))
    ]
    rows: list[tuple[Row, bool]] = []
    for leg in items(call.get("all_agents")):
        key = (ident(leg.get("id")), instant(leg.get("started_at")))
        match = next((entry for entry in answered if entry[:2] == key), None)
        if match is not None:
            answered.remove(match)
        rows.append((leg, match is not None))
    rows += [(entry[2], True) for entry in answered]
    return [
        {
            "call_id": ident(call["id"]),
            "leg": position,
            "agent_id": ident(leg.get("id")),
            "user_id": ident(leg.get("user_id")),
            "alias": name(leg.get("alias")),
            "sip": text(leg.get("sip")),
            "type": text(leg.get("type")),
            "started_at": instant(leg.get("started_at")),
            "is_answered": is_answered,
            "is_any_transfer": flag(leg.get("is_any_transfer")),
            "hangup_reason": text(leg.get("hangup_reason")),
        }
        for position, (leg, is_answered) in enumerate(rows)
    ]


def call_row(call: Row, zone: ZoneInfo) -> Row:
    """Gives the row of calls, without what depends on reading."""
    started_at = instant(call["started_at"])
    assert started_at is not None
    contact, line = inner(call.get("contact")), inner(call.get("number"))
    outcome = inner(call.get("disposition"))
    named = {key: inner(call.get(key)) for key in ("campaign", "ring_group", "ivr")}
    agent_legs, answered = legs(call), items(call.get("answered_agents"))
    external = items(call.get("external_numbers"))
    return {
        "call_id": ident(call["id"]),
        "started_at": started_at,
        "started_at_local": started_at.astimezone(zone).replace(tzinfo=None),
        **{key: flag(call.get(key)) for key in ("is_inbound", "is_answered", "is_in_queue", "is_ended")},
        "type": text(call.get("type")),
        "duration_seconds": number(call.get("duration")),
        "talk_time_seconds": number(call.get("talk_time")),
        **{key: flag(call.get(key)) for key in ("requested_callback", "is_answered_within_sla", "is_data_cached")},
        "original_call_id": ident(call.get("original_call_id")),
        "contact_id": ident(contact.get("id")),
        "contact_full_name": name(contact.get("full_name")),
        "contact_number": phone(contact.get("number")),
        "contact_national_number": phone(contact.get("national_number")),
        "contact_number_country_code": phone(contact.get("number_country_code")),
        "contact_list_ids": ids(contact.get("list_ids")),
        "number_id": ident(line.get("id")),
        "number": phone(line.get("number")),
        "number_alias": name(line.get("alias")),
        **{f"{key}_id": ident(value.get("id")) for key, value in named.items()},
        **{f"{key}_name": name(value.get("name")) for key, value in named.items()},
        "disposition_id": ident(outcome.get("id")),
        "disposition_code": text(outcome.get("code")),
        "agent_ids": ids(call.get("agents")),
        "answered_agent_id": ident(answered[0].get("id")) if answered else None,
        "agent_leg_count": len(agent_legs),
        "answered_leg_count": sum(leg["is_answered"] for leg in agent_legs),
        "is_transferred": any(
            flag(part.get("is_any_transfer")) for part in [*items(call.get("all_agents")), *external]
        ),
        "recording_count": len(items(call.get("recordings"))),
        "tags": [str(tag) for tag in call["tags"]] if isinstance(call.get("tags"), list) else None,
        "ended_at": None,
        "waiting_seconds": None,
        "is_abandoned": None,
    }


def child_rows(call: Row) -> Iterator[tuple[str, Row]]:
    """Yields the rows of the other tables, but for call_changes."""
    call_id = ident(call["id"])
    yield from (("call_agents", leg) for leg in legs(call))
    for position, recording in enumerate(items(call.get("recordings"))):
        url = recording if isinstance(recording, str) else recording.get("url")
        recording_id = None if isinstance(recording, str) else ident(recording.get("id"))
        yield "recordings", {"call_id": call_id, "position": position, "recording_id": recording_id, "url": text(url)}
    outcome = inner(call.get("disposition"))
    row = {
        "disposition_id": ident(outcome.get("id")),
        "code": text(outcome.get("code")),
        "note": text(outcome.get("note")),
    }
    if any(value is not None for value in row.values()):
        yield "dispositions", {"call_id": call_id, **row}
    for position, tag in enumerate(items(call.get("tags"))):
        yield "call_tags", {"call_id": call_id, "position": position, "tag": tag}
    for position, external in enumerate(items(call.get("external_numbers"))):
        yield (
            "external_numbers",
            {
                "call_id": call_id,
                "position": position,
                "number": phone(external.get("number")),
                "is_any_transfer": flag(external.get("is_any_transfer")),
            },
        )


def expect_day(payloads: Iterable[Row], day: date, zone: ZoneInfo) -> dict[str, list[Row]]:
    """Gives the rows of every table of a day, in the order of the files."""
    tables: dict[str, list[Row]] = {
        table: [] for table in ("calls", "call_agents", "recordings", "dispositions", "call_tags", "external_numbers")
    }
    for call in sorted(payloads, key=lambda payload: int(payload["id"])):
        row = call_row(call, zone)
        if row["started_at_local"].date() == day:
            tables["calls"].append(row)
            for table, child in child_rows(call):
                tables[table].append(child)
    tables["calls"].sort(key=lambda row: (row["started_at"], row["call_id"]))
    return tables


def expect_agents(days: Iterable[dict[str, list[Row]]]) -> dict[int, tuple[datetime, datetime]]:
    """Gives when each agent was seen first and last."""
    seen: dict[int, list[datetime]] = {}
    for tables in days:
        started = {call["call_id"]: call["started_at"] for call in tables["calls"]}
        with_leg = set()
        for leg in tables["call_agents"]:
            if leg["agent_id"] is not None:
                with_leg.add((leg["call_id"], leg["agent_id"]))
                seen.setdefault(leg["agent_id"], []).append(leg["started_at"] or started[leg["call_id"]])
        for call in tables["calls"]:
            for agent in call["agent_ids"] or []:
                if (call["call_id"], agent) not in with_leg:
                    seen.setdefault(agent, []).append(call["started_at"])
    return {agent: (min(moments), max(moments)) for agent, moments in seen.items()}
