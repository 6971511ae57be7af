"""What several packages of tests share."""

from __future__ import annotations

import pytest

from calls_assets_tests.lakes import FinishedLake, make_lake


@pytest.fixture(scope="session")
def finished_lake(tmp_path_factory: pytest.TempPathFactory) -> FinishedLake:
    """Gives sixty days of tables and marts; not to be written to."""
    return make_lake(tmp_path_factory.mktemp("finished") / "data")
