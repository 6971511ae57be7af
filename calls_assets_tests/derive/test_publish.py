"""What is made again, and what is left as it is because nothing it is made of has changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from calls_assets.derive import publish, publish_agents, publish_day
from calls_assets.lake import DAILY_TABLES, Lake, Read, parquet
from calls_assets.lake.lake import RawDay
from calls_assets.lake.schemas import CALL_EVENTS

ZONE = ZoneInfo("UTC")
DAY = date(2025, 5, 21)
RUNGS = (timedelta(days=7),)


def read(call_id: int, duration: int = 1) -> Read:
    """Makes an answer about a call of the day."""
    at = datetime(DAY.year, DAY.month, DAY.day, 12, tzinfo=UTC)
    body = b'{"calls": {"id": %d, "started_at": %d, "is_ended": true, "duration": %d, "all_agents": [{"id": 7}]}}' % (
        call_id,
        at.timestamp(),
        duration,
    )
    return Read(call_id, at + timedelta(days=10, seconds=duration), 200, at, True, None, body)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Gives a lake of one day with two calls, published."""
    lake = Lake.open(tmp_path)
    lake.land(DAY, [read(1), read(2)])
    publish_day(lake, DAY, timezone=ZONE, reread_after=RUNGS)
    publish_agents(lake, unless_current=True)
    return lake


