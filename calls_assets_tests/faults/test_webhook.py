"""The webhook receiver under fire: killed while it works, lied to, and held up by slow connections."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import httpx
import pytest

from calls_assets.inbox import Inbox
from calls_assets.lake import LocalStorage, open_storage
from calls_assets.settings import Location
from calls_assets.simulator import Account, Vendor, create_app, serve
from calls_assets_tests.e2e.running import TOKEN, make_environment, materialize, read_rows
from calls_assets_tests.faults.counts import IS_TORTURE, SEED, choose, tell

SECRET, KEY = "harness-secret-0123456789", "harness-signing-key-0123456789"
DELIVERIES, KILLS = choose(400, 10_000), choose(4, 50)
FORGED, SLOW = choose(2_000, 100_000), choose(100, 500)
TODAY = datetime.now(UTC).date()
FORGETFUL = """
import threading
from calls_assets.inbox import Inbox
from calls_assets.cli import main
store = Inbox.put
Inbox.put = lambda self, body, now: threading.Timer(0.2, store, (self, body, now)).start()
main(["webhook", "--port", "{port}"])
"""


class Receiver:
    """A receiver in a process of its own, always on the same port."""

    def __init__(self, environment: dict[str, str], code: str | None = None, output: Path | None = None) -> None:
        self._output = output
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._environment = environment
        script = code or 'from calls_assets.cli import main; main(["webhook", "--port", "{port}"])'
        self._command = [sys.executable, "-c", script.replace("{port}", str(self.port))]
        self.process = self.start()

    @property
    def url(self) -> str:
        """Where deliveries go."""
        return f"http://127.0.0.1:{self.port}/webhooks/nectar-desk/{SECRET}"

    def start(self) -> subprocess.Popen[str]:
        """Starts it; returns when it listens."""
        if self._output is not None:
            return self._start_into_file(self._output)
        self.process = subprocess.Popen(self._command, env=self._environment, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert "listening" in self.process.stdout.readline()
        return self.process

    def _start_into_file(self, output: Path) -> subprocess.Popen[str]:
        with output.open("wb") as file:
            self.process = subprocess.Popen(self._command, env=self._environment, stdout=file, stderr=file, text=True)
        until = time.monotonic() + 20
        while b"listening" not in output.read_bytes() and time.monotonic() < until:
            time.sleep(0.05)
        return self.process

    def kill(self) -> None:
        """Kills it as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def memory_mib(self) -> float:
        """Gives its resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) / 1024


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Gives the variables of a deployment without an API."""
    return make_environment(
        tmp_path,
        "http://127.0.0.1:9",
        CALLS_WEBHOOK_SECRET=SECRET,
        CALLS_ID_SCAN="off",
        CALLS_START_DATE=str(TODAY - timedelta(days=9)),
    )


@contextlib.contextmanager
def running(environment: dict[str, str], code: str | None = None, output: Path | None = None) -> Iterator[Receiver]:
    """Runs a receiver."""
    receiver = Receiver(environment, code, output)
    try:
        yield receiver
    finally:
        receiver.kill()


async def deliver(receiver: Receiver, bodies: list[bytes], kills: int) -> tuple[set[int], list[float]]:
    """Posts bodies at full speed while the receiver is killed at random; gives those answered 200, and latencies."""
    random, queue, taken, times = Random(SEED), list(enumerate(bodies)), set[int](), list[float]()
    deaths = sorted(random.randrange(len(bodies)) for _ in range(kills))

    async def work(client: httpx.AsyncClient) -> None:
        while queue:
            number, body = queue.pop()
            began = time.perf_counter()
            try:
                answer = await client.post(receiver.url, content=body)
            except httpx.TransportError:
                queue.insert(0, (number, body))  # a vendor that got no answer delivers again
                await asyncio.sleep(0.05)
                continue
            times.append(time.perf_counter() - began)
            assert answer.status_code == 200
            taken.add(number)

    async def murder() -> None:
        for death in deaths:
            while len(taken) < death and queue:  # noqa: ASYNC110 - a count, not an event
                await asyncio.sleep(0.001)
            await asyncio.to_thread(receiver.kill)
            await asyncio.to_thread(receiver.start)

    limits = httpx.Limits(max_connections=16)
    async with httpx.AsyncClient(trust_env=False, timeout=20, limits=limits) as client:
        await asyncio.gather(murder(), *(work(client) for _ in range(16)))
    return taken, times


def list_stored(lake: Location) -> set[int]:
    """Lists the numbers of the deliveries in the spool."""
    inbox = Inbox(open_storage(lake))
    return {json.loads(inbox.read(delivery))["number_of_test"] for delivery in inbox.deliveries()}


