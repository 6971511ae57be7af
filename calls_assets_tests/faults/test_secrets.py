"""Token and personal data stay in raw and tables, and the token goes to the configured host only."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import re
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random

import dagster as dg
import httpx
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.scheduler.instigation import InstigatorType
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget, ModuleTarget, WorkspaceLoadTarget
from dagster._daemon.sensor import execute_sensor_iteration
from dagster._scheduler.scheduler import launch_scheduled_runs

from calls_assets.api import ApiError, CallsClient, connect
from calls_assets.defs import build_definitions
from calls_assets.ingest import SweepOptions, sweep
from calls_assets.lake import Lake, Read
from calls_assets.settings import Settings, SettingsError
from calls_assets.transport import Transport
from calls_assets_tests.api.server import Heard, Served
from calls_assets_tests.faults import canaries, tricks
from calls_assets_tests.faults.counts import SEED, choose, tell
from calls_assets_tests.workspaces import open_workspace

assets_module = importlib.import_module("calls_assets.defs.assets")
build_module = importlib.import_module("calls_assets.defs.build")
jobs_module = importlib.import_module("calls_assets.defs.jobs")
sensors_module = importlib.import_module("calls_assets.defs.sensors")
sweep_module = importlib.import_module("calls_assets.ingest.sweep")  # the package's attribute is the function
pytestmark = [
    pytest.mark.timeout(choose(900, 3600)),
    # Dagster's own description of a schedule reads it.
    pytest.mark.filterwarnings(
        "ignore:Property `ScheduleDefinition.environment_vars` is deprecated:DeprecationWarning"
    ),
]
RUN_EVERY = choose(11, 3)  # a run takes a second, a sweep a tenth
RUN_WHOLE_EVERY = choose(33, 12)
ENDS_RUNS = "a refusal that echoes"


@dataclass(slots=True)
class Searched(canaries.Findings):
    """What was searched.

    Attributes:
        scenarios: Scenarios played.
        runs: Runs of the assets; the other scenarios are sweeps alone.
        failed_runs: Runs that failed, as they should.
        shown: What GraphQL showed, by kind.
    """

    scenarios: int = 0
    runs: int = 0
    failed_runs: int = 0
    shown: Counter[str] = field(default_factory=Counter)


def environment_for(url: str, data_dir: Path) -> dict[str, str]:
    """Gives the environment of a deployment that gives up soon."""
    return {
        "CALLS_DATA_DIR": str(data_dir),
        "CALLS_START_DATE": "2025-01-01",
        "CALLS_API_BASE_URL": url,
        "CALLS_API_TOKEN": canaries.TOKEN,
        "CALLS_API_REQUESTS_PER_SECOND": "5000",
        "CALLS_API_TIMEOUT_SECONDS": "0.3",
        "CALLS_API_MAX_ATTEMPTS": "1",
    }


def settings_for(url: str, data_dir: Path) -> Settings:
    """Gives the settings of that."""
    return Settings.from_env(environment_for(url, data_dir))


def play(settings: Settings, instance: dg.DagsterInstance, *, is_whole: bool) -> bool:
    """Runs the assets for the day; tells whether it went well."""
    job = build_definitions(settings).resolve_job_def("sweep_job")
    selection = None if is_whole else [dg.AssetKey("call_records")]
    result = job.execute_in_process(
        partition_key=canaries.DAY.isoformat(),
        instance=instance,
        run_config={"ops": {"call_records": {"config": {"look_far_ahead": False}}}},
        raise_on_error=False,
        asset_selection=selection,
    )
    return result.success


def sweep_alone(settings: Settings) -> str:
    """Sweeps without Dagster; gives everything an error or an object shows of itself."""
    shown = [repr(settings)]

    async def main() -> None:
        async with connect(settings) as client:
            shown.append(repr(client))
            await sweep(
                Lake.open(settings.data_dir),
                client,
                [canaries.DAY],
                options=SweepOptions.from_settings(settings),
                now=lambda: datetime.now(UTC),
                log=shown.append,
            )

    try:
        asyncio.run(main())
    except Exception as error:  # noqa: BLE001 - its text is what is searched
        shown += [repr(error), *traceback.format_exception(error)]
    return "\n".join(shown)


@contextmanager
def load_location(
    instance: dg.DagsterInstance, environment: dict[str, str], *, is_apart: bool
) -> Iterator[WorkspaceProcessContext]:
    """Loads the project as its code location, as web server and daemon do.

    Args:
        instance: Dagster's instance.
        environment: The deployment's variables.
        is_apart: In a code server, a process of its own; else in this process, where a twin is broken.
    """
    module = "calls_assets.definitions"
    target: WorkspaceLoadTarget = ModuleTarget(module, None, None, canaries.LOCATION)
    if not is_apart:
        origin = LoadableTargetOrigin(module_name=module, attribute="defs")
        target = InProcessWorkspaceLoadTarget(InProcessCodeLocationOrigin(origin, location_name=canaries.LOCATION))
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, module, raising=False)  # it reads the environment when it is loaded
        for name, value in environment.items():
            patch.setenv(name, value)
        with open_workspace(instance, target) as context:
            yield context


def tick(context: WorkspaceProcessContext) -> None:
    """Has every sensor tick at once, and takes back what it asked for: the next tick shall look again."""
    for state in context.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        context.instance.delete_instigator_state(state.instigator_origin_id, state.selector_id)
    list(execute_sensor_iteration(context, logging.getLogger("sensors"), None, None))
    for run in context.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])):
        context.instance.report_run_canceled(run)


def show(root: Path, instance: dg.DagsterInstance, faults: list[str], found: Searched, *, is_apart: bool) -> None:
    """Has sensors tick at each of the faults and the schedules once, then asks GraphQL for all there is to see."""
    fault = faults[0]

    async def script(heard: Heard, writer: asyncio.StreamWriter) -> None:
        await canaries.script_for(fault, lambda _id: True, ids=range(1, 10**9))(heard, writer)

    with (
        canaries.serve_aside(script) as served,
        load_location(instance, environment_for(served.url, root / "lake-0"), is_apart=is_apart) as context,
    ):
        questions = canaries.Questions(context, found)
        with canaries.listening() as listener:
            for fault in faults:  # noqa: B007 - the script looks at it
                tick(context)
                if is_apart:  # in this process, a sensor cannot run its event loop inside that of the question
                    selector = canaries.SELECTOR | {"sensorName": "new_call_ids"}
                    questions.ask("sensorDryRun", is_mutation=True, selectorData=selector, cursor=None)
        listener.tell(found)
        if is_apart:
            for days in range(2):  # the first time they are noticed
                later, log = datetime.now(UTC) + timedelta(days=days), logging.getLogger("schedules")
                list(launch_scheduled_runs(context, log, later, {}))
        canaries.ask_everything(questions)  # each row of each answer in the log would take a minute
        found.shown = questions.shown


def play_scenarios(
    root: Path, capture: pytest.CaptureFixture[str], count: int, *, ticks: int, is_apart: bool = False
) -> Searched:
    """Plays fault scenarios against a deployment with a Dagster instance of its own and searches all it left."""
    random, found = Random(SEED), Searched()
    faults = random.sample(list(canaries.FAULTS), len(canaries.FAULTS))
    home = root / "home"
    home.mkdir()
    overrides = {
        "telemetry": {"enabled": False},
        "run_coordinator": {"module": "dagster.core.run_coordinator", "class": "QueuedRunCoordinator"},
    }
    vendors = dict[str, str]()
    with dg.DagsterInstance.local_temp(str(home), overrides=overrides) as instance:
        with canaries.listening() as listener:
            for number in range(count):
                fault, share = faults[number % len(faults)], random.choice((0.03, 0.1, 0.4))
                others = canaries.IDS[1:]  # an account of which not even the first id answers is searched for at length
                hit = {id_ for id_ in others if random.random() < share} | {random.choice(others)}
                vendors |= {f"lake-{number}": fault, f"alone-{number}": fault}
                with canaries.serve_aside(canaries.script_for(fault, hit.__contains__)) as served:
                    settings = settings_for(served.url, root / f"lake-{number}")
                    if number % RUN_EVERY == 0 or fault == ENDS_RUNS:
                        is_whole = number % RUN_WHOLE_EVERY == RUN_EVERY
                        found.runs += 1
                        found.failed_runs += not play(settings, instance, is_whole=is_whole)
                    shown = sweep_alone(replace(settings, data_dir=root / f"alone-{number}"))
                found.scenarios += 1
                found.search(shown, "an error or a repr", fault)
                printed = capture.readouterr()
                found.search(printed.out + printed.err, "the output", fault)
        listener.tell(found)
        if ticks:
            show(root, instance, faults[:ticks], found, is_apart=is_apart)
        printed = capture.readouterr()
        found.search(printed.out + printed.err, "the output", "of ticks and answers")
    canaries.search_files(root, found, vendors)
    return found


# Where nothing was read, nothing is found.
SEARCHED = {"a log line", "an error or a repr", "the output", "a file's name", "another file"} | {
    *("a compute log", "event storage", "run storage", "tick storage", "raw", "data for people")
}
SHOWN = {"run", "run configuration", "event", "error with its stack", "captured log", "asset event", "check"} | {
    *("sensor's tick", "schedule's tick")
}


def test_no_canary_leaves_raw_and_tables(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Sweeps and runs through every fault, all loggers at DEBUG: logs, events, answers, names, errors are clean."""
    ticks = choose(3, len(canaries.FAULTS))
    found = play_scenarios(tmp_path, capfd, choose(33, 500), ticks=ticks, is_apart=True)
    tell(
        "secrets",
        scenarios=found.scenarios,
        runs=found.runs,
        failed_runs=found.failed_runs,
        searched={place: count for place, count in found.places.items() if place in SEARCHED},
        answers=sum(count for place, count in found.places.items() if "GraphQL" in place),
        shown=found.shown,
        hits=len(found.hits),
    )
    assert found.hits == []
    assert 0 < found.failed_runs < found.runs
    assert {place for place in SEARCHED if not found.places[place]} == set()
    assert {kind for kind in SHOWN if not found.shown[kind]} == set()
    assert found.places["a log line"] > found.scenarios


