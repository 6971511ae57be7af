"""What runs of the assets do and report, against a vendor over HTTP."""

from __future__ import annotations

import errno
import importlib
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import duckdb
import pyarrow as pa
import pytest

from calls_assets.defs import build_definitions
from calls_assets.defs.checks import check_records
from calls_assets.defs.sensors import days_behind
from calls_assets.derive import derive_day, publish, publish_day
from calls_assets.ingest import coverage
from calls_assets.lake import DAILY_TABLES, MARTS, Lake, LakeError, Read
from calls_assets.settings import Settings
from calls_assets_tests.defs.scripted import ScriptedVendor, run
from calls_assets_tests.e2e.running import read_rows
from calls_assets_tests.lakes import root_of

MONDAY = date(2025, 6, 2)
TUESDAY, WEDNESDAY = MONDAY + timedelta(days=1), MONDAY + timedelta(days=2)
DAYS = [MONDAY, TUESDAY, WEDNESDAY]
CALLS = 20


def at(day: date, hour: int = 0) -> datetime:
    """Gives an hour of a day in UTC."""
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC)


@pytest.fixture
def script() -> ScriptedVendor:
    """Gives an account with twenty calls on each of three days, and two ids missing after each day."""
    script = ScriptedVendor()
    for number, day in enumerate(DAYS):
        script.add_day(100 + number * (CALLS + 2), CALLS, at(day))
    return script


@pytest.fixture
def settings(tmp_path: Path, script: ScriptedVendor) -> Iterator[Settings]:
    """Gives the settings of a fresh deployment on that account."""
    with script.deployed(tmp_path) as deployed:
        yield deployed


def shown_calls(settings: Settings, day: date) -> list[int]:
    """Lists the ids that the calls table of a day shows."""
    return [row["call_id"] for row in read_rows(root_of(settings), "calls", day)]


def test_a_range_run_reports_each_day_on_its_own(settings: Settings, instance: dg.DagsterInstance) -> None:
    """One event per asset and day, checks by day, figures without content; agents once."""
    ran = run(settings, instance, MONDAY, WEDNESDAY)
    assert ran.success
    names = ("call_records", "call_events", *DAILY_TABLES, *MARTS, "daily_report")
    expected = {(name, day.isoformat()) for name in names for day in DAYS}
    assert set(ran.materialized) == {*expected, ("agents", ""), ("catalog", "")}
    assert len(ran.materialized) == len(expected) + 2
    assert not ran.failed_checks
    assert {("every_id_is_accounted_for", d.isoformat()) for d in DAYS} <= ran.passed_checks
    assert {("one_row_per_call", d.isoformat()) for d in DAYS} <= ran.passed_checks
    figures = ran.metadata["call_records", TUESDAY.isoformat()]
    assert figures["dagster/partition_row_count"] == CALLS
    assert (figures["first id"], figures["unaccounted ids"]) == (122, 0)
    for day in DAYS:
        assert len(shown_calls(settings, day)) == CALLS
    assert ran.metadata["daily_report", TUESDAY.isoformat()]["calls"] == CALLS
    assert "<html" in (root_of(settings) / "reports/latest.html").read_text()
    with duckdb.connect(str(root_of(settings) / "catalog.duckdb"), read_only=True) as connection:
        (total,) = connection.execute("SELECT sum(calls) FROM service_intervals").fetchall()
    assert total == (len(DAYS) * CALLS,)


def test_single_ids_that_fail_fail_the_check_and_not_the_run(
    settings: Settings, instance: dg.DagsterInstance, script: ScriptedVendor
) -> None:
    """The day is published without them, the check names them, and the next sweep asks for just those."""
    script.failing = {130}
    ran = run(settings, instance, MONDAY, WEDNESDAY)
    assert ran.success
    assert ran.failed_checks == {("every_id_is_accounted_for", TUESDAY.isoformat())}
    assert "1 ids had no answer" in ran.log
    assert "130" in ran.log
    assert len(shown_calls(settings, TUESDAY)) == CALLS - 1
    script.failing = set()
    script.asked.clear()
    again = run(settings, instance, TUESDAY)
    assert again.success
    assert not again.failed_checks
    assert dict(script.asked) == {130: 1}
    assert len(shown_calls(settings, TUESDAY)) == CALLS


