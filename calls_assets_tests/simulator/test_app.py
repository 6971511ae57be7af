"""The simulator over real sockets: token, answers, counters, and every fault as a client meets it."""

import http.client
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from calls_assets.simulator import Account, FaultPlan, RunningServer, SettableClock, Vendor, create_app, serve
from calls_assets.simulator.faults import NO_FAULTS, Fault

NOW = datetime(2025, 5, 20, 15, tzinfo=UTC)
TOKEN = "a-token-for-tests"
VENDOR = Vendor(Account(first_day=date(2025, 5, 1)))
EXISTING = next(id_ for id_ in range(65_200, 65_300) if not VENDOR.is_missing(id_))
MISSING = next(id_ for id_ in range(65_200, 66_300) if VENDOR.is_missing(id_))


class Reply:
    """A reply, read whole."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:  # noqa: ANN401 - any JSON value
        """The body, parsed."""
        return json.loads(self.body)


class Client:
    """Asks over one kept connection."""

    def __init__(self, server: RunningServer, timeout: float = 5) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)

    def ask(self, path: str, *, token: str | None = TOKEN, method: str = "GET") -> Reply:
        """The reply to a request for any path."""
        self._connection.request(method, path, headers={"Access-Token": token} if token is not None else {})
        return Reply(self._connection.getresponse())

    def ask_call(self, call_id: int) -> Reply:
        """The reply to a request for a call."""
        return self.ask(f"/calls/{call_id}")

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()


class Switchboard:
    """One server for the module; each test puts its own application behind it, which saves starts and stops."""

    def __init__(self) -> None:
        self.app: Starlette | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forwards."""
        assert self.app is not None
        await self.app(scope, receive, send)


class Simulator:
    """Puts a simulator with some faults on the network."""

    def __init__(self, switchboard: Switchboard, server: RunningServer) -> None:
        self._switchboard = switchboard
        self._server = server
        self._clients: list[Client] = []

    def start(
        self, faults: FaultPlan = NO_FAULTS, *, base_path: str = "", clock: Callable[[], datetime] = lambda: NOW
    ) -> Client:
        """A new simulator, its counters at nought, and a client of it."""
        self._switchboard.app = create_app(VENDOR, token=TOKEN, base_path=base_path, faults=faults, clock=clock)
        return self.connect()

    def connect(self, timeout: float = 5) -> Client:
        """One more client."""
        client = Client(self._server, timeout)
        self._clients.append(client)
        return client

    def close(self) -> None:
        """Ends all connections."""
        for client in self._clients:
            client.close()


@pytest.fixture(scope="module")
def network() -> Iterator[tuple[Switchboard, RunningServer]]:
    """A running server without an application yet."""
    switchboard = Switchboard()
    with serve(switchboard) as server:  # type: ignore[arg-type] # it forwards to a Starlette
        yield switchboard, server


@pytest.fixture
def simulator(network: tuple[Switchboard, RunningServer], caplog: pytest.LogCaptureFixture) -> Iterator[Simulator]:
    """A simulator to start; the server may complain of nothing, whatever the faults."""
    caplog.set_level(logging.WARNING, logger="uvicorn.error")
    simulator = Simulator(*network)
    yield simulator
    simulator.close()
    time.sleep(0.01)
    assert [record.getMessage() for record in caplog.get_records("call") if record.name.startswith("uvicorn")] == []


def test_a_call_comes_in_its_envelope(simulator: Simulator) -> None:
    """The body is the model's answer, under `calls`."""
    reply = simulator.start().ask_call(EXISTING)
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.json == {"calls": VENDOR.answer(EXISTING, NOW)}


@pytest.mark.parametrize(
    "id_text", [str(MISSING), "1", "999999999", "0", "abc", "-5", "65200/x", "%36%35x", "9" * 40, ""]
)
def test_what_is_no_call_is_not_found_and_says_so_in_json(simulator: Simulator, id_text: str) -> None:
    """Missing, below the first, in the future, or no id at all."""
    reply = simulator.start().ask(f"/calls/{id_text}")
    assert (reply.status, reply.json) == (404, {"error": "Not found"})


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + "x", TOKEN.upper()])
def test_only_the_right_token_is_let_in(simulator: Simulator, token: str | None) -> None:
    """The answer to a wrong one tells nothing."""
    reply = simulator.start().ask(f"/calls/{EXISTING}", token=token)
    assert (reply.status, reply.json) == (401, {"error": "Access denied"})


def test_calls_can_only_be_read(simulator: Simulator) -> None:
    """Another method is refused."""
    reply = simulator.start().ask(f"/calls/{EXISTING}", method="DELETE")
    assert (reply.status, reply.headers["allow"]) == (405, "GET")


