"""Python's collector of cycles, held where much is made that lives on."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hold_collector() -> Iterator[None]:
    """Keeps the collector from walking through many live objects again and again, none of which is garbage.

    Afterwards it does what it did before.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