@pytest.mark.timeout(240)
def test_what_was_answered_200_is_in_the_tables(place: Location, environment: dict[str, str]) -> None:
    """Killed again and again at full speed: every delivery that got a 200 is stored, and then in the tables."""
    lake: Location = Path(environment["CALLS_DATA_DIR"])
    count, kills = DELIVERIES, KILLS
    if isinstance(place, str):
        count, kills, lake = choose(60, 2_000), choose(2, 20), place
        environment["CALLS_DATA_DIR"] = place
    account = Account(
        first_day=TODAY - timedelta(days=3), calls_per_day=2 * count, timezone="UTC", first_id=500, late_share=0.0
    )
    vendor, day, now = Vendor(account), TODAY - timedelta(days=1), datetime.now(UTC)
    calls = [
        (id_, vendor.started_at(id_))
        for id_ in vendor.ids_of_day(day)
        if vendor.answer(id_, now) is not None and vendor.started_at(id_).date() == day
    ][:count]
    bodies = [
        json.dumps({"id": id_, "startedDate": start.isoformat(), "waitingTime": 18, "number_of_test": n}).encode()
        for n, (id_, start) in enumerate(calls)
    ]
    with running(environment) as receiver:
        taken, times = asyncio.run(deliver(receiver, bodies, kills))
    lost = taken - list_stored(lake)
    with serve(create_app(vendor, token=TOKEN)) as server:
        run = materialize(environment | {"CALLS_API_BASE_URL": server.url}, "--partition", day.isoformat())
    assert run.returncode == 0, run.stderr[-2000:]
    rows = read_rows(lake, "calls", day)
    waits = {row["call_id"] for row in rows if row["waiting_seconds"] == 18}
    missing = {calls[number][0] for number in taken} - waits
    tell(
        "webhook killed",
        place="object store" if isinstance(place, str) else "directory",
        deliveries=len(bodies),
        kills=kills,
        answered=len(taken),
        lost=len(lost),
        missing_in_tables=len(missing),
        median_ms=round(1000 * statistics.median(times), 1),
        p99_ms=round(1000 * statistics.quantiles(times, n=100)[98], 1),
    )
    assert len(taken) == len(bodies)
    assert not lost
    assert not missing


def test_a_receiver_that_answers_too_early_is_caught(environment: dict[str, str]) -> None:
    """The twin: 200 before the delivery is durable."""
    bodies = [json.dumps({"id": n + 1, "number_of_test": n}).encode() for n in range(300)]
    with running(environment, FORGETFUL) as receiver:
        taken, _ = asyncio.run(deliver(receiver, bodies, 3))
    assert taken - list_stored(Path(environment["CALLS_DATA_DIR"]))


def forge(
    random: Random, receiver: Receiver, good: tuple[bytes, dict[str, str]]
) -> tuple[str, str, bytes, dict[str, str]]:
    """Makes a request that must not be taken: its kind, address, body and headers."""
    body, headers = good
    url, now = receiver.url, int(time.time())
    kind = random.choice(
        ["path", "header", "unsigned", "other key", "mutated", "oversize", "late", "early", "replayed"]
    )
    other = json.dumps({"id": random.randrange(1, 10**6)}).encode()
    if kind == "path":
        return kind, url[: -random.randrange(1, 20)] + random.choice(["", "x", "/"]), other, sign(other, now)
    if kind == "header":
        return kind, url.rpartition("/")[0], other, sign(other, now) | {"X-Webhook-Secret": random.randbytes(9).hex()}
    if kind == "unsigned":
        return kind, url, other, {}
    if kind == "other key":
        return kind, url, other, sign(other, now, random.randbytes(9).hex())
    if kind == "mutated":
        place = random.randrange(len(body))
        return kind, url, body[:place] + bytes([body[place] ^ random.randrange(1, 256)]) + body[place + 1 :], headers
    if kind == "oversize":
        large = other + b" " * random.randrange(65_537, 300_000)
        return kind, url, large, sign(large, now)
    if kind == "late":
        return kind, url, other, sign(other, now - random.randrange(310, 10**6))
    if kind == "early":
        return kind, url, other, sign(other, now + random.randrange(400, 10**6))
    return kind, url, body, headers


