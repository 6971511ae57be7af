"""The client against a real server on real sockets."""

from __future__ import annotations

import asyncio
import gzip
import logging
import traceback
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls_assets.api import (
    AccessDeniedError,
    Answer,
    ApiError,
    CallsClient,
    ClientConfig,
    PermanentError,
    RedirectRefusedError,
    RequestRefusedError,
    TransientError,
    check_call_id,
    parse_retry_after,
)
from calls_assets.api.client import _Pacer
from calls_assets_tests.api.server import Heard, Script, Served, body_of, response, say, say_the_call, serve
from calls_assets_tests.faults.virtual import run_virtually

NOW = datetime(2025, 5, 21, 15, 0, tzinfo=UTC)
TOKEN = "tok-5ecret"
DATE_PARTS = [
    "Wed",
    "Wednesday",
    ",",
    " ",
    "-",
    "21",
    "99",
    "0",
    "May",
    "25",
    "2025",
    "99999",
    "15:01:00",
    ":",
    ".",
    "GMT",
    "+9999",
]
GOOD = response(200, body_of(7))


def config_for(url: str, **options: object) -> ClientConfig:
    """Gives a configuration whose rate does not matter, unless told."""
    defaults: dict[str, object] = {"token": TOKEN, "requests_per_second": 10_000.0, "timeout_seconds": 5.0}
    return ClientConfig(base_url=url, **{**defaults, **options})  # type: ignore[arg-type]  # options of any type


def run(
    script: Script,
    use: Callable[[CallsClient, Served], Awaitable[None]],
    *,
    prefix: str = "",
    **options: object,
) -> tuple[CallsClient, Served]:
    """Runs `use` with a client and a server; backoff takes no time."""

    async def main() -> tuple[CallsClient, Served]:
        async with serve(script) as served:
            config = config_for(served.url + prefix, **options)
            async with CallsClient(config, clock=lambda: NOW, jitter=lambda: 0.0) as client:
                await use(client, served)
            return client, served

    return asyncio.run(main())


def fetch_one(script: Script, *, prefix: str = "", **options: object) -> tuple[Answer | ApiError, CallsClient, Served]:
    """Gives what one fetch came to: its answer or its error."""
    results: list[Answer | ApiError] = []

    async def use(client: CallsClient, _served: Served) -> None:
        try:
            results.append(await client.fetch(7))
        except ApiError as error:
            results.append(error)

    client, served = run(script, use, prefix=prefix, **options)
    return results[0], client, served


def reason_of(result: Answer | ApiError) -> str:
    """Gives why a fetch used up its attempts."""
    assert isinstance(result, TransientError)
    return result.reason


def test_a_call_is_answered_with_its_unchanged_bytes() -> None:
    """A 200 gives the body as it was sent, with the id, the status and the instant."""
    result, client, served = fetch_one(say(GOOD), prefix="/v2/account")
    assert result == Answer(7, NOW, 200, body_of(7))
    assert [heard.path for heard in served.heard] == ["/v2/account/calls/7"]
    assert (client.stats.requests, client.stats.retries) == (1, 0)


def test_a_request_carries_the_documented_headers_and_refuses_compression() -> None:
    """The headers are the vendor's two, plus what keeps the body plain."""
    _, _, served = fetch_one(say(GOOD))
    headers = served.heard[0].headers
    assert headers["access-token"] == TOKEN
    assert headers["content-type"] == headers["accept"] == "application/json"
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"] == "calls-assets"
    assert "cookie" not in headers
    assert "authorization" not in headers


def test_a_missing_call_is_an_answer_and_its_connection_is_used_again() -> None:
    """A 404 has no body, costs one request and does not cost the connection, even when its body is chunked."""
    missing = b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"

    async def use(client: CallsClient, _served: Served) -> None:
        assert await client.fetch(1) == Answer(1, NOW, 404, None)
        assert await client.fetch(2) == Answer(2, NOW, 404, None)

    client, served = run(say(missing), use)
    assert client.stats.requests == 2
    assert served.connections == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_a_passing_failure_is_asked_again(status: int) -> None:
    """Statuses that may pass are repeated until the answer comes, and counted as retries."""
    result, client, _ = fetch_one(say(response(status), response(status, b"{}"), GOOD))
    assert isinstance(result, Answer)
    assert (client.stats.requests, client.stats.retries) == (3, 2)


