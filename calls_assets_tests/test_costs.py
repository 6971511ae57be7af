"""What a call costs in work that can be counted: Python function calls, requests, files. Not in time.

`costs.json` has what was counted when it was last agreed to. More than a tenth above it fails: find what has become
dearer, or agree by writing the new figure. Counts are those of Python 3.11; later versions count fewer for the same,
but for what has a figure of its own.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from calls_assets import transport as transport_module
from calls_assets.api import CallsClient, ClientConfig
from calls_assets.collector import hold_collector
from calls_assets.derive import publish_day
from calls_assets.ingest import coverage, due_days, sweep
from calls_assets.lake import Lake, Read
from calls_assets.lake.storage import LocalStorage
from calls_assets.transport import Transport
from calls_assets_tests.derive.versions import SAMPLE
from calls_assets_tests.ingest.model import RUNGS, ModelCall, ModelVendor, options_in

AGREED: dict[str, float] = json.loads((Path(__file__).parent / "costs.json").read_text())
ZONE = ZoneInfo("UTC")
DAY = date(2025, 5, 1)
NEXT_MONTH = datetime(2025, 6, 1, tzinfo=UTC)
SMALL, LARGE = 1_000, 4_000


def count_calls(work: Callable[[], object]) -> int:
    """Counts the calls of functions, Python's and C's, that a piece of work makes in this thread.

    Not those of finalizers: what other tests have left may be collected at any time.
    """
    counted = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal counted
        counted += event in {"call", "c_call"}

    before = sys.getprofile()
    gc.collect()
    with hold_collector():
        sys.setprofile(note)
        try:
            work()
        finally:
            sys.setprofile(before)
    return counted


def check(name: str, measured: float) -> None:
    """Compares a figure with the agreed one."""
    is_later = sys.version_info >= (3, 12)
    agreed = AGREED.get(f"{name}, Python 3.12 and later", AGREED[name]) if is_later else AGREED[name]
    assert measured <= agreed * 1.1, f"{name}: {measured:.4g}, agreed are {agreed:.4g} (costs.json)"
    # So that an agreed figure cannot be so high that it guards nothing.
    assert is_later or measured >= agreed * 0.8, f"{name}: {measured:.4g}, agree to it"


class _Left:
    """Something in a circle, so that only the collector ends it, which calls a function for it."""

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        pass


def test_what_others_left_is_not_counted() -> None:
    """A collection in the middle of a piece of work ends what earlier tests have left."""
    with hold_collector():
        for _ in range(1_000):
            _Left()
        assert count_calls(gc.collect) < 100


def vendor_of(calls: int, *, first_id: int = 1) -> ModelVendor:
    """Makes an account with one day of calls."""
    start = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC)
    step = timedelta(days=1) / calls
    return ModelVendor([ModelCall(first_id + index, start + index * step) for index in range(calls)], NEXT_MONTH)


def sweep_day(lake: Lake, vendor: ModelVendor) -> int:
    """Sweeps the day; gives the number of requests."""
    before = vendor.stats.requests
    asyncio.run(sweep(lake, vendor, [DAY], options=options_in(ZONE), now=vendor.now, log=lambda _line: None))
    return vendor.stats.requests - before


def test_function_calls_of_a_sweep_and_of_its_tables(tmp_path: Path) -> None:
    """By the difference of a large day and a small one: what a run costs anyhow is not in it."""
    spent = {}
    for calls in (SMALL, LARGE):
        lake, vendor = Lake.open(tmp_path / str(calls)), vendor_of(calls)
        sweeping = count_calls(partial(sweep_day, lake, vendor))
        deriving = count_calls(partial(publish_day, lake, DAY, timezone=ZONE, reread_after=RUNGS))
        spent[calls] = sweeping, deriving
    for index, name in enumerate(("function calls of a sweep, by call", "function calls of the tables, by call")):
        check(name, (spent[LARGE][index] - spent[SMALL][index]) / (LARGE - SMALL))


def test_function_calls_of_accounting_for_a_day(tmp_path: Path) -> None:
    """What every sweep does with all calls of a day, however few are new."""
    accounting, looking = {}, {}
    for calls in (SMALL, LARGE):
        lake = Lake.open(tmp_path / str(calls))
        sweep_day(lake, vendor_of(calls))
        accounting[calls] = count_calls(partial(next, coverage(lake, [DAY], ZONE)))
        look = partial(due_days, lake, now=NEXT_MONTH, options=options_in(ZONE))
        looking[calls] = count_calls(look)
    for name, spent in (("accounting for ids", accounting), ("looking for due reads", looking)):
        check(f"function calls of {name}, by call", (spent[LARGE] - spent[SMALL]) / (LARGE - SMALL))


def make_documented(call_id: int, number: int, calls: int) -> Read:
    """Makes an answer about a call that is as the vendor documents it, with a leg, a recording and tags."""
    start = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC) + number * timedelta(days=1) / calls
    body = json.dumps({"calls": {**SAMPLE, "id": call_id, "started_at": int(start.timestamp())}}).encode()
    return Read(call_id, NEXT_MONTH, 200, start.replace(microsecond=0), True, None, body)


def test_function_calls_of_the_tables_of_documented_calls(tmp_path: Path) -> None:
    """A rebuild is bound by what is done for each call; and by nothing where nothing has changed."""
    made, repeated = {}, {}
    for calls in (SMALL, LARGE):
        lake = Lake.open(tmp_path / str(calls))
        lake.land(DAY, [make_documented(1 + number, number, calls) for number in range(calls)])
        publish = partial(publish_day, lake, DAY, timezone=ZONE, reread_after=RUNGS)
        made[calls] = count_calls(publish)
        repeated[calls] = count_calls(partial(publish, unless_current=True))
    check("function calls of the tables, by documented call", (made[LARGE] - made[SMALL]) / (LARGE - SMALL))
    check("function calls of the tables of a day that has not changed", repeated[LARGE])
    assert repeated[LARGE] < 1.05 * repeated[SMALL]


class _Wire(asyncio.Transport):
    """asyncio's side of a connection to a server that answers at once, so that only this side is counted."""

    def __init__(self, connection: asyncio.Protocol) -> None:
        super().__init__()
        self._connection = connection
        connection.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Answers."""
        body = b'{"calls": {"id": 1, "started_at": 1746057600, "is_ended": true, "duration": 1}}'
        head = b"HTTP/1.1 200 OK\r\ndate: Thu, 01 May 2025 00:00:00 GMT\r\ncontent-type: application/json\r\n"
        answer = head + b"content-length: %d\r\n\r\n" % len(body) + body
        asyncio.get_running_loop().call_soon(self._connection.data_received, answer)

    def is_closing(self) -> bool:
        """Never."""
        return False

    def get_write_buffer_size(self) -> int:
        """Nothing is left."""
        return 0

    def abort(self) -> None:
        """Ends."""
        self._connection.connection_lost(None)


def test_function_calls_of_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of client and transport, httpx's objects included, without the network."""

    async def connect(transport: Transport, origin: tuple[str, str, int]) -> asyncio.Protocol:
        connection = transport_module._Connection(transport._connections, transport._idle.setdefault(origin, []))
        _Wire(connection)
        return connection

    monkeypatch.setattr(Transport, "_connect", connect)
    config = ClientConfig(base_url="http://127.0.0.1:9", token="token", requests_per_second=1e9)

    async def fetch(count: int) -> None:
        async with CallsClient(config) as client:
            for _ in range(count):
                await client.fetch(1)

    def fetch_all(count: int) -> None:
        asyncio.run(fetch(count))

    small, large = (count_calls(partial(fetch_all, count)) for count in (100, 1_100))
    check("function calls of a request", (large - small) / 1_000)


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts the operations on the storage."""
    counts: dict[str, int] = {}
    for name in ("list", "read", "put_new", "replace", "delete"):
        original = getattr(LocalStorage, name)

        def counted(self: LocalStorage, *arguments: Any, _name: str = name, _original: Any = original) -> Any:  # noqa: ANN401
            counts[_name] = counts.get(_name, 0) + 1
            return _original(self, *arguments)

        monkeypatch.setattr(LocalStorage, name, counted)
    return counts


def test_requests_and_storage_operations_of_a_day(tmp_path: Path, operations: dict[str, int]) -> None:
    """A day of 4,000 calls the first time, and again when nothing is new: no request."""
    lake, vendor = Lake.open(tmp_path), vendor_of(LARGE)
    check("requests of a sweep, beyond the calls", sweep_day(lake, vendor) - LARGE)
    publish_day(lake, DAY, timezone=ZONE, reread_after=RUNGS)
    for name in ("list", "read", "put_new", "replace"):
        check(f"storage operations of a first sweep, {name}", operations.get(name, 0))
    operations.clear()
    again = sweep_day(lake, vendor)
    publish_day(lake, DAY, timezone=ZONE, reread_after=RUNGS)
    assert again == 0
    assert operations.get("put_new", 0) == operations.get("replace", 0) == 0
    for name in ("list", "read"):
        check(f"storage operations of a sweep with nothing new, {name}", operations.get(name, 0))
    operations.clear()
    publish_day(lake, DAY, timezone=ZONE, reread_after=RUNGS, unless_current=True)
    assert operations.get("put_new", 0) == operations.get("replace", 0) == 0
    for name in ("list", "read"):
        check(f"storage operations of the tables of a day that has not changed, {name}", operations.get(name, 0))


def test_requests_of_a_sweep_that_searches_for_its_day(tmp_path: Path) -> None:
    """An account that began at 65,123: what finding the ends of its only day costs."""
    vendor = vendor_of(SMALL, first_id=65_123)
    check("requests of a sweep that searches for its day", sweep_day(Lake.open(tmp_path), vendor) - SMALL)
