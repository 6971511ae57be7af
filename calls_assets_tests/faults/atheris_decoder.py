"""The contract under a coverage-guided fuzzer: `python -m calls_assets_tests.faults.atheris_decoder -runs=1000000`.

For environments that have atheris (`pip install atheris`): with its wheels for a few Pythons only, it is no dependency.
Options are libFuzzer's, and so is the end: a body that crashes, hangs or is quoted is written to a file. Coverage is
that of our Python; the JSON decoder below it is another project's C.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from random import Random
from types import FunctionType

from calls_assets_tests.faults import fuzz
from calls_assets_tests.faults.counts import SEED

CALL_ID = fuzz.FIRST_ID
_SEEDS = 300
_MODULES = ("calls_assets.api.contract", "calls_assets.api.documented")


def list_seeds() -> list[bytes]:
    """Gives bodies to begin with: those that the other fuzzer tries, all about one id."""
    random = Random(SEED)
    return [fuzz.mutate(random, CALL_ID) for _ in range(_SEEDS)]


def try_body(body: bytes) -> None:
    """Raises AssertionError when the contract does anything but take a body or refuse it, soon and discreetly."""
    problem = fuzz.find_crash(CALL_ID, body)
    assert problem is None, problem


def main() -> None:
    """Fuzzes until libFuzzer has had enough; it ends the process."""
    atheris = importlib.import_module("atheris")
    for name in _MODULES:
        module = importlib.import_module(name)
        for function in vars(module).values():
            if isinstance(function, FunctionType) and function.__module__ == name:
                atheris.instrument_func(function)
    with tempfile.TemporaryDirectory() as corpus:
        for number, body in enumerate(list_seeds()):
            (Path(corpus) / str(number)).write_bytes(body)
        options = [f"-seed={SEED}", f"-timeout={fuzz.MOST_SECONDS:.0f}", "-max_len=8192"]
        atheris.Setup([sys.argv[0], *options, *sys.argv[1:], corpus], try_body)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
