"""Python's collector of cycles, kept from what lives on."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_has_spared = False


@contextmanager
def hold_collector() -> Iterator[None]:
    """Keeps the collector from walking through many live objects again and again, next to none of which is garbage.

    Afterwards it does what it did before.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def spare_loaded() -> None:
    """Spares the collector all that this process has loaded, which lives as long as the process does.

    Dagster and what it needs are two hundred thousand objects. The collector walks through them now and then, and
    again and again when Python ends: a quarter of the time of a command. Where DuckDB is loaded already, nothing is
    spared: it reports what is left of it at the end as leaks. What is garbage by now, two thousand objects after
    loading, stays as long as the rest.
    """
    global _has_spared  # noqa: PLW0603
    if "duckdb" not in sys.modules:
        gc.freeze()
        _has_spared = True


def spare_more() -> None:
    """Spares what was loaded since, in a process that has spared what it loaded first; does nothing in others."""
    if _has_spared:  # `gc.get_freeze_count` counts them one by one
        spare_loaded()