def sign(body: bytes, stamp: int, key: str = KEY) -> dict[str, str]:
    """Gives the headers of a signing proxy."""
    digest = hmac.new(key.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {"X-Webhook-Timestamp": str(stamp), "X-Webhook-Signature": digest}


@pytest.mark.timeout(240)
def test_nothing_forged_is_taken(environment: dict[str, str]) -> None:
    """Wrong secrets, keys and times, changed bodies, oversize and replays: none accepted, memory flat."""
    random, answers = Random(SEED), Counter[str]()

    async def attack(receiver: Receiver) -> None:
        good = b'{"id": 4711, "waitingTime": 3}'
        headers = sign(good, int(time.time()))
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            assert (await client.post(receiver.url, content=good, headers=headers)).status_code == 200
            left = list(range(FORGED))

            async def work() -> None:
                while left:
                    left.pop()
                    kind, url, body, forged = forge(random, receiver, (good, headers))
                    try:
                        status = (await client.post(url, content=body, headers=forged)).status_code
                    except httpx.TransportError:
                        status = 0  # hung up on before the whole body was sent
                    answers[f"{kind} {'taken' if status == 200 else 'refused'}"] += 1

            await asyncio.gather(*(work() for _ in range(8)))

    with running(environment | {"CALLS_WEBHOOK_SIGNING_KEY": KEY}) as receiver:
        before = receiver.memory_mib()
        asyncio.run(attack(receiver))
        growth = receiver.memory_mib() - before
    inbox = Inbox(LocalStorage(Path(environment["CALLS_DATA_DIR"])))
    accepted = sum(count for name, count in answers.items() if name.endswith("taken"))
    tell("webhook forged", requests=FORGED, accepted=accepted, memory_growth_mib=round(growth, 1), kinds=len(answers))
    assert accepted == 0, answers
    assert [delivery.call_id for delivery in inbox.deliveries()] == [4711]
    assert growth < 32


@pytest.mark.timeout(600)
def test_slow_connections_do_not_hold_up_good_ones(environment: dict[str, str]) -> None:
    """Many that drip, and good deliveries amid them, all taken."""
    times: list[float] = []

    async def drip(receiver: Receiver, number: int) -> None:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
            head = f"POST /webhooks/nectar-desk/{SECRET} HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n".encode()
            try:
                for byte in head if number % 2 else head + b" " * 400:
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0.02 if number % 3 else 0.3)
            finally:
                writer.transport.abort()

    async def attack(receiver: Receiver) -> None:
        slow = [asyncio.create_task(drip(receiver, number)) for number in range(SLOW)]
        await asyncio.sleep(0.5)
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            for number in range(100):
                began = time.perf_counter()
                answer = await client.post(receiver.url, content=json.dumps({"id": number + 1}).encode())
                times.append(time.perf_counter() - began)
                assert answer.status_code == 200
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)

    with running(environment) as receiver:
        asyncio.run(attack(receiver))
    p99 = statistics.quantiles(times, n=100)[98]
    tell("webhook slow", slow=SLOW, good=len(times), p99_ms=round(1000 * p99, 1))
    assert p99 < 1 or not IS_TORTURE


def test_no_canary_leaves_the_inbox_and_raw(environment: dict[str, str]) -> None:
    """Names, notes and secrets of deliveries, good, bad and refused: in no output, log, event or file name."""
    canaries = [b"Canary Contact", b"+4930canary", b"canary-note", SECRET.encode(), b"wrong-canary-secret"]
    day = TODAY - timedelta(days=1)
    vendor = Vendor(Account(first_day=TODAY - timedelta(days=3), calls_per_day=200, timezone="UTC", first_id=500))
    ids = [id_ for id_ in vendor.ids_of_day(day) if vendor.answer(id_, datetime.now(UTC)) is not None][:5]
    root = Path(environment["CALLS_DATA_DIR"]).parent
    output = root / "receiver.log"
    code = 'from calls_assets.cli import main; main(["webhook", "--port", "{port}"])'
    code = f'import logging; logging.basicConfig(level="DEBUG"); {code}'
    with running(environment, code, output) as receiver, httpx.Client(trust_env=False) as client:
        for id_ in ids:
            contact = {"firstName": "Canary Contact", "phone": "+4930canary", "disposition": {"note": "canary-note"}}
            start = vendor.started_at(id_).isoformat()
            body = {"id": id_, "startedDate": start, "waitingTime": 18, "contact": contact}
            assert client.post(receiver.url, json=body).status_code == 200
        assert client.post(receiver.url, json={"id": "Canary Contact"}).status_code == 400
        assert client.post(receiver.url, content=b"Canary Contact" * 9_000).status_code == 413
        assert client.post(receiver.url.replace(SECRET, "wrong-canary-secret"), json={"id": 1}).status_code == 401
    with serve(create_app(vendor, token=TOKEN)) as server:
        run = materialize(environment | {"CALLS_API_BASE_URL": server.url}, "--partition", day.isoformat())
    assert run.returncode == 0, run.stderr[-2000:]
    lake = Path(environment["CALLS_DATA_DIR"])
    allowed = {lake / name for name in ("raw", "inbox")}
    seen = [run.stdout.encode(), run.stderr.encode()]
    files = [path for path in root.rglob("*") if path.is_file() and not allowed & set(path.parents)]
    seen += [path.read_bytes() + str(path).encode() for path in files]
    seen += [str(path).encode() for path in lake.rglob("*")]
    hits = [canary for canary in canaries if any(canary in text for text in seen)]
    tell("webhook canaries", files=len(files), hits=len(hits))
    assert output.read_bytes().startswith(b"calls-assets webhook")
    assert any(b"Canary Contact" in path.read_bytes() for path in (lake / "inbox/rejected").iterdir())
    assert not hits
