"""The spool: one file per delivery or request, in the lake's storage, until what it asks for has landed.

    inbox/new/<received, microseconds>_<random>_<call id>_<start, seconds or ->_<attempts>.json    a delivery's body
    inbox/ids/<received, microseconds>_<random>_<lowest>_<highest>_<attempts>.json    ids named by a user, as ranges
    inbox/rejected/<received, microseconds>_<random>.body    deliveries that name no call

Names tell all that planning needs, so a listing suffices. A file is removed only when its event and its call have
landed. One whose call the API does not know yet waits: a minute, then four times as long after each attempt.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TypeAlias
from zoneinfo import ZoneInfo

from calls_assets.api import HIGHEST_ID, decode_event
from calls_assets.lake import Storage, StoredFile

_INBOX = "inbox/"
_NEW, _IDS, _REJECTED = "inbox/new/", "inbox/ids/", "inbox/rejected/"
_DELIVERY = re.compile(r"inbox/new/(\d{16})_([0-9a-f]{16})_(\d{1,19})_(\d{1,12}|-)_(\d{1,2})\.json")
_REQUEST = re.compile(r"inbox/ids/(\d{16})_([0-9a-f]{16})_(\d{1,19})_(\d{1,19})_(\d{1,2})\.json")
_RANGE = re.compile(r"([1-9][0-9]{0,18})(?:-([1-9][0-9]{0,18}))?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PATIENT_ATTEMPTS = 7
"""Attempts over three days; then a call that the API still does not have is given up, its event kept."""

HIGHEST_REQUEST = 1_000_000
"""Ids in one request: at ten a second, more than a day's work."""

KEPT_REJECTED = 1_000


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery of the webhook.

    Attributes:
        key: Its file.
        call_id: The call.
        since: When it was received (UTC): the call is to be read at this instant or later.
        started_at: The call's start, if it says (UTC).
        attempts: Sweeps in vain so far.
    """

    key: str
    call_id: int
    since: datetime
    started_at: datetime | None
    attempts: int

    def day(self, timezone: ZoneInfo) -> date | None:
        """Gives the local day of the call's start; None when it is not told."""
        return self.started_at.astimezone(timezone).date() if self.started_at else None


@dataclass(frozen=True, slots=True)
class IdRequest:
    """Ids that a user named.

    Attributes:
        key: Their file.
        ranges: The ids, as inclusive ranges.
        since: When they were named (UTC): they are to be read at this instant or later.
        attempts: Sweeps in vain so far.
    """

    key: str
    ranges: tuple[tuple[int, int], ...]
    since: datetime
    attempts: int

    def ids(self) -> Iterable[int]:
        """Yields the ids."""
        for first, last in self.ranges:
            yield from range(first, last + 1)


Waiting: TypeAlias = Delivery | IdRequest
"""Something in the inbox."""


