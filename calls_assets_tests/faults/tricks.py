"""Tricks to get the token to another host: answers, ids, addresses, the environment, and what a launchpad takes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from calls_assets_tests.api.server import Heard, Script, body_of, response


@dataclass(frozen=True, slots=True)
class Trick:
    """One trick.

    Attributes:
        name: What it is.
        script: What the vendor answers.
        call_id: The id asked for.
        base_url: The configured address; `VENDOR` stands for the vendor's host and port.
        environment: Variables of the process; `ROOT` stands for a directory.
        is_asked: Whether the vendor is asked at all.
    """

    name: str
    script: Script
    call_id: object = 1
    base_url: str = "http://VENDOR"
    environment: Mapping[str, str] = field(default_factory=dict)
    is_asked: bool = True


class _Disguised(int):
    """A whole number that shows as an address."""

    def __str__(self) -> str:
        return "1/../../../x"


class _Address(str):
    """A text that compares as a number would."""

    __slots__ = ()


async def answer_anything(_heard: Heard, writer: asyncio.StreamWriter) -> None:
    """Answers every request with a call."""
    writer.write(response(200, body_of(1)))


def _say(data: bytes) -> Script:
    async def script(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return script


def list_tricks(other: str) -> list[Trick]:
    """Gives every trick; `other` is the URL of the host that must hear nothing."""
    return [*_redirects(other), *_headers(other), *_ids(other), *_addresses(other), *_environments(other)]


def _redirects(other: str) -> Iterator[Trick]:
    host = other.removeprefix("http:")
    for status in (300, 301, 302, 303, 305, 307, 308):
        yield Trick(f"redirect {status}", _say(response(status, b"", f"Location: {other}/calls/1")))
    for name, place in (
        ("without scheme", f"{host}/calls/1"),
        ("with a login", f"http://user:pass@{host.removeprefix('//')}/calls/1"),
        ("with backslashes", other.replace("/", "\\")),
        ("with a blank", f" {other}/calls/1"),
        ("in capitals", f"{other.upper()}/calls/1"),
    ):
        yield Trick(f"redirect {name}", _say(response(302, b"", f"Location: {place}")))
    for status in (200, 201, 202, 401, 404, 407, 429, 503):
        head = f"Location: {other}/calls/1"
        yield Trick(f"Location with {status}", _say(response(status, body_of(1), head, "Retry-After: 0")))


def _headers(other: str) -> Iterator[Trick]:
    port = other.rpartition(":")[2]
    for line in (
        f"Refresh: 0;url={other}/calls/1",
        f'Alt-Svc: http/1.1="127.0.0.1:{port}"; ma=9999, h2=":{port}", h3=":{port}"',
        f"Content-Location: {other}/calls/1",
        f"Link: <{other}/calls/1>; rel=preload",
        f"Set-Cookie: next={other}; Domain=127.0.0.1; Path=/",
        f"Proxy-Authenticate: Basic realm={other}",
        f"Strict-Transport-Security: max-age=1, {other}",
        f"Content-Security-Policy: report-uri {other}/csp",
        f'Report-To: {{"endpoints":[{{"url":"{other}/r"}}]}}',
        f"Host: 127.0.0.1:{port}",
    ):
        yield Trick(line.partition(":")[0], _say(response(200, body_of(1), line)))
    page = f"<meta http-equiv=refresh content='0;url={other}'><img src='{other}/i'>".encode()
    yield Trick("a page that refreshes", _say(response(200, page, "Content-Type: text/html")))
    told = json.dumps({"redirect": other, "next": other, "calls": {"id": 1, "url": other}}).encode()
    yield Trick("an answer that names an address", _say(response(200, told)))
    upgrade = f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nLocation: {other}\r\n\r\n".encode()
    yield Trick("an upgrade", _say(upgrade))
    hints = f"HTTP/1.1 103 Early Hints\r\nLink: <{other}/x>; rel=preconnect\r\n\r\n".encode()
    yield Trick("early hints", _say(hints + response(200, body_of(1))))


def _ids(other: str) -> Iterator[Trick]:
    host = other.removeprefix("http://")
    texts = (
        f"{other}/calls/1",
        f"//{host}/",
        f"@{host}/",
        f"1@{host}",
        "1/../../x",
        "..%2f..",
        "1?x=1",
        "1#x",
        "1\r\nHost: x",
    )
    for text in texts:
        yield Trick(f"id {text[:8]!r}", answer_anything, call_id=text, is_asked=False)
    for value in (_Disguised(1), _Address("1"), True, 1.0, -1, 0, 2**63, None, b"1", [1]):
        yield Trick(f"id of type {type(value).__name__}", answer_anything, call_id=value, is_asked=False)


def _addresses(other: str) -> Iterator[Trick]:
    host = other.removeprefix("http://")
    for address in (
        f"http://VENDOR@{host}",
        f"http://user:pass@{host}",
        f"http://VENDOR:@{host}/v2",
        f"http://VENDOR\\@{host}",
        f"http://VENDOR%40{host}",
        f"http://VENDOR?@{host}",
        f"http://VENDOR#@{host}",
        f"http://VENDOR;@{host}",
        f"http://VENDOR {host}",
        f"http://VENDOR\t@{host}",
        f"//{host}",
        f"http:/{host}",
        f"http:\\\\{host}",
        f"file://{host}/",
        f"ws://{host}",
        f"HTTP:{host}",
    ):
        yield Trick(f"address {address.replace(host, 'OTHER')!r}", answer_anything, base_url=address, is_asked=False)


def _environments(other: str) -> Iterator[Trick]:
    for names in (
        ("HTTP_PROXY",),
        ("http_proxy",),
        ("ALL_PROXY", "all_proxy"),
        ("HTTPS_PROXY", "https_proxy"),
        ("FTP_PROXY",),
    ):
        environment = dict.fromkeys(names, other) | {"NO_PROXY": "", "no_proxy": ""}
        yield Trick(f"variable {names[0]}", answer_anything, environment=environment)
    yield Trick("a login file", answer_anything, environment={"NETRC": "ROOT/netrc", "HOME": "ROOT"})
    late = {"CALLS_API_BASE_URL": other, "CALLS_API_TOKEN": "other"}
    yield Trick("settings changed after they were read", answer_anything, environment=late)
    yield Trick("a wildcard of hosts", answer_anything, environment={"HOSTALIASES": "ROOT/netrc", "LOCALDOMAIN": other})


LAUNCH_CONFIGS: tuple[dict[str, Any], ...] = (
    {"resources": {"calls_api": {"config": {"base_url": "OTHER"}}}},
    {"resources": {"calls_api": {"config": {"settings": {"api_base_url": "OTHER", "api_token": "x"}}}}},
    {"resources": {"lake_store": {"config": {"data_dir": "OTHER"}}}},
    {"ops": {"call_records": {"config": {"api_base_url": "OTHER"}}}},
    {"ops": {"call_records": {"config": {"base_url": {"env": "CALLS_API_TOKEN"}}}}},
    {"ops": {"call_records": {"config": {"reread_final": {"env": "CALLS_API_TOKEN"}}}}},
)


def fill_in(config: dict[str, Any], other: str) -> dict[str, Any]:
    """Puts the other host into a run configuration."""
    filled: dict[str, Any] = json.loads(json.dumps(config).replace("OTHER", other))
    return filled
