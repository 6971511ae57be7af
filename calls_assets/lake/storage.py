"""Storage: the few verbs through which everything in the lake is read and written.

What belongs here: the interface, its promises, and the local directory. What stays out: what the files mean, and the
object stores (`object_storage`).
The promises are those that a directory and an object store can both keep: a file appears whole or not at all, is
durable when the verb returns, and a listing after it shows it. No locks, no appends, no rename by the caller.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, runtime_checkable

_TEMPORARY = ".tmp"
_PRIVATE_TREES = frozenset({"raw", "inbox", _TEMPORARY})
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS})


class StoredFile(NamedTuple):
    """One entry of a listing.

    Attributes:
        key: Path below the root, with `/` between its parts.
        size: Length in bytes.
        version: Differs whenever the content was replaced.
    """

    key: str
    size: int
    version: str


class Storage(Protocol):
    """A store of immutable files under keys such as `raw/call_records/call_date=2025-01-31/x.parquet`.

    Attributes:
        is_create_only: Whether `put_new` holds against other writers too; else there may be only one.
    """

    is_create_only: bool

    def list(self, prefix: str, after: str = "") -> list[StoredFile]:
        """Lists every file below a prefix whose key comes after another, in the order of keys.

        Args:
            prefix: Ends with `/`, or is empty for everything.
            after: Keys up to here are left out, at less cost than to list them.
        """

    def read(self, key: str) -> bytes:
        """Gives a file's content; raises FileNotFoundError."""

    def put_new(self, key: str, data: bytes | memoryview) -> None:
        """Stores a new file durably; raises FileExistsError, and then changes nothing."""

    def replace(self, key: str, data: bytes | memoryview) -> None:
        """Stores a file durably in one step; readers see the old content or the new, never a mixture."""

    def delete(self, key: str) -> None:
        """Removes a file; one that is gone already is fine."""

    def locate(self, key: str) -> str:
        """Gives the path or address under which other programs find a file."""

    def has_files(self) -> bool:
        """Tells whether there is a lake, or anything else, at all."""


class ReplacedError(Exception):
    """A file is not the one any more that it was when the first part of it was read."""


@runtime_checkable
class Partial(Protocol):
    """A store from which parts of a file come at less cost than the file."""

    def open_parts(self, key: str) -> RawIOBase:
        """Opens a file of which some parts are wanted.

        All that is read is of one version; reading raises ReplacedError when that is gone.

        Raises:
            FileNotFoundError: There is none.
        """


@runtime_checkable
class Seekable(Protocol):
    """A store that also gives parts of a file without reading the rest."""

    def open(self, key: str) -> BinaryIO:
        """Opens a file for reading at any place; raises FileNotFoundError."""


