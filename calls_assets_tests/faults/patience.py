"""Pauses an API may ask for, each with what it means, and how a client keeps them in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from random import Random

import httpx

from calls_assets.api import CallsClient, ClientConfig
from calls_assets.transport import TARGET
from calls_assets_tests.api.server import body_of
from calls_assets_tests.faults.virtual import run_virtually

LONGEST_SECONDS = 900.0  # a longer wish is cut, by design
LONGEST_BACKOFF_SECONDS = 0.5  # of the first repeat
SPACING_SECONDS = 1.0  # eight requests at ten per second
EPOCH = datetime(2025, 5, 21, 15, 0, tzinfo=UTC)
GARBAGE = (
    *("", " ", "soon", "-5", "+5", "1e3", "0x10", "1,5", "1, 2", "NaN", "inf", "5 s", "\N{ARABIC-INDIC DIGIT THREE}"),
    *("Wed, 99 May 2025 15:00:00 GMT", "Wed, 21 May 99999 15:00:00 GMT", "Wed, 21 May 2025 25:61:61 GMT", "null"),
    *("Wed", "GMT", "2025-05-21", "2025-05-21T15:00:00Z ?", "5;q=1", '"5"', "5.", ".5", "--", "1_0", "٣"),
)


@dataclass(frozen=True, slots=True)
class Wish:
    """A pause an answer asks for.

    Attributes:
        headers: How it says so.
        seconds: What that means, cut at the longest pause; 0 for none.
        kind: What it is a case of.
    """

    headers: list[tuple[bytes, bytes]]
    seconds: float
    kind: str


@dataclass(slots=True)
class Kept:
    """How the pauses were kept.

    Attributes:
        cases: Cases by kind.
        problems: What went wrong.
    """

    cases: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def draw_wish(random: Random, now: datetime) -> Wish:
    """Draws a pause, asked for at an instant of the client's clock."""
    kind = random.choice(("seconds", "date", "date without Date", "past", "absurd", "garbage", "none"))
    if kind == "none":
        return Wish([], 0.0, kind)
    if kind == "garbage":
        return Wish([_retry_after(random.choice(GARBAGE))], 0.0, kind)
    if kind == "seconds" or (kind == "absurd" and random.random() < 0.5):
        seconds = random.choice((0, 1, 2, 59, 60, 899, 900, random.randrange(900)))
        if kind == "absurd":
            seconds = random.choice((901, 86_400, 10**9, 10**30, 10**400))
        text = f"{random.choice(('', ' ', '0', '00'))}{seconds}{random.choice(('', ' '))}"
        return Wish([_retry_after(text)], min(float(min(seconds, 10**9)), LONGEST_SECONDS), kind)
    ahead = {"past": -random.randrange(1, 10**8), "absurd": random.randrange(901, 10**8)}.get(kind)
    ahead = random.randrange(1, 900) if ahead is None else ahead
    if kind == "date without Date":
        until = now.replace(microsecond=0) + timedelta(seconds=ahead)
        return Wish([_retry_after(_write(random, until))], max(0.0, (until - now).total_seconds()), kind)
    skew = random.choice((0, 3_600, -3_600, 86_400 * 3, -86_400 * 400, random.randrange(-5_000, 5_000)))
    theirs = (now + timedelta(seconds=skew)).replace(microsecond=0)
    dates = [
        _retry_after(_write(random, theirs + timedelta(seconds=ahead))),
        (b"Date", _write(random, theirs).encode()),
    ]
    return Wish(dates, min(max(0.0, float(ahead)), LONGEST_SECONDS), kind)


def _retry_after(text: str) -> tuple[bytes, bytes]:
    return b"Retry-After", text.encode()


def _write(random: Random, instant: datetime) -> str:
    """Writes a date in one of the three forms that recipients must take (RFC 9110, section 5.6.7)."""
    form = random.choice(("fixed", "fixed", "rfc850", "asctime"))
    if form == "rfc850" and 1970 <= instant.year < 2068:
        return f"{instant:%A, %d-%b-%y %H:%M:%S} GMT"
    if form == "asctime":
        return f"{instant:%a %b} {instant.day:2} {instant:%H:%M:%S %Y}"
    return format_datetime(instant, usegmt=True)


def keep_pauses(random: Random, cases: int) -> Kept:
    """Lets clients run into pauses: eight tasks, the first two answers of which ask for one.

    A request is a violation when it is sent between such an answer and the end of its pause, or when after all pauses
    the next one comes much later than asked.
    """
    kept = Kept()
    while sum(kept.cases.values()) < cases:
        run_virtually(_keep_two(random, kept))
    return kept


async def _keep_two(random: Random, kept: Kept) -> None:
    loop = asyncio.get_running_loop()
    sent: list[float] = []
    asked: list[tuple[float, Wish]] = []

    def clock() -> datetime:
        return EPOCH + timedelta(seconds=loop.time())

    async def answer(request: httpx.Request) -> httpx.Response:
        sent.append(loop.time())
        number = len(sent)
        await asyncio.sleep(random.random() * 0.2)
        if number > 2:
            return httpx.Response(200, content=body_of(int(request.extensions[TARGET].rpartition(b"/")[2])))
        wish = draw_wish(random, clock())
        kept.cases[wish.kind] = kept.cases.get(wish.kind, 0) + 1
        asked.append((loop.time(), wish))
        return httpx.Response(random.choice((429, 503, 500, 408)), headers=wish.headers)

    config = ClientConfig(base_url="http://vendor.example", token="tok", requests_per_second=10.0, concurrency=2)
    client = CallsClient(config, clock=clock, jitter=random.random)
    client._transport = httpx.MockTransport(answer)  # answers instead of sending
    await asyncio.gather(*(client.fetch(id_) for id_ in range(1, 9)))
    for at, wish in asked:
        kept.problems += [
            f"{wish}: a request {at + wish.seconds - one:.3f} s too early"
            for one in sent
            if at < one < at + wish.seconds - 1e-6
        ]
    over = max(at + wish.seconds for at, wish in asked)
    if sent[-1] > over + 2 * LONGEST_BACKOFF_SECONDS + SPACING_SECONDS + 0.5:
        kept.problems.append(
            f"{[wish for _, wish in asked]}: the last request {sent[-1] - over:.1f} s after the pauses"
        )
