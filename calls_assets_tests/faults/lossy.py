"""An API that loses answers: an account over real HTTP whose attempts fail in eleven ways, and what must hold of it.

What belongs here: the server's behaviour, and the questions asked of what it heard and of the lake filled from it.
Every question gives its violations as texts, so that a harness can count them and a twin expect them.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

from calls_assets.api import CallsClient, ClientConfig, PermanentError
from calls_assets.derive import derive_day
from calls_assets.ingest import SweepFailedError, SweepOptions, SweepReport, sweep
from calls_assets.lake import Lake
from calls_assets_tests.api.server import Heard, Script, body_of, response, serve

ZONE = ZoneInfo("UTC")
DAY = date(2025, 5, 20)
MIDNIGHT = datetime(2025, 5, 20, tzinfo=UTC)
RUNGS = (timedelta(hours=1), timedelta(hours=24), timedelta(days=7))
TOKEN = "tok-lossy"
NEXT_DAY_IDS = 40
IN_FLIGHT_SECONDS = 0.25  # requests that were under way when a pause was answered
RATE_SLACK = 0.03  # of the rate: arrivals jitter where departures do not
WAYS = (
    "429 seconds",
    "429 date",
    "500",
    "502",
    "503",
    "504",
    "reset",
    "stall",
    "truncated",
    "html",
    "wrong content",
)


@dataclass
class LossyApi:
    """An account of one day and a bit, and how its API fails.

    Attributes:
        random: Decides what befalls each attempt, and how.
        count: Calls of the day; every fiftieth id is missing.
        failing: Share of the attempts that fail.
        pauses: How many answers may ask for a second's pause; further ones ask for none.
        timeout_seconds: The client's deadline: a stall lasts longer.
        first_id: By default met at once, also when many probes fail.
        dies_after: Requests after which it accepts connections and never answers.
        befell: How often each way befell an attempt.
        floors: Per pause, when it was asked for and until when.
    """

    random: Random
    count: int
    failing: float = 0.3
    pauses: int = 3
    timeout_seconds: float = 1.0
    first_id: int = 1
    dies_after: float = math.inf
    befell: Counter[str] = field(default_factory=Counter)
    floors: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.starts: dict[int, int] = {}
        self._seed = self.random.getrandbits(64)
        self._requests = 0
        self._asked = Counter[int]()
        id_ = self.first_id
        for index in range(self.count + NEXT_DAY_IDS):
            offset = index * 86_400 // self.count if index < self.count else 86_400 + (index - self.count) * 60
            self.starts[id_] = int(MIDNIGHT.timestamp()) + offset
            id_ += 2 if index % 50 == 49 else 1

    @property
    def ids_of_day(self) -> list[int]:
        """The ids of the day's calls."""
        end = MIDNIGHT.timestamp() + 86_400
        return [id_ for id_, start in self.starts.items() if start < end]

    def draw_way(self, id_: int, attempt: int) -> str | None:
        """Gives the way in which an attempt fails, None if it does not: the order of the requests decides nothing."""
        random = Random(f"{self._seed} {id_} {attempt}")
        return random.choice(WAYS) if random.random() < self.failing else None

    def doomed(self, attempts: int) -> set[int]:
        """Gives the ids of the day of which so many attempts all fail."""
        return {id_ for id_ in self.ids_of_day if all(self.draw_way(id_, number + 1) for number in range(attempts))}

    def body(self, id_: int) -> bytes:
        """Gives the body of a call."""
        return body_of(id_, started_at=self.starts[id_], is_ended=True, duration=id_ % 1_000, tags=[f"tag {id_}"])

    def script(self) -> Script:
        """Gives what the server does with a request."""

        async def answer(heard: Heard, writer: asyncio.StreamWriter) -> None:
            self._requests += 1
            self._asked[heard.call_id] += 1
            if self._requests > self.dies_after:
                await _hold(writer, 120.0)
            elif way := self.draw_way(heard.call_id, self._asked[heard.call_id]):
                self.befell[way] += 1
                await self._fail(way, heard, writer)
            else:
                writer.write(self._right(heard.call_id))

        return answer

    def _right(self, id_: int) -> bytes:
        return response(200, self.body(id_)) if id_ in self.starts else response(404, b'{"error":"Not found"}')

    async def _fail(self, way: str, heard: Heard, writer: asyncio.StreamWriter) -> None:
        if way == "429 seconds":
            seconds = self._pause(1)
            writer.write(response(429, b"{}", f"Retry-After: {seconds}"))
        elif way == "429 date":
            theirs = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=self.random.choice((-7_200, 0, 500)))
            until = theirs + timedelta(seconds=self._pause(1))
            dates = [
                f"{name}: {format_datetime(at, usegmt=True)}" for name, at in (("Date", theirs), ("Retry-After", until))
            ]
            writer.write(response(429, b"{}", *dates))
        elif way == "reset":
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close sends RST
            writer.transport.abort()
        elif way == "stall":
            await _hold(writer, 1.5 * self.timeout_seconds)
        elif way == "truncated":
            whole = self._right(heard.call_id)
            writer.write(whole[: -self.random.randrange(1, 15)])
            await writer.drain()
            writer.close()
        elif way == "html":
            writer.write(response(200, b"<!doctype html><h1>Be right back</h1>", "Content-Type: text/html"))
        elif way == "wrong content":
            bodies = (b'{"error":"try again later"}', b"null", b"[]", b'"busy"', b"0", b"{}", b"")
            writer.write(response(200, self.random.choice(bodies), "Content-Type: application/json"))
        else:
            writer.write(response(int(way), b'{"error":"later"}'))

    def _pause(self, seconds: int) -> int:
        if not self.pauses:
            return 0
        self.pauses -= 1
        now = asyncio.get_running_loop().time()
        self.floors.append((now, now + seconds))
        return seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One sweep over a lossy API.

    Attributes:
        report: What the sweep reports, also when it failed.
        failure: What it failed with, None if it did not.
        heard: The requests the server heard.
        sent: The requests the client counted.
        seconds: How long it took.
    """

    report: SweepReport | None
    failure: Exception | None
    heard: Sequence[Heard]
    sent: int
    seconds: float


async def _hold(writer: asyncio.StreamWriter, seconds: float) -> None:
    """Keeps a client waiting, then hangs up."""
    await asyncio.sleep(seconds)
    writer.close()


async def sweep_over(
    root: Path, api: LossyApi, url: str, heard: list[Heard], *, rate: float, attempts: int = 8, jitter: float = 0.05
) -> Outcome:
    """Sweeps the day with the real client.

    Args:
        root: The lake.
        api: The account.
        url: Where it is served.
        heard: The server's list; cut at what was heard before.
        rate: Requests per second.
        attempts: Attempts per id.
        jitter: Share of the longest backoff to wait: little, so that a test does not take an hour.
    """
    before, began = len(heard), asyncio.get_running_loop().time()
    config = ClientConfig(
        base_url=url,
        token=TOKEN,
        requests_per_second=rate,
        concurrency=32,
        timeout_seconds=api.timeout_seconds,
        max_attempts=attempts,
    )
    options = SweepOptions(timezone=ZONE, reread_after=RUNGS, concurrency=32, requests_per_second=rate)
    report: SweepReport | None = None
    failure: Exception | None = None
    async with CallsClient(config, jitter=lambda: jitter * api.random.random()) as client:
        try:
            report = await sweep(
                Lake.open(root), client, [DAY], options=options, now=lambda: datetime.now(UTC), log=lambda _line: None
            )
        except SweepFailedError as error:
            report, failure = error.report, error
        except PermanentError as error:
            failure = error
        seconds = asyncio.get_running_loop().time() - began
        return Outcome(
            report=report, failure=failure, heard=heard[before:], sent=client.stats.requests, seconds=seconds
        )


def run_once(root: Path, api: LossyApi, *, rate: float, attempts: int = 8, jitter: float = 0.05) -> Outcome:
    """Serves the account and sweeps its day once."""

    async def main() -> Outcome:
        async with serve(api.script()) as served:
            return await sweep_over(root, api, served.url, served.heard, rate=rate, attempts=attempts, jitter=jitter)

    return asyncio.run(main())


def find_wrong_rows(root: Path, api: LossyApi, *, without: Sequence[int] = ()) -> list[str]:
    """Compares the day's rows with the account; `without` are the ids that were given up by name."""
    rows = derive_day(Lake.open(root).read_day(DAY).versions, DAY, timezone=ZONE, reread_after=RUNGS)[
        "calls"
    ].to_pylist()
    counted = Counter(row["call_id"] for row in rows)
    expected = set(api.ids_of_day) - set(without)
    problems = [f"{id_}: {count} rows" for id_, count in counted.items() if count > 1]
    problems += [f"{id_}: no row" for id_ in sorted(expected - counted.keys())]
    problems += [f"{id_}: a row nobody expects" for id_ in sorted(counted.keys() - expected)]
    for row in rows:
        call = json.loads(api.body(row["call_id"]))["calls"]
        shown = (int(row["started_at"].timestamp()), row["duration_seconds"], row["tags"])
        if shown != (call["started_at"], call["duration"], call["tags"]):
            problems.append(f"{row['call_id']}: another call's content")
    return problems


