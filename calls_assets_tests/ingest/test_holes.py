"""Holes beside a day that are taken for jumps in the numbering: named for the right days, and read when asked for."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from calls_assets.ingest import Coverage, Wanted, coverage, make_plan, sweep
from calls_assets.ingest.coverage import MARGIN, MAX_GAP, MAX_HOLE
from calls_assets.lake import Lake
from calls_assets_tests.ingest.model import ModelCall, ModelVendor, accounts, options_in, run_sweep, shown

ZONE = ZoneInfo("UTC")
FIRST = date(2025, 3, 3)
DAYS = [FIRST + timedelta(days=offset) for offset in range(6)]
LATER = datetime(2025, 6, 1, tzinfo=UTC)
PER_DAY = 300
MIDNIGHT = datetime(2025, 3, 5, tzinfo=UTC)


def make_day(day: date, first_id: int, calls: int = PER_DAY) -> list[ModelCall]:
    """Gives calls that are spread evenly over a day."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return [ModelCall(first_id + n, start + timedelta(days=1) / calls * n) for n in range(calls)]


def make_account(jump: int, *, empty_days: int = 0) -> list[ModelCall]:
    """Gives two days of ids up to 600, a jump, perhaps days without calls, and two more days."""
    calls = make_day(DAYS[0], 1) + make_day(DAYS[1], 301)
    for number in range(2):
        calls += make_day(DAYS[2 + empty_days + number], 601 + jump + number * PER_DAY)
    return calls


def make_island(first_id: int, starts: Sequence[datetime]) -> list[ModelCall]:
    """Gives calls with ids side by side."""
    return [ModelCall(first_id + n, start) for n, start in enumerate(starts)]


def account(root: Path, days: Sequence[date]) -> list[Coverage]:
    """Accounts for days from the lake alone."""
    return list(coverage(Lake.open(root), days, ZONE))


def sweep_each(root: Path, vendor: ModelVendor, days: Sequence[date], *, read_holes: bool = False) -> list[Coverage]:
    """Sweeps days one by one, told of the newest call as by a delivery; gives what each sweep says of its day."""
    wanted = {max(call.id for call in vendor.calls): Wanted(MIDNIGHT)}
    return [run_sweep(root, vendor, [day], ZONE, read_holes=read_holes, wanted=wanted).coverage[day] for day in days]


def begin(root: Path, calls: Sequence[ModelCall]) -> ModelVendor:
    """Gives an account of which the days before the jump are stored, and the other side of it is known."""
    vendor = ModelVendor(calls, LATER)
    run_sweep(root, vendor, DAYS[:2], ZONE)
    sweep_each(root, vendor, [DAYS[0]])
    return vendor


ISLAND = make_island(9_111, [MIDNIGHT + timedelta(seconds=step) for step in range(-20, 10)])
"""Thirty calls in the middle of the jump, the first twenty of them of the day before it."""


def test_an_island_in_a_jump_is_named_then_read(tmp_path: Path) -> None:
    """The two days at the jump, and no other, say what they did not read; once it is read, the rows are all there."""
    vendor = begin(tmp_path, [*make_account(20_000), *ISLAND])
    said = sweep_each(tmp_path, vendor, DAYS[:4])
    assert all(found.is_complete for found in said)
    assert [found.unread_count > 19_000 for found in said] == [False, True, True, False]
    held = account(tmp_path, DAYS[:4])
    assert [found.unread for found in held] == [(), held[1].unread, said[2].unread, ()]
    assert not {call.id for call in ISLAND} & shown(tmp_path, DAYS[1], ZONE).keys()

    report = run_sweep(tmp_path, vendor, [DAYS[2]], ZONE, read_holes=True)
    assert report.coverage[DAYS[2]].unread == ()
    assert {DAYS[1], DAYS[2]} <= report.touched_days
    for day in DAYS[:4]:
        assert shown(tmp_path, day, ZONE) == vendor.truth(day, ZONE)
    held = account(tmp_path, DAYS[:4])
    assert all(found.is_complete and not found.unread for found in held)
    before = vendor.stats.requests
    for read_holes in (True, False):
        sweep_each(tmp_path, vendor, DAYS[:4], read_holes=read_holes)
    assert vendor.stats.requests == before
    assert max(vendor.asked.values()) == 1


