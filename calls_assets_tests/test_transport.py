"""The transport against a real server on real sockets, and its reading of answers against every way they can come."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import struct
import subprocess
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import httptools
import httpx
import pytest
from aiohappyeyeballs import AddrInfoType, start_connection
from hypothesis import given
from hypothesis import strategies as st

from calls_assets import transport as module
from calls_assets.transport import BUFFER_BYTES, HEAD_BYTES, IDLE_SECONDS, TARGET, Transport
from calls_assets_tests.api.server import Heard, Script, Served, response, say, serve

Told: TypeAlias = tuple[int, list[tuple[bytes, bytes]], bytes] | str

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
READ_BYTES = 256 * 1024  # asyncio's longest read of a socket


def run(script: Script, use: Callable[[Transport, Served], Awaitable[None]]) -> Served:
    """Runs `use` with a transport and a server."""

    async def main() -> Served:
        async with serve(script) as served, Transport() as transport:
            await use(transport, served)
            return served

    return asyncio.run(main())


def get(url: str) -> httpx.Request:
    """Gives the simplest request."""
    return httpx.Request("GET", url)


async def settle(is_settled: Callable[[], bool]) -> None:
    """Waits for what ends by itself."""
    async with asyncio.timeout(10):
        while not is_settled():  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.001)


async def take(transport: Transport, url: str) -> bytes:
    """Takes a whole answer's body."""
    told = await transport.handle_async_request(get(url))
    try:
        return await told.aread()
    finally:
        await told.aclose()


