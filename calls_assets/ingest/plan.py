"""The pure rules of re-reading: which known ids are due, which are final, which days have work.

What belongs here: functions of (state, clock, settings). What stays out: storage and network.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from calls_assets.ingest.knowledge import Kind, Knowledge, Known, day_of, day_start_us, group_days, to_us
from calls_assets.lake import Lake, Published
from calls_assets.settings import Settings

_MINUTE_US = 60_000_000
_FIRST_LOOK_US = 5 * _MINUTE_US


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions:
    """What a sweep needs to know of the settings.

    Attributes:
        timezone: Zone of the days.
        reread_after: Rungs: ages after the start at which a call is read again.
        id_scan: Whether ids may be searched; False leaves only ids the lake already names.
        concurrency: Requests in flight.
        requests_per_second: The configured rate, for estimates only (the client enforces it).
        read_holes: Whether holes beside the days that are taken for jumps in the numbering are read all the same.
    """

    timezone: ZoneInfo
    reread_after: tuple[timedelta, ...]
    id_scan: bool = True
    concurrency: int = 16
    requests_per_second: float = 10.0
    read_holes: bool = False

    @classmethod
    def from_settings(cls, settings: Settings) -> SweepOptions:
        """Takes the options from the settings."""
        return cls(
            timezone=settings.timezone,
            reread_after=settings.reread_after,
            id_scan=settings.id_scan,
            concurrency=settings.concurrency,
            requests_per_second=settings.requests_per_second,
        )

    @property
    def rungs_us(self) -> tuple[int, ...]:
        """The rungs in microseconds."""
        return tuple(rung // timedelta(microseconds=1) for rung in self.reread_after)


def passed_rung(anchor_us: int, read_us: int, now_us: int, rungs_us: tuple[int, ...]) -> bool:
    """Tells whether something that began at `anchor_us` has passed a rung since it was read."""
    for rung_us in rungs_us:  # noqa: SIM110 - any() takes twice as long, and this is asked of every id
        if read_us < anchor_us + rung_us <= now_us:
            return True
    return False


def is_due(id_: int, state: Known, knowledge: Knowledge, now_us: int, rungs_us: tuple[int, ...]) -> bool:
    """Tells whether a known id is to be read again.

    A call that has not ended is read again at an age of five minutes, and then whenever its age has quadrupled, until
    its last rung; everything else when it has passed a rung. A missing or quarantined id takes its age from
    the call before it, and is due at once when it was asked for before its time: when a later id began after that.
    """
    if state.kind is Kind.CALL:
        if passed_rung(state.started_us, state.read_us, now_us, rungs_us):
            return True
        if state.is_ended or now_us > state.started_us + rungs_us[-1]:
            return False
        age_at_read_us = state.read_us - state.started_us
        is_older = now_us - state.started_us >= max(_FIRST_LOOK_US, 4 * age_at_read_us)
        return is_older and now_us - state.read_us >= _MINUTE_US
    before_us, after_us = knowledge.neighbours_us(id_)
    if state.kind is Kind.MISSING and after_us is None:
        return False  # beyond the frontier: nothing to find there yet, the frontier probe looks
    if after_us is not None and state.read_us <= after_us:
        return now_us > state.read_us
    anchor_us = before_us
    if anchor_us is None:
        anchor_us = day_start_us(state.day + timedelta(days=1), knowledge.timezone)
    return passed_rung(anchor_us, state.read_us, now_us, rungs_us)


def due_ids(
    knowledge: Knowledge,
    days: Collection[date],
    *,
    now: datetime,
    options: SweepOptions,
    span: tuple[int, int] = (1, 0),
    reread_final: bool = False,
) -> Iterator[int]:
    """Yields the known ids of the days that are to be read again, all of them with `reread_final`.

    Args:
        knowledge: What is known.
        days: The days.
        now: The instant.
        options: Zone and rungs.
        span: Ids between these two are the days' too, unless they are known as calls of another day.
        reread_final: Whether calls are read again that are final.
    """
    now_us, rungs = to_us(now), options.rungs_us
    edges = [
        day_start_us(day, options.timezone)
        for group in group_days(sorted(days))
        for day in (group[0], group[-1] + timedelta(days=1))
    ]
    for id_, state in sorted(knowledge.known.items()):
        if state.kind is Kind.CALL:
            is_here = bisect_right(edges, state.started_us) % 2 == 1
        else:
            is_here = state.day in days or span[0] <= id_ <= span[1]
        if is_here and (reread_final or is_due(id_, state, knowledge, now_us, rungs)):
            yield id_


def due_days(lake: Lake, *, now: datetime, options: SweepOptions) -> list[date]:
    """Lists the stored days with at least one due read, rising: what the nightly schedule sweeps.

    A day is not opened when its tables were made from the raw it has and all its ids were read after its last rung.
    """
    published = lake.published()
    open_days = [
        day for day, keys in sorted(lake.raw_keys().items()) if not _is_settled(published.get(day), keys, day, options)
    ]
    return sorted(_count_due(lake, open_days, now, options))


def count_overdue(lake: Lake, days: Sequence[date], *, now: datetime, options: SweepOptions) -> Counter[date]:
    """Counts, by day, the reads of rising days that are due at an instant; none of days that `due_days` skips."""
    open_days = [day for day in days if not _is_settled(lake.published_day(day), lake.raw_keys_of(day), day, options)]
    return _count_due(lake, open_days, now, options)


def _is_settled(mark: Published | None, raw_keys: Collection[str], day: date, options: SweepOptions) -> bool:
    """Tells whether nothing of a day will be due again."""
    if mark is None or mark.settled_at is None or mark.segment_keys != raw_keys:
        return False
    last_rung_us = day_start_us(day + timedelta(days=1), options.timezone) + options.rungs_us[-1]
    return to_us(mark.settled_at) >= last_rung_us


def _count_due(lake: Lake, days: Sequence[date], now: datetime, options: SweepOptions) -> Counter[date]:
    counts: Counter[date] = Counter()
    for group in group_days(days):
        knowledge = Knowledge.of_days(lake, group, options.timezone)
        for id_ in due_ids(knowledge, group, now=now, options=options):
            state = knowledge.known[id_]
            counts[day_of(state.started_us, options.timezone) if state.kind is Kind.CALL else state.day] += 1
    return counts
