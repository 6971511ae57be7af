"""Celery workers as they run on machines of their own: nothing in common but the lake, PostgreSQL and the broker."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from calls_assets_tests.e2e.dagster_dev import ROOT

_TASK = re.compile(r"Task execute_job\[([0-9a-f-]+)\] (received|succeeded)")

_RUN = re.compile(r" ([0-9a-f-]{36}) - \d+ - RUN_(START|SUCCESS|FAILURE) ")


@dataclass(frozen=True)
class Worker:
    """A worker with one process for runs.

    Attributes:
        process: Leader of its group.
        log: What it wrote.
    """

    process: subprocess.Popen[bytes]
    log: Path

    def is_ready(self) -> bool:
        """Tells whether it takes runs."""
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        return "ready." in self.log.read_text()

    def tasks(self, what: str) -> set[str]:
        """Lists the tasks that it received, or that succeeded."""
        return {task for task, said in _TASK.findall(self.log.read_text()) if said == what}

    def at_work(self) -> str | None:
        """Gives the run that it is executing, or None; quicker than Dagster could say."""
        said = _RUN.findall(self.log.read_text())
        return said[-1][0] if said and said[-1][1] == "START" else None

    def kill(self) -> None:
        """Kills it with its processes, as the loss of its machine would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def run_worker(root: Path, name: str, environment: Mapping[str, str]) -> Iterator[Worker]:
    """Runs a worker with a home and a working directory of its own."""
    home = root / name
    home.mkdir()
    shutil.copy(Path(environment["DAGSTER_HOME"]) / "dagster.yaml", home / "dagster.yaml")
    binaries = Path(sys.executable).parent
    command = [
        *(str(binaries / "dagster-celery"), "worker", "start", "-A", "dagster_celery.app"),
        *("--name", name, "-y", str(ROOT / "deploy/celery-worker.yaml"), "--", "--concurrency", "1"),
    ]
    variables = dict(environment) | {"DAGSTER_HOME": str(home), "PATH": f"{binaries}:{environment['PATH']}"}
    log = home / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=home, env=variables, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield Worker(process, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