@pytest.mark.parametrize("number", [1, 2])
def test_either_day_at_a_jump_reads_it(tmp_path: Path, number: int) -> None:
    """And it is settled for the other one."""
    vendor = begin(tmp_path, [*make_account(20_000), *ISLAND])
    sweep_each(tmp_path, vendor, [DAYS[number]], read_holes=True)
    assert sweep_each(tmp_path, vendor, [DAYS[3 - number]])[0].unread == ()
    for day in DAYS[1:3]:
        assert shown(tmp_path, day, ZONE) == vendor.truth(day, ZONE)


def test_days_without_calls_in_a_jump_name_it_too(tmp_path: Path) -> None:
    """Their calls may be the ones in it, as here."""
    noon = datetime(2025, 3, 6, 12, tzinfo=UTC)
    vendor = begin(tmp_path, [*make_account(20_000, empty_days=2), *make_island(9_111, [noon] * 30)])
    sweep_each(tmp_path, vendor, DAYS)
    held = account(tmp_path, DAYS)
    assert [bool(found.unread) for found in held] == [False, True, True, True, True, False]
    assert held[1].unread == held[2].unread == held[3].unread == held[4].unread
    assert held[2].first_id is None
    assert sweep_each(tmp_path, vendor, [DAYS[2]], read_holes=True)[0].unread == ()
    sweep_each(tmp_path, vendor, DAYS)
    assert not any(found.unread for found in account(tmp_path, DAYS))
    assert shown(tmp_path, DAYS[3], ZONE).keys() == set(range(9_111, 9_141))


def test_a_jump_that_is_a_jump_is_settled_by_its_missing_ids(tmp_path: Path) -> None:
    """Nothing stands in it: once read, it is named no more."""
    vendor = begin(tmp_path, make_account(20_000))
    assert sweep_each(tmp_path, vendor, [DAYS[2]])[0].unread
    assert not sweep_each(tmp_path, vendor, [DAYS[2]], read_holes=True)[0].unread
    assert not any(found.unread for found in account(tmp_path, DAYS[1:3]))


@pytest.mark.parametrize("order", [DAYS[:4], DAYS[3::-1]])
def test_a_hole_that_is_read_whole_anyhow_is_never_named(tmp_path: Path, order: list[date]) -> None:
    """Up to 5,000 ids."""
    vendor = begin(tmp_path, make_account(MAX_GAP - 1))
    assert all(found.is_complete and not found.unread for found in sweep_each(tmp_path, vendor, order))
    assert all(found.is_complete and not found.unread for found in account(tmp_path, DAYS))


@settings(max_examples=8, deadline=None, phases=[Phase.generate], report_multiple_bugs=False)
@given(accounts(DAYS[0], len(DAYS)), st.permutations(DAYS))
def test_an_ordinary_account_has_no_ids_that_were_not_read(calls: list[ModelCall], order: list[date]) -> None:
    """Whatever its gaps and disorder, and in whatever order its days are swept; it may begin with a jump."""
    vendor = ModelVendor(calls, LATER)
    with tempfile.TemporaryDirectory() as name:
        said = [run_sweep(Path(name), vendor, [day], ZONE).coverage[day] for day in order]
        unread = [ids for found in [*said, *account(Path(name), DAYS)] for ids in found.unread]
        assert all(last < min(call.id for call in calls) for _, last in unread)


def test_beyond_the_last_call_no_id_is_named(tmp_path: Path) -> None:
    """Nothing tells how far a hole without another end would reach."""
    vendor = ModelVendor(make_account(20_000), LATER)
    run_sweep(tmp_path, vendor, DAYS, ZONE, read_holes=True)
    assert shown(tmp_path, DAYS[1], ZONE) == vendor.truth(DAYS[1], ZONE)
    assert not any(found.stored or found.unread for found in account(tmp_path, DAYS[2:]))
    assert vendor.stats.requests < 1_500


