"""`agents` as history grows: only the days that have changed are read, and it is what deriving all of them gives."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from calls_assets.derive import derive_agents, publish_agents
from calls_assets.lake import TABLES, Lake

FIRST = date(2025, 1, 20)
DAYS = [FIRST + timedelta(days=offset) for offset in range(100)]  # to 29 April
NAMES = ("calls", "call_agents")


def write_day(lake: Lake, day: date, variant: int = 0) -> None:
    """Writes a day's calls and legs, of five agents out of twenty."""
    dice = Random(f"{day} {variant}")
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    first = 100 * (day - FIRST).days
    call_ids = [first + number for number in range(5)]
    calls = [
        make_row("calls", call_id=call_id, started_at=noon, agent_ids=[dice.randint(1, 20)]) for call_id in call_ids
    ]
    legs = [
        make_row(
            "call_agents",
            call_id=call_id,
            leg=0,
            agent_id=dice.randint(1, 20),
            user_id=dice.choice([None, 1, 2]),
            alias=dice.choice([None, f"{day}", "always"]),
            started_at=dice.choice([None, noon + timedelta(seconds=dice.randint(0, 9))]),
        )
        for call_id in call_ids
    ]
    for name, rows in (("calls", calls), ("call_agents", legs)):
        lake.write_table(name, day, pa.Table.from_pylist(rows, TABLES[name].schema))


def make_row(name: str, **values: object) -> dict[str, Any]:
    """Gives a row; what is not given is NULL, or nothing where it must not be."""
    nothing = {"bool": False, "int64": 0, "int32": 0, "timestamp[us, tz=UTC]": datetime(2025, 1, 1, tzinfo=UTC)}
    row = {field.name: None if field.nullable else nothing.get(str(field.type)) for field in TABLES[name].schema}
    if "started_at_local" in row:
        row["started_at_local"] = datetime(2025, 1, 1)  # noqa: DTZ001 - a wall clock
    return row | values


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Gives a lake of a hundred days with `agents`."""
    lake = Lake.open(tmp_path)
    for day in DAYS:
        write_day(lake, day)
    publish_agents(lake, unless_current=True)
    return lake


@pytest.fixture
def opened(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> set[date]:
    """Gives a set of the days whose tables are read from now on."""
    days: set[date] = set()
    read_table = Lake.read_table

    def note(self: Lake, name: str, day: date | None = None, *columns: Any) -> pa.Table:  # noqa: ANN401 - passed on
        if day is not None:
            days.add(day)
        return read_table(self, name, day, *columns)

    monkeypatch.setattr(Lake, "read_table", note)
    return days


def derive_all(lake: Lake) -> pa.Table:
    """Derives the agents from all days."""
    days = lake.table_days("calls")
    return derive_agents((lake.read_table("calls", day), lake.read_table("call_agents", day)) for day in days)


@pytest.mark.parametrize(
    ("changed", "read"),
    [
        ([DAYS[-1]], [DAYS[-1]]),
        ([date(2025, 3, 1), date(2025, 4, 3)], [date(2025, 3, 1), date(2025, 4, 3)]),
        ([date(2025, 2, 28)], [day for day in DAYS if day.month == 2]),
        ([DAYS[-1] + timedelta(days=1)], [DAYS[-1] + timedelta(days=1)]),
        # With the first day of May those of March stand together.
        ([date(2025, 5, 1)], [*(day for day in DAYS if day.month == 3), date(2025, 5, 1)]),
    ],
    ids=["today", "two days", "an old day", "a new day", "a new month"],
)
def test_only_what_has_changed_is_read(lake: Lake, opened: set[date], changed: list[date], read: list[date]) -> None:
    """A day of the last two months is read alone, an older one with its month; what comes out is the same."""
    for day in changed:
        write_day(lake, day, variant=1)
    publish_agents(lake, unless_current=True)
    assert sorted(opened) == read
    assert lake.read_table("agents").equals(derive_all(lake))
    opened.clear()
    publish_agents(lake, unless_current=True)
    assert not opened


def test_a_day_that_goes_is_seen_no_more(lake: Lake, opened: set[date]) -> None:
    """Nothing of it is kept."""
    for name in NAMES:
        lake.storage.delete(lake.table_key(name, DAYS[-1]))
    publish_agents(lake, unless_current=True)
    assert not opened
    assert lake.read_table("agents").equals(derive_all(lake))


@pytest.mark.parametrize("harm", ["gone", "damaged"])
def test_without_what_was_kept_all_days_are_read(lake: Lake, opened: set[date], harm: str) -> None:
    """It can be deleted like everything else below `made_of/`."""
    lake.storage.delete("made_of/agents.parquet")
    if harm == "damaged":
        lake.storage.put_new("made_of/agents.parquet", b"PAR1")
    write_day(lake, DAYS[-1], variant=1)
    publish_agents(lake, unless_current=True)
    assert sorted(opened) == DAYS
    assert lake.read_table("agents").equals(derive_all(lake))


def test_what_another_writer_says_it_made_is_not_taken_for_what_is_there(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two writers one has older tables, and writes last."""
    write_table = Lake.write_table
    is_first = True

    def write(self: Lake, name: str, day: date | None, rows: pa.Table) -> bool:
        nonlocal is_first
        if name == "agents" and is_first:
            is_first = False
            write_day(lake, DAYS[-1], variant=2)
            publish_agents(lake, unless_current=True)
        return write_table(self, name, day, rows)

    write_day(lake, DAYS[-1], variant=1)
    monkeypatch.setattr(Lake, "write_table", write)
    publish_agents(lake, unless_current=True)
    assert lake.read_table("agents").equals(derive_all(lake))


def test_a_table_that_goes_while_it_is_read_is_looked_for_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody deletes a day."""
    read_table = Lake.read_table

    def read(self: Lake, name: str, day: date | None = None, *columns: Any) -> pa.Table:  # noqa: ANN401 - passed on
        for gone in NAMES:
            lake.storage.delete(lake.table_key(gone, DAYS[-1]))
        return read_table(self, name, day, *columns)

    write_day(lake, DAYS[-1], variant=1)
    with monkeypatch.context() as patch:
        patch.setattr(Lake, "read_table", read)
        publish_agents(lake, unless_current=True)
    assert lake.read_table("agents").equals(derive_all(lake))


def test_a_lake_without_days_has_no_agents(tmp_path: Path) -> None:
    """Nor is anything wrong with it."""
    lake = Lake.open(tmp_path)
    assert [publish_agents(lake, unless_current=True) for _ in range(2)] == [0, 0]


def test_who_asks_for_it_anew_has_all_days_read(lake: Lake, opened: set[date]) -> None:
    """As a rebuild does."""
    publish_agents(lake)
    assert sorted(opened) == DAYS
