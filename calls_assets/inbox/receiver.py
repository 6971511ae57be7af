"""The receiver: takes the vendor's webhook deliveries over HTTP and answers 200 once they are durable in the spool.

    POST /webhooks/nectar-desk/{secret}     or the secret in the header X-Webhook-Secret, without one in the path
    GET  /healthz

What belongs here: who may deliver, how much and how slowly. What stays out: what a delivery means (`api.events`).
Nothing is parsed before its sender is known and its length is within bounds.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime

import h11
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from calls_assets.api import ContractError
from calls_assets.inbox.spool import Inbox

HIGHEST_BODY_BYTES = 64 * 1024
SIGNATURE_WINDOW_SECONDS = 300
BODY_SECONDS = 10.0
HEAD_SECONDS = 10.0
IDLE_SECONDS = 30
_HIGHEST_CONNECTIONS = 2_000
_KEPT_SIGNATURES = 100_000
SECRET_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER = "x-webhook-secret", "x-webhook-timestamp", "x-webhook-signature"


class _RefusedError(Exception):
    """A request is not taken.

    Attributes:
        status: The HTTP status.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def create_app(
    inbox: Inbox, *, secrets: tuple[str, ...], signing_key: str | None = None, clock: Callable[[], float] = time.time
) -> Starlette:
    """Makes the web application.

    Args:
        inbox: Where deliveries go.
        secrets: Any of these lets a delivery in.
        signing_key: When given, a delivery must also be signed: the hexadecimal HMAC-SHA256 with this key of
            `timestamp.body` in X-Webhook-Signature, the timestamp (epoch seconds, at most 300 s off) in
            X-Webhook-Timestamp. A signature is taken once.
        clock: Gives the time (epoch seconds).

    Raises:
        ValueError: There is no secret.
    """
    if not secrets:
        raise ValueError("no webhook secret is configured: set CALLS_WEBHOOK_SECRET")
    expected = [hashlib.sha256(secret.encode()).digest() for secret in secrets]
    signatures = _Signatures(signing_key.encode(), clock) if signing_key else None

    async def receive(request: Request) -> Response:
        try:
            _check_secret(request, expected)
            body = await _read_body(request)
            if signatures is not None:
                signatures.check(request, body)
            await _store(inbox, body)
        except _RefusedError as refusal:
            # What was not read of a body that is not taken would be read as the next request.
            headers = {"Connection": "close"} | ({"Retry-After": "30"} if refusal.status == 503 else {})
            return JSONResponse({"error": str(refusal)}, refusal.status, headers)
        except ClientDisconnect:
            return Response(status_code=400)
        return JSONResponse({"status": "stored"})

    async def show_health(_: Request) -> Response:
        waiting = await asyncio.to_thread(inbox.files)
        return JSONResponse({"status": "ok", "waiting": len(waiting), "rejected": inbox.count_rejected()})

    return Starlette(
        routes=[
            Route("/webhooks/nectar-desk", receive, methods=["POST"]),
            Route("/webhooks/nectar-desk/{secret}", receive, methods=["POST"]),
            Route("/healthz", show_health),
        ]
    )


def _check_secret(request: Request, expected: list[bytes]) -> None:
    given = request.path_params.get("secret") or request.headers.get(SECRET_HEADER, "")
    digest = hashlib.sha256(given.encode("utf-8", "surrogateescape")).digest()
    # Every secret is compared, in constant time each, so that the time tells neither which one nor how much of it.
    if not sum(hmac.compare_digest(digest, secret) for secret in expected):
        raise _RefusedError(401, "the secret is wrong or missing")


async def _read_body(request: Request) -> bytes:
    length = request.headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit() or int(length[:20]) > HIGHEST_BODY_BYTES:
        raise _RefusedError(413, f"a delivery has at most {HIGHEST_BODY_BYTES} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > HIGHEST_BODY_BYTES:
                    raise _RefusedError(413, f"a delivery has at most {HIGHEST_BODY_BYTES} bytes")
    except TimeoutError:
        raise _RefusedError(408, f"the body took longer than {BODY_SECONDS:g} s") from None
    return bytes(body)


class _Signatures:
    """Checks signatures, and remembers those of the last minutes: each is taken once."""

    def __init__(self, key: bytes, clock: Callable[[], float]) -> None:
        self._key = key
        self._clock = clock
        self._seen: OrderedDict[str, float] = OrderedDict()

    def check(self, request: Request, body: bytes) -> None:
        stamp = request.headers.get(TIMESTAMP_HEADER, "")
        signature = request.headers.get(SIGNATURE_HEADER, "").lower().removeprefix("sha256=")
        digest = hmac.new(self._key, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(digest.encode(), signature.encode("utf-8", "surrogateescape")):
            raise _RefusedError(401, "the signature is wrong or missing")
        now = self._clock()
        if not stamp.isdigit() or abs(now - int(stamp[:20])) > SIGNATURE_WINDOW_SECONDS:
            raise _RefusedError(401, f"the timestamp is more than {SIGNATURE_WINDOW_SECONDS} s off")
        while self._seen and next(iter(self._seen.values())) < now - 2 * SIGNATURE_WINDOW_SECONDS:
            self._seen.popitem(last=False)
        if digest in self._seen:
            raise _RefusedError(409, "this delivery was taken before")
        if len(self._seen) >= _KEPT_SIGNATURES:
            raise _RefusedError(503, "too many deliveries in a short time")
        self._seen[digest] = now


async def _store(inbox: Inbox, body: bytes) -> None:
    now = datetime.now(UTC)
    try:
        await asyncio.to_thread(inbox.put, body, now)
    except ContractError as problem:
        with suppress(OSError):  # it is refused all the same
            await asyncio.to_thread(inbox.reject, body, now)
        raise _RefusedError(400, str(problem)) from None
    except OSError as problem:
        reason = (problem.strerror or "input/output error").lower()
        sys.stderr.write(f"calls-assets webhook: a delivery could not be stored: {reason}\n")
        raise _RefusedError(503, "the delivery could not be stored") from None


class _Protocol(H11Protocol):
    """Uvicorn's HTTP protocol, which has no limit of its own for a connection that never sends a whole request head."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._expect_request)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_timer is None and self.conn.their_state is h11.IDLE:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._expect_request)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        super().connection_lost(exc)

    def _expect_request(self) -> None:
        self._head_timer = None
        if self.conn.their_state is h11.IDLE:
            self.transport.close()


def configure(app: Starlette) -> uvicorn.Config:
    """Gives the web server's settings: bounds for everything that a client decides."""
    return uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,  # the path holds the secret
        timeout_keep_alive=IDLE_SECONDS,
        limit_concurrency=_HIGHEST_CONNECTIONS,
        h11_max_incomplete_event_size=16 * 1024,
        server_header=False,
    )


def run(app: Starlette, *, host: str, port: int) -> int:
    """Serves the receiver until it is interrupted.

    Returns:
        The exit code: 0 after an interruption, 1 if the port cannot be had.
    """
    try:
        listener = socket.create_server((host, port), backlog=2_048)
    except (OSError, OverflowError) as problem:
        reason = getattr(problem, "strerror", None) or "not a port"
        sys.stderr.write(f"calls-assets webhook: cannot listen on {host}:{port}: {reason}; try another --port\n")
        return 1
    with closing(listener):
        taken = listener.getsockname()[1]
        sys.stdout.write(f"calls-assets webhook: listening on http://{host}:{taken}/webhooks/nectar-desk/<secret>\n")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            uvicorn.Server(configure(app)).run(sockets=[listener])
    return 0
