"""Readers at work while days are replaced under them: never a part of a day, never parts of two versions.

Those that open a file once have no error either. The others plan a query with one opening and read with another: when
the file is replaced in the milliseconds between, they end with an error, and answer when asked again. Through a dataset
of pyarrow they open a file once too, and in a snapshot, whose files do not change, no reader has an error. Decision 14
has what else was tried.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest
from datafusion import SessionContext

from calls_assets.lake import DATASETS, Lake, LocalStorage
from calls_assets.lake.catalog import CATALOG_KEY
from calls_assets.read import snapshot
from calls_assets_tests.faults.counts import choose
from calls_assets_tests.lakes import DAYS, FinishedLake
from calls_assets_tests.readers.engines import ENGINES, DataFusion, Engine, Facts, PyArrow, expect
from calls_assets_tests.test_bi import RECIPES

CALLS = DATASETS["calls"]
DAY = DAYS[3]
SCHEMA = CALLS.schema.append(pa.field("call_date", pa.date32(), nullable=False))
KEY = f"tables/calls/call_date={DAY}/calls.parquet"
REPLACEMENTS = 8
Write = Callable[[Path, bytes], None]
Query = Callable[[], Facts]


@pytest.fixture(scope="module")
def versions(finished_lake: FinishedLake, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[bytes, pa.Table]]:
    """Gives two versions of a day as files: other sizes, other values in every row, other numbers of rows."""
    root = tmp_path_factory.mktemp("versions")
    lake = Lake.open(root)
    rows = finished_lake.lake.read_table("calls", DAY)
    later = rows.set_column(0, SCHEMA.field("call_id"), pc.add(rows["call_id"], 10**9))
    made = []
    for version in (rows, pa.concat_tables([later, rows.slice(0, len(rows) // 2)])):
        lake.write_table("calls", DAY, version)
        made.append(((root / KEY).read_bytes(), version))
    return made


def replace(path: Path, data: bytes) -> None:
    """Replaces a file as the lake does."""
    root = path.parents[len(Path(KEY).parts) - 1]
    LocalStorage(root).replace(KEY, data)


def overwrite(path: Path, data: bytes) -> None:
    """Does what the lake must not: writes the new version into the file."""
    with path.open("r+b") as file:
        for start in range(0, len(data), 4096):
            file.write(data[start : start + 4096])
            file.flush()
        file.truncate()


@contextmanager
def written_without_end(path: Path, versions: list[bytes], write: Write, pause: float) -> Iterator[list[int]]:
    """Writes one version after the other; gives a list that grows with each."""
    over, done = threading.Event(), [0]

    def work() -> None:
        while not over.wait(pause):
            write(path, versions[len(done) % len(versions)])
            done.append(len(done))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()


@dataclass
class Seen:
    """What a reader saw: rows of the versions it read whole, answers that are no version, errors.

    Attributes:
        is_right_afterwards: Whether it gives the last version, asked once more when nothing is written any longer.
    """

    whole: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    is_right_afterwards: bool = False


def ask_once(query: Query) -> Facts:
    """Asks, and takes an error as it is."""
    return query()


def read_under_writes(
    root: Path,
    versions: list[tuple[bytes, pa.Table]],
    engine: Engine,
    write: Write,
    *,
    rounds: int,
    pause: float = 0,
    ask: Callable[[Query], Facts] = ask_once,
    look: Callable[[Path], AbstractContextManager[Path]] = nullcontext,
    needs_all: bool = False,
) -> Seen:
    """Reads a day so many times while it is written, and until it was written, and each version seen, often enough."""
    (root / KEY).parent.mkdir(parents=True)
    (root / KEY).write_bytes(versions[0][0])
    wanted = [expect(SCHEMA, [row | {"call_date": DAY} for row in table.to_pylist()], engine) for _, table in versions]
    assert engine.describe(root, CALLS, DAY) == wanted[0]
    seen = Seen()
    with written_without_end(root / KEY, [data for data, _ in versions], write, pause) as done:
        while (
            (rounds := rounds - 1) >= 0
            or len(done) < REPLACEMENTS
            or (needs_all and not seen.wrong and not seen.errors and len({*seen.whole}) < len(wanted))
        ):
            try:
                with look(root) as place:
                    facts = ask(partial(engine.describe, place, CALLS, DAY))
            except BaseException as problem:  # noqa: BLE001 - each reader has its own, Polars' is no Exception
                seen.errors.append(f"{type(problem).__name__}: {str(problem)[:200]}")
            else:
                if facts in wanted:
                    seen.whole.append(facts.rows)
                else:
                    seen.wrong.append(f"{facts.rows} rows that are no version of the day")
    seen.is_right_afterwards = engine.describe(root, CALLS, DAY) == wanted[done[-1] % len(wanted)]
    return seen


def rounds_of(engine: Engine) -> int:
    """Tells how often a reader looks at least."""
    return choose(3, 6) if engine.name == "Spark" else choose(12, 40)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_no_reader_sees_a_part_of_a_day(tmp_path: Path, versions: list[tuple[bytes, pa.Table]], engine: Engine) -> None:
    """While it is replaced without a pause; readers that open a file once have no error either."""
    root, rounds = tmp_path / "data", rounds_of(engine)
    seen = read_under_writes(root, versions, engine, replace, rounds=rounds, needs_all=engine.opens_once)
    assert seen.wrong == []
    assert seen.is_right_afterwards
    if engine.opens_once:
        assert seen.errors == []
        assert len(set(seen.whole)) == len(versions), "only one version was seen: the test proves nothing"


@pytest.mark.parametrize(
    "engine", [engine for engine in ENGINES if not engine.opens_once], ids=lambda engine: engine.name
)
def test_to_ask_again_is_enough(tmp_path: Path, versions: list[tuple[bytes, pa.Table]], engine: Engine) -> None:
    """For the readers that open a file twice, as docs/bi.md asks, here with four replacements a second: none fails.

    Not so Spark's, whose queries take so long that a replacement falls into each of them.
    """
    names: dict[str, Any] = {}
    exec(compile(RECIPES["Asking again"], "docs/bi.md", "exec"), names)  # noqa: S102 - our page
    times = 2 if engine.name == "Spark" else 100  # on a busy machine queries take as long as the pause
    ask = partial(names["ask"], times=times)
    root, rounds = tmp_path / "data", rounds_of(engine)
    seen = read_under_writes(root, versions, engine, replace, rounds=rounds, pause=0.25, ask=ask)
    assert seen.wrong == []
    assert seen.is_right_afterwards
    assert seen.errors == [] or engine.name == "Spark"


def take(root: Path) -> AbstractContextManager[Path]:
    """Takes a snapshot."""
    return snapshot("calls", data_dir=root)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_in_a_snapshot_no_query_fails(tmp_path: Path, versions: list[tuple[bytes, pa.Table]], engine: Engine) -> None:
    """While the day is replaced without a pause: each answer is one of the versions, and both are seen."""
    root, rounds = tmp_path / "data", rounds_of(engine)
    seen = read_under_writes(root, versions, engine, replace, rounds=rounds, look=take, needs_all=True)
    assert seen.errors == []
    assert seen.wrong == []
    assert seen.is_right_afterwards
    assert list((tmp_path / "data/.snapshots").iterdir()) == []


def test_a_snapshot_that_follows_its_files_is_noticed(
    tmp_path: Path, versions: list[tuple[bytes, pa.Table]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin: with symbolic links, which show what has replaced a file, the same reading has errors."""
    monkeypatch.setattr(os, "link", os.symlink)
    for number in range(80):  # on a busy machine the moment may be missed
        root = tmp_path / str(number) / "data"
        seen = read_under_writes(root, versions, DataFusion(), replace, rounds=10, look=take)
        if any(not error.startswith("LakeError") for error in [*seen.errors, *seen.wrong]):
            return
    pytest.fail("nothing was noticed")


