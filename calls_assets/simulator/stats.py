"""What the simulator served: counters only, no content."""

from __future__ import annotations

from collections import Counter
from typing import Any


class Stats:
    """Counters of the requests for calls, and of the deliveries about them. Written by the server's one thread."""

    def __init__(self) -> None:
        self._in_flight = 0
        self.reset()

    def reset(self) -> None:
        """Starts counting anew."""
        self._requests = 0
        self._by_status: Counter[int] = Counter()
        self._by_fault: Counter[str] = Counter()
        self._by_id: dict[int, int] = {}
        self._peak = self._in_flight
        self._delivered: set[int] = set()
        self._deliveries = {"posted": 0, "repeated": 0, "failed": 0}

    def enter(self) -> None:
        """A request begins."""
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)

    def leave(self) -> None:
        """A request is over, however it ended."""
        self._in_flight -= 1

    def count_request(self, call_id: int | None) -> None:
        """Counts a request, whatever will be answered; None for what is no id."""
        self._requests += 1
        if call_id is not None:
            self._by_id[call_id] = self._by_id.get(call_id, 0) + 1

    def count_status(self, status: int) -> None:
        """Counts an answer."""
        self._by_status[status] += 1

    def count_fault(self, name: str) -> None:
        """Counts a fault that befell a request."""
        self._by_fault[name] += 1

    def count_delivery(self, call_id: int) -> None:
        """Counts a delivery that was accepted."""
        self._deliveries["posted"] += 1
        self._deliveries["repeated"] += call_id in self._delivered
        self._delivered.add(call_id)

    def count_failed_delivery(self) -> None:
        """Counts a delivery that was given up."""
        self._deliveries["failed"] += 1

    def report(self, *, with_ids: bool = False) -> dict[str, Any]:
        """The counters as JSON values.

        Args:
            with_ids: Also how often each id was asked for.
        """
        by_id = self._by_id
        report: dict[str, Any] = {
            "requests": self._requests,
            "by_status": {str(status): count for status, count in sorted(self._by_status.items())},
            "by_fault": dict(sorted(self._by_fault.items())),
            "distinct_ids": len(by_id),
            "repeated_ids": sum(count > 1 for count in by_id.values()),
            "first_id": min(by_id, default=None),
            "last_id": max(by_id, default=None),
            "peak_concurrency": self._peak,
            "deliveries": dict(self._deliveries),
        }
        if with_ids:
            report["per_id"] = {str(call_id): count for call_id, count in sorted(by_id.items())}
        return report
