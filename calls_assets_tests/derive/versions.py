"""Versions of calls, as `Lake.read_day` gives them, made from a few words."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from calls_assets.lake.schemas import VERSIONS

START = 1_747_839_084
"""The start of the documented call: 2025-05-21T14:51:24Z."""

SAMPLE: dict[str, Any] = {
    "id": 1234,
    "is_inbound": False,
    "is_answered": True,
    "is_in_queue": False,
    "contact": {
        "id": 4321,
        "full_name": "John Doe",
        "number_country_code": "1",
        "national_number": "234567890",
        "number": "1234567890",
        "list_ids": [1, 2, 3],
    },
    "agents": [1],
    "all_agents": [
        {
            "id": 1,
            "user_id": 43,
            "alias": "Agent Name",
            "sip": "sip:agent@example.com",
            "started_at": START,
            "type": "agent",
            "is_any_transfer": False,
            "hangup_reason": "NORMAL_CLEARING",
        }
    ],
    "answered_agents": [
        {
            "id": 1,
            "user_id": 43,
            "alias": "Agent Name",
            "sip": "sip:agent@example.com",
            "started_at": START,
            "type": "agent",
            "is_any_transfer": False,
            "hangup_reason": "NORMAL_CLEARING",
        }
    ],
    "external_numbers": [{"number": "1234567890", "is_any_transfer": False}],
    "number": {
        "id": 1,
        "number": "1234567891",
        "numberWithAlias": "1234567891 (Number Alias/Friendly Name)",
        "alias": "Number Alias/Friendly Name",
    },
    "started_at": START,
    "duration": 5,
    "talk_time": 5,
    "requested_callback": False,
    "is_ended": True,
    "type": "answered",
    "is_answered_within_sla": True,
    "is_data_cached": True,
    "original_call_id": 2,
    "campaign": {"id": 1, "name": "Campaign Name"},
    "ring_group": {"id": 1, "name": "Ring Group Name"},
    "ivr": {"id": 1, "name": "IVR Name"},
    "disposition": {"id": 1, "code": "Successful Deal", "note": "This is a note for the disposition"},
    "recordings": [
        {"id": 12, "url": "https://media.plivo.com/v1/Account/{AccountPlivoID}/Recording/1234567890.mp3"},
    ],
    "tags": ["tag1", "tag2", "tag3"],
}
"""The vendor's documented call, with an address where the documentation page hides it."""


def at(text: str) -> datetime:
    """Reads an instant, UTC unless it says otherwise."""
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def seconds(text: str) -> int:
    """Reads an instant as the vendor writes it: epoch seconds."""
    return int(at(text).timestamp())


def call(call_id: int, **fields: object) -> dict[str, Any]:
    """Makes a call that says little: it started when the documented one did, and has ended."""
    return {"id": call_id, "started_at": START, "is_ended": True, **fields}


def version(
    answer: Mapping[str, Any] | bytes | None,
    read_at: str | datetime,
    last_read_at: str | datetime | None = None,
    *,
    call_id: int | None = None,
    read_count: int = 1,
    error: str | None = None,
) -> dict[str, Any]:
    """Makes one version.

    Args:
        answer: The call; or a body as it is, which then is one that the contract took when it was read, started when
            the documented call did; or None for a 404.
        read_at: First read.
        last_read_at: Last read, by default the first.
        call_id: The id asked for, by default the call's.
        read_count: Number of reads.
        error: Why the answer is quarantined.
    """
    body = answer if isinstance(answer, bytes | None) else json.dumps({"calls": answer}).encode()
    fields = answer if isinstance(answer, Mapping) else {"started_at": START, "is_ended": True}
    is_valid = answer is not None and error is None
    first = at(read_at) if isinstance(read_at, str) else read_at
    last = at(last_read_at) if isinstance(last_read_at, str) else last_read_at
    return {
        "call_id": fields["id"] if call_id is None else call_id,
        "http_status": 404 if body is None else 200,
        "started_at": datetime.fromtimestamp(int(fields["started_at"]), UTC) if is_valid else None,
        "is_ended": fields.get("is_ended") if is_valid else None,
        "error": error,
        "content_hash": hashlib.blake2b(body or b"", digest_size=16).digest(),
        "payload": body,
        "first_read_at": first,
        "last_read_at": last or first,
        "read_count": read_count,
    }


def to_table(versions: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Makes the table, in the order of the lake."""
    ordered = sorted(versions, key=lambda row: (row["call_id"], row["first_read_at"]))
    return pa.Table.from_pylist(ordered, schema=VERSIONS)


def ages(*hours: int) -> tuple[timedelta, ...]:
    """Makes the ages at which calls are read again."""
    return tuple(timedelta(hours=hour) for hour in hours)
