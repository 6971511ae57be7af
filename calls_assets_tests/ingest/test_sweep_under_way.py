"""Tests of sweeping while calls happen: everything late arrives, and requests stay within their bound."""

from __future__ import annotations

import asyncio
import importlib
import tempfile
from collections.abc import Container, Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from calls_assets.api import Answer, RequestRefusedError, TransientError
from calls_assets.derive import publish_day
from calls_assets.ingest import SweepFailedError, coverage, due_days, make_plan, probe_new_calls
from calls_assets.lake import Lake, Read, StoredFile
from calls_assets_tests.ingest.model import RUNGS, ModelCall, ModelVendor, options_in, run_sweep, shown

UTC_ZONE = ZoneInfo("UTC")
sweep_module = importlib.import_module("calls_assets.ingest.sweep")  # the package's attribute is the function
DAY = date(2025, 5, 20)
MORNING = datetime(2025, 5, 20, tzinfo=UTC)


LATEST_TAG_SECONDS = 480_000
"""After a start that may be moved back by thirty hours: before the last read, seven days after that."""


def draw_day(seed: int, count: int) -> list[ModelCall]:
    """Draws the calls of two days with everything that happens late."""
    random = Random(seed)
    calls, id_ = [], 500
    for n in range(count):
        id_ += 1 + (random.random() < 0.05)
        started_at = MORNING + timedelta(days=2) * n / count
        moves = random.random() < 0.03
        calls.append(
            ModelCall(
                id_,
                started_at,
                seconds=random.randrange(5, 3_000),
                appears_after=random.choice([0, 0, 0, 0, 0, 600, 7_200]),
                tagged_after=random.choice([0, 60, 4_000, 80_000, LATEST_TAG_SECONDS]),
                moved_after=random.randrange(60, 500_000) if moves else None,
                moved_to=started_at + timedelta(hours=random.choice([-30, -3, 3, 30])) if moves else None,
            )
        )
    return calls


@settings(max_examples=4, deadline=None, phases=[Phase.generate], report_multiple_bugs=False)
@given(st.integers(0, 2**32), st.sampled_from([45, 120, 400]))
def test_everything_late_arrives(seed: int, minutes: int) -> None:
    """Swept at whatever pace while it happens and nightly after, the tables end up as the account."""
    vendor = ModelVendor(draw_day(seed, 100), MORNING)
    days = [DAY + timedelta(days=offset) for offset in range(-2, 4)]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        while vendor.time < MORNING + timedelta(days=2):
            vendor.time += timedelta(minutes=minutes)
            run_sweep(root, vendor, [vendor.time.date()], UTC_ZONE)
        for night in range(1, 12):
            vendor.time = MORNING + timedelta(days=2 + night, hours=3)
            due = due_days(Lake.open(root), now=vendor.time, options=options_in(UTC_ZONE))
            run_sweep(root, vendor, sorted({*due, vendor.time.date() - timedelta(days=1)}), UTC_ZONE, wide=True)
        rows = [shown(root, day, UTC_ZONE) for day in days]
        assert {id_: row for day in rows for id_, row in day.items()} == {
            id_: row for day in days for id_, row in vendor.truth(day, UTC_ZONE).items()
        }
        assert sum(map(len, rows)) == 100  # one row per call, moved ones included
        lake = Lake.open(root)
        assert due_days(lake, now=vendor.time + timedelta(days=30), options=options_in(UTC_ZONE)) == []
        before = vendor.stats.requests
        run_sweep(root, vendor, [DAY], UTC_ZONE)
        assert vendor.stats.requests == before


