"""Dagster's run history with kept connections: the same files as Dagster's own, and few connections."""

import queue
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.pool import Pool

from calls_assets.run_history import KEPT_OPEN, PooledSqliteEventLog

ROOT = Path(__file__).resolve().parents[1]


@dg.op(config_schema={"days": [str]})
def publish(context: dg.OpExecutionContext) -> None:
    """Has a materialization and a check for each day."""
    for day in context.op_config["days"]:
        context.log_event(dg.AssetMaterialization("calls", partition=day, tags={"dagster/data_version": day}))
        evaluation = dg.AssetCheckEvaluation(asset_key=dg.AssetKey("calls"), check_name="is_there", passed=True)
        context.log_event(evaluation)  # type: ignore[arg-type] # Dagster takes it, though its annotation leaves it out


@dg.job
def publish_days() -> None:
    """Publishes."""
    publish()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Gives a home with the committed settings."""
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def connections(home: Path) -> Iterator[Counter[str]]:
    """Counts the connections to databases that are opened and closed."""
    counts: Counter[str] = Counter()

    def opened(*_: object) -> None:
        counts["opened"] += 1

    def closed(*_: object) -> None:
        counts["closed"] += 1

    event.listen(Pool, "connect", opened)
    event.listen(Pool, "close", closed)
    yield counts
    event.remove(Pool, "connect", opened)
    event.remove(Pool, "close", closed)


def materialize(instance: dg.DagsterInstance, *days: str) -> str:
    """Materializes days; gives the run's id."""
    config = {"ops": {"publish": {"config": {"days": list(days)}}}}
    return publish_days.execute_in_process(config, instance=instance).run_id


def describe(instance: dg.DagsterInstance) -> list[tuple[str, str]]:
    """Lists what an instance tells of its history: all events of all runs, and the materialized partitions."""
    runs = sorted(run.run_id for run in instance.get_runs())
    events = [(run, entry.user_message) for run in runs for entry in instance.all_logs(run)]
    return events + [("partition", key) for key in sorted(instance.get_materialized_partitions(dg.AssetKey("calls")))]


