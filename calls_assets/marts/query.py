"""Queries: runs a mart's SQL over tables in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from calls_assets.collector import spare_more
from calls_assets.lake import MARTS

if TYPE_CHECKING:
    import duckdb


@contextmanager
def connect() -> Iterator[duckdb.DuckDBPyConnection]:
    """Opens a database in memory for some marts."""
    spare_more()
    import duckdb  # noqa: PLC0415 - a run that makes no mart need not load it

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def run_mart(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    tables: Mapping[str, pa.Table],
    parameters: Mapping[str, Any] | None = None,
) -> pa.Table:
    """Makes the rows of a mart.

    Args:
        connection: From `connect`.
        name: The mart, also of its SQL file.
        tables: The relations its SQL reads, by name.
        parameters: Values of the `$names` in its SQL.

    Returns:
        The mart's columns and `call_date` where the SQL gives it, in the registry's order of rows.
    """
    sql = files(__package__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
    for relation, table in tables.items():
        connection.register(relation, table)
    rows: pa.Table = connection.sql(sql, params=dict(parameters or {})).to_arrow_table()
    for relation in tables:
        connection.unregister(relation)
    mart = MARTS[name]
    columns = [*(["call_date"] if "call_date" in rows.column_names else []), *mart.schema.names]
    return rows.select(columns).sort_by([(column, "ascending") for column in mart.sort_by])
