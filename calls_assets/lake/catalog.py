"""The catalogue: one DuckDB file with a view for every table and mart, for SQL tools.

What belongs here: the views and their comments. What stays out: data. The file holds no rows: views read the lake's
Parquet files when they are queried, and only those of the days asked for. It is made apart and put in place in one
step, so that tools may have it open (read-only) all the time.

DuckDB looks at files when it makes a view. For a lake in an object store it is shown samples instead: empty files with
the columns of each table's newest day. So neither an extension for the store nor a look at every day is needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from calls_assets.lake.errors import LakeError
from calls_assets.lake.lake import Lake
from calls_assets.lake.mart_schemas import DATASETS, SERVICE_INTERVALS
from calls_assets.lake.recipe import make_recipe
from calls_assets.lake.schemas import Table, describe
from calls_assets.lake.storage import LocalStorage, StoredFile

if TYPE_CHECKING:
    import duckdb

CATALOG_KEY = "catalog.duckdb"
_MADE_OF = "catalog"
_OLDEST_READER = "v1.0.0"  # the file format that DuckDB reads from this version on
_CALL_DATE = "Day of the call's start in CALLS_TIMEZONE: give it in every query, then only those days' files are read."

_CALLS_ENRICHED = """
SELECT
    calls.*,
    CASE WHEN is_inbound THEN 'inbound' WHEN NOT is_inbound THEN 'outbound' END AS direction,
    CASE
        WHEN is_ended IS NOT TRUE THEN 'under way'
        WHEN is_answered THEN 'answered'
        WHEN is_inbound AND requested_callback THEN 'callback'
        ELSE 'unanswered'
    END AS outcome,
    hour(started_at_local) AS hour_local,
    isodow(started_at_local) AS weekday_local,
    time_bucket(INTERVAL 30 MINUTE, started_at_local) AS interval_start_local,
    agents.alias AS answered_agent_alias,
    dispositions.note AS disposition_note
