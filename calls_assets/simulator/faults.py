"""How the network and the vendor misbehave, on request.

What befalls a request depends on (seed, number of the request), so a retry may succeed; what is odd about a body
depends on (seed, call), so reading a call twice gives the same.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum, auto
from typing import Literal

from calls_assets.simulator.chance import Topic, chance


class Fault(Enum):
    """What can befall one request."""

    ERROR = auto()
    RESET = auto()
    STALL = auto()
    TRUNCATE = auto()
    HTML = auto()
    WRONG_ID = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPlan:
    """Which faults, and how often. The default is none.

    Attributes:
        seed: Plans with another seed hit other requests.
        latency_seconds: Every answer waits this long.
        rate_limit_per_second: More requests get 429, beyond a burst of one second; None for no limit.
        retry_after: The form of Retry-After in a 429: whole seconds or an HTTP date.
        error_share: Share of requests answered 500, 502, 503, 504 in turn.
        reset_share: Share of requests whose connection is reset.
        stall_share: Share of requests left without an answer.
        stall_seconds: For how long; then the answer comes after all. None: for ever.
        truncate_share: Share of answers cut off in the middle of the body.
        html_share: Share of requests answered 200 with a web page.
        wrong_id_share: Share of answers about another call.
        unknown_keys_share: Share of calls with undocumented keys.
        string_ids_share: Share of calls with all ids as text.
        list_envelope_share: Share of calls wrapped in a list of one.
    """

    seed: int = 1
    latency_seconds: float = 0.0
    rate_limit_per_second: float | None = None
    retry_after: Literal["seconds", "date"] = "seconds"
    error_share: float = 0.0
    reset_share: float = 0.0
    stall_share: float = 0.0
    stall_seconds: float | None = None
    truncate_share: float = 0.0
    html_share: float = 0.0
    wrong_id_share: float = 0.0
    unknown_keys_share: float = 0.0
    string_ids_share: float = 0.0
    list_envelope_share: float = 0.0

    def __post_init__(self) -> None:
        """Refuses plans that cannot be carried out.

        Raises:
            ValueError: One line naming the setting.
        """
        for item in fields(self):
            if item.name.endswith("_share") and not 0 <= getattr(self, item.name) <= 1:
                raise ValueError(f"{item.name} must be between 0 and 1")
        if sum(share for _, share in self._shares()) > 1:
            raise ValueError("the shares of requests with a fault add up to more than 1")
        if self.latency_seconds < 0:
            raise ValueError("latency_seconds must not be negative")
        if self.rate_limit_per_second is not None and self.rate_limit_per_second <= 0:
            raise ValueError("rate_limit_per_second must be positive")
        if self.stall_seconds is not None and self.stall_seconds < 0:
            raise ValueError("stall_seconds must not be negative")
        if self.retry_after not in {"seconds", "date"}:
            raise ValueError("retry_after must be seconds or date")

    def fault_of(self, request_number: int) -> Fault | None:
        """What befalls a request, None for nothing."""
        at = chance(self.seed, Topic.FAULT, request_number)
        for fault, share in self._shares():
            if at < share:
                return fault
            at -= share
        return None

    def has_unknown_keys(self, call_id: int) -> bool:
        """Whether the call has undocumented keys."""
        return chance(self.seed, Topic.UNKNOWN_KEYS, call_id) < self.unknown_keys_share

    def has_string_ids(self, call_id: int) -> bool:
        """Whether the call's ids are text."""
        return chance(self.seed, Topic.STRING_IDS, call_id) < self.string_ids_share

    def has_list_envelope(self, call_id: int) -> bool:
        """Whether the call comes in a list of one."""
        return chance(self.seed, Topic.LIST_ENVELOPE, call_id) < self.list_envelope_share

    def _shares(self) -> tuple[tuple[Fault, float], ...]:
        return (
            (Fault.ERROR, self.error_share),
            (Fault.RESET, self.reset_share),
            (Fault.STALL, self.stall_share),
            (Fault.TRUNCATE, self.truncate_share),
            (Fault.HTML, self.html_share),
            (Fault.WRONG_ID, self.wrong_id_share),
        )


NO_FAULTS = FaultPlan()
