"""The transport: one request of httpx, one answer, over connections that are used again.

What belongs here: one exchange of HTTP/1.1. What stays out: deadlines, retries, limits of bodies and of requests in
flight, what an answer means.

httpx's own pool of connections collapses under concurrency, and what a client of any other library does for a request
beyond the exchange (sessions, cookies, redirects, proxies, decompression) is refused here: docs/adr/0018. asyncio
connects and encrypts; httptools, over the parser of Node.js, reads answers as strictly as it can.
"""

from __future__ import annotations

import asyncio
import math
import re
import socket
import ssl
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self, TypeAlias

import httptools
import httpx
from aiohappyeyeballs import AddrInfoType, start_connection

TARGET = "target"
"""Extension of a request: the target of its request line (bytes), in place of path and query of its address."""
HEAD_BYTES = 64 * 1024
"""Longest head of an answer, and longest run of bytes that bring neither head nor body, give or take one read."""
BUFFER_BYTES = 256 * 1024
"""What is read ahead of whoever takes a body, give or take one read."""
ADDRESS_SECONDS = 10.0
"""How long a host's addresses are known: a server that closes each connection would cost a look-up each."""
IDLE_SECONDS = 15.0
"""How long a connection may have been idle to be used again: the server may be about to close it."""
_SECOND_ADDRESS_SECONDS = 0.25  # a host's addresses are tried side by side, this far apart (RFC 8305, section 5)
_PORTS = {"http": 80, "https": 443}
# Methods but those whose answers end where others' bodies begin; targets, names and values that end where they should.
_HEAD = re.compile(
    rb"(?!HEAD |CONNECT )[!#-'*+.^_`|~0-9A-Z-]+ [!-~]+ HTTP/1\.1(?:\r\n[!#-'*+.^_`|~0-9A-Za-z-]+: [^\x00\r\n]*)*"
)

_Origin: TypeAlias = tuple[str, str, int]


