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


def run_python(*code: str) -> str:
    """Gives what a new Python prints, which must not have anything to report."""
    done = subprocess.run([sys.executable, "-c", "\n".join(code)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(("code", "is_spared"), [((LOAD, USE), True), ((USE, LOAD), False)], ids=["before", "after"])
def test_the_collector_is_spared_what_the_definitions_load(code: tuple[str, str], is_spared: bool) -> None:
    """Before DuckDB is loaded or not at all: it says nothing of leaks when Python ends."""
    assert (int(run_python(*code, COUNT)) > 100_000) is is_spared


def test_nothing_is_collected_while_the_definitions_are_loaded() -> None:
    """Next to nothing of it is garbage; afterwards the collector does its work."""
    watch = "gc.callbacks.append(lambda *_: calls.append(1))"
    prepare = "import dagster, gc, calls_assets.collector; calls = []; gc.collect()"
    shown = run_python(prepare, watch, LOAD, "print(len(calls), gc.isenabled())")
    assert shown == "0 True\n"


SWEEP = """
import datetime, pathlib, tempfile, zoneinfo
from calls_assets_tests.ingest.model import ModelCall, ModelVendor, run_sweep
noon = datetime.datetime(2025, 5, 13, 12, tzinfo=datetime.UTC)
vendor = ModelVendor([ModelCall(100 + number, noon) for number in range(300)], noon + datetime.timedelta(days=9))
before, generations = gc.get_freeze_count(), []

def note(phase, info):
    if phase == "stop" and not gc.isenabled():  # not by itself, and so by the sweep
        generations.append(info["generation"])

gc.callbacks.append(note)
with tempfile.TemporaryDirectory() as name:
    run_sweep(pathlib.Path(name), vendor, [noon.date()], zoneinfo.ZoneInfo("UTC"))
"""


def limit(name: str, most: int) -> str:
    """Gives code that sets a limit of sweeps."""
    return f"import gc, sys, calls_assets.ingest; sys.modules['calls_assets.ingest.sweep'].{name} = {most}"


@pytest.mark.parametrize(
    ("limited", "is_collected"),
    [
        (("LAND_EVERY_ANSWERS", 2_000), False),
        (("LAND_EVERY_ANSWERS", 100), True),
        (("LAND_EVERY_BYTES", 10_000), True),
    ],
)
def test_a_sweep_collects_after_many_answers_only(limited: tuple[str, int], is_collected: bool) -> None:
    """A few hundred leave next to nothing; what a small sweep loads is most of what there is to walk through."""
    assert (int(run_python(limit(*limited), SWEEP, "print(generations.count(1))")) > 0) is is_collected


def test_the_collector_is_spared_what_a_small_sweep_has_loaded() -> None:
    """In a run; not in other processes, nor what is left of a large one."""
    say = "print(gc.get_freeze_count() - before > 10_000)"
    assert run_python("import gc", LOAD, SWEEP, say) == "True\n"
    assert run_python("import gc", SWEEP, say) == "False\n"
    assert run_python(limit("LAND_EVERY_ANSWERS", 100), LOAD, SWEEP, say) == "False\n"


def test_the_collector_is_spared_what_a_run_has_loaded_since() -> None:
    """Before it makes marts, for which it loads DuckDB; without marts when Python ends."""
    load_more = "import gc, pandas; before = gc.get_freeze_count()"
    say = "(gc.get_freeze_count() - before > 10_000)"
    connect = "from calls_assets.marts.query import connect; context = connect(); context.__enter__()"
    use = (connect, f"print{say}", "context.__exit__(None, None, None)")
    assert run_python(LOAD, load_more, *use) == "True\n"
    assert run_python(load_more, *use) == "False\n"  # a process that is not Dagster's
    assert run_python(f"import atexit; atexit.register(lambda: print{say})", LOAD, load_more) == "True\n"
