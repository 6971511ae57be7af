"""A real `dagster dev`: web server, daemon, code server and runs in processes of their own, asked through GraphQL."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parent.parent.parent
_Found = TypeVar("_Found")

_RUNS = """query($filter: RunsFilter) { runsOrError(filter: $filter, limit: 50) { ... on Runs { results {
  runId status jobName startTime endTime tags { key value } assetSelection { path } } } } }"""
_EVENTS = """query($path: [String!]!, $partitions: [String!]) { assetNodeOrError(assetKey: {path: $path}) {
  ... on AssetNode { assetMaterializations(partitions: $partitions) { partition runId } } } }"""
_BACKFILL = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) { __typename
  ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
_LAUNCH = """mutation($params: [ExecutionParams!]!) { launchMultipleRuns(executionParamsList: $params) { __typename
  ... on LaunchMultipleRunsResult { launchMultipleRunsResult { __typename ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message } } } ... on PythonError { message } } }"""
_BACKFILL_STATUS = """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { status error { message } } } }"""
_MESSAGES = """query($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events {
  ... on MessageEvent { message } } } } }"""
_TERMINATE = """mutation($id: String!) { terminateRun(runId: $id) { __typename } }"""
_TICKS = """query($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) { ... on Sensor {
  sensorState { ticks(limit: 500) { status skipReason timestamp endTimestamp runIds error { message } } } } } }"""
_SELECTOR = {"repositoryName": "__repository__", "repositoryLocationName": "calls_assets"}


@dataclass
class DagsterDev:
    """A running `dagster dev`.

    Attributes:
        url: Where the UI is.
        process: The process, leader of its group.
        log: What it wrote.
    """

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def query(self, text: str, **variables: object) -> dict[str, Any]:
        """Asks GraphQL; gives the data."""
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self.url}/graphql",
            json.dumps({"query": text, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - our own server
            answer = json.load(response)
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    def is_up(self) -> bool:
        """Tells whether the web server answers; raises when it does not."""
        return bool(self.query("{ version }"))

    def runs(self, **run_filter: object) -> list[dict[str, Any]]:
        """Gives runs, newest first; tags as a dictionary."""
        results = self.query(_RUNS, filter=run_filter)["runsOrError"]["results"]
        return [run | {"tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in results]

    def unended(self) -> list[str]:
        """Lists the runs that wait or are under way."""
        return [run["runId"] for run in self.runs(statuses=["QUEUED", "STARTING", "STARTED"])]

    def partitions_of(self, asset: str, partitions: list[str]) -> list[str]:
        """Lists the partition of each materialization of an asset, for the partitions given."""
        found = self.query(_EVENTS, path=[asset], partitions=partitions)["assetNodeOrError"]["assetMaterializations"]
        return sorted(event["partition"] for event in found)

    def ticks(self, sensor: str = "new_call_ids") -> list[dict[str, Any]]:
        """Gives a sensor's last ticks, newest first."""
        state = self.query(_TICKS, selector=_SELECTOR | {"sensorName": sensor})["sensorOrError"]["sensorState"]
        ticks: list[dict[str, Any]] = state["ticks"]
        return ticks

    def launch(self, *wanted: tuple[list[str], str]) -> list[str]:
        """Launches runs of assets for a partition each, all at once, as the UI does by hand; gives their ids."""
        params = [
            {
                "selector": _SELECTOR
                | {"jobName": "__ASSET_JOB", "assetSelection": [{"path": [asset]} for asset in assets]},
                "executionMetadata": {"tags": [{"key": "dagster/partition", "value": partition}]},
            }
            for assets, partition in wanted
        ]
        launched = self.query(_LAUNCH, params=params)["launchMultipleRuns"]
        assert launched["__typename"] == "LaunchMultipleRunsResult", launched
        assert all("run" in result for result in launched["launchMultipleRunsResult"]), launched
        return [result["run"]["runId"] for result in launched["launchMultipleRunsResult"]]

    def terminate(self, run_id: str) -> None:
        """Ends a run as the UI does."""
        assert self.query(_TERMINATE, id=run_id)["terminateRun"]["__typename"] == "TerminateRunSuccess"

    def backfill(self, assets: list[str], partitions: list[str]) -> str:
        """Starts a backfill as the UI does; gives its id."""
        params = {"assetSelection": [{"path": [asset]} for asset in assets], "partitionNames": partitions}
        launched = self.query(_BACKFILL, params=params)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return str(launched["backfillId"])

    def backfill_status(self, backfill_id: str) -> str:
        """Gives the status of a backfill."""
        found = self.query(_BACKFILL_STATUS, id=backfill_id)["partitionBackfillOrError"]
        return f"{found['status']}{found['error'] or ''}"

    def processes(self) -> dict[str, list[int]]:
        """Finds the processes by what they are: ids of code servers, daemon, fork servers and run workers."""
        # Without -ww, ps cuts lines off after 80 characters, and a worker's says what it is behind them.
        command = ["ps", "-ww", "-eo", "pid=,ppid=,sid=,args="]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        rows = [
            (int(pid), int(parent), args)
            for pid, parent, session, args in (line.split(None, 3) for line in lines)
            if int(session) == self.process.pid
        ]
        code_servers = [pid for pid, _, args in rows if "code-server start" in args or "api grpc" in args]
        forking = [(pid, parent) for pid, parent, args in rows if "multiprocessing.forkserver" in args]
        return {
            "code server": code_servers,
            "daemon": [pid for pid, _, args in rows if "dagster._daemon" in args],
            "fork server": [pid for pid, parent in forking if parent in code_servers],
            "worker": [pid for pid, parent in forking if parent not in code_servers],
        }

    def messages(self, run_id: str) -> str:
        """Gives what the log of a run says, a line for each event."""
        events = self.query(_MESSAGES, id=run_id)["logsForRun"]["events"]
        return "\n".join(event["message"] for event in events if "message" in event)

    def wait_for(self, what: str, look: Callable[[], _Found | None], seconds: float = 120) -> _Found:
        """Looks every second until there is something; fails with the log when it takes too long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert self.process.poll() is None, f"dagster dev ended:\n{self.log.read_text()[-3000:]}"
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                found = look()
                if found:
                    return found
            time.sleep(1)
        raise AssertionError(f"waited {seconds:.0f} s for {what}:\n{self.log.read_text()[-5000:]}")


@contextlib.contextmanager
def dagster_dev(
    environment: Mapping[str, str],
    settings: str | Path = "dagster.yaml",
    workspace: str | Path = "workspace.yaml",
) -> Iterator[DagsterDev]:
    """Runs `dagster dev` on a workspace and a file of instance settings, below the project or elsewhere."""
    home = Path(environment["DAGSTER_HOME"])
    shutil.copy(ROOT / settings, home / "dagster.yaml")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = home / "dev.log"
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(workspace), "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=dict(environment), stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield DagsterDev(f"http://127.0.0.1:{port}", process, log)
    finally:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