def test_a_day_swept_every_minute_stays_within_its_bound(tmp_path: Path) -> None:
    """At most one request per call and rung more than the first, and two per tick."""
    random = Random(5)
    calls = [
        ModelCall(10_000 + n, MORNING + timedelta(minutes=3) * (n - 960), random.randrange(20, 500), tagged_after=4_000)
        for n in range(1_920)
        if n % 50
    ]
    vendor = ModelVendor(calls, MORNING)
    run_sweep(tmp_path, vendor, [DAY - timedelta(days=1)], UTC_ZONE)
    vendor.asked.clear()
    vendor.stats.requests = ticks = 0
    while vendor.time < MORNING + timedelta(hours=5):
        vendor.time += timedelta(minutes=2)
        ticks += 1
        run_sweep(tmp_path, vendor, [DAY], UTC_ZONE)
    for later in (timedelta(hours=24), timedelta(hours=26), timedelta(hours=49), timedelta(days=9)):
        vendor.time = MORNING + later
        ticks += 1
        run_sweep(tmp_path, vendor, [DAY], UTC_ZONE)
    assert shown(tmp_path, DAY, UTC_ZONE) == vendor.truth(DAY, UTC_ZONE)
    assert len(vendor.asked) < 480 + 300  # the day's ids, and the margin beyond it
    assert vendor.stats.requests <= (1 + len(RUNGS)) * len(vendor.asked) + 2 * ticks


def test_an_idle_tick_asks_two_ids_and_stores_nothing(tmp_path: Path) -> None:
    """The sensor's look beyond the highest id; an empty lake needs no look."""
    vendor = ModelVendor([ModelCall(700 + n, MORNING) for n in range(50)], MORNING + timedelta(days=30))
    options = options_in(UTC_ZONE)
    lake = Lake.open(tmp_path)
    assert asyncio.run(probe_new_calls(lake, vendor, now=vendor.now, options=options))
    run_sweep(tmp_path, vendor, [DAY], UTC_ZONE)
    before, segments = vendor.stats.requests, lake.segments()
    assert not asyncio.run(probe_new_calls(lake, vendor, now=vendor.now, options=options))
    assert vendor.stats.requests - before == 2
    assert lake.segments() == segments
    more = ModelVendor([*vendor.calls, ModelCall(750, vendor.time)], vendor.time + timedelta(minutes=1))
    assert asyncio.run(probe_new_calls(lake, more, now=more.now, options=options))


def test_the_probe_looks_again_when_a_segment_was_compacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between listing and reading; it asks beyond what is stored, not for what is."""
    vendor = ModelVendor([ModelCall(700 + n, MORNING) for n in range(50)], MORNING + timedelta(days=30))
    run_sweep(tmp_path, vendor, [DAY], UTC_ZONE)
    lake = Lake.open(tmp_path)
    current = lake.segments()
    gone = [replace(segment, key=segment.key + ".gone") for segment in current]
    listings = iter([gone, gone])
    monkeypatch.setattr(lake, "segments", lambda **_: next(listings, current))
    vendor.asked.clear()
    assert not asyncio.run(probe_new_calls(lake, vendor, now=vendor.now, options=options_in(UTC_ZONE)))
    assert min(vendor.asked) > 749


def test_the_probe_does_not_list_what_is_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One listing of the last week; where the newest calls are older, one of all."""
    vendor = ModelVendor([ModelCall(700 + n, MORNING + timedelta(hours=n)) for n in range(200)], MORNING)
    lake, listed = Lake.open(tmp_path), list[int]()
    for day in range(9):
        vendor.time = MORNING + timedelta(days=day, hours=23)
        run_sweep(tmp_path, vendor, [vendor.time.date()], UTC_ZONE)
    list_files = lake.storage.list

    def listen(prefix: str, after: str = "") -> list[StoredFile]:
        found = list_files(prefix, after)
        listed.append(len({file.key.rpartition("/")[0] for file in found}))
        return found

    monkeypatch.setattr(lake.storage, "list", listen)
    for later, days in ((0, [8]), (20, [8, 0, 9])):
        vendor.time += timedelta(days=later)
        vendor.asked.clear()
        asyncio.run(probe_new_calls(lake, vendor, now=vendor.now, options=options_in(UTC_ZONE)))
        assert listed == days
        assert min(vendor.asked) == 900


