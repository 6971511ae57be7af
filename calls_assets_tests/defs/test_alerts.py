"""Alerts as Dagster gives them: runs that fail, checks that begin to fail, and what the body never holds."""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from calls_assets import alerts
from calls_assets.defs import build_definitions
from calls_assets.defs.runs import SILENT_FOR, end_dead_runs
from calls_assets.settings import Settings
from calls_assets_tests.defs.scripted import RANGE_END, RANGE_START, ScriptedVendor, run
from calls_assets_tests.faults import canaries
from calls_assets_tests.receiver import SECRET, Receiver, receiving

assets_module = importlib.import_module("calls_assets.defs.assets")
MONDAY = date(2025, 6, 2)
NOON = datetime(2025, 6, 2, tzinfo=UTC)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Gives a receiver, and a sender that does not pause."""
    monkeypatch.setattr(alerts, "PAUSE_SECONDS", 0.0)
    with receiving() as running:
        yield running


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """Gives a Dagster instance in memory."""
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def script() -> ScriptedVendor:
    """Gives an account with twenty calls on a day and one on the day after."""
    script = ScriptedVendor()
    script.add_day(100, 20, NOON)
    script.add_day(120, 1, NOON + timedelta(days=1))
    return script


@pytest.fixture
def settings(tmp_path: Path, script: ScriptedVendor, receiver: Receiver) -> Iterator[Settings]:
    """Gives the settings of a deployment that alerts."""
    with script.deployed(tmp_path, alert_url=receiver.url, ui_url="https://dagster.example.com") as deployed:
        yield deployed


class Ticking:
    """Ticks of an alert's sensor, with the cursor that Dagster keeps between them."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance, name: str) -> None:
        self._definitions = build_definitions(settings)
        self._instance = instance
        self._name = name
        self._cursor: str | None = None
        self.tick()  # the first one only sets the cursor: what failed before is not told

    def tick(self) -> list[str]:
        """Evaluates the sensor; gives the errors of its reactions."""
        sensor = self._definitions.resolve_sensor_def(self._name)
        with dg.build_sensor_context(
            instance=self._instance,
            cursor=self._cursor,
            resources=self._definitions.resources,
        ) as context:
            outcome = sensor.evaluate_tick(context)
        self._cursor = outcome.cursor
        return [str(reaction.error) for reaction in outcome.dagster_run_reactions or () if reaction.error]


def test_without_an_address_there_are_no_alerts(settings: Settings) -> None:
    """The two sensors are not even defined."""
    names = {sensor.name for sensor in build_definitions(replace(settings, alert_url=None)).sensors or ()}
    with_alerts = {sensor.name for sensor in build_definitions(settings).sensors or ()}
    assert with_alerts - names == {"run_failure_alert", "failed_check_alert"}


def test_a_failed_run_is_posted_once(settings: Settings, instance: dg.DagsterInstance, receiver: Receiver) -> None:
    """The whole body: job, days, the reason in one line, a link; nothing at the next tick."""
    ticking = Ticking(settings, instance, "run_failure_alert")
    run(replace(settings, api_token="canary-token"), instance, MONDAY)
    assert ticking.tick() == []
    (failed,) = instance.get_runs()
    (body,) = receiver.heard
    reason = body["error"]
    assert "denied access" in reason
    assert body == {
        "text": f"calls-assets: sweep_job for 2025-06-02: {reason}",
        "event": "run_failed",
        "run_id": failed.run_id,
        "job": "sweep_job",
        "first_day": "2025-06-02",
        "last_day": "2025-06-02",
        "error": reason,
        "url": f"https://dagster.example.com/runs/{failed.run_id}",
    }
    assert "canary-token" not in json.dumps(body)
    assert ticking.tick() == []
    assert len(receiver.heard) == 1


