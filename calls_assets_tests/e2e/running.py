"""Running the project as its users do: commands in processes of their own, with nothing but environment variables."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from datetime import date, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from obstore.store import from_url

from calls_assets.settings import Location

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "simulator-token"
TABLES = ("calls", "call_agents", "recordings", "dispositions", "call_tags", "external_numbers", "call_changes")


def make_environment(root: Path, base_url: str, **settings: str) -> dict[str, str]:
    """Gives the variables of a deployment below a directory."""
    home = root / "dagster_home"
    home.mkdir(exist_ok=True)
    shutil.copy(ROOT / "dagster.yaml", home)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CALLS_", "DAGSTER_"))}
    return {
        **kept,
        "DAGSTER_HOME": str(home),
        "CALLS_DATA_DIR": str(root / "lake"),
        "CALLS_API_BASE_URL": base_url,
        "CALLS_API_TOKEN": TOKEN,
        "CALLS_API_REQUESTS_PER_SECOND": "20000",
        "CALLS_START_DATE": "2025-01-01",
        **settings,
    }


def run_dagster(
    environment: Mapping[str, str], *arguments: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a dagster command."""
    return subprocess.run(
        [sys.executable, "-m", "dagster", *arguments],
        env=dict(environment),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def materialize(environment: Mapping[str, str], *arguments: str, select: str = "*") -> subprocess.CompletedProcess[str]:
    """Materializes assets, as `dagster asset materialize` does."""
    return run_dagster(
        environment, "asset", "materialize", "-m", "calls_assets.definitions", "--select", select, *arguments
    )


def read_stats(url: str, *, ids: bool = False) -> dict[str, Any]:
    """Asks the simulator what it served."""
    with urllib.request.urlopen(f"{url}/stats{'?ids=1' if ids else ''}", timeout=10) as response:  # noqa: S310 - our own server
        stats: dict[str, Any] = json.load(response)
    return stats


def read_rows(
    lake: Location, table: str, day: date | None = None, columns: list[str] | None = None
) -> list[dict[str, Any]]:
    """Reads a table's file of a day, or its only file, in a directory or an object store, without our code."""
    key = f"tables/{table}/{f'call_date={day}/' if day else ''}{table}.parquet"
    source = lake / key if isinstance(lake, Path) else BytesIO(from_url(lake).get(key).bytes())
    rows: list[dict[str, Any]] = pq.ParquetFile(source).read(columns).to_pylist()
    return rows


def list_files(lake: Location) -> dict[str, object]:
    """Lists the Parquet files of a lake, each with what changes when it is written again."""
    if isinstance(lake, Path):
        return {str(path): path.stat() for path in lake.rglob("*.parquet")}
    files = (file for batch in from_url(lake).list() for file in batch)
    return {file["path"]: (file["last_modified"], file["e_tag"]) for file in files if file["path"].endswith(".parquet")}


def days_between(first: date, last: date) -> list[date]:
    """Lists the days from the first to the last."""
    return [first + timedelta(days=offset) for offset in range((last - first).days + 1)]
