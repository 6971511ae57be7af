"""Records what storage asks of the operating system below a directory, as events for a model of the disk.

What belongs here: wrapping the functions of `os` and naming files by inode. What stays out: what a crash does (`disk`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest

from calls_assets.lake import Lake, Read, Segment
from calls_assets.lake.storage import Storage
from calls_assets_tests.faults import world as w


class Entry(NamedTuple):
    """A name in a directory now stands for an inode; None takes the name away."""

    directory: str
    name: str
    inode: int | None


class MakeDirectory(NamedTuple):
    """A directory was made in a directory."""

    directory: str
    name: str


class Write(NamedTuple):
    """A file's content is now this, in memory."""

    inode: int
    data: bytes


class SyncFile(NamedTuple):
    """A file's content was fsynced."""

    inode: int


class SyncDirectory(NamedTuple):
    """A directory's names were fsynced."""

    directory: str


class Landed(NamedTuple):
    """The lake reported reads as landed."""

    reads: frozenset[w.StoredRead]


class Replaced(NamedTuple):
    """The lake reported a table as written."""

    key: str


Event = Entry | MakeDirectory | Write | SyncFile | SyncDirectory | Landed | Replaced


class DiedError(BaseException):
    """The process is to die here; nothing handles it."""


class Recorder:
    """Records the operations below a directory.

    Args:
        root: The directory.
        dies_at: The process dies instead of doing this event (from 0).
    """

    def __init__(self, root: Path, dies_at: int | None = None) -> None:
        self.events: list[Event] = []
        self._root, self._dies_at = root, dies_at
        self._inodes: dict[str, int] = {}
        self._contents: dict[int, bytes] = {}
        self._open: dict[int, str] = {}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Wraps the functions for a while."""
        with pytest.MonkeyPatch.context() as patch:
            for name, note in (
                ("open", self._on_open),
                ("write", self._on_write),
                ("fsync", self._on_fsync),
                ("close", self._on_close),
                ("link", self._on_link),
                ("rename", self._on_rename),
                ("replace", self._on_rename),
                ("unlink", self._on_unlink),
                ("mkdir", self._on_mkdir),
            ):
                patch.setattr(os, name, self._wrap(getattr(os, name), note))
            yield

    def survive(self) -> None:
        """Lets the next process live: its descriptors are its own."""
        self._dies_at = None
        self._open.clear()

    def _wrap(self, real: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - stands for any of the functions
            if self._dies_at is not None and len(self.events) >= self._dies_at:
                raise DiedError
            result = real(*arguments, **options)
            note(result, *arguments)
            return result

        return call

    def _split(self, path: str | Path) -> tuple[str, str] | None:
        target = Path(path)
        if self._root not in target.parents:
            return None
        return str(target.parent.relative_to(self._root)), target.name

    def _on_open(self, descriptor: int, path: str | Path, flags: int = 0, *_: int) -> None:
        place = self._split(path) or (("", "") if Path(path) == self._root else None)
        if place is None:
            return
        self._open[descriptor] = str(path)
        if not flags & os.O_CREAT:
            return
        if str(path) not in self._inodes:
            self._name(path, max(self._contents, default=0) + 1)
            self._contents[self._inodes[str(path)]] = b""
        elif flags & os.O_TRUNC:
            self._set(self._inodes[str(path)], b"")

    def _on_write(self, length: int, descriptor: int, data: bytes | memoryview) -> None:
        if descriptor in self._open:
            inode = self._inodes[self._open[descriptor]]
            self._set(inode, self._contents[inode] + bytes(data[:length]))

    def _on_fsync(self, _: None, descriptor: int) -> None:
        path = self._open.get(descriptor)
        if path is not None:
            is_file = path in self._inodes
            self.events.append(
                SyncFile(self._inodes[path]) if is_file else SyncDirectory(str(Path(path).relative_to(self._root)))
            )

    def _on_close(self, _: None, descriptor: int) -> None:
        self._open.pop(descriptor, None)

    def _on_link(self, _: None, source: str | Path, target: str | Path) -> None:
        if self._split(target):
            self._name(target, self._inodes[str(source)])

    def _on_rename(self, _: None, source: str | Path, target: str | Path) -> None:
        if self._split(target):
            self._name(target, self._inodes[str(source)])
            self._name(source, None)

    def _on_unlink(self, _: None, path: str | Path) -> None:
        if self._split(path):
            self._name(path, None)

    def _on_mkdir(self, _: None, path: str | Path, *_mode: int) -> None:
        if place := self._split(path):
            self.events.append(MakeDirectory(*place))

    def _name(self, path: str | Path, inode: int | None) -> None:
        place = self._split(path)
        assert place is not None
        self.events.append(Entry(*place, inode))
        if inode is None:
            self._inodes.pop(str(path), None)
        else:
            self._inodes[str(path)] = inode

    def _set(self, inode: int, data: bytes) -> None:
        self._contents[inode] = data
        self.events.append(Write(inode, data))


class RecordedLake(Lake):
    """A lake that records what it reports."""

    def __init__(self, storage: Storage, events: list[Event]) -> None:
        super().__init__(storage)
        self._events = events

    def land(self, day: date, reads: Sequence[Read]) -> Segment:
        """Lands, then tells."""
        segment = super().land(day, reads)
        self._events.append(Landed(frozenset((day, r.call_id, w.to_us(r.fetched_at), r.http_status) for r in reads)))
        return segment

    def put_table(self, name: str, day: date | None, table: pa.Table) -> tuple[bool, str]:
        """Writes, then tells."""
        written = super().put_table(name, day, table)
        self._events.append(Replaced(self.table_key(name, day)))
        return written