class Transport(httpx.AsyncBaseTransport):
    """Sends requests, each once; there are as many connections as there are exchanges at a time.

    Use as an async context manager, in one event loop.
    """

    def __init__(self) -> None:
        self._is_open = False
        self._context: ssl.SSLContext | None = None
        self._connections: set[_Connection] = set()
        self._idle: dict[_Origin, list[_Connection]] = {}
        self._addresses: dict[tuple[str, int], tuple[float, list[AddrInfoType]]] = {}
        self._look_up_lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._is_open = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request whose content is in memory, and waits for the head of the answer.

        Returns:
            The answer; its stream gives the body as it comes, and raises what this method raises. Closing it gives the
            connection back, or closes that when there is more to read.

        Raises:
            httpx.TransportError: The exchange failed, or the request is none that can be sent. No text quotes what was
                sent or received.
            RuntimeError: Used outside `async with`.
        """
        if not self._is_open:
            raise RuntimeError("Transport is used outside `async with`")
        message = _write_request(request)
        url = request.url
        port = _PORTS.get(url.scheme, 0) if url.port is None else url.port
        origin = (url.scheme, url.raw_host.decode("ascii"), port)
        connection = self._take_idle(origin) or await self._connect(origin)
        exchange = _Exchange(connection)
        try:
            connection.wire.write(message)
            status, headers = await exchange.wait_for_head()
        except BaseException:
            await exchange.aclose()
            raise
        return httpx.Response(status, headers=headers, stream=exchange, request=request)

    async def aclose(self) -> None:
        """Closes all connections."""
        self._is_open = False
        connections = list(self._connections)
        for connection in connections:
            connection.abort()
        if connections:
            await asyncio.wait([connection.lost for connection in connections])

    def _take_idle(self, origin: _Origin) -> _Connection | None:
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.is_fresh():
                return connection
            connection.abort()
        return None

    async def _connect(self, origin: _Origin) -> _Connection:
        scheme, host, port = origin
        if scheme not in _PORTS or not 0 < port < 2**16:
            raise httpx.UnsupportedProtocol("an address begins with http:// or https://, and its port is 1 to 65535")
        idle = self._idle.setdefault(origin, [])
        context = self._load_context() if scheme == "https" else None
        try:
            sock = await _start_connection(await self._look_up(host, port))
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(self._connections, idle),
                sock=sock,
                ssl=context,
                server_hostname=host.rstrip(".") if context else None,
            )
        except (OSError, UnicodeError) as error:  # the latter of a host that no name can be
            self._addresses.pop((host, port), None)
            # Without its traceback: there are frames in it that know the error again.
            raise httpx.ConnectError(type(error).__name__) from error.with_traceback(None)
        if not self._is_open or connection.wire.is_closing():
            connection.abort()
            raise httpx.ConnectError("the connection was closed at once")
        return connection

    async def _look_up(self, host: str, port: int) -> list[AddrInfoType]:
        """Gives a host's addresses; one look-up at a time, as each takes one of few threads."""
        loop = asyncio.get_running_loop()
        async with self._look_up_lock:
            at, addresses = self._addresses.get((host, port), (-math.inf, []))
            if loop.time() - at >= ADDRESS_SECONDS:
                addresses = [*await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
                self._addresses[host, port] = loop.time(), addresses
        return addresses

    def _load_context(self) -> ssl.SSLContext:
        """Loads the certificate authorities when they are needed: it takes 30 ms."""
        if self._context is None:
            self._context = httpx.create_ssl_context(trust_env=False)
            self._context.set_alpn_protocols(["http/1.1"])
        return self._context


class _Connection(asyncio.Protocol):
    """One connection, for one exchange at a time.

    Attributes:
        wire: asyncio's side of it.
        exchange: The exchange that it is used for.
        lost: Done when it is closed.
    """

    wire: asyncio.Transport

    def __init__(self, connections: set[_Connection], idle: list[_Connection]) -> None:
        self._loop = asyncio.get_running_loop()
        self._connections = connections
        self._idle = idle
        self._idle_since = 0.0
        self.exchange: _Exchange | None = None
        self.lost: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.wire = transport  # type: ignore[assignment]  # that of a stream goes both ways
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self.exchange is None:
            self.abort()  # nothing was asked
        else:
            self.exchange.read(data)

    def eof_received(self) -> None:
        if self.exchange is not None:
            self.exchange.end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self.lost.set_result(None)
        if self.exchange is not None:
            self.exchange.end(exc)

    def abort(self) -> None:
        if not self.lost.done():  # asyncio's would fail
            self.wire.abort()

    def is_fresh(self) -> bool:
        return not self.wire.is_closing() and self._loop.time() - self._idle_since < IDLE_SECONDS

    def give_back(self) -> None:
        self.exchange = None
        self._idle_since = self._loop.time()
        self._idle.append(self)


class _Exchange(httpx.AsyncByteStream):
    """One answer as it comes: told by the parser, taken as a stream of its body's bytes."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        connection.exchange = self
        self._parser = httptools.HttpResponseParser(self)
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []
        self._buffered = 0
        self._overhead = 0
        self._has_head = self._is_whole = self._is_reusable = self._is_paused = self._is_closed = False
        self._failure: Callable[[], Exception] | None = None  # no exception, which would know this object again
        self._waiter: asyncio.Future[None] | None = None

    async def wait_for_head(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        while not self._has_head:
            await self._wait()
        return self._status, self._headers

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._parts:
            if self._is_whole and not self._is_closed:
                raise StopAsyncIteration
            await self._wait()
        parts, self._parts, self._buffered = self._parts, [], 0
        self._resume()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def aclose(self) -> None:
        """Gives the connection back, or closes it when there is more to read."""
        if self._is_closed:
            return
        self._is_closed = True
        del self._parser  # which knows this object: nothing is left for the collector
        self._parts.clear()
        self._failure = self._failure or httpx.StreamClosed
        wire = self._connection.wire
        if self._is_whole and self._is_reusable and not wire.is_closing() and not wire.get_write_buffer_size():
            self._connection.give_back()
        else:
            self._connection.exchange = None
            self._connection.abort()
        self._wake()

    def read(self, data: bytes) -> None:
        """Takes what has come."""
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(httpx.RemoteProtocolError, "the answer is not HTTP/1.1")
        if self._overhead > HEAD_BYTES:
            self._fail(httpx.RemoteProtocolError, f"the answer has a head of more than {HEAD_BYTES} bytes")
        if self._buffered > BUFFER_BYTES and not (self._is_paused or self._is_whole):
            self._is_paused = True
            self._connection.wire.pause_reading()
        self._wake()

    def end(self, error: Exception | None) -> None:
        """Takes the end of the connection, which ends a body whose length nobody told (RFC 9112, section 6.3)."""
        if error is None and self._failure is None and self._has_head and not _is_delimited(self._headers):
            self._is_whole = True
        elif error is None:
            self._fail(httpx.RemoteProtocolError, "the connection was closed before the end of the answer")
        else:
            self._fail(httpx.ReadError, type(error).__name__)
        self._wake()

    def on_message_begin(self) -> None:
        if self._is_whole:
            self._is_reusable = False  # a second answer, which nobody asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:  # else a trailer
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 100:
            raise ValueError("no status")  # for the parser, which reads it as one, and bodies after it
        if self._is_whole or status < 200:
            return
        self._status = status
        self._has_head = True
        self._is_reusable = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        if not self._has_head:
            raise ValueError("a body before the answer")  # which the parser reads for some statuses below 200
        if not self._is_whole:
            self._parts.append(body)
            self._buffered += len(body)
            self._overhead = 0

    def on_message_complete(self) -> None:
        if self._has_head:
            self._is_whole = True
        else:
            self._headers.clear()  # of an answer that only says that there will be one

    def _fail(self, kind: type[httpx.TransportError], text: str) -> None:
        self._failure = self._failure or partial(kind, text)
        self._is_reusable = False
        asyncio.get_running_loop().call_soon(self._connection.abort)  # asyncio's TLS may be in the middle of a read

    def _resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._connection.wire.resume_reading()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        """Waits until something has come.

        Raises:
            httpx.TransportError, httpx.StreamClosed: Nothing more will.
        """
        if self._failure is not None:
            raise self._failure()
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter


async def _start_connection(addresses: list[AddrInfoType]) -> socket.socket:
    """Connects to one of a host's addresses.

    asyncio, told to try them side by side, leaks a socket when it is cancelled in the wrong moment. aiohappyeyeballs
    does not, but while it cancels the losers it can take a cancellation of this task for one of theirs.
    """
    task = asyncio.current_task()
    cancellations = task.cancelling() if task else 0
    sock = await start_connection(addresses, happy_eyeballs_delay=_SECOND_ADDRESS_SECONDS)
    if task and task.cancelling() > cancellations:
        sock.close()
        raise asyncio.CancelledError
    return sock


def _write_request(request: httpx.Request) -> bytes:
    """Gives a request as it is sent.

    Raises:
        httpx.LocalProtocolError: It is none that can be sent.
    """
    target = request.extensions.get(TARGET) or request.url.raw_path
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii", "replace"), target)]
    lines += [b"%b: %b" % header for header in request.headers.raw]
    head = b"\r\n".join(lines)
    try:
        content = request.content
    except httpx.RequestNotRead:
        raise httpx.LocalProtocolError("a request whose content is not in memory") from None
    if head.count(b"\n") != len(lines) - 1 or not _HEAD.fullmatch(head):
        raise httpx.LocalProtocolError("a request whose method, target or headers cannot be sent")
    return b"%b\r\n\r\n%b" % (head, content)


def _is_delimited(headers: list[tuple[bytes, bytes]]) -> bool:
    """Tells whether an answer says itself where it ends (RFC 9112, section 6.3)."""
    told = {name.lower(): value.lower() for name, value in headers}
    coding = told.get(b"transfer-encoding")
    return b"content-length" in told if coding is None else coding.rpartition(b",")[2].strip() == b"chunked"
