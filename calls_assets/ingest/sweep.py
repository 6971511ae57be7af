"""The sweep: make the raw records of some days complete as of now.

Locates the days' ids, plans what to request, fetches concurrently and lands every answer, whatever day it belongs to.
Nothing is remembered between sweeps but the lake: killed at any point, the next one asks only for what is not stored.
"""

from __future__ import annotations

import asyncio
import gc
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from itertools import chain, islice
from typing import Any, Protocol

from calls_assets.api.client import HIGHEST_ID, Answer, ClientStats
from calls_assets.api.contract import glance_at
from calls_assets.api.errors import ContractError, RedirectRefusedError, RequestRefusedError, TransientError
from calls_assets.collector import hold_collector, spare_more
from calls_assets.ingest.coverage import DISORDER, Coverage, account_for, coverage_of, to_ranges
from calls_assets.ingest.knowledge import Kind, Knowledge, Known, day_of, day_start_us, group_days, to_us
from calls_assets.ingest.locate import Locator, first_ids, frontier_ids
from calls_assets.ingest.plan import OVERDUE_AFTER, SweepOptions, count_due, due_ids
from calls_assets.lake import CorruptFileError, Lake, Read, Segment

LAND_EVERY_ANSWERS = 2_000
LAND_EVERY_BYTES = 8 * 2**20
"""Ordinary answers are landed by their number; this bounds the memory that long ones take."""
LAND_EVERY_SECONDS = 15.0
LOG_EVERY_SECONDS = 5.0
FAILED_SHARE = 0.05
FAILED_FEW = 5
"""Ids without an answer that fail no sweep that had answers: of a small one they are more than their share."""
GIVE_UP_SECONDS = 45.0
"""A sweep without a single answer for this long, while attempts fail, ends; pauses the API asked for do not count."""
GIVE_UP_PAUSED_SECONDS = 1_200.0
"""The same, pauses included."""
IS_ALIVE_SECONDS = 5.0
"""It does not end if a call that is known is answered in this time: then it is single ids that have no answer."""

_LAST_DAYS = 3
"""Days in which a probe looks for the highest id: more than one, since a call's start can be corrected."""
_RECENT = timedelta(days=7)
"""A probe lists no more than this, where that many days are."""
_REFUSALS_IN_A_ROW = 10
_SURE_CALLS = 8
"""Known calls that decide together where a day begins: fewer may be misled by one with a corrected start."""
_FILL_AT_ONCE = 256
"""Ids listed at a time while the range is being looked for."""


