"""A vendor whose calls a test writes down, over real HTTP, and runs of the assets against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from calls_assets.defs import build_definitions
from calls_assets.settings import Settings
from calls_assets.simulator import serve
from calls_assets_tests.e2e.running import TOKEN

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


@dataclass
class ScriptedVendor:
    """Calls by id, and what goes wrong with some.

    Attributes:
        calls: Bodies by id; an id that is not there is answered with 404.
        failing: Ids answered with 500.
        asked: How often each id was asked for.
    """

    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    failing: set[int] = field(default_factory=set)
    asked: Counter[int] = field(default_factory=Counter)

    def add(self, id_: int, started_at: datetime, **fields: object) -> None:
        """Adds a call of a minute."""
        call = {"id": id_, "started_at": int(started_at.timestamp()), "is_ended": True, "duration": 60, **fields}
        self.calls[id_] = {"calls": call}

    def add_day(self, first_id: int, count: int, day: datetime) -> range:
        """Adds calls every quarter of an hour from one in the morning on; gives their ids."""
        for offset in range(count):
            self.add(first_id + offset, day + timedelta(hours=1, minutes=15 * offset))
        return range(first_id, first_id + count)

    async def _answer(self, request: Request) -> Response:
        if request.headers.get("access-token") != TOKEN:
            return JSONResponse({"error": "token"}, status_code=401)
        id_ = int(request.path_params["call_id"])
        self.asked[id_] += 1
        if id_ in self.failing:
            return JSONResponse({"error": "later"}, status_code=500)
        if id_ not in self.calls:
            return JSONResponse({"error": "not found"}, status_code=404)
        return JSONResponse(self.calls[id_])

    def app(self) -> Starlette:
        """Gives the web application."""
        return Starlette(routes=[Route("/calls/{call_id}", self._answer)])

    @contextmanager
    def deployed(self, root: Path, **others: Any) -> Iterator[Settings]:  # noqa: ANN401 - any of the settings
        """Serves the account, and gives the settings of a fresh deployment on it below a directory."""
        with serve(self.app()) as server:
            fresh = Settings(
                data_dir=root / "lake",
                start_date=date(2025, 1, 1),
                api_base_url=server.url,
                api_token=TOKEN,
                requests_per_second=5_000,
                max_attempts=1,
            )
            yield replace(fresh, **others)


@dataclass(frozen=True)
class Ran:
    """A run and what it reported.

    Attributes:
        success: Whether it succeeded.
        materialized: (asset, partition) of each event; the partition is empty where there is none.
        failed_checks: (check, partition) of each check that did not hold.
        passed_checks: (check, partition) of each that did.
        failure: What the failure says, empty without one.
        log: Every message of the run.
        metadata: Metadata of each (asset, partition).
    """

    success: bool
    materialized: list[tuple[str, str]]
    failed_checks: set[tuple[str, str | None]]
    passed_checks: set[tuple[str, str | None]]
    failure: str
    log: str
    metadata: dict[tuple[str, str], dict[str, Any]]


def run(
    settings: Settings,
    instance: dg.DagsterInstance,
    first: date,
    last: date | None = None,
    *,
    job_name: str = "sweep_job",
    only: Collection[str] = (),
    **config: bool,
) -> Ran:
    """Runs a job for a day or a range of days in one run, or some of its assets only."""
    job = build_definitions(settings).resolve_job_def(job_name)
    tags = {RANGE_START: first.isoformat(), RANGE_END: last.isoformat()} if last else {}
    result = job.execute_in_process(
        partition_key=None if last else first.isoformat(),
        tags=tags,
        asset_selection=[dg.AssetKey(name) for name in only] or None,
        run_config={"ops": {"call_records": {"config": config}}} if config else None,
        instance=instance,
        raise_on_error=False,
    )
    events = result.all_events
    checks = [e.event_specific_data for e in events if e.event_type_value == "ASSET_CHECK_EVALUATION"]
    evaluations = [data for data in checks if isinstance(data, dg.AssetCheckEvaluation)]
    found = [e.step_materialization_data.materialization for e in events if e.is_step_materialization]
    failures = [e.step_failure_data.user_failure_data for e in events if e.is_step_failure]
    metadata = {
        (made.asset_key.to_user_string(), made.partition or ""): {
            name: value.value for name, value in made.metadata.items()
        }
        for made in found
    }
    return Ran(
        success=result.success,
        materialized=[(made.asset_key.to_user_string(), made.partition or "") for made in found],
        failed_checks={(e.check_name, e.partition) for e in evaluations if not e.passed},
        passed_checks={(e.check_name, e.partition) for e in evaluations if e.passed},
        failure=" ".join(str(failure.description) for failure in failures if failure is not None),
        log="\n".join(str(entry.user_message) for entry in instance.all_logs(result.run_id)),
        metadata=metadata,
    )
