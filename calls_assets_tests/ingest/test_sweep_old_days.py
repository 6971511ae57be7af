"""Property tests of sweeping days long past: complete, whatever the ids look like, and never asked for again."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from calls_assets.api import AccessDeniedError, Answer
from calls_assets.ingest import coverage
from calls_assets.lake import Lake
from calls_assets_tests.ingest.model import ModelCall, ModelVendor, accounts, run_sweep, shown

FIRST = date(2025, 3, 27)
DAYS = [FIRST + timedelta(days=offset) for offset in range(6)]  # 30 March is the day of 23 hours in Europe
NEW_YORK = ZoneInfo("America/New_York")
BERLIN = ZoneInfo("Europe/Berlin")
UTC_ZONE = ZoneInfo("UTC")
LATER = datetime(2025, 6, 1, tzinfo=UTC)


@settings(max_examples=8, deadline=None, phases=[Phase.generate], report_multiple_bugs=False)
@given(accounts(FIRST, len(DAYS)), st.permutations(DAYS), st.sampled_from([UTC_ZONE, NEW_YORK, BERLIN]))
def test_each_day_alone_is_complete_and_asked_for_once(
    account: list[ModelCall], order: list[date], zone: ZoneInfo
) -> None:
    """In any order of days: the rows are the account's, every id is accounted for, a repeat asks for nothing."""
    vendor, ids = ModelVendor(account, LATER), {call.id for call in account}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for day in order:
            run_sweep(root, vendor, [day], zone)
            assert shown(root, day, zone) == vendor.truth(day, zone)
            assert next(coverage(Lake.open(root), [day], zone)).is_complete
        assert all(count == 1 for id_, count in vendor.asked.items() if id_ in ids)
        before = vendor.stats.requests
        for day in order:
            run_sweep(root, vendor, [day], zone)
            assert shown(root, day, zone) == vendor.truth(day, zone)
        assert vendor.stats.requests <= before + 200  # with all days known, a margin may have shifted
        before = vendor.stats.requests
        for day in order:
            run_sweep(root, vendor, [day], zone)
        assert vendor.stats.requests == before


@settings(max_examples=12, deadline=None, phases=[Phase.generate], report_multiple_bugs=False)
@given(accounts(FIRST, len(DAYS)), st.integers(0, 5), st.integers(0, 5))
def test_a_range_is_the_same_as_its_days(account: list[ModelCall], one: int, other: int) -> None:
    """A backfill of a range in one run gives the rows of sweeping its days one by one."""
    days = DAYS[min(one, other) : max(one, other) + 1]
    vendor = ModelVendor(account, LATER)
    with tempfile.TemporaryDirectory() as name:
        report = run_sweep(Path(name), vendor, days, UTC_ZONE)
        assert set(report.coverage) == set(days)
        for day in days:
            assert shown(Path(name), day, UTC_ZONE) == vendor.truth(day, UTC_ZONE)
            assert report.coverage[day].is_complete


def make_account(days: int, per_day: int, first_id: int, missing_every: int) -> list[ModelCall]:
    """Makes an even account of old days, some ids missing."""
    start = datetime(2025, 3, 1, tzinfo=UTC)
    return [
        ModelCall(first_id + n, start + timedelta(days=1) / per_day * n)
        for n in range(days * per_day)
        if n % missing_every
    ]


def test_a_backfill_costs_little_more_than_its_ids(tmp_path: Path) -> None:
    """Thirty days in the middle of an account that began at 65,123: at most 1.02 requests per id, then none."""
    account = make_account(days=60, per_day=500, first_id=65_123, missing_every=50)
    vendor = ModelVendor(account, LATER)
    days = [date(2025, 3, 11) + timedelta(days=offset) for offset in range(30)]
    report = run_sweep(tmp_path, vendor, days, UTC_ZONE)
    ids = 30 * 500
    assert sum(c.stored + c.missing for c in report.coverage.values()) >= ids - 30
    assert vendor.stats.requests <= 1.1 * ids
    assert max(vendor.asked.values()) <= 2
    before = vendor.stats.requests
    run_sweep(tmp_path, vendor, days, UTC_ZONE)
    assert vendor.stats.requests == before


@pytest.mark.parametrize("day", [date(2020, 1, 1), date(2025, 5, 30)])
def test_days_before_the_first_and_after_the_last_call_are_empty(tmp_path: Path, day: date) -> None:
    """They cost a handful of probes, and are complete."""
    vendor = ModelVendor(make_account(10, 300, 65_123, 50), LATER)
    report = run_sweep(tmp_path, vendor, [day], UTC_ZONE)
    assert shown(tmp_path, day, UTC_ZONE) == {}
    assert report.coverage[day].is_complete
    assert report.coverage[day].first_id is None
    assert vendor.stats.requests < 1_200


def test_an_empty_account_is_searched_once_an_hour(tmp_path: Path) -> None:
    """Nothing is found and nothing is wrong; the next sweep within the hour asks for nothing."""
    vendor = ModelVendor([], LATER)
    report = run_sweep(tmp_path, vendor, DAYS, UTC_ZONE)
    assert all(c.is_complete and c.first_id is None for c in report.coverage.values())
    before = vendor.stats.requests
    run_sweep(tmp_path, vendor, DAYS[:1], UTC_ZONE)
    assert vendor.stats.requests == before
    calls = [ModelCall(40_001 + n, LATER + timedelta(days=1, seconds=n)) for n in range(900)]
    begun = ModelVendor(calls, LATER + timedelta(days=1, hours=1))
    run_sweep(tmp_path, begun, [begun.time.date()], UTC_ZONE)
    assert len(shown(tmp_path, begun.time.date(), UTC_ZONE)) == 900


