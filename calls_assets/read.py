"""Readers: tables and marts of the lake as data frames, for notebooks and scripts.

    from calls_assets.read import read_table
    calls = read_table("calls", "2025-05-01", "2025-05-31", columns=["call_id", "is_answered", "call_date"])

and, for other tools, as a directory that does not change while they read it:

    with snapshot("calls", "2025-05-01", "2025-05-31") as directory:
        calls = polars.read_parquet(directory / "tables/calls")

What belongs here: choosing days and columns, and the kind of frame. What stays out: paths and files (`lake`).
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from functools import partial
from os import fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import pandas as pd
import pyarrow as pa

from calls_assets.lake import DATASETS, Lake, LakeError, open_storage
from calls_assets.lake.snapshot import temporary_snapshot
from calls_assets.settings import Settings, parse_location

if TYPE_CHECKING:
    from os import PathLike

_CALL_DATE = pa.field("call_date", pa.date32(), nullable=False)
_THREADS = 4


@overload
def read_table(
    name: str,
    start: date | str | None = ...,
    end: date | str | None = ...,
    *,
    columns: Sequence[str] | None = ...,
    format: Literal["pandas"] = ...,
    data_dir: str | PathLike[str] | None = ...,
) -> pd.DataFrame: ...
@overload
def read_table(
    name: str,
    start: date | str | None = ...,
    end: date | str | None = ...,
    *,
    columns: Sequence[str] | None = ...,
    format: Literal["pyarrow", "polars"],
    data_dir: str | PathLike[str] | None = ...,
) -> Any: ...  # noqa: ANN401 - pyarrow ships no types, polars is optional
def read_table(
    name: str,
    start: date | str | None = None,
    end: date | str | None = None,
    *,
    columns: Sequence[str] | None = None,
    format: Literal["pandas", "pyarrow", "polars"] = "pandas",  # noqa: A002 - the word readers look for
    data_dir: str | PathLike[str] | None = None,
) -> Any:
    """Reads days of a table or mart. Only the files of these days are opened, and only these columns decoded.

    Args:
        name: A table or mart of the data dictionary, for example `calls` or `service_intervals`.
        start: First day, as a date or `YYYY-MM-DD`; from the first stored day on when None.
        end: Last day, included; to the last stored day when None.
        columns: The columns, in this order; when None all of them, for daily tables with `call_date` as the last.
        format: `pandas` (Arrow-backed types), `pyarrow` (a table), or `polars` where that is installed.
        data_dir: The lake's directory, or its address such as `s3://bucket/prefix`; `CALLS_DATA_DIR` when None.

    Returns:
        The rows by day, each day in the order of its file; no rows but all columns and types when no day is stored.

    Raises:
        ValueError: There is no such table, column, format or day.
        LakeError: There is no lake, it cannot be reached, or a file is damaged.
        ImportError: polars is asked for and not installed.
    """
    _check(format, ("pandas", "pyarrow", "polars"), "format")
    _check(name, DATASETS, "table or mart")
    table = DATASETS[name]
    schema = table.schema.append(_CALL_DATE) if table.is_daily else table.schema
    for column in columns or ():
        _check(column, schema.names, f"column of {name}")
    chosen = pa.schema([schema.field(column) for column in (schema.names if columns is None else columns)])
    lake = _open(data_dir)
    if table.is_daily:
        first, last = _to_day(start, date.min), _to_day(end, date.max)
        days: list[date | None] = [day for day in lake.table_days(name) if first <= day <= last]
    elif start is not None or end is not None:
        raise ValueError(f"{name} is not daily: read it without start and end")
    else:
        days = [None] if lake.list_files(f"{table.tree}/{name}/") else []
    with ThreadPoolExecutor(_THREADS) as pool:
        parts = list(pool.map(partial(_read_file, lake, name, columns=chosen.names), days))
    # With the first, empty part a column that was added after a file was written is there, and NULL.
    rows = pa.concat_tables([chosen.empty_table(), *parts], promote_options="default")
    if format == "pyarrow":
        return rows
    if format == "polars":
        return _import_polars().from_arrow(rows)
    return rows.to_pandas(types_mapper=pd.ArrowDtype)


@contextmanager
def snapshot(
    names: str | Sequence[str] | None = None,
    start: date | str | None = None,
    end: date | str | None = None,
    *,
    directory: str | PathLike[str] | None = None,
    data_dir: str | PathLike[str] | None = None,
) -> Iterator[Path]:
    """Gives a directory that looks like the lake and does not change while days are replaced: for any tool, by path.

    It has `tables/`, `marts/` and a `catalog.duckdb` whose views read its files. These are hard links, so nothing is
    copied and nobody may write to them; where links cannot be made, they are copies. Each file is whole and of one
    version; one that goes while the snapshot is taken is left out. On leaving, the directory is removed; when the
    process was killed, the next snapshot in the same place does so.

    Args:
        names: Tables and marts of the data dictionary; all of them when None.
        start: First day, as for `read_table`. Tables that are not daily are taken whole.
        end: Last day, included.
        directory: Where to make it, readable for this user alone; when None in `.snapshots` of the lake's directory,
            or, where that cannot be written or the lake is in an object store, where temporary files are.
        data_dir: As for `read_table`.

    Raises:
        ValueError: There is no such table or day.
        LakeError: There is no lake, it cannot be reached, a file is damaged, or the directory cannot be written.
    """
    chosen = [names] if isinstance(names, str) else list(DATASETS if names is None else names)
    for name in chosen:
        _check(name, DATASETS, "table or mart")
    first, last = _to_day(start, date.min), _to_day(end, date.max)
    place = None if directory is None else Path(directory)
    with temporary_snapshot(_open(data_dir), chosen, first, last, place=place) as path:
        yield path


def _open(data_dir: str | PathLike[str] | None) -> Lake:
    location = parse_location("data_dir", fspath(data_dir)) if data_dir is not None else Settings.from_env().data_dir
    lake = Lake(open_storage(location, is_writable=False))
    if not lake.has_files():
        raise LakeError(f"there is no lake in {location}: name its directory or address in data_dir or CALLS_DATA_DIR")
    return lake


def _read_file(lake: Lake, name: str, day: date | None, *, columns: Sequence[str]) -> pa.Table:
    rows = lake.read_columns(name, day, [column for column in columns if column != _CALL_DATE.name])
    if _CALL_DATE.name in columns:
        rows = rows.append_column(_CALL_DATE, pa.repeat(pa.scalar(day, _CALL_DATE.type), len(rows)))
    return rows


def _to_day(day: date | str | None, default: date) -> date:
    try:
        return default if day is None else date.fromisoformat(str(day)[:10])
    except ValueError:
        raise ValueError(f"{day!r} is no day: give a date or a text such as '2025-05-31'") from None


def _check(word: str, known: Collection[str], kind: str) -> None:
    if word not in known:
        near = difflib.get_close_matches(str(word), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise ValueError(f"{word!r} is no {kind}: {hint}")


def _import_polars() -> Any:  # noqa: ANN401 - optional, so without types
    try:
        return importlib.import_module("polars")
    except ImportError:
        raise ImportError("format='polars' needs polars: pip install polars") from None