def test_the_probe_walks_past_a_short_run_of_missing_ids(tmp_path: Path) -> None:
    """Within eight minutes the second id of the probe has been at every distance up to nine."""
    vendor = ModelVendor([ModelCall(700 + n, MORNING) for n in range(50)], MORNING + timedelta(hours=1))
    run_sweep(tmp_path, vendor, [DAY], UTC_ZONE)
    more = ModelVendor([*vendor.calls, ModelCall(756, vendor.time)], vendor.time)
    lake, seen = Lake.open(tmp_path), []
    for _ in range(8):
        more.time += timedelta(minutes=1)
        seen.append(asyncio.run(probe_new_calls(lake, more, now=more.now, options=options_in(UTC_ZONE))))
    assert sorted(filter(None, seen)) == [756]


def test_an_account_without_calls_is_probed_with_two_ids(tmp_path: Path) -> None:
    """Nothing but missing ids is stored: the sensor does not start sweeps over and over."""
    vendor = ModelVendor([], MORNING)
    run_sweep(tmp_path, vendor, [DAY], UTC_ZONE)
    before = vendor.stats.requests
    assert not asyncio.run(probe_new_calls(Lake.open(tmp_path), vendor, now=vendor.now, options=options_in(UTC_ZONE)))
    assert vendor.stats.requests - before == 2


def test_failed_ids_are_named_and_asked_for_next_time(tmp_path: Path) -> None:
    """Few failures: the rest is there, the accounting names the ids. Many: the sweep fails, the rest is there too."""
    calls = [ModelCall(1 + n, MORNING + timedelta(minutes=n)) for n in range(1_000)]
    vendor = ModelVendor(calls, MORNING + timedelta(days=30), fails=frozenset({101, 102, 500}))
    report = run_sweep(tmp_path, vendor, [DAY], UTC_ZONE)
    assert report.failed_ids == (101, 102, 500)
    assert report.coverage[DAY].unaccounted == ((101, 102), (500, 500))
    assert len(shown(tmp_path, DAY, UTC_ZONE)) == 997
    healthy = ModelVendor(calls, vendor.time)
    run_sweep(tmp_path, healthy, [DAY], UTC_ZONE)
    assert set(healthy.asked) == {101, 102, 500}
    assert next(coverage(Lake.open(tmp_path), [DAY], UTC_ZONE)).is_complete


@pytest.mark.parametrize(("hours", "overdue"), [(24, 0), (48, 1), (300, 1)])
def test_a_read_that_could_not_be_made_is_overdue_after_a_day(tmp_path: Path, hours: int, overdue: int) -> None:
    """It is due at an age of a day; the others were read."""
    calls = [ModelCall(1 + n, MORNING + timedelta(minutes=n / 100)) for n in range(100)]
    run_sweep(tmp_path, ModelVendor(calls, MORNING + timedelta(hours=23)), [DAY], UTC_ZONE)
    vendor = ModelVendor(calls, MORNING + timedelta(hours=hours, minutes=1), fails=frozenset({50}))
    report = run_sweep(tmp_path, vendor, [DAY], UTC_ZONE)
    assert report.failed_ids == (50,)
    assert report.overdue == {DAY: overdue}


class HoldingVendor(ModelVendor):
    """Answers with much text, and keeps count of what of it is not stored yet."""

    held = 0
    most_held = 0

    async def fetch(self, call_id: int) -> Answer:
        """Answers with eight KiB."""
        answer = await super().fetch(call_id)
        if answer.body is None:
            return answer
        self.held += 8_192
        self.most_held = max(self.held, self.most_held)
        return replace(answer, body=answer.body.ljust(8_192))


