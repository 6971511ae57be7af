"""Deliveries and named ids on their way into the tables, through real runs against a vendor over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from calls_assets.inbox import Inbox
from calls_assets.lake import DAILY_TABLES, Lake
from calls_assets.settings import Settings
from calls_assets_tests.defs import scripted
from calls_assets_tests.defs.scripted import ScriptedVendor
from calls_assets_tests.defs.test_sensors import tick
from calls_assets_tests.e2e.running import read_rows
from calls_assets_tests.lakes import root_of

NOW = datetime.now(UTC)
TODAY = NOW.date()
YESTERDAY = TODAY - timedelta(days=1)
NOON = datetime(YESTERDAY.year, YESTERDAY.month, YESTERDAY.day, 12, tzinfo=UTC)

run = partial(scripted.run, only=("call_records", "call_events", *DAILY_TABLES))
"""Up to the tables: marts and page would double the time."""


@pytest.fixture
def script() -> ScriptedVendor:
    """Gives an account with twenty calls yesterday."""
    script = ScriptedVendor()
    script.add_day(100, 20, datetime(YESTERDAY.year, YESTERDAY.month, YESTERDAY.day, tzinfo=UTC))
    return script


@pytest.fixture
def settings(tmp_path: Path, script: ScriptedVendor) -> Iterator[Settings]:
    """Gives the settings of a deployment whose ids are not searched: the inbox alone drives it."""
    with script.deployed(tmp_path, start_date=TODAY - timedelta(days=10), id_scan=False) as deployed:
        yield deployed


@pytest.fixture
def inbox(settings: Settings) -> Inbox:
    """Gives the lake's inbox."""
    return Inbox(Lake.open(settings.data_dir).storage)


def delivery(id_: int, *, start: datetime | None = NOON, **fields: object) -> bytes:
    """Gives the body of a delivery."""
    dates = (
        {"startedDate": start.isoformat(), "endedDate": (start + timedelta(seconds=60)).isoformat()} if start else {}
    )
    return json.dumps({"id": id_, "waitingTime": 18, "abandoned": 0, **dates, **fields}).encode()


def row_of(settings: Settings, id_: int, day: date = YESTERDAY) -> dict[str, Any]:
    """Gives the row of a call."""
    (row,) = (row for row in read_rows(root_of(settings), "calls", day) if row["call_id"] == id_)
    return row


def test_a_delivery_becomes_a_row_with_its_wait(
    settings: Settings, instance: dg.DagsterInstance, inbox: Inbox, script: ScriptedVendor
) -> None:
    """The sensor asks for its day; the call is read once, the event lands, the inbox is empty."""
    assert tick(settings, instance, "call_inbox") == "nothing waits"
    inbox.put(delivery(105), NOW)
    assert tick(settings, instance, "call_inbox") == [YESTERDAY.isoformat()]
    assert run(settings, instance, YESTERDAY).success
    row = row_of(settings, 105)
    assert (row["waiting_seconds"], row["is_abandoned"]) == (18, False)
    assert row["ended_at"] == NOON + timedelta(seconds=60)
    assert dict(script.asked) == {105: 1}
    assert inbox.files() == []
    assert tick(settings, instance, "call_inbox") == "nothing waits"
    again = run(settings, instance, YESTERDAY)
    assert again.success
    assert dict(script.asked) == {105: 1}


def test_repeated_and_reordered_deliveries_converge(
    settings: Settings, instance: dg.DagsterInstance, inbox: Inbox, script: ScriptedVendor
) -> None:
    """The newest received decides, however they are spread over runs, and the call is asked for once per news."""
    inbox.put(delivery(105, waitingTime=7), NOW - timedelta(minutes=2))
    inbox.put(delivery(105, waitingTime=9), NOW - timedelta(minutes=1))
    inbox.put(delivery(105, waitingTime=9), NOW - timedelta(minutes=1))
    assert run(settings, instance, YESTERDAY).success
    assert row_of(settings, 105)["waiting_seconds"] == 9
    assert script.asked[105] == 1
    inbox.put(delivery(105, waitingTime=8), NOW - timedelta(minutes=3))
    assert run(settings, instance, YESTERDAY).success
    assert row_of(settings, 105)["waiting_seconds"] == 9
    assert script.asked[105] == 1
    assert inbox.files() == []


