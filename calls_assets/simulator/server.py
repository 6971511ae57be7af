"""Running the simulator: in a thread for tests, in the foreground for `calls-assets simulate`."""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from threading import Thread
from typing import Any
from zoneinfo import ZoneInfo

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from calls_assets.simulator.account import Account
from calls_assets.simulator.app import TRANSPORT, create_app
from calls_assets.simulator.clock import SettableClock, utc_now
from calls_assets.simulator.faults import FaultPlan
from calls_assets.simulator.posting import Webhook
from calls_assets.simulator.vendor import Vendor
from calls_assets.simulator.webhook import LATE_SHARE, REPEAT_SHARE

_ACCOUNT = Account()
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_DEFAULT_DAYS = 45
_FAULT_SHARES = {
    "error": "requests answered 500, 502, 503, 504 in turn",
    "reset": "connections reset",
    "stall": "requests left without an answer, for --stall-seconds",
    "truncate": "answers cut off in the middle",
    "html": "requests answered 200 with a web page",
    "wrong-id": "answers about another call",
    "unknown-keys": "calls with undocumented keys",
    "string-ids": "calls with ids as text",
    "list-envelope": "calls wrapped in a list of one",
}


class _Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type] # chosen at run time: httptools if it is there
    """Uvicorn's HTTP protocol, with the connection handed to the application for faults that need it."""

    app_state: dict[str, Any]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.app_state = {**self.app_state, TRANSPORT: transport}


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that accepts connections.

    Attributes:
        url: Where, without a trailing slash and without any base path.
        port: The TCP port.
    """

    url: str
    port: int


@contextmanager
def serve(app: Starlette, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[RunningServer]:
    """Serves an application from a thread of this process while the context lasts.

    Args:
        app: What `create_app` gave.
        host: Where to listen.
        port: Which port; 0 takes a free one.

    Yields:
        The server, ready.

    Raises:
        OSError: The address cannot be listened on.
    """
    with closing(_listen(host, port)) as listener:
        server = uvicorn.Server(_config(app))
        thread = Thread(target=server.run, kwargs={"sockets": [listener]}, name="calls-assets-simulator", daemon=True)
        thread.start()
        try:
            taken = listener.getsockname()[1]
            yield RunningServer(url=_url(host, taken), port=taken)
        finally:
            server.should_exit = True
            thread.join()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `calls-assets simulate`."""
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="where to listen (default: this machine only)")
    add("--port", type=int, default=8765, help="TCP port, 0 for a free one (default: %(default)s)")
    add("--token", default="simulator-token", help="what Access-Token must say (default: %(default)s)")
    add("--base-path", default="", help="what precedes /calls in the address, such as /api/v2")
    account = parser.add_argument_group("the account to invent")
    add = account.add_argument
    add("--seed", type=int, default=_ACCOUNT.seed, help="another seed, other calls (default: %(default)s)")
    add("--calls-per-day", type=int, default=_ACCOUNT.calls_per_day, help="mean over a week (default: %(default)s)")
    add("--first-id", type=int, default=_ACCOUNT.first_id, help="id of the first call (default: %(default)s)")
    add("--first-day", type=date.fromisoformat, help=f"first day with calls (default: {_DEFAULT_DAYS} days ago)")
    add("--timezone", default=_ACCOUNT.timezone, help="zone of days and hours (default: %(default)s)")
    add("--disorder", type=int, default=_ACCOUNT.disorder, help="ids out of order by so many (default: %(default)s)")
    for name, what in (
        ("missing", "ids that never exist"),
        ("late", "ids readable only minutes after the call began"),
        ("moves", "calls whose start is corrected later"),
        ("quirk", "calls with an oddity of the vendor"),
    ):
        default = getattr(_ACCOUNT, f"{name}_share")
        add(f"--{name}-share", type=float, default=default, metavar="SHARE", help=f"{what} (default: %(default)s)")
    clock = parser.add_argument_group("the clock")
    clock.add_argument(
        "--now", type=datetime.fromisoformat, help="what the clock shows at the start (default: the time)"
    )
    clock.add_argument("--speed", type=float, default=1.0, help="its seconds for each real one; 0 stands still")
    webhook = parser.add_argument_group("the webhook (none by default)")
    add = webhook.add_argument
    add("--webhook", metavar="URL", help="post a delivery there about every call that ends from now on")
    add("--webhook-header", action="append", default=[], metavar="'NAME: VALUE'", help="send it along; repeatable")
    for name, share, what in (
        ("repeat", REPEAT_SHARE, "calls posted twice"),
        ("late", LATE_SHARE, "calls posted up to 10 minutes late"),
    ):
        add(
            f"--webhook-{name}-share", type=float, default=share, metavar="SHARE", help=f"{what} (default: %(default)s)"
        )
    faults = parser.add_argument_group("faults (none by default)")
    add = faults.add_argument
    add("--latency", type=float, default=0.0, metavar="SECONDS", help="every answer waits so long")
    add("--rate-limit", type=float, metavar="PER_SECOND", help="more requests get 429")
    add("--retry-after", choices=("seconds", "date"), default="seconds", help="form of Retry-After in a 429")
    add("--stall-seconds", type=float, metavar="SECONDS", help="how long a stall lasts (default: for ever)")
    for name, what in _FAULT_SHARES.items():
        add(f"--{name}-share", type=float, default=0.0, metavar="SHARE", help=what)