def test_long_answers_are_stored_before_they_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers wait for others to be stored with; for how many bytes of them is bounded, whatever their number."""
    monkeypatch.setattr(sweep_module, "LAND_EVERY_BYTES", 65_536)
    vendor = HoldingVendor([ModelCall(700 + n, MORNING + timedelta(minutes=n)) for n in range(300)], MORNING)
    vendor.time += timedelta(days=1)
    lands, stored = Lake.land, list[int]()

    def land(lake: Lake, day: date, reads: list[Read]) -> object:
        stored.append(sum(len(read.payload or b"") for read in reads))
        vendor.held -= stored[-1]
        return lands(lake, day, reads)

    monkeypatch.setattr(Lake, "land", land)
    run_sweep(tmp_path, vendor, [DAY], UTC_ZONE)
    assert len(shown(tmp_path, DAY, UTC_ZONE)) == 300
    assert vendor.held == 0
    assert sum(size < 65_536 for size in stored) <= 2  # the last ones of a phase of the sweep
    # One batch is being stored while the next one gathers, and answers are under way.
    assert 65_536 <= vendor.most_held <= 2 * 65_536 + 8 * 8_192


def test_many_failures_end_the_sweep_with_everything_else_stored(tmp_path: Path) -> None:
    """More than five percent of the ids: the error tells how many and which, and carries the report."""
    calls = [ModelCall(1 + n, MORNING + timedelta(minutes=n)) for n in range(1_000)]
    vendor = ModelVendor(calls, MORNING + timedelta(days=30), fails=frozenset(range(301, 401)))
    with pytest.raises(SweepFailedError, match=r"100 of \d+ ids had no answer \(first: 301, 302") as caught:
        run_sweep(tmp_path, vendor, [DAY], UTC_ZONE)
    assert caught.value.report.coverage[DAY].unaccounted == ((301, 400),)
    assert len(shown(tmp_path, DAY, UTC_ZONE)) == 900


def test_single_failures_do_not_end_a_small_sweep(tmp_path: Path) -> None:
    """One of a handful is more than five percent: it is named, and asked for by the next sweep."""
    calls = [ModelCall(1 + n, MORNING + timedelta(minutes=n)) for n in range(300)]
    vendor = ModelVendor(calls, MORNING + timedelta(hours=5))
    run_sweep(tmp_path, vendor, [DAY], UTC_ZONE)
    vendor.calls = [*calls, *(ModelCall(301 + n, vendor.time + timedelta(minutes=n)) for n in range(4))]
    vendor.__post_init__()
    vendor.fails, vendor.time = frozenset({302}), vendor.time + timedelta(minutes=6)
    report = run_sweep(tmp_path, vendor, [DAY], UTC_ZONE)
    assert report.failed_ids == (302,)
    assert report.requested < 20 * len(report.failed_ids)
    vendor.fails = range(10**9)  # type: ignore[assignment]
    with pytest.raises(SweepFailedError, match="ids had no answer"):
        run_sweep(tmp_path, vendor, [DAY], UTC_ZONE)


def test_an_id_that_fails_does_not_hide_the_next_one(tmp_path: Path) -> None:
    """A tick that sees any answer knows whether there are new calls; without one it could not look."""
    calls = [ModelCall(1 + n, MORNING + timedelta(minutes=n)) for n in range(100)]
    vendor = ModelVendor(calls, MORNING + timedelta(hours=5))
    run_sweep(tmp_path, vendor, [DAY], UTC_ZONE)
    vendor.calls = [*calls, ModelCall(102, vendor.time)]
    vendor.__post_init__()
    vendor.fails = frozenset({101})
    probe = partial(probe_new_calls, Lake.open(tmp_path), vendor, now=vendor.now, options=options_in(UTC_ZONE))
    found = [asyncio.run(probe()) for vendor.time in (vendor.time + timedelta(minutes=n) for n in range(9))]
    assert set(found) <= {102, None}
    assert 102 in found
    vendor.fails = range(10**9)  # type: ignore[assignment]
    with pytest.raises(TransientError):
        asyncio.run(probe())


def test_calls_of_days_to_come_do_not_hide_those_of_today(tmp_path: Path) -> None:
    """The highest call is looked for in the last days up to today."""
    calls = [ModelCall(1 + n, MORNING + timedelta(minutes=n)) for n in range(100)]
    vendor = ModelVendor(calls, MORNING + timedelta(hours=5))
    run_sweep(tmp_path, vendor, [DAY], UTC_ZONE)
    lake = Lake.open(tmp_path)
    for ahead in (1, 2, 3):
        planned = MORNING + timedelta(days=ahead)
        lake.land(DAY + timedelta(days=ahead), [Read(10 * ahead, vendor.time, 200, planned, False, None, b"{}")])
    assert not asyncio.run(probe_new_calls(lake, vendor, now=vendor.now, options=options_in(UTC_ZONE)))


class Moody(ModelVendor):
    """Says something else than the call: for some ids the first time, for some always, or refuses."""

    stumbles: Container[int] = ()
    broken: Container[int] = ()
    refuses: Container[int] = ()

    async def fetch(self, call_id: int) -> Answer:
        """Answers like `CallsClient.fetch`."""
        answer = await super().fetch(call_id)
        if call_id in self.refuses:
            raise RequestRefusedError("the API answered with the unexpected status HTTP 418")
        if call_id in self.broken or (call_id in self.stumbles and self.asked[call_id] == 1):
            return Answer(call_id, answer.fetched_at, 200, b'{"error":"later"}')
        return answer


def test_an_answer_that_breaks_the_contract_is_asked_for_once_more(tmp_path: Path) -> None:
    """In the same sweep, as an old day has no next rung: what passes leaves no hole, what stays is quarantined."""
    calls = [ModelCall(1 + n, MORNING + timedelta(minutes=n)) for n in range(1_000)]
    vendor = Moody(calls, MORNING + timedelta(days=30))
    vendor.stumbles, vendor.broken = {101, 102, 500}, {300}
    report = run_sweep(tmp_path, vendor, [DAY], UTC_ZONE)
    assert shown(tmp_path, DAY, UTC_ZONE).keys() == {call.id for call in calls} - {300}
    assert {id_ for id_, count in vendor.asked.items() if count > 1} == {101, 102, 300, 500}
    assert vendor.asked[300] == 2
    assert report.coverage[DAY].quarantined == 1
    before = vendor.stats.requests
    run_sweep(tmp_path, vendor, [DAY], UTC_ZONE)
    assert vendor.stats.requests == before


def test_an_error_page_is_no_sign_that_an_id_exists(tmp_path: Path) -> None:
    """A vendor in maintenance says 200 to every id: the frontier stays, and nothing of it lasts in the lake."""
    calls = [ModelCall(1 + n, MORNING + timedelta(minutes=n)) for n in range(300)]
    vendor = Moody(calls, MORNING + timedelta(hours=5))
    run_sweep(tmp_path, vendor, [DAY], UTC_ZONE, wide=True)
    lake, options = Lake.open(tmp_path), options_in(UTC_ZONE)
    vendor.broken = range(10**20)
    before = vendor.stats.requests
    vendor.time += timedelta(hours=1)
    assert not asyncio.run(probe_new_calls(lake, vendor, now=vendor.now, options=options))
    run_sweep(tmp_path, vendor, [DAY], UTC_ZONE, wide=True)
    assert vendor.stats.requests - before < 1_200  # the calls that are due and the look ahead, twice
    vendor.broken, before = (), vendor.stats.requests
    vendor.calls = [*calls, *(ModelCall(301 + n, vendor.time + timedelta(minutes=n)) for n in range(50))]
    vendor.__post_init__()
    vendor.time += timedelta(hours=2)
    assert asyncio.run(probe_new_calls(lake, vendor, now=vendor.now, options=options))
    run_sweep(tmp_path, vendor, [DAY], UTC_ZONE, wide=True)
    assert vendor.stats.requests - before < 1_200
    assert shown(tmp_path, DAY, UTC_ZONE) == vendor.truth(DAY, UTC_ZONE)


def test_an_id_the_api_refuses_does_not_keep_the_others_from_being_read(tmp_path: Path) -> None:
    """It is named like any id without an answer; refusals in a row and nothing else end the sweep."""
    calls = [ModelCall(1 + n, MORNING + timedelta(minutes=n)) for n in range(1_000)]
    vendor = Moody(calls, MORNING + timedelta(days=30))
    vendor.refuses = {101, 102, 500}
    report = run_sweep(tmp_path, vendor, [DAY], UTC_ZONE)
    assert report.failed_ids == (101, 102, 500)
    assert len(shown(tmp_path, DAY, UTC_ZONE)) == 997
    vendor.refuses = range(10**9)
    vendor.asked.clear()
    with pytest.raises(RequestRefusedError, match="418"):
        run_sweep(tmp_path, vendor, [DAY], UTC_ZONE, reread_final=True)
    assert sum(vendor.asked.values()) <= 20


def test_an_api_that_never_answers_ends_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of trying every id in vain."""

    class Dead(ModelVendor):
        """Retries for ever."""

        async def fetch(self, call_id: int) -> object:  # type: ignore[override]  # never answers
            while True:
                self.stats.requests += 1
                self.stats.retries += 1
                await asyncio.sleep(0.05)

    monkeypatch.setattr(sweep_module, "GIVE_UP_SECONDS", 2.0)
    with pytest.raises(SweepFailedError, match="no answer for"):
        run_sweep(tmp_path, Dead([], MORNING), [DAY], UTC_ZONE)