@pytest.fixture
def derived(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gives a list of what is derived from now on."""
    done: list[str] = []

    def note(name: str) -> None:
        original = getattr(publish, name)

        def counted(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - passes everything on
            done.append(name)
            return original(*arguments, **options)

        monkeypatch.setattr(publish, name, counted)

    note("derive_day")
    note("derive_agents")
    return done


def again(lake: Lake, rungs: tuple[timedelta, ...] = RUNGS) -> publish.PublishReport:
    """Publishes the day unless it is current."""
    return publish_day(lake, DAY, timezone=ZONE, reread_after=rungs, unless_current=True)


def test_a_quiet_repeat_derives_nothing_and_reports_the_same(lake: Lake, derived: list[str]) -> None:
    """Rows are counted from the files that are there."""
    report = again(lake)
    assert publish_agents(lake, unless_current=True) == 1
    assert derived == []
    assert (report.row_counts["calls"], report.row_counts["call_agents"], report.replaced) == (2, 2, frozenset())
    assert tuple(report.row_counts) == DAILY_TABLES


def test_who_asks_for_the_tables_gets_them_made(lake: Lake, derived: list[str]) -> None:
    """A rebuild does not trust what is there."""
    publish_day(lake, DAY, timezone=ZONE, reread_after=RUNGS)
    publish_agents(lake)
    assert derived == ["derive_day", "derive_agents"]


def _add_a_read(lake: Lake) -> None:
    lake.land(DAY, [read(1, duration=2)])


def _read_it_again(lake: Lake) -> None:
    lake.land(DAY, [replace(read(1), fetched_at=read(1, duration=2).fetched_at)])


def _add_a_delivery(lake: Lake) -> None:
    row = {"call_id": 1, "received_at": read(1).fetched_at, "payload": b"{}"}
    lake.land_events(DAY, pa.Table.from_pylist([row], CALL_EVENTS.schema))


def _damage(lake: Lake) -> None:
    key = lake.table_key("call_agents", DAY)
    lake.storage.replace(key, lake.storage.read(key)[:-9] + b"123456789")


def _delete(lake: Lake) -> None:
    lake.storage.delete(lake.table_key("recordings", DAY))


def _write_calls_only(lake: Lake) -> None:
    publish_day(lake, DAY, timezone=ZONE, reread_after=(timedelta(days=30),), names=["calls"])


def _forget(lake: Lake) -> None:
    lake.storage.delete(lake.mark_key(DAY))


def _put_another_day_in_place(lake: Lake) -> None:
    key = lake.table_key("calls", DAY)
    other = parquet.encode(lake.table_key("calls", date(2025, 5, 20)), lake.read_table("calls", DAY))
    lake.storage.replace(key, other)


@pytest.mark.parametrize(
    "change",
    [
        _add_a_read,
        _read_it_again,
        _add_a_delivery,
        _write_calls_only,
        _damage,
        _delete,
        _forget,
        _put_another_day_in_place,
    ],
    ids=lambda f: f.__name__,
)
def test_a_day_is_derived_when_raw_or_its_files_are_not_what_they_were(
    lake: Lake, derived: list[str], change: Callable[[Lake], None]
) -> None:
    """New raw, a table that is damaged, gone, another one's or made in another way, a mark that is gone: made once."""
    change(lake)
    derived.clear()
    again(lake)
    assert derived == ["derive_day"]
    assert all(lake.read_table(name, DAY).num_columns for name in DAILY_TABLES)
    again(lake)
    assert derived == ["derive_day"]


def _merge_raw(lake: Lake) -> None:
    lake.land(DAY, [read(1)])
    lake.compact(DAY)


def _miss_an_id(lake: Lake) -> None:
    lake.land(DAY, [Read(3, read(1).fetched_at, 404, None, None, None, None)])


def _quarantine(lake: Lake) -> None:
    lake.land(DAY, [Read(3, read(1).fetched_at, 200, None, None, "not JSON", b"{")])


@pytest.mark.parametrize("change", [_merge_raw, _miss_an_id, _quarantine], ids=lambda f: f.__name__)
def test_a_day_is_left_when_its_raw_says_the_same_of_its_calls(
    lake: Lake, derived: list[str], change: Callable[[Lake], None]
) -> None:
    """Raw is read, and then known to be shown: the next time not even that."""
    change(lake)
    assert lake.stale_days() == [DAY]
    assert again(lake).row_counts["calls"] == 2
    assert lake.stale_days() == []
    assert derived == []
    _delete(lake)
    change(lake)
    again(lake)
    assert derived == ["derive_day"]


@pytest.mark.parametrize("change", [lambda _: None, _miss_an_id], ids=["nothing", "an id that is missing"])
def test_a_day_is_derived_after_a_writer_of_older_answers_that_died(lake: Lake, change: Callable[[Lake], None]) -> None:
    """The mark says what another writer made meanwhile, which this one wrote over."""
    older = lake.read_table("calls", DAY)
    _add_a_read(lake)
    again(lake)
    newer = lake.read_table("calls", DAY)
    lake.write_table("calls", DAY, older)
    change(lake)
    assert again(lake).replaced == {"calls"}
    assert lake.read_table("calls", DAY).equals(newer)


@pytest.mark.parametrize("is_alone", [True, False], ids=["alone", "beside another writer"])
def test_a_day_is_derived_again_when_raw_is_what_it_was_after_all(
    lake: Lake, derived: list[str], monkeypatch: pytest.MonkeyPatch, is_alone: bool
) -> None:
    """A segment that is set aside while its answers are being shown: they are not in the end."""
    before = {name: lake.read_table(name, DAY) for name in DAILY_TABLES}
    segment = lake.land(DAY, [read(1, duration=2)])
    is_current = Lake.is_current

    def set_aside(self: Lake, raw: RawDay) -> bool:
        if segment.key in raw.segment_keys:
            lake.storage.delete(segment.key)
            for name in () if is_alone else DAILY_TABLES:
                lake.write_table(name, DAY, before[name])
        return is_current(self, raw)

    monkeypatch.setattr(Lake, "is_current", set_aside)
    assert again(lake).replaced == {"calls", "call_changes"}
    assert all(lake.read_table(name, DAY).equals(before[name]) for name in DAILY_TABLES)
    assert lake.stale_days() == []
    derived.clear()
    again(lake)
    assert derived == []


def test_a_day_is_derived_when_it_would_be_made_in_another_way(
    lake: Lake, derived: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other ages of reading again decide what is final; another release may make other rows."""
    again(lake, rungs=(timedelta(days=30),))
    assert derived == ["derive_day"]
    assert lake.read_table("calls", DAY)["is_final"].to_pylist() == [False, False]
    monkeypatch.setattr(publish, "_CODE", ("calls_assets.derive",))
    again(lake, rungs=(timedelta(days=30),))
    assert derived == ["derive_day"] * 2


def test_agents_are_derived_when_a_days_tables_have_changed(lake: Lake, derived: list[str]) -> None:
    """And when their file is gone."""
    _add_a_read(lake)
    again(lake)
    publish_agents(lake, unless_current=True)
    lake.storage.delete(lake.table_key("agents"))
    publish_agents(lake, unless_current=True)
    assert derived == ["derive_day", "derive_agents", "derive_agents"]