def test_attempts_are_bounded_and_the_error_says_which_call_and_why() -> None:
    """After the last attempt one id fails, with the status and no word of the body."""
    result, client, served = fetch_one(say(response(503, b"secret maintenance page")), max_attempts=3)
    assert isinstance(result, TransientError)
    assert (result.call_id, result.attempts, result.reason) == (7, 3, "HTTP 503")
    assert str(result) == "call 7: no answer after 3 attempt(s): HTTP 503"
    assert len(served.heard) == client.stats.requests == 3


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_a_redirect_is_refused_and_the_other_host_never_hears_the_token(status: int) -> None:
    """A redirect raises at once; nothing is sent to where it points."""

    async def main() -> None:
        async with serve(say(GOOD)) as other, serve(say(response(status, b"", f"Location: {other.url}/x"))) as vendor:
            async with CallsClient(config_for(vendor.url)) as client:
                with pytest.raises(RedirectRefusedError):
                    await client.fetch(7)
            assert other.connections == 0
            assert len(vendor.heard) == 1

    asyncio.run(main())


@pytest.mark.parametrize("status", [201, 202, 204, 206, 304, 400, 405, 410, 418, 451, 600, 999])
def test_an_unexpected_status_is_refused_without_a_retry(status: int) -> None:
    """What no rule covers stops the run at the first answer."""
    result, client, _ = fetch_one(say(response(status)))
    assert isinstance(result, RequestRefusedError)
    assert isinstance(result, PermanentError)
    assert str(status) in str(result)
    assert client.stats.requests == 1


def test_a_body_that_is_not_json_is_asked_again() -> None:
    """An error page with a 200 is taken for a passing fault."""
    result, client, _ = fetch_one(say(response(200, b"<html>busy</html>"), response(200, b""), GOOD))
    assert isinstance(result, Answer)
    assert result.body == body_of(7)
    assert client.stats.retries == 2


@pytest.mark.parametrize("body", [b'{"error":"try again later"}', b"null", b"[]", b"0", b'"busy"', b"{}"])
def test_a_body_without_an_envelope_is_asked_again(body: bytes) -> None:
    """An error told with a 200 passes like an error page: as an answer it would leave a hole in an old day for good."""
    result, client, _ = fetch_one(say(response(200, body), GOOD))
    assert isinstance(result, Answer)
    assert result.body == body_of(7)
    assert client.stats.retries == 1


def test_a_body_that_stays_broken_is_handed_to_the_caller_for_quarantine() -> None:
    """The last attempt's body is given back as it is, so that nothing paid for is lost."""
    result, client, _ = fetch_one(say(response(200, b"<html>")), max_attempts=3)
    assert result == Answer(7, NOW, 200, b"<html>")
    assert client.stats.requests == 3


def test_a_body_nested_beyond_reason_is_handed_over_at_once() -> None:
    """Such a body is whole, so asking again would only cost requests."""
    deep = b'{"calls":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    result, client, _ = fetch_one(say(response(200, deep)))
    assert result == Answer(7, NOW, 200, deep)
    assert client.stats.requests == 1


def test_the_wait_before_a_repeat_grows_from_half_a_second_and_is_counted() -> None:
    """Without Retry-After the longest first wait is half a second; answers are dated by the wall clock."""

    async def main() -> None:
        async with (
            serve(say(response(500), GOOD)) as served,
            CallsClient(config_for(served.url), jitter=lambda: 1.0) as client,
        ):
            answer = await client.fetch(7)
            assert served.heard[1].at - served.heard[0].at >= 0.49
            assert 0.49 <= client.stats.waited_seconds < 5
            assert abs(datetime.now(UTC) - answer.fetched_at) < timedelta(minutes=1)
            assert not client.is_paused

    asyncio.run(main())


