"""The command line: plan, verify, doctor, summary; one clear line and an exit code for whatever is wrong."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from calls_assets.cli import main
from calls_assets.inbox import Inbox
from calls_assets.lake import SOURCE_KEY, Lake
from calls_assets.settings import Settings
from calls_assets.simulator import serve
from calls_assets_tests.defs.scripted import ScriptedVendor
from calls_assets_tests.defs.scripted import run as run_job
from calls_assets_tests.e2e.running import TOKEN, make_environment

DAY = date(2025, 6, 3)
DAYS = ("--from", "2025-06-02", "--to", "2025-06-04")


@pytest.fixture
def script() -> ScriptedVendor:
    """Gives an account with twenty calls on each of three days."""
    return make_script()


def make_script() -> ScriptedVendor:
    """Makes that account."""
    script = ScriptedVendor()
    for number in range(3):
        script.add_day(100 + 22 * number, 20, datetime(2025, 6, 2 + number, tzinfo=UTC))
    return script


@pytest.fixture
def environment(tmp_path: Path, script: ScriptedVendor, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Sets the variables of a deployment on that account."""
    monkeypatch.chdir(tmp_path)
    with serve(script.app()) as server:
        yield set_environment(monkeypatch, tmp_path, server.url)


def set_environment(monkeypatch: pytest.MonkeyPatch, root: Path, url: str) -> dict[str, str]:
    """Sets the variables of a deployment, and no others of ours or Dagster's."""
    for name in list(os.environ):
        if name.startswith(("CALLS_", "DAGSTER_")):
            monkeypatch.delenv(name)
    variables = make_environment(root, url)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fills a lake with the three days through Dagster, once; gives its directory."""
    with serve(make_script().app()) as server, pytest.MonkeyPatch.context() as monkeypatch:
        variables = set_environment(monkeypatch, tmp_path_factory.mktemp("filled"), server.url)
        fill()
        return Path(variables["CALLS_DATA_DIR"])


def fill() -> None:
    """Fills the lake that the environment names."""
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_job(Settings.from_env(), instance, date(2025, 6, 2), date(2025, 6, 4)).success


@pytest.fixture
def lake(environment: dict[str, str], filled: Path) -> Path:
    """Gives the directory of a lake with the three days, as filled from this test's account."""
    root = Path(environment["CALLS_DATA_DIR"])
    shutil.copytree(filled, root)
    (root / SOURCE_KEY).unlink()
    settings = Settings.from_env()
    Lake.open(root).bind(settings.timezone.key, settings.api_base_url)
    return root


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Runs the command; gives exit code, output and errors."""
    code = main(arguments)
    output, errors = capsys.readouterr()
    return code, output, errors


@pytest.mark.usefixtures("environment")
def test_plan_tells_the_cost_before_and_after(capsys: pytest.CaptureFixture[str], script: ScriptedVendor) -> None:
    """The probes' answers are stored; a second plan asks nothing."""
    code, output, _ = run(capsys, "plan", *DAYS)
    assert code == 0
    figures = dict(line.split("  ", 1) for line in output.splitlines() if "  " in line)
    assert figures["days"].strip() == "2025-06-02 to 2025-06-04 (3)"
    assert int(figures["asked for this plan"].split()[0]) == len(script.asked)
    assert "requests per second" in figures["requests to make"]
    script.asked.clear()
    assert run(capsys, "plan", *DAYS)[0] == 0
    assert not script.asked


@pytest.mark.usefixtures("environment")
def test_plan_and_summary_tell_what_is_not_read_beside_a_day(
    capsys: pytest.CaptureFixture[str], script: ScriptedVendor
) -> None:
    """And what reading it would take."""
    day = ("--from", "2025-06-05", "--to", "2025-06-05")
    script.add_day(150 + 8_192, 20, datetime(2025, 6, 5, tzinfo=UTC))
    fill()
    capsys.readouterr()
    header, row = [line.split() for line in run(capsys, "summary", *day)[1].splitlines()]
    unread = int(row[header.index("unread")])
    assert 7_500 < unread < 8_192
    before, after = (
        int(re.findall(r"requests to make +([\d,]+)", run(capsys, "plan", *day, *option)[1])[0].replace(",", ""))
        for option in ((), ("--read-holes",))
    )
    assert after - before >= unread


def test_verify_finds_nothing_in_a_whole_lake(capsys: pytest.CaptureFixture[str], lake: Path) -> None:
    """And says how many days it looked at."""
    assert lake.is_dir()
    assert run(capsys, "verify") == (0, "3 days verified: nothing is wrong\n", "")


@pytest.mark.parametrize(
    ("tree", "remedy"),
    [
        ("raw/call_records", "materialize call_records"),
        ("tables/calls", "rebuild_job"),
        ("marts/agent_days", "rebuild_job"),
    ],
)
def test_verify_names_a_damaged_file_and_how_to_heal_it(
    capsys: pytest.CaptureFixture[str], lake: Path, tree: str, remedy: str
) -> None:
    """One line per finding, exit code 1."""
    (path,) = (lake / tree / f"call_date={DAY}").iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    code, output, _ = run(capsys, "verify")
    assert code == 1
    line = next(line for line in output.splitlines() if path.name in line)
    assert "is damaged" in line
    assert remedy in line


