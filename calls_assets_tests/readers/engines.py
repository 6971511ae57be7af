"""Seven readers that know nothing of this project, each asked the same of a table: types, counts, sums, extremes.

Each is pointed at the files as its own documentation does it; nothing of `calls_assets` is in between. What they answer
is brought into one form (`Facts`) so that it can be compared.
"""

from __future__ import annotations

import atexit
import functools
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from datafusion import SessionContext

from calls_assets.lake.schemas import Table

KINDS = {
    "whole": r"BIGINT|HUGEINT|bigint|Int64|int64",
    "real": r"DOUBLE|double|Float64",
    "text": r"VARCHAR|string|String|large_string|string_view|str",
    "flag": r"BOOLEAN|boolean|Bool(ean)?|bool",
    "instant": r"TIMESTAMP WITH TIME ZONE|timestamp|DateTime64\(6, 'UTC'\)|Datetime\(.*'UTC'\)|timestamp\[us, tz=UTC\]",
    "wall clock": r"TIMESTAMP|timestamp_ntz|DateTime64\(6\)|Datetime\(.*None\)|timestamp\[us\]",
    "day": r"DATE|date|Date(32)?|date32\[day\]",
    "wholes": r"BIGINT\[\]|array<bigint>|Array\(Int64\)|List\(Int64\)|(large_)?list(_view)?<.*int64>",
    "texts": r"VARCHAR\[\]|array<string>|Array\(String\)|List\(String\)|(large_)?list(_view)?<.*string(_view)?>",
}


def kind_of(type_name: str) -> str:
    """Gives the kind of a type from the name that a reader has for it, NULLs allowed or not."""
    bare = re.sub(r"Nullable\(((?:[^()]|\([^()]*\))*)\)|( not null)", r"\1", type_name)
    return next((kind for kind, pattern in KINDS.items() if re.fullmatch(pattern, bare)), f"unknown: {type_name}")


@dataclass(frozen=True)
class Column:
    """What a reader says of a column.

    Attributes:
        kind: One of `KINDS`.
        nulls: How many values are NULL.
        total: Sum of numbers, count of true flags, sum of the lists' lengths; None for other kinds.
        low: Least number, text, instant (in microseconds) or wall clock; None for other kinds.
        high: The greatest one.
    """

    kind: str
    nulls: int
    total: float | None
    low: object
    high: object


@dataclass(frozen=True)
class Facts:
    """What a reader says of a table."""

    rows: int
    columns: dict[str, Column]


def newest_schema(root: Path, table: Table) -> pa.Schema:
    """Reads the schema of a table's last file: the one with all columns, where older files have fewer."""
    *_, newest = sorted((root / table.tree / table.name).glob("**/*.parquet"))
    schema = pq.read_schema(newest)
    return schema.append(pa.field("call_date", pa.date32())) if table.is_daily else schema


def plain(value: object) -> Any:  # noqa: ANN401 - whatever a reader has, in one form
    """Brings instants to microseconds, wall clocks and days to text, floats to ten digits."""
    if isinstance(value, pd.Timestamp):
        value = value.to_pydatetime(warn=False)
    if isinstance(value, datetime):
        return round(value.timestamp() * 1e6) if value.tzinfo else value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float):
        return float(f"{value:.10g}")
    if isinstance(value, bytes):
        return value.decode()
    return value


class Engine(ABC):
    """A reader.

    Attributes:
        name: Its name.
        knows_null_lists: Whether a list can be NULL for it; where not, such a list is an empty one.
        knows_wall_clocks: Whether it tells a wall clock from an instant; where not, it is one in UTC.
        opens_once: Whether it plans and reads with one opening of a file; where not, a file that is replaced between
            the two is an error, and the query has to be repeated.
    """

    name: ClassVar[str]
    knows_null_lists: ClassVar[bool] = True
    knows_wall_clocks: ClassVar[bool] = True
    opens_once: ClassVar[bool] = False

    @abstractmethod
    def describe(self, root: Path, table: Table, day: date | None = None) -> Facts:
        """Reads a table, or one day of it, with all of its columns."""