@pytest.mark.parametrize("is_refused", [False, True], ids=["taken", "refused"])
def test_an_id_that_hangs_does_not_end_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_refused: bool
) -> None:
    """It is named when its attempts are used up: the API still answers for a call that is known, if only to refuse."""

    class Hanging(ModelVendor):
        async def fetch(self, call_id: int) -> Answer:
            if call_id != 300:
                if is_refused and self.asked[call_id]:
                    self.asked[call_id] += 1
                    raise RequestRefusedError("418")
                return await super().fetch(call_id)
            for _ in range(25):
                await asyncio.sleep(0.1)
                self.stats.retries += 1
            raise TransientError(call_id, 5, "no complete answer within 30 s")

    monkeypatch.setattr(sweep_module, "GIVE_UP_SECONDS", 0.5)
    calls = [ModelCall(1 + n, MORNING + timedelta(minutes=n)) for n in range(600)]
    vendor = Hanging(calls, MORNING + timedelta(days=30))
    report = run_sweep(tmp_path, vendor, [DAY], UTC_ZONE)
    assert report.failed_ids == (300,)
    assert shown(tmp_path, DAY, UTC_ZONE).keys() == {call.id for call in calls} - {300}
    # What it was asked to see whether the API answers.
    assert 1 <= sum(count - 1 for count in vendor.asked.values()) <= 6


