"""A new token in CALLS_API_TOKEN_FILE while a run is at work, over real HTTP."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from calls_assets.defs import build_definitions
from calls_assets.settings import Settings
from calls_assets.simulator import serve
from calls_assets_tests.defs.scripted import ScriptedVendor
from calls_assets_tests.e2e.running import TOKEN, read_rows

DAY = date(2025, 6, 2)
OLD_TOKEN = "old-token"


class RotatingVendor(ScriptedVendor):
    """Takes the old token for some answers, then only the new one, which is in the file by then, or not.

    Attributes:
        file: The token's file.
        refused: Answers of 401.
    """

    file: Path
    refused: int = 0

    async def _answer(self, request: Request) -> Response:
        token = request.headers.get("access-token")
        if token == OLD_TOKEN:
            if sum(self.asked.values()) < 60:
                request.scope["headers"] = [(b"access-token", TOKEN.encode())]
                return await super()._answer(Request(request.scope))
            if self.refused == 0 and self.file.name == "token":
                new = self.file.with_suffix(".new")
                new.write_text(f"{TOKEN}\n")
                new.replace(self.file)
            self.refused += 1
            return JSONResponse({"error": "token"}, status_code=401)
        return await super()._answer(request)


@pytest.mark.parametrize("name", ["token", "token that nobody changes"])
def test_a_run_goes_on_with_the_new_token(name: str, tmp_path: Path) -> None:
    """Every call is stored, none asked for twice but those refused; without a new token the run ends in one line."""
    script = RotatingVendor()
    script.file = tmp_path / name
    script.file.write_text(OLD_TOKEN)
    script.add_day(100, 88, datetime(2025, 6, 2, tzinfo=UTC))
    script.add_day(188, 1, datetime(2025, 6, 2, tzinfo=UTC) + timedelta(days=1))
    with serve(script.app()) as server, dg.DagsterInstance.ephemeral() as instance:
        settings = Settings(
            data_dir=tmp_path / "lake",
            start_date=date(2025, 1, 1),
            api_base_url=server.url,
            api_token_file=script.file,
            requests_per_second=5_000,
        )
        job = build_definitions(settings).resolve_job_def("sweep_job")
        selection = [dg.AssetKey("call_records"), dg.AssetKey("call_events"), dg.AssetKey("calls")]
        result = job.execute_in_process(
            partition_key=DAY.isoformat(), instance=instance, asset_selection=selection, raise_on_error=False
        )
    assert script.refused >= 1
    if name != "token":
        (failure,) = (event.step_failure_data.user_failure_data for event in result.get_step_failure_events())
        assert failure is not None
        assert "denied access" in str(failure.description)
        assert OLD_TOKEN not in str(failure.description)
        return
    assert result.success
    assert [row["call_id"] for row in read_rows(tmp_path / "lake", "calls", DAY)] == list(range(100, 188))
    assert max(script.asked.values()) == 1