def test_a_base_path_precedes_calls(simulator: Simulator) -> None:
    """Calls are there and nowhere else."""
    client = simulator.start(base_path="/api/v2/")
    assert client.ask(f"/api/v2/calls/{EXISTING}").status == 200
    assert client.ask(f"/calls/{EXISTING}").status == 404
    with pytest.raises(ValueError, match="base_path"):
        create_app(VENDOR, token=TOKEN, base_path="api")


def test_it_says_simulator_wherever_somebody_looks(simulator: Simulator) -> None:
    """Every reply is signed, the front page is a page, unknown paths included."""
    client = simulator.start()
    for path in ("/", "/stats", "/nowhere", f"/calls/{EXISTING}", f"/calls/{MISSING}"):
        assert client.ask(path, token=None).headers.get_all("x-simulator") == ["calls-assets"]
    assert b"calls-assets simulator" in client.ask("/").body


def test_the_clock_decides_what_is_seen(simulator: Simulator) -> None:
    """A call begins when the clock says so."""
    begun = VENDOR.started_at(EXISTING)
    clock = SettableClock(begun - timedelta(hours=1))
    client = simulator.start(clock=clock)
    assert client.ask_call(EXISTING).status == 404
    clock.advance(timedelta(days=1))
    assert client.ask_call(EXISTING).json["calls"]["is_ended"] is True


def test_counters_tell_what_was_served(simulator: Simulator) -> None:
    """Requests, statuses, ids asked for and asked for again; then from nought."""
    client = simulator.start()
    for call_id in (EXISTING, MISSING, EXISTING, EXISTING):
        client.ask_call(call_id)
    client.ask(f"/calls/{EXISTING}", token="wrong")
    client.ask("/calls/none")
    expected = {
        "requests": 6,
        "by_status": {"200": 3, "401": 1, "404": 2},
        "by_fault": {},
        "distinct_ids": 2,
        "repeated_ids": 1,
        "first_id": min(EXISTING, MISSING),
        "last_id": max(EXISTING, MISSING),
        "peak_concurrency": 1,
        "deliveries": {"posted": 0, "repeated": 0, "failed": 0},
    }
    assert client.ask("/stats").json == expected
    assert client.ask("/stats?ids=1").json == {**expected, "per_id": {str(EXISTING): 4, str(MISSING): 1}}
    assert client.ask("/reset-stats", method="POST").status == 204
    empty = client.ask("/stats").json
    assert (empty["requests"], empty["first_id"], empty["by_status"]) == (0, None, {})


def test_latency_delays_every_answer_and_concurrency_is_counted(simulator: Simulator) -> None:
    """Three at once wait together."""
    client = simulator.start(FaultPlan(latency_seconds=0.15))
    clients = [simulator.connect() for _ in range(3)]
    threads = [threading.Thread(target=each.ask_call, args=[EXISTING]) for each in clients]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.15 <= time.monotonic() - began < 0.45
    assert client.ask("/stats").json["peak_concurrency"] == 3


def test_too_many_requests_are_told_to_wait_in_seconds(simulator: Simulator) -> None:
    """A burst of one second's worth passes; after the wait the next passes."""
    client = simulator.start(FaultPlan(rate_limit_per_second=5))
    began, passed = time.monotonic(), 0
    while (reply := client.ask_call(EXISTING)).status == 200:
        passed += 1
        assert passed <= 5 + 5 * (time.monotonic() - began)
    assert passed >= 5
    assert (reply.status, reply.headers["retry-after"]) == (429, "1")
    time.sleep(0.25)
    assert client.ask_call(EXISTING).status == 200


def test_too_many_requests_are_told_to_wait_until_a_date(simulator: Simulator) -> None:
    """The date is after the wait and not much later."""
    client = simulator.start(FaultPlan(rate_limit_per_second=0.5, retry_after="date"))
    assert client.ask_call(EXISTING).status == 200
    reply = client.ask_call(EXISTING)
    assert reply.status == 429
    wait = parsedate_to_datetime(reply.headers["retry-after"]) - datetime.now(UTC)
    assert timedelta(seconds=1.5) < wait < timedelta(seconds=4)


def test_server_errors_come_in_turn(simulator: Simulator) -> None:
    """500, 502, 503, 504 and again."""
    client = simulator.start(FaultPlan(error_share=1))
    assert [client.ask_call(EXISTING).status for _ in range(5)] == [500, 502, 503, 504, 500]
    assert client.ask("/stats").json["by_fault"] == {"error": 5}


