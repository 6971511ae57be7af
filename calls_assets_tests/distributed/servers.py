"""PostgreSQL and Redis: real servers on free ports of this machine, each with its files in one directory."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import create_engine, text

_USER = "calls"
_FAST = ("-c", "fsync=off", "-c", "full_page_writes=off")
"""These servers die with their test: what they wrote need not outlive a power cut, but it does outlive their crash."""


def free_port() -> int:
    """Gives a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class Postgres:
    """A PostgreSQL server.

    Attributes:
        port: Its port.
    """

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._data = directory / "data"
        self._log = directory / "log"
        self._bin = _find_postgres()
        # The server refuses to run as root.
        self._as = _as_user(directory)
        self._run("initdb", "--pgdata", str(self._data), "--username", _USER, "--auth", "trust", "--no-sync")
        self.start()

    def start(self) -> None:
        """Starts it; returns when it takes connections."""
        options = ["-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", *_FAST]
        self._run("pg_ctl", "start", "-w", "-D", str(self._data), "-l", str(self._log), "-o", " ".join(options))

    def stop(self) -> None:
        """Stops it as its crash would: connections break at once, what was committed stays."""
        self._run("pg_ctl", "stop", "-w", "-D", str(self._data), "-m", "immediate")

    def url(self, database: str) -> str:
        """Gives a database's address."""
        return f"postgresql+psycopg2://{_USER}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str) -> dict[str, str]:
        """Makes a database; gives the variables that lead Dagster to it."""
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return {
            "DAGSTER_POSTGRES_HOST": "127.0.0.1",
            "DAGSTER_POSTGRES_PORT": str(self.port),
            "DAGSTER_POSTGRES_DB": name,
            "DAGSTER_POSTGRES_USER": _USER,
            "DAGSTER_POSTGRES_PASSWORD": "any",
        }

    def dump(self, database: str) -> bytes:
        """Gives a database as `pg_dump` writes it: as SQL."""
        return self._ask("pg_dump", "--no-owner", "--dbname", database)

    def load(self, database: str, dump: bytes) -> None:
        """Fills an empty database from a dump; the first error ends it."""
        self._ask("psql", "--quiet", "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--dbname", database, text=dump)

    def _ask(self, command: str, *arguments: str, text: bytes = b"") -> bytes:
        address = ["--host", "127.0.0.1", "--port", str(self.port), "--username", _USER]
        done = subprocess.run(
            [self._bin / command, *address, *arguments], input=text, capture_output=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        return done.stdout

    def _run(self, command: str, *arguments: str) -> None:
        done = subprocess.run(
            [*self._as, str(self._bin / command), *arguments],
            stdout=subprocess.DEVNULL,  # pg_ctl's server inherits it
            stderr=subprocess.DEVNULL,
            cwd=self._data.parent,
            timeout=60,
            check=False,
        )
        log = self._log.read_text()[-2000:] if self._log.exists() else ""
        assert done.returncode == 0, f"{command} ended with {done.returncode}: {log}"


@contextlib.contextmanager
def run_postgres() -> Iterator[Postgres]:
    """Runs a PostgreSQL server."""
    # Below pytest's own directories its user could not read: they are for one user.
    directory = Path(tempfile.mkdtemp(prefix="calls-postgres-"))
    try:
        server = Postgres(directory)
        try:
            yield server
        finally:
            with contextlib.suppress(AssertionError):  # a test that failed may have left it stopped
                server.stop()
    finally:
        shutil.rmtree(directory)


@contextlib.contextmanager
def run_redis(directory: Path) -> Iterator[str]:
    """Runs a Redis server; gives its address."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    with (directory / "redis.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None, (directory / "redis.log").read_text()
            assert time.monotonic() < until
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _find_postgres() -> Path:
    found = shutil.which("pg_ctl")
    if found:
        return Path(found).resolve().parent  # a link in the path may stand alone, without pg_dump beside it
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    assert versions, "these tests need PostgreSQL (Debian: apt-get install postgresql)"
    return versions[-1].parent


def _as_user(directory: Path) -> list[str]:
    """Gives the words before a command that is not to run as root, and hands the directory over."""
    if os.geteuid() != 0:
        return []
    user = pwd.getpwnam("postgres")
    os.chown(directory, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