class LocalStorage:
    """A directory of the local file system.

    Files are written under `.tmp/`, fsynced, moved into place, and the directory is fsynced. Directories below
    `raw/` and `inbox/` are 0700 and files 0600: they hold what the vendor said about people.

    Args:
        root: The directory; created when missing.
        is_writable: False for readers, who may have no right to write: nothing is created.
    """

    is_create_only = True

    def __init__(self, root: Path, *, is_writable: bool = True) -> None:
        self.root = root
        self._temporary = root / _TEMPORARY
        self._durable: set[Path] = set()
        if is_writable:
            self._make_directory(self._temporary)

    def list(self, prefix: str, after: str = "") -> list[StoredFile]:
        """Lists every file below a prefix whose key comes after another."""
        return sorted(self._walk(prefix.rstrip("/"), after))

    def _walk(self, relative: str, after: str) -> Iterator[StoredFile]:
        while True:
            try:
                entries = list(os.scandir(self.root / relative))
            except (FileNotFoundError, NotADirectoryError):
                return
            try:
                found = [
                    self._look_at(relative, entry)
                    for entry in entries
                    if _join(relative, entry.name) > after and not entry.is_dir()
                ]
            except FileNotFoundError:
                # A file went between the two looks. When it was merged into another one, that one was not there at
                # the first look, and a listing with neither would show less than is stored.
                continue
            yield from found
            for entry in entries:
                folder = _join(relative, entry.name)
                # Every key below it begins with the folder's name.
                if (f"{folder}/" > after or after.startswith(f"{folder}/")) and entry.is_dir():
                    yield from self._walk(folder, after)
            return

    @staticmethod
    def _look_at(directory: str, entry: os.DirEntry[str]) -> StoredFile:
        status = entry.stat(follow_symlinks=False)
        return StoredFile(_join(directory, entry.name), status.st_size, f"{status.st_ino}-{status.st_mtime_ns}")

    def read(self, key: str) -> bytes:
        """Gives a file's content."""
        return (self.root / key).read_bytes()

    def open(self, key: str) -> BinaryIO:
        """Opens a file for reading."""
        return (self.root / key).open("rb")

    def put_new(self, key: str, data: bytes | memoryview) -> None:
        """Stores a new file durably."""
        target = self.root / key
        with self._written(key, data) as temporary:
            try:
                os.link(temporary, target)
            except OSError as problem:
                if problem.errno not in _NO_HARD_LINKS:
                    raise
                if target.exists():
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
                temporary.rename(target)
        _sync_directory(target.parent)

    def replace(self, key: str, data: bytes | memoryview) -> None:
        """Stores a file durably in one step."""
        target = self.root / key
        with self._written(key, data) as temporary:
            temporary.replace(target)
        _sync_directory(target.parent)

    def delete(self, key: str) -> None:
        """Removes a file."""
        (self.root / key).unlink(missing_ok=True)

    def locate(self, key: str) -> str:
        """Gives the absolute path of a file."""
        return str(self.root.resolve() / key)

    def has_files(self) -> bool:
        """Tells whether the directory is there, be it empty."""
        return self.root.is_dir()

    @contextlib.contextmanager
    def _written(self, key: str, data: bytes | memoryview) -> Iterator[Path]:
        """Writes and fsyncs a temporary file, locked so that `clean_temporary` knows its writer is alive."""
        target = self.root / key
        is_private = key.split("/", 1)[0] in _PRIVATE_TREES
        self._make_directory(target.parent)
        temporary, descriptor = self._make_temporary()
        try:
            _write_all(descriptor, data)
            if not is_private:
                os.fchmod(descriptor, 0o666 & ~_UMASK)
            os.fsync(descriptor)
            yield temporary
        finally:
            try:
                temporary.unlink(missing_ok=True)
            finally:
                os.close(descriptor)

    def _make_temporary(self) -> tuple[Path, int]:
        """Creates a locked temporary file; gives its path and its descriptor."""
        while True:
            path = self._temporary / secrets.token_hex(12)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if os.fstat(descriptor).st_nlink:
                    return path, descriptor
            except OSError:
                os.close(descriptor)
                path.unlink(missing_ok=True)
                raise
            os.close(descriptor)  # somebody's `clean_temporary` took it for a dead writer's before it was locked

    def _make_directory(self, path: Path) -> None:
        """Creates a directory and its parents durably.

        A directory found there is made durable too, once: its maker may have died before that.
        """
        if path in self._durable and path.is_dir():
            return
        if path != self.root:
            self._make_directory(path.parent)
        elif path.is_dir():
            return
        is_private = path != self.root and path.relative_to(self.root).parts[0] in _PRIVATE_TREES
        try:
            path.mkdir(mode=0o700 if is_private else 0o777, parents=path == self.root, exist_ok=True)
        except FileExistsError:  # a file: `put_new` says by the same error that its key is there
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        _sync_directory(path.parent)
        self._durable.add(path)

    def clean_temporary(self) -> int:
        """Removes what writers that died left behind; gives the number of files removed."""
        removed = 0
        for path in self._temporary.iterdir():
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # its writer is alive
            else:
                path.unlink(missing_ok=True)
                removed += 1
            finally:
                os.close(descriptor)
        return removed


def _join(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


def _read_umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


_UMASK = _read_umask()  # once: the call changes the mask of the whole process for a moment


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
