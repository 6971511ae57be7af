"""Canaries: a token, names, numbers, notes that stay in raw, tables, marts and reports; and the search for them."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from urllib.parse import quote

from calls_assets_tests.api.server import Heard, Script, Served, response, serve

TOKEN = "canary+tok/en=9f3aZephyr"
PERSON = {
    "name": "Zephyrine Quillfeather",
    "number": "4915550192837",
    "note": "left-handed unicorn",
    "recording": "rec.example/bearer-8841",
    "tag": "tagged-cormorant",
}
NEEDLES = {
    "token": TOKEN,
    "token, quoted": quote(TOKEN, safe=""),
    "token, base64": base64.b64encode(TOKEN.encode()).decode(),
    **PERSON,
    "first name": "Zephyrine",
}
DAY = date(2025, 6, 2)
IDS = range(1, 41)
_START = int(datetime(2025, 6, 2, 1, tzinfo=UTC).timestamp())
_ALLOWED = ("raw", "tables", "marts", "reports")  # marts and reports name agents


def call_of(id_: int, **fields: object) -> dict[str, object]:
    """Gives a call full of canaries."""
    return {
        "id": id_,
        "started_at": _START + 60 * id_,
        "is_ended": True,
        "contact": {"id": 9, "full_name": PERSON["name"], "number": PERSON["number"]},
        "external_numbers": [{"number": PERSON["number"]}],
        "all_agents": [{"id": 3, "alias": PERSON["name"]}],
        "disposition": {"id": 1, "code": PERSON["note"], "note": PERSON["note"]},
        "recordings": [{"id": 1, "url": PERSON["recording"]}],
        "tags": [PERSON["tag"]],
        **fields,
    }


def body_of(id_: int, **fields: object) -> bytes:
    """Gives the body of a call full of canaries."""
    return json.dumps({"calls": call_of(id_, **fields)}).encode()


_EVERYTHING = " ".join((TOKEN, *PERSON.values()))
_LINE = _EVERYTHING.encode()
_STALL_SECONDS = 0.4

FAULTS: dict[str, Callable[[int], bytes]] = {
    "an error page that echoes the request": lambda _id: response(500, _LINE),
    "a page with 200 that echoes the request": lambda _id: response(200, b"<html>" + _LINE),
    "an error with 200": lambda _id: response(200, json.dumps({"error": _EVERYTHING}).encode()),
    "a status with a telling reason": lambda _id: b"HTTP/1.1 418 " + _LINE + b"\r\nContent-Length: 0\r\n\r\n",
    "a redirect that tells": lambda _id: response(
        302, _LINE, f"Location: http://127.0.0.1:9/?t={TOKEN}&n={PERSON['number']}"
    ),
    "a refusal that echoes": lambda _id: response(401, _LINE, f"WWW-Authenticate: Token {TOKEN}"),
    "a denial": lambda _id: response(403, _LINE),
    "another call": lambda id_: response(200, body_of(id_ + 1)),
    "a contact of a wrong type": lambda id_: response(200, body_of(id_, contact=[PERSON["name"]])),
    "a number of a wrong type": lambda id_: response(200, body_of(id_, contact={"number": [PERSON["number"]]})),
    "a start in words": lambda id_: response(200, body_of(id_, started_at=PERSON["name"])),
    "a duration in words": lambda id_: response(200, body_of(id_, duration=PERSON["note"])),
    "a leg of a wrong type": lambda id_: response(200, body_of(id_, all_agents=[PERSON["name"]])),
    "tags of a wrong type": lambda id_: response(200, body_of(id_, tags={PERSON["tag"]: PERSON["tag"]})),
    "a telling key": lambda id_: response(200, body_of(id_, **{PERSON["name"]: [PERSON["name"]]})),
    "a telling id": lambda _id: response(200, json.dumps({"calls": {"id": PERSON["number"], "x": TOKEN}}).encode()),
    "invalid UTF-8": lambda id_: response(200, body_of(id_)[:-2] + b',"x":"\xff' + _LINE + b'"}}'),
    "half a body": lambda id_: response(200, body_of(id_)[:-9], length=9_999),
    "a body cut in the middle of a name": lambda id_: response(200, body_of(id_)[:140]),
    "a deep body": lambda id_: response(200, body_of(id_)[:-2] + b',"x":' + b"[" * 99_999 + _LINE),
    "an oversize body": lambda _id: response(200, (_LINE + b" ") * 60_000),
    "a cookie": lambda id_: response(200, body_of(id_), f"Set-Cookie: session={TOKEN}; Path=/"),
    "a telling Retry-After": lambda _id: response(503, _LINE, f"Retry-After: {TOKEN}"),
    "a telling encoding": lambda id_: response(200, body_of(id_), f"Content-Encoding: {TOKEN}"),
    "a broken header": lambda _id: b"HTTP/1.1 200 OK\r\n" + _LINE + b"\r\n\r\n",
    "a broken status line": lambda _id: _LINE + b"\r\n\r\n",
    "a broken chunk": lambda _id: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + _LINE + b"\r\n",
    "a broken length": lambda _id: b"HTTP/1.1 200 OK\r\nContent-Length: " + _LINE + b"\r\n\r\n",
    "a missing call that tells": lambda _id: response(404, _LINE),
    "a gone call that tells": lambda _id: response(410, _LINE),
    "no fault": lambda id_: response(200, body_of(id_)),
    "silence": lambda _id: b"",
    "hanging up": lambda _id: b"\0",
}


def script_for(fault: str, hit: Callable[[int], bool]) -> Script:
    """Serves the account; the ids that are hit meet the fault."""

    async def script(heard: Heard, writer: asyncio.StreamWriter) -> None:
        id_ = heard.call_id
        if id_ not in IDS:
            writer.write(response(404, _LINE))
        elif not hit(id_):
            writer.write(response(200, body_of(id_)))
        elif fault == "hanging up":
            writer.transport.abort()
        elif fault == "silence":
            await asyncio.sleep(_STALL_SECONDS)
            writer.close()
        else:
            writer.write(FAULTS[fault](id_))
            if fault.startswith(("half", "a broken")):
                await writer.drain()
                writer.close()

    return script


@contextmanager
def serve_aside(script: Script) -> Iterator[Served]:
    """Serves from a thread, for clients that have an event loop of their own."""
    ready, holder, loop = threading.Event(), list[Served](), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def main() -> None:
        async with serve(script) as served:
            holder.append(served)
            ready.set()
            await stop.wait()

    def run() -> None:
        loop.run_until_complete(main())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield holder[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


class Listener(logging.Handler):
    """Keeps every record as text, tracebacks included."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s %(args)s %(pathname)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps one."""
        self.lines.append(self.format(record))


