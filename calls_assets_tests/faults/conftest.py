"""Prints the harnesses' counts at the end of the run, seeds included."""

from __future__ import annotations

from pytest import TerminalReporter  # noqa: PT013 - for the annotation

from calls_assets_tests.faults.counts import LINES


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Prints the lines, captured or not."""
    for line in LINES:
        terminalreporter.write_line(line)