def test_what_lies_below_the_first_known_call_is_named_for_the_days_that_end_there(tmp_path: Path) -> None:
    """An account begins somewhere, or somewhere else: two of its days were not found here."""
    vendor = ModelVendor(make_account(20_000), LATER)
    said = sweep_each(tmp_path, vendor, DAYS[:4])
    assert [(found.stored, found.is_complete) for found in said] == [(0, True)] * 2 + [(PER_DAY, True)] * 2
    assert [bool(found.unread) for found in said] == [True, True, True, False]
    assert [found.unread for found in account(tmp_path, DAYS[:4])] == [found.unread for found in said]
    sweep_each(tmp_path, vendor, [DAYS[1]], read_holes=True)
    sweep_each(tmp_path, vendor, DAYS[:4])
    assert not any(found.unread for found in account(tmp_path, DAYS[:4]))
    for day in DAYS[:4]:
        assert shown(tmp_path, day, ZONE) == vendor.truth(day, ZONE)


@settings(max_examples=12, deadline=None, phases=[Phase.generate], report_multiple_bugs=False)
@given(
    st.integers(0, 30_000),
    st.lists(st.integers(601, 30_600), max_size=40),
    st.sampled_from([0, 2]),
    st.lists(st.sampled_from(range(len(DAYS))), min_size=1, max_size=6),
)
def test_every_id_between_the_neighbouring_calls_is_known_or_named(
    jump: int, island: list[int], empty_days: int, order: list[int]
) -> None:
    """Known, or not read: there is no third, after whatever sweeps of an API that answers.

    What fails is named by the sweep that asked for it, and by the lake alone where a call beyond it is in a day beside.
    """
    calls = make_account(jump, empty_days=empty_days)
    inside = sorted({id_ for id_ in island if id_ < 601 + jump})
    calls += [ModelCall(id_, MIDNIGHT - timedelta(seconds=len(inside) - n)) for n, id_ in enumerate(inside)]
    vendor = ModelVendor(calls, LATER)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for place, number in enumerate(order):
            sweep_each(root, vendor, [DAYS[number]], read_holes=place % 2 == 1)
        lake = Lake.open(root)
        known = set(lake.read_index([segment.day for segment in lake.segments()])["call_id"].to_pylist())
        by_day = {day: {call.id for call in calls if call.started_at.date() == day} & known for day in DAYS}
        for number in order:
            day = DAYS[number]
            (found,) = account(root, [day])
            before = max((id_ for other in DAYS if other < day for id_ in by_day[other]), default=None)
            after = min((id_ for other in DAYS if other > day for id_ in by_day[other]), default=None)
            lowest = min(set.union(*by_day.values()), default=1)
            # Below the first call of all, within a margin, what fails is named by the sweep that asked for it only.
            first = before + 1 if before else 1 if lowest > MARGIN else lowest
            last = after - 1 if after else max(by_day[day], default=0)
            named = [id_ for low, high in found.unaccounted + found.unread for id_ in range(low, high + 1)]
            assert len(named) == len(set(named))
            assert not known & set(named)
            assert set(range(first, last + 1)) <= known | set(named)


@pytest.mark.parametrize("first_id", [150, 201, 202, 4_001, MAX_GAP, MAX_GAP + 1])
def test_below_the_first_call_every_id_is_read_or_named(tmp_path: Path, first_id: int) -> None:
    """However few they are; whoever looks for them finds the calls that stand there."""
    calls = make_day(DAYS[1], first_id) + make_day(DAYS[2], first_id + PER_DAY)
    early = make_island(120, [datetime(2025, 3, 3, 12, tzinfo=UTC) + timedelta(seconds=n) for n in range(10)])
    vendor = ModelVendor([*early, *calls], LATER)
    said = sweep_each(tmp_path, vendor, DAYS[:3])
    if not said[0].stored:
        assert said[0].unread
        held = account(tmp_path, DAYS[:3])
        assert held[0].unread[-1][1] == first_id - 201
        assert [found.unread for found in held] == [held[0].unread, held[0].unread, ()]
        sweep_each(tmp_path, vendor, DAYS[:2], read_holes=True)
    assert shown(tmp_path, DAYS[0], ZONE) == vendor.truth(DAYS[0], ZONE)
    assert not any(found.unread for found in account(tmp_path, DAYS[1:3]))


