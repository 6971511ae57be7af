"""Running the simulator: as a context, and from the command line's options."""

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, date, datetime, timedelta

import pytest
from starlette.types import Receive, Scope, Send

from calls_assets.simulator import (
    Account,
    FaultPlan,
    SettableClock,
    Vendor,
    add_arguments,
    create_app,
    run_from_arguments,
    serve,
)

_RUN = """
import argparse, sys
from calls_assets.simulator import add_arguments, run_from_arguments
parser = argparse.ArgumentParser()
add_arguments(parser)
sys.exit(run_from_arguments(parser.parse_args()))
"""


def _parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def _get(url: str, token: str) -> object:
    request = urllib.request.Request(url, headers={"Access-Token": token})  # noqa: S310 - our own loopback server
    with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310 - as above
        return json.loads(response.read())


def test_the_command_prints_what_is_needed_to_use_it_and_stops_on_an_interrupt() -> None:
    """The printed address and token work; the simulated day is the one asked for."""
    words = ["--port", "0", "--token", "t0ken", "--base-path", "/v1", "--seed", "9", "--first-id", "500"]
    words += ["--now", "2025-07-04T18:00", "--speed", "0", "--timezone", "Europe/Berlin", "--calls-per-day", "300"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", _RUN, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        printed = ""
        while "Ctrl+C" not in printed:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            printed += line
        assert "simulator" in printed
        exported = dict(re.findall(r"(CALLS_\w+)=(\S+)", printed))
        assert exported["CALLS_TIMEZONE"] == "Europe/Berlin"
        assert exported["CALLS_START_DATE"] == "2025-05-20"
        vendor = Vendor(
            Account(seed=9, first_id=500, timezone="Europe/Berlin", first_day=date(2025, 5, 20), calls_per_day=300)
        )
        now = datetime(2025, 7, 4, 16, tzinfo=UTC)
        highest = vendor.highest_id(now)
        url = f"{exported['CALLS_API_BASE_URL']}/calls/{highest}"
        assert highest is not None
        assert _get(url, exported["CALLS_API_TOKEN"]) == {"calls": vendor.answer(highest, now)}
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


def test_a_taken_port_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    """With the port in it, and a failing exit code."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run_from_arguments(_parse("--port", str(port))) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(rf"calls-assets simulate: cannot listen on 127\.0\.0\.1:{port}: [^\n]+\n", captured.err)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("--timezone", "Mars/Olympus"), "timezone"),
        (("--missing-share", "2"), "missing_share"),
        (("--error-share", "-1"), "error_share"),
        (("--base-path", "x"), "base_path"),
        (("--speed", "-1"), "speed"),
        (("--first-id", "0"), "first_id"),
    ],
)
def test_a_wrong_option_is_one_clear_line(
    words: tuple[str, ...], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Naming the option, before anything listens."""
    assert run_from_arguments(_parse("--port", "0", *words)) == 2
    assert re.fullmatch(rf"calls-assets simulate: {name}[^\n]+\n", capsys.readouterr().err)


def test_a_port_that_is_none_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Above 65535."""
    assert run_from_arguments(_parse("--port", "70000")) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_context_stops_in_spite_of_a_stalled_request_and_frees_the_port() -> None:
    """A client that waits for ever does not hold the server."""
    app = create_app(Vendor(Account()), token="t", faults=FaultPlan(stall_share=1))
    with socket.socket() as client, serve(app) as server:  # the client outlives the server
        client.connect(("127.0.0.1", server.port))
        client.sendall(b"GET /calls/65200 HTTP/1.1\r\nHost: x\r\nAccess-Token: t\r\n\r\n")
        while not app.state.stats.report()["by_fault"]:
            time.sleep(0.01)
        began = time.monotonic()
    assert time.monotonic() - began < 4
    with socket.create_server(("127.0.0.1", server.port)):
        pass


def test_the_context_refuses_a_taken_port() -> None:
    """With the system's own error, at once."""
    app = create_app(Vendor(Account()), token="t")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = serve(app, port=taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            server.__enter__()


def test_an_application_without_a_lifespan_is_served() -> None:
    """As a test's own may be: it fails when it is asked to begin, and answers all the same."""
    app = create_app(Vendor(Account()), token="t")

    async def answer_http_only(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await app(scope, receive, send)

    with serve(answer_http_only) as server:  # type: ignore[arg-type] # it forwards to a Starlette
        assert isinstance(_get(server.url + "/stats", "t"), dict)


def test_a_clock_stands_until_it_is_set() -> None:
    """And can be advanced."""
    clock = SettableClock(datetime(2025, 5, 1, tzinfo=UTC))
    assert clock() == clock() == datetime(2025, 5, 1, tzinfo=UTC)
    clock.advance(timedelta(hours=3))
    assert clock() == datetime(2025, 5, 1, 3, tzinfo=UTC)
    with pytest.raises(ValueError, match="zone"):
        clock.set(datetime(2025, 5, 1))  # noqa: DTZ001 - the mistake under test


def test_a_fast_clock_runs_ahead() -> None:
    """At 3,600 times the speed, a twentieth of a second is three minutes."""
    clock = SettableClock(datetime(2025, 5, 1, tzinfo=UTC), speed=3_600)
    time.sleep(0.05)
    assert clock() - datetime(2025, 5, 1, tzinfo=UTC) >= timedelta(minutes=3)
