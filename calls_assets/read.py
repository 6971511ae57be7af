"""Readers: tables and marts of the lake as data frames, for notebooks and scripts.

    from calls_assets.read import read_table
    calls = read_table("calls", "2025-05-01", "2025-05-31", columns=["call_id", "is_answered", "call_date"])

What belongs here: choosing days and columns, and the kind of frame. What stays out: paths and files (`lake`).
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from os import fspath
from typing import TYPE_CHECKING, Any, Literal, overload

import pandas as pd
import pyarrow as pa

from calls_assets.lake import DATASETS, Lake, LakeError, open_storage
from calls_assets.settings import Location, Settings, parse_location

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
    lake = _open(parse_location("data_dir", fspath(data_dir)) if data_dir is not None else Settings.from_env().data_dir)
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


def _open(location: Location) -> Lake:
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
