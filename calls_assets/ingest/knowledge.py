"""What the lake already knows about ids: their state, start and newest read.

What belongs here: a view of the raw index of some days, kept up to date with the answers of the running sweep.
What stays out: deciding what to request (`plan`) and asking (`sweep`). Instants are UTC epoch microseconds.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import compress
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from calls_assets.lake import Lake, Segment

NEIGHBOUR_DAYS = 2
"""Stored days looked at on either side of the swept ones to bracket them."""
DAYS_AT_ONCE = 31
"""Consecutive days of which everything is known at a time."""


class Kind(enum.IntEnum):
    """What the newest answer for an id was."""

    CALL = 0
    MISSING = 1
    QUARANTINED = 2


class Known(NamedTuple):
    """State of one id after its newest read.

    Attributes:
        kind: What the API said.
        started_us: Start of the call; 0 unless `kind` is CALL.
        is_ended: Whether the call had ended.
        read_us: Instant of the newest read.
        day: Day the read is stored in (for a call: the day it starts in, where it is stored there).
    """

    kind: Kind
    started_us: int
    is_ended: bool
    read_us: int
    day: date


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_us(instant: datetime) -> int:
    """Converts an aware instant to UTC epoch microseconds."""
    return (instant - _EPOCH) // _MICROSECOND


def day_start_us(day: date, timezone: ZoneInfo) -> int:
    """Gives the instant at which a local day begins (23 and 25 hour days included)."""
    return to_us(datetime(day.year, day.month, day.day, tzinfo=timezone).astimezone(UTC))


def day_of(started_us: int, timezone: ZoneInfo) -> date:
    """Gives the local day an instant falls in."""
    return datetime.fromtimestamp(started_us // 1_000_000, timezone).date()


def group_days(days: Sequence[date]) -> list[list[date]]:
    """Cuts rising days into runs of consecutive ones, so that each run is looked at once."""
    groups: list[list[date]] = []
    for day in days:
        if groups and groups[-1][-1] == day - timedelta(days=1) and len(groups[-1]) < DAYS_AT_ONCE:
            groups[-1].append(day)
        else:
            groups.append([day])
    return groups


class Knowledge:
    """The known ids of some days, and the answers that arrived since.

    Args:
        timezone: Zone of the days.
    """

    def __init__(self, timezone: ZoneInfo) -> None:
        self.timezone = timezone
        self.known: dict[int, Known] = {}
        self.loaded_days: set[date] = set()
        self.highest = 0
        """The highest id of a call; 0 when none is known."""
        self._places: dict[int, dict[date, Known]] = {}
        """Newest read by day, of the ids that are stored in several days or in another than they start in."""
        self._bounds: dict[date, tuple[int, int]] = {}
        self._starts: dict[int, int] = {}
        self._sorted: tuple[np.ndarray, np.ndarray] | None = None
        self._unsorted: list[int] = []
        """Calls that `_sorted`, unless None, does not have yet."""

    @classmethod
    def of_days(cls, lake: Lake, days: Iterable[date], timezone: ZoneInfo) -> Knowledge:
        """Loads the days, their nearest stored neighbours, and every day whose ids overlap theirs."""
        wanted = sorted(set(days))
        knowledge = cls(timezone)
        segments = lake.segments()
        stored = sorted({segment.day for segment in segments})
        before = stored[max(0, bisect_left(stored, wanted[0]) - NEIGHBOUR_DAYS) : bisect_left(stored, wanted[0])]
        after = [day for day in stored if day > wanted[-1]][:NEIGHBOUR_DAYS]
        knowledge.load(lake, {*before, *wanted, *after} & set(stored))
        in_days = [id_ for id_, state in knowledge.known.items() if state.day in set(wanted)]
        if in_days:
            knowledge.load_range(lake, segments, min(in_days), max(in_days))
        return knowledge

    def load_range(self, lake: Lake, segments: Iterable[Segment], lowest: int, highest: int) -> None:
        """Loads every day with a segment whose ids overlap `lowest` to `highest`."""
        self.load(
            lake,
            {
                segment.day
                for segment in segments
                if segment.day not in self.loaded_days and segment.lowest_id <= highest and segment.highest_id >= lowest
            },
        )

    def load(self, lake: Lake, days: Iterable[date]) -> None:
        """Loads the raw index of the days not loaded yet."""
        new_days = sorted(set(days) - self.loaded_days)
        if not new_days:
            return
        self.loaded_days.update(new_days)
        self._add_index(lake.read_index(new_days))

    def _add_index(self, index: pa.Table) -> None:
        """Adds rows of the raw index: by column, but for the few ids that stand elsewhere too, or away from home."""
        if not index.num_rows:
            return
        ids = index["call_id"].to_numpy()
        started = index["started_at"].cast(pa.int64())
        is_missing = pc.equal(index["http_status"], 404).to_numpy()
        is_call = ~is_missing & pc.and_(index["error"].is_null(), started.is_valid()).to_numpy()
        started_us = np.where(is_call, started.fill_null(0).to_numpy(), 0)
        is_ended = is_call & index["is_ended"].fill_null(False).to_numpy()
        kinds = np.where(is_call, Kind.CALL, np.where(is_missing, Kind.MISSING, Kind.QUARANTINED))
        days = index["day"].combine_chunks().dictionary_encode()
        day_of_row, stored_days = days.indices.to_numpy(), days.dictionary.to_pylist()
        states = list(
            map(
                Known,
                map(list(Kind).__getitem__, kinds.tolist()),
                started_us.tolist(),
                is_ended.tolist(),
                index["read_at"].cast(pa.int64()).to_pylist(),
                map(stored_days.__getitem__, day_of_row.tolist()),
            )
        )
        begin, end = (np.array(bounds)[day_of_row] for bounds in zip(*map(self._bounds_of, stored_days), strict=True))
        _, first, count = np.unique(ids, return_inverse=True, return_counts=True)
        is_plain = (count[first] == 1) & (~is_call | ((begin <= started_us) & (started_us < end)))
        is_plain &= [id_ not in self.known for id_ in ids.tolist()]
        self.known.update(zip(ids[is_plain].tolist(), compress(states, is_plain), strict=True))
        chosen = is_plain & is_call
        self._starts.update(zip(ids[chosen].tolist(), started_us[chosen].tolist(), strict=True))
        self._sorted = None
        self.highest = max(self.highest, ids[chosen].max(initial=0).item())
        for row in np.flatnonzero(~is_plain).tolist():
            self._note_place(ids[row].item(), states[row])
            self._keep_newest(ids[row].item(), states[row])

    def _note_place(self, id_: int, state: Known) -> None:
        held = self.known.get(id_)
        if held is not None or (state.kind is Kind.CALL and not self._is_home(state)):
            places = self._places.setdefault(id_, {held.day: held} if held else {})
            places[state.day] = state

    def strays(self, days: Collection[date]) -> list[int]:
        """Lists the ids of some stored days that are stored in several, or in another than they start in."""
        return sorted(id_ for id_, places in self._places.items() if not places.keys().isdisjoint(days))

    def find_missing_copies(self, id_: int) -> list[tuple[date, date]]:
        """Tells where an id's newest read stands and where it is missing.

        It belongs in the day the call starts in, and in every day that would show the call otherwise. Ask before
        answers of the running sweep are added, and with every day loaded that may hold the id.
        """
        places = self._places[id_]
        newest = max(places.values(), key=lambda state: state.read_us)
        if newest.kind is not Kind.CALL:
            return []
        wanted = {day_of(newest.started_us, self.timezone)}
        wanted |= {day for day, state in places.items() if state.kind is Kind.CALL and self._is_home(state)}
        return [
            (newest.day, day) for day in sorted(wanted) if day not in places or places[day].read_us < newest.read_us
        ]

    def file_under(self, id_: int, day: date) -> None:
        """Corrects the day an undated answer is stored in."""
        self.known[id_] = self.known[id_]._replace(day=day)

    def add(self, id_: int, state: Known) -> None:
        """Records an answer of the running sweep."""
        self._keep_newest(id_, state)

    def _keep_newest(self, id_: int, state: Known) -> None:
        held = self.known.get(id_)
        if (
            state.kind is Kind.CALL
        ):  # an answer that breaks the contract may be an error page: no sign that the id exists
            self.highest = max(self.highest, id_)
        # The same read can be stored in two days (a call that moved) and an id can be missing in one and found in
        # another: the newest read wins, and of equal reads the one stored where the call starts.
        if held is None or state.read_us > held.read_us or (state.read_us == held.read_us and self._is_home(state)):
            self.known[id_] = state
            if state.kind is Kind.CALL:
                known_us = self._starts.get(id_)
                if known_us is None:
                    self._unsorted.append(id_)
                elif known_us != state.started_us:
                    self._sorted = None
                self._starts[id_] = state.started_us
            elif self._starts.pop(id_, None) is not None:
                self._sorted = None

    def _bounds_of(self, day: date) -> tuple[int, int]:
        if day not in self._bounds:
            begin, end = (day_start_us(day + timedelta(days=step), self.timezone) for step in (0, 1))
            self._bounds[day] = begin, end
        return self._bounds[day]

    def _is_home(self, state: Known) -> bool:
        begin, end = self._bounds_of(state.day)
        return state.kind is Kind.CALL and begin <= state.started_us < end

    def calls(self) -> tuple[np.ndarray, np.ndarray]:
        """Gives ids (rising) and starts of all known calls, as two int64 arrays of equal length."""
        if self._sorted is None:
            count = len(self._starts)
            ids = np.fromiter(self._starts.keys(), dtype=np.int64, count=count)
            starts = np.fromiter(self._starts.values(), dtype=np.int64, count=count)
            order = np.argsort(ids)
            self._sorted = (ids[order], starts[order])
        elif self._unsorted:
            self._unsorted.sort()
            ids, starts = self._sorted
            places = ids.searchsorted(self._unsorted)
            added_us = [self._starts[id_] for id_ in self._unsorted]
            self._sorted = (np.insert(ids, places, self._unsorted), np.insert(starts, places, added_us))
        self._unsorted.clear()
        return self._sorted

    def split(self, boundary_us: int) -> tuple[int, int | None]:
        """Finds where starts pass an instant, as a vote of all known calls.

        The split misplaces the fewest calls, so ids out of order and single calls whose start was corrected to a
        far-away day do not move it.

        Returns:
            The highest known id below the split (0 when none) and the lowest above it (None when none).
        """
        ids, starts = self.calls()
        late = starts >= boundary_us
        # misplaced[k] = calls at or after the boundary left of k + calls before it right of k
        misplaced = np.concatenate(([0], np.cumsum(late))) + (
            np.count_nonzero(~late) - np.concatenate(([0], np.cumsum(~late)))
        )
        k = int(np.argmin(misplaced))
        return (int(ids[k - 1]) if k else 0), (int(ids[k]) if k < len(ids) else None)

    def neighbours_us(self, id_: int) -> tuple[int | None, int | None]:
        """Gives the starts of the nearest known calls with a lower and a higher id."""
        ids, starts = self.calls()
        k = int(ids.searchsorted(id_))  # in less than half the time of the function
        above = k + 1 if k < len(ids) and ids[k] == id_ else k
        return (int(starts[k - 1]) if k else None), (int(starts[above]) if above < len(ids) else None)
