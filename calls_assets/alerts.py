"""Alerts: one JSON body to the configured address, in bounded time, or an error that does not name the address.

What belongs here: delivery. What stays out: what an alert says and when there is one, which Dagster's events tell
(`defs.alerts`). The address may hold a secret, as those of chat services do: it is in no message, and httpx's client,
which logs every address, is not used.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

import httpx

from calls_assets.transport import Transport

ATTEMPTS = 3
ATTEMPT_SECONDS = 2.5
PAUSE_SECONDS = 0.5
_PASSING_STATUSES = frozenset({408, 425, 429, *range(500, 600)})


class AlertError(Exception):
    """An alert was not delivered; the message says why, without the address."""


def post_alert(url: str, body: Mapping[str, object]) -> None:
    """Posts a body as JSON; at most three attempts and nine seconds in all, but for a look-up of its host that hangs.

    Args:
        url: The receiver's address.
        body: What to say; may be delivered twice when an answer is lost.

    Raises:
        AlertError: The receiver refused it, or did not take it in any attempt.
    """
    try:
        address = httpx.URL(url)
        address.host  # noqa: B018 - finds names that cannot be
    except (httpx.InvalidURL, UnicodeError):
        raise AlertError("CALLS_ALERT_URL holds a host or port that cannot be") from None
    content, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    problem = asyncio.run(_post(httpx.Request("POST", address, content=content, headers=headers)))
    if problem is not None:
        raise AlertError(f"the receiver at CALLS_ALERT_URL {problem}")


async def _post(request: httpx.Request) -> str | None:
    problem = ""
    async with Transport() as transport:
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(PAUSE_SECONDS * attempt)
            try:
                async with asyncio.timeout(ATTEMPT_SECONDS):
                    response = await transport.handle_async_request(request)
                    await response.aclose()
            except TimeoutError:
                problem = f"did not answer within {ATTEMPT_SECONDS:g} s"
            except httpx.TransportError as error:
                problem = f"could not be reached ({error})"
            else:
                if 200 <= response.status_code < 300:
                    return None
                problem = f"answered with status {response.status_code}"
                if response.status_code not in _PASSING_STATUSES:
                    return problem
    return f"{problem}, {ATTEMPTS} times"