def test_ids_in_a_jump_are_named_by_a_check_that_holds_and_read_when_asked_for(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """Ten calls of Tuesday stand where its ids seem to jump: its check says how to get them, and then says nothing."""
    script = ScriptedVendor()
    script.add_day(100, CALLS, at(MONDAY))
    script.add_day(120, CALLS, at(TUESDAY))
    for id_ in range(3_000, 3_010):
        script.add(id_, at(TUESDAY, 23))
    script.add_day(139 + 8_192, CALLS, at(WEDNESDAY))
    key = dg.AssetCheckKey(dg.AssetKey("call_records"), "every_id_is_accounted_for")

    def check(settings: Settings, day: date, *, read_holes: bool = False) -> tuple[str | None, object]:
        ran = run(settings, instance, day, read_holes=read_holes)
        assert (key.name, day.isoformat()) in ran.passed_checks
        record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
        assert record.event is not None
        assert record.event.dagster_event is not None
        evaluation = record.event.dagster_event.event_specific_data
        assert isinstance(evaluation, dg.AssetCheckEvaluation)
        unread = evaluation.metadata["unread ids"].value
        assert ran.metadata["call_records", day.isoformat()]["unread ids"] == unread
        assert ran.metadata["daily_report", day.isoformat()]["unread_ids"] == unread
        return evaluation.description, unread

    with script.deployed(tmp_path) as settings:
        assert check(settings, MONDAY) == (None, 0)
        for day in (TUESDAY, WEDNESDAY):
            text, unread = check(settings, day)
            assert text is not None
            assert text.startswith(f"{unread} ids beside this day were not read: ")
            assert "launch with read_holes: true" in text
            assert isinstance(unread, int)
            assert 7_500 < unread < 8_192
        assert len(shown_calls(settings, TUESDAY)) == CALLS
        assert check(settings, WEDNESDAY, read_holes=True) == (None, 0)
        assert len(shown_calls(settings, TUESDAY)) == CALLS + 10
        script.asked.clear()
        assert check(settings, TUESDAY) == (None, 0)
        assert not script.asked


def test_a_run_over_many_days_says_how_far_it_is(
    settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that says nothing for three minutes is taken for dead."""
    monkeypatch.setattr("calls_assets.defs.marts._LOGGED_DAYS", 7)
    days = [MONDAY + timedelta(days=offset) for offset in range(10)]
    for day in days:
        publish_day(Lake.open(settings.data_dir), day, timezone=settings.timezone, reread_after=())
    only = (*MARTS, "daily_report")
    ran = run(settings, instance, days[0], days[-1], job_name="rebuild_job", only=only)
    assert ran.success
    assert "marts of 7 of 10 days" in ran.log
    assert "pages of 7 of 10 days" in ran.log
    assert len(ran.materialized) == len(only) * len(days)


def test_a_day_that_a_failed_run_did_not_reach_stays_without_tables(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables of what its neighbour's sweep left in it would say that it had no more, and nobody would come back."""
    script = ScriptedVendor()
    for number in range(900):
        script.add(100 + number, at(MONDAY) + number * timedelta(days=3) / 900)
    with script.deployed(tmp_path) as settings:
        assert run(settings, instance, MONDAY).success
        lake = Lake.open(settings.data_dir)
        assert lake.raw_keys_of(TUESDAY)
        monkeypatch.setattr(importlib.import_module("calls_assets.ingest.sweep"), "GIVE_UP_SECONDS", 0.0)
        script.failing = range(1, 2**40)  # type: ignore[assignment]
        ran = run(settings, instance, TUESDAY, WEDNESDAY)
        assert not ran.success
        assert not ran.materialized
        assert lake.table_days("calls") == lake.published_days() == [MONDAY]
        assert days_behind(lake, WEDNESDAY, MONDAY) == ([], DAYS)


def test_many_failing_ids_fail_the_run_and_keep_the_days_done(
    settings: Settings, instance: dg.DagsterInstance, script: ScriptedVendor
) -> None:
    """Complete days get their event before the failure; tables show everything stored; nothing is asked twice later."""
    script.failing = set(range(145, 164))
    ran = run(settings, instance, MONDAY, WEDNESDAY)
    assert not ran.success
    assert "19 of" in ran.failure
    assert "(first: 145, 146, " in ran.failure
    records = sorted(day for name, day in ran.materialized if name == "call_records")
    assert records == [MONDAY.isoformat(), TUESDAY.isoformat()]
    assert sorted(day for name, day in ran.materialized if name == "calls") == [day.isoformat() for day in DAYS]
    assert [len(shown_calls(settings, day)) for day in DAYS] == [CALLS, CALLS, 1]
    failing, script.failing = script.failing, set()
    script.asked.clear()
    again = run(settings, instance, MONDAY, WEDNESDAY)
    assert again.success
    assert failing <= set(script.asked)
    assert min(script.asked) == 145  # the others are beyond the end, which has moved
    assert len(shown_calls(settings, WEDNESDAY)) == CALLS


def test_a_refused_token_ends_the_run_in_one_line(
    settings: Settings, instance: dg.DagsterInstance, script: ScriptedVendor
) -> None:
    """No retries, no secret in the message, nothing written to the tables."""
    ran = run(replace(settings, api_token="canary-token"), instance, MONDAY)
    assert not ran.success
    assert "denied access" in ran.failure
    assert "\n" not in ran.failure
    assert "canary-token" not in ran.log + ran.failure
    assert not ran.materialized
    assert not script.asked


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"api_base_url": None}, "CALLS_API_BASE_URL is not set"),
        ({"api_token": None}, "neither CALLS_API_TOKEN nor CALLS_API_TOKEN_FILE is set"),
        (
            {"api_token": None, "api_token_file": Path("gone")},
            "the token file gone cannot be read: no such file or directory",
        ),
    ],
)
def test_missing_settings_end_the_run_in_one_line(
    settings: Settings, instance: dg.DagsterInstance, change: dict[str, Any], reason: str
) -> None:
    """Definitions load without an API; a sweep says what is missing."""
    ran = run(replace(settings, **change), instance, MONDAY)
    assert not ran.success
    assert reason in ran.failure
    assert "\n" not in ran.failure


