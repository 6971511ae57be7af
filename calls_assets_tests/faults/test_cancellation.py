"""Requests cancelled at any instant leave nothing behind: no slot, no connection, no descriptor, no task."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest

from calls_assets.api import CallsClient, ClientConfig, TransientError
from calls_assets_tests.api.server import Heard, Script, Served, body_of, response, serve
from calls_assets_tests.faults.counts import SEED, choose, tell

pytestmark = pytest.mark.timeout(900)
CONCURRENCY = 16
BATCH = 100
RATE = 4_000.0
LONGEST_SECONDS = 0.03  # a batch takes about twice as long, so that every stage of a request is hit


@dataclass(slots=True)
class Leaks:
    """What was left behind.

    Attributes:
        requests: Requests made.
        ended: How they ended.
        problems: What is wrong.
    """

    requests: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def answer_slowly(random: Random) -> Script:
    """Answers after a while, in pieces; some say 404 with a body, fail, or hang up."""

    async def script(heard: Heard, writer: asyncio.StreamWriter) -> None:
        way = random.random()
        await asyncio.sleep(random.random() * 0.008)
        if way < 0.7:
            whole = response(200, body_of(heard.call_id))
            writer.write(whole[:60])
            await writer.drain()
            await asyncio.sleep(random.random() * 0.004)
            writer.write(whole[60:])
        elif way < 0.8:
            writer.write(response(404, b"x" * 1_000))
        elif way < 0.95:
            writer.write(response(503, b"x" * 1_000, "Retry-After: 0"))
        else:
            writer.transport.abort()

    return script


async def cancel_many(random: Random, requests: int) -> Leaks:
    """Makes requests in batches over one client, cancels half of them at some instant, and looks for what stays."""
    leaks = Leaks()
    async with serve(answer_slowly(random)) as served:
        tasks_before, files_before = len(asyncio.all_tasks()), count_files()
        config = ClientConfig(
            base_url=served.url,
            token="tok-cancel",
            requests_per_second=RATE,
            concurrency=CONCURRENCY,
            timeout_seconds=1.0,
            max_attempts=4,
        )
        async with CallsClient(config, jitter=lambda: random.random() * 0.01) as client:
            while leaks.requests < requests and not leaks.problems:
                await run_batch(client, random, leaks)
                leaks.problems += await find_leaks(client, served, tasks_before)
        await settle(lambda: served.open_connections == 0 and count_files() <= files_before)
        if served.open_connections:
            leaks.problems.append(f"{served.open_connections} connections outlive the client")
        if count_files() > files_before:
            leaks.problems.append(f"{count_files() - files_before} descriptors outlive the client")
    return leaks


async def run_batch(client: CallsClient, random: Random, leaks: Leaks) -> None:
    """Makes requests at once; half are to be cancelled, and most of these are before they end."""

    async def fetch_within(id_: int, seconds: float) -> object:
        async with asyncio.timeout(seconds):
            return await client.fetch(id_)

    loop = asyncio.get_running_loop()
    tasks = []
    for _ in range(BATCH):
        leaks.requests += 1
        way = random.choice(("left", "left", "left", "cancelled", "cancelled twice", "deadline"))
        moment = random.random() * LONGEST_SECONDS
        id_ = leaks.requests
        task = asyncio.create_task(fetch_within(id_, moment) if way == "deadline" else client.fetch(id_))
        tasks.append(task)
        if way.startswith("cancelled"):
            loop.call_later(moment, task.cancel)
        if way == "cancelled twice":
            loop.call_later(moment + random.random() * 0.002, task.cancel)
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        name = type(outcome).__name__
        leaks.ended[name] += 1
        if isinstance(outcome, Exception) and not isinstance(outcome, TransientError | TimeoutError):
            leaks.problems.append(f"a request ended with {name}")


async def find_leaks(client: CallsClient, served: Served, tasks_before: int) -> list[str]:
    """Looks for what a batch left behind; then as many requests as there are slots must all succeed at once."""
    problems = []
    if client._slots._value != CONCURRENCY:
        problems.append(f"{CONCURRENCY - client._slots._value} slots are gone")
    if client._pacer._lock.locked():
        problems.append("the pacer is locked")
    await settle(lambda: served.open_connections <= CONCURRENCY)
    if served.open_connections > CONCURRENCY:
        problems.append(f"{served.open_connections} connections for {CONCURRENCY} slots")
    idle_tasks = tasks_before + served.open_connections  # the server has one for each connection
    await settle(lambda: len(asyncio.all_tasks()) <= tasks_before + served.open_connections)
    if len(asyncio.all_tasks()) > idle_tasks:
        problems.append(f"{len(asyncio.all_tasks()) - idle_tasks} tasks are left")
    try:
        async with asyncio.timeout(8):
            await asyncio.gather(*(ask_until_answered(client, 10**9 + number) for number in range(CONCURRENCY)))
    except TimeoutError:
        problems.append("the next requests do not come through")
    return problems


async def ask_until_answered(client: CallsClient, id_: int) -> None:
    """Asks again when all attempts met failures of the server."""
    while True:
        try:
            await client.fetch(id_)
        except TransientError:
            continue
        return


async def settle(is_settled: Callable[[], bool]) -> None:
    """Waits a little for what ends by itself."""
    for _ in range(100):
        if is_settled():
            return
        await asyncio.sleep(0.01)


def count_files() -> int:
    """Counts this process's open descriptors."""
    return len(os.listdir("/dev/fd"))  # noqa: PTH208 - names of numbers, not paths


def test_cancelled_requests_leave_nothing_behind() -> None:
    """Half of the requests are cancelled at random instants; after each batch everything is free and works."""
    leaks = asyncio.run(cancel_many(Random(SEED), choose(1_000, 20_000)))
    cancelled = leaks.ended["CancelledError"] + leaks.ended["TimeoutError"]
    tell(
        "cancellation",
        requests=leaks.requests,
        cancelled=cancelled,
        ended=dict(leaks.ended),
        violations=len(leaks.problems),
    )
    assert leaks.problems == []
    assert 0.25 < cancelled / leaks.requests < 0.6


@pytest.mark.parametrize("broken", ["slot", "connection", "task"])
def test_a_client_that_leaks_is_caught(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness reports a slot kept on cancellation, a connection not given back, a task left behind."""
    attempt = CallsClient._attempt

    async def keep_slot(client: CallsClient, call_id: int, path: str, *, is_repeat: bool) -> object:
        try:
            return await attempt(client, call_id, path, is_repeat=is_repeat)
        except asyncio.CancelledError:
            client._slots._value -= 1
            raise

    async def keep_connection(client: CallsClient, call_id: int, path: str, *, is_repeat: bool) -> object:
        try:
            return await attempt(client, call_id, path, is_repeat=is_repeat)
        except asyncio.CancelledError:
            kept.append(socket.create_connection(("127.0.0.1", client._url.port or 0)))
            raise

    async def keep_task(client: CallsClient, call_id: int, path: str, *, is_repeat: bool) -> object:
        task = asyncio.create_task(attempt(client, call_id, path, is_repeat=is_repeat))
        others.append(asyncio.create_task(asyncio.sleep(3)))
        return await task

    kept: list[socket.socket] = []
    others: list[asyncio.Task[None]] = []
    variants = {"slot": keep_slot, "connection": keep_connection, "task": keep_task}
    monkeypatch.setattr(CallsClient, "_attempt", variants[broken])
    problems = asyncio.run(cancel_many(Random(SEED), BATCH)).problems
    for connection in kept:
        connection.close()
    assert any(broken in problem for problem in problems)