def test_files_are_those_of_dagster(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A home can be given to Dagster's own storage and back: nothing of its history changes."""
    with dg.DagsterInstance.from_config(str(home)) as ours:
        materialize(ours, "1", "2")
        told = describe(ours)
    plain = tmp_path_factory.mktemp("plain")
    (plain / "dagster.yaml").write_text(f"storage:\n  sqlite:\n    base_dir: {home}\n")
    with dg.DagsterInstance.from_config(str(plain)) as theirs:
        assert describe(theirs) == told
        materialize(theirs, "3")
        told = describe(theirs)
    with dg.DagsterInstance.from_config(str(home)) as ours:
        assert describe(ours) == told
    assert told[-3:] == [("partition", "1"), ("partition", "2"), ("partition", "3")]


def test_a_run_opens_few_connections(home: Path, connections: Counter[str]) -> None:
    """However many events it has; with Dagster's own storage each event takes some."""
    with dg.DagsterInstance.from_config(str(home)) as ours:
        materialize(ours, "1")
        counts = []
        for count in (1, 20):
            connections.clear()
            materialize(ours, *map(str, range(count)))
            counts.append(connections["opened"])
    assert counts[0] == counts[1]


def test_an_event_does_not_look_for_tables_and_columns(home: Path) -> None:
    """They are there, however many events a run has; Dagster's own storage asks with each."""
    asked: Counter[str] = Counter()

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked[statement.partition(" ")[0]] += 1

    with dg.DagsterInstance.from_config(str(home)) as ours:
        materialize(ours, "1")
        counts = []
        event.listen(Engine, "before_cursor_execute", note)
        try:
            for count in (1, 20):
                asked.clear()
                materialize(ours, *map(str, range(count)))
                counts.append(asked.copy())
        finally:
            event.remove(Engine, "before_cursor_execute", note)
    assert counts[1]["INSERT"] > counts[0]["INSERT"] + 2 * 19
    assert counts[1]["PRAGMA"] == counts[0]["PRAGMA"]


def test_an_event_does_not_wait_for_the_disk(home: Path) -> None:
    """Every connection flushes when the write-ahead log is written back (1), not with each commit (2)."""
    with dg.DagsterInstance.from_config(str(home)) as ours:
        log = ours.event_log_storage
        assert isinstance(log, PooledSqliteEventLog)
        for connect in (log.index_connection, lambda: log.run_connection("a run")):
            with connect() as connection:
                assert connection.execute(text("PRAGMA synchronous")).scalar() == 1
                assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"


def test_the_end_of_a_run_waits_for_the_disk(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What stands in the write-ahead log may be gone after a power failure: not the events of a run that has ended."""
    with dg.DagsterInstance.from_config(str(home)) as ours:
        materialize(ours, "1", "2")
        after = tmp_path_factory.mktemp("after") / "index.db"
        shutil.copy(home / "history/runs/index.db", after)
        log = ours.event_log_storage
        assert isinstance(log, PooledSqliteEventLog)
        with log.index_connection() as connection:
            told = connection.execute(text("SELECT max(id) FROM event_logs")).scalar()
    with closing(sqlite3.connect(after)) as kept:
        assert kept.execute("SELECT max(id) FROM event_logs").fetchone() == (told,)


def test_few_databases_stay_open(home: Path, connections: Counter[str]) -> None:
    """A web server shows thousands of runs; and at the end all are closed."""
    with dg.DagsterInstance.from_config(str(home)) as ours:
        runs = [materialize(ours, "1") for _ in range(KEPT_OPEN + 3)]
        for run in runs * 2:
            assert ours.all_logs(run)
        assert connections["opened"] - connections["closed"] <= KEPT_OPEN
    assert connections["opened"] == connections["closed"]


def fail_within(connection: Connection, _: pytest.MonkeyPatch) -> None:
    """Ends with an error before the commit."""
    connection.execute(text("INSERT INTO seen VALUES (1)"))
    raise ZeroDivisionError


def fail_at_the_commit(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the commit fail, as it does where another process holds the database."""

    def refuse(*_: object) -> None:
        monkeypatch.undo()
        raise ZeroDivisionError

    connection.execute(text("INSERT INTO seen VALUES (1)"))
    monkeypatch.setattr(connection.dialect, "do_commit", refuse)


@pytest.mark.parametrize("fail", [fail_within, fail_at_the_commit])
def test_what_fails_is_rolled_back(home: Path, fail: Callable[[Connection, pytest.MonkeyPatch], None]) -> None:
    """Nothing of it is there for the next one, nor for another process, which need not wait for it."""
    with dg.DagsterInstance.from_config(str(home)) as ours, pytest.MonkeyPatch.context() as monkeypatch:
        log = ours.event_log_storage
        assert isinstance(log, PooledSqliteEventLog)
        with log.index_connection() as connection:
            connection.execute(text("CREATE TABLE seen (number INTEGER)"))
        with pytest.raises(ZeroDivisionError), log.index_connection() as connection:
            fail(connection, monkeypatch)
        with closing(sqlite3.connect(home / "history/runs/index.db", timeout=0)) as other:
            other.execute("INSERT INTO seen VALUES (2)")
            other.commit()
        with log.index_connection() as connection:
            connection.execute(text("INSERT INTO seen VALUES (3)"))
            assert connection.execute(text("SELECT number FROM seen ORDER BY number")).scalars().all() == [2, 3]


def test_who_watches_a_run_sees_each_event_at_once(home: Path) -> None:
    """As the page of a run does while the run is under way in another process."""
    with dg.DagsterInstance.from_config(str(home)) as worker, dg.DagsterInstance.from_config(str(home)) as web_server:
        run = materialize(worker, "1")
        entry = worker.all_logs(run)[0]
        seen: queue.Queue[str] = queue.Queue()
        web_server.watch_event_logs(run, web_server.get_records_for_run(run).cursor, lambda *_: seen.put("an event"))
        for _ in range(3):
            worker.handle_new_event(entry)
            assert seen.get(timeout=60) == "an event"


def test_what_follows_a_wipe_is_kept(home: Path) -> None:
    """A wipe deletes the files of runs: nothing is written into a deleted one, also when a run comes back."""
    with dg.DagsterInstance.from_config(str(home)) as ours:
        run = materialize(ours, "1")
        first = ours.all_logs(run)[0]
        ours.event_log_storage.wipe()
        ours.handle_new_event(first)
    with dg.DagsterInstance.from_config(str(home)) as again:
        assert [entry.user_message for entry in again.all_logs(run)] == [first.user_message]


def test_without_a_home_the_history_is_kept_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `dagster dev` starts in a fresh clone; its processes share the directory."""
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        materialize(instance, "1")
    assert len(list((tmp_path / ".dagster" / "history" / "runs").glob("*.db"))) == 2
