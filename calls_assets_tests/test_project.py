"""The project as a whole: what its files promise to each other and to a fresh clone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import DagsterInstance

ROOT = Path(__file__).parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETTINGS = set(re.findall(r"CALLS_[A-Z_]+[A-Z]", (ROOT / "calls_assets/settings.py").read_text()))
BIN = Path(sys.executable).parent


def run(*arguments: str | Path, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a command with no variable of ours set but those given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CALLS_", "DAGSTER_"))}
    return subprocess.run(
        arguments, cwd=cwd, env=kept | variables, capture_output=True, text=True, timeout=200, check=False
    )


def test_workspace_and_dg_name_the_same_code() -> None:
    """`dagster dev -w` and `dg` load one and the same location."""
    (entry,) = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    project = PYPROJECT["tool"]["dg"]["project"]
    module = entry["python_module"]
    assert module["module_name"] == project["code_location_target_module"]
    assert module["location_name"] == project["code_location_name"]
    assert project["root_module"] == module["module_name"].split(".")[0]


def test_definitions_load_with_nothing_configured(tmp_path: Path) -> None:
    """`dagster definitions validate` and `dg check defs` work before there is an API."""
    validated = run(
        BIN / "dagster", "definitions", "validate", "-w", ROOT / "workspace.yaml", DAGSTER_HOME=str(tmp_path)
    )
    assert validated.returncode == 0, validated.stderr
    assert "Validation successful" in validated.stderr + validated.stdout
    checked = run(BIN / "dg", "check", "defs", DAGSTER_HOME=str(tmp_path))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "All definitions loaded successfully" in checked.stdout + checked.stderr


def test_loading_the_definitions_loads_no_more_than_a_quiet_run_needs() -> None:
    """Each process of Dagster, and each run, would pay for it."""
    heavy = ("pandas", "pygal", "duckdb", "polars", "starlette", "uvicorn", "jinja2.sandbox")
    code = f"import sys, calls_assets.definitions; print([name for name in {heavy} if name in sys.modules])"
    assert run(sys.executable, "-c", code).stdout.strip() == "[]"


def test_a_wrong_setting_is_named_where_definitions_load(tmp_path: Path) -> None:
    """The last line says which variable, what is wrong and what to write."""
    validated = run(
        BIN / "dagster",
        "definitions",
        "validate",
        "-m",
        "calls_assets.definitions",
        DAGSTER_HOME=str(tmp_path),
        CALLS_TIMEZONE="Mars/Base",
    )
    assert validated.returncode != 0
    assert "CALLS_TIMEZONE='Mars/Base' is not a time zone: use a name such as" in validated.stdout + validated.stderr


def test_the_instance_settings_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster takes dagster.yaml; the pool is limited to one run, the queue wakes every second."""
    shutil.copy(ROOT / "dagster.yaml", tmp_path / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        config = instance.get_concurrency_config()
        assert config.pool_config.default_pool_limit == 1
        assert str(config.pool_config.pool_granularity) == "PoolGranularity.RUN"
        assert instance.run_monitoring_enabled
        assert not instance.telemetry_enabled


def test_every_setting_is_documented() -> None:
    """In .env.example and in docs/operations.md, and nothing that does not exist."""
    example = set(re.findall(r"^#? ?(CALLS_[A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    operations = set(re.findall(r"^\| `(CALLS_[A-Z_]+)`", (ROOT / "docs/operations.md").read_text(), re.MULTILINE))
    assert example == SETTINGS
    assert operations == SETTINGS


def test_links_between_documents_lead_somewhere() -> None:
    """Every relative link of every page."""
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "data/README.md", ROOT / "deploy/README.md"]:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


@pytest.mark.parametrize(
    ("name", "extra"),
    [("requirements.lock", "dev"), ("requirements-readers.lock", "readers"), ("deploy/requirements.lock", "image")],
)
def test_the_lock_file_is_hashed_and_names_no_registry(name: str, extra: str) -> None:
    """Everything it installs is pinned and hashed, and comes from whatever registry the user has configured."""
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert "index-url" not in text
    pins = re.findall(r"^([a-z0-9._-]+)==[^\s;]+.*\\\n    --hash=sha256:", text, re.MULTILINE | re.IGNORECASE)
    assert len(pins) == len(re.findall(r"^\S+==", text, re.MULTILINE)) > 50
    for requirement in [*PYPROJECT["project"]["dependencies"], *PYPROJECT["project"]["optional-dependencies"][extra]]:
        package = re.split(r"[\[<>=;]", requirement)[0]
        assert package in {*pins, "calls-assets"}, f"{package} is not in {name}: run make lock"


def test_the_lock_files_agree() -> None:
    """The readers are installed beside the rest, and change nothing there; the image has what was tested."""
    pins: list[dict[str, set[str]]] = []
    for name in ("requirements.lock", "requirements-readers.lock", "deploy/requirements.lock"):
        pins.append({})
        for package, version in re.findall(r"^(\S+)==([^\s;]+)", (ROOT / name).read_text(), re.MULTILINE):
            pins[-1].setdefault(package, set()).add(version)
    for others in pins[1:]:
        assert all(pins[0][package] == others[package] for package in pins[0].keys() & others.keys())


def test_every_dependency_says_why() -> None:
    """A comment behind each in pyproject.toml, but for those whose name is the reason."""
    text = (ROOT / "pyproject.toml").read_text()
    for requirement in PYPROJECT["project"]["dependencies"]:
        assert re.search(rf'"{re.escape(requirement)}",\s+# \S', text), requirement


@pytest.mark.parametrize(
    ("module", "line", "lint"),
    [
        ("calls_assets/lake/raw.py", "import dagster", "ruff"),
        ("calls_assets/ingest/plan.py", "from calls_assets.defs import build_definitions", "ruff"),
        ("calls_assets/lake/raw.py", "from calls_assets.ingest import sweep", "lint-imports"),
        ("calls_assets/api/client.py", "from calls_assets.lake import Lake", "lint-imports"),
        ("calls_assets/derive/day.py", "from calls_assets.ingest import sweep", "lint-imports"),
        ("calls_assets/ingest/plan.py", "from calls_assets.simulator import Vendor", "lint-imports"),
        ("calls_assets/simulator/vendor.py", "from calls_assets.lake import Lake", "lint-imports"),
    ],
)
def test_lint_fails_when_an_import_breaks_the_layers(tmp_path: Path, module: str, line: str, lint: str) -> None:
    """Only defs imports dagster, nobody imports defs, and the order of layers holds."""
    shutil.copytree(ROOT / "calls_assets", tmp_path / "calls_assets", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    options = "check --no-cache --select TID251 calls_assets" if lint == "ruff" else "--no-cache"
    arguments = [str(BIN / lint), *options.split()]
    whole = run(*arguments, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert whole.returncode == 0, whole.stdout + whole.stderr
    path = tmp_path / module
    path.write_text(f"{path.read_text()}\n{line}\n")
    broken = run(*arguments, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert broken.returncode != 0, broken.stdout
    assert "dagster" in broken.stdout or "defs" in broken.stdout or "BROKEN" in broken.stdout