QUERY = f"SELECT count(*) AS calls, sum(call_id) AS ids FROM calls WHERE call_date = DATE '{DAY}'"  # noqa: S608 - ours


def through_duckdb(calls: ds.Dataset) -> tuple[int, int]:
    """DuckDB over a dataset of pyarrow."""
    with duckdb.connect() as connection:
        connection.register("calls", calls)
        (row,) = connection.sql(QUERY).fetchall()
        return row[0], int(row[1])


def through_polars(calls: ds.Dataset) -> tuple[int, int]:
    """Polars over a dataset of pyarrow."""
    rows = pl.scan_pyarrow_dataset(calls).filter(pl.col("call_date") == DAY)
    count, ids = rows.select(pl.len(), pl.col("call_id").sum()).collect().row(0)
    return count, ids


def through_datafusion(calls: ds.Dataset) -> tuple[int, int]:
    """DataFusion over a dataset of pyarrow."""
    context = SessionContext()
    context.register_dataset("calls", calls)
    (row,) = context.sql(QUERY).to_arrow_table().to_pylist()
    return row["calls"], row["ids"]


@pytest.mark.parametrize("ask", [through_duckdb, through_polars, through_datafusion])
def test_through_a_dataset_of_pyarrow_no_query_fails(
    tmp_path: Path, versions: list[tuple[bytes, pa.Table]], ask: Callable[[ds.Dataset], tuple[int, int]]
) -> None:
    """While the day is replaced without a pause: each answer is one of the versions, and both are seen."""
    path = tmp_path / "data" / KEY
    path.parent.mkdir(parents=True)
    path.write_bytes(versions[0][0])
    days = ds.partitioning(pa.schema([("call_date", pa.date32())]), flavor="hive")
    wanted = {(len(table), pc.sum(table["call_id"]).as_py()) for _, table in versions}
    seen: set[tuple[int, int]] = set()
    rounds = 0
    with written_without_end(path, [data for data, _ in versions], replace, 0) as done:
        while rounds < choose(12, 40) or len(done) < REPLACEMENTS or len(seen) < len(wanted):
            seen.add(ask(ds.dataset(tmp_path / "data/tables/calls", partitioning=days)))
            rounds += 1
    assert seen == wanted


def test_through_the_catalogue_of_a_snapshot_no_query_fails(
    tmp_path: Path, versions: list[tuple[bytes, pa.Table]]
) -> None:
    """DuckDB, as people use it."""
    path = tmp_path / "data" / KEY
    path.parent.mkdir(parents=True)
    path.write_bytes(versions[0][0])
    wanted = {(len(table), pc.sum(table["call_id"]).as_py()) for _, table in versions}
    seen: set[tuple[int, int]] = set()
    rounds = 0
    with written_without_end(path, [data for data, _ in versions], replace, 0) as done:
        while rounds < choose(12, 40) or len(done) < REPLACEMENTS or len(seen) < len(wanted):
            with take(tmp_path / "data") as place, duckdb.connect(str(place / CATALOG_KEY), read_only=True) as catalog:
                (row,) = catalog.sql(QUERY).fetchall()
            seen.add((row[0], int(row[1])))
            rounds += 1
    assert seen == wanted


def test_a_writer_that_overwrites_is_noticed(tmp_path: Path, versions: list[tuple[bytes, pa.Table]]) -> None:
    """The twin: the same reading finds fault with a file that is written in place."""
    for number in range(20):
        seen = read_under_writes(tmp_path / str(number) / "data", versions, PyArrow(), overwrite, rounds=5)
        if seen.wrong or seen.errors:
            return
    pytest.fail("nothing was noticed")