def stored_ids(root: Path) -> tuple[set[int], set[int]]:
    """Gives the ids with a valid call in the lake, and those with nothing but quarantined answers."""
    lake = Lake.open(root)
    rows = [
        row
        for segment in lake.segments()
        for row in lake.read_segment(segment.key, ("call_id", "http_status", "error")).to_pylist()
        if row["http_status"] == 200
    ]
    valid = {row["call_id"] for row in rows if row["error"] is None}
    return valid, {row["call_id"] for row in rows} - valid


def find_haste(heard: Sequence[Heard], rate: float, *, window: float = 1.0) -> list[str]:
    """Names the moments at which more requests arrived within a window than the rate allows."""
    allowed = rate * window * (1 + RATE_SLACK) + 2
    times = sorted(one.at for one in heard)
    return [
        f"{last - first + 1} requests within {window} s, {allowed:.0f} are allowed"
        for first, last in _windows(times, window)
        if last - first + 1 > allowed
    ]


def busiest(heard: Sequence[Heard], window: float = 1.0) -> int:
    """Gives the most requests that arrived within a window."""
    return max((last - first + 1 for first, last in _windows(sorted(one.at for one in heard), window)), default=0)


def _windows(times: Sequence[float], window: float) -> Iterator[tuple[int, int]]:
    first = 0
    for last, at in enumerate(times):
        while at - times[first] >= window:
            first += 1
        yield first, last


def find_impatience(heard: Sequence[Heard], floors: Sequence[tuple[float, float]]) -> list[str]:
    """Names requests that came while the server had asked for a pause."""
    return [
        f"a request {until - one.at:.2f} s before the pause was over"
        for asked, until in floors
        for one in heard
        if asked + IN_FLIGHT_SECONDS < one.at < until
    ]
