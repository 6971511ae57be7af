"""The HTTP client: one call by its id, politely, or an error that says whether asking again makes sense.

What belongs here: requests, deadlines, retries, the rate limit, the token. What stays out: what a body means
(`contract`), which ids to ask for, and where answers go.

Requests are handed straight to a transport of httpx: what its client adds (redirects, cookies, authentication,
environment proxies) is refused here anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import math
import random
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import msgspec

from calls_assets.api.errors import (
    AccessDeniedError,
    RedirectRefusedError,
    RequestRefusedError,
    TransientError,
)
from calls_assets.transport import TARGET, Transport

HIGHEST_ID = 2**63 - 1
_RETRIED_STATUSES = frozenset({408, 425, 429, *range(500, 600)})
_DENIED_STATUSES = frozenset({401, 403})
_REDIRECT_STATUSES = frozenset(range(300, 400)) - {304}
_BACKOFF_BASE_SECONDS = 0.5
_BACKOFF_CAP_SECONDS = 30.0
_LONGEST_RETRY_AFTER_SECONDS = 900.0  # a longer wish is better served by a failed run and the next schedule
_PACE_SLACK_SECONDS = 0.005  # lateness of the loop's timers that the next slots may make up for
_SLOWER = 1.03
_SLOWEST = 2.0  # some refuse at any rate
_CALM_SECONDS = 60.0
_DRAIN_SECONDS = 1.0
_DRAIN_BYTES = 64 * 1024
_TOKEN_FILE_BYTES = 64 * 1024
_MOST_NEW_TOKENS = 3  # per call: a file that changes faster than the API accepts is a fault, not a rotation
_BASE_URL_ADVICE = "the base URL must be an http(s) URL without user, password, query and fragment"
_TOKEN = re.compile(r"[\x21-\x7e]+")
_URL_TEXT = re.compile(r"[\x21-\x7e]+")
_HOST = re.compile(r"[0-9A-Za-z.:_-]+")  # a name, or an address of either kind
_DELAY_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API said about one id.

    Attributes:
        call_id: The id.
        fetched_at: When the answer was complete (UTC).
        http_status: 200 or 404.
        body: The bytes of a 200, unchanged; None for a 404.
    """

    call_id: int
    fetched_at: datetime
    http_status: int
    body: bytes | None = field(repr=False)


@dataclass(slots=True)
class ClientStats:
    """What a client has cost so far.

    Attributes:
        requests: HTTP attempts sent, repeats included.
        retries: Attempts that repeated an earlier one for the same id.
        waited_seconds: Time tasks slept before repeating (backoff, Retry-After), summed over tasks.
    """

    requests: int = 0
    retries: int = 0
    waited_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """How to reach the API and how hard to lean on it.

    Attributes:
        base_url: Base of `{base}/calls/{id}`; a path prefix is kept.
        token: The access token; may be "" when `token_file` is given, which is then read at the start.
        token_file: File that holds the token; read again when the API refuses the token.
        requests_per_second: Upper bound of the request rate, retries included.
        concurrency: Upper bound of requests in flight.
        timeout_seconds: Total time of one attempt, the body included.
        max_attempts: Attempts per id.
        body_limit_bytes: Longest body that is accepted.

    Raises:
        ValueError: One line that says which value is wrong; the token is never repeated.
    """

    base_url: str
    token: str = field(repr=False)
    token_file: Path | None = None
    requests_per_second: float = 10.0
    concurrency: int = 16
    timeout_seconds: float = 30.0
    max_attempts: int = 5
    body_limit_bytes: int = 4 * 2**20

    def __post_init__(self) -> None:
        _check_base_url(self.base_url)
        if self.token or self.token_file is None:
            _check_token(self.token, "the access token")
        if not (0 < self.requests_per_second < math.inf and 0 < self.timeout_seconds < math.inf):
            raise ValueError("requests_per_second and timeout_seconds must be positive numbers")
        if min(self.concurrency, self.max_attempts, self.body_limit_bytes) < 1:
            raise ValueError("concurrency, max_attempts and body_limit_bytes must be at least 1")


_utc_now = partial(datetime.now, UTC)