def closing(data: bytes) -> Script:
    """Says this and closes the connection."""

    async def script(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        writer.close()

    return script


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
        async with server, httpx.AsyncClient(transport=Transport()) as client:
            told = await client.post(url, content=b"what is said", headers={"X-Mine": "yes"})
        assert (told.status_code, told.content) == (201, b"body of it")
        assert told.headers.get_list("x-kind") == ["one", "two"]

    asyncio.run(main())
    head, content = heard
    assert head.startswith("POST /a%20b?c=d HTTP/1.1\r\nHost: 127.0.0.1:")
    assert "\r\nX-Mine: yes\r\n" in head
    assert content == "what is said"


def test_a_target_is_asked_for_without_the_address_being_parsed() -> None:
    """What it says is what is sent, to the address's host."""

    async def use(transport: Transport, served: Served) -> None:
        request = httpx.Request("GET", f"{served.url}/base", extensions={TARGET: b"/calls/7"})
        told = await transport.handle_async_request(request)
        await told.aclose()

    assert [heard.path for heard in run(say(response(200)), use).heard] == ["/calls/7"]


@pytest.mark.parametrize(("is_read", "connections"), [(True, 1), (False, 2)])
def test_a_connection_is_used_again_when_nothing_is_left_in_it(is_read: bool, connections: int) -> None:
    """An answer that is not read to its end would be taken for the next one's."""

    async def use(transport: Transport, served: Served) -> None:
        for _ in range(2):
            told = await transport.handle_async_request(get(served.url))
            if is_read:
                assert len(await told.aread()) == 2**22
            await told.aclose()

    assert run(say(response(200, b"x" * 2**22)), use).connections == connections


@pytest.mark.parametrize(
    ("answer", "connections"),
    [
        (response(200, b"body", "Connection: close"), 2),
        (response(200, b"body").replace(b"HTTP/1.1", b"HTTP/1.0"), 2),
        (response(200, b"body", "Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0"), 1),
        (CHUNKED + b"4\r\nbody\r\n0\r\n\r\n", 1),
        (response(200, b"body") + response(200, b"of another"), 2),
        (response(200, b"body") + b"rubbish", 2),
        (response(200, b"body") + b"\r\n", 1),
    ],
)
def test_a_connection_is_used_again_when_the_server_left_it_in_order(answer: bytes, connections: int) -> None:
    """It is not after an answer that nobody asked for: that would be taken for the next one's."""

    async def use(transport: Transport, served: Served) -> None:
        for _ in range(2):
            told = await transport.handle_async_request(get(served.url))
            await asyncio.sleep(0.05)  # all of it has come
            assert (await told.aread()) == b"body"
            await told.aclose()

    assert run(say(answer), use).connections == connections


def test_what_nobody_asked_for_ends_a_connection() -> None:
    """Also when it comes while the connection is idle."""

    async def use(transport: Transport, served: Served) -> None:
        assert await take(transport, served.url) == b"one"
        await served_writers[0].drain()
        served_writers[0].write(response(200, b"another"))
        await settle(lambda: served.open_connections == 0)
        assert await take(transport, served.url) == b"one"

    async def script(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        served_writers.append(writer)
        writer.write(response(200, b"one"))

    served_writers: list[asyncio.StreamWriter] = []
    assert run(script, use).connections == 2


def test_a_full_connection_is_watched_when_its_answer_is_whole() -> None:
    """Else what comes after it would only be seen as the next one's answer."""

    async def script(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(response(200, b"x" * (BUFFER_BYTES + 1000)))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(response(200, b"of another"))

    async def use(transport: Transport, served: Served) -> None:
        for _ in range(2):
            told = await transport.handle_async_request(get(served.url))
            await asyncio.sleep(0.2)
            assert await told.aread() == b"x" * (BUFFER_BYTES + 1000)
            await told.aclose()

    assert run(script, use).connections == 2


def test_a_connection_that_was_long_idle_is_not_used_again() -> None:
    """The server may be about to close it."""

    async def use(transport: Transport, served: Served) -> None:
        for age in (0.0, IDLE_SECONDS, 0.0):
            for connection in transport._connections:
                connection._idle_since -= age
            await take(transport, served.url)

    assert [heard.connection for heard in run(say(response(200)), use).heard] == [1, 2, 2]


def test_bodies_come_as_they_are_and_redirects_are_not_followed() -> None:
    """Nothing is unpacked, and no cookie is kept."""

    async def use(transport: Transport, served: Served) -> None:
        for _ in range(2):
            url = served.url.replace("127.0.0.1", "localhost")  # of numbers no cookies are kept anyway
            told = await transport.handle_async_request(get(url))
            assert told.status_code == 302
            assert isinstance(told.stream, httpx.AsyncByteStream)
            assert b"".join([part async for part in told.stream]) == b"not gzip"
            await told.aclose()

    headers = ("Content-Encoding: gzip", "Set-Cookie: a=b", "Location: /elsewhere")
    served = run(say(response(302, b"not gzip", *headers)), use)
    assert [heard.path for heard in served.heard] == ["/", "/"]
    assert not any("cookie" in heard.headers for heard in served.heard)


def test_a_lost_request_is_not_sent_again() -> None:
    """As others do on a connection that was used before: past whoever counts requests."""

    async def answer_once(heard: Heard, writer: asyncio.StreamWriter) -> None:
        if len(served_paths) == 0:
            writer.write(response(200))
        else:
            writer.close()
        served_paths.append(heard.path)

    served_paths: list[str] = []

    async def use(transport: Transport, served: Served) -> None:
        await take(transport, f"{served.url}/1")
        with pytest.raises(httpx.RemoteProtocolError, match="closed before the end"):
            await take(transport, f"{served.url}/2")

    run(answer_once, use)
    assert served_paths == ["/1", "/2"]


def test_who_does_not_answer_is_an_error_of_httpx() -> None:
    """Nobody listens; no such host; a host that can be none; an address of another kind."""
    problems = {
        "http://127.0.0.1:1/": (httpx.ConnectError, ConnectionRefusedError),
        "http://nowhere.invalid/": (httpx.ConnectError, OSError),
        f"http://{'a' * 64}.example/": (httpx.ConnectError, UnicodeError),
        "ftp://127.0.0.1/": (httpx.UnsupportedProtocol, None),
        "http://127.0.0.1:0/": (httpx.UnsupportedProtocol, None),
        "http://127.0.0.1:99999/": (httpx.UnsupportedProtocol, None),
    }

    async def main() -> None:
        async with Transport() as transport:
            for url, (kind, cause) in problems.items():
                with pytest.raises(kind) as caught:
                    await transport.handle_async_request(get(url))
                assert cause is None or isinstance(caught.value.__cause__, cause)
                assert "127.0.0.1" not in str(caught.value)

    asyncio.run(main())


def test_of_a_hosts_addresses_one_that_is_silent_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next is tried beside it, long before the system gives up."""

    async def look_up(loop: asyncio.SelectorEventLoop, host: str, port: int, **_: object) -> list[object]:
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*kind, (address, port)) for address in ("127.0.0.2", "127.0.0.1")]

    async def connect(loop: asyncio.SelectorEventLoop, sock: socket.socket, address: tuple[str, int]) -> None:
        tried.append(address[0])
        if address[0] == "127.0.0.2":
            await asyncio.sleep(3600)
        await sock_connect(loop, sock, address)

    async def use(transport: Transport, served: Served) -> None:
        async with asyncio.timeout(10):
            assert await take(transport, served.url.replace("127.0.0.1", "localhost")) == b"body"

    tried: list[str] = []
    sock_connect = asyncio.SelectorEventLoop.sock_connect
    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", connect)
    monkeypatch.setattr(asyncio.SelectorEventLoop, "getaddrinfo", look_up)
    run(say(response(200, b"body")), use)
    assert tried == ["127.0.0.2", "127.0.0.1"]


def test_a_host_is_looked_up_by_the_name_that_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of one standard are others in another: `xn--fa-hia.de` is `faß.de`, and that was `fass.de` before 2010."""
    asked = []

    async def look_up(loop: asyncio.SelectorEventLoop, host: str, port: int, **_: object) -> list[object]:
        asked.append((host, port))
        raise socket.gaierror

    async def main() -> None:
        async with Transport() as transport:
            for url in ("https://xn--fa-hia.de", "http://XN--FA-HIA.de:81/x"):
                with pytest.raises(httpx.ConnectError, match="gaierror"):
                    await transport.handle_async_request(get(url))

    monkeypatch.setattr(asyncio.SelectorEventLoop, "getaddrinfo", look_up)
    asyncio.run(main())
    assert asked == [("xn--fa-hia.de", 443), ("xn--fa-hia.de", 81)]


def test_a_host_is_looked_up_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many connections there are at once, and however short they live; anew after a failure."""
    look_ups = 0

    async def look_up(loop: asyncio.SelectorEventLoop, host: str, port: int, **_: object) -> list[object]:
        nonlocal look_ups
        look_ups += 1
        await asyncio.sleep(0.01)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))]

    async def use(transport: Transport, served: Served) -> None:
        for _ in range(2):
            await asyncio.gather(*(take(transport, served.url) for _ in range(8)))
        assert look_ups == 1
        for key, (at, addresses) in transport._addresses.items():
            transport._addresses[key] = at - module.ADDRESS_SECONDS, addresses
        await take(transport, served.url)
        assert look_ups == 2
        for _ in range(2):
            with pytest.raises(httpx.ConnectError):
                await take(transport, "http://127.0.0.1:1")
        assert look_ups == 4

    monkeypatch.setattr(asyncio.SelectorEventLoop, "getaddrinfo", look_up)
    assert run(say(response(200, b"body", "Connection: close")), use).connections == 17


def test_who_stops_waiting_for_an_answer_closes_its_connection() -> None:
    """What comes later would be taken for the next one's."""

    async def script(heard: Heard, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.1 if heard.path == "/1" else 0.0)
        writer.write(response(200, heard.path.encode()))

    async def use(transport: Transport, served: Served) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await take(transport, f"{served.url}/1")
        await settle(lambda: served.open_connections == 0)
        assert await take(transport, f"{served.url}/2") == b"/2"

    assert run(script, use).connections == 2


@pytest.mark.parametrize(
    "data",
    [
        response(200, b"half", length=8),
        CHUNKED + b"4\r\nhalf\r\n",
        CHUNKED + b"4\r\nhalf\r\n0\r\n",
        OK + b"Transfer-Encoding: gzip, Chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nContent-",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"",
    ],
)
def test_an_answer_that_is_cut_off_is_none(data: bytes) -> None:
    """Wherever its end is told, and not there."""

    async def use(transport: Transport, served: Served) -> None:
        with pytest.raises(httpx.RemoteProtocolError, match="closed before the end"):
            await take(transport, served.url)

    run(closing(data), use)


@pytest.mark.parametrize("head", [OK + b"\r\n", OK + b"Transfer-Encoding: gzip\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"])
def test_a_body_whose_end_nobody_told_ends_with_the_connection(head: bytes) -> None:
    """RFC 9112, section 6.3."""

    async def use(transport: Transport, served: Served) -> None:
        assert await take(transport, served.url) == b"all of it"

    run(closing(head + b"all of it"), use)


@pytest.mark.parametrize("answer", [OK + b"\r\nbody", response(200, b"body")])
def test_a_server_that_only_stops_talking_has_ended_its_answer(answer: bytes) -> None:
    """It may go on listening, for a request that is not sent on this connection."""

    async def script(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.write_eof()

    async def use(transport: Transport, served: Served) -> None:
        async with asyncio.timeout(10):
            for _ in range(2):
                told = await transport.handle_async_request(get(served.url))
                await asyncio.sleep(0.05)
                assert await told.aread() == b"body"
                await told.aclose()

    assert run(script, use).connections == 2


@pytest.mark.parametrize("answer", [OK + b"\r\nbody", response(200, b"body")])
@pytest.mark.parametrize("way", ["never listens", "listens later", "is not waited for"])
def test_a_server_may_answer_before_it_has_listened(way: str, answer: bytes) -> None:
    """Its answer does not wait until the request is sent, and the next request does not follow half of one."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if way != "is not waited for":
            writer.write_eof()
        await is_told.wait()
        while way != "never listens" and await reader.read(2**20):
            pass
        writer.transport.abort()
        is_over.set()

    async def main() -> None:
        server = await asyncio.start_server(speak, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, asyncio.timeout(20), Transport() as transport:
            told = await transport.handle_async_request(httpx.Request("POST", url, content=b"x" * 2**25))
            if way == "is not waited for":
                await told.aclose()
            else:
                assert isinstance(told.stream, httpx.AsyncByteStream)
                assert b"".join([part async for part in told.stream]) == b"body"  # and is not closed yet
            is_told.set()
            await is_over.wait()
            await asyncio.sleep(0.05)
            await told.aclose()
            assert not transport._connections
            assert not any(transport._idle.values())

    is_told, is_over = asyncio.Event(), asyncio.Event()
    asyncio.run(main())


def test_a_failure_is_not_undone_by_the_end_of_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends the body."""
    monkeypatch.setattr(module, "_is_delimited", lambda _headers: False)
    assert read(CHUNKED, b"no chunk\r\n") == "the answer is not HTTP/1.1"


def test_a_connection_that_breaks_says_how() -> None:
    """Whatever had come until then."""

    async def reset(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"\r\nbegin")
        await asyncio.sleep(0.05)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def use(transport: Transport, served: Served) -> None:
        told = await transport.handle_async_request(httpx.Request("POST", served.url, content=b"x" * 10))
        with pytest.raises(httpx.ReadError, match="ConnectionResetError"):
            await told.aread()
        await told.aclose()

    run(reset, use)


@pytest.mark.parametrize("speak", [say, closing])
@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"<html>no</html>",
        OK + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nbody!",
        OK + b"Content-Length: -4\r\n\r\nbody",
        OK + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        OK + b"X-\x00: a\r\n\r\n",
        CHUNKED + b"no\r\n",
        CHUNKED + b"4\r\nbody!\r\n",
        CHUNKED + b"ffffffffffffffffff\r\nbody",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 099 No\r\nContent-Length: 4\r\n\r\nevil" + response(200, b"body"),
        b"HTTP/1.1 150 No\r\nContent-Length: 4\r\n\r\nevil" + response(200, b"body"),
        b"HTTP/1.1 150 No\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n" + response(200, b"body"),
        b"HTTP/1.1 101 Switch\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n\x00\x01",
        b"HTTP/1.1 101 Switch\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
    ],
)
def test_what_is_no_answer_is_not_read_as_one(data: bytes, speak: Callable[[bytes], Script]) -> None:
    """What two readers could understand in two ways, one must not understand; no text quotes it."""

    async def use(transport: Transport, served: Served) -> None:
        with pytest.raises(httpx.RemoteProtocolError, match=r"^the answer is not HTTP/1\.1$"):
            await take(transport, served.url)

    run(speak(data), use)


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"HTTP/1.1 200 ", b"O" * 1000),
        (OK, b"X-Much: more of it\r\n" * 50),
        (OK + b"X-Long: ", b"y" * 1000),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 20),
        (CHUNKED + b"1\r\nx\r\n1;", b"z" * 1000),
        (CHUNKED + b"0\r\n", b"X-Much: more of it\r\n" * 50),
    ],
)
def test_a_head_without_end_is_given_up(begin: bytes, more: bytes) -> None:
    """Heads, answers before the answer, extensions of chunks, trailers: none of them fills the memory."""
    sent = 0

    async def use(transport: Transport, served: Served) -> None:
        with pytest.raises(httpx.RemoteProtocolError, match="bytes"):
            await take(transport, served.url)

    async def script(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(begin)
        while not writer.is_closing() and sent < 2**26:
            writer.write(more)
            sent += len(more)
            await writer.drain()

    run(script, use)
    assert sent < 2**26


def test_what_follows_a_failure_is_not_read() -> None:
    """Also while nobody waits: the parser would keep an endless trailer."""

    async def script(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"0\r\nX-Long: ")
        while not writer.is_closing():
            writer.write(b"x" * 2**16)
            await writer.drain()

    async def use(transport: Transport, served: Served) -> None:
        told = await transport.handle_async_request(get(served.url))
        await settle(lambda: served.open_connections == 0)
        with pytest.raises(httpx.RemoteProtocolError, match="bytes"):
            await told.aread()
        await told.aclose()

    run(script, use)


def test_a_body_that_nobody_takes_is_left_to_the_server() -> None:
    """What is read ahead is bounded; taken, it comes whole."""
    size = 2**25
    sent = 0

    async def script(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        sent = 0
        writer.write(OK + b"Content-Length: %d\r\n\r\n" % size)
        for _ in range(size // 2**16):
            writer.write(b"x" * 2**16)
            await writer.drain()
            sent += 2**16

    async def use(transport: Transport, served: Served) -> None:
        for _ in range(2):
            told = await transport.handle_async_request(get(served.url))
            assert isinstance(told.stream, httpx.AsyncByteStream)
            await asyncio.sleep(0.3)
            assert 0 < sent < size // 2
            parts = [len(part) async for part in told.stream]
            assert sum(parts) == size
            assert max(parts) <= BUFFER_BYTES + READ_BYTES
            await told.aclose()

    assert run(script, use).connections == 1


@pytest.mark.parametrize("body", [b"", b"body"])
def test_a_stream_that_was_closed_gives_nothing_more(body: bytes) -> None:
    """Neither what had come, nor what the next exchange on its connection brings."""

    async def use(transport: Transport, served: Served) -> None:
        told = await transport.handle_async_request(get(served.url))
        await told.aclose()
        assert isinstance(told.stream, httpx.AsyncByteStream)
        with pytest.raises(httpx.StreamClosed):
            await anext(aiter(told.stream))
        await told.stream.aclose()  # twice is once

    run(say(OK + b"Content-Length: 4\r\n\r\n" + body), use)


@pytest.mark.parametrize(
    "script",
    [
        say(response(200, b"body")),
        say(response(404, b"")),
        say(b"rubbish"),
        say(CHUNKED + b"x"),
        closing(b""),
        closing(CHUNKED + b"4\r\nhalf\r\n"),
    ],
)
def test_an_exchange_leaves_nothing_for_the_collector(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it ends: the collector waits while a day is swept, and an exchange has a body and a token."""
    made: list[weakref.ref[object]] = []
    parsers = httptools.HttpResponseParser

    def make_parser(exchange: module._Exchange) -> object:
        made.append(weakref.ref(exchange))
        return parsers(exchange)

    async def use(transport: Transport, served: Served) -> None:
        for _ in range(3):
            with suppress(httpx.TransportError):
                await take(transport, served.url)
        assert len(made) == 3
        assert [one() for one in made] == [None] * 3

    monkeypatch.setattr(httptools, "HttpResponseParser", make_parser)
    gc.disable()
    try:
        run(script, use)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "options",
    [
        {"method": "HEAD"},
        {"method": "CONNECT"},
        {"method": "A B"},
        {"method": "G\u00c9T"},
        {"content": (part for part in [b"a"])},
        {"headers": {"X-Mine": "a\x00"}},
        {"headers": {"X Mine": "a"}},
        {"extensions": {TARGET: b"/a b"}},
        {"headers": {"X-Mine": "a\r\nX-Other: b"}},
        {"headers": {"X-Mine": "a\nX-Other: b"}},
        {"headers": {"X-Mine\r": "a"}},
        {"extensions": {TARGET: b"/ HTTP/1.1\r\nX-Other: b\r\n\r\n"}},
    ],
)
def test_what_cannot_be_sent_is_not(options: dict[str, object]) -> None:
    """Two requests in one; a method whose answers would be read wrongly."""

    async def use(transport: Transport, served: Served) -> None:
        request = httpx.Request(**({"method": "GET", "url": served.url} | options))  # type: ignore[arg-type]  # of any kind
        with pytest.raises(httpx.LocalProtocolError):
            await transport.handle_async_request(request)

    assert run(say(response(200)), use).connections == 0


@pytest.mark.parametrize("method", ["HEADING", "CONNECTED", "M-SEARCH", "get"])
def test_other_methods_are_sent(method: str) -> None:
    """Whatever they mean."""

    async def use(transport: Transport, served: Served) -> None:
        told = await transport.handle_async_request(httpx.Request(method, served.url))
        await told.aclose()

    assert len(run(say(response(200)), use).heard) == 1


def test_outside_its_context_nothing_is_sent() -> None:
    """Before and after."""

    async def main() -> None:
        transport = Transport()
        for _ in range(2):
            with pytest.raises(RuntimeError, match="outside `async with`"):
                await transport.handle_async_request(get("https://127.0.0.1:1/"))
            async with transport:
                pass

    asyncio.run(main())


def test_its_end_closes_all_connections() -> None:
    """Those in use too, whose exchanges fail."""

    async def use(transport: Transport, served: Served) -> None:
        await take(transport, f"{served.url}/1")
        waiting = [asyncio.create_task(take(transport, f"{served.url}/{path}")) for path in (2, 3)]
        await settle(lambda: len(served.heard) == 3)
        await transport.aclose()
        assert transport._connections == set()
        told = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(one) for one in told] == [httpx.RemoteProtocolError] * 2
        await settle(lambda: served.open_connections == 0)

    assert run(say(response(200), b""), use).connections == 2


def test_a_connection_that_fails_leaves_nothing_for_the_collector() -> None:
    """Libraries on the way keep the error in frames that it knows."""

    async def main() -> None:
        async with Transport() as transport:
            for _ in range(3):
                with pytest.raises(httpx.ConnectError):
                    await transport.handle_async_request(get("http://127.0.0.1:1/"))

    gc.collect()
    gc.disable()
    try:
        asyncio.run(main())
        assert not [one for one in gc.get_objects() if isinstance(one, ConnectionRefusedError)]
    finally:
        gc.enable()


def test_a_deadline_is_kept_while_losers_are_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancellation that the library takes for one of its own is none of its own."""

    async def connect_deaf(addresses: list[AddrInfoType], *, happy_eyeballs_delay: float) -> socket.socket:
        sock = await start_connection(addresses, happy_eyeballs_delay=happy_eyeballs_delay)
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(10)
        return sock

    async def use(transport: Transport, served: Served) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await take(transport, served.url)
        await settle(lambda: served.open_connections == 0)

    monkeypatch.setattr(module, "start_connection", connect_deaf)
    assert run(say(b""), use).heard == []


def test_whoever_reads_is_told_when_somebody_else_closes() -> None:
    """Nothing waits for ever."""

    async def use(transport: Transport, served: Served) -> None:
        told = await transport.handle_async_request(get(served.url))
        assert isinstance(told.stream, httpx.AsyncByteStream)
        reading = asyncio.ensure_future(anext(aiter(told.stream)))
        await asyncio.sleep(0.01)
        await told.aclose()
        with pytest.raises(httpx.StreamClosed):
            await asyncio.wait_for(reading, 10)

    run(say(OK + b"Content-Length: 4\r\n\r\n"), use)


@pytest.mark.parametrize("is_ended", [True, False])
def test_a_connection_that_comes_too_late_is_closed(is_ended: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the transport's end, or when it is closed already."""

    async def use(transport: Transport, served: Served) -> None:
        async def connect_late(addresses: list[AddrInfoType], *, happy_eyeballs_delay: float) -> socket.socket:
            sock = await start_connection(addresses, happy_eyeballs_delay=happy_eyeballs_delay)
            if is_ended:
                await transport.aclose()
            return sock

        def abort_at_once(connection: module._Connection, wire: asyncio.Transport) -> None:
            made(connection, wire)
            if not is_ended:
                wire.abort()

        made = module._Connection.connection_made
        monkeypatch.setattr(module, "start_connection", connect_late)
        monkeypatch.setattr(module._Connection, "connection_made", abort_at_once)
        with pytest.raises(httpx.ConnectError, match="closed at once"):
            await take(transport, served.url)
        await settle(lambda: not transport._connections and served.open_connections == 0)

    assert run(say(response(200)), use).heard == []


def test_https_is_for_servers_that_prove_who_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a certificate of an authority that is trusted, for the host's name."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    options = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    files = ("-keyout", str(key), "-out", str(certificate))
    subprocess.run(["openssl", *options.split(), *files], check=True, capture_output=True)
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(certificate, key)
    served.set_alpn_protocols(["h2", "http/1.1"])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            protocols.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
            writer.write(response(200, b"x" * 2**20))
        await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=served)
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}/"
        async with server:
            for place, problem in ((url, "self-signed"), (url.replace("localhost", "127.0.0.1"), "")):
                async with Transport() as transport:
                    with pytest.raises(httpx.ConnectError, match="SSLCertVerificationError") as caught:
                        await take(transport, place)
                assert problem in str(caught.value.__cause__)
            assert protocols == []
            trusted = ssl.create_default_context(cafile=str(certificate))
            monkeypatch.setattr(httpx, "create_ssl_context", lambda **_: trusted)
            async with Transport() as transport:
                for _ in range(2):
                    assert len(await take(transport, url)) == 2**20
                port = server.sockets[0].getsockname()[1]
                transport._addresses["localhost.", port] = transport._addresses["localhost", port]
                assert len(await take(transport, url.replace("localhost", "localhost."))) == 2**20
                with pytest.raises(httpx.ConnectError, match="SSLCertVerificationError"):
                    await take(transport, url.replace("localhost", "127.0.0.1"))

    protocols: list[str | None] = []
    asyncio.run(main())
    assert protocols == ["http/1.1"] * 3


class _Wire(asyncio.Transport):
    """asyncio's side of a connection that is none."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def read(*parts: bytes) -> Told:
    """Gives what the transport makes of an answer that comes in these parts, or its error's text."""

    async def main() -> Told:
        connection = module._Connection(set(), [])
        connection.connection_made(_Wire())
        exchange = module._Exchange(connection)
        for part in parts:
            connection.data_received(part)
        connection.connection_lost(None)
        try:
            status, headers = await exchange.wait_for_head()
            return status, headers, b"".join([part async for part in exchange])
        except httpx.TransportError as error:
            return str(error)

    return asyncio.run(main())


def test_a_connection_with_too_much_after_its_answer_is_not_used_again() -> None:
    """Not even in the turn of the loop in which that came."""

    async def main() -> None:
        idle: list[module._Connection] = []
        for after in (b"\r\n", b"\r\n" * HEAD_BYTES):
            connection = module._Connection(set(), idle)
            connection.connection_made(_Wire())
            exchange = module._Exchange(connection)
            connection.data_received(response(200, b"body"))
            connection.data_received(after)
            assert await anext(exchange) == b"body"
            await exchange.aclose()
            assert len(idle) == 1  # the first one's

    asyncio.run(main())


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cuts an answer where these places say, modulo its length."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


PLACES = st.lists(st.integers(min_value=0, max_value=1_000), max_size=8)
BODY = [(b"Content-Type", b"text/plain")]
ANSWERS: list[tuple[bytes, Told]] = [
    (response(200, b"body"), (200, [(b"Content-Length", b"4")], b"body")),
    (b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + response(404), (404, [(b"Content-Length", b"0")], b"")),
    (
        CHUNKED[:-2] + b"Content-Type: text/plain\r\n\r\n2;ext\r\nbo\r\n2\r\ndy\r\n0\r\nX-Trailer: x\r\n\r\n",
        (200, [(b"Transfer-Encoding", b"chunked"), *BODY], b"body"),
    ),
    (OK + b"Content-Type: text/plain\r\n\r\nbody\r\n\r\nHTTP/1.1", (200, BODY, b"body\r\n\r\nHTTP/1.1")),
    (b"HTTP/1.1 204 None\r\n\r\nHTTP/1.1 200 OK\r\nX: y\r\n\r\nmore", (204, [], b"")),
    (b"HTTP/1.1 101 Switch\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n\x00\x01", "the answer is not HTTP/1.1"),
    (b"HTTP/1.1 099 No\r\nContent-Length: 4\r\n\r\nevil" + response(404), "the answer is not HTTP/1.1"),
    (response(200, b"body", length=5), "the connection was closed before the end of the answer"),
    (CHUNKED + b"4\r\nbody!\r\n", "the answer is not HTTP/1.1"),
]


@given(answer=st.sampled_from(ANSWERS), places=PLACES)
def test_an_answer_is_the_same_however_it_comes(answer: tuple[bytes, Told], places: list[int]) -> None:
    """Cut anywhere, also to single bytes."""
    data, told = answer
    assert read(*cut(data, places)) == told
    assert read(*(data[at : at + 1] for at in range(len(data)))) == told


@given(
    data=st.lists(
        st.one_of(
            st.sampled_from(
                [OK, CHUNKED, b"HTTP/1.1 1", b"00 x\r\n\r\n", b"HTTP/1.0 ", b"Content-Length: 3\r\n", b"\r\n"]
            ),
            st.sampled_from([b"0\r\n\r\n", b"3\r\nabc\r\n", b"abc", b"Transfer-Encoding: ", b"Connection: close\r\n"]),
            st.binary(max_size=8),
        ),
        max_size=8,
    ).map(b"".join),
    places=PLACES,
)
def test_whatever_comes_is_an_answer_or_one_error(data: bytes, places: list[int]) -> None:
    """The same, wherever it is cut; what waits for ever is ended by the test's time limit."""
    assert read(*cut(data, places)) == read(data)
