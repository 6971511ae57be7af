"""The receiver over real HTTP: who may deliver, how much, how slowly; 200 means durable."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import httpx
import pytest
import uvicorn

from calls_assets.inbox import Inbox
from calls_assets.inbox import receiver as receiver_module
from calls_assets.inbox.receiver import create_app
from calls_assets.lake import LocalStorage

SECRET, NEXT_SECRET, KEY = "s" * 24, "next-secret-0123456789", "signing-key-0123456789"
BODY = json.dumps({"id": 77, "waitingTime": 18}).encode()


@contextmanager
def receiver(inbox: Inbox, *, signing_key: str | None = None) -> Iterator[str]:
    """Runs the receiver as the command does, in a thread; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = create_app(inbox, secrets=(SECRET, NEXT_SECRET), signing_key=signing_key)
        server = uvicorn.Server(receiver_module.configure(app))
        thread = Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    """Gives an empty inbox."""
    return Inbox(LocalStorage(tmp_path))


@pytest.fixture
def url(inbox: Inbox) -> Iterator[str]:
    """Gives the address of a receiver."""
    with receiver(inbox) as address:
        yield address


def post(url: str, body: bytes = BODY, path: str = f"/webhooks/nectar-desk/{SECRET}", **headers: str) -> httpx.Response:
    """Posts a delivery."""
    with httpx.Client(trust_env=False, timeout=20) as client:
        return client.post(url + path, content=body, headers={k.replace("_", "-"): v for k, v in headers.items()})


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (f"/webhooks/nectar-desk/{SECRET}", {}),
        (f"/webhooks/nectar-desk/{NEXT_SECRET}", {}),
        ("/webhooks/nectar-desk", {"x_webhook_secret": SECRET}),
    ],
)
def test_a_delivery_with_a_secret_is_stored(url: str, inbox: Inbox, path: str, headers: dict[str, str]) -> None:
    """In the path or in a header; either of two secrets while they are rotated."""
    answer = post(url, BODY, path, **headers)
    assert (answer.status_code, answer.json()) == (200, {"status": "stored"})
    (delivery,) = inbox.deliveries()
    assert inbox.read(delivery) == BODY


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/webhooks/nectar-desk/wrong", {}, 401),
        ("/webhooks/nectar-desk/" + SECRET[:-1], {}, 401),
        ("/webhooks/nectar-desk/" + SECRET + "x", {}, 401),
        ("/webhooks/nectar-desk", {}, 401),
        ("/webhooks/nectar-desk", {"x_webhook_secret": "wrong"}, 401),
        ("/webhooks/nectar-desk/wrong", {"x_webhook_secret": SECRET}, 401),
        ("/webhooks/other/" + SECRET, {}, 404),
        ("/", {}, 404),
    ],
)
def test_others_are_refused(url: str, inbox: Inbox, path: str, headers: dict[str, str], status: int) -> None:
    """Nothing of theirs is parsed or stored."""
    assert post(url, BODY, path, **headers).status_code == status
    assert inbox.files() == []
    assert inbox.count_rejected() == 0


def test_a_delivery_that_names_no_call_is_put_aside(url: str, inbox: Inbox) -> None:
    """400 with a reason; health counts it."""
    answer = post(url, b'{"id": "?"}')
    assert answer.status_code == 400
    assert "names no call" in answer.json()["error"]
    assert inbox.files() == []
    assert httpx.get(f"{url}/healthz").json() == {"status": "ok", "waiting": 0, "rejected": 1}


def test_a_delivery_that_is_too_long_is_cut(url: str, inbox: Inbox) -> None:
    """By its length if it tells it, else when the bytes have come."""
    assert post(url, b"x" * 65_537).status_code == 413

    def chunks() -> Iterator[bytes]:
        yield from [b'{"id": 1, "x": "'] + [b"y" * 1_000] * 80

    assert httpx.post(f"{url}/webhooks/nectar-desk/{SECRET}", content=chunks()).status_code == 413
    assert inbox.files() == []
    assert post(url, json.dumps({"id": 5, "x": "y" * 65_000}).encode()).status_code == 200


def test_a_disk_that_is_full_is_no_success(url: str, inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """503, so that the vendor delivers again."""

    def refuse(_descriptor: int, _data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("calls_assets.lake.storage._write_all", refuse)
        answer = post(url)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert inbox.files() == []
    assert post(url).status_code == 200


def sign(body: bytes, stamp: str, key: str = KEY) -> dict[str, str]:
    """Gives the headers of a signing proxy."""
    digest = hmac.new(key.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return {"x_webhook_timestamp": stamp, "x_webhook_signature": digest}


def test_signatures_are_checked_and_taken_once(inbox: Inbox) -> None:
    """Wrong key, changed body, old or future timestamps and replays are refused."""
    now = int(time.time())
    with receiver(inbox, signing_key=KEY) as url:
        good = sign(BODY, str(now))
        assert post(url, BODY, **good).status_code == 200
        assert post(url, BODY, **good).status_code == 409
        for bad in (
            {},
            sign(BODY, str(now), "another-key-0123456789"),
            sign(b'{"id": 78}', str(now)),
            sign(BODY, str(now - 310)),
            sign(BODY, str(now + 330)),
            sign(BODY, "soon"),
            good | {"x_webhook_timestamp": str(now + 1)},
        ):
            assert post(url, BODY, **bad).status_code == 401, bad
        assert post(url, BODY, **sign(BODY, str(now - 200))).status_code == 200
    assert len(inbox.deliveries()) == 2


def test_without_a_secret_there_is_no_receiver(inbox: Inbox) -> None:
    """It would take anything from anybody."""
    with pytest.raises(ValueError, match="CALLS_WEBHOOK_SECRET"):
        create_app(inbox, secrets=())


@pytest.mark.parametrize("begin", [b"", b"POST /webhooks", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nPOST /web"])
def test_a_request_that_never_comes_is_hung_up_on(inbox: Inbox, monkeypatch: pytest.MonkeyPatch, begin: bytes) -> None:
    """An open connection, half a head, or half a second request: each only for some seconds."""
    monkeypatch.setattr(receiver_module, "HEAD_SECONDS", 0.5)
    with receiver(inbox) as url, socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        connection.settimeout(5)
        connection.sendall(begin)
        while connection.recv(4_096):
            pass


def test_a_body_that_never_ends_is_hung_up_on(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole body has a deadline, however steadily it drips."""
    monkeypatch.setattr(receiver_module, "BODY_SECONDS", 0.5)

    async def drip(url: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        head = f"POST /webhooks/nectar-desk/{SECRET} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        writer.write(head.encode())
        answer = asyncio.create_task(reader.readline())
        while not answer.done():
            writer.write(b" ")
            await asyncio.sleep(0.1)
        writer.close()
        return await answer

    with receiver(inbox) as url:
        assert b" 408 " in asyncio.run(asyncio.wait_for(drip(url), 5))
