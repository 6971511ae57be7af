"""The deployment as users run it: sensor, runs and a backfill in a real `dagster dev`, against a vendor over HTTP."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from calls_assets.settings import Location
from calls_assets.simulator import Account, Vendor, create_app, serve
from calls_assets_tests.e2e.dagster_dev import DagsterDev, dagster_dev
from calls_assets_tests.e2e.running import TABLES, TOKEN, make_environment, read_rows, read_stats
from calls_assets_tests.receiver import SECRET, receiving


class Gate:
    """When closed, answers the first two requests after a pause (a sensor's) and refuses the token of the others.

    Attributes:
        is_closed: Whether it is.
        delay_seconds: How long each request waits.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.is_closed = False
        self.delay_seconds = 0.0
        self._served = 0
        self._heard = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        await asyncio.sleep(self.delay_seconds)
        self._served = self._served + 1 if time.monotonic() - self._heard < 0.5 else 1
        self._heard = time.monotonic()
        if not self.is_closed or self._served <= 2:
            await self.app(scope, receive, send)
            return
        body = b'{"error": "token"}'
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def zone_at_noon() -> ZoneInfo:
    """Gives a zone in which it is about midday, when calls are many."""
    behind = datetime.now(UTC).hour - 12
    return ZoneInfo(f"Etc/GMT{behind:+d}")  # these names count westwards


def ended_sweeps(dev: DagsterDev, status: str) -> list[str]:
    """Lists the sweeps of the job that ended so."""
    return [run["runId"] for run in dev.runs(statuses=[status], pipelineName="sweep_job")]


@contextmanager
def on_one_machine(root: Path, base_url: str, **settings: str) -> Iterator[DagsterDev]:
    """Runs `dagster dev` with the committed settings."""
    environment = make_environment(root, base_url, **settings)
    with dagster_dev(environment) as dev:
        yield dev


def list_landed(lake: Path, day: date) -> set[int]:
    """Lists the ids that raw has answers about."""
    files = [*(lake / f"raw/call_records/call_date={day}").glob("*.parquet")]
    return {id_ for file in files for id_ in pq.ParquetFile(file).read(["call_id"])["call_id"].to_pylist()}


def check_run_ended_at_work(dev: DagsterDev, gate: Gate, url: str, lake: Path, day: date) -> None:
    """Runs are forks: one that is ended in the UI ends soon and keeps what it landed; the next asks for the rest."""
    known = list_landed(lake, day)
    gate.delay_seconds = 0.5
    (run_id,) = dev.launch((["call_records"], day.isoformat()))
    # A sweep by the sensor may be under way: one run fetches at a time.
    started = dev.wait_for("its start", lambda: re.search(r"Started process .*pid: (\d+)", dev.messages(run_id)), 300)
    asked = read_stats(url)["distinct_ids"]
    dev.wait_for("its answers", lambda: read_stats(url)["distinct_ids"] > asked + 200)
    assert int(started[1]) in dev.processes()["worker"]
    dev.terminate(run_id)
    dev.wait_for("its end", lambda: dev.runs(runIds=[run_id])[0]["status"] == "CANCELED", 60)
    dev.wait_for("the end of its process", lambda: int(started[1]) not in dev.processes()["worker"], 10)
    assert len(dev.processes()["fork server"]) == 1
    gate.delay_seconds = 0.0
    landed = list_landed(lake, day) - known
    assert len(landed) > 100
    (run_id,) = dev.launch((["call_records", *TABLES], day.isoformat()))
    dev.wait_for("the rest", lambda: dev.runs(runIds=[run_id], statuses=["SUCCESS"]), 300)
    times = read_stats(url, ids=True)["per_id"]
    assert {times[str(id_)] for id_ in landed} == {1}
    assert len(read_rows(lake, "calls", day)) > 2 * len(landed)


def check_sensor_and_backfill(
    root: Path,
    lake: Location,
    start: Callable[..., AbstractContextManager[DagsterDev]],
    also: Callable[[DagsterDev, Gate, str, date], None] | None = None,
    /,
    **settings: str,
) -> None:
    """New calls start a run that lands them, also after a failed one, which is posted; a backfill reports its days.

    Args:
        root: A directory for Dagster's home.
        lake: Where the rows come.
        start: Starts Dagster: gets root, address of the API and settings.
        also: A further check of Dagster, the gate before the API, its address, and a day that was not swept yet.
        settings: Further settings.
    """
    zone = zone_at_noon()
    today = datetime.now(zone).date()
    account = Account(first_day=today - timedelta(days=6), calls_per_day=4_000, timezone=zone.key, first_id=900)
    gate = Gate(create_app(Vendor(account), token=TOKEN))
    with (
        receiving() as receiver,
        serve(Starlette(routes=[Mount("/", gate)])) as server,
        start(
            root,
            server.url,
            CALLS_DATA_DIR=str(lake),
            CALLS_START_DATE=str(today - timedelta(days=30)),
            CALLS_TIMEZONE=zone.key,
            CALLS_POLL_SECONDS="5",
            CALLS_ALERT_URL=receiver.url,
            **settings,
        ) as dev,
    ):
        dev.wait_for("a first sweep by the sensor", lambda: ended_sweeps(dev, "SUCCESS"), 300)
        first_rows = len(read_rows(lake, "calls", today))

        # A run that fails: the probe is answered, then the token is refused.
        gate.is_closed = True
        (failed, *_) = dev.wait_for("a failed sweep", lambda: ended_sweeps(dev, "FAILURE"), 300)
        gate.is_closed = False
        done = len(ended_sweeps(dev, "SUCCESS"))
        dev.wait_for("a sweep after the failed one", lambda: len(ended_sweeps(dev, "SUCCESS")) > done, 300)
        assert any("failed: waiting" in (tick["skipReason"] or "") for tick in dev.ticks())
        assert failed in {run_id for tick in dev.ticks() for run_id in tick["runIds"]}
        assert len(read_rows(lake, "calls", today)) > first_rows
        dev.wait_for("an alert of the failed run", lambda: failed in [body["run_id"] for body in receiver.heard])

        # A range from the UI, in one run of three days.
        days = [(today - timedelta(days=back)).isoformat() for back in (4, 3, 2)]
        assets = ["call_records", *TABLES]
        backfill = dev.backfill(assets, days)
        dev.wait_for("the backfill", lambda: dev.backfill_status(backfill) == "COMPLETED_SUCCESS", 300)
        runs = dev.runs(tags=[{"key": "dagster/backfill", "value": backfill}])
        assert [run["status"] for run in runs] == ["SUCCESS"]
        assert runs[0]["tags"]["dagster/asset_partition_range_start"] == days[0]
        for asset in assets:
            assert dev.partitions_of(asset, days) == days, asset
        for day in days:
            assert len(read_rows(lake, "calls", datetime.fromisoformat(day).date())) > 500
        if also:
            also(dev, gate, server.url, today - timedelta(days=5))
    for path in dev.log.parent.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


@pytest.mark.timeout(1_200)
def test_sensor_runs_and_backfill_in_dagster_dev(tmp_path: Path) -> None:
    """The main job in the UI, as it is deployed on one machine."""
    lake = tmp_path / "lake"
    check_sensor_and_backfill(
        tmp_path, lake, on_one_machine, lambda dev, gate, url, day: check_run_ended_at_work(dev, gate, url, lake, day)
    )
