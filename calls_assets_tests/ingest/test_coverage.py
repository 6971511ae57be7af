"""Coverage: an id without an answer is always accounted against a day, wherever it stands."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from calls_assets.ingest import SweepFailedError, coverage
from calls_assets.lake import Lake
from calls_assets_tests.ingest.model import ModelCall, ModelVendor, run_sweep

ZONE = ZoneInfo("UTC")
FIRST = date(2025, 3, 3)
DAYS = [FIRST + timedelta(days=offset) for offset in range(3)]
PER_DAY = 40


def make_vendor(fails: frozenset[int]) -> ModelVendor:
    """Gives three days of forty calls, ids 1 to 120, seen a month later."""
    calls = [
        ModelCall(
            1 + PER_DAY * number + hour,
            datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(minutes=30 * hour),
        )
        for number, day in enumerate(DAYS)
        for hour in range(PER_DAY)
    ]
    return ModelVendor(calls, datetime(2025, 4, 1, tzinfo=UTC), fails=fails)


@pytest.mark.parametrize("failing", [41, 60, 80])
def test_an_id_that_failed_is_missed_at_the_edges_of_a_day_too(tmp_path: Path, failing: int) -> None:
    """First, middle and last id of the day: the report and the lake say the same."""
    vendor = make_vendor(frozenset({failing}))
    report = run_sweep(tmp_path, vendor, DAYS, ZONE)
    assert report.failed_ids == (failing,)
    assert report.coverage[DAYS[1]].unaccounted == ((failing, failing),)
    assert next(coverage(Lake.open(tmp_path), [DAYS[1]], ZONE)).unaccounted == ((failing, failing),)
    vendor.fails = frozenset()
    assert run_sweep(tmp_path, vendor, [DAYS[1]], ZONE).coverage[DAYS[1]].is_complete


def test_an_id_that_failed_before_the_first_call_is_missed(tmp_path: Path) -> None:
    """It may be the first call of the account."""
    report = run_sweep(tmp_path, make_vendor(frozenset({1})), DAYS, ZONE)
    assert report.coverage[DAYS[0]].unaccounted == ((1, 1),)


def test_an_id_that_failed_far_beyond_the_last_call_is_missed_alone(tmp_path: Path) -> None:
    """A look far ahead asks for single ids, and nobody for those between."""
    far = 120 + 2**16
    report = run_sweep(tmp_path, make_vendor(frozenset({far})), DAYS, ZONE)
    assert report.failed_ids == (far,)
    assert report.coverage[DAYS[2]].unaccounted == ((far, far),)


def test_an_id_that_failed_in_a_day_before_the_first_call_is_missed(tmp_path: Path) -> None:
    """The day has no call that is known, but may have had one."""
    vendor = make_vendor(frozenset({1, 3}))
    vendor.calls = [call for call in vendor.calls if call.id > PER_DAY]
    vendor.__post_init__()
    report = run_sweep(tmp_path, vendor, [DAYS[0]], ZONE)
    assert report.coverage[DAYS[0]].unaccounted == ((1, 1), (3, 3))


@pytest.mark.parametrize(("first", "last"), [(41, 80), (81, 120)])
def test_a_day_without_any_answer_is_not_complete(tmp_path: Path, first: int, last: int) -> None:
    """Between other days and at the end of the account."""
    vendor = make_vendor(frozenset(range(first, last + 1)))
    day = DAYS[(first - 1) // PER_DAY]
    with pytest.raises(SweepFailedError) as caught:
        run_sweep(tmp_path, vendor, DAYS, ZONE)
    assert not caught.value.report.coverage[day].is_complete
    assert caught.value.report.coverage[DAYS[0]].unaccounted in {(), ((41, 80),)}


def test_a_call_stored_in_a_far_day_is_accounted_for(tmp_path: Path) -> None:
    """Its id stands between the day's last call and the next day's first, its start two weeks later."""
    quiet = [call for call in make_vendor(frozenset()).calls if not 41 <= call.id <= 80 or call.id == 50]
    others = [ModelCall(140 + n, datetime(2025, 3, 6 + n, tzinfo=UTC)) for n in range(12)]
    late = ModelCall(60, datetime(2025, 3, 19, tzinfo=UTC))
    vendor = ModelVendor([*quiet, *others, late], datetime(2025, 5, 1, tzinfo=UTC))
    run_sweep(tmp_path, vendor, [DAYS[0] + timedelta(days=ahead) for ahead in range(20)], ZONE)
    assert next(coverage(Lake.open(tmp_path), [DAYS[1]], ZONE)).is_complete
