"""The pure rules of re-reading: which known ids are due, which are final, which days have work.

What belongs here: functions of (state, clock, settings). What stays out: storage and network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from calls_assets.ingest.knowledge import Kind, Knowledge, Known, day_of, day_start_us, group_days, to_us
from calls_assets.lake import Lake, Published
from calls_assets.settings import Settings

OVERDUE_AFTER = timedelta(days=1)
"""A read that has been due for longer is overdue: the nightly schedule reads what is due within a day."""
_FIRST_LOOK_US = 5 * 60_000_000


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
    return any(read_us < anchor_us + rung_us <= now_us for rung_us in rungs_us)


def _are_calls_due(
    started_us: np.ndarray, is_ended: np.ndarray, read_us: np.ndarray, now_us: int, rungs_us: tuple[int, ...]
) -> np.ndarray:
    """Tells which calls are to be read again: by column, as a day may have a million.

    A call is when it has passed a rung since it was read. One that has not ended is at an age of five minutes too, and
    then whenever its age has quadrupled, until its last rung.
    """
    is_due = np.zeros(len(started_us), dtype=bool)
    for rung_us in rungs_us:
        is_due |= (read_us < started_us + rung_us) & (started_us + rung_us <= now_us)
    is_older = now_us - started_us >= np.maximum(_FIRST_LOOK_US, 4 * (read_us - started_us))
    is_due |= ~is_ended & (now_us <= started_us + rungs_us[-1]) & is_older
    return is_due


def _is_other_due(id_: int, state: Known, knowledge: Knowledge, now_us: int, rungs_us: tuple[int, ...]) -> bool:
    """Tells whether a missing or quarantined id is to be read again.

    It takes its age from the call before it, and is due when it has passed a rung, and at once when it was asked for
    before its time: when a later id began after that.
    """
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
) -> list[int]:
    """Lists the known ids of the days that are to be read again, rising; all of them with `reread_final`.

    Args:
        knowledge: What is known.
        days: The days.
        now: The instant.
        options: Zone and rungs.
        span: Ids between these two are the days' too, unless they are known as calls of another day.
        reread_final: Whether calls are read again that are final.
    """
    if not knowledge.known:
        return []
    now_us, rungs = to_us(now), options.rungs_us
    edges = [
        day_start_us(day, options.timezone)
        for group in group_days(sorted(days))
        for day in (group[0], group[-1] + timedelta(days=1))
    ]
    states = list(knowledge.known.values())
    kinds, started, ended, read, _ = zip(*states, strict=True)
    ids = np.fromiter(knowledge.known, np.int64, len(states))
    started_us = np.array(started, np.int64)
    is_call = np.array(kinds, np.int8) == Kind.CALL
    chosen = is_call & (np.searchsorted(edges, started_us, side="right") % 2 == 1)
    if not reread_final:
        chosen &= _are_calls_due(started_us, np.array(ended, bool), np.array(read, np.int64), now_us, rungs)
    for place in np.flatnonzero(~is_call).tolist():
        id_, state = ids[place].item(), states[place]
        if state.day in days or span[0] <= id_ <= span[1]:
            chosen[place] = reread_final or _is_other_due(id_, state, knowledge, now_us, rungs)
    due: list[int] = np.sort(ids[chosen]).tolist()
    return due


def count_due(knowledge: Knowledge, days: Sequence[date], *, now: datetime, options: SweepOptions) -> Counter[date]:
    """Counts the known ids of rising days that are to be read again at an instant, by day."""
    states = (knowledge.known[id_] for id_ in due_ids(knowledge, days, now=now, options=options))
    return Counter(
        day_of(state.started_us, options.timezone) if state.kind is Kind.CALL else state.day for state in states
    )


def due_days(lake: Lake, *, now: datetime, options: SweepOptions) -> list[date]:
    """Lists the stored days with at least one due read, rising: what the nightly schedule sweeps.

    A day is not opened when its tables were made from the raw it has and all its ids were read after its last rung.
    """
    published = lake.published()
    open_days = [
        day for day, keys in sorted(lake.raw_keys().items()) if not _is_settled(published.get(day), keys, day, options)
    ]
    found: set[date] = set()
    for group in group_days(open_days):
        knowledge = Knowledge.of_days(lake, group, options.timezone)
        found.update(count_due(knowledge, group, now=now, options=options))
    return sorted(found)


def _is_settled(mark: Published | None, raw_keys: Collection[str], day: date, options: SweepOptions) -> bool:
    """Tells whether nothing of a day will be due again."""
    if mark is None or mark.settled_at is None or mark.segment_keys != raw_keys:
        return False
    last_rung_us = day_start_us(day + timedelta(days=1), options.timezone) + options.rungs_us[-1]
    return to_us(mark.settled_at) >= last_rung_us