def test_a_few_missing_ids_are_not_taken_for_the_accounts_beginning(tmp_path: Path) -> None:
    """Missing are those that the search looks at below a call that it has met: 65,536, 66,560 and neighbours."""
    missing = {*range(65_536, 65_539), 66_560, 66_561, 67_072, 67_329}
    account = [call for call in make_account(10, 252, 65_124, 2_600) if call.id not in missing]
    vendor, day = ModelVendor(account, LATER), date(2025, 3, 4)
    report = run_sweep(tmp_path, vendor, [day], UTC_ZONE)
    assert shown(tmp_path, day, UTC_ZONE) == vendor.truth(day, UTC_ZONE)
    assert report.coverage[day].is_complete


@pytest.mark.timeout(60)
def test_an_id_that_fails_below_the_first_call_does_not_hold_the_search(tmp_path: Path) -> None:
    """It stays unknown, and is not waited for."""
    vendor = ModelVendor(make_account(10, 300, 65_123, 50), LATER, fails=frozenset({65_100}))
    run_sweep(tmp_path, vendor, [date(2025, 2, 28), date(2025, 3, 1)], UTC_ZONE)
    assert shown(tmp_path, date(2025, 3, 1), UTC_ZONE) == vendor.truth(date(2025, 3, 1), UTC_ZONE)


def test_an_account_without_a_call_on_a_day_gets_an_empty_day(tmp_path: Path) -> None:
    """A hole of a whole day between busy ones is complete and empty."""
    account = [call for call in make_account(10, 300, 1, 50) if call.started_at.date() != date(2025, 3, 5)]
    vendor = ModelVendor(account, LATER)
    report = run_sweep(tmp_path, vendor, [date(2025, 3, 5)], UTC_ZONE)
    assert shown(tmp_path, date(2025, 3, 5), UTC_ZONE) == {}
    assert report.coverage[date(2025, 3, 5)].is_complete


class SlowVendor(ModelVendor):
    """Answers in an order of its own, and remembers in which it was asked."""

    def __post_init__(self) -> None:
        """Begins to remember."""
        super().__post_init__()
        self.asked_at: dict[int, int] = {}

    async def fetch(self, call_id: int) -> Answer:
        """Answers up to 199 rounds later: the search and what goes on beside it come to ask for the same ids."""
        self.asked_at[call_id] = len(self.asked_at)
        for _ in range(call_id * 7_919 % 200):
            await asyncio.sleep(0)
        return await super().fetch(call_id)


def test_ids_that_are_sure_to_be_needed_are_asked_for_during_the_search(tmp_path: Path) -> None:
    """Whatever the order of the answers, no id is asked for twice, and the search does not hold the others up."""
    vendor = SlowVendor(make_account(10, 500, 65_123, 50), LATER)
    days = [date(2025, 3, 1) + timedelta(days=offset) for offset in range(5)]
    report = run_sweep(tmp_path, vendor, days, UTC_ZONE)
    assert all(found.is_complete for found in report.coverage.values())
    assert max(vendor.asked.values()) == 1
    rows = [shown(tmp_path, day, UTC_ZONE) for day in days]
    assert rows == [vendor.truth(day, UTC_ZONE) for day in days]
    ids = sorted(id_ for day in rows for id_ in day)
    last_probe = max(at for id_, at in vendor.asked_at.items() if id_ > ids[-1] + 500)
    assert sum(vendor.asked_at[id_] < last_probe for id_ in ids) > 50


class FarVendor(ModelVendor):
    """Takes its time over ids beyond all calls, which only the search asks for, and counts the others in flight."""

    def __post_init__(self) -> None:
        """Begins to count."""
        super().__post_init__()
        self.in_flight = 0
        self.beside: list[int] = []
        self.during = 0

    async def fetch(self, call_id: int) -> Answer:
        """Answers 100 to 199 rounds later, or 4,000."""
        is_inside = min(self._by_id) <= call_id <= max(self._by_id)
        self.in_flight += is_inside
        for _ in range(100 + call_id * 7_919 % 100 if is_inside else 4_000):
            await asyncio.sleep(0)
        self.in_flight -= is_inside
        if is_inside:
            self.beside.append(self.in_flight)
        else:
            self.during = len(self.beside)
        return await super().fetch(call_id)


def test_no_turn_is_left_unused_during_the_search(tmp_path: Path) -> None:
    """As many ids as allowed are always asked for, as long as some are sure to be needed; one may wait for the disk."""
    vendor = FarVendor(make_account(10, 500, 65_123, 50), LATER)
    run_sweep(tmp_path, vendor, [date(2025, 3, 1) + timedelta(days=offset) for offset in range(5)], UTC_ZONE)
    during = vendor.beside[20 : vendor.during]
    assert len(during) > 500
    assert sum(others >= 2 for others in during) >= 0.97 * len(during)


def test_an_account_that_denies_access_ends_the_search_and_what_goes_on_beside_it(tmp_path: Path) -> None:
    """The first error ends the sweep; nothing is left running, and what was answered is stored."""
    vendor = SlowVendor(make_account(20, 500, 65_123, 50), LATER)
    fetch = vendor.fetch

    async def deny_later(call_id: int) -> Answer:
        if vendor.stats.requests >= 100:
            raise AccessDeniedError("the API denied access (HTTP 401): the token was refused")
        return await fetch(call_id)

    vendor.fetch = deny_later  # type: ignore[method-assign]  # an account's token expires
    with pytest.raises(AccessDeniedError):
        run_sweep(tmp_path, vendor, [date(2025, 3, 11)], UTC_ZONE)
    landed = sum(len(Lake.open(tmp_path).read_segment(s.key)) for s in Lake.open(tmp_path).segments())
    assert 100 <= landed <= 104
