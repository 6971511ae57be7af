"""The account to invent: plain settings, nothing computed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Everything that decides what an invented account contains.

    Attributes:
        seed: Accounts with another seed have other calls.
        timezone: IANA name; days and the daily curve follow this wall clock.
        first_id: The id of the account's first call.
        first_day: The local day of the account's first call.
        calls_per_day: Mean number of ids a day over a week; workdays have more, weekends fewer.
        missing_share: Share of ids that never exist.
        late_share: Share of ids that can be read only some minutes after the call began.
        disorder: Two calls whose ids are further apart than this are in the order of their ids. Nor does a call begin
            more than 15 minutes after its neighbours, however quiet the night.
        moves_share: Share of calls whose start is corrected within days, up to 30 hours either way.
        quirk_share: Share of calls with one of the vendor's oddities (empty text for null, stray blanks, …).
    """

    seed: int = 1
    timezone: str = "America/New_York"
    first_id: int = 65_123
    first_day: date = date(2025, 5, 1)
    calls_per_day: int = 2_000
    missing_share: float = 0.02
    late_share: float = 0.01
    disorder: int = 20
    moves_share: float = 0.0
    quirk_share: float = 0.03

    def __post_init__(self) -> None:
        """Refuses settings that describe no account.

        Raises:
            ValueError: One line naming the setting.
        """
        if self.first_id < 1:
            raise ValueError("first_id must be at least 1")
        for name in ("calls_per_day", "disorder"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        for name in ("missing_share", "late_share", "moves_share", "quirk_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1")
        try:
            ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError):  # what zoneinfo raises depends on how the name is wrong
            raise ValueError("timezone is not the name of a time zone, such as America/New_York") from None
