from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from calls_assets.collector import hold_collector

LOAD = "import calls_assets.definitions"
USE = "import duckdb; connection = duckdb.connect(); connection.sql('SELECT 1').fetchall()"
COUNT = "import gc; print(gc.get_freeze_count())"


def fail_while_held() -> None:
    """Ends with an error after a look at the collector."""
    with hold_collector():
        assert not gc.isenabled()
        raise ValueError("inside")


@pytest.mark.parametrize("is_enabled", [True, False])
def test_the_collector_is_off_meanwhile_and_afterwards_as_it_was(is_enabled: bool) -> None:
    """Also after an error."""
    if not is_enabled:
        gc.disable()
    try:
        with pytest.raises(ValueError, match="inside"):
            fail_while_held()
        assert gc.isenabled() is is_enabled
    finally:
        gc.enable()


@pytest.mark.parametrize(("code", "is_spared"), [((LOAD, USE), True), ((USE, LOAD), False)], ids=["before", "after"])
def test_the_collector_is_spared_what_the_definitions_load(code: tuple[str, str], is_spared: bool) -> None:
    """Before DuckDB is loaded or not at all: it says nothing of leaks when Python ends."""
    command = [sys.executable, "-c", "; ".join((*code, COUNT))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (int(done.stdout) > 100_000) is is_spared
    assert done.stderr == ""