def test_an_event_before_the_call_waits_for_it(
    settings: Settings, instance: dg.DagsterInstance, inbox: Inbox, script: ScriptedVendor
) -> None:
    """404 now, 200 later: it is asked for again after a minute, and then its row has the wait."""
    inbox.put(delivery(700), datetime.now(UTC))
    assert run(settings, instance, YESTERDAY).success
    assert script.asked[700] == 1
    assert [item.attempts for item in inbox.deliveries()] == [1]
    assert tick(settings, instance, "call_inbox") == "1 waiting, none is due"
    script.add(700, NOON)
    (item,) = inbox.deliveries()
    inbox.settle(item)  # the same delivery, received two minutes earlier
    old = inbox.put(delivery(700), datetime.now(UTC) - timedelta(minutes=2))
    inbox.postpone(old)
    assert tick(settings, instance, "call_inbox") == [YESTERDAY.isoformat()]
    assert run(settings, instance, YESTERDAY).success
    assert script.asked[700] == 2
    assert row_of(settings, 700)["waiting_seconds"] == 18
    assert inbox.files() == []


def test_a_call_that_never_comes_is_given_up(
    settings: Settings, instance: dg.DagsterInstance, inbox: Inbox, script: ScriptedVendor
) -> None:
    """After three days of attempts; its event stays in raw."""
    item = inbox.put(delivery(700), NOW - timedelta(days=4))
    for _ in range(7):
        inbox.postpone(item)
        (item,) = inbox.deliveries()
    assert run(settings, instance, YESTERDAY).success
    assert script.asked[700] == 1
    assert inbox.files() == []
    assert len(Lake.open(settings.data_dir).read_events(YESTERDAY)) == 1
    assert [row["call_id"] for row in read_rows(root_of(settings), "calls", YESTERDAY)] == []


def test_a_delivery_without_a_start_lands_where_its_call_belongs(
    settings: Settings, instance: dg.DagsterInstance, inbox: Inbox
) -> None:
    """Today's sweep takes it; the call's day is made again if it has tables."""
    assert run(settings, instance, YESTERDAY).success
    inbox.put(delivery(105, start=None), NOW)
    assert tick(settings, instance, "call_inbox") == [TODAY.isoformat()]
    ran = run(settings, instance, TODAY)
    assert ran.success
    assert ("calls", YESTERDAY.isoformat()) in ran.materialized
    assert row_of(settings, 105)["waiting_seconds"] == 18


def test_an_event_follows_a_call_that_moves(
    settings: Settings, instance: dg.DagsterInstance, inbox: Inbox, script: ScriptedVendor
) -> None:
    """The delivery names another day than the API, and then the API's start changes as well."""
    other = YESTERDAY - timedelta(days=2)
    inbox.put(delivery(105, start=NOON - timedelta(days=2)), NOW)
    assert run(settings, instance, other).success
    assert run(settings, instance, YESTERDAY).success
    assert row_of(settings, 105)["waiting_seconds"] == 18
    script.add(105, NOON - timedelta(days=3))
    moved = YESTERDAY - timedelta(days=3)
    assert run(settings, instance, YESTERDAY, reread_final=True).success
    assert run(settings, instance, moved).success
    assert row_of(settings, 105, moved)["waiting_seconds"] == 18
    assert 105 not in {row["call_id"] for row in read_rows(root_of(settings), "calls", YESTERDAY)}