def _aggregates(kind: str, value: str, length: str) -> tuple[str, str, str]:
    """Gives SQL for a column's total, least and greatest value."""
    if kind in {"whole", "real"}:
        return f"sum({value})", f"min({value})", f"max({value})"
    if kind == "flag":
        return f"sum(CASE WHEN {value} THEN 1 ELSE 0 END)", "NULL", "NULL"
    if kind in {"wholes", "texts"}:
        return f"coalesce(sum({length.format(value)}), 0)", "NULL", "NULL"
    return "NULL", f"min({value})", f"max({value})"


class SqlEngine(Engine):
    """A reader that is asked in SQL."""

    quote: ClassVar[str] = '"'
    length: ClassVar[str]

    @abstractmethod
    def query(self, root: Path, table: Table, sql: str) -> list[dict[str, Any]]:
        """Runs a query; `{source}` stands for the table."""

    @abstractmethod
    def types(self, root: Path, table: Table) -> dict[str, str]:
        """Gives the names of the columns' types."""

    def describe(self, root: Path, table: Table, day: date | None = None) -> Facts:
        """Asks all in one query."""
        kinds = {name: kind_of(type_) for name, type_ in self.types(root, table).items()}
        selected = ["count(*) AS n"]
        for index, (name, kind) in enumerate(kinds.items()):
            value = f"{self.quote}{name}{self.quote}"
            total, low, high = _aggregates(kind, value, self.length)
            selected += [f"count({value}) AS c{index}"]
            selected += [
                f"{sql} AS {as_}{index}" for sql, as_ in ((total, "t"), (low, "l"), (high, "h")) if sql != "NULL"
            ]
        where = "" if day is None else f" WHERE call_date = DATE '{day}'"
        (row,) = self.query(root, table, f"SELECT {', '.join(selected)} FROM {{source}}{where}")  # noqa: S608 - our names
        row = {name: plain(value) for name, value in row.items()}
        columns = {
            name: Column(kind, row["n"] - row[f"c{i}"], *(row.get(f"{letter}{i}") for letter in "tlh"))
            for i, (name, kind) in enumerate(kinds.items())
        }
        return Facts(row["n"], columns)


class DuckDB(SqlEngine):
    """DuckDB."""

    name = "DuckDB"
    length = "len({})"

    def _source(self, root: Path, table: Table) -> str:
        if not table.is_daily:
            return f"read_parquet('{root}/{table.tree}/{table.name}/{table.name}.parquet')"
        return (
            f"read_parquet('{root}/{table.tree}/{table.name}/*/*.parquet', union_by_name = true,"
            " hive_partitioning = true, hive_types = {'call_date': DATE})"
        )

    def query(self, root: Path, table: Table, sql: str) -> list[dict[str, Any]]:
        """In memory."""
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            rows: list[dict[str, Any]] = (
                connection.sql(sql.format(source=self._source(root, table))).to_arrow_table().to_pylist()
            )
            return rows

    def types(self, root: Path, table: Table) -> dict[str, str]:
        """As DESCRIBE has them."""
        with duckdb.connect() as connection:
            described = connection.sql(f"DESCRIBE SELECT * FROM {self._source(root, table)}").fetchall()  # noqa: S608
            return {name: type_ for name, type_, *_ in described}


class Spark(SqlEngine):
    """Apache Spark, one for all tests: it takes seconds to start."""

    name = "Spark"
    quote = "`"
    length = "array_size({})"

    @staticmethod
    @functools.cache
    def session() -> Any:  # noqa: ANN401 - installed for the tests of readers only
        """Starts it, on one core and with nothing but the loopback address."""
        from pyspark.sql import SparkSession

        builder: Any = SparkSession.builder
        for key, value in {
            # In a short life, to compile everything a second time costs more than it saves.
            "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
            "spark.ui.enabled": "false",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.shuffle.partitions": "1",
            "spark.sql.sources.parallelPartitionDiscovery.threshold": "1000",
            "spark.sql.files.openCostInBytes": "0",
            "spark.log.level": "OFF",
        }.items():
            builder = builder.config(key, value)
        session = builder.master("local[1]").getOrCreate()
        atexit.register(session.stop)
        return session

    def query(self, root: Path, table: Table, sql: str) -> list[dict[str, Any]]:
        """Over the view that `types` made."""
        rows: list[dict[str, Any]] = self.session().sql(sql.format(source="source")).toArrow().to_pylist()
        return rows

    def types(self, root: Path, table: Table) -> dict[str, str]:
        """As the frame's schema has them."""
        frame = self.session().read.option("mergeSchema", "true").parquet(f"{root}/{table.tree}/{table.name}")
        frame.createOrReplaceTempView("source")
        return dict(frame.dtypes)