def test_each_place_is_searched(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The harness reports each of nine leaks where it is, and nowhere else."""
    person = canaries.PERSON
    exchange, land = CallsClient._exchange, Lake.land

    async def log(client: CallsClient, call_id: int, path: str) -> object:
        logging.getLogger("calls_assets").debug("asking for %s", person["number"])
        return await exchange(client, call_id, path)

    def write(lake: Lake, day: date, reads: list[Read]) -> object:
        (tmp_path / f"home/{person['number']}.txt").touch()
        page = tmp_path / "lake-0/reports/page.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(canaries.TOKEN + person["name"])
        return land(lake, day, [replace(read, payload=canaries.TOKEN.encode()) for read in reads])

    def describe(_coverage: object) -> dict[str, str]:
        print(person["name"])  # noqa: T201 - that is the leak
        return {"who": person["note"]}

    async def probe(*_: object) -> int | None:
        raise ApiError(person["recording"])

    def define(_settings: Settings) -> list[dg.SensorDefinition]:
        told = canaries.TOKEN
        return [dg.SensorDefinition("telling", job_name="sweep_job", evaluation_fn=lambda _: None, description=told)]

    monkeypatch.setattr(CallsClient, "_exchange", log)
    monkeypatch.setattr(Lake, "land", write)
    monkeypatch.setattr(assets_module, "describe_coverage", describe)
    monkeypatch.setattr(jobs_module, "_TAGS", {"who": person["tag"]})
    monkeypatch.setattr(sensors_module, "_probe", probe)
    monkeypatch.setattr(build_module, "build_alerts", define)
    monkeypatch.setattr(canaries, "FAULTS", {"no fault": canaries.FAULTS["no fault"]})
    found = play_scenarios(tmp_path, capfd, 1, ticks=1)
    leaks = {
        "number": {"a log line", "a file's name"},
        "name": {"a compute log", "the output", "GraphQL capturedLogs"},
        "note": {"event storage", "GraphQL logsForRun", "GraphQL assetsOrError", "GraphQL assetCheckExecutions"},
        "tag": {"run storage", "a log line", "GraphQL runsOrError", "GraphQL runTagsOrError"},
        "recording": {"tick storage", "a log line", "GraphQL sensorsOrError"},
        "token": {"raw", "data for people", "GraphQL sensorsOrError"},
    }
    told = {name: found.told_in(name) for name in leaks}
    tell("secrets, twin: nine leaks", hits=len(found.hits), **{name: sorted(places) for name, places in told.items()})
    missed = {name: places - told[name] for name, places in leaks.items()}
    assert not any(missed.values()), missed
    # Dagster shows one thing in many answers; it keeps it in one place.
    mistaken = {name: {place for place in told[name] - leaks[name] if "GraphQL" not in place} for name in leaks}
    assert not any(mistaken.values()), mistaken


def test_a_body_in_an_error_is_caught(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The harness reports an error that quotes what the vendor said: as it is shown, and as Dagster keeps it."""

    def quote(_call_id: int, body: bytes) -> object:
        raise RuntimeError(body.decode("utf-8", "replace"))

    monkeypatch.setattr(sweep_module, "glance_at", quote)
    monkeypatch.setattr(canaries, "FAULTS", {"no fault": canaries.FAULTS["no fault"]})
    found = play_scenarios(tmp_path, capfd, 1, ticks=0)
    tell("secrets, twin: error", hits=len(found.hits))
    assert found.told_in("name") >= {"an error or a repr", "event storage"}


def play_tricks(root: Path, monkeypatch: pytest.MonkeyPatch, *, only: str = "") -> tuple[int, list[str]]:
    """Tries the tricks whose names begin so; gives their number and what the other host heard."""
    problems: list[str] = []
    count = 0
    with canaries.serve_aside(tricks.answer_anything) as other:
        for trick in tricks.list_tricks(other.url):
            if not trick.name.startswith(only):
                continue
            count += 1
            with monkeypatch.context() as patch, canaries.serve_aside(trick.script) as vendor:
                for name, value in trick.environment.items():
                    patch.setenv(name, value.replace("ROOT", str(root)))
                before = len(other.heard)
                asyncio.run(_try(trick, vendor))
            heard = other.heard[before:]
            with_token = sum(canaries.TOKEN in str(one) for one in heard)
            if heard:
                problems.append(f"{trick.name}: {len(heard)} requests elsewhere, {with_token} with the token")
            if trick.is_asked != bool(vendor.heard):
                problems.append(f"{trick.name}: the vendor heard {len(vendor.heard)} requests")
    return count, problems


async def _try(trick: tricks.Trick, vendor: Served) -> None:
    base = trick.base_url.replace("VENDOR", vendor.url.removeprefix("http://"))
    environment = {"CALLS_API_BASE_URL": base, "CALLS_API_TOKEN": canaries.TOKEN, "CALLS_API_MAX_ATTEMPTS": "2"}
    with suppress(ApiError, SettingsError, ValueError):
        async with connect(Settings.from_env(environment)) as client:
            await client.fetch(trick.call_id)  # type: ignore[arg-type] # whatever somebody passes
            await client.fetch(2)


def test_the_token_goes_to_no_other_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redirects, headers, ids, addresses, proxies and logins of the environment: another server hears nothing."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password pass\n")
    netrc.chmod(0o600)
    count, problems = play_tricks(tmp_path, monkeypatch)
    tell("token elsewhere", tricks=count, violations=len(problems))
    assert problems == []
    assert count >= 40


