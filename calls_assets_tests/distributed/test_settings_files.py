"""The instance settings for more than one machine: the same as dagster.yaml but for what their names say."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from calls_assets_tests.e2e.dagster_dev import ROOT


def read(name: str) -> dict[str, Any]:
    """Reads a file of settings."""
    settings: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return settings


def _without(settings: dict[str, Any], sections: set[str]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in sections}


@pytest.mark.parametrize(
    ("name", "base", "sections"),
    [
        ("deploy/dagster-postgres.yaml", "dagster.yaml", {"storage"}),
        ("deploy/dagster-celery.yaml", "deploy/dagster-postgres.yaml", {"run_launcher"}),
    ],
)
def test_a_settings_file_differs_by_its_own_sections_only(name: str, base: str, sections: set[str]) -> None:
    """Dagster cannot include one file in another: a change to dagster.yaml is to be made in all of them."""
    settings = read(name)
    assert sections <= settings.keys()
    assert _without(settings, sections) == _without(read(base), sections)


def test_no_address_and_no_password_stands_in_a_settings_file() -> None:
    """They come from variables, so that the files can be committed and copied as they are."""
    database = read("deploy/dagster-celery.yaml")["storage"]["postgres"]["postgres_db"]
    assert database.pop("scheme") == "postgresql+psycopg2"
    launcher = read("deploy/dagster-celery.yaml")["run_launcher"]["config"]
    worker = read("deploy/celery-worker.yaml")["execution"]["config"]
    assert worker.pop("config_source")
    for value in [*database.values(), *launcher.values(), *worker.values()]:
        assert set(value) == {"env"}