def test_a_body_cut_off_before_its_length_is_never_taken_for_an_answer() -> None:
    """A connection that closes early is a transport failure even when the part received is JSON."""

    async def script(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(response(200, b'{"calls": {}}', length=500))
        await writer.drain()
        writer.close()

    result, client, served = fetch_one(script, max_attempts=2)
    assert reason_of(result).startswith("connection failed")
    assert len(served.heard) == client.stats.requests == 2


def test_a_chunked_body_cut_off_is_never_taken_for_an_answer() -> None:
    """A chunked body without its last chunk is a transport failure."""

    async def script(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")
        await writer.drain()
        writer.close()

    assert reason_of(fetch_one(script, max_attempts=2)[0]).startswith("connection failed")


def test_a_lost_connection_costs_exactly_the_requests_that_are_counted() -> None:
    """No layer below sends a request again by itself: the server hears as many as the client counts."""

    async def script(heard: Heard, writer: asyncio.StreamWriter) -> None:
        if heard.call_id == 1:
            writer.write(response(200, body_of(1)))  # so that the next request uses a kept connection
        else:
            writer.transport.abort()

    async def use(client: CallsClient, _served: Served) -> None:
        await client.fetch(1)
        with pytest.raises(TransientError):
            await client.fetch(2)

    client, served = run(script, use, max_attempts=3)
    assert len(served.heard) == client.stats.requests == 4


def test_an_address_where_nobody_listens_is_a_passing_failure() -> None:
    """A refused connection is repeated, then fails the id without naming the host."""

    async def main() -> None:
        async with serve(say(GOOD)) as served:
            url = served.url
        async with CallsClient(config_for(url, max_attempts=2), jitter=lambda: 0.0) as client:
            with pytest.raises(TransientError, match="connection failed") as caught:
                await client.fetch(7)
            assert client.stats.requests == 2
            assert "127.0.0.1" not in str(caught.value)

    asyncio.run(main())


def test_https_to_a_server_that_cannot_prove_itself_sends_nothing() -> None:
    """Without a proper handshake there is no request, so no token."""

    async def main() -> None:
        async with serve(say(GOOD)) as served:
            config = config_for(served.url.replace("http:", "https:"), max_attempts=1, timeout_seconds=0.2)
            async with CallsClient(config) as client:
                with pytest.raises(TransientError):
                    await client.fetch(7)
            assert served.heard == []

    asyncio.run(main())


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"])
def test_a_server_that_stalls_hits_the_total_deadline(head: bytes) -> None:
    """Silence before, within and after the headers ends with the attempt's deadline."""
    result, client, _ = fetch_one(say(head), max_attempts=2, timeout_seconds=0.1)
    assert reason_of(result) == "no complete answer within 0.1 s"
    assert client.stats.requests == 2


def test_a_body_that_drips_hits_the_total_deadline() -> None:
    """Progress, byte by byte, does not extend the deadline."""

    async def script(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    result, _, _ = fetch_one(script, max_attempts=1, timeout_seconds=0.15)
    assert reason_of(result) == "no complete answer within 0.15 s"


def test_a_body_over_the_limit_is_dropped_while_it_streams() -> None:
    """An endless body is given up at the limit, long before the deadline."""
    sent = 0

    async def script(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing() and sent < 64 * 2**20:
            writer.write(b" " * 65536)
            sent += 65536
            await writer.drain()

    result, _, _ = fetch_one(script, max_attempts=1, body_limit_bytes=100_000)
    assert reason_of(result) == "body larger than 100000 bytes"
    assert sent < 64 * 2**20


def test_a_body_of_exactly_the_limit_is_taken() -> None:
    """The limit itself is allowed, one byte more is not."""
    exact = len(body_of(7))
    assert isinstance(fetch_one(say(GOOD), body_limit_bytes=exact)[0], Answer)
    assert "body larger" in reason_of(fetch_one(say(GOOD), body_limit_bytes=exact - 1, max_attempts=1)[0])


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, gzip", "identity, gzip"])
def test_a_compressed_body_is_refused_as_it_is(encoding: str) -> None:
    """A bomb cannot be inflated, as nothing is."""
    bomb = gzip.compress(b" " * 10_000_000)
    result, _, _ = fetch_one(say(response(200, bomb, f"Content-Encoding: {encoding}")), max_attempts=1)
    assert reason_of(result) == "a compressed body, which was not asked for"


@pytest.mark.parametrize("encoding", ["identity", "identity, ", "gzip"])
def test_a_readable_body_is_taken_whatever_its_coding_is_called(encoding: str) -> None:
    """What holds a call in plain text is not compressed."""
    result, _, _ = fetch_one(say(response(200, body_of(7), f"Content-Encoding: {encoding}")), max_attempts=1)
    assert isinstance(result, Answer)
    assert result.body == body_of(7)


def test_a_body_without_a_call_is_not_called_compressed_for_an_empty_coding() -> None:
    """Identity is no coding."""
    result, _, _ = fetch_one(say(response(200, b"<html>", "Content-Encoding: identity")), max_attempts=1)
    assert isinstance(result, Answer)
    assert result.body == b"<html>"


def test_rubbish_instead_of_http_is_a_passing_failure_that_quotes_nothing() -> None:
    """A broken status line is retried; the error does not repeat what was received or sent."""
    result, client, _ = fetch_one(say(b"secret rubbish\r\n\r\n"), max_attempts=2)
    assert "secret" not in repr(result)
    assert TOKEN not in "".join(traceback.format_exception(result if isinstance(result, ApiError) else None))
    assert client.stats.requests == 2


def test_cookies_are_not_kept() -> None:
    """A session the server wants to start is not joined (by name: cookie jars ignore bare addresses anyway)."""
    cookie = response(200, body_of(7), "Set-Cookie: session=1; Path=/")

    async def main() -> None:
        async with serve(say(cookie)) as served:
            config = config_for(served.url.replace("127.0.0.1", "localhost"))
            async with CallsClient(config) as client:
                await client.fetch(7)
                await client.fetch(7)
            assert ["cookie" in heard.headers for heard in served.heard] == [False, False]

    asyncio.run(main())


def test_proxies_and_logins_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a proxy variable nor a netrc file changes where a request goes or what it carries."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password pass\n", "utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    result, _, served = fetch_one(say(GOOD), max_attempts=1)
    assert isinstance(result, Answer)
    assert "authorization" not in served.heard[0].headers


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_stops_all_later_fetches_without_a_request(status: int) -> None:
    """After one refusal the client sends nothing more."""

    async def use(client: CallsClient, _served: Served) -> None:
        for _ in range(3):
            with pytest.raises(AccessDeniedError, match=str(status)):
                await client.fetch(7)

    client, _ = run(say(response(status), GOOD), use)
    assert client.stats.requests == 1


def test_a_refused_token_stops_tasks_that_are_waiting_for_their_turn() -> None:
    """Tasks already queued at the rate limit send nothing once another was refused."""

    async def use(client: CallsClient, _served: Served) -> None:
        results = await asyncio.gather(*(client.fetch(id_) for id_ in range(1, 9)), return_exceptions=True)
        assert all(isinstance(result, AccessDeniedError) for result in results)

    client, _ = run(say(response(401)), use, requests_per_second=20.0)
    assert client.stats.requests == 1


def accept_token(accepted: str) -> Script:
    """Answers with the call when the token is the accepted one, else with a 401."""

    async def script(heard: Heard, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.02)  # so that several requests are in flight with the old token
        is_right = heard.headers["access-token"] == accepted
        writer.write(response(200, body_of(heard.call_id)) if is_right else response(401))

    return script


def test_a_replaced_token_is_used_by_all_tasks(tmp_path: Path) -> None:
    """When the file holds a new token, every refused request is sent once more with it and succeeds."""
    file = tmp_path / "token"
    file.write_text("old\n", "ascii")

    async def use(client: CallsClient, _served: Served) -> None:
        file.write_text("new\n", "ascii")
        answers = await asyncio.gather(*(client.fetch(id_) for id_ in range(1, 6)))
        assert [answer.http_status for answer in answers] == [200] * 5

    client, served = run(accept_token("new"), use, token="", token_file=file, max_attempts=1)
    assert sorted(heard.headers["access-token"] for heard in served.heard) == ["new"] * 5 + ["old"] * 5
    assert (client.stats.requests, client.stats.retries) == (10, 5)


def test_a_late_refusal_of_the_old_token_does_not_need_the_file_again(tmp_path: Path) -> None:
    """A task whose refusal arrives after another has read the new token just uses that one."""
    file = tmp_path / "token"
    file.write_text("new", "ascii")
    release = asyncio.Event()

    async def script(heard: Heard, writer: asyncio.StreamWriter) -> None:
        if heard.headers["access-token"] == "old":
            if heard.call_id == 1:
                await release.wait()
            writer.write(response(401))
        else:
            writer.write(response(200, body_of(heard.call_id)))

    async def use(client: CallsClient, _served: Served) -> None:
        late = asyncio.create_task(client.fetch(1))
        await asyncio.sleep(0.05)
        assert (await client.fetch(2)).http_status == 200
        file.unlink()
        release.set()
        assert (await late).http_status == 200

    client, _ = run(script, use, token="old", token_file=file)
    assert client.stats.requests == 4


@pytest.mark.parametrize("content", ["tok-1", "tok-2", "", "two words", "\N{SNOWMAN}", None])
def test_a_token_file_that_does_not_help_ends_in_a_denial(content: str | None, tmp_path: Path) -> None:
    """An unchanged, wrong, unusable or missing token ends at most one repeat later, and shows no token."""
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content, "utf-8")
    result, client, _ = fetch_one(accept_token("new"), token="tok-1", token_file=file)
    assert isinstance(result, AccessDeniedError)
    assert client.stats.requests == (2 if content == "tok-2" else 1)
    assert "tok-" not in str(result)
    assert "two words" not in str(result)


def test_a_token_that_changes_with_every_refusal_does_not_loop_for_ever(tmp_path: Path) -> None:
    """A file rewritten faster than the API accepts ends in a denial after a few requests."""
    file = tmp_path / "token"

    async def script(heard: Heard, writer: asyncio.StreamWriter) -> None:
        file.write_text(heard.headers["access-token"] + "x", "ascii")
        writer.write(response(401))

    result, client, _ = fetch_one(script, token="t", token_file=file)
    assert isinstance(result, AccessDeniedError)
    assert client.stats.requests == 4


@pytest.mark.parametrize("token", ["", "with blank", "line\nbreak", "tab\t", "n\u00f6n-ascii", "nul\0"])
def test_an_unusable_token_is_refused_at_construction_without_being_shown(token: str) -> None:
    """The error names the fault and not the value."""
    with pytest.raises(ValueError, match="access token is empty or holds a character") as caught:
        config_for("http://127.0.0.1", token=token)
    assert not token or token not in "".join(traceback.format_exception(caught.value))


def test_an_unreadable_token_file_is_one_clear_error(tmp_path: Path) -> None:
    """Without a token there is no client."""
    with pytest.raises(ValueError, match=r"token file .* cannot be read: no such file"):
        CallsClient(config_for("http://127.0.0.1", token="", token_file=tmp_path / "none"))


def test_the_token_is_in_no_repr_no_log_and_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """Debug logging and every way to print the parts show nothing."""
    with caplog.at_level(logging.DEBUG):
        result, client, served = fetch_one(say(response(500)), max_attempts=2)
    assert isinstance(result, TransientError)
    shown = [repr(config_for(served.url)), repr(client), repr(client.stats), *traceback.format_exception(result)]
    assert TOKEN not in "".join(shown) + caplog.text
    assert result.__context__ is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://example.com",
        "https://",
        "https://user:pass@example.com",
        "https://example.com/?a=1",
        "https://example.com/#a",
        "https://example.com:99999",
        "https://exam ple.com",
        "https://[::1",
        "https://[::1]0/",
        "https://[::1]5/",
        "https://example.com:0",
        "https://example%2ecom",
        "https://user@example.com",
        "https://example.com?",
        "https://xn--a.com",
        "https://example.com#",
        "https://exam\\ple.com",
    ],
)
def test_a_base_url_that_is_no_plain_address_is_refused(url: str) -> None:
    """Only http(s), with neither login, query nor fragment, and the error does not repeat it."""
    with pytest.raises(ValueError, match="base URL") as caught:
        config_for(url)
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"requests_per_second": 0.0},
        {"requests_per_second": float("nan")},
        {"timeout_seconds": -1.0},
        {"concurrency": 0},
        {"max_attempts": 0},
        {"body_limit_bytes": 0},
    ],
)
def test_limits_that_cannot_work_are_refused(options: dict[str, object]) -> None:
    """A bound of nothing is a mistake."""
    with pytest.raises(ValueError, match="must be"):
        config_for("http://127.0.0.1", **options)