def test_an_api_that_fails_every_search_step_ends_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The silence is that of the whole sweep: each of the search's small steps alone fails before it is long."""

    class Failing(ModelVendor):
        async def fetch(self, call_id: int) -> Answer:
            await asyncio.sleep(0.1)
            raise TransientError(call_id, 5, "connection refused")

    monkeypatch.setattr(sweep_module, "GIVE_UP_SECONDS", 2.0)
    with pytest.raises(SweepFailedError, match="no answer for 2 s") as caught:
        run_sweep(tmp_path, Failing([], MORNING), [DAY], UTC_ZONE)
    assert caught.value.report.requested < 200


def test_reread_final_asks_again_for_every_call_of_the_days(tmp_path: Path) -> None:
    """Corrections later than the last rung arrive when asked for."""
    calls = [ModelCall(1 + n, MORNING + timedelta(minutes=n), tagged_after=40 * 86_400) for n in range(100)]
    vendor = ModelVendor(calls, MORNING + timedelta(days=30))
    run_sweep(tmp_path, vendor, [DAY], UTC_ZONE)
    vendor.time += timedelta(days=20)
    run_sweep(tmp_path, vendor, [DAY], UTC_ZONE)
    assert {call["tags"][0] for call in shown(tmp_path, DAY, UTC_ZONE).values() if call["tags"]} == set()  # type: ignore[index]
    run_sweep(tmp_path, vendor, [DAY], UTC_ZONE, reread_final=True)
    assert shown(tmp_path, DAY, UTC_ZONE) == vendor.truth(DAY, UTC_ZONE)


