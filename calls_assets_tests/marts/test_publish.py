"""Publishing marts: what is written when, and what is said when it cannot be."""

from __future__ import annotations

import shutil
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import calls_assets.marts.publish as publish_module
from calls_assets.lake import MARTS, Lake, LakeError, LocalStorage, parquet
from calls_assets.marts import publish_marts
from calls_assets.marts.query import run_mart
from calls_assets_tests.lakes import DAYS, NOW, ZONE, FinishedLake, to_table
from calls_assets_tests.marts.oracle import monday
from calls_assets_tests.marts.test_journeys import a_call

DAY = DAYS[30]


@pytest.fixture
def lake(finished_lake: FinishedLake, tmp_path: Path) -> Lake:
    """Gives a lake of the same days to write to."""
    shutil.copytree(finished_lake.root, tmp_path / "lake")
    return Lake.open(tmp_path / "lake")


def list_marts(lake: Lake) -> dict[str, str]:
    """Gives the version of every mart's file."""
    return {file.key: file.version for file in lake.list_files("marts/")}


def test_marts_whose_rows_did_not_change_keep_their_files(lake: Lake) -> None:
    """Making them again replaces nothing and reports the same rows."""
    before = list_marts(lake)
    reports = publish_marts(lake, DAYS[28:32], now=NOW, timezone=ZONE)
    assert list(reports) == DAYS[28:32]
    assert all(not report.replaced and set(report.row_counts) == set(MARTS) for report in reports.values())
    assert reports[DAY].row_counts["agent_days"] == len(lake.read_table("agent_days", DAY))
    assert list_marts(lake) == before


def test_a_changed_call_replaces_the_marts_that_show_it(lake: Lake) -> None:
    """And no others; the names chosen limit what is written."""
    calls = lake.read_table("calls", DAY).to_pylist()
    calls[0]["disposition_code"] = "Something else"
    lake.write_table("calls", DAY, to_table("calls", calls))
    before = list_marts(lake)
    report = publish_marts(lake, [DAY], now=NOW, timezone=ZONE, names=["agent_days"])[DAY]
    assert set(report.row_counts) == {"agent_days"}
    report = publish_marts(lake, [DAY], now=NOW, timezone=ZONE)[DAY]
    assert "disposition_days" in report.replaced
    assert "call_journeys" not in report.replaced
    changed = {key for key, version in list_marts(lake).items() if before[key] != version}
    assert changed <= {lake.table_key(name, DAY) for name in ("agent_days", "disposition_days", "service_intervals")}


def test_journeys_become_complete_as_days_go_by(lake: Lake) -> None:
    """Today is not over, and days that are not there are not known."""
    last = DAYS[-1]
    shares = []
    for days_later in (0, 1, 8, 30):
        now = datetime.combine(last, datetime.min.time(), UTC) + timedelta(days=days_later, hours=12)
        publish_marts(lake, DAYS[-14:], now=now, timezone=ZONE, names=["call_journeys"])
        rows = [row for day in DAYS[-14:] for row in lake.read_table("call_journeys", day).to_pylist()]
        shares.append(sum(row["is_complete"] for row in rows))
        for row in rows:
            first, latest = (row[name].astimezone(ZONE).date() for name in ("first_started_at", "last_started_at"))
            until = min(latest + timedelta(days=7), monday(first) + timedelta(days=13))
            assert row["is_complete"] == (until < last if days_later == 0 else until <= last)
    assert 0 < shares[0] < shares[1] == shares[2] == shares[3] < len(rows)


def test_a_day_without_tables_is_named(tmp_path: Path) -> None:
    """One line that says which day and what to do."""
    with pytest.raises(LakeError, match=r"2025-05-14 has no tables in the lake: materialize them"):
        publish_marts(Lake.open(tmp_path), [date(2025, 5, 14)], now=NOW, timezone=ZONE)


def test_a_lone_day_has_marts(tmp_path: Path) -> None:
    """The days around it are not there: its journeys are not complete."""
    lake, day = Lake.open(tmp_path), date(2025, 5, 14)
    lake.write_table("calls", day, to_table("calls", [_readable(a_call(1)), _readable(a_call(2))]))
    lake.write_table("call_agents", day, to_table("call_agents", []))
    report = publish_marts(lake, [day], now=NOW, timezone=ZONE)[day]
    assert report.row_counts == {"service_intervals": 1, "agent_days": 1, "disposition_days": 1, "call_journeys": 1}
    assert lake.read_table("call_journeys", day)["is_complete"].to_pylist() == [False]


def test_a_day_beside_it_of_which_only_some_tables_were_made_is_not_known(tmp_path: Path) -> None:
    """Somebody materialized `calls` alone for the next day: this one has its marts all the same."""
    lake, day = Lake.open(tmp_path), date(2025, 5, 14)
    for written in (day, day + timedelta(days=1)):
        lake.write_table("calls", written, to_table("calls", [_readable(a_call(1))]))
    lake.write_table("call_agents", day, to_table("call_agents", []))
    assert publish_marts(lake, [day], now=NOW, timezone=ZONE)[day].row_counts["call_journeys"] == 1
    with pytest.raises(LakeError, match=r"2025-05-15 has no tables in the lake"):
        publish_marts(lake, [day + timedelta(days=1)], now=NOW, timezone=ZONE)