def test_verify_finds_ids_without_an_answer(capsys: pytest.CaptureFixture[str], lake: Path) -> None:
    """Invariant I5, from the lake alone."""
    held = Lake.open(lake)
    (segment,) = held.segments(DAY)
    (lake / segment.key).unlink()
    code, output, _ = run(capsys, "verify")
    assert code == 1
    assert "ids have no answer, the first 122 to 1" in output
    assert "does not show what raw says" in output


def test_verify_finds_tables_that_differ_from_raw(capsys: pytest.CaptureFixture[str], lake: Path) -> None:
    """Invariant I3: the rows of another day in a day's file."""
    held = Lake.open(lake)
    held.write_table("calls", date(2025, 6, 3), held.read_table("calls", date(2025, 6, 4)))
    (lake / "tables/calls/call_date=2025-06-02/calls.parquet").unlink()
    code, output, _ = run(capsys, "verify")
    assert code == 1
    assert "tables/calls/call_date=2025-06-03/calls.parquet: does not show what raw says" in output
    assert "tables/calls/call_date=2025-06-02/calls.parquet: is missing" in output
    assert "shows 20 calls that another day shows too, such as 144" in output


def test_summary_shows_rows_by_table_and_day(capsys: pytest.CaptureFixture[str], lake: Path) -> None:
    """A line per day; a dash where there is no file."""
    (lake / "tables/call_tags/call_date=2025-06-04/call_tags.parquet").unlink()
    code, output, _ = run(capsys, "summary", *DAYS)
    assert code == 0
    header, *rows = [line.split() for line in output.splitlines()]
    assert [row[header.index("calls")] for row in rows] == ["20", "20", "20"]
    assert rows[2][header.index("call_tags")] == "-"
    assert rows[1][header.index("ids")] == "122-141"


def test_enqueue_keeps_the_good_ids_and_names_the_bad(
    capsys: pytest.CaptureFixture[str], environment: dict[str, str], tmp_path: Path
) -> None:
    """From arguments and from a file; what waits already is not stored twice."""
    (tmp_path / "ids.csv").write_text("call_id,note\n120,x\n130-132\n")
    code, output, errors = run(capsys, "enqueue", "100", "105-103", "--from-file", "ids.csv")
    assert code == 1
    assert output.startswith("5 ids enqueued, 0 were waiting already")
    assert errors.splitlines() == [
        "calls-assets: '105-103' is the wrong way round: write 103-105",
        "calls-assets: ids.csv, line 2 is neither an id nor a range such as 2000-2100",
    ]
    assert run(capsys, "enqueue", "99-101")[1].startswith("2 ids enqueued, 1 were waiting already")
    ranges = [
        range_
        for item in Inbox(Lake.open(Path(environment["CALLS_DATA_DIR"])).storage).requests()
        for range_ in item.ranges
    ]
    assert sorted(ranges) == [(99, 99), (100, 100), (101, 101), (120, 120), (130, 132)]


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("enqueue",), "no ids given"),
        (("enqueue", "1-1000001"), "1,000,001 ids are more than 1,000,000 at once"),
        (("enqueue", "--from-file", "gone.csv"), "gone.csv cannot be read: no such file or directory"),
        (("webhook",), "CALLS_WEBHOOK_SECRET is not set"),
    ],
)
def test_the_inbox_refuses_what_makes_no_sense(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    """One clear line, exit code 2."""
    code, _, errors = run(capsys, *arguments)
    assert code == 2
    assert message in errors
    assert errors.count("\n") == 1


def test_a_snapshot_stays_until_it_is_deleted(capsys: pytest.CaptureFixture[str], lake: Path, tmp_path: Path) -> None:
    """Links to the files, with a catalogue of its own; all tables, or the days and tables asked for."""
    code, output, _ = run(capsys, "snapshot", "kept/all")
    files = [*lake.glob("tables/**/*.parquet"), *lake.glob("marts/**/*.parquet")]
    assert code == 0
    assert output.startswith(f"{len(files)} files in kept/all, 0 of them copies")
    assert all(path.samefile(tmp_path / "kept/all" / path.relative_to(lake)) for path in files)
    assert run(capsys, "verify")[0] == 0
    (tmp_path / "few").mkdir()
    assert run(capsys, "snapshot", "few", "--from", "2025-06-03", "--to", "2025-06-04", "--tables", "calls")[0] == 0
    assert [path.name for path in sorted((tmp_path / "few/tables/calls").iterdir())] == [
        "call_date=2025-06-03",
        "call_date=2025-06-04",
    ]
    with duckdb.connect(str(tmp_path / "few/catalog.duckdb"), read_only=True) as catalog:
        assert catalog.sql("SELECT count(*) FROM calls").fetchall() == [(40,)]


@pytest.mark.usefixtures("lake")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((".",), ". is not empty: name a new directory"),
        (("file/new",), "file/new cannot be used: not a directory"),
        (("new", "--tables", "calls", "call"), "'call' is no table or mart: there are call_agents, "),
        (("new", "--from", "june"), "--from 'june' is not a date: write it as YYYY-MM-DD"),
        (("new", "--from", "2025-06-04", "--to", "2025-06-02"), "--from 2025-06-04 is after --to 2025-06-02: swap"),
    ],
)
def test_a_snapshot_that_makes_no_sense_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    """One clear line, exit code 2, nothing made."""
    (tmp_path / "file").touch()
    code, _, errors = run(capsys, "snapshot", *arguments)
    assert code == 2
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_snapshot_that_fails_is_not_left(capsys: pytest.CaptureFixture[str], lake: Path, tmp_path: Path) -> None:
    """One clear line, exit code 1: half a snapshot would look like a whole one."""
    (lake / f"tables/calls/call_date={DAY}/calls.parquet").write_bytes(b"damaged")
    code, _, errors = run(capsys, "snapshot", "new")
    assert code == 1
    assert "cannot make a snapshot in new: " in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("environment")
