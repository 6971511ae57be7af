"""Seven readers, one answer: types, counts, sums, NULLs and extremes of every column, from the day's file only."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calls_assets.lake import DATASETS
from calls_assets_tests.lakes import DAYS, EMPTY_DAY, LONG_DAY, SHORT_DAY, FinishedLake
from calls_assets_tests.readers.engines import ENGINES, Engine, expect

CALL_DATE = pa.field("call_date", pa.date32(), nullable=False)


def rows_of(lake: FinishedLake, name: str, days: list[date]) -> list[dict[str, Any]]:
    """Reads a table's rows file by file."""
    if not DATASETS[name].is_daily:
        return lake.rows(name)
    return [row | {"call_date": day} for day in days for row in lake.rows(name, day)]


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_every_table_is_the_same(finished_lake: FinishedLake, engine: Engine) -> None:
    """Sixty days of every table and mart: all columns."""
    for name, table in DATASETS.items():
        schema = table.schema.append(CALL_DATE) if table.is_daily else table.schema
        rows = rows_of(finished_lake, name, DAYS)
        assert rows or name == "call_changes", name  # nothing changed in this lake
        described = engine.describe(finished_lake.root, table)
        assert described == expect(schema, rows, engine), name


@pytest.fixture(scope="session")
def one_day_is_whole(finished_lake: FinishedLake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gives a lake with two whole days; the other days' files have a footer, and noise where their rows were."""
    root = tmp_path_factory.mktemp("spoiled") / "data"
    shutil.copytree(finished_lake.root / "tables/calls", root / "tables/calls")
    for path in root.glob("tables/calls/*/*.parquet"):
        if path.parent.name.removeprefix("call_date=") not in {str(LONG_DAY), str(SHORT_DAY)}:
            data = bytearray(path.read_bytes())
            for group in range((footer := pq.read_metadata(path)).num_row_groups):
                for chunk in map(footer.row_group(group).column, range(footer.num_columns)):
                    start = chunk.dictionary_page_offset or chunk.data_page_offset
                    data[start : start + chunk.total_compressed_size] = b"\xa5" * chunk.total_compressed_size
            path.write_bytes(data)
    return root


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_a_day_reads_its_own_file_only(finished_lake: FinishedLake, one_day_is_whole: Path, engine: Engine) -> None:
    """Days of 25 and of 23 hours, while the rows of all other days cannot be read."""
    schema = DATASETS["calls"].schema.append(CALL_DATE)
    for day in (LONG_DAY, SHORT_DAY):
        rows = rows_of(finished_lake, "calls", [day])
        if day == LONG_DAY:
            assert rows[0]["started_at"] < rows[1]["started_at"]
            assert rows[0]["started_at_local"] == rows[1]["started_at_local"]
        described = engine.describe(one_day_is_whole, DATASETS["calls"], day)
        assert described == expect(schema, rows, engine)
    # The other files are as unreadable as the test needs them.
    with pytest.raises(BaseException):  # noqa: B017, PT011 - each reader has its own, Polars' is no Exception
        engine.describe(one_day_is_whole, DATASETS["calls"], DAYS[1])


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_an_empty_day_has_no_rows_and_all_types(finished_lake: FinishedLake, engine: Engine) -> None:
    """Its file is there, and is no trouble."""
    described = engine.describe(finished_lake.root, DATASETS["calls"], EMPTY_DAY)
    whole = engine.describe(finished_lake.root, DATASETS["calls"])
    assert described.rows == 0
    assert {name: column.kind for name, column in described.columns.items()} == {
        name: column.kind for name, column in whole.columns.items()
    }
