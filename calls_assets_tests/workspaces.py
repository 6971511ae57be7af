"""The project's code location, opened in the tests' own process as Dagster's web server and daemon open it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import dagster as dg
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceLoadTarget


@contextmanager
def open_workspace(instance: dg.DagsterInstance, target: WorkspaceLoadTarget) -> Iterator[WorkspaceProcessContext]:
    """Opens a workspace and waits in the end for its code server, which Dagster leaves behind as it is ending.

    Python warns of a process that nobody waited for, whenever its object is collected: in whatever test runs then.
    """
    with (
        mock.patch.object(dg.DagsterInstance, "wait_for_local_code_server_processes_on_shutdown", new=True),
        WorkspaceProcessContext(instance, target, code_server_log_level="DEBUG") as context,
    ):
        yield context
