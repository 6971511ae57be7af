"""That no coverage is measured amid faults: to measure it makes them take more than twice as long."""

from __future__ import annotations

import sys
import threading


def test_no_coverage_is_measured_here() -> None:
    """Also not in the processes of pytest-xdist."""
    assert sys.gettrace() is None
    assert threading.gettrace() is None
