"""The model over HTTP: `GET {base_path}/calls/{callId}`, and for whoever watches `/`, `/stats` and `/reset-stats`.

Calls take a short cut before the router. Faults that need the connection itself (`reset`, `truncate`) find its
transport in the scope's state, where `server` puts it; they wait until the server has seen the connection go, so that
it logs nothing.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from math import ceil

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from calls_assets.simulator.clock import utc_now
from calls_assets.simulator.faults import NO_FAULTS, Fault, FaultPlan
from calls_assets.simulator.posting import Webhook, post_deliveries
from calls_assets.simulator.quirks import add_unknown_keys, write_ids_as_text
from calls_assets.simulator.stats import Stats
from calls_assets.simulator.vendor import Vendor

TRANSPORT = "simulator.transport"  # the key in scope["state"]
_CALL_ID = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
_ERRORS = (500, 502, 503, 504)
_JSON = (b"content-type", b"application/json")
_HTML = (b"content-type", b"text/html; charset=utf-8")
_SIGNATURE = (b"x-simulator", b"calls-assets")
_DENIED = b'{"error":"Access denied"}'
_NOT_FOUND = b'{"error":"Not found"}'
_NOT_ALLOWED = b'{"error":"Method not allowed"}'
_TOO_MANY = b'{"error":"Too many requests"}'
_FAILED = b'{"error":"Something went wrong"}'
_MAINTENANCE = b"<!doctype html><title>calls-assets simulator</title><h1>Simulated maintenance page</h1>"
_HOME = """<!doctype html>
<html lang="en"><title>calls-assets simulator</title>
<h1>calls-assets simulator</h1>
<p>A stand-in for a call-record API. Every call, person and number here is invented.</p>
<p>Calls: <code>{base_path}/calls/&#123;callId&#125;</code> with an <code>Access-Token</code> header.
Counters: <a href="/stats">/stats</a>.</p>
</html>
"""


def create_app(
    vendor: Vendor,
    *,
    token: str,
    base_path: str = "",
    faults: FaultPlan = NO_FAULTS,
    clock: Callable[[], datetime] = utc_now,
    webhook: Webhook | None = None,
) -> Starlette:
    """Puts a vendor behind HTTP.

    Args:
        vendor: Who answers.
        token: What the `Access-Token` header must say.
        base_path: What precedes `/calls`, such as `/api/v2`.
        faults: What goes wrong.
        clock: The vendor's now.
        webhook: Where deliveries go while the application's lifespan lasts; None for nowhere.

    Returns:
        The application; its `state.stats` are the counters of `/stats`.

    Raises:
        ValueError: The base path does not begin with a slash.
    """
    base_path = base_path.rstrip("/")
    if base_path and not base_path.startswith("/"):
        raise ValueError("base_path must begin with /")
    stats = Stats()

    async def show_home(_: Request) -> Response:
        return HTMLResponse(_HOME.format(base_path=base_path))

    async def show_stats(request: Request) -> Response:
        report = stats.report(with_ids="ids" in request.query_params)
        return Response(msgspec.json.encode(report), media_type="application/json")

    async def reset_stats(_: Request) -> Response:
        stats.reset()
        return Response(status_code=204)

    @asynccontextmanager
    async def live(_: Starlette) -> AsyncIterator[None]:
        if webhook is None:
            yield
            return
        async with post_deliveries(webhook, vendor, clock=clock, stats=stats):
            yield

    app = Starlette(
        lifespan=live,
        routes=[
            Route("/", show_home),
            Route("/stats", show_stats),
            Route("/reset-stats", reset_stats, methods=["POST"]),
        ],
        middleware=[
            Middleware(
                _CallsEndpoint,
                vendor=vendor,
                token=token.encode(),
                prefix=base_path + "/calls/",
                faults=faults,
                clock=clock,
                stats=stats,
            )
        ],
    )
    app.state.stats = stats
    return app


class _CallsEndpoint:
    """Answers the calls, and signs whatever the rest of the application answers."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        vendor: Vendor,
        token: bytes,
        prefix: str,
        faults: FaultPlan,
        clock: Callable[[], datetime],
        stats: Stats,
    ) -> None:
        self._app = app
        self._vendor = vendor
        self._token = token
        self._prefix = prefix
        self._faults = faults
        self._clock = clock
        self._stats = stats
        self._limit = _RateLimit(faults.rate_limit_per_second)
        self._number = 0
        self._errors = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(self._prefix):
            stats = self._stats
            stats.enter()
            try:
                await self._answer(scope, receive, send)
            finally:
                stats.leave()
            return

        async def send_signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-simulator"] = "calls-assets"
            await send(message)

        await self._app(scope, receive, send_signed if scope["type"] == "http" else send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        faults, stats = self._faults, self._stats
        self._number += 1
        number = self._number
        id_text = scope["path"][len(self._prefix) :]
        call_id = int(id_text) if _CALL_ID.fullmatch(id_text) else None
        stats.count_request(call_id)
        if faults.latency_seconds:
            await asyncio.sleep(faults.latency_seconds)
        if scope["method"] != "GET":
            await self._send(send, 405, _NOT_ALLOWED, (b"allow", b"GET"))
            return
        if not any(
            name == b"access-token" and hmac.compare_digest(value, self._token) for name, value in scope["headers"]
        ):
            await self._send(send, 401, _DENIED)
            return
        wait = self._limit.wait_seconds()
        if wait > 0:
            await self._send(send, 429, _TOO_MANY, (b"retry-after", self._retry_after(wait)))
            return
        fault = faults.fault_of(number)
        if fault is not None:
            stats.count_fault(fault.name.lower())
        if fault is Fault.ERROR:
            self._errors += 1
            await self._send(send, _ERRORS[self._errors % len(_ERRORS) - 1], _FAILED)
        elif fault is Fault.HTML:
            await self._send(send, 200, _MAINTENANCE, content_type=_HTML)
        elif fault is Fault.RESET:
            await _reset(scope, receive)
        elif fault is Fault.STALL and not await _stall(receive, faults.stall_seconds):
            return  # the client has gone
        else:
            status, body = self._render(call_id, has_wrong_id=fault is Fault.WRONG_ID)
            if fault is Fault.TRUNCATE:
                stats.count_status(status)
                await _truncate(scope, receive, send, status, body)
            else:
                await self._send(send, status, body)

    def _render(self, call_id: int | None, *, has_wrong_id: bool) -> tuple[int, bytes]:
        payload = None if call_id is None else self._vendor.answer(call_id, self._clock())
        if call_id is None or payload is None:
            return 404, _NOT_FOUND
        faults = self._faults
        if has_wrong_id:
            payload["id"] = call_id + 1
        if faults.has_unknown_keys(call_id):
            add_unknown_keys(payload)
        if faults.has_string_ids(call_id):
            payload = write_ids_as_text(payload)
        calls = [payload] if faults.has_list_envelope(call_id) else payload
        return 200, msgspec.json.encode({"calls": calls})

    def _retry_after(self, wait: float) -> bytes:
        if self._faults.retry_after == "seconds":
            return b"%d" % ceil(wait)
        until = datetime.now(UTC) + timedelta(seconds=wait + 1)  # a date has no fractions: never too early
        return format_datetime(until, usegmt=True).encode()

    async def _send(
        self,
        send: Send,
        status: int,
        body: bytes,
        *headers: tuple[bytes, bytes],
        content_type: tuple[bytes, bytes] = _JSON,
    ) -> None:
        self._stats.count_status(status)
        await send(_start(status, len(body), content_type, *headers))
        await send({"type": "http.response.body", "body": body})


class _RateLimit:
    """A token bucket that holds one second's worth."""

    def __init__(self, per_second: float | None) -> None:
        self._rate = per_second
        self._tokens = max(1.0, per_second or 0.0)
        self._filled_at = time.monotonic()

    def wait_seconds(self) -> float:
        """Takes a token: 0. None there: how long until there is one."""
        if self._rate is None:
            return 0.0
        now = time.monotonic()
        self._tokens = min(max(1.0, self._rate), self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._rate
        self._tokens -= 1
        return 0.0


def _start(status: int, length: int, *headers: tuple[bytes, bytes]) -> Message:
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [_SIGNATURE, (b"content-length", b"%d" % length), *headers],
    }


def _transport(scope: Scope) -> asyncio.Transport:
    transport: asyncio.Transport | None = scope.get("state", {}).get(TRANSPORT)
    if transport is None:
        raise ConnectionResetError("simulated")  # not run by `server`: what an in-process client makes of a reset
    return transport


async def _reset(scope: Scope, receive: Receive) -> None:
    """Resets the connection: the client sees ECONNRESET, not an orderly end."""
    transport = _transport(scope)
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close sends RST
    transport.abort()
    await _until_gone(receive)


async def _truncate(scope: Scope, receive: Receive, send: Send, status: int, body: bytes) -> None:
    """Announces a whole body and sends half."""
    transport = _transport(scope)
    await send(_start(status, len(body), _JSON))
    await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
    transport.close()
    await _until_gone(receive)


async def _stall(receive: Receive, seconds: float | None) -> bool:
    """Keeps the client waiting; tells whether it is still there."""
    try:
        async with asyncio.timeout(seconds):
            await _until_gone(receive)
    except TimeoutError:
        return True
    return False


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
