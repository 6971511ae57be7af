"""Sending the webhook's deliveries, as a task beside the server.

What belongs here: where to, how often, what happens to a post that fails. What stays out: what is posted about a call,
and when (`webhook`). The address and the headers may hold a secret: neither is printed or put into an error.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import httpx
import msgspec

from calls_assets.simulator.stats import Stats
from calls_assets.simulator.vendor import Vendor
from calls_assets.simulator.webhook import LATE_SHARE, REPEAT_SHARE, deliveries_between

_LOOK_SECONDS = 0.5
_LONGEST_SPAN = timedelta(minutes=10)  # a clock that leaps is followed in steps, between which requests are answered
_TIMEOUT_SECONDS = 10.0
_CONCURRENT_POSTS = 4
_HIGHEST_PORT = 65_535
_MOST_PENDING = 1_000  # when so many wait for an answer or another try, later ones wait where they are: in the clock
_HEADERS = {"Content-Type": "application/json", "User-Agent": "calls-assets-simulator", "X-Simulator": "calls-assets"}
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Where deliveries go.

    Attributes:
        url: The receiver.
        headers: Names and values sent with each.
        repeat_share: Share of calls posted a second time.
        late_share: Share of calls posted late, by up to 10 minutes.
        retry_seconds: Real seconds before each further try of a post that failed; after the last it is given up.
    """

    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    repeat_share: float = REPEAT_SHARE
    late_share: float = LATE_SHARE
    retry_seconds: tuple[float, ...] = (2.0, 5.0, 10.0)

    def __post_init__(self) -> None:
        """Refuses what cannot be posted to.

        Raises:
            ValueError: One line naming the setting, without its value.
        """
        try:
            url = httpx.URL(self.url)
            is_reachable = url.scheme in {"http", "https"} and url.host != "" and (url.port or 0) <= _HIGHEST_PORT
            url.host.encode("idna")  # as the resolver will
        except (httpx.InvalidURL, UnicodeError):
            is_reachable = False
        if not is_reachable:
            raise ValueError("webhook is not an http:// or https:// address")
        for name, value in self.headers:
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise ValueError("webhook-header is not of the form 'Name: value', in ASCII")
        for setting in ("repeat_share", "late_share"):
            if not 0 <= getattr(self, setting) <= 1:
                raise ValueError(f"webhook-{setting.replace('_', '-')} must be between 0 and 1")

    @property
    def masked_url(self) -> str:
        """The address without what may be secret: user, password, path and query."""
        url = httpx.URL(self.url)
        return f"{url.scheme}://{url.netloc.decode('ascii')}/" + ("…" if url.raw_path != b"/" else "")


@asynccontextmanager
async def post_deliveries(
    webhook: Webhook, vendor: Vendor, *, clock: Callable[[], datetime], stats: Stats
) -> AsyncIterator[None]:
    """Posts what comes due on the clock while the context lasts; what is under way at its end is dropped.

    Of a clock that leaps forward, everything in between is posted; of one that is set back, what comes again.

    Args:
        webhook: Where to.
        vendor: Whose calls.
        clock: The vendor's now.
        stats: Where deliveries are counted.
    """
    task = asyncio.create_task(_post_all(webhook, vendor, clock, stats, since=clock()))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _post_all(
    webhook: Webhook, vendor: Vendor, clock: Callable[[], datetime], stats: Stats, *, since: datetime
) -> None:
    pending, slots = asyncio.Semaphore(_MOST_PENDING), asyncio.Semaphore(_CONCURRENT_POSTS)
    headers = httpx.Headers(_HEADERS)
    headers.update(webhook.headers)
    client = httpx.AsyncClient(headers=headers, timeout=_TIMEOUT_SECONDS, trust_env=False)

    async def post(call_id: int, body: bytes) -> None:
        try:
            for pause in (*webhook.retry_seconds, None):
                async with slots:
                    is_accepted = await _post(client, webhook.url, body)
                if is_accepted:
                    stats.count_delivery(call_id)
                    return
                if pause is not None:
                    await asyncio.sleep(pause)
            stats.count_failed_delivery()
        finally:
            pending.release()

    async with client, asyncio.TaskGroup() as posts:
        while True:
            now = clock()
            until = min(now, since + _LONGEST_SPAN)
            if since < until:
                for _, call_id, body in deliveries_between(
                    vendor, since, until, repeat_share=webhook.repeat_share, late_share=webhook.late_share
                ):
                    await pending.acquire()
                    posts.create_task(post(call_id, msgspec.json.encode(body)))
            since = until
            await asyncio.sleep(_LOOK_SECONDS if until == now else 0)


async def _post(client: httpx.AsyncClient, url: str, body: bytes) -> bool:
    """Tells whether the receiver accepted."""
    try:
        response = await client.post(url, content=body)
    except httpx.HTTPError:
        return False
    return response.is_success
