"""The transport against a real server on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import httpx
import pytest
from yarl import URL

from calls_assets.transport import TARGET, TRANSPORT_ERRORS, Transport
from calls_assets_tests.api.server import Heard, Script, Served, response, say, serve


def run(script: Script, use: Callable[[Transport, Served], Awaitable[None]]) -> Served:
    """Runs `use` with a transport and a server."""

    async def main() -> Served:
        async with serve(script) as served, Transport(is_encrypted=False, connections=4) as transport:
            await use(transport, served)
            return served

    return asyncio.run(main())


def test_it_is_a_transport_of_httpx() -> None:
    """A client of httpx can use it, for whatever it knows of: methods, contents, headers."""
    heard = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append((await reader.readuntil(b"\r\n\r\n")).decode())
        heard.append((await reader.readexactly(12)).decode())
        writer.write(response(201, b"body of it", "X-Kind: one", "X-Kind: two"))
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a%20b?c=d"
        async with server, httpx.AsyncClient(transport=Transport(is_encrypted=False, connections=1)) as client:
            told = await client.post(url, content=b"what is said", headers={"X-Mine": "yes"})
        assert (told.status_code, told.content) == (201, b"body of it")
        assert told.headers.get_list("x-kind") == ["one", "two"]

    asyncio.run(main())
    head, content = heard
    assert head.startswith("POST /a%20b?c=d HTTP/1.1\r\n")
    assert "\r\nx-mine: yes\r\n" in head.lower()
    assert content == "what is said"


def test_a_target_is_asked_for_without_the_address_being_parsed() -> None:
    """What it says is what is sent."""

    async def use(transport: Transport, served: Served) -> None:
        request = httpx.Request("GET", "http://nowhere.invalid/", extensions={TARGET: URL(served.url) / "calls/7"})
        told = await transport.handle_async_request(request)
        await told.aclose()

    assert [heard.path for heard in run(say(response(200)), use).heard] == ["/calls/7"]


@pytest.mark.parametrize(("is_read", "connections"), [(True, 1), (False, 2)])
def test_a_connection_is_used_again_when_nothing_is_left_in_it(is_read: bool, connections: int) -> None:
    """An answer that is not read to its end would be taken for the next one's."""

    async def use(transport: Transport, served: Served) -> None:
        for _ in range(2):
            told = await transport.handle_async_request(httpx.Request("GET", served.url))
            if is_read:
                assert len(await told.aread()) == 2**20
            await told.aclose()

    assert run(say(response(200, b"x" * 2**20)), use).connections == connections


def test_bodies_come_as_they_are_and_redirects_are_not_followed() -> None:
    """Nothing is unpacked, and no cookie is kept."""

    async def use(transport: Transport, served: Served) -> None:
        for _ in range(2):
            url = served.url.replace("127.0.0.1", "localhost")  # of numbers no cookies are kept anyway
            told = await transport.handle_async_request(httpx.Request("GET", url))
            assert told.status_code == 302
            assert isinstance(told.stream, httpx.AsyncByteStream)
            assert b"".join([part async for part in told.stream]) == b"not gzip"
            await told.aclose()

    headers = ("Content-Encoding: gzip", "Set-Cookie: a=b", "Location: /elsewhere")
    served = run(say(response(302, b"not gzip", *headers)), use)
    assert [heard.path for heard in served.heard] == ["/", "/"]
    assert not any("cookie" in heard.headers for heard in served.heard)


def test_a_lost_request_is_not_sent_again() -> None:
    """As aiohttp would, on a connection that was used before: past whoever counts requests."""

    async def answer_once(heard: Heard, writer: asyncio.StreamWriter) -> None:
        if len(served_paths) == 0:
            writer.write(response(200))
        else:
            writer.close()
        served_paths.append(heard.path)

    served_paths: list[str] = []

    async def use(transport: Transport, served: Served) -> None:
        first = await transport.handle_async_request(httpx.Request("GET", f"{served.url}/1"))
        await first.aread()
        await first.aclose()
        with pytest.raises(aiohttp.ClientConnectionError, match="ServerDisconnectedError"):
            await transport.handle_async_request(httpx.Request("GET", f"{served.url}/2"))

    run(answer_once, use)
    assert served_paths == ["/1", "/2"]


def test_what_fails_raises_one_of_the_named_errors() -> None:
    """Nobody listens; a body is cut off."""

    async def use(transport: Transport, served: Served) -> None:
        with pytest.raises(TRANSPORT_ERRORS):
            await transport.handle_async_request(httpx.Request("GET", "http://127.0.0.1:1/"))
        told = await transport.handle_async_request(httpx.Request("GET", served.url))
        with pytest.raises(TRANSPORT_ERRORS):
            await told.aread()
        await told.aclose()

    async def cut(heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(response(200, b"half", length=8))
        writer.close()

    run(cut, use)


def test_outside_its_context_nothing_is_sent() -> None:
    """Before and after."""

    async def main() -> None:
        transport = Transport(is_encrypted=True, connections=1)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="outside `async with`"):
                await transport.handle_async_request(httpx.Request("GET", "https://127.0.0.1:1/"))
            async with transport:
                pass

    asyncio.run(main())