def test_a_lake_of_another_source_is_refused(settings: Settings, instance: dg.DagsterInstance) -> None:
    """Calls of two accounts never mix."""
    assert run(settings, instance, MONDAY).success
    before = shown_calls(settings, MONDAY)
    ran = run(replace(settings, api_base_url="http://127.0.0.1:9"), instance, MONDAY)
    assert not ran.success
    assert "filled from" in ran.failure
    assert shown_calls(settings, MONDAY) == before


def test_a_call_that_moves_is_shown_in_one_day(
    settings: Settings, instance: dg.DagsterInstance, script: ScriptedVendor
) -> None:
    """A sweep of its old day finds it elsewhere now: the other day's tables are made again in the same run."""
    assert run(settings, instance, MONDAY, WEDNESDAY).success
    script.add(105, at(WEDNESDAY, 12))
    ran = run(settings, instance, MONDAY, reread_final=True)
    assert ran.success
    assert ("calls", WEDNESDAY.isoformat()) in ran.materialized
    assert ("service_intervals", WEDNESDAY.isoformat()) in ran.materialized
    assert 105 not in shown_calls(settings, MONDAY)
    assert 105 in shown_calls(settings, WEDNESDAY)
    changes = read_rows(root_of(settings), "call_changes", WEDNESDAY)
    assert {(row["call_id"], row["field"]) for row in changes} == {(105, "started_at")}


