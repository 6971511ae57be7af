"""Reading: the ten queries of docs/bi.md on 365 days of 5,000 calls, and what the files take.

    python benchmarks/reading.py            # QUICK=1: 60 days of 500 calls

Contenders, all asked by the same DuckDB on the same rows: our lake through its catalogue; DuckDB's own tables, loaded
from it; Parquet with a directory a day as DuckDB writes it by default (zstd or snappy as it likes), and as pyarrow
does. A week is made through the simulator, the other weeks are that week moved, with other ids. What each is given is
written by `make_lake` and `make_others` in [`reading.py`](../benchmarks/reading.py); the queries are those of
[bi.md](bi.md), as they stand there.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from harness import BENCH, OURS, QUICK, ROOT, emit

from calls_assets.derive import publish_agents, publish_day
from calls_assets.lake import DAILY_TABLES, DATASETS, Lake
from calls_assets.lake.catalog import write_catalog
from calls_assets.marts import publish_marts
from calls_assets.simulator import Account, Vendor
from calls_assets_tests.lakes import read_day

DAYS, CALLS, ROUNDS = (60, 500, 3) if QUICK else (365, 5_000, 7)
FIRST = date(2025, 1, 1) if not QUICK else date(2025, 2, 10)
NOW = datetime(2026, 3, 1, tzinfo=UTC)
ZONE = ZoneInfo("UTC")
PLACE = BENCH / f"reading-{DAYS}x{CALLS}"
IDS_OF_A_WEEK = 10_000_000
Connect = Callable[[], duckdb.DuckDBPyConnection]


def main() -> None:
    """Prints a JSON line for each contender and figure: seconds of each query (median of rounds), bytes."""
    queries = read_queries()
    if not (PLACE / "done").exists():
        shutil.rmtree(PLACE, ignore_errors=True)
        make_lake(PLACE / "lake")
        make_others(PLACE)
        (PLACE / "done").touch()
    contenders: dict[str, Connect] = {
        OURS: partial(duckdb.connect, str(PLACE / "lake/catalog.duckdb"), read_only=True),
        "DuckDB's own tables": partial(duckdb.connect, str(PLACE / "tables.duckdb"), read_only=True),
        "Parquet by DuckDB": partial(duckdb.connect, str(PLACE / "duckdb.duckdb"), read_only=True),
        "Parquet by pyarrow": partial(duckdb.connect, str(PLACE / "pyarrow.duckdb"), read_only=True),
    }
    seconds: dict[tuple[str, str], list[float]] = {}
    answers: dict[str, object] = {}
    for _ in range(ROUNDS + 1):
        for title, query in queries.items():
            for name, connect in contenders.items():
                taken, rows = ask(connect, query)
                seconds.setdefault((name, title), []).append(taken)
                assert answers.setdefault(title, rows) == rows, f"{name} has other rows in {title}"
    note = partial(emit, "reading", days=DAYS, calls_per_day=CALLS)
    for name in contenders:
        rounds = zip(*(values for (who, _), values in seconds.items() if who == name), strict=True)
        note(name, "seconds, all ten", [sum(taken) for taken in rounds][1:])  # the first round warms up
    for (name, title), values in seconds.items():
        note(name, f"seconds, {title}", values[1:])
    sizes = {
        OURS: [PLACE / "lake/tables", PLACE / "lake/marts"],
        "DuckDB's own tables": [PLACE / "tables.duckdb"],
        "Parquet by DuckDB": [PLACE / "duckdb"],
        "Parquet by pyarrow": [PLACE / "pyarrow"],
    }
    for name, places in sizes.items():
        note(name, "megabytes", [sum(map(size_of, places)) / 1e6])


def read_queries() -> dict[str, str]:
    """Takes the queries from docs/bi.md as they stand there."""
    page = (ROOT / "docs/bi.md").read_text(encoding="utf-8")
    found = dict(re.findall(r"^### (\d+\. .+?)\n.*?```sql\n(.*?)```", page, re.DOTALL | re.MULTILINE))
    assert len(found) == 10
    return found


def ask(connect: Connect, query: str) -> tuple[float, object]:
    """Opens, asks, closes: as a tool does that is started for it; gives seconds and the rows, rounded and ordered."""
    started = time.perf_counter()
    with connect() as connection:
        rows = connection.execute(query).fetchall()
    taken = time.perf_counter() - started
    plain = [tuple(round(value, 6) if isinstance(value, float) else value for value in row) for row in rows]
    return taken, sorted(plain, key=repr)


def size_of(place: Path) -> int:
    """Adds up a file's or a directory's bytes."""
    return sum(path.stat().st_size for path in ([place] if place.is_file() else place.rglob("*.parquet")))


def make_lake(root: Path) -> None:
    """Makes the lake: a week through the simulator and `derive`, the others by moving it, marts for every day."""
    lake = Lake.open(root)
    begin = FIRST - timedelta(days=FIRST.weekday())
    vendor = Vendor(Account(seed=3, first_day=begin - timedelta(days=1), calls_per_day=CALLS, timezone=ZONE.key))
    week = [begin + timedelta(days=offset) for offset in range(7)]
    for day in week:
        lake.land(day, read_day(vendor, day, NOW))
        publish_day(lake, day, timezone=ZONE, reread_after=(timedelta(days=7),))
    publish_agents(lake)
    first_week = {(name, day): lake.read_table(name, day) for name in DAILY_TABLES for day in week}
    days = [FIRST + timedelta(days=offset) for offset in range(DAYS)]
    for day in days:
        weeks, weekday = divmod((day - begin).days, 7)
        for name in DAILY_TABLES:
            lake.write_table(name, day, move(first_week[name, week[weekday]], weeks))
    for day in set(week) - set(days):
        for name in DAILY_TABLES:
            (root / lake.table_key(name, day)).unlink()
    publish_marts(lake, days, now=NOW, timezone=ZONE)
    write_catalog(lake)


def move(rows: pa.Table, weeks: int) -> pa.Table:
    """Moves a day's rows by weeks, and gives its calls other ids."""
    for index, column in enumerate(rows.schema):
        if pa.types.is_timestamp(column.type):
            step = pa.scalar(timedelta(weeks=weeks), pa.duration("us"))
            rows = rows.set_column(index, column, pc.add(rows[column.name], step))
        elif column.name in {"call_id", "original_call_id"}:
            rows = rows.set_column(index, column, pc.add(rows[column.name], weeks * IDS_OF_A_WEEK))
    return rows