def test_a_settled_day_is_not_opened_to_look_for_what_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its mark says so, as long as its raw is that of the mark and no further age is asked for."""
    calls = [ModelCall(90 + n, MORNING, seconds=60) for n in range(5)]
    vendor = ModelVendor(calls, MORNING + timedelta(days=60))
    run_sweep(tmp_path, vendor, [DAY], UTC_ZONE)
    lake, options = Lake.open(tmp_path), options_in(UTC_ZONE)
    opened: list[date] = []
    read_index = Lake.read_index

    def note(lake: Lake, days: Iterable[date]) -> pa.Table:
        opened.extend(days := list(days))
        return read_index(lake, days)

    monkeypatch.setattr(Lake, "read_index", note)
    assert due_days(lake, now=vendor.time, options=options) == []
    assert opened == [DAY]  # nothing says yet that it is settled
    publish_day(lake, DAY, timezone=UTC_ZONE, reread_after=RUNGS)
    opened.clear()
    assert due_days(lake, now=vendor.time, options=options) == []
    assert opened == []
    later = replace(options, reread_after=(*options.reread_after, timedelta(days=90)))
    assert due_days(lake, now=vendor.time + timedelta(days=40), options=later) == [DAY]
    lake.land(DAY, [Read(95, vendor.time, 404, None, None, None, None)])
    opened.clear()
    assert due_days(lake, now=vendor.time, options=options) == []
    assert opened == [DAY]


def test_a_plan_tells_what_a_sweep_will_ask(tmp_path: Path) -> None:
    """From a handful of probes, whose answers are kept."""
    calls = [ModelCall(65_123 + n, MORNING + timedelta(days=1) / 500 * n) for n in range(5_000) if n % 50]
    vendor = ModelVendor(calls, MORNING + timedelta(days=60))
    day = DAY + timedelta(days=4)
    plan = asyncio.run(make_plan(Lake.open(tmp_path), vendor, [day], options=options_in(UTC_ZONE), now=vendor.now))
    assert plan.probes == vendor.stats.requests < 250
    report = run_sweep(tmp_path, vendor, [day], UTC_ZONE)
    assert 0.7 * plan.requests <= report.requested <= 1.3 * plan.requests
    assert plan.seconds == plan.requests / 10
    assert (plan.first_id or 0) <= 65_123 + 4 * 500 < 65_123 + 5 * 500 <= (plan.last_id or 0)


def test_without_id_scan_only_ids_named_by_the_lake_are_asked(tmp_path: Path) -> None:
    """Nothing is located, nothing is probed; due reads go on."""
    calls = [ModelCall(90 + n, MORNING, seconds=60) for n in range(5)]
    vendor = ModelVendor(calls, MORNING + timedelta(minutes=30))
    run_sweep(tmp_path, vendor, [DAY], UTC_ZONE)
    vendor.time += timedelta(hours=2)
    vendor.asked.clear()
    lake, options = Lake.open(tmp_path), options_in(UTC_ZONE, id_scan=False)
    assert due_days(lake, now=vendor.time, options=options) == [DAY]
    asyncio.run(sweep_module.sweep(lake, vendor, [DAY], options=options, now=vendor.now, log=lambda _line: None))
    assert set(vendor.asked) == {call.id for call in calls}