def test_a_day_beside_the_run_is_left_when_only_missing_ids_came(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    """After midnight today's sweeps ask again for ids that were missing at the end of yesterday."""
    assert run(settings, instance, MONDAY, WEDNESDAY).success
    lake = Lake.open(settings.data_dir)
    lake.land(TUESDAY, [Read(142, datetime.now(UTC), 404, None, None, None, None)])
    assert lake.stale_days() == [TUESDAY]
    before = lake.list_files("tables/")
    ran = run(settings, instance, MONDAY)
    assert ran.success
    assert ("calls", TUESDAY.isoformat()) in ran.materialized
    assert lake.stale_days() == []
    assert lake.list_files("tables/") == before


def test_final_calls_are_asked_for_again_on_request_only(
    settings: Settings, instance: dg.DagsterInstance, script: ScriptedVendor
) -> None:
    """Repeating a sweep costs nothing; `reread_final` reads the whole day again and shows what was corrected."""
    assert run(settings, instance, MONDAY).success
    script.asked.clear()
    assert run(settings, instance, MONDAY).success
    assert not script.asked
    script.add(105, at(MONDAY, 2), tags=["corrected"])
    assert run(settings, instance, MONDAY, reread_final=True).success
    assert set(range(100, 100 + CALLS)) <= set(script.asked)
    assert set(script.asked.values()) == {1}
    (row,) = (row for row in read_rows(root_of(settings), "calls", MONDAY) if row["call_id"] == 105)
    assert (row["tags"], row["read_count"]) == (["corrected"], 2)


def test_a_damaged_raw_file_is_named_asked_for_again_and_set_aside(
    settings: Settings, instance: dg.DagsterInstance, script: ScriptedVendor
) -> None:
    """The others are used; afterwards the day is whole and the damaged bytes are still there for a look."""
    assert run(settings, instance, MONDAY, WEDNESDAY).success
    whole = shown_calls(settings, TUESDAY)
    (segment,) = Lake.open(settings.data_dir).segments(TUESDAY)
    path = root_of(settings) / segment.key
    damaged = damage(settings, segment.key)
    script.asked.clear()
    ran = run(settings, instance, MONDAY, WEDNESDAY)
    assert ran.success
    assert segment.key in ran.log
    assert "the other files are used" in ran.log
    assert shown_calls(settings, TUESDAY) == whole
    assert set(script.asked) <= set(range(segment.lowest_id, segment.highest_id + 1))
    assert not path.exists()
    assert path.with_name(path.name + ".damaged").read_bytes() == damaged


def test_a_damaged_raw_file_stays_while_an_id_of_it_has_no_answer(
    settings: Settings, instance: dg.DagsterInstance, script: ScriptedVendor
) -> None:
    """Without it tables would be made that lack the call."""
    assert run(settings, instance, MONDAY, WEDNESDAY).success
    (segment,) = Lake.open(settings.data_dir).segments(TUESDAY)
    damage(settings, segment.key)
    script.failing = {130}
    run(settings, instance, MONDAY, WEDNESDAY)
    assert (root_of(settings) / segment.key).exists()
    assert 130 in shown_calls(settings, TUESDAY)


def test_a_sweep_derives_what_is_new_and_merges_raw_when_it_is_shown(
    settings: Settings, instance: dg.DagsterInstance, script: ScriptedVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that somebody else has landed: the tables of the other calls are as good as they were."""
    derived: list[set[int]] = []

    def note(versions: pa.Table, *arguments: Any, **options: Any) -> dict[str, pa.Table]:  # noqa: ANN401 - passes everything on
        derived.append(set(versions["call_id"].to_pylist()))
        return derive_day(versions, *arguments, **options)

    monkeypatch.setattr(publish, "derive_day", note)
    assert run(settings, instance, TUESDAY).success
    lake = Lake.open(settings.data_dir)
    call = script.calls[130]["calls"]
    body = json.dumps({"calls": {**call, "duration": 99}}).encode()
    started_at = datetime.fromtimestamp(call["started_at"], UTC)
    lake.land(TUESDAY, [Read(130, datetime.now(UTC), 200, started_at, True, None, body)])
    assert len(lake.segments(TUESDAY)) == 2
    derived.clear()
    assert run(settings, instance, TUESDAY).success
    assert derived == [{130}]
    durations = {row["call_id"]: row["duration_seconds"] for row in read_rows(root_of(settings), "calls", TUESDAY)}
    assert [id_ for id_, seconds in durations.items() if seconds == 99] == [130]
    assert len(lake.segments(TUESDAY)) == 1
    assert lake.is_shown(TUESDAY)
    assert run(settings, instance, TUESDAY).success
    assert derived == [{130}]


def test_many_raw_files_are_merged_though_no_table_shows_them(settings: Settings, instance: dg.DagsterInstance) -> None:
    """Who materializes call_records alone has no more than fifteen of a day."""
    assert run(settings, instance, TUESDAY).success
    lake = Lake.open(settings.data_dir)
    job = build_definitions(settings).resolve_job_def("sweep_job")
    for _ in range(13):
        lake.land(TUESDAY, [Read(130, datetime.now(UTC), 404, None, None, None, None)])
    for left in (15, 1):
        assert job.execute_in_process(
            partition_key=TUESDAY.isoformat(),
            instance=instance,
            asset_selection=[dg.AssetKey("call_records")],
            run_config={"ops": {"call_records": {"config": {"reread_final": True}}}},
        ).success
        assert len(lake.segments(TUESDAY)) == left
    assert lake.stale_days() == [TUESDAY]


def test_raw_that_cannot_be_merged_is_no_reason_to_fail(
    settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Merging can wait: the run says so and goes on."""

    def refuse(_lake: Lake, _day: date) -> bool:
        raise LakeError("no room")

    monkeypatch.setattr(Lake, "compact", refuse)
    ran = run(settings, instance, TUESDAY)
    assert ran.success
    assert f"{TUESDAY}: raw files are not merged: no room" in ran.log
    assert len(shown_calls(settings, TUESDAY)) == CALLS


def test_what_is_left_of_a_damaged_day_is_not_shown_when_a_sweep_fails(
    settings: Settings, instance: dg.DagsterInstance, script: ScriptedVendor
) -> None:
    """A file that is restored later is then shown; the other days are made meanwhile."""
    assert run(settings, instance, MONDAY, TUESDAY).success
    lake = Lake.open(settings.data_dir)
    lake.land(TUESDAY, [Read(130, datetime.now(UTC), 404, None, None, None, None)])
    shown = lake.published_day(TUESDAY)
    (key,) = (segment.key for segment in lake.segments(TUESDAY) if not shown or segment.key in shown.segment_keys)
    whole = lake.storage.read(key)
    damage(settings, key)
    script.failing = set(range(100, 200))
    ran = run(settings, instance, TUESDAY, WEDNESDAY)
    assert not ran.success
    assert "is damaged" in ran.log
    assert lake.published_day(TUESDAY) == shown
    lake.storage.replace(key, whole)
    script.failing = set()
    assert run(settings, instance, TUESDAY, WEDNESDAY).success
    assert len(shown_calls(settings, TUESDAY)) == CALLS
    assert lake.stale_days() == []


def test_a_rebuild_needs_no_api(settings: Settings, instance: dg.DagsterInstance, script: ScriptedVendor) -> None:
    """Tables deleted by accident come back from raw, with the same rows; unchanged ones keep their files."""
    assert run(settings, instance, MONDAY, WEDNESDAY).success
    before = {day: read_rows(root_of(settings), "calls", day) for day in DAYS}
    kept = (root_of(settings) / f"tables/call_agents/call_date={MONDAY}/call_agents.parquet").stat()
    for day in DAYS:
        (root_of(settings) / f"tables/calls/call_date={day}/calls.parquet").unlink()
    script.asked.clear()
    ran = run(replace(settings, api_base_url=None, api_token=None), instance, MONDAY, WEDNESDAY, job_name="rebuild_job")
    assert ran.success
    assert {day: read_rows(root_of(settings), "calls", day) for day in DAYS} == before
    assert not script.asked
    assert (root_of(settings) / f"tables/call_agents/call_date={MONDAY}/call_agents.parquet").stat() == kept


def test_a_day_without_calls_has_empty_tables(settings: Settings, instance: dg.DagsterInstance) -> None:
    """Between calls and beyond them."""
    ran = run(settings, instance, date(2025, 5, 1))
    assert ran.success
    assert not ran.failed_checks
    assert shown_calls(settings, date(2025, 5, 1)) == []


def test_a_quarantined_answer_is_counted_and_left_out(
    settings: Settings, instance: dg.DagsterInstance, script: ScriptedVendor
) -> None:
    """A body that breaks the contract fails its check only."""
    script.calls[125] = {"calls": {"id": 125, "started_at": "soon"}}
    ran = run(settings, instance, TUESDAY)
    assert ran.success
    assert ran.failed_checks == {("quarantine_is_empty", TUESDAY.isoformat())}
    assert 125 not in shown_calls(settings, TUESDAY)


def test_reads_that_were_not_made_are_reported(settings: Settings, instance: dg.DagsterInstance) -> None:
    """As a warning, with their number."""
    assert run(settings, instance, TUESDAY).success
    (found,) = coverage(Lake.open(settings.data_dir), [TUESDAY], settings.timezone)
    assert all(outcome.passed for outcome in check_records(found, 0))
    (failed,) = (outcome for outcome in check_records(found, 2) if not outcome.passed)
    assert (failed.name, failed.severity) == ("nothing_is_overdue", dg.AssetCheckSeverity.WARN)
    assert (failed.description, failed.metadata) == ("2 reads are overdue", {"overdue": 2})


def damage(settings: Settings, key: str) -> bytes:
    """Flips a byte in the middle of a file; gives what is there now."""
    path = root_of(settings) / key
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(damaged)
    return bytes(damaged)


def test_a_rebuild_over_a_damaged_raw_file_keeps_the_tables(settings: Settings, instance: dg.DagsterInstance) -> None:
    """The day fails, naming the file and what to do; its tables keep their rows, the other days are made."""
    assert run(settings, instance, MONDAY, WEDNESDAY).success
    (segment,) = Lake.open(settings.data_dir).segments(TUESDAY)
    damage(settings, segment.key)
    for day in DAYS:
        (root_of(settings) / f"tables/call_tags/call_date={day}/call_tags.parquet").unlink()
    ran = run(settings, instance, MONDAY, WEDNESDAY, job_name="rebuild_job")
    assert not ran.success
    assert segment.key in ran.failure
    assert "materialize call_records" in ran.failure
    assert "\n" not in ran.failure
    assert len(shown_calls(settings, TUESDAY)) == CALLS
    assert ("call_tags", MONDAY.isoformat()) in ran.materialized
    assert ("call_tags", WEDNESDAY.isoformat()) in ran.materialized
    assert ("call_tags", TUESDAY.isoformat()) not in ran.materialized
    healed = run(settings, instance, TUESDAY)
    assert healed.success
    assert len(shown_calls(settings, TUESDAY)) == CALLS


def test_a_damaged_table_is_named_and_made_again(settings: Settings, instance: dg.DagsterInstance) -> None:
    """A neighbour's damaged table fails the check that needs it, in one line; a rebuild of that day heals it."""
    assert run(settings, instance, MONDAY, WEDNESDAY).success
    key = f"tables/calls/call_date={TUESDAY}/calls.parquet"
    damage(settings, key)
    ran = run(settings, instance, MONDAY, job_name="rebuild_job")
    assert ("one_row_per_call", MONDAY.isoformat()) in ran.failed_checks
    assert key in ran.log + ran.failure
    run(settings, instance, TUESDAY, job_name="rebuild_job")
    assert len(shown_calls(settings, TUESDAY)) == CALLS
    assert run(settings, instance, MONDAY, job_name="rebuild_job").success


def test_a_full_disk_ends_the_run_in_one_line_and_changes_nothing(
    settings: Settings, instance: dg.DagsterInstance, script: ScriptedVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored stays readable; with room again the next run completes the day."""
    assert run(settings, instance, MONDAY).success
    before = {path: path.read_bytes() for path in root_of(settings).rglob("*") if path.is_file()}

    def refuse(_descriptor: int, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("calls_assets.lake.storage._write_all", refuse)
        ran = run(settings, instance, WEDNESDAY)
    assert not ran.success
    assert "no space left on device" in ran.failure
    assert "\n" not in ran.failure
    assert {path: path.read_bytes() for path in root_of(settings).rglob("*") if path.is_file()} == before
    assert run(settings, instance, WEDNESDAY).success
    assert len(shown_calls(settings, WEDNESDAY)) == CALLS


def test_a_directory_that_cannot_be_used_ends_the_run_in_one_line(
    settings: Settings, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """The lake would have to be created below a file."""
    (tmp_path / "file").touch()
    ran = run(replace(settings, data_dir=tmp_path / "file" / "lake"), instance, MONDAY)
    assert not ran.success
    assert f"cannot use the data directory {tmp_path / 'file' / 'lake'}: not a directory" in ran.failure


def test_another_time_zone_is_refused(settings: Settings, instance: dg.DagsterInstance) -> None:
    """The lake's days are those of its zone: in another one, calls near midnight would be lost."""
    assert run(settings, instance, MONDAY).success
    for job_name in ("sweep_job", "rebuild_job"):
        ran = run(replace(settings, timezone=ZoneInfo("Asia/Tokyo")), instance, MONDAY, job_name=job_name)
        assert not ran.success
        assert "days of UTC" in ran.failure
        assert "CALLS_TIMEZONE" in ran.failure
