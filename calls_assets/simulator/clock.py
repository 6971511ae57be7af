"""A clock that can be set, and can run faster than time."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


def utc_now() -> datetime:
    """The real moment."""
    return datetime.now(UTC)


class SettableClock:
    """A clock to call: gives an aware moment in UTC.

    Args:
        now: What it shows first.
        speed: Its seconds for each real one; 0 stands still until it is set.

    Raises:
        ValueError: `now` has no zone, or the speed is negative.
    """

    def __init__(self, now: datetime, *, speed: float = 0.0) -> None:
        if speed < 0:
            raise ValueError("speed must not be negative")
        self._speed = speed
        self.set(now)

    def __call__(self) -> datetime:
        """What the clock shows."""
        base, mark = self._state
        return base + timedelta(seconds=(time.monotonic() - mark) * self._speed)

    def set(self, now: datetime) -> None:
        """Sets it; it goes on from there.

        Raises:
            ValueError: `now` has no zone.
        """
        if now.tzinfo is None:
            raise ValueError("now needs a time zone")
        self._state = (now.astimezone(UTC), time.monotonic())  # one assignment: other threads see both or neither

    def advance(self, step: timedelta) -> None:
        """Sets it forward by a step."""
        self.set(self() + step)