def run_from_arguments(arguments: argparse.Namespace) -> int:
    """Runs the simulator until it is interrupted.

    Args:
        arguments: What a parser with `add_arguments` read.

    Returns:
        The exit code: 0 after an interruption, 2 if an option is wrong, 1 if the port cannot be had.
    """
    try:
        clock = _clock(arguments)
        account = _account(arguments, clock())
        webhook = _webhook(arguments)
        app = create_app(
            Vendor(account),
            token=arguments.token,
            base_path=arguments.base_path,
            faults=_faults(arguments),
            clock=clock,
            webhook=webhook,
        )
    except ValueError as error:
        sys.stderr.write(f"calls-assets simulate: {error}\n")
        return 2
    try:
        listener = _listen(arguments.host, arguments.port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "not a port"
        sys.stderr.write(
            f"calls-assets simulate: cannot listen on {arguments.host}:{arguments.port}: {reason}; try another --port\n"
        )
        return 1
    with closing(listener):
        url = _url(arguments.host, listener.getsockname()[1])
        sys.stdout.write(_greeting(url, arguments, account, clock(), webhook))
        sys.stdout.flush()
        try:
            uvicorn.Server(_config(app)).run(sockets=[listener])
        except KeyboardInterrupt:  # uvicorn has stopped in good order and passes the signal on
            sys.stdout.write("\ncalls-assets simulator stopped\n")
    return 0


def _clock(arguments: argparse.Namespace) -> SettableClock:
    now: datetime = arguments.now or utc_now()
    if now.tzinfo is None:
        now = now.replace(tzinfo=_zone(arguments.timezone))
    return SettableClock(now, speed=arguments.speed)


def _account(arguments: argparse.Namespace, now: datetime) -> Account:
    today = now.astimezone(_zone(arguments.timezone)).date()
    return Account(
        seed=arguments.seed,
        timezone=arguments.timezone,
        first_id=arguments.first_id,
        first_day=arguments.first_day or today - timedelta(_DEFAULT_DAYS),
        calls_per_day=arguments.calls_per_day,
        missing_share=arguments.missing_share,
        late_share=arguments.late_share,
        disorder=arguments.disorder,
        moves_share=arguments.moves_share,
        quirk_share=arguments.quirk_share,
    )


def _faults(arguments: argparse.Namespace) -> FaultPlan:
    shares: dict[str, Any] = {
        f"{name}_share": getattr(arguments, f"{name}_share")
        for name in (key.replace("-", "_") for key in _FAULT_SHARES)
    }
    return FaultPlan(
        seed=arguments.seed,
        latency_seconds=arguments.latency,
        rate_limit_per_second=arguments.rate_limit,
        retry_after=arguments.retry_after,
        stall_seconds=arguments.stall_seconds,
        **shares,
    )


def _webhook(arguments: argparse.Namespace) -> Webhook | None:
    if arguments.webhook is None:
        if arguments.webhook_header:
            raise ValueError("webhook-header is of no use without --webhook")
        return None
    if not all(":" in header for header in arguments.webhook_header):
        raise ValueError("webhook-header is not of the form 'Name: value'")
    headers = (header.split(":", 1) for header in arguments.webhook_header)
    return Webhook(
        url=arguments.webhook,
        headers=tuple((name.strip(), value.strip()) for name, value in headers),
        repeat_share=arguments.webhook_repeat_share,
        late_share=arguments.webhook_late_share,
    )


def _zone(name: str) -> ZoneInfo:
    Account(timezone=name)  # refuses a wrong name in one line
    return ZoneInfo(name)


def _greeting(url: str, arguments: argparse.Namespace, account: Account, now: datetime, webhook: Webhook | None) -> str:
    base_path = arguments.base_path.rstrip("/")
    lines = [
        f"calls-assets simulator at {url}{base_path} (every call, person and number is invented)",
        f"  token {arguments.token} · calls from id {account.first_id} on {account.first_day} · "
        f"clock {now:%Y-%m-%d %H:%M:%S} UTC, speed {arguments.speed:g} · counters at {url}/stats",
        "To use it:",
        f"  export CALLS_API_BASE_URL={url}{base_path} CALLS_API_TOKEN={arguments.token} \\",
        f"         CALLS_TIMEZONE={account.timezone} CALLS_START_DATE={account.first_day}",
        "Ctrl+C stops it.",
    ]
    if webhook is not None:
        lines.insert(2, f"  simulated webhook deliveries go to {webhook.masked_url} as calls end")
    if arguments.host not in _LOOPBACK:
        lines.insert(1, "  Reachable from other machines: anybody who knows the token can read it.")
    return "\n".join(lines) + "\n"


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket: from here on clients may connect, even before the server thread runs."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1_024)
    except BaseException:
        listener.close()
        raise
    return listener


def _config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="auto",  # deliveries live in it; what a test serves may have none
        log_config=None,  # a test's or a user's logging is none of the simulator's business
        log_level="critical",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,  # stalled requests would hold it for ever
    )


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
