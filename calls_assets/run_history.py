"""Dagster's run history in SQLite, as `dagster.yaml` names it: Dagster's own, with its connections kept open.

What belongs here: that one step, which Dagster leaves out. For each of the one to five writes that an event takes, it
makes a new SQLAlchemy engine, opens and closes the database, and waits for the disk (1.13,
`SqliteEventLogStorage._connect`), which is most of what an event costs; a sweep of a day has a hundred events. Files
and tables stay Dagster's, so a home can go from its storage to this one and back at any time.

Every process of Dagster loads this module. So it imports Dagster and nothing of the rest.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import dagster as dg
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.event import listen

KEPT_OPEN = 2
"""Databases: the index, and the run looked at last. A run's log of writes takes ten times its room while it is open."""
BUSY_SECONDS = 30
"""As long as Dagster's own waits for another process that writes."""
_ENDS = frozenset({dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED})


class PooledSqliteStorage(DagsterSqliteStorage):
    """Dagster's SQLite storage; its event log keeps connections.

    Args:
        base_dir: Where the databases are; by default `DAGSTER_HOME`, and where that is not set, `.dagster` in the
            working directory.
        inst_data: Where Dagster had the settings from.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        self._event_log_storage: SqliteEventLogStorage = PooledSqliteEventLog(str(Path(base_dir, "history", "runs")))

    @classmethod
    def config_type(cls) -> dict[str, dg.Field]:
        """Gives the schema of the settings."""
        return {"base_dir": dg.Field(dg.StringSource, is_required=False)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """Makes the storage from the settings."""
        base_dir = config_value.get("base_dir") or os.environ.get("DAGSTER_HOME") or ".dagster"
        return cls.from_local(str(Path(base_dir).expanduser().absolute()), inst_data)


class PooledSqliteEventLog(SqliteEventLogStorage):
    """Dagster's SQLite event log; the connections used last stay open, one to each database.

    A database is flushed to disk when its write-ahead log is written back, not with each event: `synchronous = NORMAL`
    in https://sqlite.org/pragma.html. The index is when a run ends. So a power failure may take the last events of runs
    under way with it, and never more: were it to take older ones, their numbers would be given again, and sensors that
    have read further would miss what has them now.
    """

    def __init__(self, base_dir: str) -> None:
        self._connections: dict[str, Connection] = {}
        self._found: set[str] = set()
        super().__init__(base_dir)

    def has_table(self, table_name: str) -> bool:
        """Tells whether the index has a table; what was found is not looked for again, as nothing removes it."""
        if table_name not in self._found and super().has_table(table_name):
            self._found.add(table_name)
        return table_name in self._found

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        if column_name not in self._found and super()._has_asset_key_col_on_connection(conn, column_name):
            self._found.add(column_name)
        return column_name in self._found

    def store_event(self, event: dg.EventLogEntry) -> None:
        """Stores an event, and wakes who watches the run: Dagster's web server looks at the database's file only.

        While connections are open, what is written stands in the write-ahead log beside it.
        """
        super().store_event(event)
        if event.is_dagster_event and event.dagster_event_type in _ENDS:
            with self.index_connection() as connection:
                connection.execute(text("PRAGMA wal_checkpoint(PASSIVE)"))
        with suppress(FileNotFoundError):
            os.utime(self.path_for_shard(event.run_id))

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        if shard not in self._initialized_dbs:
            with self._db_lock:
                self._close(shard)  # wiped: its file is another one
            with super()._connect(shard):  # makes it
                pass
        with self._db_lock:
            connection = self._connections.pop(shard, None) or self._open(shard)
            self._connections[shard] = connection  # in the order of their last use
            while len(self._connections) > KEPT_OPEN:
                self._close(next(iter(self._connections)))
            try:
                with connection.begin():
                    yield connection
            except BaseException:
                self._close(shard)  # whatever state it is in, the next one finds it rolled back
                raise

    def _open(self, shard: str) -> Connection:
        engine = create_engine(self.conn_string_for_shard(shard), connect_args={"timeout": BUSY_SECONDS})
        listen(engine, "connect", _flush_seldom)
        return engine.connect()

    def _close(self, shard: str) -> None:
        if connection := self._connections.pop(shard, None):
            connection.close()
            connection.engine.dispose()

    def dispose(self) -> None:
        """Closes the databases."""
        super().dispose()
        with self._db_lock:
            for shard in list(self._connections):
                self._close(shard)


def _flush_seldom(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA synchronous = NORMAL")
