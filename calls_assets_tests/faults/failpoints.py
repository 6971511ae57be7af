"""Failpoints: file operations below a directory are counted, and one of them fails or kills the process.

The functions of `os`, `io` and `fcntl` that storage ends in are wrapped in this process, so install them in a forked
child only. What is outside the directory is left alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EMFILE", "EPERM")
MODES = ("kill before", "kill after", "half", *ERRORS)
_CHANGING = frozenset({"open", "write", "fsync", "link", "rename", "replace", "unlink", "mkdir", "fchmod"})
_BY_PATH = ("open", "link", "rename", "replace", "unlink", "mkdir", "stat", "scandir", "listdir")
_BY_DESCRIPTOR = ("write", "fsync", "close", "fchmod")
_MEANT_FOR = {
    "EPERM": frozenset({"link"}),  # a file system without hard links
    "ENOSPC": _CHANGING - {"unlink", "fchmod"},
    "EDQUOT": _CHANGING - {"unlink", "fchmod"},
    "EMFILE": frozenset({"open", "read", "scandir", "listdir"}),
    "EIO": _CHANGING | {"read", "scandir", "listdir", "close", "stat", "flock"},
}


class Point(NamedTuple):
    """One way for one operation to fail.

    Attributes:
        at: The operation's place, from 0.
        mode: One of `MODES`: `half` does half of a write, then kills.
    """

    at: int
    mode: str


def list_points(operations: list[str]) -> list[Point]:
    """Gives every point of a recorded run."""
    points = []
    for at, name in enumerate(operations):
        points.append(Point(at, "kill before"))
        if name in _CHANGING:
            points.append(Point(at, "kill after"))
        if name == "write":
            points.append(Point(at, "half"))
        points += [Point(at, error) for error in ERRORS if name in _MEANT_FOR[error]]
    return points


class Failpoints:
    """Counts the operations of this process below a directory.

    Args:
        root: The directory.
        point: Where to fail; None only counts.
    """

    def __init__(self, root: Path, point: Point | None = None) -> None:
        self.operations: list[str] = []
        self._root, self._point = str(root), point
        self._descriptors: set[int] = set()
        self._real_write = os.write

    def install(self) -> None:
        """Wraps the functions, for the rest of this process's life."""
        for name in _BY_PATH:
            setattr(os, name, self._wrap(name, getattr(os, name), self._is_below))
        for name in _BY_DESCRIPTOR:
            setattr(os, name, self._wrap(name, getattr(os, name), self._descriptors.__contains__))
        fcntl.flock = self._wrap("flock", fcntl.flock, self._descriptors.__contains__)
        io.open = self._wrap("read", io.open, self._is_below)  # what pathlib reads with

    def _is_below(self, path: object) -> bool:
        return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self._root)

    def _wrap(self, name: str, real: Callable[..., Any], is_ours: Callable[[Any], bool]) -> Callable[..., Any]:
        def call(first: Any = ".", *rest: Any, **options: Any) -> Any:  # noqa: ANN401 - stands for any of the functions
            if not is_ours(first):
                return real(first, *rest, **options)
            self.operations.append(name)
            if self._point is not None and self._point.at == len(self.operations) - 1:
                return self._fail(self._point.mode, name, lambda: real(first, *rest, **options), first, *rest)
            result = real(first, *rest, **options)
            self._note(name, first, result)
            return result

        return call

    def _note(self, name: str, first: Any, result: Any) -> None:  # noqa: ANN401 - a descriptor, a path or a length
        if name == "open":
            self._descriptors.add(result)
        elif name == "close":
            self._descriptors.discard(first)

    def _fail(self, mode: str, name: str, run: Callable[[], Any], *arguments: Any) -> Any:  # noqa: ANN401 - as above
        if mode == "kill before":
            _kill()
        if mode == "kill after":
            with contextlib.suppress(OSError):
                run()
            _kill()
        if name == "write":
            data = memoryview(arguments[1])
            self._real_write(arguments[0], data[: len(data) // 2])
        if mode == "half":
            _kill()
        if name == "close":
            run()  # the descriptor is gone whatever close says
            self._descriptors.discard(arguments[0])
        number = getattr(errno, mode)
        raise OSError(number, os.strerror(number))


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