def test_a_run_whose_process_is_gone_is_posted(
    settings: Settings, instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    """No step has failed: the reason is the run's own. Without CALLS_UI_URL there is no link."""
    ticking = Ticking(replace(settings, ui_url=None), instance, "run_failure_alert")
    tags = {RANGE_START: "2025-06-02", RANGE_END: "2025-06-04"}
    instance.add_run(dg.DagsterRun(job_name="sweep_job", status=dg.DagsterRunStatus.STARTED, tags=tags))
    end_dead_runs(instance, datetime.now(UTC) + SILENT_FOR)
    assert ticking.tick() == []
    (body,) = receiver.heard
    assert body["text"].startswith("calls-assets: sweep_job for 2025-06-02 to 2025-06-04: the run has said nothing")
    assert (body["first_day"], body["last_day"]) == ("2025-06-02", "2025-06-04")
    assert "url" not in body


def evaluate_checks(instance: dg.DagsterInstance, day: date, *, error: bool, warning: bool) -> None:
    """Runs an asset of one day with two checks, which hold or not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # checks by partition, as in build_definitions
        partitions = dg.DailyPartitionsDefinition("2025-06-01")
        names = ("error", "warning")
        specs = [dg.AssetCheckSpec(name, asset="counted", partitions_def=partitions) for name in names]

        @dg.asset(partitions_def=partitions, check_specs=specs)
        def counted() -> Iterator[dg.AssetCheckEvaluation | dg.Output[None]]:
            for name, holds in (("error", error), ("warning", warning)):
                yield dg.AssetCheckEvaluation(
                    dg.AssetKey("counted"),
                    name,
                    holds,
                    {},
                    severity=dg.AssetCheckSeverity.WARN if name == "warning" else dg.AssetCheckSeverity.ERROR,
                    description="3 ids without an answer: 12 to 14",
                    partition=day.isoformat(),
                )
                yield dg.Output(None, output_name=f"counted_{name}")
            yield dg.Output(None)

        assert dg.materialize([counted], partition_key=day.isoformat(), instance=instance).success


def test_a_check_that_begins_to_fail_is_posted_once(
    settings: Settings, instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    """Not at each run of the day while it fails, and again after it held; warnings are not posted."""
    ticking = Ticking(settings, instance, "failed_check_alert")
    tuesday = MONDAY + timedelta(days=1)
    told = []
    for day, error, warning in (
        (MONDAY, True, False),
        (MONDAY, False, False),
        (tuesday, False, True),
        (MONDAY, False, True),
        (MONDAY, True, True),
        (MONDAY, False, True),
    ):
        evaluate_checks(instance, day, error=error, warning=warning)
        assert ticking.tick() == []
        told.append([body["first_day"] for body in receiver.heard])
        if len(told) < 6:
            receiver.heard.clear()
    assert told == [[], ["2025-06-02"], ["2025-06-03"], [], [], ["2025-06-02"]]
    (body,) = receiver.heard
    assert body["event"] == "check_failed"
    assert body["text"].endswith("for 2025-06-02: error of counted fails")
    assert body["checks"] == [
        {
            "asset": "counted",
            "check": "error",
            "day": "2025-06-02",
            "description": "3 ids without an answer: 12 to 14",
        }
    ]


@pytest.mark.parametrize("fault", ["a refusal that echoes", "an error page that echoes the request", "no fault"])
def test_no_canary_is_in_an_alert(
    fault: str,
    tmp_path: Path,
    instance: dg.DagsterInstance,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Token and personal data of faults that echo them, and of an error that quotes a body ("no fault")."""

    def quote(*_: object, **__: object) -> None:
        raise RuntimeError(canaries.body_of(1).decode())

    if fault == "no fault":
        monkeypatch.setattr(assets_module, "publish_day", quote)
    with canaries.serve_aside(canaries.script_for(fault, lambda id_: id_ > 1)) as served:
        settings = Settings(
            data_dir=tmp_path / "lake",
            start_date=date(2025, 1, 1),
            api_base_url=served.url,
            api_token=canaries.TOKEN,
            requests_per_second=5_000,
            timeout_seconds=0.3,
            max_attempts=1,
            alert_url=receiver.url,
        )
        ticking = Ticking(settings, instance, "run_failure_alert")
        assert not run(settings, instance, canaries.DAY).success
        assert ticking.tick() == []
    (body,) = receiver.heard
    assert canaries.search(json.dumps(body, ensure_ascii=False), "the alert") == []
    if fault == "no fault":
        assert body["error"] == "tables: RuntimeError, see the run's log"


def test_a_receiver_that_is_down_breaks_nothing(
    settings: Settings, instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    """The tick says so without the address, the alert is given up, and the next failed run is posted."""
    ticking = Ticking(settings, instance, "run_failure_alert")
    receiver.statuses = [503] * 3
    refused = replace(settings, api_token="canary-token")
    with canaries.listening() as listener:
        run(refused, instance, MONDAY)
        (error,) = ticking.tick()
    assert "AlertError: the receiver at CALLS_ALERT_URL answered with status 503, 3 times" in error
    ours = [line for line in listener.lines if not line.startswith("uvicorn.")]  # what the receiver itself logs
    assert not [text for text in (error, *ours) if SECRET in text]
    receiver.heard.clear()
    run(refused, instance, MONDAY)
    assert ticking.tick() == []
    assert len(receiver.heard) == 1
