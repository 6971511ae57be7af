"""A model of a disk at a power loss: which states recorded operations may leave.

The model is weak, so that what survives it survives real file systems: of content not fsynced any prefix, half a
block or zeroes may remain; of a directory's changes not fsynced any subset, each name's changes in order; fsync of a
file says nothing about its name. Names below `.tmp` are not modelled: whatever is left there is swept away.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from random import Random
from typing import TypeAlias

from calls_assets.lake.storage import StoredFile
from calls_assets_tests.faults.recorder import Entry, Event, MakeDirectory, SyncDirectory, SyncFile, Write

_ALL_SUBSETS = 6
_SAMPLE = 24
_BLOCK = 512
_TEMPORARY = ".tmp"

State: TypeAlias = frozenset[tuple[str, int, bytes]]
"""Every file that can be reached: key, inode, content."""


class Disk:
    """What of the events so far is certain, and what is not."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, str], int] = {}
        self._directories = {"."}
        self._pending: list[Entry | MakeDirectory] = []
        self._synced: dict[int, bytes] = {}
        self._latest: dict[int, bytes] = {}

    def take(self, event: Event) -> bool:
        """Adds an event; tells whether it changed what a crash may leave."""
        match event:
            case Entry() | MakeDirectory():
                if event.directory == _TEMPORARY:
                    return False
                self._pending.append(event)
            case Write():
                self._latest[event.inode] = event.data
            case SyncFile():
                self._synced[event.inode] = self._latest.get(event.inode, b"")
            case SyncDirectory():
                settled = [change for change in self._pending if change.directory == event.directory]
                self._pending = [change for change in self._pending if change.directory != event.directory]
                self._apply(settled, self._files, self._directories)
            case _:
                return False
        return True

    @staticmethod
    def _apply(
        changes: Sequence[Entry | MakeDirectory], files: dict[tuple[str, str], int], directories: set[str]
    ) -> None:
        for change in changes:
            if isinstance(change, MakeDirectory):
                directories.add(change.name if change.directory == "." else f"{change.directory}/{change.name}")
            elif change.inode is None:
                files.pop((change.directory, change.name), None)
            else:
                files[change.directory, change.name] = change.inode

    def states(self, random: Random) -> Iterator[State]:
        """Yields what a crash may leave now: every subset of few changes, a sample of many."""
        for chosen in self._subsets(random):
            files, directories = dict(self._files), set(self._directories)
            self._apply(chosen, files, directories)
            reachable = {
                (f"{directory}/{name}" if directory != "." else name): inode
                for (directory, name), inode in files.items()
                if _is_reachable(directory, directories)
            }
            dirty = sorted({inode for inode in reachable.values() if self._is_dirty(inode)})
            certain = [
                (key, inode, self._synced.get(inode, b"")) for key, inode in reachable.items() if inode not in dirty
            ]
            for contents in _combine([self._remains(inode) for inode in dirty], random):
                content_of = dict(zip(dirty, contents, strict=True))
                unsure = ((key, inode, content_of[inode]) for key, inode in reachable.items() if inode in content_of)
                yield frozenset((*certain, *unsure))

    def _subsets(self, random: Random) -> Iterator[Sequence[Entry | MakeDirectory]]:
        pending, count = self._pending, len(self._pending)
        if count <= _ALL_SUBSETS:
            masks: Iterator[int] | list[int] = iter(range(1 << count))
        else:
            masks = [0, (1 << count) - 1, *(1 << place for place in range(count))]
            masks += [random.getrandbits(count) for _ in range(_SAMPLE)]
        for mask in masks:
            yield [change for place, change in enumerate(pending) if mask >> place & 1]

    def _is_dirty(self, inode: int) -> bool:
        return self._latest.get(inode, b"") != self._synced.get(inode, b"")

    def _remains(self, inode: int) -> list[bytes]:
        """Gives what may remain of content that is not fsynced."""
        old, new = self._synced.get(inode, b""), self._latest[inode]
        half, block = new[: len(new) // 2], new[: min(len(new), _BLOCK) // 2]
        zeroes = bytes(len(new))
        return list(dict.fromkeys((old, new, b"", half, block, new[:-1], zeroes, half + zeroes[len(half) :])))


def _combine(choices: list[list[bytes]], random: Random) -> Iterator[tuple[bytes, ...]]:
    """Yields every combination of one file's choices or two's, a sample of more."""
    if len(choices) <= 2:
        yield from itertools.product(*choices)
    else:
        for _ in range(_SAMPLE):
            yield tuple(random.choice(options) for options in choices)


def _is_reachable(directory: str, directories: set[str]) -> bool:
    parts = directory.split("/")
    return all("/".join(parts[: depth + 1]) in directories for depth in range(len(parts)))


class MemoryStorage:
    """Storage in a dictionary, to look at a state with the lake's own eyes."""

    is_create_only = True

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files
        self._versions = itertools.count()
        self._version_of: dict[str, str] = {}

    def list(self, prefix: str, after: str = "") -> list[StoredFile]:
        """Lists the files below a prefix whose keys come after another."""
        return [
            StoredFile(key, len(self._files[key]), self._version_of.get(key, ""))
            for key in sorted(self._files)
            if key.startswith(prefix) and key > after
        ]

    def read(self, key: str) -> bytes:
        """Gives a file's content."""
        try:
            return self._files[key]
        except KeyError:
            raise FileNotFoundError(key) from None

    def put_new(self, key: str, data: bytes | memoryview) -> None:
        """Stores a new file."""
        if key in self._files:
            raise FileExistsError(key)
        self.replace(key, data)

    def replace(self, key: str, data: bytes | memoryview) -> None:
        """Stores a file."""
        self._files[key] = bytes(data)
        self._version_of[key] = str(next(self._versions))

    def delete(self, key: str) -> None:
        """Removes a file."""
        self._files.pop(key, None)

    def locate(self, key: str) -> str:
        """Gives a name; no other program finds anything under it."""
        return f"memory://{key}"

    def has_files(self) -> bool:
        """Tells whether there is anything."""
        return bool(self._files)