class CallsClient:
    """Fetches calls by id over one pool of connections; safe to share among the tasks of one event loop.

    Use as an async context manager. Once the API has refused the token for good, every later `fetch` raises
    `AccessDeniedError` without a request.

    Attributes:
        stats: Running totals.
    """

    def __init__(
        self,
        config: ClientConfig,
        *,
        clock: Callable[[], datetime] = _utc_now,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Prepares a client; nothing is sent.

        Args:
            config: Where and how.
            clock: The wall clock, aware, for `fetched_at` and for judging Retry-After dates.
            jitter: Share (0 to 1) of the longest backoff to wait.

        Raises:
            ValueError: The token is only in `token_file`, and that cannot be read or holds no usable token.
        """
        self.stats = ClientStats()
        self._config = config
        self._clock = clock
        self._jitter = jitter
        self._url = httpx.URL(config.base_url.rstrip("/") + "/calls/")
        self._path = self._url.raw_path
        self._token = config.token or _read_token(config.token_file)
        self._pattern = _build_pattern(self._url, self._token)
        self._token_lock = asyncio.Lock()
        self._slots = asyncio.Semaphore(config.concurrency)
        self._pacer = _Pacer(config.requests_per_second)
        self._denied: str | None = None
        self._transport: httpx.AsyncBaseTransport | None = None

    async def __aenter__(self) -> Self:
        self._transport = await Transport().__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    @property
    def is_paused(self) -> bool:
        """Whether a Retry-After holds back all tasks at the moment."""
        return self._pacer.is_paused

    async def fetch(self, call_id: int) -> Answer:
        """Asks for one call, repeating what may pass.

        Args:
            call_id: The id, 1 to 2^63-1.

        Returns:
            The answer: 200 with its body, or 404. A 200 without an envelope at the last attempt too is returned as is.

        Raises:
            ValueError: The id is out of bounds.
            AccessDeniedError: 401 or 403, now or earlier.
            RedirectRefusedError: 3xx.
            RequestRefusedError: Another status without a rule.
            TransientError: All attempts failed.
            RuntimeError: Used outside `async with`.
        """
        path = check_call_id(call_id)
        failures = 0
        new_tokens = 0
        while True:
            outcome = await self._attempt(call_id, path, is_repeat=failures + new_tokens > 0)
            if isinstance(outcome, Answer):
                return outcome
            if isinstance(outcome, _TokenRefused):
                new_tokens += 1
                await self._renew_token(outcome, is_last=new_tokens > _MOST_NEW_TOKENS)
                continue
            failures += 1
            if failures >= self._config.max_attempts:
                if outcome.answer is not None:
                    return outcome.answer
                raise TransientError(call_id, failures, outcome.reason)
            longest = min(_BACKOFF_CAP_SECONDS, _BACKOFF_BASE_SECONDS * 2 ** (failures - 1))
            await self._wait(max(outcome.retry_after, longest * self._jitter()))

    async def _wait(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        try:
            await asyncio.sleep(seconds)
        finally:
            self.stats.waited_seconds += loop.time() - start

    async def _attempt(self, call_id: int, path: str, *, is_repeat: bool) -> Answer | _TokenRefused | _Failure:
        self._refuse_if_denied()
        await self._slots.acquire()
        try:
            await self._pacer.wait_for_turn()
            self._refuse_if_denied()  # another task may have been refused while this one waited
            self.stats.requests += 1
            self.stats.retries += is_repeat
            try:
                async with asyncio.timeout(self._config.timeout_seconds):
                    return await self._exchange(call_id, path)
            except TimeoutError:
                return _Failure(f"no complete answer within {self._config.timeout_seconds:g} s")
            except httpx.TransportError as error:
                return _Failure(f"connection failed ({error})")
        finally:
            self._slots.release()

    async def _exchange(self, call_id: int, path: str) -> Answer | _TokenRefused | _Failure:
        transport = self._transport
        if transport is None:
            raise RuntimeError("CallsClient is used outside `async with`")
        token = self._token
        response = await transport.handle_async_request(self._build_request(path))
        try:
            status = response.status_code
            if status == 200:
                return await self._read_call(call_id, response)
            if status == 404:
                await _drain(response)
                return Answer(call_id, self._clock(), 404, None)
            if status in _RETRIED_STATUSES:
                if status == 429:
                    self._pacer.slow_down()
                retry_after = self._heed_retry_after(response)
                await _drain(response)
                return _Failure(f"HTTP {status}", retry_after)
        finally:
            await response.stream.aclose()  # type: ignore[union-attr]  # the transport's streams are asynchronous
        if status in _DENIED_STATUSES:
            return _TokenRefused(status, token)
        if status in _REDIRECT_STATUSES:
            raise RedirectRefusedError(f"the API answered with a redirect (HTTP {status}): check the base URL")
        raise RequestRefusedError(f"the API answered with the unexpected status HTTP {status}")

    def _build_request(self, path: str) -> httpx.Request:
        """Copies the pattern of a request: building each anew was a tenth of all work for a call."""
        request = httpx.Request.__new__(httpx.Request)
        request.__dict__ = self._pattern | {"extensions": {TARGET: self._path + path.encode()}}
        return request

    async def _read_call(self, call_id: int, response: httpx.Response) -> Answer | _Failure:
        limit = self._config.body_limit_bytes
        body = await _read_body(response, limit)
        if body is None:
            return _Failure(f"body larger than {limit} bytes")
        answer = Answer(call_id, self._clock(), 200, body)
        if _has_envelope(body):
            return answer
        if _is_coding(response.headers.get("content-encoding", "")):
            return _Failure("a compressed body, which was not asked for")
        return _Failure("HTTP 200 with a body that holds no call", answer=answer)

    def _heed_retry_after(self, response: httpx.Response) -> float:
        """Pauses all tasks for as long as the response asks; gives that time in seconds."""
        value = response.headers.get("retry-after")
        if value is None:
            return 0.0
        seconds = parse_retry_after(value, _parse_date(response.headers.get("date")) or self._clock()) or 0.0
        self._pacer.pause(seconds)
        return seconds

    def _refuse_if_denied(self) -> None:
        if self._denied is not None:
            raise AccessDeniedError(self._denied)

    async def _renew_token(self, refused: _TokenRefused, *, is_last: bool) -> None:
        """Makes a token other than the refused one current, or stops this client for good."""
        async with self._token_lock:
            self._refuse_if_denied()
            if self._token != refused.token and not is_last:
                return  # another task has read the new one already
            problem = "the token was refused"
            if self._config.token_file is not None and not is_last:
                try:
                    token = await asyncio.to_thread(_read_token, self._config.token_file)
                except ValueError as error:
                    problem = str(error)
                else:
                    if token != refused.token:
                        self._token, self._pattern = token, _build_pattern(self._url, token)
                        return
                    problem = "the token was refused, and its file still holds the same"
            self._denied = f"the API denied access (HTTP {refused.status}): {problem}"
            self._refuse_if_denied()


@dataclass(frozen=True, slots=True)
class _TokenRefused:
    status: int
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Failure:
    """An attempt that may be repeated; `answer` is what remains when it may not."""

    reason: str
    retry_after: float = 0.0
    answer: Answer | None = None


class _Pacer:
    """Hands out turns, evenly spaced and one at a time.

    Two rules hold together: a slot every 1/rate seconds, where the little lateness of timers is made up for but an
    idle or blocked time is not; and never more than rate turns in the time rate turns take, counted on real instants.
    Both are stretched while the other side refuses: it may allow less than the rate, or count in a way that a client
    cannot know, as requests do not travel equally long.
    """

    def __init__(self, rate: float) -> None:
        self._interval = 1.0 / rate
        window = max(1, math.floor(rate))
        self._window_seconds = window * self._interval
        self._turns: deque[float] = deque(maxlen=window)
        self._next = -math.inf
        self._paused_until = -math.inf
        self._stretch = 1.0
        self._stretched_at = -math.inf
        self._lock = asyncio.Lock()

    @property
    def is_paused(self) -> bool:
        return asyncio.get_running_loop().time() < self._paused_until

    def pause(self, seconds: float) -> None:
        self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + seconds)

    def slow_down(self) -> None:
        """Heeds a refusal: turns come 3 % slower, at half the rate at last; once in the time rate turns take."""
        now = asyncio.get_running_loop().time()
        if now - self._stretched_at >= self._window_seconds:
            self._stretch = min(self._stretch * _SLOWER, _SLOWEST)
            self._stretched_at = now

    def _speed_up(self, now: float) -> None:
        """Goes a tenth of the way back to the rate in each minute without a refusal."""
        if now - self._stretched_at >= _CALM_SECONDS:
            self._stretch -= (self._stretch - 1.0) / 10
            self._stretched_at = now

    async def wait_for_turn(self) -> None:
        if not self._lock.locked() and self._take_turn() == 0:
            return
        async with self._lock:
            seconds = self._take_turn()
            while seconds > 0:
                await asyncio.sleep(seconds)
                seconds = self._take_turn()

    def _take_turn(self) -> float:
        """Takes the turn that is due and gives 0, or takes none and gives the seconds until one is."""
        now = asyncio.get_running_loop().time()
        slot = due = max(self._next, self._paused_until)
        if len(self._turns) == self._turns.maxlen:
            due = max(slot, self._turns[0] + self._window_seconds * self._stretch)
        if due > now:
            return due - now
        self._turns.append(now)
        if self._stretch > 1.0:
            self._speed_up(now)
        # A turn that the window held back does not move the slots: else each second would lose its latest turn's delay.
        self._next = self._interval * self._stretch + (
            now if slot == -math.inf else max(slot, now - _PACE_SLACK_SECONDS)
        )
        return 0.0


def parse_retry_after(value: str, now: datetime) -> float | None:
    """Reads a Retry-After header, in seconds or as a date (RFC 9110, section 10.2.3).

    Args:
        value: The header.
        now: The instant a date is judged against, aware: the response's Date, as clocks differ.

    Returns:
        Seconds to wait, from 0 (also for a past date) to 900; None for anything else.
    """
    text = value.strip()
    if _DELAY_SECONDS.fullmatch(text):
        return min(float(text), _LONGEST_RETRY_AFTER_SECONDS)
    date = _parse_date(text)
    if date is None:
        return None
    return min(max(0.0, (date - now).total_seconds()), _LONGEST_RETRY_AFTER_SECONDS)


def check_call_id(call_id: int) -> str:
    """Gives an id as it stands in the path, so that nothing else can get there.

    Raises:
        ValueError: It is not a whole number from 1 to 2^63-1.
    """
    if type(call_id) is not int or not 1 <= call_id <= HIGHEST_ID:
        raise ValueError(f"a call id is a whole number from 1 to {HIGHEST_ID}")
    return str(call_id)


def _parse_date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        date = email.utils.parsedate_to_datetime(text)
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):  # all seen from this parser for garbage
        return None


def _check_base_url(url: str) -> None:
    try:
        parts, address = urlsplit(url), httpx.URL(url)
        is_usable = parts.scheme in {"http", "https"} and _HOST.fullmatch(parts.hostname or "") and parts.port != 0
        is_bare = not address.userinfo and not {"?", "#"} & set(url)
        port = parts.port if address.port is None else address.port
        is_clear = (address.raw_host.decode("ascii").lower(), port) == (parts.hostname, parts.port) and address.host
    except (ValueError, httpx.InvalidURL):
        raise ValueError(_BASE_URL_ADVICE) from None
    if not (is_usable and is_bare and is_clear and _URL_TEXT.fullmatch(url)):
        raise ValueError(_BASE_URL_ADVICE)


def _check_token(token: str, what: str) -> str:
    if not _TOKEN.fullmatch(token):
        raise ValueError(f"{what} is empty or holds a character that no HTTP header may carry")
    return token


def _read_token(path: Path | None) -> str:
    if path is None:
        raise ValueError("there is no access token")
    try:
        with path.open("rb") as file:
            text = file.read(_TOKEN_FILE_BYTES).decode("ascii", "replace").strip()
    except OSError as error:
        raise ValueError(f"the token file {path} cannot be read: {(error.strerror or 'no reason').lower()}") from None
    return _check_token(text, f"the token in {path}")


def _build_pattern(url: httpx.URL, token: str) -> dict[str, Any]:
    """Gives the attributes that all requests of a client share."""
    headers = {
        "Access-Token": token,
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "calls-assets",
    }
    return httpx.Request("GET", url, headers=headers).__dict__


def _is_coding(value: str) -> bool:
    return not {coding.strip().lower() for coding in value.split(",")} <= {"identity", ""}


async def _read_body(response: httpx.Response, limit: int) -> bytes | None:
    """Reads a body as it comes over the wire; None as soon as it exceeds the limit."""
    chunks = []
    size = 0
    async for chunk in response.stream:  # type: ignore[union-attr]  # the transport's streams are asynchronous
        size += len(chunk)
        if size > limit:
            return None
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _drain(response: httpx.Response) -> None:
    """Reads a short body that nobody needs, so that the connection can be used again; a bad one only costs that."""
    with contextlib.suppress(TimeoutError, httpx.TransportError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            await _read_body(response, _DRAIN_BYTES)


class _Envelope(msgspec.Struct, gc=False):
    calls: msgspec.Raw


_ENVELOPE = msgspec.json.Decoder(_Envelope)


def _has_envelope(body: bytes) -> bool:
    """Tells a whole body about calls, right or wrong, from one cut off, an error page or an error told with a 200."""
    try:
        _ENVELOPE.decode(body)
    except RecursionError:
        return True  # grown too deep, but neither cut off nor an error page: asking again would not change it
    except ValueError:
        return False
    return True
