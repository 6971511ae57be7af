"""The transport: httpx's requests over one session of aiohttp, and no more than the requests of this project need.

What belongs here: one exchange. What stays out: deadlines, retries, limits, what an answer means.

httpx's own pool of connections collapses under concurrency. The package httpx-aiohttp does what is done here for every
client, with timeouts, proxies and errors of each request; that was a tenth of all work of asking for a call.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import aiohttp
import httpx

TARGET = "target"
"""Extension of a request: its address as yarl has it, for those who need not have it parsed."""
TRANSPORT_ERRORS = (httpx.TransportError, aiohttp.ClientError, OSError, EOFError)
"""What an exchange raises when it fails; their texts can quote what was sent or received."""


class Transport(httpx.AsyncBaseTransport):
    """Sends requests, each once: no redirects, cookies, proxies, logins of the environment, timeouts, decompression.

    Use as an async context manager.

    Args:
        is_encrypted: Whether addresses are https. Loading the certificate authorities takes 30 ms.
        connections: Upper bound of connections.
    """

    def __init__(self, *, is_encrypted: bool, connections: int) -> None:
        self._context = (
            httpx.create_ssl_context(trust_env=False) if is_encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        )
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, ssl=self._context),
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(_send_once,),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            trust_env=False,
        )
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

        Raises:
            RuntimeError: Used outside `async with`.
            aiohttp.ClientError, OSError: The exchange failed; reading the answer's stream raises them too.
        """
        if self._session is None:
            raise RuntimeError("Transport is used outside `async with`")
        answer = await self._session.request(
            request.method,
            request.extensions.get(TARGET) or str(request.url),
            headers=request.headers,
            data=request.content or None,
            allow_redirects=False,
        )
        return httpx.Response(answer.status, headers=answer.raw_headers, stream=_Body(answer), request=request)

    async def aclose(self) -> None:
        """Closes all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class _Body(httpx.AsyncByteStream):
    """The bytes of an answer as they come."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._answer.content.iter_any()

    async def aclose(self) -> None:
        """Gives the connection back, or closes it when there is more to read."""
        self._answer.release()


async def _send_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keeps aiohttp from sending a request again by itself after a lost connection, past rate limit and counters."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(type(error).__name__) from error