FROM calls
LEFT JOIN agents ON calls.answered_agent_id = agents.agent_id
LEFT JOIN dispositions ON calls.call_id = dispositions.call_id AND calls.call_date = dispositions.call_date
"""
_ENRICHED_COLUMNS = {
    "direction": "inbound or outbound, from is_inbound.",
    "outcome": "under way, answered, callback (inbound, not answered, asked to be called back) or unanswered.",
    "hour_local": "Hour of the start in CALLS_TIMEZONE, 0 to 23.",
    "weekday_local": "Weekday of the start in CALLS_TIMEZONE: 1 Monday to 7 Sunday.",
    "interval_start_local": "Half hour of the start, as wall clock in CALLS_TIMEZONE.",
    "answered_agent_alias": "Display name, as seen last, of the first agent who answered.",
    "disposition_note": "What the agent wrote with the disposition.",
}


@dataclass(frozen=True, slots=True)
class _Place:
    """How views name the lake's files, and how DuckDB gets to see them while the views are made.

    Attributes:
        locate: From the path in the lake to the one in the view.
        samples: Empty files to be shown instead of the lake's; None shows the lake's.
    """

    locate: Callable[[str], str]
    samples: Any = None


def write_catalog(lake: Lake, *, relative: bool = False, unless_current: bool = False) -> list[str]:
    """Writes the catalogue for the files that are there now.

    Args:
        lake: The lake.
        relative: Name files by their path below the data directory, for lakes that are seen under different paths;
            tools then have to run in that directory, or `SET file_search_path`. Else absolute paths are written.
            Files in an object store are always named by their addresses.
        unless_current: Leave it as it is when it was made in the same way and its views would be the same.

    Returns:
        The names of its views.

    Raises:
        LakeError: A file in the lake is damaged, or the catalogue cannot be written.
    """
    recipe = _make_recipe(lake, relative=relative) if unless_current else ""
    if recipe:
        made_of = lake.read_made_of(_MADE_OF)
        if made_of.get("recipe") == recipe and made_of.get("content") == _hash_catalog(lake):
            return list(made_of["views"])
    import duckdb  # noqa: PLC0415 - a run that leaves the catalogue as it is need not load it

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / CATALOG_KEY
        try:
            names = make_catalog(lake, path, relative=relative)
            lake.storage.replace(CATALOG_KEY, path.read_bytes())
            if recipe:
                held = {"recipe": recipe, "content": _hash_catalog(lake), "views": names}
                lake.write_made_of(_MADE_OF, held)
        except (duckdb.Error, OSError) as problem:
            reason = str(problem).partition("\n")[0]
            raise LakeError(f"cannot make {CATALOG_KEY}: {reason}; the one that is there is unchanged") from None
    return names


def make_catalog(lake: Lake, path: Path, tables: Collection[str] = DATASETS, *, relative: bool = False) -> list[str]:
    """Makes the catalogue of some tables and marts as a new file.

    Args:
        lake: The lake.
        path: The file.
        tables: The tables and marts; views that join others are left out.
        relative: As for `write_catalog`.

    Returns:
        The names of its views.

    Raises:
        duckdb.Error: A file in the lake is damaged, or the catalogue cannot be written.
    """
    import duckdb  # noqa: PLC0415 - see `write_catalog`

    with duckdb.connect() as connection:
        place = _prepare(lake, connection, relative=relative)
        connection.execute(f"ATTACH {_quote(str(path))} AS catalog (STORAGE_VERSION '{_OLDEST_READER}')")
        connection.execute("USE catalog")
        names = [_create(connection, *view) for view in _views(lake, connection, place, tables)]
        connection.execute("USE memory")
        connection.execute("DETACH catalog")
    return names


def _prepare(lake: Lake, connection: duckdb.DuckDBPyConnection, *, relative: bool) -> _Place:
    storage = lake.storage
    if isinstance(storage, LocalStorage):
        root = storage.root.resolve()
        connection.execute("SET file_search_path = ?", [str(root)])
        return _Place(str if relative else lambda pattern: f"{_escape(root)}/{pattern}")
    samples = _make_samples(storage.locate("").partition("://")[0])
    connection.register_filesystem(samples)
    return _Place(storage.locate, samples)


def _make_samples(protocol: str) -> Any:  # noqa: ANN401 - fsspec ships no types
    """Makes a file system of files that are added under patterns; each is all that its pattern finds."""
    from fsspec.spec import AbstractFileSystem  # noqa: PLC0415 - only lakes in an object store need it

    class Samples(AbstractFileSystem):  # type: ignore[misc] # fsspec ships no types
        cachable = False

        def __init__(self) -> None:
            super().__init__()
            self.files: dict[str, bytes] = {}

        def glob(self, path: str, **_: object) -> list[str]:
            return [path.replace("*", "2000-01-01")]

        def open(self, path: str, *_: object, **__: object) -> io.BytesIO:
            return io.BytesIO(self.files[path])

        def info(self, path: str, **_: object) -> dict[str, object]:
            return {"name": path, "size": len(self.files[path]), "type": "file"}

        def modified(self, _path: str) -> datetime:
            return datetime(2000, 1, 1, tzinfo=UTC)

    Samples.protocol = protocol
    return Samples()


def _make_recipe(lake: Lake, *, relative: bool) -> str:
    """Identifies the views: they follow from code, place, and the columns of the files that are there."""
    storage = lake.storage
    place = (
        storage.locate("") if not isinstance(storage, LocalStorage) else None if relative else storage.root.resolve()
    )
    columns = {name: _list_columns(lake, table) for name, table in DATASETS.items()}
    schemas = [table.schema for table in DATASETS.values()]
    return make_recipe(["calls_assets.lake"], version("duckdb"), place, columns, schemas)


def _list_columns(lake: Lake, table: Table) -> object:
    """Tells which columns a table's files have: all; or some, then by what all files are; or none, without files."""
    files = lake.list_files(f"{table.tree}/{table.name}/")
    if not files:
        return None
    newest = max(file.key for file in files)
    with contextlib.suppress(OSError, pa.ArrowException):
        held = pq.read_schema(pa.BufferReader(lake.storage.read(newest))).names
        if set(table.schema.names) <= set(held):
            return "all"
    return sorted(map(_identify, files))


def _identify(file: StoredFile) -> tuple[str, str]:
    return file.key, file.version


def _hash_catalog(lake: Lake) -> str:
    try:
        return hashlib.blake2b(lake.storage.read(CATALOG_KEY), digest_size=16).hexdigest()
    except OSError:
        return ""


