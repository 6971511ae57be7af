"""What a vendor sees of everybody who asks: requests at once, and in a second."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send


class Meter:
    """Measures the requests for calls on their way to a simulator.

    Attributes:
        peak: The highest number of requests that were being answered at once.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._in_flight = 0
        self._times: list[float] = []
        self.peak = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if not str(scope.get("path", "")).startswith("/calls/"):
            await self._app(scope, receive, send)
            return
        self._times.append(time.monotonic())
        self._in_flight += 1
        self.peak = max(self.peak, self._in_flight)
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_flight -= 1

    def count(self) -> int:
        """Gives how many requests there were."""
        return len(self._times)

    def busiest(self, seconds: float) -> int:
        """Gives the most requests that came within so many seconds."""
        most = first = 0
        for last, at in enumerate(self._times):
            while at - self._times[first] >= seconds:
                first += 1
            most = max(most, last - first + 1)
        return most


def overlaps(runs: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Lists pairs of runs, as GraphQL gives them, of which one began before the other had ended.

    A run that was given up before it began has its end in both places there, and was never beside another.
    """
    begun = (run for run in runs if run["startTime"] and run["startTime"] != run["endTime"])
    spans = sorted((run["startTime"], run["endTime"] or float("inf"), run["runId"]) for run in begun)
    return [(one[2], other[2]) for one, other in pairwise(spans) if other[0] < one[1]]