@contextmanager
def listening() -> Iterator[Listener]:
    """Sets every logger to DEBUG and keeps what they say."""
    listener = Listener()
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
    levels = [(logger, logger.level) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        if logger is logging.root or not logger.propagate:
            logger.addHandler(listener)
    try:
        yield listener
    finally:
        for logger, level in levels:
            logger.setLevel(level)
            logger.removeHandler(listener)


def search(text: str, where: str) -> list[str]:
    """Names the canaries in a text."""
    return [f"{name} in {where}" for name, needle in NEEDLES.items() if needle in text]


def search_files(root: Path) -> tuple[list[str], int]:
    """Searches names of files below a directory, and contents outside of the data itself; gives hits and files read."""
    hits, count = [], 0
    for path in sorted(root.rglob("*")):
        hits += search(str(path.relative_to(root)), "a file's name")
        if not path.is_file() or any(part in _ALLOWED for part in path.relative_to(root).parts):
            continue
        count += 1
        place = f"{path.parent.name}/{path.name}"
        hits += search(path.read_bytes().decode("utf-8", "replace"), place)
        if path.suffix == ".db":
            hits += [hit for text in _stored_texts(path) for hit in search(text, place)]
    return hits, count


def _stored_texts(path: Path) -> Iterator[str]:
    """Yields what a database holds, unpacked: Dagster compresses snapshots."""
    with closing(sqlite3.connect(path)) as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        for table in tables:
            for row in database.execute(f'select * from "{table}"'):  # noqa: S608 - names from the database itself
                for value in row:
                    yield _unpack(value) if isinstance(value, bytes) else str(value)


def _unpack(value: bytes) -> str:
    with suppress(zlib.error):
        value = zlib.decompress(value)
    return value.decode("utf-8", "replace")
