"""A receiver of alerts on loopback, which keeps what it hears and answers as a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calls_assets.simulator import serve

SECRET = "hook-canary-5d41402a"
"""Stands in the address: it must be nowhere else."""


@dataclass
class Receiver:
    """What was heard, and what is answered.

    Attributes:
        url: The address, with its secret.
        statuses: Statuses of the next answers; 200 when there are no more.
        delay_seconds: How long each answer takes.
        heard: Bodies, in order.
    """

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    delay_seconds: float = 0.0
    heard: list[dict[str, Any]] = field(default_factory=list)

    async def _answer(self, request: Request) -> Response:
        assert request.headers["content-type"] == "application/json"
        self.heard.append(await request.json())
        await asyncio.sleep(self.delay_seconds)
        status = self.statuses.pop(0) if self.statuses else 200
        return Response("taken", status, headers={"Location": self.url} if 300 <= status < 400 else None)


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Runs a receiver on a free port."""
    receiver = Receiver()
    with serve(Starlette(routes=[Route("/hook/{secret}", receiver._answer, methods=["POST"])])) as server:
        receiver.url = f"{server.url}/hook/{SECRET}?key={SECRET}"
        yield receiver
