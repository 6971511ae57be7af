"""Locate: the id range of some days, and the highest id there is, by search over ids that rise with time.

What belongs here: the search itself, over a `Knowledge` and a function that asks for ids. What stays out: how ids are
asked for and stored. Ids rise with time up to `DISORDER` places, have gaps and runs of missing ids; every answer is
kept in the knowledge, and the search is deterministic: repeated over a stored lake, it asks for nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta

from calls_assets.ingest.coverage import DISORDER
from calls_assets.ingest.knowledge import Kind, Knowledge, to_us

MARGIN = 2 * DISORDER
"""Places read beyond a boundary: the boundary found and the calls around it may each be `DISORDER` places off."""

MAX_GAP = 5_000
"""A hole between two known calls at a day's edge that is read whole; a larger one is taken for a vendor's jump."""

_STEP_BY_PAIRS = 16
_LATELY_US = 3_600_000_000
_HIGHEST_ID_BITS = 31
_FINE_BITS = 21
_LOOK_AHEAD_BITS = 17

Ask = Callable[[Iterable[int]], Awaitable[None]]
"""Asks for ids and records the answers in the knowledge; ids already answered may be left out by the callee."""


class Locator:
    """Searches the ids of days.

    Args:
        knowledge: What is known; it grows with every answer.
        ask: Asks for ids not known yet.
        ask_again: Asks for ids even when known to be missing: the frontier moves.
        now: The clock.
    """

    def __init__(self, knowledge: Knowledge, ask: Ask, ask_again: Ask, now: Callable[[], datetime]) -> None:
        self.knowledge = knowledge
        self._ask = ask
        self._ask_again = ask_again
        self._now = now

    async def find_first_hit(self) -> bool:
        """Looks for any call of an account of which nothing is known; False when none is found.

        Asks at 1, 2, 4, …, then at ever finer steps between: every span of ids whose end is 1 % above its beginning
        is met up to two millions, 12 % above that.
        """
        for steps in (1, 2, 4, 8, 16, 32, 64):
            for bits in range(_HIGHEST_ID_BITS if steps <= 8 else _FINE_BITS):
                points = {(1 << bits) + (1 << bits) * k // steps for k in range(steps)}
                await self._ask_again(id_ for id_ in sorted(points) if not self._was_asked_lately(id_))
                if len(self.knowledge.calls()[0]):
                    return True
        return False

    def _was_asked_lately(self, id_: int) -> bool:
        state = self.knowledge.known.get(id_)
        return state is not None and to_us(self._now()) - state.read_us < _LATELY_US

    async def advance_frontier(self, until_us: int, *, wide: bool = False) -> None:
        """Moves the highest known id up to the end of the account, or past an instant.

        Args:
            until_us: Stop once a call known starts at or after this instant.
            wide: Also look ahead at log-spaced distances, over long runs of missing ids.
        """
        while True:
            await self._climb(until_us)
            top = self.knowledge.highest
            if not wide or self._is_past(until_us):
                return
            await self._ask_again(top + (1 << bits) for bits in range(2, _LOOK_AHEAD_BITS))
            if self.knowledge.highest == top:
                return

    def _is_past(self, until_us: int) -> bool:
        _, starts = self.knowledge.calls()
        # More than the disorder must lie beyond, else the last calls before the instant may stand higher still.
        return int((starts >= until_us).sum()) > MARGIN

    async def _climb(self, until_us: int) -> None:
        for _ in range(_STEP_BY_PAIRS):
            top = self.knowledge.highest
            if self._is_past(until_us):
                return
            await self._ask_again(frontier_ids(top, self._now()))
            if self.knowledge.highest == top:
                return
        # Far behind: double the distance until nothing is there, then halve back to the last hit.
        low, distance = self.knowledge.highest, 4
        while not self._is_past(until_us) and await self._exists_near(low + distance):
            low, distance = self.knowledge.highest, distance * 2
        high = low + distance
        while high - low > 2 and not self._is_past(until_us):
            middle = (low + high) // 2
            if await self._exists_near(middle):
                low = max(middle, self.knowledge.highest)
            else:
                high = middle
        if not self._is_past(until_us):
            await self._climb(until_us)

    async def _exists_near(self, id_: int) -> bool:
        top = self.knowledge.highest
        await self._ask_again((id_, id_ + 1))
        return self.knowledge.highest > top

    async def find_range(self, begin_us: int, end_us: int) -> tuple[int, int] | None:
        """Finds the inclusive range of ids outside of which no call of `[begin_us, end_us)` stands.

        Returns:
            The range, margins included, or None when the account has no calls.
        """
        if not len(self.knowledge.calls()[0]):
            return None
        low_before, low_after = await self._bracket(begin_us)
        high_before, high_after = await self._bracket(end_us)
        top = self.knowledge.highest
        if low_before and (low_after is None or low_after - low_before <= MAX_GAP):
            first = low_before - MARGIN
        else:
            first = (low_after or low_before) - MARGIN
        if high_after is None:
            last = top
        elif high_after - high_before <= MAX_GAP:
            last = high_after + MARGIN
        else:
            last = high_before + MARGIN
        return max(1, first), min(top, last)

    async def _bracket(self, boundary_us: int) -> tuple[int, int | None]:
        """Narrows the ids around an instant until no more than a margin of unknown ids lies between."""
        empty_below = 0
        while True:
            low, high = self.knowledge.split(boundary_us)
            floor = max(low, empty_below)
            if high is None or high - floor - 1 <= MARGIN:
                return low, high
            middle = (floor + high) // 2
            if not await self._hit_from(middle, high):
                empty_below = middle
                continue
            if self.knowledge.split(boundary_us) == (low, high):
                # The hits did not decide: calls far out of place. Leave this middle behind.
                empty_below = middle

    async def _hit_from(self, id_: int, high: int) -> bool:
        """Asks for ids from `id_` upwards, ever farther, until a call is met below `high`."""
        known = self.knowledge.known
        await self._ask(range(id_, min(id_ + 3, high)))
        met = [i for i in range(id_, min(id_ + 3, high)) if i in known and known[i].kind is Kind.CALL]
        distance = 4
        while not met and id_ + distance < high:
            # Three in a row: one call whose start was corrected must not decide alone.
            near = range(id_ + distance, min(id_ + distance + 3, high))
            await self._ask(near)
            met = [i for i in near if i in known and known[i].kind is Kind.CALL]
            distance *= 2
        return bool(met)


def frontier_ids(top: int, now: datetime, window: int = 2) -> tuple[int, ...]:
    """Gives the ids to try beyond the highest one: the next, and one more that walks on by the minute.

    So two requests look past short runs of missing ids, without a memory of what was tried.

    Args:
        top: The highest id known.
        now: The instant of the attempt.
        window: Number of ids.
    """
    return (top + 1, *(top + 2 + (_minute(now) + step) % 8 for step in range(window - 1)))


def first_ids(now: datetime) -> tuple[int, ...]:
    """Gives the ids to try in an account of which no call is known: the first, and a power of two of the minute."""
    return (1, 1 << (_minute(now) % _HIGHEST_ID_BITS))


def _minute(now: datetime) -> int:
    return to_us(now) // (timedelta(minutes=1) // timedelta(microseconds=1))