class CallSource(Protocol):
    """What a sweep asks: the API client, or anything that answers like it."""

    stats: ClientStats

    @property
    def is_paused(self) -> bool:
        """Whether the source itself asked to wait."""

    async def fetch(self, call_id: int) -> Answer:
        """Asks for one call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """What a sweep did.

    Attributes:
        days: The days asked for.
        touched_days: Every day that got reads, days outside `days` included.
        requested: Ids asked for.
        requests: HTTP attempts, retries included.
        retries: Attempts after the first of an id.
        landed: Answers stored.
        missing: Answers that said the id does not exist.
        quarantined: Answers that broke the contract.
        failed_ids: Ids without an answer, those the API refused too, rising.
        seconds: Duration.
        coverage: The accounting of each day.
        overdue: Reads of each of these days that have been due for more than a day, and were not made.
    """

    days: tuple[date, ...]
    touched_days: frozenset[date]
    requested: int
    requests: int
    retries: int
    landed: int
    missing: int
    quarantined: int
    failed_ids: tuple[int, ...]
    seconds: float
    coverage: dict[date, Coverage]
    overdue: dict[date, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """What a sweep of some days would do.

    Attributes:
        days: The days.
        first_id: First id to account for, margins included; None when the account has no calls there.
        last_id: Last id.
        ids: Number of ids from first to last.
        stored: Of these, already answered.
        due: Known ids to be read again.
        requests: Ids a sweep would ask for.
        probes: Requests the plan itself made; their answers are stored.
        seconds: Estimated duration at the configured rate.
    """

    days: tuple[date, ...]
    first_id: int | None
    last_id: int | None
    ids: int
    stored: int
    due: int
    requests: int
    probes: int
    seconds: float


class SweepFailedError(Exception):
    """Too many ids had no answer; everything that had one is stored.

    Attributes:
        report: What was done all the same.
    """

    def __init__(self, reason: str, report: SweepReport) -> None:
        super().__init__(f"{reason}; the others are stored, and the next sweep asks for these only")
        self.report = report


@dataclass(frozen=True, slots=True)
class Wanted:
    """Why an id that somebody named is to be read.

    Attributes:
        since: A read at this instant or later (UTC) will do.
        day: The day the call is said to be in; None when nobody knows.
    """

    since: datetime
    day: date | None = None


async def sweep(
    lake: Lake,
    client: CallSource,
    days: Sequence[date],
    *,
    options: SweepOptions,
    now: Callable[[], datetime],
    reread_final: bool = False,
    wide: bool = False,
    wanted: Mapping[int, Wanted] | None = None,
    log: Callable[[str], None],
) -> SweepReport:
    """Makes the raw records of the days complete as of now.

    Args:
        lake: Where answers land.
        client: Where answers come from.
        days: The days, in any order.
        options: Zone, rungs, concurrency.
        now: The clock (UTC).
        reread_final: Ask again for every id of the days.
        wide: Look far ahead of the highest id, over long runs of missing ids.
        wanted: Ids that somebody named, wherever they stand.
        log: Takes one progress line every few seconds.

    Raises:
        SweepFailedError: More than 5 % of the ids failed, and more than five of them or all; or nothing was answered
            for 45 s, nor a known call then.
        PermanentError: The API refused the token, or ten ids in a row; what was answered before is stored.
    """
    work = _Sweep(lake, client, options, now, log)
    ordered = sorted(set(days))
    try:
        with hold_collector():  # `land` has it look at what is new, after many answers
            await work.run_wanted(wanted or {}, ordered)
            for group in group_days(ordered):
                await work.run_group(group, reread_final=reread_final, wide=wide)
            if work.requested < LAND_EVERY_ANSWERS:  # it leaves next to no garbage, which would be spared too
                spare_more()
    except _NoAnswerError as problem:
        await work.land()
        raise SweepFailedError(str(problem), work.report(ordered)) from None
    finally:
        await work.land()
    report = work.report(ordered)
    few = FAILED_FEW if report.landed else 0
    if len(report.failed_ids) > max(few, FAILED_SHARE * report.requested):
        first = ", ".join(str(id_) for id_ in report.failed_ids[:5])
        reason = f"{len(report.failed_ids)} of {report.requested} ids had no answer (first: {first})"
        raise SweepFailedError(reason, report)
    return report


async def make_plan(
    lake: Lake, client: CallSource, days: Sequence[date], *, options: SweepOptions, now: Callable[[], datetime]
) -> PlanReport:
    """Finds out, with a handful of probes, what a sweep of the days would request.

    The days are taken as one range from the first to the last. The probes' answers are stored like any other.
    """
    work = _Sweep(lake, client, options, now, lambda _line: None)
    ordered = sorted(set(days))
    try:
        found = await work.locate(ordered, wide=False, is_plan=True)
    finally:
        await work.land()
    due = set(due_ids(work.knowledge, set(ordered), now=now(), options=options))
    span = range(found[0], found[1] + 1) if found else range(0)
    stored = sum(1 for id_ in span if id_ in work.knowledge.known)
    requests = len(span) - stored + len(due)
    return PlanReport(
        days=tuple(ordered),
        first_id=found[0] if found else None,
        last_id=found[1] if found else None,
        ids=len(span),
        stored=stored,
        due=len(due),
        requests=requests,
        probes=work.requested,
        seconds=requests / options.requests_per_second,
    )


async def probe_new_calls(
    lake: Lake, client: CallSource, *, now: Callable[[], datetime], options: SweepOptions, window: int = 2
) -> int | None:
    """Gives an id beyond the highest one stored at which the API has a call, with at most `window` requests.

    Nothing is stored: the sweep that follows does it. For an empty lake it is 1, without asking; where only missing ids
    are stored (an account without calls), one of the ids asked for is a power of two that changes by the minute.

    Raises:
        ApiError: The API denied access, or answered for none of the ids.
    """
    today = now().astimezone(options.timezone).date()
    segments = lake.segments(since=today - _RECENT)
    if len({segment.day for segment in segments}) < _LAST_DAYS:
        segments = lake.segments()
    if not segments:
        return 1
    # Calls of days to come stand among those of today.
    newest_days = sorted({segment.day for segment in segments}, key=lambda day: (day <= today, day))[-_LAST_DAYS:]
    top = _highest_call(lake, [segment for segment in segments if segment.day in newest_days])
    top = top or _highest_call(lake, lake.segments())
    is_answered, problem = False, None
    for id_ in frontier_ids(top, now(), window) if top else first_ids(now()):
        try:
            answer = await client.fetch(id_)
        except (TransientError, RedirectRefusedError, RequestRefusedError) as error:
            problem = error  # one id that never answers must not hide the next
            continue
        if _holds_call(answer):
            return id_
        is_answered = True
    if problem and not is_answered:
        raise problem
    return None


def _highest_call(lake: Lake, segments: Sequence[Segment]) -> int:
    """Finds the highest id of a call in some segments, from as few of them as it takes; 0 when there is none."""
    days, top = {segment.day for segment in segments}, 0
    for segment in sorted(segments, key=lambda segment: segment.highest_id, reverse=True):
        if segment.highest_id <= top:
            break
        try:
            top = max(top, lake.find_highest_call(segment.key))
        except CorruptFileError:  # the next sweep says so
            continue
        except FileNotFoundError:  # compacted since it was listed
            return _highest_call(lake, [again for again in lake.segments() if again.day in days])
    return top


def _holds_call(answer: Answer) -> bool:
    if answer.body is None:
        return False
    try:
        glance_at(answer.call_id, answer.body)
    except ContractError:
        return False
    return True


@dataclass
class _Progress:
    total: int = 0
    done: int = 0
    began: float = field(default_factory=time.monotonic)
    logged: float = field(default_factory=time.monotonic)


@dataclass
class _Silence:
    """How long no answer has come, over all of a sweep's requests; time between requests does not count.

    Attributes:
        seconds: Waited since the last answer.
        unpaused_seconds: The same without the pauses the API asked for.
        in_vain: Whether an attempt failed since.
    """

    seconds: float = 0.0
    unpaused_seconds: float = 0.0
    in_vain: bool = False
    _looked: float = field(default_factory=time.monotonic)

    def resume(self) -> None:
        """Counts from now on."""
        self._looked = time.monotonic()

    def end(self) -> None:
        """Takes note of an answer."""
        self.seconds = self.unpaused_seconds = 0.0
        self.in_vain = False
        self.resume()

    def is_too_long(self, *, is_paused: bool) -> bool:
        """Counts up to now."""
        before = self._looked
        self.resume()
        self.seconds += self._looked - before
        self.unpaused_seconds += 0.0 if is_paused else self._looked - before
        is_over = self.unpaused_seconds >= GIVE_UP_SECONDS or self.seconds >= GIVE_UP_PAUSED_SECONDS
        return self.in_vain and is_over


class _NoAnswerError(Exception):
    """The API does not answer."""


class _Sweep:
    """One sweep under way: the knowledge, the answers not landed yet, the counts."""

    def __init__(
        self,
        lake: Lake,
        client: CallSource,
        options: SweepOptions,
        now: Callable[[], datetime],
        log: Callable[[str], None],
    ) -> None:
        self._lake, self._client, self._options, self._now, self._log = lake, client, options, now, log
        self.knowledge = Knowledge(options.timezone)
        self.requested = 0
        self._began = time.monotonic()
        self._requests_before = client.stats.requests
        self._retries_before = client.stats.retries
        self._days: list[date] = []
        self._segments: list[Segment] = []
        self._buffer: list[tuple[tuple[date, ...], Read]] = []
        self._buffered_bytes = 0
        self._buffered_since = time.monotonic()
        self._uncollected = self._uncollected_bytes = 0
        self._landing = asyncio.Lock()
        self._asking: dict[int, asyncio.Future[None] | None] = {}  # of those that somebody waits for
        self._news = asyncio.Event()
        self._is_located = False
        self._touched: set[date] = set()
        self._wanted: Mapping[int, Wanted] = {}
        self._moved: dict[tuple[date, date], set[int]] = {}
        self._failed: set[int] = set()
        self._doubtful: set[int] = set()
        self._refused: set[int] = set()
        self._refusals = 0
        self._silence = _Silence()
        self._checking = asyncio.Lock()
        self._landed = self._missing = self._quarantined = 0
        self._coverage: dict[date, Coverage] = {}
        self._overdue: Counter[date] = Counter()

    async def run_wanted(self, wanted: Mapping[int, Wanted], days: list[date]) -> None:
        """Asks for ids that somebody named and that were not read since."""
        if not wanted:
            return
        self._days, self._wanted = days, wanted
        self.knowledge = Knowledge(self._options.timezone)
        self._segments = self._lake.segments()
        for first, last in to_ranges(sorted(wanted)):
            self.knowledge.load_range(self._lake, self._segments, first, last)
        known = self.knowledge.known
        await self._fetch(id_ for id_ in wanted if id_ not in known or known[id_].read_us < to_us(wanted[id_].since))
        await self.land()

    async def run_group(self, days: list[date], *, reread_final: bool, wide: bool) -> None:
        """Sweeps consecutive days."""
        failed_before = set(self._failed)
        found = await self.locate(days, wide=wide, is_plan=False)
        known = self.knowledge.known
        first, last = found or (1, 0)
        again = set(self._due(days, (first, last), reread_final=reread_final))
        await self._fetch(
            [id_ for id_ in range(first, last + 1) if id_ not in known or id_ in again]
            + sorted(id_ for id_ in again if not first <= id_ <= last)
        )
        if found:
            first, last = await self._widen(days, first, last)
        # Ids that were asked for before their time (no call, and a later id has begun since) are due now.
        late = self._due(days, (first, last))
        await self._fetch([id_ for id_ in late if id_ not in again and known[id_].kind is not Kind.CALL])
        # One more round for the ids that failed or were answered with something else: what hindered single ones has
        # probably passed, and old days have no next rung.
        second_round = (self._failed - failed_before - self._refused) | self._doubtful
        self._failed = failed_before | self._refused
        if second_round:
            await self.land()  # files the undated answers before there are newer ones
            await self._fetch(sorted(second_round))
        self._doubtful.clear()
        await self.land()
        for day in days:
            if self._options.id_scan:
                found_here = account_for(self._lake, self.knowledge, day, lambda: self._segments, failed=self._failed)
            else:
                found_here = coverage_of(self.knowledge, day).without_scan()
            self._coverage[day] = found_here
        self._overdue += count_due(self.knowledge, days, now=self._now() - OVERDUE_AFTER, options=self._options)

    async def locate(self, days: list[date], *, wide: bool, is_plan: bool) -> tuple[int, int] | None:
        """Finds the id range of consecutive days; None when the account has none or may not be scanned.

        Unless it is for a plan, ids that are sure to be in the range are asked for meanwhile: a search waits, mostly.
        """
        self._days = days
        zone = self._options.timezone
        self.knowledge = Knowledge.of_days(self._lake, days, zone)  # nothing is under way that would wait
        self._segments = self._lake.segments()
        await self._copy_strays(set(days))
        if not self._options.id_scan:
            return None
        locator = Locator(
            self.knowledge,
            self._ask_unknown,
            self._ask_missing,
            now=self._now,
            rungs_us=self._options.rungs_us,
            read_holes=self._options.read_holes,
        )
        begin, end = day_start_us(days[0], zone), day_start_us(days[-1] + timedelta(days=1), zone)
        for day in sorted({segment.day for segment in self._segments if segment.day > days[-1]}):
            if locator.is_past(end):
                break
            self.knowledge.load(self._lake, [day])
        if not len(self.knowledge.calls()[0]):
            self.knowledge.load(self._lake, {segment.day for segment in self._segments})
        async with nullcontext() if is_plan else self._filling(begin, end):
            if not len(self.knowledge.calls()[0]) and not await locator.find_first_hit():
                return None
            if not locator.is_past(end):
                # The highest id stored anywhere: the frontier is looked for beyond it only.
                self.knowledge.load_range(self._lake, self._segments, self.knowledge.highest, HIGHEST_ID)
            await locator.advance_frontier(end, wide=wide or end <= to_us(self._now()))
            found = await locator.find_range(begin, end)
        if found:
            self.knowledge.load_range(self._lake, self._segments, *found)
        return found

    @asynccontextmanager
    async def _filling(self, begin_us: int, end_us: int) -> AsyncIterator[None]:
        """Asks for the ids between calls known to be in a time, as they become known."""
        self._is_located = False

        async def fill() -> None:
            while not self._is_located:
                self._news.clear()
                if not await self._fetch_batches(
                    iter(partial(self._list_sure, begin_us, end_us), []), self._options.concurrency
                ):
                    await self._news.wait()

        filler = asyncio.create_task(fill())
        try:
            yield
            self._is_located = True
            self._news.set()
            await filler
        finally:
            filler.cancel()
            await asyncio.gather(filler, return_exceptions=True)

    def _list_sure(self, begin_us: int, end_us: int) -> list[int]:
        """Lists the first ids between calls known to be in a time that are still to be asked for; empty when done."""
        _, first = self.knowledge.split(begin_us)
        last, _ = self.knowledge.split(end_us)
        if self._is_located or first is None or len(self.knowledge.calls()[0]) < _SURE_CALLS:
            return []
        unknown = self._list_unknown(range(first, last + 1))
        return list(
            islice((id_ for id_ in unknown if id_ not in self._asking and id_ not in self._failed), _FILL_AT_ONCE)
        )

    async def _copy_strays(self, days: set[date]) -> None:
        """Completes what a crash interrupted: a read that is to stand in two days and stands in one."""
        missing: dict[tuple[date, date], set[int]] = {}
        for id_ in self.knowledge.strays(days):
            self.knowledge.load_range(self._lake, self._segments, id_, id_)
            for source, target in self.knowledge.find_missing_copies(id_):
                missing.setdefault((source, target), set()).add(id_)
        for (source, target), ids in sorted(missing.items()):
            await asyncio.to_thread(self._lake.copy_reads, ids, source, target)
            self._touched.add(target)

    def _due(self, days: list[date], span: tuple[int, int], *, reread_final: bool = False) -> list[int]:
        return due_ids(
            self.knowledge, set(days), now=self._now(), options=self._options, span=span, reread_final=reread_final
        )

    async def _widen(self, days: list[date], first: int, last: int) -> tuple[int, int]:
        """Reads on beyond an edge as long as calls of the days stand close to it; gives the range read."""
        zone = self._options.timezone
        begin, end = day_start_us(days[0], zone), day_start_us(days[-1] + timedelta(days=1), zone)
        known = self.knowledge.known

        def is_in_days(id_: int) -> bool:
            state = known.get(id_)
            return state is not None and state.kind is Kind.CALL and begin <= state.started_us < end

        while first > 1 and any(is_in_days(id_) for id_ in range(first, first + DISORDER)):
            first = max(1, first - DISORDER)
            await self._ask_unknown(range(first, first + DISORDER))
        while any(is_in_days(id_) for id_ in range(last - DISORDER + 1, last + 1)):
            top = self.knowledge.highest
            if last >= top:
                break
            await self._ask_unknown(range(last + 1, min(last + DISORDER, top) + 1))
            last = min(last + DISORDER, top)
        return first, last

    async def _ask_unknown(self, ids: Sequence[int]) -> None:
        """Asks for ids that no stored day knows."""
        await self._fetch(self._list_unknown(ids))

    async def _ask_missing(self, ids: Sequence[int]) -> None:
        """Asks for ids that no stored day knows a call of."""
        known = self._look_up(ids)
        await self._fetch(id_ for id_ in ids if id_ not in known or known[id_].kind is not Kind.CALL)

    def _list_unknown(self, ids: Sequence[int]) -> Iterator[int]:
        known = self._look_up(ids)
        return (id_ for id_ in ids if id_ not in known)

    def _look_up(self, ids: Sequence[int]) -> dict[int, Known]:
        """Loads whatever days the rising ids may be stored in; gives all that is known."""
        if ids:
            self.knowledge.load_range(self._lake, self._segments, ids[0], ids[-1])
        return self.knowledge.known

    async def _fetch(self, ids: Iterable[int]) -> None:
        """Asks for ids concurrently, unless they are asked for already."""
        asked = [id_ for id_ in dict.fromkeys(ids) if id_ not in self._failed]
        wanted = [id_ for id_ in asked if id_ not in self._asking]
        elsewhere = [self._waiter(id_) for id_ in asked if id_ in self._asking]
        await self._fetch_batches([wanted], len(wanted))
        if elsewhere:
            await asyncio.wait(elsewhere)

    def _waiter(self, id_: int) -> asyncio.Future[None]:
        """Gives what is done when an id that somebody asks for is answered."""
        waiter = self._asking[id_] = self._asking[id_] or asyncio.get_running_loop().create_future()
        return waiter

    async def _fetch_batches(self, batches: Iterable[list[int]], most: int) -> int:
        """Asks for ids that nobody asks for, so many at a time; takes a batch once those before are under way.

        Every answer is buffered, and landed in time. Gives the number of ids.
        """
        progress = _Progress()
        under_way: set[int] = set()

        def take() -> Iterator[int]:
            for batch in batches:
                under_way.update(batch)
                self._asking.update(dict.fromkeys(batch))
                self.requested += len(batch)
                progress.total += len(batch)
                yield from batch

        def end(id_: int) -> None:
            under_way.discard(id_)
            if waiter := self._asking.pop(id_):
                waiter.set_result(None)

        queue = take()
        first = next(queue, None)  # others must see at once what is asked for
        if first is None:
            return 0
        try:
            await self._fetch_here(chain((first,), queue), min(most, self._options.concurrency), progress, end)
        finally:
            for id_ in list(under_way):
                end(id_)
            self._news.set()
        return progress.total

    async def _fetch_here(
        self, queue: Iterator[int], workers: int, progress: _Progress, end: Callable[[int], None]
    ) -> None:
        self._silence.resume()

        async def work() -> None:
            for id_ in queue:
                try:
                    answer = await self._client.fetch(id_)
                except TransientError:
                    self._failed.add(id_)
                    self._silence.in_vain = True
                    await self._check_silence()
                except (RedirectRefusedError, RequestRefusedError):
                    # One id that cannot be asked for must not stand in the way of all others for ever.
                    self._refusals += 1
                    if self._refusals >= _REFUSALS_IN_A_ROW:
                        raise
                    self._failed.add(id_)
                    self._refused.add(id_)
                    self._silence.end()
                else:
                    self._refusals = 0
                    self._silence.end()
                    self._take(answer)
                progress.done += 1
                end(id_)
                if self._is_full():
                    await self._land_when_full()

        tasks = [asyncio.create_task(work()) for _ in range(workers)]
        watch = asyncio.create_task(self._watch(progress))
        everything = asyncio.gather(*tasks)
        try:
            # The first error that is not about a single id ends the others: the API refuses, or the disk is full.
            ends: set[asyncio.Future[Any]] = {everything, watch}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*tasks, watch):
                task.cancel()
            outcomes = await asyncio.gather(*tasks, watch, everything, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _watch(self, progress: _Progress) -> None:
        """Lands and reports while answers are slow to come, and gives up when none comes at all."""
        retries = self._client.stats.retries
        while True:
            await asyncio.sleep(1)
            await self._keep_house(progress)
            self._silence.in_vain |= self._client.stats.retries > retries
            retries = self._client.stats.retries
            await self._check_silence()

    async def _check_silence(self) -> None:
        """Ends the sweep when nothing was answered for too long, a call that is known neither.

        Raises:
            _NoAnswerError: So it is.
        """
        async with self._checking:
            if self._silence.is_too_long(is_paused=self._client.is_paused) and not await self._is_answering():
                raise _NoAnswerError(f"no answer for {self._silence.seconds:.0f} s")

    async def _is_answering(self) -> bool:
        """Asks for a call that is known: silence may be that of a few ids, which are named in the end."""
        ids, _ = self.knowledge.calls()
        known = next((int(id_) for id_ in reversed(ids) if id_ not in self._asking), None)
        if known is None:
            return False
        self.requested += 1
        try:
            async with asyncio.timeout(IS_ALIVE_SECONDS):
                answer = await self._client.fetch(known)
        except (TransientError, TimeoutError):
            return False
        except (RedirectRefusedError, RequestRefusedError):
            pass  # an answer too, if not about the call
        else:
            self._take(answer)
        self._silence.end()
        return True

    async def _keep_house(self, progress: _Progress) -> None:
        moment = time.monotonic()
        # The next look is in a second.
        if self._buffer and moment - self._buffered_since >= LAND_EVERY_SECONDS - 1:
            await self.land()
        if moment - progress.logged >= LOG_EVERY_SECONDS:
            progress.logged = moment
            rate = progress.done / (moment - progress.began)
            left = f"{(progress.total - progress.done) / rate:.0f} s left" if rate else "time left unknown"
            retries = self._client.stats.retries - self._retries_before
            self._log(f"{progress.done:,} of {progress.total:,} ids, {rate:.1f}/s, {retries:,} retries, {left}")

    def _take(self, answer: Answer) -> None:
        """Files one answer under the days it belongs to."""
        id_, zone = answer.call_id, self._options.timezone
        before = self.knowledge.known.get(id_)
        read_us = to_us(answer.fetched_at)
        started_at: datetime | None = None
        is_ended: bool | None = None
        error: str | None = None
        if answer.http_status == 404 or answer.body is None:
            kind = Kind.MISSING
            self._missing += 1
        else:
            try:
                started_at, is_ended = glance_at(id_, answer.body)
            except ContractError as problem:
                kind, error = Kind.QUARANTINED, str(problem)
                self._quarantined += 1
                self._doubtful.add(id_)
            else:
                kind = Kind.CALL
        if started_at is not None:
            started_us = to_us(started_at)
            home = day_of(started_us, zone)
        else:
            started_us = 0
            named = self._wanted[id_].day if id_ in self._wanted else None
            home = before.day if before else named or self._days[0]
        days: tuple[date, ...] = (home,) if before or started_at or id_ in self._wanted else ()
        if before is not None:
            both = {home, before.day}  # so that each day's raw alone tells that the id is elsewhere now
            if before.kind is Kind.CALL:
                home_before = day_of(before.started_us, zone)
                both.add(home_before)
                if home != home_before and kind is Kind.CALL:
                    self._moved.setdefault((home_before, home), set()).add(id_)
            days = tuple(both)
        read = Read(
            call_id=id_,
            fetched_at=answer.fetched_at,
            http_status=answer.http_status,
            started_at=started_at,
            is_ended=is_ended,
            error=error,
            payload=answer.body,
        )
        if not self._buffer:
            self._buffered_since = time.monotonic()
        self._buffer.append((days, read))
        self._buffered_bytes += len(answer.body or b"")
        self.knowledge.add(id_, Known(kind, started_us, bool(is_ended), read_us, home))

    def _guess_day(self, id_: int) -> date:
        """Gives the swept day that an id without a start belongs to, by the calls around it."""
        before_us, after_us = self.knowledge.neighbours_us(id_)
        near_us = before_us if before_us is not None else after_us
        if near_us is None:
            return self._days[0]
        position = bisect_right(self._days, day_of(near_us, self._options.timezone))
        return self._days[max(0, position - 1)]

    def _is_full(self) -> bool:
        return len(self._buffer) >= LAND_EVERY_ANSWERS or self._buffered_bytes >= LAND_EVERY_BYTES

    async def _land_when_full(self) -> None:
        async with self._landing:
            if self._is_full():  # nobody else has stored it meanwhile
                await self._land()

    async def land(self) -> None:
        """Stores the buffered answers: one durable segment per day."""
        async with self._landing:
            await self._land()

    async def _land(self) -> None:
        buffer, self._buffer = self._buffer, []
        size, self._buffered_bytes = self._buffered_bytes, 0
        self._collect_garbage(len(buffer), size)
        moved, self._moved = self._moved, {}
        try:
            await self._store(buffer, moved)
        except BaseException:
            self._buffer = buffer + self._buffer
            self._buffered_bytes += size
            for pair, ids in moved.items():
                self._moved.setdefault(pair, set()).update(ids)
            raise

    def _collect_garbage(self, answers: int, size: int) -> None:
        """Looks for garbage after as many answers or bytes as make a segment, however many segments they came in."""
        self._uncollected += answers
        self._uncollected_bytes += size
        if self._uncollected >= LAND_EVERY_ANSWERS or self._uncollected_bytes >= LAND_EVERY_BYTES:
            self._uncollected = self._uncollected_bytes = 0
            gc.collect(1)

    async def _store(
        self, buffer: list[tuple[tuple[date, ...], Read]], moved: dict[tuple[date, date], set[int]]
    ) -> None:
        by_day: dict[date, list[Read]] = {}
        for days, read in buffer:
            if not days:
                home = self._guess_day(read.call_id)
                self.knowledge.file_under(read.call_id, home)
            for day in days or (home,):
                by_day.setdefault(day, []).append(read)
        for (source, target), ids in sorted(moved.items()):
            await asyncio.to_thread(self._lake.copy_reads, ids, source, target)
        for day, reads in sorted(by_day.items()):
            await asyncio.to_thread(self._lake.land, day, reads)
            self._touched.add(day)
        self._landed += len(buffer)

    def report(self, days: Sequence[date]) -> SweepReport:
        """Sums up."""
        return SweepReport(
            days=tuple(days),
            touched_days=frozenset(self._touched),
            requested=self.requested,
            requests=self._client.stats.requests - self._requests_before,
            retries=self._client.stats.retries - self._retries_before,
            landed=self._landed,
            missing=self._missing,
            quarantined=self._quarantined,
            failed_ids=tuple(sorted(self._failed)),
            seconds=time.monotonic() - self._began,
            coverage=dict(self._coverage),
            overdue={day: self._overdue[day] for day in self._coverage},
        )