def test_a_retry_may_succeed(simulator: Simulator) -> None:
    """Faults hit requests, not calls: half of many repeats pass, the same ones each time."""
    runs = []
    for _ in range(2):
        client = simulator.start(FaultPlan(error_share=0.5, seed=3))
        runs.append([client.ask_call(EXISTING).status == 200 for _ in range(60)])
    assert runs[0] == runs[1]
    assert 15 < sum(runs[0]) < 45


def test_a_reset_connection_is_reset(simulator: Simulator) -> None:
    """The client sees ECONNRESET, and the server lives on."""
    client = simulator.start(FaultPlan(reset_share=1))
    with pytest.raises(ConnectionResetError) as caught:
        client.ask_call(EXISTING)
    assert caught.type is ConnectionResetError  # an orderly end would be http.client's RemoteDisconnected, a subclass
    assert simulator.connect().ask("/stats").json["by_fault"] == {"reset": 1}


def test_a_truncated_answer_ends_in_the_middle(simulator: Simulator) -> None:
    """The announced length is the whole body's, half of it comes."""
    client = simulator.start(FaultPlan(truncate_share=1))
    with pytest.raises(http.client.IncompleteRead) as caught:
        client.ask_call(EXISTING)
    whole = json.dumps({"calls": VENDOR.answer(EXISTING, NOW)}, ensure_ascii=False, separators=(",", ":")).encode()
    assert caught.value.partial == whole[: len(whole) // 2]
    assert caught.value.expected == len(whole) - len(whole) // 2


def test_a_stalled_request_is_left_without_an_answer(simulator: Simulator) -> None:
    """Until the client gives up; then the server forgets it."""
    client = simulator.start(FaultPlan(stall_share=1))
    impatient = simulator.connect(timeout=0.2)
    with pytest.raises(TimeoutError):
        impatient.ask_call(EXISTING)
    impatient.close()
    stats = client.ask("/stats").json
    assert (stats["by_fault"], stats["by_status"]) == ({"stall": 1}, {})


def test_a_stall_can_end(simulator: Simulator) -> None:
    """With a length the answer comes after all."""
    client = simulator.start(FaultPlan(stall_share=1, stall_seconds=0.15))
    began = time.monotonic()
    assert client.ask_call(EXISTING).json == {"calls": VENDOR.answer(EXISTING, NOW)}
    assert time.monotonic() - began >= 0.15


def test_a_web_page_comes_instead_of_json(simulator: Simulator) -> None:
    """With a 200."""
    reply = simulator.start(FaultPlan(html_share=1)).ask_call(EXISTING)
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert reply.body.startswith(b"<!doctype html>")


def test_another_call_comes_instead(simulator: Simulator) -> None:
    """Its id is not the one asked for."""
    reply = simulator.start(FaultPlan(wrong_id_share=1)).ask_call(EXISTING)
    assert reply.json["calls"]["id"] == EXISTING + 1


def test_bodies_can_be_odd_in_their_shape(simulator: Simulator) -> None:
    """Unknown keys, ids as text and a list of one, alike on every read."""
    faults = FaultPlan(unknown_keys_share=1, string_ids_share=1, list_envelope_share=1)
    client = simulator.start(faults)
    body = client.ask_call(EXISTING).json
    assert client.ask_call(EXISTING).json == body
    (call,) = body["calls"]
    assert call["id"] == str(EXISTING)
    assert "x_simulated" in call
    assert all(isinstance(leg["user_id"], str) for leg in call["all_agents"])


def test_the_shares_of_faults_are_kept() -> None:
    """Of many requests each fault hits its share, independent of the order of asking."""
    plan = FaultPlan(error_share=0.1, reset_share=0.05, html_share=0.02)
    faults = [plan.fault_of(number) for number in range(20_000)]
    assert faults == [plan.fault_of(number) for number in reversed(range(20_000))][::-1]
    for fault, share in ((Fault.ERROR, 0.1), (Fault.RESET, 0.05), (Fault.HTML, 0.02), (None, 0.83)):
        assert faults.count(fault) / 20_000 == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"error_share": -0.1}, "error_share"),
        ({"error_share": 0.6, "reset_share": 0.6}, "the shares"),
        ({"latency_seconds": -1}, "latency_seconds"),
        ({"rate_limit_per_second": 0}, "rate_limit_per_second"),
        ({"stall_seconds": -1}, "stall_seconds"),
        ({"retry_after": "never"}, "retry_after"),
    ],
)
def test_an_impossible_plan_is_refused_in_one_line(options: dict[str, Any], name: str) -> None:
    """The message names the setting."""
    with pytest.raises(ValueError, match=rf"^{name} [^\n]*$"):
        FaultPlan(**options)
