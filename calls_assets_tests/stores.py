"""An object store on loopback: moto's S3 in a process of its own, and a proxy before it that counts and does harm.

The proxy stands where networks and overloaded stores stand: what it does wrong is what they do wrong.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from obstore.fsspec import FsspecStore

BUCKET = "lakes"
SECRET = "store-secret-that-must-not-be-shown"
_SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
server.stop()
"""
_PASSED_ON = frozenset({"etag", "content-type", "last-modified", "content-range", "x-amz-meta-writer"})

SLOW_DOWN, CONFLICT, FAILED_AFTER = "503 SlowDown", "409 ConditionalRequestConflict", "500 after it was done"
DROPPED_REQUEST, DROPPED_ANSWER = "dropped request", "dropped answer"
TRUNCATED_PUT, REPEATED_PUT, TRUNCATED_GET = "truncated PUT", "repeated PUT", "truncated GET"
BROKEN_OFF_PUT = "PUT broken off half-way"
FAULTS = {
    SLOW_DOWN: {"GET", "PUT", "POST", "HEAD"},
    FAILED_AFTER: {"PUT", "POST"},
    DROPPED_REQUEST: {"GET", "PUT", "POST", "HEAD"},
    DROPPED_ANSWER: {"GET", "PUT", "POST", "HEAD"},
    CONFLICT: {"PUT"},
    TRUNCATED_PUT: {"PUT"},
    BROKEN_OFF_PUT: {"PUT"},
    REPEATED_PUT: {"PUT"},
    TRUNCATED_GET: {"GET"},
}
"""What can befall a request, and which kinds of request (POST deletes)."""


@dataclass(frozen=True)
class Heard:
    """A request to the store.

    Attributes:
        method: Its method.
        key: The object, below the bucket; empty for a listing.
        size: Length of its body.
        is_create: Whether it was to be done only where nothing is.
        is_checked: Whether it says what its bytes should be.
        range: First byte and last, where it wants a part of an object.
        fault: What befell it.
    """

    method: str
    key: str
    size: int
    is_create: bool
    is_checked: bool
    range: tuple[int, int] | None = None
    fault: str | None = None


@dataclass
class StoreProxy:
    """The proxy.

    Attributes:
        url: Its address.
        store_url: The store's.
        choose: Says what befalls a request: one of `FAULTS`, or an answer such as `403 AccessDenied`; None for nothing.
        heard: The requests so far.
        ignores_conditions: Whether the store is one that does not know `If-None-Match`.
        has_opaque_tags: Whether the tags in its answers are no digests, as on Azure or with keys of the customer's own.
        pause_seconds: How long it waits before each quarter of an answer's content.
        is_strict: Whether the store keeps nothing of a PUT whose bytes are not all there, as S3 does and moto does not.
    """

    url: str
    store_url: str
    choose: Callable[[Heard], str | None] = lambda _heard: None
    heard: list[Heard] = field(default_factory=list)
    ignores_conditions: bool = False
    has_opaque_tags: bool = False
    pause_seconds: float = 0.0
    is_strict: bool = False

    def environment(self) -> dict[str, str]:
        """Gives the variables with which clients find the store."""
        return make_store_environment(self.url)

    def count(self, method: str | None = None) -> int:
        """Counts the requests so far."""
        return sum(method in {None, one.method} for one in self.heard)


class StoreFiles(FsspecStore):
    """The store as DuckDB opens it: docs/bi.md has the same."""

    cachable = False  # else the next test's is this one's, with the address of a server that is gone

    def __init__(self) -> None:
        super().__init__("s3")

    def glob(self, path: str, **options: Any) -> Any:  # noqa: ANN401 - as fsspec has it
        """Finds files; the library wants paths without the scheme."""
        return super().glob(path.partition("://")[2], **options)


def make_store_environment(url: str) -> dict[str, str]:
    """Gives the variables with which clients find a store."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "store-key",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }


@contextmanager
def serve_store() -> Iterator[str]:
    """Runs a store with one bucket; gives its address."""
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        try:
            url = f"http://127.0.0.1:{int(process.stdout.readline())}"
            ask(url, "PUT", f"/{BUCKET}")
            yield url
        finally:
            process.kill()


def ask(url: str, method: str, path: str, body: bytes = b"") -> bytes:
    """Asks a store without any client of ours."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.request(
            method, path, body, {"Authorization": "AWS4-HMAC-SHA256 Credential=k/20250101/us-east-1/s3/aws4_request"}
        )
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status < 300, (answer.status, content)
        return content
    finally:
        connection.close()