@pytest.mark.parametrize("call_id", [0, -1, 2**63, True, 1.0, "1", "1/../2", None])
def test_an_id_that_is_none_never_reaches_a_path(call_id: object) -> None:
    """Only whole numbers from 1 to 2^63-1 become text."""
    with pytest.raises(ValueError, match="whole number"):
        check_call_id(call_id)  # type: ignore[arg-type]  # the point of the test


@given(st.integers(1, 2**63 - 1))
def test_an_id_is_its_decimal_text(call_id: int) -> None:
    """The text of an id is plain digits."""
    assert check_call_id(call_id) == str(call_id)


def test_a_client_outside_its_context_says_so() -> None:
    """A fetch without `async with` is a programming error, not a failure of the API."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match="async with"):
            await CallsClient(config_for("http://127.0.0.1")).fetch(1)

    asyncio.run(main())


def test_retry_after_is_a_floor_for_every_task() -> None:
    """While a 429 asks for a pause, no task sends; the caller sees the pause."""
    pauses: list[bool] = []

    async def use(client: CallsClient, _served: Served) -> None:
        pauses.append(client.is_paused)
        first = asyncio.create_task(client.fetch(1))
        await asyncio.sleep(0.15)
        pauses.append(client.is_paused)
        await asyncio.gather(first, *(client.fetch(id_) for id_ in range(2, 6)))
        pauses.append(client.is_paused)

    client, served = run(say(response(429, b"", "Retry-After: 0.5"), GOOD), use)
    gaps = [heard.at - served.heard[0].at for heard in served.heard[1:]]
    assert len(gaps) == 5
    assert min(gaps) >= 0.49
    assert pauses == [False, True, False]
    assert client.stats.waited_seconds >= 0.49


def test_retry_after_holds_back_tasks_that_already_wait_for_their_turn() -> None:
    """A turn promised before the pause is not taken during it."""

    async def use(client: CallsClient, _served: Served) -> None:
        await asyncio.gather(*(client.fetch(id_) for id_ in range(1, 4)))

    _, served = run(say(response(503, b"", "Retry-After: 0.4"), GOOD), use, requests_per_second=10.0)
    gaps = [heard.at - served.heard[0].at for heard in served.heard[1:]]
    assert len(gaps) == 3
    assert min(gaps) >= 0.39


def test_a_retry_after_date_is_judged_by_the_servers_own_clock() -> None:
    """A server whose clock is an hour off still gets the second it asked for, and no more."""
    theirs = NOW - timedelta(hours=1)
    headers = [f"Date: {format_datetime(theirs, usegmt=True)}"]
    headers.append(f"Retry-After: {format_datetime(theirs + timedelta(seconds=1), usegmt=True)}")
    result, client, served = fetch_one(say(response(503, b"", *headers), GOOD))
    assert isinstance(result, Answer)
    assert served.heard[1].at - served.heard[0].at >= 0.99
    assert 0.99 <= client.stats.waited_seconds < 60


@pytest.mark.parametrize("value", ["-5", "soon", "Wed, 21 Oct 2015 07:28:00 GMT", "0", "", "1, 2"])
def test_a_retry_after_without_sense_does_not_hold_back_anything(value: str) -> None:
    """Garbage, the past and nothing mean no pause."""
    result, client, _ = fetch_one(say(response(503, b"", f"Retry-After: {value}"), GOOD))
    assert isinstance(result, Answer)
    assert client.stats.waited_seconds < 0.5


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("901", 900.0),
        ("9" * 5000, 900.0),
        ("Wed, 21 May 2025 15:01:00 GMT", 60.0),
        ("Wednesday, 21-May-25 15:01:00 GMT", 60.0),
        ("Wed May 21 15:01:00 2025", 60.0),
        ("Wed, 21 May 2025 17:01:00 +0200", 60.0),
        ("Wed, 21 May 2025 14:00:00 GMT", 0.0),
        ("Wed, 21 May 2125 15:01:00 GMT", 900.0),
        ("-1", None),
        ("1e3", None),
        ("inf", None),
        ("nan", None),
        ("\u0663", None),
        ("Wed, 99 May 2025 15:01:00 GMT", None),
        ("", None),
    ],
)
def test_retry_after_is_read_in_both_forms(value: str, seconds: float | None) -> None:
    """Seconds and the three date forms count; the rest does not."""
    assert parse_retry_after(value, NOW) == seconds


@given(st.text() | st.lists(st.sampled_from(DATE_PARTS), max_size=9).map("".join))
def test_retry_after_takes_any_text(value: str) -> None:
    """Whatever a server sends, the result is a bounded wait or nothing."""
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or 0.0 <= seconds <= 900.0


def test_turns_are_evenly_spaced_however_many_tasks_ask() -> None:
    """Twenty requests at fifty a second take at least nineteen intervals, and no two come as a burst."""
    times: list[float] = []

    async def use(client: CallsClient, served: Served) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        await asyncio.gather(*(client.fetch(id_) for id_ in range(1, 21)))
        times.extend([start, *(heard.at for heard in served.heard)])

    run(say_the_call, use, requests_per_second=50.0, concurrency=20)
    assert times[-1] - times[0] >= 19 / 50


def test_a_second_holds_no_more_turns_than_the_rate() -> None:
    """The request after a full second's worth comes a full second after the first."""
    times: list[float] = []

    async def use(client: CallsClient, served: Served) -> None:
        start = asyncio.get_running_loop().time()
        await asyncio.gather(*(client.fetch(id_) for id_ in range(1, 22)))
        times.extend([start, *(heard.at for heard in served.heard)])

    run(say_the_call, use, requests_per_second=20.0, concurrency=4)
    assert times[-1] - times[0] >= 1.0