class ClickHouse(SqlEngine):
    """ClickHouse, inside this process (chdb)."""

    name = "ClickHouse"
    opens_once = True
    length = "length({})"
    knows_null_lists = False
    knows_wall_clocks = False

    def _source(self, root: Path, table: Table) -> str:
        place = f"{root}/{table.tree}/{table.name}/{'*/' if table.is_daily else ''}{table.name}.parquet"
        return f"file('{place}', Parquet)"

    def _run(self, sql: str) -> list[dict[str, Any]]:
        import chdb

        settings = (
            "SETTINGS use_hive_partitioning = 1, schema_inference_mode = 'union', session_timezone = 'UTC',"
            " aggregate_functions_null_for_empty = 1"
        )
        rows: list[dict[str, Any]] = chdb.query(f"{sql} {settings}", "ArrowTable").to_pylist()
        return rows

    def query(self, root: Path, table: Table, sql: str) -> list[dict[str, Any]]:
        """Over the files."""
        return self._run(sql.format(source=self._source(root, table)))

    def types(self, root: Path, table: Table) -> dict[str, str]:
        """As DESCRIBE has them."""
        return {
            str(plain(row["name"])): str(plain(row["type"]))
            for row in self._run(f"DESCRIBE {self._source(root, table)}")
        }


class DataFusion(SqlEngine):
    """Apache DataFusion."""

    name = "DataFusion"
    length = "cardinality({})"

    def _context(self, root: Path, table: Table) -> SessionContext:
        context = SessionContext()
        days = [("call_date", pa.date32())] if table.is_daily else []
        context.register_parquet("source", f"{root}/{table.tree}/{table.name}/", table_partition_cols=days)
        return context

    def query(self, root: Path, table: Table, sql: str) -> list[dict[str, Any]]:
        """Over the directory."""
        rows: list[dict[str, Any]] = (
            self._context(root, table).sql(sql.format(source="source")).to_arrow_table().to_pylist()
        )
        return rows

    def types(self, root: Path, table: Table) -> dict[str, str]:
        """As the frame's schema has them."""
        return {field.name: str(field.type) for field in self._context(root, table).table("source").schema()}


class PyArrow(Engine):
    """Datasets of pyarrow."""

    name = "pyarrow"
    opens_once = True

    def describe(self, root: Path, table: Table, day: date | None = None) -> Facts:
        """Computes over one table in memory."""
        days = ds.partitioning(pa.schema([("call_date", pa.date32())]), flavor="hive")
        place, schema = root / table.tree / table.name, newest_schema(root, table)
        files = ds.dataset(place, schema=schema, partitioning=days if table.is_daily else None)
        rows = files.to_table(filter=None if day is None else ds.field("call_date") == day)
        return Facts(len(rows), {field.name: self._column(field, rows[field.name]) for field in rows.schema})

    def _column(self, field: pa.Field, values: pa.ChunkedArray) -> Column:
        kind = kind_of(str(field.type))
        total = low = high = None
        if kind in {"whole", "real"}:
            total = pc.sum(values).as_py()
        elif kind == "flag":
            total = pc.sum(values).as_py() or 0
        elif kind in {"wholes", "texts"}:
            total = pc.sum(pc.list_value_length(values)).as_py() or 0
        if kind not in {"flag", "wholes", "texts"}:
            extremes = pc.min_max(values)
            low, high = extremes["min"].as_py(), extremes["max"].as_py()
        return Column(kind, values.null_count, plain(total), plain(low), plain(high))


