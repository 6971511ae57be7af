"""What must hold between tables, counted on a lake in which it holds, and after it was broken."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from calls_assets.derive import count_doubles, count_orphans
from calls_assets.lake import DAILY_TABLES, CorruptFileError, Lake
from calls_assets_tests.lakes import DAYS, EMPTY_DAY, FinishedLake

DAY = DAYS[10]


@pytest.fixture
def lake(finished_lake: FinishedLake, tmp_path: Path) -> Lake:
    """Gives a lake that may be broken."""
    shutil.copytree(finished_lake.root, tmp_path / "data")
    return Lake.open(tmp_path / "data")


def test_a_finished_lake_has_neither(finished_lake: FinishedLake) -> None:
    """On all days, the one without calls included."""
    assert EMPTY_DAY in DAYS
    for day in DAYS:
        assert count_doubles(finished_lake.lake, day) == 0
        for name in DAILY_TABLES:
            assert count_orphans(finished_lake.lake, name, day) == 0


def test_calls_shown_twice_are_counted_in_the_day_and_beside_it(lake: Lake) -> None:
    """Two in the day itself, three that the next day shows too; two days on nobody minds."""
    rows = lake.read_table("calls", DAY)
    lake.write_table("calls", DAY, pa.concat_tables([rows, rows.slice(0, 2)]))
    next_day = DAY + timedelta(days=1)
    lake.write_table("calls", next_day, pa.concat_tables([lake.read_table("calls", next_day), rows.slice(5, 3)]))
    assert count_doubles(lake, DAY) == 5
    assert count_doubles(lake, next_day) == 3
    assert count_doubles(lake, DAY - timedelta(days=1)) == 0
    assert count_doubles(lake, DAY + timedelta(days=2)) == 0


def test_rows_without_a_call_are_counted(lake: Lake) -> None:
    """Also when the day has no calls at all any more."""
    legs = lake.read_table("call_agents", DAY)
    rows = lake.read_table("calls", DAY)
    lost = legs["call_id"][3]
    lake.write_table("calls", DAY, rows.filter(pc.not_equal(rows["call_id"], lost)))
    assert count_orphans(lake, "call_agents", DAY) == legs["call_id"].to_pylist().count(lost.as_py())
    Path(lake.storage.locate(lake.table_key("calls", DAY))).unlink()
    assert count_orphans(lake, "call_agents", DAY) == len(legs)


def test_a_damaged_file_is_an_error(lake: Lake) -> None:
    """Not a count."""
    path = Path(lake.storage.locate(lake.table_key("calls", DAY)))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CorruptFileError):
        count_doubles(lake, DAY)
