"""Runs the benchmarks and writes docs/performance.md.

    python benchmarks/bench.py [MODULE …]     all of them, or those named; the others keep their last results
    python benchmarks/bench.py --page         the page only, from benchmarks/results.jsonl and benchmarks/notes.md

With QUICK=1 everything is smaller, and results and page go to `.bench/quick`: they are for trying out only. Peers get
virtual environments of their own below `.bench`, from the lock files in `benchmarks/peers`.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import venv
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import BENCH, PEERS, QUICK, ROOT, tell
from page import write_page

MODULES = ("sweep", "latency", "rebuild", "overhead", "growth", "reading", "storage")
_SHOWN = {
    None: ("httpx", "httptools", "msgspec", "pyarrow", "duckdb", "dagster"),
    "scripts": ("httpx", "httpx-aiohttp", "aiohttp", "uvloop"),
    "dlt": ("dlt", "aiohttp", "pyarrow"),
    "airbyte_cdk": ("airbyte-cdk", "requests"),
    "pyairbyte": ("airbyte", "airbyte-cdk", "duckdb"),
    "singer": ("singer-sdk", "requests"),
    "target_jsonl": ("target-jsonl", "singer-python"),
}
_VERSIONS = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"


def main() -> int:
    """Runs what is asked for; gives the number of modules that failed."""
    folder = BENCH / "quick" if QUICK else ROOT / "benchmarks"
    results, page = folder / "results.jsonl", (folder if QUICK else ROOT / "docs") / "performance.md"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    failed = 0
    if "--page" not in sys.argv:
        wanted = sys.argv[1:] or [name for name in MODULES if (ROOT / "benchmarks" / f"{name}.py").exists()]
        commit = describe_commit()  # before results differ from it
        prepare_peers()
        for name in wanted:
            found = run_module(name, commit)
            failed += found is None
            if found:
                kept = [line for line in lines if line.get("module") != name]
                lines = sorted(kept + found, key=_place)
                results.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_page(page, lines, has_all=not failed)
    tell(f"{page} written{f'; {failed} benchmarks failed' if failed else ''}")
    return failed


def prepare_peers() -> None:
    """Makes each peer's virtual environment, unless it is there and as new as its lock file."""
    BENCH.mkdir(exist_ok=True)
    (BENCH / ".gitignore").write_text("*\n")
    for lock in sorted(PEERS.glob("*.lock")):
        target = BENCH / lock.stem
        ready = target / ".ready"
        if ready.exists() and ready.read_text() == lock.read_text():
            continue
        tell(f"installing {lock.name}")
        venv.create(target, clear=True, with_pip=True, symlinks=True)
        pip = [str(target / "bin/pip"), "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*pip, "--require-hashes", "--no-deps", "-r", str(lock)], check=True)
        ready.write_text(lock.read_text())


def run_module(name: str, commit: str) -> list[dict[str, Any]] | None:
    """Runs one benchmark of a commit in a process; gives its lines, or None when it failed."""
    tell(f"== {name}")
    began, load = datetime.now(UTC), os.getloadavg()[0]
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py")]
    path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))).rstrip(os.pathsep)
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=False, env=os.environ | {"PYTHONPATH": path}
    )
    if done.returncode:
        tell(f"{name} ended with {done.returncode}: its last results are kept")
        return None
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    about = {
        "module": name,
        "commit": commit,
        "machine": describe_machine(),
        "versions": {str(venv_name or "calls-assets"): describe_venv(venv_name) for venv_name in _SHOWN},
        "began": began.isoformat(timespec="seconds"),
        "minutes": round((datetime.now(UTC) - began).total_seconds() / 60, 1),
        "load_before": round(load, 2),
    }
    return [about, *({"module": name} | line for line in lines)]


def describe_commit() -> str:
    """Gives the commit that is measured; a plus says that files differ from it."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT, check=False)
    return done.stdout.strip() or "-"


def describe_machine() -> dict[str, str]:
    """Gives what the figures depend on."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")), "")
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": model or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{pages / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def describe_venv(name: str | None) -> dict[str, str]:
    """Gives the versions of a virtual environment's chief packages."""
    python = sys.executable if name is None else str(BENCH / name / "bin/python")
    done = subprocess.run([python, "-c", _VERSIONS, *_SHOWN[name]], stdout=subprocess.PIPE, text=True, check=True)
    versions: dict[str, str] = json.loads(done.stdout)
    return versions


def _place(line: dict[str, Any]) -> int:
    name = line["module"]
    return MODULES.index(name) if name in MODULES else len(MODULES)


if __name__ == "__main__":
    sys.exit(main())
