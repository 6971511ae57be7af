"""The model of the vendor: what it answers for an id at a moment. Pure; HTTP is `app`'s business."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import accumulate
from random import Random

from calls_assets.simulator.account import Account
from calls_assets.simulator.arrivals import MAX_DISORDER_SECONDS, Arrivals, to_datetime
from calls_assets.simulator.chance import Topic, chance, mix
from calls_assets.simulator.people import invent_agents, invent_contact
from calls_assets.simulator.quirks import apply_quirks
from calls_assets.simulator.story import KINDS, LONGEST_SECONDS, Kind, Payload, Story, describe, tell_story

_KIND_BOUNDS = tuple(accumulate(kind.share for kind in KINDS))
_REPEAT_SHARE = 0.04  # of inbound calls: the same contact again, linked to an earlier call
_CALLBACK_SHARE = 0.15  # of outbound calls: calling back, if somebody asked for it lately
_CALLBACK_SEARCH = 200
_CONTACTS_PER_DAILY_CALL = 8
_MOVE_SECONDS = 30 * 3_600
_MOVE_DELAY_SECONDS = 2 * 86_400
_RENAMED_AGENT = 3
_RENAMED_AFTER_DAYS = 14


class Vendor:
    """An invented account that answers like the vendor.

    Every method is a function of the account and its arguments; nothing is remembered but tables.

    Args:
        account: What to invent.
    """

    def __init__(self, account: Account) -> None:
        self.account = account
        self._arrivals = Arrivals(account)
        self._agents = invent_agents(account.calls_per_day)
        self._later_agents = tuple(
            replace(agent, alias="Newname Pretendson") if agent.id == _RENAMED_AGENT else agent
            for agent in self._agents
        )
        self._renamed_at = self._arrivals.midnight(account.first_day + timedelta(_RENAMED_AFTER_DAYS))
        self._contact = lru_cache(maxsize=65_536)(invent_contact)
        self._end = lru_cache(maxsize=65_536)(self._tell_end)

    def answer(self, call_id: int, now: datetime) -> Payload | None:
        """The call as the vendor shows it, without its envelope.

        Args:
            call_id: Any id.
            now: The moment, with a zone.

        Returns:
            A fresh dict of the documented shape, or None where the vendor says 404: no such id, not begun, not yet to
            be seen.

        Raises:
            ValueError: `now` has no zone.
        """
        seconds = _to_seconds(now)
        today = self._arrivals.ids_of_day(self._arrivals.day_of(seconds))
        if call_id >= today.stop or self.is_missing(call_id):
            return None
        begun = self._arrivals.start_of(call_id)
        if seconds < begun + self._late_seconds(call_id):
            return None
        account = self.account
        payload = describe(self._tell(call_id, begun), seconds)
        payload["started_at"] = self._start_seen(call_id, begun, seconds)
        if chance(account.seed, Topic.QUIRK, call_id) < account.quirk_share:
            apply_quirks(payload, Random(mix(account.seed, Topic.QUIRK, call_id)))
        return payload

    def tell(self, call_id: int) -> Story | None:
        """The whole course of a call, whatever the moment; its start as first recorded.

        Args:
            call_id: Any id.

        Returns:
            A fresh story, or None for an id that is 404 for ever.

        Raises:
            ValueError: The id is more than a century of calls above the first.
        """
        return None if self.is_missing(call_id) else self._tell(call_id, self._arrivals.start_of(call_id))

    def ended_between(self, since: float, until: float) -> list[tuple[int, int]]:
        """The calls that end within a span.

        Args:
            since: Its begin (Unix seconds).
            until: Its end, itself outside.

        Returns:
            Id and end (Unix seconds) of each, by id.
        """
        earliest = self._arrivals.last_id_by(since - LONGEST_SECONDS - MAX_DISORDER_SECONDS) + 1
        ids = range(earliest, self._arrivals.last_id_by(until) + 1)
        ends = ((call_id, self._end(call_id)) for call_id in ids)
        return [(call_id, end) for call_id, end in ends if end is not None and since <= end < until]

    def is_missing(self, call_id: int) -> bool:
        """Whether the id is 404 for ever."""
        account = self.account
        return call_id < account.first_id or chance(account.seed, Topic.MISSING, call_id) < account.missing_share

    def started_at(self, call_id: int, now: datetime | None = None) -> datetime:
        """When a call began, whether or not its id is missing.

        Args:
            call_id: An id of the account.
            now: The start as it is known then, corrections included; None for the start as first recorded.

        Raises:
            ValueError: The account never gives out this id, or `now` has no zone.
        """
        begun = self._arrivals.start_of(call_id)
        return to_datetime(begun if now is None else self._start_seen(call_id, begun, _to_seconds(now)))

    def ids_of_day(self, day: date) -> range:
        """The ids given out on a local day, missing ones included.

        Up to `Account.disorder` of them, close to midnight, may begin on the next day.
        """
        return self._arrivals.ids_of_day(day)

    def highest_id(self, now: datetime) -> int | None:
        """The highest id that can be read at a moment, None if there is none."""
        for call_id in range(self._arrivals.last_id_by(_to_seconds(now)), self.account.first_id - 1, -1):
            if self.answer(call_id, now) is not None:
                return call_id
        return None

    def _tell(self, call_id: int, begun: int) -> Story:
        original = self._original(call_id)
        return tell_story(
            call_id,
            begun,
            self._kind(call_id),
            original_call_id=original,
            contact=self._contact(self._contact_number(call_id, original)),
            agents=self._agents if begun < self._renamed_at else self._later_agents,
            dice=Random(mix(self.account.seed, Topic.STORY, call_id)),
        )

    def _tell_end(self, call_id: int) -> int | None:
        story = self.tell(call_id)
        return None if story is None else story.ends

    def _kind(self, call_id: int) -> Kind:
        which = bisect_right(_KIND_BOUNDS, chance(self.account.seed, Topic.KIND, call_id))
        return KINDS[min(which, len(KINDS) - 1)]

    def _late_seconds(self, call_id: int) -> int:
        account = self.account
        if chance(account.seed, Topic.LATE, call_id) >= account.late_share:
            return 0
        return 60 + int(1_140 * chance(account.seed, Topic.LATE_SECONDS, call_id))

    def _start_seen(self, call_id: int, begun: int, seconds: float) -> int:
        """The start as the vendor states it at a moment: the first, or the corrected one."""
        account = self.account
        if chance(account.seed, Topic.MOVE, call_id) >= account.moves_share:
            return begun
        shift = int(_MOVE_SECONDS * (2 * chance(account.seed, Topic.MOVE_SECONDS, call_id) - 1))
        delay = 600 + int(_MOVE_DELAY_SECONDS * chance(account.seed, Topic.MOVE_DELAY, call_id))
        return begun + shift if seconds >= begun + max(shift, 0) + delay else begun

    def _original(self, call_id: int) -> int | None:
        """The call this one continues: one to call back, or an earlier one of the same contact."""
        account = self.account
        link = chance(account.seed, Topic.LINK, call_id)
        nearest = call_id - account.disorder - 1  # so that the original began earlier
        if self._kind(call_id).is_inbound:
            if link >= _REPEAT_SHARE:
                return None
            reach = 3 * account.calls_per_day * chance(account.seed, Topic.LINK_DISTANCE, call_id) ** 3
            original = nearest - int(reach)
            return original if original > 0 else None
        if link >= _CALLBACK_SHARE:
            return None
        for original in range(nearest, max(nearest - _CALLBACK_SEARCH, account.first_id - 1), -1):
            if self._kind(original).requested_callback and not self.is_missing(original):
                return original
        return None

    def _contact_number(self, call_id: int, original: int | None) -> int:
        account = self.account
        while original is not None and original >= account.first_id:  # a linked call is with the same contact
            call_id, original = original, self._original(original)
        known = max(100, account.calls_per_day * _CONTACTS_PER_DAILY_CALL)
        return int(known * chance(account.seed, Topic.CONTACT, call_id) ** 1.5)


def _to_seconds(now: datetime) -> float:
    if now.tzinfo is None:
        raise ValueError("now needs a time zone")
    return now.timestamp()
