"""When calls begin: ids to moments and back.

A day's ids are spread over it by a curve of hours; a curve that rises turns an id's place in its day into a moment, so
ids rise with time. Then a tenth of the calls is put back by some places: they got their id before they began.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from itertools import accumulate, pairwise
from threading import Lock
from zoneinfo import ZoneInfo

from calls_assets.simulator.account import Account
from calls_assets.simulator.chance import Topic, chance

# fmt: off
_HOURS = (0.15, 0.10, 0.08, 0.08, 0.10, 0.20, 0.50, 1.60, 4.20, 7.20, 8.60, 8.30,
          6.90, 7.10, 8.20, 7.90, 6.80, 5.00, 3.10, 2.00, 1.30, 0.80, 0.45, 0.25)  # by local hour
# fmt: on
_WEEKDAYS = (1.42, 1.30, 1.24, 1.21, 1.13, 0.45, 0.25)  # Monday first; the mean is 1
_DAY_SIZE_JITTER = 0.06
_DISORDERED_SHARE = 0.1
_MAX_DAYS = 36_525  # a century: beyond it an id is a mistake
MAX_DISORDER_SECONDS = 900
"""No call is put back further."""


class Arrivals:
    """The starts of an account's calls, as first recorded.

    Args:
        account: The account.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._zone = ZoneInfo(account.timezone)
        self._ends: list[int] = []  # by day since the first: how many ids there are up to its end
        self._curves: dict[int, tuple[float, Sequence[float], Sequence[float]]] = {}
        self._growing = Lock()  # a test reads while the server's thread does

    def day_of(self, seconds: float) -> date:
        """The account's local day of a moment (Unix seconds)."""
        return datetime.fromtimestamp(seconds, self._zone).date()

    def midnight(self, day: date) -> float:
        """When a local day begins (Unix seconds)."""
        return datetime.combine(day, time(), self._zone).timestamp()

    def ids_of_day(self, day: date) -> range:
        """The ids given out on a local day; a few at its ends may begin on its neighbours, see `Account.disorder`."""
        number = (day - self._account.first_day).days
        if number < 0:
            return range(self._account.first_id, self._account.first_id)
        self._grow_to(number)
        first = self._account.first_id
        return range(first + (self._ends[number - 1] if number else 0), first + self._ends[number])

    def start_of(self, call_id: int) -> int:
        """When a call begins, missing or not (Unix seconds).

        Raises:
            ValueError: The id is below the first, or more than a century of calls above it.
        """
        account = self._account
        place = call_id - account.first_id
        if place < 0:
            raise ValueError("the id is below the account's first")
        start = self._moment(place)
        if account.disorder and chance(account.seed, Topic.DISORDER, call_id) < _DISORDERED_SHARE:
            places = 1 + int(account.disorder * chance(account.seed, Topic.DISORDER_PLACES, call_id))
            return min(self._moment(place + places), start + MAX_DISORDER_SECONDS)
        return start

    def last_id_by(self, seconds: float) -> int:
        """The highest id that may have begun by a moment; `first_id - 1` before the first."""
        first = self._account.first_id
        today = self.ids_of_day(self.day_of(seconds))
        begun = bisect_right(today, seconds, key=lambda call_id: self._moment(call_id - first))
        return today.start + begun - 1

    def _moment(self, place: int) -> int:
        day = bisect_right(self._ends, place)
        while day == len(self._ends):
            self._grow_to(day)
            day = bisect_right(self._ends, place)
        first = self._ends[day - 1] if day else 0
        jitter = chance(self._account.seed, Topic.PLACE, place)
        position = min((place - first + jitter) / (self._ends[day] - first), 1 - 1e-12)
        midnight, shares, seconds = self._curve(day)
        hour = bisect_right(shares, position) - 1
        within = (position - shares[hour]) / (shares[hour + 1] - shares[hour])
        return int(midnight + seconds[hour] + within * (seconds[hour + 1] - seconds[hour]))

    def _grow_to(self, number: int) -> None:
        if number >= _MAX_DAYS:
            raise ValueError("the id or day is more than a century after the account's first")
        if number < len(self._ends):
            return
        with self._growing:
            for day in range(len(self._ends), number + 1):
                self._ends.append((self._ends[-1] if self._ends else 0) + self._size(day))

    def _size(self, number: int) -> int:
        account = self._account
        weekday = (account.first_day + timedelta(number)).weekday()
        jitter = 1 + _DAY_SIZE_JITTER * (2 * chance(account.seed, Topic.DAY_SIZE, number) - 1)
        return round(account.calls_per_day * _WEEKDAYS[weekday] * jitter)

    def _curve(self, number: int) -> tuple[float, Sequence[float], Sequence[float]]:
        """A day's midnight, and the share of its calls before each hour, beside that hour's seconds since midnight."""
        curve = self._curves.get(number)
        if curve is None:
            day = self._account.first_day + timedelta(number)
            midnight = self.midnight(day)
            length = self.midnight(day + timedelta(1)) - midnight
            seconds = [*range(0, int(length), 3600), length]  # 23 to 25 hours, on some islands 23.5 or 24.5
            weights = [
                _HOURS[datetime.fromtimestamp(midnight + begin, self._zone).hour] * (end - begin)
                for begin, end in pairwise(seconds)
            ]
            total = sum(weights)
            shares = [0.0, *(weight / total for weight in accumulate(weights))]
            shares[-1] = 1.0
            curve = self._curves[number] = (midnight, shares, seconds)
        return curve


def to_datetime(seconds: float) -> datetime:
    """Unix seconds as an instant (UTC)."""
    return datetime.fromtimestamp(seconds, UTC)
