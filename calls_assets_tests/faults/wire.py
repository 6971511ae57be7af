"""Hostile answers: what a server may say about one id, byte by byte, and what it has to come to.

A case comes to `row`, `missing`, `quarantined` (stored with its reason), `transient` (asked again, then named),
`refused` or `redirect` (named at once), or `denied` (ends everything).
"""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from calls_assets_tests.api.server import body_of, response

Speak: TypeAlias = Callable[[int, asyncio.StreamWriter], Awaitable[None]]

ENDLESS_BYTES = 96 * 2**20
_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"
_REFUSED = (
    *(201, 202, 203, 204, 205, 206, 207, 208, 226, 304, 400, 402, 405, 406, 407, 409, 410, 411, 412, 413, 414, 415),
    *(416, 417, 418, 421, 422, 423, 424, 426, 428, 431, 451, 600, 777, 999),
)


@dataclass(frozen=True, slots=True)
class Case:
    """One hostile answer.

    Attributes:
        name: What it is.
        comes_to: What it may come to.
        speak: Says it.
    """

    name: str
    comes_to: tuple[str, ...]
    speak: Speak


def list_cases(other: str) -> list[Case]:
    """Gives every case; `other` is the URL of a server that must never be asked."""
    return [*_statuses(other), *_bodies(), *_framings(), *_manners()]


