"""Sixty simulated days: every mart equals the oracle's plain Python, and the marts add up to the calls."""

from __future__ import annotations

from collections import Counter
from datetime import date
from typing import Any

import pytest

from calls_assets.lake import MARTS
from calls_assets_tests.lakes import EMPTY_DAY, WEBHOOK_DAYS, ZONE, FinishedLake
from calls_assets_tests.marts.oracle import (
    Row,
    expect_agent_days,
    expect_call_journeys,
    expect_disposition_days,
    expect_service_intervals,
)


def assert_same(found: list[Row], expected: list[Row]) -> None:
    """Compares rows whole; ratios may differ in the last digit."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one == {
            name: pytest.approx(value, rel=1e-12, abs=0) if isinstance(value, float) else value
            for name, value in other.items()
        }


@pytest.fixture(scope="module")
def journeys(finished_lake: FinishedLake) -> dict[date, list[Row]]:
    """Gives the oracle's journeys."""
    calls = {day: finished_lake.rows("calls", day) for day in finished_lake.days}
    legs = [leg for day in finished_lake.days for leg in finished_lake.rows("call_agents", day)]
    return expect_call_journeys(calls, legs, finished_lake.days)


def test_every_mart_equals_the_plain_calculation(finished_lake: FinishedLake, journeys: dict[date, list[Row]]) -> None:
    """Whole rows, all columns, in the order of the files."""
    for day in finished_lake.days:
        calls, legs = finished_lake.rows("calls", day), finished_lake.rows("call_agents", day)
        assert_same(finished_lake.rows("service_intervals", day), expect_service_intervals(calls, ZONE))
        assert_same(finished_lake.rows("agent_days", day), expect_agent_days(calls, legs))
        assert_same(finished_lake.rows("disposition_days", day), expect_disposition_days(calls))
        assert finished_lake.rows("call_journeys", day) == journeys[day]


def test_the_marts_add_up_to_the_calls(finished_lake: FinishedLake) -> None:
    """Σ intervals = Σ dispositions = Σ calls and so with talk, each day; Σ journeys' calls = Σ calls over all days."""

    def total(name: str, column: str, day: date) -> int:
        return sum(row[column] or 0 for row in finished_lake.rows(name, day))

    in_journeys = 0
    for day in finished_lake.days:
        calls = len(finished_lake.rows("calls", day))
        assert total("service_intervals", "calls", day) == total("disposition_days", "calls", day) == calls
        for column in ("talk_seconds", "talk_known_calls"):
            assert (
                total("service_intervals", column, day)
                == total("agent_days", column, day)
                == total("disposition_days", column, day)
            )
        assert total("agent_days", "handled_calls", day) == total("service_intervals", "connected_calls", day)
        assert total("agent_days", "legs", day) == len(finished_lake.rows("call_agents", day))
        in_journeys += total("call_journeys", "calls", day)
    assert in_journeys == sum(len(finished_lake.rows("calls", day)) for day in finished_lake.days) > 5_000


def test_parts_add_up_within_a_row(finished_lake: FinishedLake) -> None:
    """Offered calls and legs are the sum of what became of them; a journey's calls are its first and its links."""
    for day in finished_lake.days:
        for row in finished_lake.rows("service_intervals", day):
            known = row["answered_calls"] + row["unanswered_calls"] + row["unanswered_callback_calls"]
            assert known <= row["offered_calls"] <= row["ended_calls"] <= row["calls"]
        for row in finished_lake.rows("agent_days", day):
            parts = (
                "answered",
                "lost_race",
                "caller_hangup",
                "no_answer",
                "declined",
                "other_reason",
                "unknown_reason",
            )
            assert sum(row[f"{part}_legs"] for part in parts) == row["offered_legs"]
        for row in finished_lake.rows("call_journeys", day):
            assert row["calls"] == 1 + row["continued_calls"] + row["redial_calls"] + row["repeat_calls"]


def test_ratios_are_their_numerator_by_their_denominator(finished_lake: FinishedLake) -> None:
    """Every column that calls itself a ratio, in every row; NULL when the denominator is nothing."""
    for name, mart in MARTS.items():
        ratios = [field for field in mart.schema if b"numerator" in field.metadata]
        for row in (row for day in finished_lake.days for row in finished_lake.rows(name, day)):
            for field in ratios:
                numerator, denominator = (field.metadata[part].decode() for part in (b"numerator", b"denominator"))
                expected = row[numerator] / row[denominator] if row[denominator] else None
                assert row[field.name] == expected, (name, field.name)


def test_without_webhook_data_waits_and_abandonment_are_unknown(finished_lake: FinishedLake) -> None:
    """NULL, not 0; with it they are known."""
    known = Counter[tuple[bool, str]]()
    for day in finished_lake.days:
        for row in finished_lake.rows("service_intervals", day):
            for column in (
                "abandoned_calls",
                "abandonment_rate",
                "answered_wait_seconds",
                "average_speed_of_answer_seconds",
            ):
                known[day in WEBHOOK_DAYS, column] += row[column] is not None
    assert all(count > 100 for (has_webhook, _), count in known.items() if has_webhook)
    assert not any(count for (has_webhook, _), count in known.items() if not has_webhook)


def test_the_sixty_days_have_what_is_worth_testing(finished_lake: FinishedLake) -> None:
    """Rows of every kind occur, else the comparison shows little."""
    found: dict[str, set[Any]] = {}
    for day in finished_lake.days:
        for name in MARTS:
            for row in finished_lake.rows(name, day):
                for column, value in row.items():
                    found.setdefault(f"{name}.{column}", set()).add(value)
    assert all(len(values) > 1 for values in found.values()), [name for name in found if len(found[name]) < 2]
    assert found["call_journeys.is_resolved_without_repeat"] == {None, True, False}
    assert max(found["call_journeys.span_seconds"]) > 8 * 86_400
    assert {None} < found["agent_days.agent_id"]


def test_an_empty_day_has_empty_marts(finished_lake: FinishedLake) -> None:
    """All columns and no rows."""
    for name, mart in MARTS.items():
        rows = finished_lake.lake.read_table(name, EMPTY_DAY)
        assert rows.num_rows == 0
        assert rows.schema.equals(mart.schema, check_metadata=True)
