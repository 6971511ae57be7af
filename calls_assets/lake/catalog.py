"""The catalogue: one DuckDB file with a view for every table and mart, for SQL tools.

What belongs here: the views and their comments. What stays out: data. The file holds no rows: views read the lake's
Parquet files when they are queried, and only those of the days asked for. It is made apart and put in place in one
step, so that tools may have it open (read-only) all the time.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

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


def write_catalog(lake: Lake, *, relative: bool = False, unless_current: bool = False) -> list[str]:
    """Writes the catalogue for the files that are there now.

    Args:
        lake: A lake in a local directory.
        relative: Name files by their path below the data directory, for lakes that are seen under different paths;
            tools then have to run in that directory, or `SET file_search_path`. Else absolute paths are written.
        unless_current: Leave it as it is when it was made in the same way and its views would be the same.

    Returns:
        The names of its views.

    Raises:
        LakeError: A file in the lake is damaged, or the catalogue cannot be written.
    """
    if not isinstance(lake.storage, LocalStorage):
        raise LakeError("a catalogue needs a lake in a local directory")
    root = lake.storage.root.resolve()
    recipe = _make_recipe(lake, None if relative else root) if unless_current else ""
    if recipe:
        made_of = lake.read_made_of(_MADE_OF)
        if made_of.get("recipe") == recipe and made_of.get("content") == _hash_catalog(lake):
            return list(made_of["views"])
    import duckdb  # noqa: PLC0415 - a run that leaves the catalogue as it is need not load it

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / CATALOG_KEY
        try:
            with duckdb.connect() as connection:
                connection.execute("SET file_search_path = ?", [str(root)])
                connection.execute(f"ATTACH {_quote(str(path))} AS catalog (STORAGE_VERSION '{_OLDEST_READER}')")
                connection.execute("USE catalog")
                names = [_create(connection, *view) for view in _views(lake, connection, None if relative else root)]
                connection.execute("USE memory")
                connection.execute("DETACH catalog")
            lake.storage.replace(CATALOG_KEY, path.read_bytes())
            if recipe:
                held = {"recipe": recipe, "content": _hash_catalog(lake), "views": names}
                lake.write_made_of(_MADE_OF, held)
        except (duckdb.Error, OSError) as problem:
            reason = str(problem).partition("\n")[0]
            raise LakeError(f"cannot make {CATALOG_KEY}: {reason}; the one that is there is unchanged") from None
    return names


def _make_recipe(lake: Lake, root: Path | None) -> str:
    """Identifies the views: they follow from code, place, and the columns of the files that are there."""
    columns = {name: _list_columns(lake, table) for name, table in DATASETS.items()}
    schemas = [table.schema for table in DATASETS.values()]
    return make_recipe(["calls_assets.lake"], version("duckdb"), root, columns, schemas)


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
    lake: Lake, connection: duckdb.DuckDBPyConnection, root: Path | None
) -> Iterator[tuple[str, str, str, dict[str, str]]]:
    """Yields name, query, comment and column comments of each view, those it is made of before it."""
    for name, table in DATASETS.items():
        yield name, _select(lake, connection, table, root), table.description, _comments(table)
    enriched = {**_comments(DATASETS["calls"]), **_ENRICHED_COLUMNS}
    yield "calls_enriched", _CALLS_ENRICHED, "One row per call, with names and times ready for reports.", enriched
    yield (
        "service_days",
        _sum_intervals(),
        "One row per day and direction: service_intervals added up.",
        _comments(SERVICE_INTERVALS),
    )


def _select(lake: Lake, connection: duckdb.DuckDBPyConnection, table: Table, root: Path | None) -> str:
    """Reads a table's files; a column that none of them has yet is NULL."""
    connection.register("template", table.schema.empty_table())
    types = {name: type_ for name, type_, *_ in connection.execute("DESCRIBE template").fetchall()}
    connection.unregister("template")
    if table.is_daily:
        types["call_date"] = "DATE"
    source, held = "", set()
    if lake.table_days(table.name) if table.is_daily else lake.list_files(f"{table.tree}/{table.name}/"):
        pattern = f"{table.tree}/{table.name}/{'call_date=*/' if table.is_daily else ''}{table.name}.parquet"
        # By name: files made before a column was added do not have it.
        options = "union_by_name = true, hive_partitioning = true, hive_types = {'call_date': DATE}"
        place = pattern if root is None else f"{_escape(root)}/{pattern}"
        source = f"FROM read_parquet({_quote(place)}, {options if table.is_daily else 'union_by_name = true'})"
        held = {name for name, *_ in connection.execute(f"DESCRIBE {source}").fetchall()}
    columns = (name if name in held else f"NULL::{type_} AS {name}" for name, type_ in types.items())
    return f"SELECT {', '.join(columns)} {source or 'WHERE false'}"


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
