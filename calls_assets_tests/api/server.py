"""A raw-socket HTTP server for tests: it says exactly the bytes a test wants, also broken ones.

It keeps what it heard. A script is a function from the request to what is to be done with it; the connection stays
open afterwards unless the script closes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Heard:
    """One request as it came over the wire.

    Attributes:
        path: The request target.
        headers: Header values by lower-case name.
        connection: Number of the connection, from 1.
        at: The loop's clock when the head was complete.
    """

    path: str
    headers: dict[str, str]
    connection: int
    at: float

    @property
    def call_id(self) -> int:
        """The id at the end of the path."""
        return int(self.path.rpartition("/")[2])


_STEPS_OF_ACCEPTING = 5
"""Turns of asyncio's loop from a connection that it took to one that it has handed over, and to its end."""

Script: TypeAlias = Callable[[Heard, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class Served:
    """A running server: where it is and what it heard so far."""

    url: str
    heard: list[Heard] = field(default_factory=list)
    connections: int = 0
    open_connections: int = 0


@contextlib.asynccontextmanager
async def serve(script: Script) -> AsyncIterator[Served]:
    """Runs a script on a free port of the loopback interface."""
    served = Served(url="")
    tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
    is_over = False

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.connections += 1
        served.open_connections += 1
        connection = served.connections
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                heard = Heard(first.split(" ")[1], headers, connection, asyncio.get_running_loop().time())
                served.heard.append(heard)
                await script(heard, writer)
                await writer.drain()
        except (OSError, EOFError):
            pass  # the client went away
        finally:
            served.open_connections -= 1
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if is_over:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(handle(reader, writer))
        tasks[task] = writer
        task.add_done_callback(tasks.pop)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield served
    finally:
        is_over = True
        for listener in server.sockets:
            asyncio.get_running_loop().remove_reader(listener)
        for _ in range(_STEPS_OF_ACCEPTING):  # asyncio forgets a connection that it is taking when the server closes
            await asyncio.sleep(0)
        server.close()
        for task, writer in tasks.items():
            task.cancel()
            writer.transport.abort()  # a task that has not begun closes nothing, and what nobody reads keeps it open
        await asyncio.gather(*tasks, return_exceptions=True)


def body_of(call_id: int, **fields: object) -> bytes:
    """Gives the body of a small valid call."""
    return json.dumps({"calls": {"id": call_id, "started_at": 1747839084, **fields}}).encode()


def response(status: int = 200, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    """Gives the bytes of one response; `length` overrides the true Content-Length."""
    lines = [f"HTTP/1.1 {status} Some Reason", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def say(*answers: bytes) -> Script:
    """Gives one answer after the other, the last one for ever."""
    left = list(answers)

    async def script(heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(left.pop(0) if len(left) > 1 else left[0])

    return script


async def say_the_call(heard: Heard, writer: asyncio.StreamWriter) -> None:
    """Answers every request with the call it asks for."""
    writer.write(response(200, body_of(heard.call_id)))
