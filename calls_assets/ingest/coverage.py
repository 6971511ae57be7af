"""The proof of completeness: every id that may belong to a day is stored, missing or quarantined.

That is every id between the last call before the day and the first call after it: an id without an answer at the
day's edge may be one of its calls.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from calls_assets.api import HIGHEST_ID
from calls_assets.ingest.knowledge import Kind, Knowledge, day_start_us, group_days
from calls_assets.lake import Lake, Segment

DISORDER = 100
"""Places by which an id may stand out of the order of starts."""

MARGIN = 2 * DISORDER
"""Places read beyond a boundary: the boundary found and the calls around it may each be `DISORDER` places off."""

MAX_GAP = 5_000
"""A hole between two known calls at a day's edge that is read whole; a larger one is taken for a vendor's jump."""

MAX_HOLE = 1_000_000
"""The same where the holes beside the days are to be read: a larger one would keep a sweep busy for days."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How the ids of one day are accounted for.

    Attributes:
        day: The day.
        first_id: First id of the day's range; None when the day has no calls.
        last_id: Last id of the range.
        stored: Calls of the day.
        missing: Ids of the range the API does not have.
        quarantined: Ids of the range whose answer broke the contract.
        unaccounted: Inclusive ranges of ids never answered, those between this day's calls and its neighbours' too.
        unread: Inclusive ranges of ids beside the day that were not read: their hole is taken for a jump, or lies below
            the first known call.
    """

    day: date
    first_id: int | None
    last_id: int | None
    stored: int
    missing: int
    quarantined: int
    unaccounted: tuple[tuple[int, int], ...]
    unread: tuple[tuple[int, int], ...]

    @property
    def unaccounted_count(self) -> int:
        """Number of ids never answered."""
        return sum(last - first + 1 for first, last in self.unaccounted)

    @property
    def unread_count(self) -> int:
        """Number of ids beside the day that were not read."""
        return sum(last - first + 1 for first, last in self.unread)

    def without_scan(self) -> Coverage:
        """Gives the same for an account whose ids are not searched: nothing says which there are."""
        return replace(self, unaccounted=(), unread=())

    @property
    def is_complete(self) -> bool:
        """Whether every id of the range is accounted for; what is taken for a jump is not of the range."""
        return not self.unaccounted


def coverage(lake: Lake, days: Sequence[date], timezone: ZoneInfo) -> Iterator[Coverage]:
    """Accounts for the ids of rising days from the lake alone."""
    list_segments = cache(lake.segments)
    for group in group_days(days):
        knowledge = Knowledge.of_days(lake, group, timezone)
        for day in group:
            yield account_for(lake, knowledge, day, list_segments)


def account_for(
    lake: Lake,
    knowledge: Knowledge,
    day: date,
    list_segments: Callable[[], Iterable[Segment]],
    *,
    failed: Collection[int] = (),
) -> Coverage:
    """Accounts for the ids of a day like `coverage_of`, with all that the lake knows of those that seem open."""
    found = coverage_of(knowledge, day, failed=failed)
    if open_ranges := sorted(found.unaccounted + found.unread):
        # A call out of place is stored in a day that is no neighbour, and so is what a search asked for in a jump.
        before = len(knowledge.loaded_days)
        knowledge.load_range(lake, list_segments(), open_ranges[0][0], open_ranges[-1][1])
        if len(knowledge.loaded_days) > before:
            found = coverage_of(knowledge, day, failed=failed)
    return found


def coverage_of(knowledge: Knowledge, day: date, *, failed: Collection[int] = ()) -> Coverage:
    """Accounts for the ids of a day from what is known.

    A call whose start was corrected into the day from far away counts as stored but does not stretch the range.

    Args:
        knowledge: What is known of the day and its neighbours.
        day: The day.
        failed: Ids asked for in vain: before the first and beyond the last known call, and in what is taken for a jump,
            nothing else tells of them, nor of those between, which nobody asked for.
    """
    begin = day_start_us(day, knowledge.timezone)
    end = day_start_us(day + timedelta(days=1), knowledge.timezone)
    ids, starts = knowledge.calls()
    in_day = ids[(starts >= begin) & (starts < end)]
    before, at_begin = knowledge.split(begin)
    at_end, after = knowledge.split(end)
    jump_before, jump_after = _find_jump(before, at_begin), _find_jump(at_end, after)
    lowest = (jump_before[1] + 1 if jump_before else before) - MARGIN
    near = in_day[(in_day >= lowest) & (in_day <= at_end + MARGIN)]
    first, last = (int(near.min()), int(near.max())) if len(near) else (None, None)
    known = knowledge.known
    kinds = [known[id_].kind for id_ in range(first, last + 1) if id_ in known] if first and last else []
    # Where the neighbour is known, the range reaches up to it; beside a jump, as far as is read.
    low = high = at_end + 1
    unread = []
    if jump_before:
        low = lowest
        unread.append((jump_before[0], low - 1))
    elif before:
        low = before + 1
    if jump_after:
        high = at_end + MARGIN
        unread.append((high, jump_after[1]))
    elif after is not None and at_end:
        high = after
    if jump_before and jump_before == jump_after:
        unread = [jump_before]  # both edges of the day lie in it
    low, high = min(low, first or low), max(high, (last or 0) + 1)
    lowest_call = first or after
    open_ends = [(1, lowest_call - 1)] if lowest_call and not before and not jump_before else []
    open_ends += [(at_end + 1, HIGHEST_ID)] if after is None else []
    vain = {id_ for id_ in failed if any(begins <= id_ <= ends for begins, ends in unread + open_ends)}
    answered = {*known, *vain} if vain else known
    return Coverage(
        day=day,
        first_id=first,
        last_id=last,
        stored=len(in_day),
        missing=kinds.count(Kind.MISSING),
        quarantined=sum(1 for s in known.values() if s.kind is Kind.QUARANTINED and s.day == day),
        unaccounted=tuple(to_ranges(sorted(vain.union(id_ for id_ in range(low, high) if id_ not in known)))),
        unread=tuple(gap for hole in unread for gap in _list_gaps(answered, *hole)),
    )


def _find_jump(below: int, above: int | None) -> tuple[int, int] | None:
    """Gives the ids between two calls at a day's edge, 0 for none below, of which no more than margins are read."""
    return (below + 1, above - 1) if above is not None and above - below > (MAX_GAP if below else MARGIN) else None


def _list_gaps(known: Iterable[int], first: int, last: int) -> Iterator[tuple[int, int]]:
    """Lists the inclusive ranges of unknown ids from first to last, without a look at each: there may be billions."""
    for id_ in sorted(id_ for id_ in known if first <= id_ <= last):
        if first < id_:
            yield first, id_ - 1
        first = id_ + 1
    if first <= last:
        yield first, last


def to_ranges(ids: Iterable[int]) -> list[tuple[int, int]]:
    """Joins rising ids to inclusive ranges."""
    ranges: list[tuple[int, int]] = []
    for id_ in ids:
        if ranges and ranges[-1][1] == id_ - 1:
            ranges[-1] = (ranges[-1][0], id_)
        else:
            ranges.append((id_, id_))
    return ranges
