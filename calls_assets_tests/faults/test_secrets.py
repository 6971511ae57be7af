"""Token and personal data stay in raw and tables, and the token goes to the configured host only."""

from __future__ import annotations

import asyncio
import importlib
import logging
import re
import traceback
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from random import Random

import dagster as dg
import pytest

from calls_assets.api import ApiError, CallsClient, connect
from calls_assets.defs import build_definitions
from calls_assets.ingest import SweepOptions, sweep
from calls_assets.lake import Lake, Read
from calls_assets.settings import Settings, SettingsError
from calls_assets_tests.api.server import Served
from calls_assets_tests.faults import canaries, tricks
from calls_assets_tests.faults.counts import SEED, choose, tell

assets_module = importlib.import_module("calls_assets.defs.assets")
sweep_module = importlib.import_module("calls_assets.ingest.sweep")  # the package's attribute is the function
pytestmark = pytest.mark.timeout(900)
RUN_EVERY = choose(11, 3)  # a run takes a second, a sweep a tenth
RUN_WHOLE_EVERY = choose(33, 12)
ENDS_RUNS = "a refusal that echoes"


@dataclass(slots=True)
class Searched:
    """What was searched.

    Attributes:
        scenarios: Scenarios played.
        runs: Runs of the assets; the other scenarios are sweeps alone.
        failed_runs: Runs that failed, as they should.
        lines: Log lines.
        files: Files read.
        hits: Where a canary was.
    """

    scenarios: int = 0
    runs: int = 0
    failed_runs: int = 0
    lines: int = 0
    files: int = 0
    hits: list[str] = field(default_factory=list)


def settings_for(url: str, data_dir: Path) -> Settings:
    """Gives a deployment that gives up soon."""
    return Settings(
        data_dir=data_dir,
        start_date=date(2025, 1, 1),
        api_base_url=url,
        api_token=canaries.TOKEN,
        requests_per_second=5_000,
        timeout_seconds=0.3,
        max_attempts=1,
    )


def play(settings: Settings, instance: dg.DagsterInstance, *, is_whole: bool) -> bool:
    """Runs the assets for the day; tells whether it went well."""
    job = build_definitions(settings).resolve_job_def("sweep_job")
    selection = None if is_whole else [dg.AssetKey("call_records")]
    result = job.execute_in_process(
        partition_key=canaries.DAY.isoformat(), instance=instance, raise_on_error=False, asset_selection=selection
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


def play_scenarios(root: Path, capture: pytest.CaptureFixture[str], count: int) -> Searched:
    """Plays fault scenarios against a deployment with a Dagster instance of its own and searches all it left."""
    random, found = Random(SEED), Searched()
    faults = random.sample(list(canaries.FAULTS), len(canaries.FAULTS))
    home = root / "home"
    home.mkdir()
    with (
        canaries.listening() as listener,
        dg.DagsterInstance.local_temp(str(home), overrides={"telemetry": {"enabled": False}}) as instance,
    ):
        for number in range(count):
            fault, share = faults[number % len(faults)], random.choice((0.03, 0.1, 0.4))
            others = canaries.IDS[1:]  # an account of which not even the first id answers is searched for at length
            hit = {id_ for id_ in others if random.random() < share} | {random.choice(others)}
            with canaries.serve_aside(canaries.script_for(fault, hit.__contains__)) as served:
                settings = settings_for(served.url, root / f"lake-{number}")
                if number % RUN_EVERY == 0 or fault == ENDS_RUNS:
                    is_whole = number % RUN_WHOLE_EVERY == RUN_EVERY
                    found.runs += 1
                    found.failed_runs += not play(settings, instance, is_whole=is_whole)
                shown = sweep_alone(replace(settings, data_dir=root / f"alone-{number}"))
            found.scenarios += 1
            found.hits += [f"{fault}: {hit_}" for hit_ in canaries.search(shown, "an error or a repr")]
            printed = capture.readouterr()
            found.hits += [f"{fault}: {hit_}" for hit_ in canaries.search(printed.out + printed.err, "the output")]
    found.lines = len(listener.lines)
    found.hits += [hit for line in listener.lines for hit in canaries.search(line, f"a log line: {line[:60]}")]
    hits, found.files = canaries.search_files(root)
    found.hits += hits
    return found


def test_no_canary_leaves_raw_and_tables(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Sweeps and runs through every fault, all loggers at DEBUG: logs, events, output, names, errors are clean."""
    found = play_scenarios(tmp_path, capfd, choose(33, 500))
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("raw/**/*.parquet"))
    tell(
        "secrets",
        scenarios=found.scenarios,
        runs=found.runs,
        failed_runs=found.failed_runs,
        log_lines=found.lines,
        files=found.files,
        hits=len(found.hits),
    )
    assert found.hits == []
    assert kept
    assert 0 < found.failed_runs < found.runs
    assert found.lines > found.scenarios


@pytest.mark.parametrize("broken", ["log", "error", "event", "name"])
def test_a_leak_is_caught(
    broken: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The harness reports a token in a log line, a body in an error, a name in an event, a name in a file's name."""

    async def talk(client: CallsClient, call_id: int, url: str) -> object:
        logging.getLogger("calls_assets").debug("asking with %s", client._token)
        return await exchange(client, call_id, url)

    def quote(_call_id: int, body: bytes) -> object:
        raise RuntimeError(body.decode("utf-8", "replace"))

    def name_file(lake: Lake, day: date, reads: list[Read]) -> object:
        (tmp_path / f"{canaries.PERSON['name']}.txt").touch()
        return land(lake, day, reads)

    exchange, land = CallsClient._exchange, Lake.land
    if broken == "log":
        monkeypatch.setattr(CallsClient, "_exchange", talk)
    elif broken == "error":
        monkeypatch.setattr(sweep_module, "glance_at", quote)
    elif broken == "event":
        monkeypatch.setattr(assets_module, "describe_coverage", lambda _coverage: {"who": canaries.PERSON["name"]})
    else:
        monkeypatch.setattr(Lake, "land", name_file)
    monkeypatch.setattr(canaries, "FAULTS", {"no fault": canaries.FAULTS["no fault"]})
    sign = {"log": "log line", "error": "error or a repr", "event": ".db", "name": "file's name"}
    assert any(sign[broken] in hit for hit in play_scenarios(tmp_path, capfd, 1).hits)


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


def test_a_client_that_follows_redirects_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness reports the requests that the other host hears."""

    async def follow(client: CallsClient, call_id: int, url: str) -> object:
        assert client._transport is not None
        response = await client._transport.handle_async_request(client._build_request(url))
        await response.aread()
        if "location" not in response.headers:
            return await exchange(client, call_id, url)
        return await exchange(client, call_id, response.headers["location"])

    exchange = CallsClient._exchange
    monkeypatch.setattr(CallsClient, "_exchange", follow)
    _, problems = play_tricks(tmp_path, monkeypatch, only="redirect")
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
