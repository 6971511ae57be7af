"""A fast server of canned answers: the vendor's API as far as speed is concerned, and nothing of it beside.

    python benchmarks/server.py [--port N] [--calls N] [--day DAY] [--days N] [--zone ZONE] [--core N]

Bodies are those of the simulator's population, encoded before the first request, so that what is measured is the
client. It prints its URL when it is ready.

An answer leaves `latency_ms` after its request was read, unless others are due at the same moment and go first: an
event loop's own timers are up to 2.1 ms late, as they wait for whole milliseconds, and each contender's share of what
is possible would be less by as much. While answers are due soon, the server keeps its core busy.

    GET /calls/{id}   the call, or 404
    GET /stats        what was served since /set: requests, answers, refusals, moments (monotonic clock)
    GET /set?…        calls (how many of them exist), latency_ms, rate (a second; 0: none), rule (bucket or window);
                      counters start again; to be called when no answer is waited for
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import islice
from typing import cast
from urllib.parse import parse_qsl

import msgspec

from calls_assets.simulator import Account, Vendor

FIRST_ID = 65_123
DAY = date(2025, 5, 1)
TOKEN = "benchmark-token"  # noqa: S105 - of a server that lives as long as the benchmark
_TIMER_SECONDS = 0.003  # a timer is over by then
_OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_OTHER = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n%b"


def _refuse(status: bytes, body: bytes, header: bytes = b"") -> bytes:
    return _OTHER % (status, len(body), header, body)


_MISSING = _refuse(b"404 Not Found", b'{"error":"Not found"}')
_DENIED = _refuse(b"401 Unauthorized", b'{"error":"Access denied"}')


def make_bodies(count: int, day: date, zone: str, days: int) -> list[bytes]:
    """Encodes the answers of calls, as they are when they are long over; their ids follow.

    Args:
        count: How many; of several days, about so many.
        day: Their day, or the last of them.
        zone: In which it is that day.
        days: How many days they are of.
    """
    # A Thursday is about as busy as the mean day; what is more than the day's share of `count` stays unused.
    account = Account(
        timezone=zone,
        first_id=FIRST_ID,
        first_day=day - timedelta(days=days - 1),
        calls_per_day=max(50, math.ceil(count * 1.2)) if days == 1 else count // days,
        missing_share=0.0,
        late_share=0.0,
        disorder=20,
        quirk_share=0.0,  # typed peers would stumble over them
    )
    vendor = Vendor(account)
    ids = range(FIRST_ID, FIRST_ID + count if days == 1 else vendor.ids_of_day(day).stop)
    if days == 1 and vendor.ids_of_day(day).stop < ids.stop + account.disorder:
        raise ValueError("the account's first day has too few calls")
    now = datetime.combine(day, datetime.min.time(), UTC) + timedelta(days=60)
    return [msgspec.json.encode({"calls": vendor.answer(call_id, now)}) for call_id in ids]


class Limit:
    """At most `rate` answers a second.

    `bucket`: what was not used in the last second may be used at once (as most gateways count). `window`: no second,
    wherever it begins, has more than `rate`; no client can use all of that without knowing how long its requests
    travel.
    """

    def __init__(self, rate: float, rule: str) -> None:
        self._rate = rate
        self._is_window = rule == "window"
        self._tokens = rate
        self._filled_at = time.monotonic()
        self._taken: deque[float] = deque(maxlen=max(1, int(rate)))

    def wait_seconds(self) -> float:
        """Takes a turn: 0. None there: how long until there is one."""
        now = time.monotonic()
        if self._is_window:
            if len(self._taken) == self._taken.maxlen and now - self._taken[0] < 1:
                return 1 - (now - self._taken[0])
            self._taken.append(now)
            return 0.0
        self._tokens = min(self._rate, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._rate
        self._tokens -= 1
        return 0.0


class State:
    """What all connections share."""

    def __init__(self, bodies: list[bytes]) -> None:
        self._all = {b"%d" % (FIRST_ID + place): _OK % (len(body), body) for place, body in enumerate(bodies)}
        self._later: deque[tuple[float, Callable[[], None]]] = deque()
        self.configure({})

    def configure(self, options: dict[str, str]) -> None:
        """Takes new options and forgets what was counted."""
        self.answers = dict(islice(self._all.items(), int(options.get("calls", len(self._all)))))
        self.latency = float(options.get("latency_ms", 0)) / 1000
        rate = float(options.get("rate", 0))
        self.limit = Limit(rate, options.get("rule", "bucket")) if rate else None
        self.requests = self.refused = self.missing = self.denied = 0
        self.in_flight = self.peak_in_flight = 0
        self.first_request_at: float | None = None
        self.answered_at: list[float] = []  # calls and missing ids
        self.served_at: list[float] = []  # calls only

    def answer_later(self, answer: Callable[[], None]) -> None:
        """Calls when the latency is over; it is the same for all, so the first to come is the first to go."""
        self._later.append((time.monotonic() + self.latency, answer))
        if len(self._later) == 1:
            self._turn()

    def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        while self._later:
            wait = self._later[0][0] - time.monotonic()
            if wait > _TIMER_SECONDS:
                loop.call_later(wait - _TIMER_SECONDS, self._turn)
                return
            if wait > 0:  # a timer would be late: look again in the loop's next turn
                loop.call_soon(self._turn)
                return
            loop.call_soon(self._later.popleft()[1])

    def report(self) -> dict[str, float | int | None]:
        """Sums up; `middle_per_second` is the rate of the middle 80 % of the answers, calls and missing ids."""
        served, answered = self.served_at, self.answered_at
        return {
            "requests": self.requests,
            "calls": len(served),
            "missing": self.missing,
            "refused": self.refused,
            "denied": self.denied,
            "peak_in_flight": self.peak_in_flight,
            "first_request_at": self.first_request_at,
            "last_answer_at": answered[-1] if answered else None,
            "answered_per_second": _rate(answered),
            "middle_per_second": _rate(_middle(answered)),
            "calls_middle_per_second": _rate(_middle(served)),
        }


def _middle(moments: list[float]) -> list[float]:
    tenth = len(moments) // 10
    return moments[tenth : len(moments) - tenth]


def _rate(moments: list[float]) -> float | None:
    if len(moments) < 10 or moments[-1] == moments[0]:
        return None
    return (len(moments) - 1) / (moments[-1] - moments[0])


class Connection(asyncio.Protocol):
    """One client's connection: requests without bodies, in order, answered in order."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answers every complete request."""
        data = self._rest + data if self._rest else data
        while True:
            head, separator, rest = data.partition(b"\r\n\r\n")
            if not separator:
                break
            self._answer(head)
            data = rest
        self._rest = data

    def _answer(self, head: bytes) -> None:
        path = head.split(b" ", 2)[1]
        state = self._state
        if not path.startswith(b"/calls/"):
            self._transport.write(self._control(path))
            return
        if state.first_request_at is None:
            state.first_request_at = time.monotonic()
        state.requests += 1
        state.in_flight += 1
        state.peak_in_flight = max(state.peak_in_flight, state.in_flight)
        if state.latency:
            state.answer_later(partial(self._send, head, path))
        else:
            self._send(head, path)

    def _send(self, head: bytes, path: bytes) -> None:
        state = self._state
        state.in_flight -= 1
        if self._transport.is_closing():
            return
        if TOKEN.encode() not in head:
            state.denied += 1
            self._transport.write(_DENIED)
            return
        wait = state.limit.wait_seconds() if state.limit else 0.0
        if wait > 0:
            state.refused += 1
            header = b"retry-after: %d\r\n" % math.ceil(wait)
            self._transport.write(_refuse(b"429 Too Many Requests", b'{"error":"Too many requests"}', header))
            return
        answer = state.answers.get(path[7:])
        now = time.monotonic()
        state.answered_at.append(now)
        if answer is None:
            state.missing += 1
            self._transport.write(_MISSING)
            return
        state.served_at.append(now)
        self._transport.write(answer)

    def _control(self, path: bytes) -> bytes:
        state = self._state
        name, _, query = path.decode("ascii").partition("?")
        body: object = {"error": "Not found"}
        if name == "/stats":
            body = state.report()
        elif name == "/set":
            state.configure(dict(parse_qsl(query)))
            body = {}
        text = json.dumps(body).encode()
        return _OK % (len(text), text)


async def serve(port: int, state: State) -> None:
    """Serves until the process ends."""
    server = await asyncio.get_running_loop().create_server(
        partial(Connection, state), "127.0.0.1", port, backlog=1_024
    )
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Runs the server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--day", type=date.fromisoformat, default=DAY, help="the day of the calls")
    parser.add_argument("--days", type=int, default=1, help="how many days they are of, up to that day")
    parser.add_argument("--zone", default="UTC", help="the time zone of that day")
    parser.add_argument("--core", type=int, help="the core to run on; any when left out")
    arguments = parser.parse_args()
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    asyncio.run(
        serve(arguments.port, State(make_bodies(arguments.calls, arguments.day, arguments.zone, arguments.days)))
    )


if __name__ == "__main__":
    main()
