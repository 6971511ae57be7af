"""Run workers, forked from a process that has loaded what a run needs.

What belongs here: that one step, which Dagster leaves out. Its code server starts each run in a process that loads
Dagster, pandas and the rest anew (1.13, `DagsterApiServer.__init__`: "spawn"), which is half the time from a sensor's
tick to a row. Here a process in which nothing else happens, the fork server, loads them once, when the first run
starts, and each run is a fork of it
(https://docs.python.org/3/library/multiprocessing.html#contexts-and-start-methods). All else stays Dagster's: queue,
cancellation, what happens when a worker dies. Where there can be no fork, a run starts as Dagster has it.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import logging
import os
import signal
import sys
from contextlib import suppress
from multiprocessing.context import ForkServerContext, ForkServerProcess, SpawnProcess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from dagster._grpc.server import DagsterApiServer

LOADED = (
    "dagster._cli",
    "dagster._core.workspace.context",
    "dagster._grpc.impl",
    "dagster_postgres",
    "calls_assets.defs",
    "calls_assets.report.page",
    "calls_assets.run_history",
    "calls_assets.run_queue",
    "duckdb",
    "obstore.store",
    "pandas",
    "pyarrow.acero",
    "pyarrow.dataset",
    "upath",
)
"""Modules loaded before the first fork, where they are installed. `calls_assets.definitions` is not among them: each
run reads the settings."""


def fork_run_workers() -> None:
    """Has the code server of this process, if it is one, fork its run workers.

    Does nothing elsewhere than on Linux: frameworks of macOS may crash in a fork.
    """
    server = sys.modules.get("dagster._grpc.server")
    if server is None or sys.platform != "linux":
        return
    context = _Context()
    context.set_forkserver_preload(["calls_assets.fork_server"])
    start_run = server.DagsterApiServer.StartRun

    def start_forked_run(self: DagsterApiServer, *call: object) -> object:
        self._mp_ctx = context  # type: ignore[assignment] # it makes the process, its queue and its event
        return start_run(self, *call)

    server.DagsterApiServer.StartRun = start_forked_run


class _Worker(ForkServerProcess):
    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:  # noqa: ANN401, N802 - multiprocessing's own, without a type
        try:
            return ForkServerProcess._Popen(process_obj)
        except (OSError, EOFError) as problem:
            # It could not start, for example because the path of its socket is too long, or the socket's file is gone.
            logging.getLogger("dagster").warning("a run is not forked, but starts by itself: %r", problem)
            return SpawnProcess._Popen(process_obj)


class _Context(ForkServerContext):
    Process = _Worker


def prepare_to_fork() -> None:
    """Loads what runs need; for the fork server, which imports `calls_assets.fork_server`.

    What cannot be loaded is left to the run that needs it, which then says what is wrong. A request to terminate is
    for the runs: the fork server ends with the code server. Objects that are there now are kept out of garbage
    collections, which would write to them and so end their sharing between processes.
    """
    for name in LOADED:
        with suppress(Exception):
            importlib.import_module(name)
    former = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, former))
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # else DuckDB, when Python ends, takes what it finds for leaks