def test_damaged_deliveries_are_kept_where_they_are(
    settings: Settings, instance: dg.DagsterInstance, inbox: Inbox, script: ScriptedVendor
) -> None:
    """Their content cannot be asked for again: also a sweep that reads them, for a call that moves, leaves them."""
    settings = replace(settings, id_scan=True)
    inbox.put(delivery(105), NOW)
    assert run(settings, instance, YESTERDAY).success
    ((_, key),) = Lake.open(settings.data_dir).event_files(YESTERDAY)
    file = root_of(settings) / key
    damaged = file.read_bytes()[:-9] + b"123456789"
    file.write_bytes(damaged)
    script.add(105, NOON - timedelta(days=3))
    ran = run(settings, instance, YESTERDAY, reread_final=True)
    assert key in ran.log
    assert not ran.success
    assert file.read_bytes() == damaged


def test_a_run_that_fails_leaves_the_inbox_as_it_is(
    settings: Settings, instance: dg.DagsterInstance, inbox: Inbox, script: ScriptedVendor
) -> None:
    """A delivery goes only when its call and its event have landed."""
    inbox.put(delivery(105), NOW)
    assert not run(replace(settings, api_token="wrong"), instance, YESTERDAY).success
    assert [item.call_id for item in inbox.deliveries()] == [105]
    script.failing = {105}
    assert not run(settings, instance, YESTERDAY).success
    assert [item.call_id for item in inbox.deliveries()] == [105]
    script.failing = set()
    assert run(settings, instance, YESTERDAY).success
    assert row_of(settings, 105)["waiting_seconds"] == 18
    assert inbox.files() == []


def test_named_ids_are_read_and_land_in_their_days(
    settings: Settings, instance: dg.DagsterInstance, inbox: Inbox, script: ScriptedVendor
) -> None:
    """Existing ones and missing ones; all answered, the request goes."""
    assert run(settings, instance, YESTERDAY).success
    inbox.enqueue([(103, 106), (900, 901)], NOW)
    assert tick(settings, instance, "call_inbox") == [TODAY.isoformat()]
    assert run(settings, instance, TODAY).success
    assert set(script.asked) == {103, 104, 105, 106, 900, 901}
    assert {row["call_id"] for row in read_rows(root_of(settings), "calls", YESTERDAY)} == {103, 104, 105, 106}
    assert inbox.files() == []


def test_an_id_without_an_answer_does_not_have_its_neighbours_read_again(
    settings: Settings, instance: dg.DagsterInstance, inbox: Inbox, script: ScriptedVendor
) -> None:
    """Of named ids only those are asked for again that nobody answered for."""
    inbox.enqueue([(100, 119)], NOW - timedelta(hours=1))
    script.failing = {110}
    assert run(settings, instance, TODAY).success
    script.asked.clear()
    run(settings, instance, TODAY)
    assert script.asked.keys() == {110}
    script.failing = set()
    assert run(settings, instance, TODAY).success
    assert inbox.files() == []


def test_deliveries_and_search_work_together(
    settings: Settings, instance: dg.DagsterInstance, inbox: Inbox, script: ScriptedVendor
) -> None:
    """With ids searched too: every call once, the delivered ones with their wait, nothing unaccounted."""
    searched = replace(settings, id_scan=True)
    inbox.put(delivery(119), NOW)
    ran = run(searched, instance, YESTERDAY)
    assert ran.success
    assert not ran.failed_checks
    assert len(read_rows(root_of(settings), "calls", YESTERDAY)) == 20
    assert row_of(settings, 119)["waiting_seconds"] == 18
    assert script.asked[119] == 1


def test_a_run_for_the_same_day_in_flight_is_waited_for(
    settings: Settings, instance: dg.DagsterInstance, inbox: Inbox
) -> None:
    """What came meanwhile is taken by the next one."""
    inbox.put(delivery(105), NOW)
    instance.add_run(
        dg.DagsterRun(
            job_name="sweep_job",
            status=dg.DagsterRunStatus.STARTED,
            tags={"dagster/partition": YESTERDAY.isoformat()},
        )
    )
    assert "under way" in tick(settings, instance, "call_inbox")
    assert "CALLS_API_BASE_URL is not set" in tick(replace(settings, api_base_url=None), instance, "call_inbox")