def test_retries_count_against_the_rate() -> None:
    """A failing call cannot be asked faster than the rate, even with no backoff."""

    async def use(client: CallsClient, _served: Served) -> None:
        start = asyncio.get_running_loop().time()
        with pytest.raises(TransientError):
            await client.fetch(1)
        assert asyncio.get_running_loop().time() - start >= 4 / 20

    run(say(response(500)), use, requests_per_second=20.0, max_attempts=5)


@pytest.mark.parametrize("allowed", [50, 40])
def test_refusals_slow_the_client_down_until_they_stop(allowed: int) -> None:
    """Where no second may have more than 50 requests, or 40, and they travel for 5 to 20 ms: a few are refused."""
    seconds, journeys = 120, Random(1)
    taken, refused, sent = deque[float](maxlen=allowed), list[float](), list[float]()

    async def main() -> None:
        loop, pacer = asyncio.get_running_loop(), _Pacer(50.0)

        def arrive() -> None:
            if len(taken) == allowed and loop.time() - taken[0] < 1.0:
                refused.append(loop.time())
                pacer.slow_down()
                pacer.pause(1.0)
            else:
                taken.append(loop.time())

        while loop.time() < seconds:
            await pacer.wait_for_turn()
            sent.append(loop.time())
            loop.call_later(journeys.uniform(0.005, 0.02), arrive)
        await asyncio.sleep(1.0)

    run_virtually(main())
    assert len(sent) - len(refused) > 0.85 * allowed * seconds
    assert len([at for at in refused if at > seconds / 2]) < 5


