"""What several packages of tests share."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from calls_assets_tests.lakes import FinishedLake, make_lake

# How fast examples are made says something about the machine, not about the tests.
settings.register_profile("calls-assets", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calls-assets")


@pytest.fixture(scope="session")
def finished_lake(tmp_path_factory: pytest.TempPathFactory) -> FinishedLake:
    """Gives sixty days of tables and marts; not to be written to."""
    return make_lake(tmp_path_factory.mktemp("finished") / "data")