def _say(make: Callable[[int], bytes], *, close: bool = False) -> Speak:
    async def speak(id_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(make(id_))
        if close:
            await writer.drain()
            writer.close()

    return speak


def _fixed(data: bytes, *, close: bool = False) -> Speak:
    return _say(lambda _id: data, close=close)


def _after(head: bytes, id_: int) -> bytes:
    return head + body_of(id_)


def _packed(encoding: str, pack: Callable[[bytes], bytes], id_: int) -> bytes:
    return response(200, pack(body_of(id_)), f"Content-Encoding: {encoding}")


def _enclose(make: Callable[[int], object]) -> Callable[[int], bytes]:
    return lambda id_: json.dumps({"calls": make(id_)}).encode()


def _statuses(other: str) -> Iterator[Case]:
    for status in _REFUSED:
        body = b"" if status in {204, 205, 304} else b'{"error":"no"}'
        yield Case(f"status {status}", ("refused",), _fixed(response(status, body)))
    for status in (408, 425, 429, 500, 501, 502, 503, 504, 505, 507, 508, 511, 529, 599):
        yield Case(f"status {status}", ("transient",), _fixed(response(status, b"<h1>no</h1>")))
    for status in (300, 301, 302, 303, 305, 306, 307, 308, 399):
        where = f"Location: {other}/calls/1"
        yield Case(f"redirect {status}", ("redirect",), _fixed(response(status, b"", where)))
    places = (
        "//127.0.0.1:1/x",
        "/calls/2",
        "file:///etc/passwd",
        "http://user:pw@127.0.0.1:1/",
        "\\\\host\\x",
        "",
        "javascript:0",
    )
    for place in places:
        yield Case(f"redirect to {place!r}", ("redirect",), _fixed(response(302, b"", f"Location: {place}")))
    yield Case("missing", ("missing",), _say(lambda _id: response(404, b"{}")))
    yield Case("missing, endless", ("missing",), _endless(b"HTTP/1.1 404 Not Found\r\n\r\n"))
    yield Case("missing, truncated", ("missing",), _say(lambda _id: response(404, b"{}", length=100), close=True))
    yield Case(
        "continue, then the call",
        ("row",),
        _say(lambda i: b"HTTP/1.1 100 Continue\r\n\r\n" + response(200, body_of(i))),
    )
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n"
    yield Case(
        "early hints, then the call", ("row", "refused", "transient"), _say(lambda i: hints + response(200, body_of(i)))
    )
    upgrade = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    yield Case("switching protocols", ("refused", "transient"), _say(lambda _id: upgrade))


def _bodies() -> Iterator[Case]:
    def case(name: str, comes_to: str | tuple[str, ...], make: Callable[[int], bytes]) -> Case:
        kinds = (comes_to,) if isinstance(comes_to, str) else comes_to
        return Case(name, kinds, _say(lambda id_: response(200, make(id_))))

    quarantined: dict[str, Callable[[int], object]] = {
        "wrong id": lambda i: {"id": i + 1, "started_at": 1},
        "id of another as text": lambda i: {"id": str(i + 1), "started_at": 1},
        "negative id": lambda i: {"id": -i, "started_at": 1},
        "fractional id": lambda i: {"id": i + 0.5, "started_at": 1},
        "huge id": lambda i: {"id": i + 2**64, "started_at": 1},
        "null id": lambda _i: {"id": None, "started_at": 1},
        "boolean id": lambda _i: {"id": True, "started_at": 1},
        "no id": lambda _i: {"started_at": 1},
        "list as id": lambda i: {"id": [i], "started_at": 1},
        "id with blanks": lambda i: {"id": f" {i}", "started_at": 1},
        "no start": lambda i: {"id": i},
        "start zero": lambda i: {"id": i, "started_at": 0},
        "start in words": lambda i: {"id": i, "started_at": "yesterday"},
        "start in milliseconds": lambda i: {"id": i, "started_at": 1_747_839_084_000},
        "start before 1970": lambda i: {"id": i, "started_at": -5},
        "start as an object": lambda i: {"id": i, "started_at": {"seconds": 5}},
        "duration in words": lambda i: {"id": i, "started_at": 1, "duration": "long"},
        "duration beyond 64 bits": lambda i: {"id": i, "started_at": 1, "duration": 2**63},
        "tags as an object": lambda i: {"id": i, "started_at": 1, "tags": {"a": 1}},
        "agents as text": lambda i: {"id": i, "started_at": 1, "all_agents": "nobody"},
        "contact as a number": lambda i: {"id": i, "started_at": 1, "contact": 7},
        "an empty object": lambda _i: {},
        "an empty list": lambda _i: [],
        "nothing": lambda _i: None,
        "text": lambda _i: "call",
        "a number": lambda _i: 5,
        "two calls": lambda i: [{"id": i, "started_at": 1}, {"id": i, "started_at": 1}],
    }
    for name, make in quarantined.items():
        yield case(name, "quarantined", _enclose(make))
    rows: dict[str, Callable[[int], bytes]] = {
        "id as text": lambda i: b'{"calls":{"id":"%d","started_at":1}}' % i,
        "id as a float": lambda i: b'{"calls":{"id":%d.0,"started_at":1}}' % i,
        "a list of one": lambda i: b'{"calls":[{"id":%d,"started_at":1}]}' % i,
        "repeated key, right at last": lambda i: b'{"calls":{"id":0,"id":%d,"started_at":1}}' % i,
        "unknown keys by the thousand": lambda i: body_of(i, **{f"key {n}": n for n in range(5_000)}),
        "two million blanks": lambda i: b" " * 2_000_000 + body_of(i),
        "a text of a million letters": lambda i: body_of(i, type="x" * 1_000_000),
        "escaped zero bytes": lambda i: body_of(i, type="a\0b"),
        "an unknown number of 5,000 digits": lambda i: body_of(i)[:-2] + b',"x":' + b"9" * 5_000 + b"}}",
        "a hundred thousand tags": lambda i: body_of(i, tags=["t"] * 100_000),
    }
    for name, make_row in rows.items():
        yield case(name, "row", make_row)
    deep = b'{"calls":{"id":%d,"started_at":1,"x":'
    broken: dict[str, Callable[[int], bytes]] = {
        "repeated key, wrong at last": lambda i: b'{"calls":{"id":%d,"id":%d,"started_at":1}}' % (i, i + 1),
        "depth 100,000, lists": lambda i: deep % i + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        "depth 100,000, objects": lambda i: deep % i + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}}",
        "depth 80": lambda i: deep % i + b"[" * 80 + b"]" * 80 + b"}}",
        "an id of 5,000 digits": lambda _i: b'{"calls":{"id":' + b"9" * 5_000 + b',"started_at":1}}',
        "a duration of 5,000 digits": lambda i: (
            b'{"calls":{"id":%d,"started_at":1,"duration":' % i + b"9" * 5_000 + b"}}"
        ),
        "a start of 1e999": lambda i: b'{"calls":{"id":%d,"started_at":1e999}}' % i,
        "NaN": lambda i: b'{"calls":{"id":%d,"started_at":1,"duration":NaN}}' % i,
        "Infinity": lambda i: b'{"calls":{"id":%d,"started_at":-Infinity}}' % i,
        "a lone surrogate": lambda i: b'{"calls":{"id":%d,"started_at":1,"type":"\\ud800"}}' % i,
        "a lone surrogate in an unknown key": lambda i: b'{"calls":{"id":%d,"started_at":1,"\\udc00":1}}' % i,
        "invalid UTF-8": lambda i: b'{"calls":{"id":%d,"started_at":1,"type":"\xff\xfe"}}' % i,
        "invalid UTF-8 in an unknown key": lambda i: b'{"calls":{"id":%d,"started_at":1,"\xc3":"\x28"}}' % i,
        "overlong UTF-8": lambda i: b'{"calls":{"id":%d,"started_at":1,"type":"\xc0\xaf"}}' % i,
        "a byte order mark": lambda i: b"\xef\xbb\xbf" + body_of(i),
        "UTF-16": lambda i: body_of(i).decode().encode("utf-16"),
        "UTF-32": lambda i: body_of(i).decode().encode("utf-32"),
        "a trailing comma": lambda i: b'{"calls":{"id":%d,"started_at":1,}}' % i,
        "single quotes": lambda i: b"{'calls':{'id':%d}}" % i,
        "a comment": lambda i: body_of(i) + b"// done",
        "two documents": lambda i: body_of(i) * 2,
        "JSONP": lambda i: b"callback(" + body_of(i) + b")",
        "a raw control character": lambda i: b'{"calls":{"id":%d,"started_at":1,"type":"a\x01b"}}' % i,
        "zero bytes": lambda _i: b"\0" * 100,
        "HTML": lambda _i: b"<!doctype html><meta http-equiv=refresh content='0;url=http://127.0.0.1:1/'>",
        "an empty body": lambda _i: b"",
        "null": lambda _i: b"null",
        "a list": lambda _i: b"[]",
        "an error": lambda _i: b'{"error":"no"}',
        "XML": lambda _i: b"<calls><id>1</id></calls>",
        "gzip without saying so": lambda i: gzip.compress(body_of(i)),
        "half a call": lambda i: body_of(i)[:20],
    }
    for name, make_broken in broken.items():
        yield case(name, "quarantined", make_broken)


