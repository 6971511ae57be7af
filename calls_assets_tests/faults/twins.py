"""Storages that break a promise, for harnesses to catch."""

from __future__ import annotations

import os
import time

from calls_assets.lake import LocalStorage


class InPlaceStorage(LocalStorage):
    """Writes to the final path, fsyncs and all."""

    def put_new(self, key: str, data: bytes | memoryview) -> None:
        """Writes in place."""
        self.replace(key, data)

    def replace(self, key: str, data: bytes | memoryview) -> None:
        """Writes in place."""
        target = self.root / key
        self._make_directory(target.parent)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self._write(descriptor, memoryview(data))
        os.fsync(descriptor)
        os.close(descriptor)
        directory = os.open(target.parent, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)

    def _write(self, descriptor: int, data: memoryview) -> None:
        os.write(descriptor, data)


class SlowInPlaceStorage(InPlaceStorage):
    """The same on a slow disk: readers have time to look in between."""

    def _write(self, descriptor: int, data: memoryview) -> None:
        middle = len(data) // 2
        os.write(descriptor, data[:middle])
        time.sleep(0.005)
        os.write(descriptor, data[middle:])
