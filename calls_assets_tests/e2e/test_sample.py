"""The documented sample body, served over HTTP, as rows of every table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from calls_assets.settings import Location
from calls_assets.simulator import serve
from calls_assets_tests.derive.versions import SAMPLE
from calls_assets_tests.e2e.running import TOKEN, make_environment, materialize, read_rows

START = datetime(2025, 5, 21, 14, 51, 24, tzinfo=UTC)
DAY = date(2025, 5, 21)
ZONE = "Europe/Berlin"
LEG = {
    "call_id": 1234,
    "leg": 0,
    "agent_id": 1,
    "user_id": 43,
    "alias": "Agent Name",
    "sip": "sip:agent@example.com",
    "type": "agent",
    "started_at": START,
    "is_answered": True,
    "is_any_transfer": False,
    "hangup_reason": "NORMAL_CLEARING",
}
CALL = {
    "call_id": 1234,
    "started_at": START,
    "started_at_local": datetime(2025, 5, 21, 16, 51, 24),  # noqa: DTZ001 - wall clock in Berlin, which is the point
    "is_inbound": False,
    "is_answered": True,
    "is_in_queue": False,
    "is_ended": True,
    "type": "answered",
    "duration_seconds": 5,
    "talk_time_seconds": 5,
    "requested_callback": False,
    "is_answered_within_sla": True,
    "is_data_cached": True,
    "original_call_id": 2,
    "contact_id": 4321,
    "contact_full_name": "John Doe",
    "contact_number": "1234567890",
    "contact_national_number": "234567890",
    "contact_number_country_code": "1",
    "contact_list_ids": [1, 2, 3],
    "number_id": 1,
    "number": "1234567891",
    "number_alias": "Number Alias/Friendly Name",
    "campaign_id": 1,
    "campaign_name": "Campaign Name",
    "ring_group_id": 1,
    "ring_group_name": "Ring Group Name",
    "ivr_id": 1,
    "ivr_name": "IVR Name",
    "disposition_id": 1,
    "disposition_code": "Successful Deal",
    "agent_ids": [1],
    "answered_agent_id": 1,
    "agent_leg_count": 1,
    "answered_leg_count": 1,
    "is_transferred": False,
    "recording_count": 1,
    "tags": ["tag1", "tag2", "tag3"],
    "ended_at": None,
    "waiting_seconds": None,
    "is_abandoned": None,
    "read_count": 1,
    "is_final": True,
}


async def answer(request: Request) -> Response:
    """Serves the sample at its id, 404 elsewhere."""
    if request.headers.get("access-token") != TOKEN:
        return JSONResponse({"error": "token"}, status_code=401)
    if request.path_params["call_id"] != "1234":
        return JSONResponse({"error": "not found"}, status_code=404)
    return Response(json.dumps({"calls": SAMPLE}), media_type="application/json")


@contextmanager
def serve_sample() -> Iterator[str]:
    """Serves an account of that one call; gives its base URL."""
    with serve(Starlette(routes=[Route("/v1/calls/{call_id}", answer)])) as server:
        yield f"{server.url}/v1"


def test_the_documented_sample_comes_out_in_every_table(tmp_path: Path) -> None:
    """An account of that one call: found by search, read once, shown in whole rows."""
    with serve_sample() as url:
        environment = make_environment(tmp_path, url, CALLS_TIMEZONE=ZONE)
        run = materialize(environment, "--partition", DAY.isoformat())
        assert run.returncode == 0, run.stderr[-3000:]
    check_sample(tmp_path / "lake")


def check_sample(lake: Location) -> None:
    """Compares every table with the sample."""
    (row,) = read_rows(lake, "calls", DAY)
    read_at = {row.pop(name) for name in ("first_read_at", "last_read_at", "last_changed_at")}
    assert len(read_at) == 1
    assert row == CALL
    assert read_rows(lake, "call_agents", DAY) == [LEG]
    assert read_rows(lake, "recordings", DAY) == [
        {"call_id": 1234, "position": 0, "recording_id": 12, "url": SAMPLE["recordings"][0]["url"]}
    ]
    assert read_rows(lake, "dispositions", DAY) == [
        {
            "call_id": 1234,
            "disposition_id": 1,
            "code": "Successful Deal",
            "note": "This is a note for the disposition",
        }
    ]
    assert [tuple(tag.values()) for tag in read_rows(lake, "call_tags", DAY)] == [
        (1234, 0, "tag1"),
        (1234, 1, "tag2"),
        (1234, 2, "tag3"),
    ]
    assert read_rows(lake, "external_numbers", DAY) == [
        {"call_id": 1234, "position": 0, "number": "1234567890", "is_any_transfer": False}
    ]
    assert read_rows(lake, "call_changes", DAY) == []
    (agent,) = read_rows(lake, "agents")
    assert agent == {
        "agent_id": 1,
        "user_id": 43,
        "alias": "Agent Name",
        "sip": "sip:agent@example.com",
        "first_seen_at": START,
        "last_seen_at": START,
    }
