"""What several packages of tests share."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from pytest import TerminalReporter  # noqa: PT013 - for the annotation

from calls_assets_tests.faults.counts import LINES
from calls_assets_tests.lakes import FinishedLake, make_lake

# How fast examples are made says something about the machine, not about the tests.
settings.register_profile("calls-assets", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calls-assets")


@pytest.fixture(scope="session")
def finished_lake(tmp_path_factory: pytest.TempPathFactory) -> FinishedLake:
    """Gives sixty days of tables and marts; not to be written to."""
    return make_lake(tmp_path_factory.mktemp("finished") / "data")


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Prints the harnesses' counts, seeds included, captured or not."""
    for line in LINES:
        terminalreporter.write_line(line)
