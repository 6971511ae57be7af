"""Run workers, forked from a process that has loaded what a run needs.

What belongs here: that one step, which Dagster leaves out. Its code server starts each run in a process that loads
Dagster, pandas and the rest anew (1.13, `DagsterApiServer.__init__`: "spawn"), which is half the time from a sensor's
tick to a row. Here a process in which nothing else happens loads them once, when the first run starts, and each run is
a fork of it: Python's "forkserver" (https://docs.python.org/3/library/multiprocessing.html#contexts-and-start-methods).
All else stays Dagster's: queue, cancellation, what happens when a worker dies.
"""

from __future__ import annotations

import sys
from multiprocessing import get_context
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster._grpc.server import DagsterApiServer

LOADED = (
    "dagster._cli",
    "dagster._core.workspace.context",
    "dagster._grpc.impl",
    "calls_assets.defs",
    "calls_assets.report.page",
    "calls_assets.run_history",
    "calls_assets.run_queue",
    "duckdb",
    "matplotlib.backends.backend_svg",
    "pandas",
    "pyarrow.acero",
    "pyarrow.dataset",
    "upath",
    "uvloop",
)
"""Modules loaded before the first fork. `calls_assets.definitions` is not among them: each run reads the settings."""


def fork_run_workers() -> None:
    """Has the code server of this process, if it is one, fork its run workers.

    Does nothing elsewhere than on Linux: frameworks of macOS may crash in a fork.
    """
    server = sys.modules.get("dagster._grpc.server")
    if server is None or sys.platform != "linux":
        return
    context = get_context("forkserver")
    context.set_forkserver_preload(list(LOADED))
    start_run = server.DagsterApiServer.StartRun

    def start_forked_run(self: DagsterApiServer, *call: object) -> object:
        self._mp_ctx = context  # type: ignore[assignment] # it makes the process, its queue and its event
        return start_run(self, *call)

    server.DagsterApiServer.StartRun = start_forked_run