def test_days_made_before_a_column_was_added_have_marts(lake: Lake, tmp_path: Path) -> None:
    """The column is NULL in them, whether a mart reads one day or several."""
    for day in DAYS[29:31]:
        key = lake.table_key("calls", day)
        older = lake.read_table("calls", day).drop_columns(["ring_group_name", "is_abandoned"])
        (tmp_path / "lake" / key).write_bytes(parquet.encode(key, older))
    publish_marts(lake, DAYS[29:32], now=NOW, timezone=ZONE)
    for day, is_known in zip(DAYS[29:32], (False, False, True), strict=True):
        for name in ("service_intervals", "call_journeys"):
            names = lake.read_table(name, day)["ring_group_name"].to_pylist()
            assert any(names) == is_known, (day, name)


def test_tables_that_change_meanwhile_are_looked_at_again(tmp_path: Path) -> None:
    """Of two writers the last one shows everything."""
    day = date(2025, 5, 14)

    class Racing(LocalStorage):
        """Somebody writes the calls of the day while its first mart is written."""

        def replace(self, key: str, data: bytes | memoryview) -> None:
            if key.startswith("marts/") and not self.list("marts/"):
                rows = [_readable(a_call(1)), _readable(a_call(2, contact_id=2))]
                raced.write_table("calls", day, to_table("calls", rows))
            super().replace(key, data)

    raced = Lake(Racing(tmp_path))
    raced.write_table("calls", day, to_table("calls", [_readable(a_call(1))]))
    raced.write_table("call_agents", day, to_table("call_agents", []))
    report = publish_marts(raced, [day], now=NOW, timezone=ZONE)[day]
    assert report.row_counts["call_journeys"] == 2
    assert raced.read_table("service_intervals", day)["calls"].to_pylist() == [2]


def test_a_day_that_appears_meanwhile_is_looked_at_too(tmp_path: Path) -> None:
    """Two runs make the tables of neighbouring days for the first time: the journeys know both, whoever writes last."""
    day = date(2025, 5, 14)

    class Racing(LocalStorage):
        """Somebody makes the tables of the next day while the journeys of this one are written."""

        def replace(self, key: str, data: bytes | memoryview) -> None:
            if key.startswith("marts/call_journeys") and len(raced.table_days("calls")) == 1:
                write(day + timedelta(days=1), 2)
            super().replace(key, data)

    raced = Lake(Racing(tmp_path))

    def write(written: date, id_: int) -> None:
        call = _readable(a_call(id_)) | {
            "started_at": datetime(written.year, written.month, written.day, 9, tzinfo=UTC)
        }
        raced.write_table("call_agents", written, to_table("call_agents", []))
        raced.write_table("calls", written, to_table("calls", [call]))

    write(day, 1)
    publish_marts(raced, [day], now=NOW, timezone=ZONE)
    assert raced.table_days("calls") == [day, day + timedelta(days=1)]
    assert not publish_marts(raced, [day], now=NOW, timezone=ZONE)[day].replaced


def _readable(call: dict[str, object]) -> dict[str, object]:
    """Adds what a row of calls must have."""
    moments = dict.fromkeys(("first_read_at", "last_read_at", "last_changed_at"), call["started_at"])
    return {**call, **moments, "read_count": 1, "is_final": True}


def count_queries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gives a list of the marts that are made from now on."""
    made: list[str] = []

    def note(connection: Any, name: str, *arguments: Any) -> Any:  # noqa: ANN401 - passes everything on
        made.append(name)
        return run_mart(connection, name, *arguments)

    monkeypatch.setattr(publish_module, "run_mart", note)
    return made


def test_marts_of_unchanged_tables_are_not_made_again_when_asked_so(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is made, the same is reported; a changed table, a lost mart and another today make what they must."""
    days = DAYS[28:32]
    publish = partial(publish_marts, lake, now=NOW, timezone=ZONE, unless_current=True)
    before = publish(days)
    made = count_queries(monkeypatch)
    assert {day: report.row_counts for day, report in publish(days).items()} == {
        day: report.row_counts for day, report in before.items()
    }
    assert made == []

    publish_marts(lake, [DAY], now=NOW, timezone=ZONE)
    assert set(made) == set(MARTS)
    made.clear()

    lake.storage.delete(lake.table_key("agent_days", DAY))
    assert publish(days)[DAY].replaced == {"agent_days"}
    assert made == ["agent_days"]
    made.clear()

    calls = lake.read_table("calls", DAY).to_pylist()
    calls[0]["disposition_code"] = "Something else"
    lake.write_table("calls", DAY, to_table("calls", calls))
    publish([DAY])
    assert set(made) == set(MARTS)
    made.clear()

    publish_marts(lake, [DAY], now=NOW - timedelta(days=300), timezone=ZONE, unless_current=True)
    assert made == ["call_journeys"]  # what is complete depends on today
