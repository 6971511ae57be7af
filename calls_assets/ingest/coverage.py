"""The proof of completeness: every id between a day's first and last is stored, missing or quarantined."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from calls_assets.ingest.knowledge import Kind, Knowledge, day_start_us
from calls_assets.lake import Lake

DISORDER = 100
"""Places by which an id may stand out of the order of starts."""


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
        unaccounted: Inclusive ranges of ids never answered.
    """

    day: date
    first_id: int | None
    last_id: int | None
    stored: int
    missing: int
    quarantined: int
    unaccounted: tuple[tuple[int, int], ...]

    @property
    def unaccounted_count(self) -> int:
        """Number of ids never answered."""
        return sum(last - first + 1 for first, last in self.unaccounted)

    @property
    def is_complete(self) -> bool:
        """Whether every id of the range is accounted for."""
        return not self.unaccounted


def coverage(lake: Lake, day: date, timezone: ZoneInfo) -> Coverage:
    """Accounts for the ids of a day from the lake alone."""
    return coverage_of(Knowledge.of_days(lake, [day], timezone), day)


def coverage_of(knowledge: Knowledge, day: date) -> Coverage:
    """Accounts for the ids of a day from what is known.

    A call whose start was corrected into the day from far away counts as stored but does not stretch the range.
    """
    begin = day_start_us(day, knowledge.timezone)
    end = day_start_us(day + timedelta(days=1), knowledge.timezone)
    ids, starts = knowledge.calls()
    in_day = ids[(starts >= begin) & (starts < end)]
    quarantined = sum(1 for s in knowledge.known.values() if s.kind is Kind.QUARANTINED and s.day == day)
    _, low = knowledge.split(begin)
    high, _ = knowledge.split(end)
    near = in_day[(in_day >= (low or 0) - 2 * DISORDER) & (in_day <= high + 2 * DISORDER)]
    if not len(near):
        return Coverage(
            day=day,
            first_id=None,
            last_id=None,
            stored=len(in_day),
            missing=0,
            quarantined=quarantined,
            unaccounted=(),
        )
    first, last = int(near.min()), int(near.max())
    known = knowledge.known
    inside = [known[id_].kind for id_ in range(first, last + 1) if id_ in known]
    return Coverage(
        day=day,
        first_id=first,
        last_id=last,
        stored=len(in_day),
        missing=inside.count(Kind.MISSING),
        quarantined=quarantined,
        unaccounted=tuple(to_ranges(id_ for id_ in range(first, last + 1) if id_ not in known)),
    )


def to_ranges(ids: Iterable[int]) -> list[tuple[int, int]]:
    """Joins rising ids to inclusive ranges."""
    ranges: list[tuple[int, int]] = []
    for id_ in ids:
        if ranges and ranges[-1][1] == id_ - 1:
            ranges[-1] = (ranges[-1][0], id_)
        else:
            ranges.append((id_, id_))
    return ranges