@contextmanager
def catalog_at(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Opens a new catalogue beside the lake's."""
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"ATTACH '{PLACE}/lake/catalog.duckdb' AS lake (READ_ONLY)")
        yield connection
        rows = connection.execute(
            "SELECT sql FROM duckdb_views()"
            " WHERE database_name = 'lake' AND view_name IN ('calls_enriched', 'service_days')"
        ).fetchall()
        for (sql,) in rows:
            connection.execute(sql)


def make_others(place: Path) -> None:
    """Writes the same rows as DuckDB's own tables, and as Parquet with the defaults of DuckDB and of pyarrow."""
    with catalog_at(place / "tables.duckdb") as connection:
        for name in DATASETS:
            connection.execute(f"CREATE TABLE {name} AS FROM lake.{name}")
    with catalog_at(place / "duckdb.duckdb") as connection:
        for name, table in DATASETS.items():
            target = place / "duckdb" / name
            target.mkdir(parents=True)
            if table.is_daily:
                connection.execute(
                    f"COPY (FROM lake.{name}) TO '{target}' (FORMAT parquet, PARTITION_BY (call_date), OVERWRITE)"
                )
            else:
                connection.execute(f"COPY (FROM lake.{name}) TO '{target}/{name}.parquet' (FORMAT parquet)")
            show(connection, name, target, is_daily=table.is_daily)
    with catalog_at(place / "pyarrow.duckdb") as connection:
        for name, table in DATASETS.items():
            target = place / "pyarrow" / name
            target.mkdir(parents=True)
            for path in sorted((place / "lake" / table.tree / name).rglob("*.parquet")):
                copy = target / path.relative_to(place / "lake" / table.tree / name)
                copy.parent.mkdir(exist_ok=True)
                pq.write_table(pq.ParquetFile(path).read(), copy)
            show(connection, name, target, is_daily=table.is_daily)


def show(connection: duckdb.DuckDBPyConnection, name: str, place: Path, *, is_daily: bool) -> None:
    """Makes a view of a directory's files."""
    if not list(place.rglob("*.parquet")):  # DuckDB writes no file for no rows
        connection.execute(f"CREATE TABLE {name} AS FROM lake.{name} LIMIT 0")
        return
    columns = "* REPLACE (call_date::DATE AS call_date)" if is_daily else "*"
    source = f"read_parquet('{place}/**/*.parquet', hive_partitioning = {is_daily})"
    connection.execute(f"CREATE VIEW {name} AS SELECT {columns} FROM {source}")  # noqa: S608 - our own names


if __name__ == "__main__":
    main()