def test_a_client_that_trusts_proxies_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness reports what a proxy hears that the environment names, when the transport looks there."""

    async def connect_by_proxy(transport: Transport, origin: tuple[str, str, int]) -> object:
        proxy = httpx.URL(os.environ.get("HTTP_PROXY") or os.environ.get("http_proxy") or "")
        return await directly(transport, (proxy.scheme, proxy.host, proxy.port or 80) if proxy.host else origin)

    directly = Transport._connect
    monkeypatch.setattr(Transport, "_connect", connect_by_proxy)
    count, problems = play_tricks(tmp_path, monkeypatch, only="variable")
    tell("token elsewhere, twin: proxies", tricks=count, violations=len(problems))
    caught = [problem for problem in problems if re.search(r"[1-9]\d* with the token", problem)]
    assert {problem.partition(":")[0] for problem in caught} >= {"variable HTTP_PROXY", "variable http_proxy"}


def test_a_client_that_follows_redirects_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness reports the requests that the other host hears."""

    async def follow(client: CallsClient, call_id: int, path: str) -> object:
        assert client._transport is not None
        request = client._build_request(path)
        response = await client._transport.handle_async_request(request)
        await response.aread()
        if "location" in response.headers:
            request.__dict__ |= {"url": request.url.join(response.headers["location"]), "extensions": {}}
            await (await client._transport.handle_async_request(request)).aread()
        return await exchange(client, call_id, path)

    exchange = CallsClient._exchange
    monkeypatch.setattr(CallsClient, "_exchange", follow)
    count, problems = play_tricks(tmp_path, monkeypatch, only="redirect")
    tell("token elsewhere, twin: redirects", tricks=count, violations=len(problems))
    assert any(re.search(r"[1-9]\d* with the token", problem) for problem in problems)


@pytest.mark.parametrize("config", tricks.LAUNCH_CONFIGS, ids=str)
def test_no_run_config_moves_host_or_token(config: dict[str, object], tmp_path: Path) -> None:
    """What somebody types into the launchpad is refused, or makes no difference to where a request goes."""
    with (
        canaries.serve_aside(tricks.answer_anything) as other,
        canaries.serve_aside(canaries.script_for("no fault", lambda _id: False)) as vendor,
        dg.DagsterInstance.ephemeral() as instance,
        suppress(dg.DagsterInvalidConfigError),
    ):
        told = tricks.fill_in(config, other.url)
        job = build_definitions(settings_for(vendor.url, tmp_path / "lake")).resolve_job_def("sweep_job")
        assert job.execute_in_process(
            partition_key=canaries.DAY.isoformat(),
            instance=instance,
            run_config=told,
            asset_selection=[dg.AssetKey("call_records")],
        ).success
        assert {heard.headers["access-token"] for heard in vendor.heard} == {canaries.TOKEN}
        assert (tmp_path / "lake/raw").is_dir()
    assert not other.heard