class Inbox:
    """The spool of a lake.

    Args:
        storage: The lake's storage.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._rejected: int | None = None

    def put(self, body: bytes, now: datetime) -> Delivery:
        """Stores a delivery; it is durable when this returns.

        Raises:
            ContractError: It names no call.
            OSError: It cannot be stored.
        """
        event = decode_event(body)
        start = "-" if event.started_at is None else str(int(event.started_at.timestamp()))
        key = f"{_NEW}{_stamp(now)}_{event.call_id}_{start}_0.json"
        self._storage.put_new(key, body)
        return Delivery(key, event.call_id, now, event.started_at, 0)

    def reject(self, body: bytes, now: datetime) -> None:
        """Keeps a delivery that names no call aside, for a look; the first thousand of them.

        Raises:
            OSError: It cannot be stored.
        """
        if self.count_rejected() < KEPT_REJECTED:
            self._storage.put_new(f"{_REJECTED}{_stamp(now)}.body", body)
        self._rejected = self.count_rejected() + 1

    def count_rejected(self) -> int:
        """Counts the deliveries put aside, those of this process that were not kept too."""
        if self._rejected is None:
            self._rejected = len(self._storage.list(_REJECTED))
        return self._rejected

    def enqueue(self, ranges: Iterable[tuple[int, int]], now: datetime) -> int:
        """Stores ids to be read, but for those that wait already; gives how many are new.

        Raises:
            OSError: They cannot be stored.
        """
        waiting = [range_ for request in self.requests() for range_ in request.ranges]
        new = subtract_ranges(join_ranges(ranges), join_ranges(waiting))
        if new:
            key = f"{_IDS}{_stamp(now)}_{new[0][0]}_{new[-1][1]}_0.json"
            self._storage.put_new(key, json.dumps(new).encode())
        return sum(last - first + 1 for first, last in new)

    def waiting(self) -> list[Waiting]:
        """Lists deliveries and requests, in one listing: a sensor asks for them every few seconds."""
        files = self._storage.list(_INBOX)
        return [*_to_deliveries(files), *self._to_requests(files)]

    def deliveries(self) -> list[Delivery]:
        """Lists the deliveries, in the order of their reception."""
        return _to_deliveries(self._storage.list(_NEW))

    def requests(self) -> list[IdRequest]:
        """Lists the requests of users, in their order."""
        return self._to_requests(self._storage.list(_IDS))

    def _to_requests(self, files: Iterable[StoredFile]) -> list[IdRequest]:
        found = []
        for match in _match(files, _REQUEST):
            try:
                ranges = tuple((int(first), int(last)) for first, last in json.loads(self._storage.read(match[0])))
            except (FileNotFoundError, ValueError, TypeError):
                continue  # settled meanwhile, or not written by us
            found.append(IdRequest(match[0], ranges, _instant(match[1]), int(match[5])))
        return found

    def files(self) -> list[StoredFile]:
        """Lists what waits, without looking into it."""
        return [*self._storage.list(_NEW), *self._storage.list(_IDS)]

    def read(self, delivery: Delivery) -> bytes:
        """Gives a delivery's body.

        Raises:
            FileNotFoundError: It was settled meanwhile.
        """
        return self._storage.read(delivery.key)

    def settle(self, item: Waiting) -> None:
        """Removes something whose event and calls have landed."""
        self._storage.delete(item.key)

    def postpone(self, item: Waiting) -> None:
        """Counts an attempt in vain: the file gets another name."""
        stem, _, _ = item.key.rpartition("_")
        # When somebody else did it: what is there twice counts once.
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            self._storage.put_new(f"{stem}_{min(item.attempts + 1, 99)}.json", self._storage.read(item.key))
        self._storage.delete(item.key)


def _match(files: Iterable[StoredFile], pattern: re.Pattern[str]) -> list[re.Match[str]]:
    return [match for file in files if (match := pattern.fullmatch(file.key))]


def _to_deliveries(files: Iterable[StoredFile]) -> list[Delivery]:
    found = []
    for match in _match(files, _DELIVERY):
        received, _, call_id, start, attempts = match.groups()
        started_at = None if start == "-" else datetime.fromtimestamp(int(start), UTC)
        found.append(Delivery(match[0], int(call_id), _instant(received), started_at, int(attempts)))
    return found


def is_due(item: Waiting, now: datetime) -> bool:
    """Tells whether something waiting is to be tried now."""
    if item.attempts == 0:
        return True
    minutes: int = 4 ** (min(item.attempts, PATIENT_ATTEMPTS) - 1)
    return now - item.since >= timedelta(minutes=minutes)


def parse_ids(lines: Iterable[str]) -> tuple[list[tuple[int, int]], list[tuple[int, str]]]:
    """Reads ids and ranges such as `123` or `2000-2100`, several in a line, separated by blanks, commas or semicolons.

    A first line of words is taken for a CSV header, and `#` begins a comment.

    Returns:
        The ranges, and the bad entries, each with its line number and what is wrong.
    """
    ranges: list[tuple[int, int]] = []
    bad: list[tuple[int, str]] = []
    for number, line in enumerate(lines, 1):
        for text in re.split(r"[\s,;]+", line.partition("#")[0].strip().replace('"', "")):
            match = _RANGE.fullmatch(text)
            if match is None:
                if text and not (number == 1 and re.fullmatch(r"[A-Za-z_]\w*", text)):
                    bad.append((number, "is neither an id nor a range such as 2000-2100"))
                continue
            first, last = int(match[1]), int(match[2] or match[1])
            if first > last:
                bad.append((number, f"is the wrong way round: write {last}-{first}"))
            elif last > HIGHEST_ID:
                bad.append((number, f"is beyond the highest id there can be, {HIGHEST_ID}"))
            else:
                ranges.append((first, last))
    return ranges, bad


def join_ranges(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Orders inclusive ranges and joins those that meet."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined


def subtract_ranges(ranges: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Gives what of some joined ranges is in none of the others."""
    left = []
    for first, last in ranges:
        begin = first
        for low, high in others:
            if high < begin or low > last:
                continue
            if low > begin:
                left.append((begin, low - 1))
            begin = high + 1
        if begin <= last:
            left.append((begin, last))
    return left


def _stamp(now: datetime) -> str:
    return f"{(now - _EPOCH) // timedelta(microseconds=1):016d}_{secrets.token_hex(8)}"


def _instant(microseconds: str) -> datetime:
    return _EPOCH + timedelta(microseconds=int(microseconds))