def _views(
    lake: Lake, connection: duckdb.DuckDBPyConnection, place: _Place, tables: Collection[str]
) -> Iterator[tuple[str, str, str, dict[str, str]]]:
    """Yields name, query, comment and column comments of each view, those it is made of before it."""
    for name, table in DATASETS.items():
        if name in tables:
            yield name, _select(lake, connection, table, place), table.description, _comments(table)
    if {"calls", "agents", "dispositions"}.issubset(tables):
        enriched = {**_comments(DATASETS["calls"]), **_ENRICHED_COLUMNS}
        yield "calls_enriched", _CALLS_ENRICHED, "One row per call, with names and times ready for reports.", enriched
    if SERVICE_INTERVALS.name in tables:
        yield (
            "service_days",
            _sum_intervals(),
            "One row per day and direction: service_intervals added up.",
            _comments(SERVICE_INTERVALS),
        )


def _select(lake: Lake, connection: duckdb.DuckDBPyConnection, table: Table, place: _Place) -> str:
    """Reads a table's files; a column that none of them has yet is NULL."""
    connection.register("template", table.schema.empty_table())
    types = {name: type_ for name, type_, *_ in connection.execute("DESCRIBE template").fetchall()}
    connection.unregister("template")
    if table.is_daily:
        types["call_date"] = "DATE"
    source, held = "", set()
    days = lake.table_days(table.name) if table.is_daily else []
    if days or (not table.is_daily and lake.list_files(f"{table.tree}/{table.name}/")):
        pattern = f"{table.tree}/{table.name}/{'call_date=*/' if table.is_daily else ''}{table.name}.parquet"
        if place.samples is not None:
            _add_sample(place, pattern, lake.read_table(table.name, days[-1] if days else None))
        files = _quote(place.locate(pattern))
        options = ["hive_partitioning = true", "hive_types = {'call_date': DATE}"] if table.is_daily else []
        # A look at every file of an object store would cost a request each.
        if place.samples is not None or _columns_differ(connection, files):
            options.append("union_by_name = true")
        source = f"FROM read_parquet({', '.join([files, *options])})"
        held = {name for name, *_ in connection.execute(f"DESCRIBE {source}").fetchall()}
    columns = (name if name in held else f"NULL::{type_} AS {name}" for name, type_ in types.items())
    return f"SELECT {', '.join(columns)} {source or 'WHERE false'}"


def _add_sample(place: _Place, pattern: str, rows: pa.Table) -> None:
    address = place.locate(pattern)
    sink = io.BytesIO()
    pq.write_table(rows.schema.empty_table(), sink)
    for path in place.samples.glob(address):
        place.samples.files[path] = sink.getvalue()


def _columns_differ(connection: duckdb.DuckDBPyConnection, files: str) -> bool:
    """Tells whether some files have columns that others lack: those made before a column was added.

    Only then has a view to look into every file before it reads one, which takes longer the more days there are, and
    leaves more time for a file to be replaced between the look and the reading.
    """
    names = f"SELECT list_sort(list(name)) AS names FROM parquet_schema({files}) GROUP BY file_name"  # noqa: S608 - quoted
    return connection.sql(names).aggregate("count(DISTINCT names) > 1").fetchall() == [(True,)]


def _sum_intervals() -> str:
    """Adds up `service_intervals` by day and direction: counts are sums, ratios quotients of sums."""
    columns = []
    for field in SERVICE_INTERVALS.schema:
        ratio = field.metadata.get(b"numerator"), field.metadata.get(b"denominator")
        if ratio != (None, None):
            numerator, denominator = (name.decode() for name in ratio)
            columns.append(f"sum({numerator})::BIGINT / nullif(sum({denominator})::BIGINT, 0) AS {field.name}")
        elif pa.types.is_integer(field.type) and not field.name.endswith("_id"):
            columns.append(f"sum({field.name})::BIGINT AS {field.name}")
    columns = ["call_date", "is_inbound", *columns]
    return f"SELECT {', '.join(columns)} FROM service_intervals GROUP BY ALL"  # noqa: S608 - names of the registry


def _comments(table: Table) -> dict[str, str]:
    return {**{field.name: describe(field) for field in table.schema}, "call_date": _CALL_DATE}


def _create(connection: duckdb.DuckDBPyConnection, name: str, query: str, comment: str, columns: dict[str, str]) -> str:
    connection.execute(f"CREATE VIEW {name} AS {query}")
    connection.execute(f"COMMENT ON VIEW {name} IS {_quote(comment)}")
    held = connection.execute("SELECT column_name FROM duckdb_columns() WHERE table_name = ?", [name]).fetchall()
    for (column,) in held:
        connection.execute(f"COMMENT ON COLUMN {name}.{column} IS {_quote(columns[column])}")
    return name


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _escape(path: Path) -> str:
    """Takes from the path's characters the meaning they would have in a pattern."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in str(path))
