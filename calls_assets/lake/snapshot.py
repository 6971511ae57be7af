"""Snapshots: a directory like the lake whose files never change, for tools that open a file more than once.

What belongs here: linking or copying the files, and who removes a snapshot. What stays out: what users may ask for
(`read`, `cli`).

The lake replaces a file by renaming another one to its name, so a hard link keeps the version that was there when the
link was made. Where there can be none (another file system, no right to, an object store), the file is read whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from pathlib import Path

from calls_assets.lake.catalog import CATALOG_KEY, make_catalog
from calls_assets.lake.errors import LakeError
from calls_assets.lake.lake import Lake
from calls_assets.lake.mart_schemas import DATASETS
from calls_assets.lake.storage import LocalStorage, Storage

SNAPSHOTS = ".snapshots"
MARKER = ".calls-snapshot"
"""A file in those that go by themselves, locked by their owner. A directory without one is never removed."""
_PREFIX = "calls-snapshot-"
_THREADS = 4


@contextlib.contextmanager
def temporary_snapshot(
    lake: Lake, names: Collection[str], first: date, last: date, *, place: Path | None = None
) -> Iterator[Path]:
    """Gives a snapshot that is removed on leaving, and before that removes those whose processes were killed.

    Args:
        lake: The lake.
        names: Tables and marts.
        first: First day.
        last: Last day, included.
        place: The directory to make it in; when None `.snapshots` of the lake's, where links can be, and where that
            cannot be written the system's for temporary files.

    Raises:
        LakeError: It cannot be made.
    """
    path, descriptor = _make_directory(lake.storage, place)
    try:
        with _explained(path):
            _take_files(lake, path, names, first, last)
            _make_catalog(path, names)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def keep_snapshot(lake: Lake, directory: Path, names: Collection[str], first: date, last: date) -> tuple[int, int]:
    """Makes a snapshot that stays: filled beside, then renamed, so that nobody finds half of one.

    Args:
        lake: The lake.
        directory: New or empty.
        names: Tables and marts; one that is not daily is taken whole.
        first: First day.
        last: Last day, included.

    Returns:
        How many files were linked, and how many copied.

    Raises:
        LakeError: The directory is not empty, a file cannot be read or written, or DuckDB finds one damaged.
    """
    final = directory.resolve()
    made = final.with_name(f".{final.name}.{secrets.token_hex(4)}")
    try:
        with _explained(directory):
            made.mkdir(parents=True)
            taken = _take_files(lake, made, names, first, last)
            made = made.rename(final)  # its catalogue names files by their last places
            _make_catalog(made, names)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return taken.count("linked"), taken.count("copied")


def _take_files(lake: Lake, directory: Path, names: Collection[str], first: date, last: date) -> list[str]:
    """Links or copies files, each of one version, and says which; one that goes meanwhile is left out."""
    keys = []
    for name in dict.fromkeys(names):
        (directory / DATASETS[name].tree / name).mkdir(parents=True)
        days = lake.table_days(name) if DATASETS[name].is_daily else [None]
        keys += [lake.table_key(name, day) for day in days if day is None or first <= day <= last]
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(partial(_take, lake.storage, directory), keys))


def _take(storage: Storage, directory: Path, key: str) -> str:
    target = directory / key
    target.parent.mkdir(exist_ok=True)
    if isinstance(storage, LocalStorage):
        with contextlib.suppress(OSError):
            os.link(storage.root / key, target)
            return "linked"
    try:
        data = storage.read(key)
    except FileNotFoundError:
        return "gone"
    with target.open("xb") as file:  # never into a file that is there: it may be the lake's
        file.write(data)
    return "copied"


def _make_directory(storage: Storage, place: Path | None) -> tuple[Path, int]:
    """Makes a directory, readable by its owner alone; gives its path and the descriptor that holds its lock."""
    places = [storage.root / SNAPSHOTS] if isinstance(storage, LocalStorage) else []
    places = [*places, Path(tempfile.gettempdir())] if place is None else [place]
    for candidate in places:
        try:
            return _make_locked(candidate)
        except OSError as problem:
            refusal = _refuse(candidate, problem)
    raise refusal


def _make_locked(place: Path) -> tuple[Path, int]:
    place.mkdir(exist_ok=True)
    for marker in place.glob(f"{_PREFIX}*/{MARKER}"):
        with contextlib.suppress(OSError):  # in use, or another user's
            descriptor = _lock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(marker.parent, ignore_errors=True)
            os.close(descriptor)
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place.resolve()))
        (path / MARKER).touch()
        try:
            descriptor = _lock(path / MARKER, fcntl.LOCK_EX)
        except FileNotFoundError:
            continue  # another process took it for abandoned before it was locked
        except OSError:
            shutil.rmtree(path)
            raise
        if path.exists():
            return path, descriptor
        os.close(descriptor)


def _lock(path: Path, how: int) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, how)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _make_catalog(directory: Path, names: Collection[str]) -> None:
    make_catalog(Lake(LocalStorage(directory, is_writable=False)), directory / CATALOG_KEY, names)


@contextlib.contextmanager
def _explained(directory: Path) -> Iterator[None]:
    import duckdb  # noqa: PLC0415 - as in `catalog`

    try:
        yield
    except (duckdb.Error, OSError) as problem:
        raise _refuse(directory, problem) from None


def _refuse(directory: Path, problem: Exception) -> LakeError:
    reason = (problem.strerror or "input/output error").lower() if isinstance(problem, OSError) else str(problem)
    return LakeError(f"cannot make a snapshot in {directory}: {reason.partition(chr(10))[0]}")