def _framings() -> Iterator[Case]:
    yield Case("over the limit by one byte", ("transient",), _say(lambda _id: response(200, b" " * (4 * 2**20 + 1))))
    yield Case("a length of eight exabytes", ("transient",), _say(lambda i: response(200, body_of(i), length=2**63)))
    yield Case("endless, no length", ("transient",), _endless(_OK + b"\r\n"))
    yield Case("endless, chunked", ("transient",), _endless(_CHUNKED, chunked=True))
    yield Case("endless JSON", ("transient",), _endless(_OK + b'\r\n{"calls":[', filling=b"1,"))
    yield Case(
        "too short for its length", ("transient",), _say(lambda i: response(200, body_of(i), length=9_999), close=True)
    )
    yield Case(
        "too long for its length",
        ("row", "transient"),
        _say(lambda i: response(200, body_of(i) + b"smuggled", length=len(body_of(i)))),
    )
    smuggled = response(200, body_of(1))
    yield Case("a second answer behind it", ("row",), _say(lambda i: response(200, body_of(i)) + smuggled))
    yield Case("closed without a length", ("row",), _say(lambda i: _OK + b"\r\n" + body_of(i), close=True))
    yield Case("cut without a length", ("quarantined",), _say(lambda i: _OK + b"\r\n" + body_of(i)[:-3], close=True))
    odd_lengths = (b"-5", b"abc", b"1e3", b"0x10", b"", b"+5", b"5, 6", b"9" * 400)
    for length in odd_lengths:
        head = _OK + b"Content-Length: " + length + b"\r\n\r\n"
        yield Case(f"length {length[:9]!r}", ("transient", "quarantined"), _say(partial(_after, head), close=True))
    twice = _OK + b"Content-Length: 5\r\nContent-Length: 9\r\n\r\n"
    yield Case("two lengths", ("transient", "quarantined"), _say(lambda i: twice + body_of(i), close=True))
    both = b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
    yield Case(
        "a length and chunks", ("transient", "row"), _say(lambda i: _OK + both + _chunk(body_of(i)) + b"0\r\n\r\n")
    )
    chunks: dict[str, bytes] = {
        "no size": b"\r\nabc\r\n0\r\n\r\n",
        "a negative size": b"-5\r\nabc\r\n0\r\n\r\n",
        "a size in words": b"xyz\r\nabc\r\n0\r\n\r\n",
        "a huge size": b"fffffffffffffffffff\r\nabc",
        "too much": b"3\r\nabcdef\r\n0\r\n\r\n",
        "no end": b"5\r\nabc",
        "an endless size line": b"0" * 100_000,
    }
    for name, data in chunks.items():
        yield Case(f"chunks: {name}", ("transient", "quarantined"), _fixed(_CHUNKED + data, close=True))
    tail = b"0\r\nLocation: http://127.0.0.1:1/\r\n\r\n"
    yield Case("chunks with a trailer", ("row", "transient"), _say(lambda i: _CHUNKED + _chunk(body_of(i)) + tail))
    yield Case(
        "chunks, byte by byte",
        ("row",),
        _say(lambda i: _CHUNKED + b"".join(map(_chunk, _bytes(body_of(i)))) + b"0\r\n\r\n"),
    )
    yield Case(
        "an unknown transfer encoding",
        ("transient", "quarantined", "row"),
        _say(lambda i: _OK + b"Transfer-Encoding: rot13\r\n\r\n" + body_of(i), close=True),
    )
    bomb = gzip.compress(b" " * 50_000_000)
    yield Case("a gzip bomb", ("transient",), _say(lambda _id: response(200, bomb, "Content-Encoding: gzip")))
    for encoding, packed in (
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("br", bytes),
        ("zstd", bytes),
        ("nonsense", bytes),
    ):
        yield Case(
            f"encoding {encoding}",
            ("row",) if packed is bytes else ("transient",),  # what is not packed is taken, whatever it is called
            _say(partial(_packed, encoding, packed)),
        )


