"""Locate: the id range of some days, and the highest id there is, by search over ids that rise with time.

What belongs here: the search itself, over a `Knowledge` and a function that asks for ids. What stays out: how ids are
asked for and stored. Ids rise with time up to `DISORDER` places, have gaps and runs of missing ids; every answer is
kept in the knowledge, and the search is deterministic: repeated over a stored lake, it asks for nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from calls_assets.ingest.coverage import DISORDER, MARGIN, MAX_GAP, MAX_HOLE
from calls_assets.ingest.knowledge import Kind, Knowledge, to_us
from calls_assets.ingest.plan import passed_rung

_SINGLE_STEPS = 16
_AT_ONCE = 4
"""Distances asked for together: four times fewer waits for a few requests more."""
_NEAR = 3
"""Ids asked for side by side, so that one call whose start was corrected does not decide alone."""
_MINUTE_US = 60_000_000
_HOUR_US = 60 * _MINUTE_US
_DAY_US = 20 * _HOUR_US
_HIGHEST_ID_BITS = 31
_FINE_BITS = 18
_FINEST_STEP = 64
_SMALL_BITS = 11
_COARSE_STEPS = 8
_LOOK_AHEAD_BITS = (7, 17)

Ask = Callable[[Sequence[int]], Awaitable[object]]
"""Asks for rising ids and records the answers in the knowledge; ids already answered may be left out by the callee."""


class Locator:
    """Searches the ids of days.

    Args:
        knowledge: What is known; it grows with every answer.
        ask: Asks for ids not known yet.
        ask_again: Asks for ids even when known to be missing: the frontier moves.
        now: The clock.
        rungs_us: Ages at which missing ids are asked for again, in microseconds.
        read_holes: Whether holes at the edges of days belong to their range that are taken for jumps otherwise.
    """

    def __init__(
        self,
        knowledge: Knowledge,
        ask: Ask,
        ask_again: Ask,
        *,
        now: Callable[[], datetime],
        rungs_us: tuple[int, ...],
        read_holes: bool = False,
    ) -> None:
        self.knowledge = knowledge
        self._ask = ask
        self._ask_again = ask_again
        self._now = now
        self._rungs_us = rungs_us
        self._read_holes = read_holes

    async def find_first_hit(self) -> bool:
        """Looks for any call of an account of which nothing is known; False when none is found.

        Asks at 1, 2, 4, …, then at finer steps between, then for every id below 2,048, then for every 64th below
        262,144. So an account that covers a percent of its highest id is met within a few hundred requests, and a
        small one at last.
        """
        for ids, patience_us in search_order():
            await self._ask_again([id_ for id_ in ids if not self._was_asked_within(id_, patience_us)])
            if len(self.knowledge.calls()[0]):
                return True
        return False

    def _was_asked_within(self, id_: int, patience_us: int) -> bool:
        state = self.knowledge.known.get(id_)
        return state is not None and to_us(self._now()) - state.read_us < patience_us

    async def advance_frontier(self, until_us: int, *, wide: bool = False) -> None:
        """Moves the highest known id up to the end of the account, or past an instant.

        Once that instant is past, ids found missing are asked for again at its rungs only.

        Args:
            until_us: Stop once calls that start at or after this instant are known.
            wide: Also look over long runs of missing ids: at the next hundred, then at log-spaced distances.
        """
        while True:
            await self._climb(until_us)
            top = self.knowledge.highest
            if not wide or self.is_past(until_us):
                return
            near = range(top + 1, top + DISORDER + 1)
            await self._look_ahead([*near, *(top + (1 << bits) for bits in range(*_LOOK_AHEAD_BITS))], until_us)
            if self.knowledge.highest == top:
                return

    def is_past(self, until_us: int) -> bool:
        """Tells whether every call that starts before an instant stands below the highest known id."""
        _, high = self.knowledge.split(until_us)
        return high is not None and self.knowledge.highest >= high + MARGIN

    async def _look_ahead(self, ids: Iterable[int], until_us: int) -> None:
        known, now_us = self.knowledge.known, to_us(self._now())
        is_under_way = now_us < until_us
        await self._ask_again(
            [
                id_
                for id_ in ids
                if id_ not in known or is_under_way or passed_rung(until_us, known[id_].read_us, now_us, self._rungs_us)
            ]
        )

    async def _climb(self, until_us: int) -> None:
        # An end that is past is far away, as a rule, and nothing below it is wanted for its own sake.
        for _ in range(1 if until_us <= to_us(self._now()) else _SINGLE_STEPS):
            top = self.knowledge.highest
            if self.is_past(until_us):
                return
            next_id, *farther = frontier_ids(top, self._now())
            await self._look_ahead((next_id,), until_us)
            if self.knowledge.highest == top:
                await self._look_ahead(farther, until_us)
            if self.knowledge.highest == top:
                return
        # Far behind: double the distance until nothing is there, then cut what is left into parts.
        base, distance = self.knowledge.highest, 4
        high = base + distance
        while not self.is_past(until_us):
            steps = [base + (distance << step) for step in range(_AT_ONCE)]
            high = await self._find_end(steps, until_us)
            if high <= steps[-1]:
                break
            distance <<= _AT_ONCE
        while (low := self.knowledge.highest) + 2 < high and not self.is_past(until_us):
            parts = [low + (high - low) * part // _AT_ONCE for part in range(1, _AT_ONCE)]
            high = min(high, await self._find_end(sorted({*parts} - {low}), until_us))
        if not self.is_past(until_us):
            await self._climb(until_us)

    async def _find_end(self, ids: Sequence[int], until_us: int) -> int:
        """Asks for rising ids; gives the lowest above all calls now known, or one more than the last of them."""
        await self._look_ahead(ids, until_us)
        if self.knowledge.highest < ids[0]:
            await self._look_ahead([ids[0] + 1], until_us)  # a single missing id says little
        return next((id_ for id_ in ids if id_ > self.knowledge.highest), ids[-1] + 1)

    async def find_range(self, begin_us: int, end_us: int) -> tuple[int, int] | None:
        """Finds the inclusive range of ids outside of which no call of `[begin_us, end_us)` stands.

        Returns:
            The range, margins included, or None when the account has no calls.
        """
        if not len(self.knowledge.calls()[0]):
            return None
        tried: set[int] = set()  # an id that fails stays unknown
        while True:
            searches = [self._narrow(begin_us), self._narrow(end_us)]
            while wanted := [ids for search in searches if (ids := next(search, None)) is not None]:
                await self._ask(sorted({id_ for ids in wanted for id_ in ids}))
            edges = {id_ for at_us in (begin_us, end_us) for id_ in self._list_edge(at_us)} - tried
            if not edges:
                break
            tried |= edges
            await self._ask(sorted(edges))
        low_before, low_after = self.knowledge.split(begin_us)
        high_before, high_after = self.knowledge.split(end_us)
        top = self.knowledge.highest
        most = MAX_HOLE if self._read_holes else MAX_GAP
        if (low_before or self._read_holes) and (low_after is None or low_after - low_before <= most):
            first = low_before - MARGIN
        else:
            first = (low_after or low_before) - MARGIN
        if high_after is None:
            last = top
        elif high_after - high_before <= most:
            last = high_after + MARGIN
        else:
            last = high_before + MARGIN
        return max(1, first), min(top, last)

    def _list_edge(self, boundary_us: int) -> Iterator[int]:
        """Lists the unknown ids just below the call after an instant, where the hole before it is not read whole.

        A few missing ids far apart do not tell a hole: where one id in three is missing, the search meets such by
        chance once in some hundred days. All of a margin do.
        """
        before, after = self.knowledge.split(boundary_us)
        if after is not None and after - before > MAX_GAP:
            yield from (id_ for id_ in range(after - MARGIN, after) if id_ not in self.knowledge.known)

    def _narrow(self, boundary_us: int) -> Iterator[list[int]]:
        """Narrows the ids around an instant until no more than a margin of unknown ids lies between.

        Yields:
            Ids to be asked for before it goes on.
        """
        empty_below = 0
        while True:
            low, high = self.knowledge.split(boundary_us)
            floor = max(low, empty_below)
            if high is None or high - floor - 1 <= MARGIN:
                return
            middle = roundest_between(floor, high)
            empty_up_to = yield from self._find_empty(middle, high)
            if empty_up_to:
                empty_below = empty_up_to
            elif self.knowledge.split(boundary_us) == (low, high):
                # The hits did not decide: calls far out of place. Leave this middle behind.
                empty_below = middle

    def _find_empty(self, middle: int, high: int) -> Generator[list[int], None, int]:
        """Looks for calls from `middle` up to `high`; gives the highest place up to which there is none, 0 after a hit.

        Where there is none at the middle, it looks at all later middles up to `high` at once.
        """
        if (yield from self._is_call_near([middle], high)):
            return 0
        places = [middle]
        while high - places[-1] - 1 > MARGIN:
            places.append(roundest_between(places[-1], high))
        return 0 if (yield from self._is_call_near(places, high)) else places[-1]

    def _is_call_near(self, places: Iterable[int], high: int) -> Generator[list[int], None, bool]:
        ids = [id_ for place in places for id_ in range(place, min(place + _NEAR, high))]
        yield ids
        known = self.knowledge.known
        return any(known[id_].kind is Kind.CALL for id_ in ids if id_ in known)


def frontier_ids(top: int, now: datetime, window: int = 2) -> tuple[int, ...]:
    """Gives the ids to try beyond the highest one: the next, and one more that walks on by the minute.

    So two requests look past short runs of missing ids, without a memory of what was tried.

    Args:
        top: The highest id known.
        now: The instant of the attempt.
        window: Number of ids.
    """
    return (top + 1, *(top + 2 + (_minute(now) + step) % 8 for step in range(window - 1)))


def search_order() -> Iterator[tuple[Sequence[int], int]]:
    """Yields the ids at which an account is looked for, and for how long each is not asked for again (microseconds)."""
    for first in range(0, _HIGHEST_ID_BITS, _COARSE_STEPS):
        yield [1 << bits for bits in range(first, min(first + _COARSE_STEPS, _HIGHEST_ID_BITS))], _MINUTE_US
    for steps in (1 << level for level in range(1, 7)):
        is_coarse = steps <= _COARSE_STEPS
        for bits in range(_HIGHEST_ID_BITS if is_coarse else _FINE_BITS):
            low = 1 << bits
            points = range(low, 2 * low, max(1, low // steps))
            yield points, _HOUR_US if is_coarse else _DAY_US
    yield range(1, 1 << _SMALL_BITS), _DAY_US
    for bits in range(_SMALL_BITS, _FINE_BITS):
        yield range(1 << bits, 2 << bits, _FINEST_STEP), _DAY_US


def roundest_between(floor: int, high: int) -> int:
    """Gives the id above `floor` and below `high` that ends in the most binary zeros.

    A search that starts from a narrower bracket passes the same ids, so that repeating it asks for nothing new.
    """
    shift = (floor ^ (high - 1)).bit_length() - 1
    return ((high - 1) >> shift) << shift


def first_ids(now: datetime) -> tuple[int, ...]:
    """Gives the ids to try in an account of which no call is known: the first, and a power of two of the minute."""
    return (1, 1 << (_minute(now) % _HIGHEST_ID_BITS))


def _minute(now: datetime) -> int:
    return to_us(now) // (timedelta(minutes=1) // timedelta(microseconds=1))
