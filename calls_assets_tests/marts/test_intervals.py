"""Half hours of local time, on days of 23 and 25 hours, and values that the vendor did not tell."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from calls_assets.marts.query import connect, run_mart
from calls_assets_tests.lakes import to_table


def make_intervals(*calls: dict[str, Any], zone: str = "UTC") -> list[dict[str, Any]]:
    """Makes service_intervals of a few calls."""
    rows = []
    for call in calls:
        local = call["started_at"].astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        rows.append({"is_inbound": True, "is_ended": True, "started_at_local": local, **call})
    with connect() as connection:
        found: list[dict[str, Any]] = run_mart(
            connection, "service_intervals", {"calls": to_table("calls", rows)}
        ).to_pylist()
        return found


def at(text: str) -> dict[str, Any]:
    """Makes a call that began then (UTC)."""
    return {"started_at": datetime.fromisoformat(text).replace(tzinfo=UTC)}


@pytest.mark.parametrize(
    ("zone", "instants", "expected"),
    [
        ("Europe/Berlin", ["2025-03-30T00:59:59", "2025-03-30T01:00:00"], ["01:30 00:30", "03:00 01:00"]),
        ("Europe/Berlin", ["2025-10-26T00:10:00", "2025-10-26T01:10:00"], ["02:00 00:00", "02:00 01:00"]),
        ("America/New_York", ["2025-11-02T05:59:59", "2025-11-02T06:00:00"], ["01:30 05:30", "01:00 06:00"]),
        ("Asia/Kathmandu", ["2025-05-20T18:15:00", "2025-05-20T18:44:59"], ["00:00 18:15"]),
        ("Australia/Lord_Howe", ["2025-04-05T14:45:00", "2025-04-05T15:00:00"], ["01:30 14:30", "01:30 15:00"]),
    ],
)
def test_half_hours_follow_the_wall_clock_and_are_told_apart(
    zone: str, instants: list[str], expected: list[str]
) -> None:
    """The hour that comes twice has two rows each half hour; the hour that is left out has none."""
    rows = make_intervals(*map(at, instants), zone=zone)
    assert [f"{row['interval_start_local']:%H:%M} {row['interval_start_at']:%H:%M}" for row in rows] == expected
    assert sum(row["calls"] for row in rows) == len(instants)


def test_what_the_vendor_did_not_tell_counts_nowhere() -> None:
    """A call with nothing but a start is a call; its NULLs are neither yes nor no."""
    nothing = {"is_inbound": None, "is_ended": None}
    (row,) = make_intervals({**at("2025-05-20T12:00:00"), **nothing})
    assert {name: value for name, value in row.items() if value and "interval" not in name} == {"calls": 1}
    assert row["service_level_strict"] is None

    (row,) = make_intervals({**at("2025-05-20T12:00:00"), "is_answered": None, "requested_callback": True})
    assert (row["offered_calls"], row["answered_calls"], row["unanswered_calls"]) == (1, 0, 0)
    assert (row["callbacks_requested"], row["unanswered_callback_calls"]) == (1, 0)


def test_the_service_levels_differ_in_their_denominators() -> None:
    """Of four answered calls two in time, of six others two asked to be called back: 20, 50 and 25 %."""
    moment = at("2025-05-20T12:00:00")
    (row,) = make_intervals(
        *[{**moment, "is_answered": True, "is_answered_within_sla": number < 2} for number in range(4)],
        *[{**moment, "is_answered": False, "requested_callback": number < 2} for number in range(6)],
    )
    levels = ("service_level_strict", "service_level_answered", "service_level_without_callbacks")
    assert [row[level] for level in levels] == [0.2, 0.5, 0.25]
    assert [row["answered_within_sla_calls"], row["offered_calls"], row["offered_without_callbacks_calls"]] == [
        2,
        10,
        8,
    ]
    assert row["unanswered_calls"] == 4


def test_partial_webhook_data_counts_only_the_calls_it_is_about() -> None:
    """One of three calls has it: the rate is of that one."""
    moment = at("2025-05-20T12:00:00")
    (row,) = make_intervals(
        {**moment, "is_answered": False, "is_abandoned": True},
        {**moment, "is_answered": False},
        {**moment, "is_answered": True, "waiting_seconds": 30},
    )
    assert (row["abandoned_calls"], row["abandonment_known_calls"], row["abandonment_rate"]) == (1, 1, 1.0)
    assert (row["average_speed_of_answer_seconds"], row["wait_known_calls"]) == (30.0, 1)
    (row,) = make_intervals({**moment, "is_abandoned": False})
    assert (row["abandoned_calls"], row["abandonment_rate"]) == (0, 0.0)