class Pandas(Engine):
    """pandas, with Arrow's types."""

    name = "pandas"
    opens_once = True

    def describe(self, root: Path, table: Table, day: date | None = None) -> Facts:
        """Computes over one frame."""
        path, schema = root / table.tree / table.name, newest_schema(root, table)
        filters = None if day is None else [("call_date", "=", day)]
        frame = pd.read_parquet(path, dtype_backend="pyarrow", schema=schema, filters=filters)
        return Facts(len(frame), {str(name): self._column(frame[name]) for name in frame.columns})

    def _column(self, values: pd.Series[Any]) -> Column:
        kind = kind_of(str(values.dtype.pyarrow_dtype))  # type: ignore[union-attr]
        total = low = high = None
        known = values.dropna()
        if kind in {"whole", "real"}:
            total = known.sum() if len(known) else None
        elif kind == "flag":
            total = int(known.sum())
        elif kind in {"wholes", "texts"}:
            total = sum(map(len, known))
        if kind not in {"flag", "wholes", "texts"} and len(known):
            low, high = known.min(), known.max()
        return Column(kind, int(values.isna().sum()), plain(total), plain(low), plain(high))


class Polars(Engine):
    """Polars, lazily."""

    name = "Polars"

    def describe(self, root: Path, table: Table, day: date | None = None) -> Facts:
        """Asks all in one query."""
        path = f"{root}/{table.tree}/{table.name}/"
        schema = pl.Schema(newest_schema(root, table))
        schema.pop("call_date", None)
        frame = pl.scan_parquet(
            path, schema=schema, missing_columns="insert", hive_partitioning=table.is_daily, try_parse_hive_dates=True
        )
        kinds = {name: kind_of(str(type_)) for name, type_ in frame.collect_schema().items()}
        if day is not None:
            frame = frame.filter(pl.col("call_date") == day)
        row = {name: plain(v) for name, v in frame.select(*self._ask(kinds)).collect().row(0, named=True).items()}
        columns = {
            name: Column(kind, row[f"{name}:null"], *(row.get(f"{name}:{what}") for what in ("total", "low", "high")))
            for name, kind in kinds.items()
        }
        return Facts(row["n"], columns)

    def _ask(self, kinds: dict[str, str]) -> Iterable[pl.Expr]:
        yield pl.len().alias("n")
        for name, kind in kinds.items():
            column = pl.col(name)
            yield column.null_count().alias(f"{name}:null")
            if kind in {"whole", "real"}:
                # The sum of no value is 0 for Polars, NULL for SQL.
                yield pl.when(column.count() > 0).then(column.sum()).alias(f"{name}:total")
            elif kind == "flag":
                yield column.sum().alias(f"{name}:total")
            elif kind in {"wholes", "texts"}:
                yield column.list.len().sum().alias(f"{name}:total")
            if kind not in {"flag", "wholes", "texts"}:
                yield column.min().alias(f"{name}:low")
                yield column.max().alias(f"{name}:high")


ENGINES: list[Engine] = [DuckDB(), PyArrow(), Pandas(), Polars(), DataFusion(), ClickHouse(), Spark()]


def expect(schema: pa.Schema, rows: Iterable[dict[str, Any]], engine: Engine) -> Facts:
    """Computes what a reader should say in plain Python, from rows that have no reader in between."""
    listed = list(rows)
    columns = {}
    for field in schema:
        kind = kind_of(str(field.type))
        values = [row[field.name] for row in listed]
        known = [value for value in values if value is not None]
        nulls = len(values) - len(known)
        if kind == "wall clock" and not engine.knows_wall_clocks:
            kind, known = "instant", [value.replace(tzinfo=UTC) for value in known]
        total = low = high = None
        if kind in {"whole", "real"}:
            total = sum(known) if known else None
        elif kind == "flag":
            total = sum(known)
        elif kind in {"wholes", "texts"}:
            total = sum(map(len, known))
            nulls = nulls if engine.knows_null_lists else 0
        if kind not in {"flag", "wholes", "texts"} and known:
            low, high = min(known), max(known)
        columns[field.name] = Column(kind, nulls, plain(total), plain(low), plain(high))
    return Facts(len(listed), columns)