def test_a_client_that_was_slowed_down_gets_faster_again() -> None:
    """Never to less than half the rate; a tenth of the way back in each minute without a refusal."""
    turns: list[float] = []

    async def main() -> None:
        pacer = _Pacer(10.0)
        for _ in range(30):
            pacer.slow_down()
            await asyncio.sleep(2.0)
        while asyncio.get_running_loop().time() < 3_600:
            await pacer.wait_for_turn()
            turns.append(asyncio.get_running_loop().time())

    run_virtually(main())
    first, last = (len([at for at in turns if begin <= at < begin + 50]) for begin in (60, 3_550))
    assert 240 <= first <= 260
    assert 490 <= last <= 500


def test_time_the_loop_was_blocked_is_not_made_up_for_with_a_burst() -> None:
    """After a blocked loop the next requests keep their distance."""
    gaps: list[float] = []

    async def use(client: CallsClient, _served: Served) -> None:
        loop = asyncio.get_running_loop()
        done: list[float] = []

        async def fetch(call_id: int) -> None:
            await client.fetch(call_id)
            done.append(loop.time())

        async with asyncio.TaskGroup() as tasks:
            for call_id in range(1, 8):
                tasks.create_task(fetch(call_id))
            await asyncio.sleep(0.02)
            end = loop.time() + 0.3
            while loop.time() < end:  # a caller that computes for long, on purpose without giving way
                pass
            blocked_until = loop.time()
        gaps.append(loop.time() - blocked_until)

    run(say_the_call, use, requests_per_second=20.0)
    assert gaps[0] >= 4 * 0.05  # 6 turns are left; a burst would take them at once