@contextmanager
def serve_proxy(store_url: str) -> Iterator[StoreProxy]:
    """Runs a proxy before a store."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    proxy = StoreProxy(f"http://127.0.0.1:{server.server_port}", store_url)
    _Handler.known[server.server_port] = (proxy, urlsplit(store_url).netloc)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _parse_range(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, last = text.removeprefix("bytes=").split("-")
    return int(first), int(last)


class _Handler(BaseHTTPRequestHandler):
    """Passes requests on, or does harm."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    known: dict[int, tuple[StoreProxy, str]] = {}  # noqa: RUF012 - the server makes handlers without arguments of ours

    def setup(self) -> None:
        """Opens a connection to the store for each of the client's."""
        super().setup()
        assert isinstance(self.server, ThreadingHTTPServer)
        self.proxy, place = self.known[self.server.server_port]
        self.upstream = http.client.HTTPConnection(place, timeout=60)

    def finish(self) -> None:
        """Ends with the client."""
        self.upstream.close()
        super().finish()

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def _list_headers(self, length: int) -> dict[str, str]:
        dropped = {"host", "content-length", *({"if-none-match"} if self.proxy.ignores_conditions else ())}
        headers = {name: text for name, text in self.headers.items() if name.lower() not in dropped}
        return headers | {"Content-Length": str(length)}

    def _break_off(self, body: bytes) -> None:
        """Sends half of what it says it will send, and returns when the store has given up waiting for the rest."""
        self.upstream.request(self.command, self.path, body[: len(body) // 2], self._list_headers(len(body)))
        assert isinstance(self.upstream.sock, socket.socket)
        self.upstream.sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            self.upstream.getresponse().read()
        self.upstream.close()

    def _pass(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        self.upstream.request(self.command, self.path, body or None, self._list_headers(len(body)))
        answer = self.upstream.getresponse()
        content = answer.read()
        kept = {name: text for name, text in answer.getheaders() if name.lower() in _PASSED_ON}
        if self.proxy.has_opaque_tags and "ETag" in kept:
            kept["ETag"] = '"0x8DCA2B"'
        if self.command == "HEAD":
            kept["Content-Length"] = answer.getheader("Content-Length", "0")
        return answer.status, kept, content

    def _answer(self, status: int, headers: dict[str, str], content: bytes, *, cut: bool = False) -> None:
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        if "Content-Length" not in headers and status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        step = len(content) // 4 + 1
        for start in range(0, len(content) // 2 if cut else len(content), step):
            time.sleep(self.proxy.pause_seconds)
            self.wfile.write(content[start : start + step])
        self.close_connection = self.close_connection or cut

    def _error(self, status: str, code: str) -> None:
        self._answer(int(status), {}, f"<Error><Code>{code}</Code><Secret>{SECRET}</Secret></Error>".encode())

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        heard = Heard(
            self.command,
            unquote(parts.path).removeprefix(f"/{BUCKET}").strip("/"),
            len(body),
            "If-None-Match" in self.headers,
            "x-amz-checksum-sha256" in self.headers,
            _parse_range(self.headers.get("Range")),
        )
        fault = self.proxy.choose(heard)
        self.proxy.heard.append(replace(heard, fault=fault))
        if fault is not None and (fault not in FAULTS or fault in {SLOW_DOWN, CONFLICT}):
            self._error(*fault.split(" ", 1))
        elif fault == DROPPED_REQUEST:
            self.close_connection = True
        elif fault == DROPPED_ANSWER:
            self._pass(body)
            self.close_connection = True
        elif fault == BROKEN_OFF_PUT:
            if not self.proxy.is_strict:
                self._break_off(body)
            self.close_connection = True
        elif fault == FAILED_AFTER:
            self._pass(body)
            self._error("500", "InternalError")
        elif fault == TRUNCATED_PUT and self.proxy.is_strict:
            self._error("400", "BadDigest")
        elif fault == TRUNCATED_PUT:
            self._answer(*self._pass(body[: len(body) // 2]))
        elif fault == REPEATED_PUT:
            self._pass(body)
            self._answer(*self._pass(body))
        else:
            self._answer(*self._pass(body), cut=fault == TRUNCATED_GET)

    do_GET = do_PUT = do_DELETE = do_HEAD = do_POST = _handle  # noqa: N815 - the names the server looks for