def test_a_call_on_the_other_side_of_a_jump_does_not_make_the_day_incomplete(tmp_path: Path) -> None:
    """Ids stand out of order: the first call of a day stands three places below the last one before the jump."""
    calls = [call for call in make_account(20_000) if call.id != 597]
    vendor = begin(tmp_path, [*calls, ModelCall(597, MIDNIGHT)])
    said = sweep_each(tmp_path, vendor, DAYS[:4])
    assert all(found.is_complete for found in said)
    assert [bool(found.unread) for found in said] == [False, True, True, False]
    assert shown(tmp_path, DAYS[2], ZONE) == vendor.truth(DAYS[2], ZONE)


def test_an_id_of_a_hole_that_failed_goes_on_being_named(tmp_path: Path) -> None:
    """As one without an answer, then as not read; a later sweep that reads the hole asks for nothing else."""
    vendor = begin(tmp_path, make_account(20_000))
    vendor.fails = frozenset({9_999})
    (found,) = sweep_each(tmp_path, vendor, [DAYS[2]], read_holes=True)
    assert (found.unaccounted, found.unread) == (((9_999, 9_999),), ())
    assert account(tmp_path, [DAYS[2]])[0].unread == ((9_999, 9_999),)
    vendor.fails, before = frozenset(), vendor.stats.requests
    assert sweep_each(tmp_path, vendor, [DAYS[1]], read_holes=True)[0].unread == ()
    assert vendor.stats.requests == before + 1


def test_ids_of_a_hole_that_somebody_named_are_read(tmp_path: Path) -> None:
    """Their answers say that there is no call, and are stored in a day far away."""
    vendor = begin(tmp_path, make_account(20_000) + make_day(DAYS[4], 21_201) + make_day(DAYS[5], 21_501))
    sweep_each(tmp_path, vendor, DAYS)
    for place in (0, -1):
        first, last = account(tmp_path, [DAYS[2]])[0].unread[place]
        far = DAYS[5] + timedelta(days=30 - place)
        run_sweep(tmp_path, vendor, [far], ZONE, wanted=dict.fromkeys(range(first, last), Wanted(LATER)))
        assert account(tmp_path, [DAYS[2]])[0].unread[place] == (last, last)
        assert sweep_each(tmp_path, vendor, [DAYS[2]])[0].unread[place] == (last, last)


def test_without_id_scan_no_id_is_held_to_be_unread(tmp_path: Path) -> None:
    """As none is held to be unanswered: nothing says what ids there are."""
    vendor = begin(tmp_path, make_account(20_000))
    options = options_in(ZONE, id_scan=False, read_holes=True)
    before = vendor.stats.requests
    report = asyncio.run(
        sweep(Lake.open(tmp_path), vendor, DAYS[1:3], options=options, now=vendor.now, log=lambda _line: None)
    )
    assert not any(found.unread for found in report.coverage.values())
    assert vendor.stats.requests == before


def test_a_plan_tells_what_reading_the_holes_costs(tmp_path: Path) -> None:
    """Before it is asked for."""
    vendor, lake = begin(tmp_path, make_account(20_000)), Lake.open(tmp_path)
    sweep_each(tmp_path, vendor, [DAYS[2]])
    plans = [
        asyncio.run(make_plan(lake, vendor, [DAYS[2]], options=options_in(ZONE, read_holes=read_holes), now=vendor.now))
        for read_holes in (False, True)
    ]
    assert plans[0].requests == 0
    before = vendor.stats.requests
    run_sweep(tmp_path, vendor, [DAYS[2]], ZONE, read_holes=True)
    assert plans[1].requests == vendor.stats.requests - before > 19_000


@pytest.mark.timeout(60)
@pytest.mark.parametrize("jump", [MAX_HOLE, 3_000_000_000])
def test_a_hole_beyond_all_measure_is_named_and_not_read(tmp_path: Path, jump: int) -> None:
    """Whoever asked for it sees it named still: it would take days, and more memory than there is."""
    vendor = begin(tmp_path, make_account(jump))
    said = sweep_each(tmp_path, vendor, [DAYS[1], DAYS[2]], read_holes=True)
    assert all(jump - 1_000 < found.unread_count <= jump for found in said)
    assert vendor.stats.requests < 3_000