def test_doctor_says_what_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each: settings, directory, API and token, clock."""
    code, output, _ = run(capsys, "doctor")
    assert code == 0
    assert [line.split()[0] for line in output.splitlines()] == ["ok"] * len(output.splitlines())
    assert "takes the token" in output
    assert "clock differs by" in output


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("CALLS_API_TOKEN", "canary-token", "check CALLS_API_BASE_URL, the token and the network"),
        ("CALLS_API_BASE_URL", "http://127.0.0.1:9", "check CALLS_API_BASE_URL, the token and the network"),
        ("CALLS_API_BASE_URL", "http://api.example.invalid", "the token travels unencrypted"),
        ("CALLS_API_TOKEN", "", "neither CALLS_API_TOKEN nor CALLS_API_TOKEN_FILE is set"),
    ],
)
def test_doctor_says_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, value: str, advice: str
) -> None:
    """One line with the advice, exit code 1, no secret."""
    monkeypatch.setenv(name, value)
    code, output, errors = run(capsys, "doctor")
    assert code == 1
    assert any(line.startswith("FAIL") and advice in line for line in output.splitlines())
    assert "canary-token" not in output + errors


@pytest.mark.usefixtures("environment")
def test_doctor_sees_a_clock_that_is_wrong(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ages of calls are counted from this machine's time."""
    monkeypatch.setattr("calls_assets.cli._utc_now", lambda: datetime.now(UTC) + timedelta(minutes=5))
    code, output, _ = run(capsys, "doctor")
    assert code == 1
    assert re.search(r"FAIL  the clock differs by (299|300|301) s", output)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("plan", "--from", "2025-06-04", "--to", "2025-06-02"),
            "--from 2025-06-04 is after --to 2025-06-02: swap them",
        ),
        (("plan", "--from", "2025-06-04", "--to", "2999-01-01"), "--to 2999-01-01 is in the future"),
        (("plan", "--from", "june", "--to", "2025-06-02"), "--from 'june' is not a date: write it as YYYY-MM-DD"),
        (("verify",), "does not exist: set CALLS_DATA_DIR"),
        (("snapshot", "new"), "does not exist: set CALLS_DATA_DIR"),
    ],
)
def test_a_wrong_command_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    """Exit code 2."""
    code, _, errors = run(capsys, *arguments)
    assert code == 2
    assert message in errors
    assert errors.count("\n") == 1


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CALLS_TIMEZONE", "Mars/Base", "CALLS_TIMEZONE='Mars/Base' is not a time zone"),
        ("CALLS_API_BASE_URL", "", "CALLS_API_BASE_URL is not set"),
        ("CALLS_API_TOKEN", "wrong", "denied access"),
    ],
)
def test_wrong_settings_are_one_clear_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    """The same words wherever they are met."""
    monkeypatch.setenv(name, value)
    code, _, errors = run(capsys, "plan", *DAYS)
    assert code == (1 if name == "CALLS_API_TOKEN" else 2)
    assert message in errors
    assert errors.count("\n") == 1


@pytest.mark.usefixtures("environment")
def test_dotenv_is_read_from_the_working_directory(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Variables that are set already win."""
    monkeypatch.delenv("CALLS_TIMEZONE", raising=False)
    (tmp_path / ".env").write_text("CALLS_TIMEZONE=Nowhere/Land\nCALLS_API_TOKEN=other\n")
    monkeypatch.setenv("CALLS_TIMEZONE", "UTC")
    assert os.environ["CALLS_API_TOKEN"] == TOKEN
    assert run(capsys, "plan", *DAYS)[0] == 0
    monkeypatch.delenv("CALLS_TIMEZONE")
    assert "Nowhere/Land" in run(capsys, "plan", *DAYS)[2]
    monkeypatch.setenv("CALLS_TIMEZONE", "UTC")  # what .env set is undone with it