def test_no_more_requests_are_in_flight_than_allowed() -> None:
    """The client bounds concurrency itself, whatever the caller starts."""
    flying = 0
    highest = 0

    async def script(heard: Heard, writer: asyncio.StreamWriter) -> None:
        nonlocal flying, highest
        flying += 1
        highest = max(highest, flying)
        await asyncio.sleep(0.01)
        flying -= 1
        writer.write(response(200, body_of(heard.call_id)))

    async def use(client: CallsClient, _served: Served) -> None:
        await asyncio.gather(*(client.fetch(id_) for id_ in range(1, 13)))

    _, served = run(script, use, concurrency=3)
    assert highest == 3
    assert served.connections == 3


def test_cancelled_fetches_leak_no_connection() -> None:
    """After a storm of cancellations the one slot still works, and nothing stays open beside it."""
    arrived = asyncio.Event()

    async def script(heard: Heard, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{" if heard.call_id % 2 else b"")
        if heard.call_id == 1000:
            writer.write(response(200, body_of(1000)))

    async def use(client: CallsClient, served: Served) -> None:
        for call_id in range(1, 9):
            task = asyncio.create_task(client.fetch(call_id))
            await arrived.wait()
            arrived.clear()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (await client.fetch(1000)).http_status == 200
        for _ in range(200):
            if served.open_connections == 1:
                break
            await asyncio.sleep(0.005)
        assert served.open_connections == 1

    run(script, use, concurrency=1)


def test_a_client_can_be_cancelled_while_paused() -> None:
    """A long Retry-After does not hold up the end of a run."""

    async def use(client: CallsClient, _served: Served) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.fetch(1)
        assert client.is_paused

    client, _ = run(say(response(503, b"", "Retry-After: 86400")), use)
    assert client.stats.requests == 1
    assert client.stats.waited_seconds < 60