def _manners() -> Iterator[Case]:
    lines: dict[str, bytes] = {
        "no HTTP": b"hello\r\n\r\n",
        "HTTP/0.9": b"<html>hi</html>\r\n\r\n",
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "TLS": b"\x15\x03\x01\x00\x02\x02\x28",
        "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
        "status of five digits": b"HTTP/1.1 20000 OK\r\n\r\n",
        "negative status": b"HTTP/1.1 -200 OK\r\n\r\n",
        "status in words": b"HTTP/1.1 fine OK\r\n\r\n",
        "version 9.9": b"HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n",
        "a header without a colon": _OK + b"nonsense\r\n\r\n",
        "a header of 200 kB": _OK + b"X: " + b"x" * 200_000 + b"\r\n\r\n",
        "200,000 headers": _OK + b"X: x\r\n" * 200_000 + b"\r\n",
        "a zero byte in a header": _OK + b"X: a\0b\r\nContent-Length: 0\r\n\r\n",
        "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "nothing, then the end": b"",
        "half a status line": b"HTTP/1.1 2",
    }
    for name, data in lines.items():
        yield Case(name, ("transient", "quarantined"), _fixed(data, close=True))
    yield Case("a reset", ("transient",), _reset)
    yield Case("silence", ("transient",), _silence(b""))
    yield Case("silence within the head", ("transient",), _silence(_OK))
    yield Case("silence within the body", ("transient",), _silence(_OK + b"Content-Length: 500\r\n\r\n{"))
    yield Case("one byte a second", ("transient",), _drip(_OK + b"Content-Length: 500\r\n\r\n", b" "))
    yield Case("one header a second", ("transient",), _drip(_OK, b"X: y\r\n"))
    yield Case(
        "wrong content type",
        ("row",),
        _say(lambda i: response(200, body_of(i), "Content-Type: text/html; charset=utf-7")),
    )
    hints = ("Refresh: 0;url=http://127.0.0.1:1/", 'Alt-Svc: h3=":1"', "Set-Cookie: a=b", "Connection: close, upgrade")
    yield Case("tempting headers", ("row",), _say(lambda i: response(200, body_of(i), *hints)))
    latin = "X-Name: M\u00fcller"
    yield Case("a header in Latin-1", ("row",), _say(lambda i: response(200, body_of(i), latin)))


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _bytes(data: bytes) -> Iterator[bytes]:
    return (data[at : at + 1] for at in range(len(data)))


def _endless(head: bytes, *, chunked: bool = False, filling: bytes = b" ") -> Speak:
    block = filling * (65_536 // len(filling))
    piece = _chunk(block) if chunked else block

    async def speak(_id: int, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        sent = 0
        while not writer.is_closing() and sent < ENDLESS_BYTES:
            writer.write(piece)
            sent += len(piece)
            await writer.drain()
        writer.close()

    return speak


def _silence(head: bytes) -> Speak:
    async def speak(_id: int, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        await writer.drain()
        await asyncio.sleep(20)
        writer.close()

    return speak


def _drip(head: bytes, drop: bytes) -> Speak:
    async def speak(_id: int, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        for _ in range(20):
            if writer.is_closing():
                return
            await writer.drain()
            await asyncio.sleep(1)
            writer.write(drop)
        writer.close()

    return speak


async def _reset(_id: int, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
