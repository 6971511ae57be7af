"""What every harness shares: its seed, its length, and the line of counts it prints."""

from __future__ import annotations

import json
import os

IS_TORTURE = os.environ.get("CALLS_TORTURE") == "1"
SEED = int(os.environ.get("CALLS_TEST_SEED", "20250520"))
LINES: list[str] = []
"""Lines for the end of the run; `conftest` prints them."""


def tell(harness: str, **counts: object) -> None:
    """Prints one JSON line of counts at the end of the run."""
    LINES.append(json.dumps({"harness": harness, "seed": SEED, "torture": IS_TORTURE, **counts}))


def choose(fast: int, torture: int) -> int:
    """Gives the amount for this run."""
    return torture if IS_TORTURE else fast
