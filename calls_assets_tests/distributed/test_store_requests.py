"""What an account asks of an object store, which takes money for each request: ticks, and sweeps with all they make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from calls_assets.defs import build_definitions
from calls_assets.lake import DAILY_TABLES
from calls_assets.settings import Settings
from calls_assets.simulator import Account, SettableClock, Vendor, create_app, serve
from calls_assets_tests.e2e.running import TOKEN
from calls_assets_tests.e2e.test_dagster_dev import zone_at_noon
from calls_assets_tests.faults.counts import tell
from calls_assets_tests.stores import StoreProxy


@dataclass(frozen=True)
class Deployment:
    """An account on an object store.

    Attributes:
        settings: Its settings.
        instance: Its Dagster instance.
        store: The store.
        clock: The vendor's clock, which stands.
    """

    settings: Settings
    instance: dg.DagsterInstance
    store: StoreProxy
    clock: SettableClock

    def count(self) -> dict[str, int]:
        """Counts what the store was asked since the last look (POST deletes)."""
        heard = Counter("LIST" if one.method == "GET" and not one.key else one.method for one in self.store.heard)
        self.store.heard.clear()
        return dict(sorted(heard.items()))

    def sweep(self, back: int, *assets: str) -> dict[str, int]:
        """Sweeps the day so many days ago in one run, to some assets or all; gives what it asked of the store."""
        day = datetime.now(self.settings.timezone).date() - timedelta(days=back)
        job = build_definitions(self.settings).resolve_job_def("sweep_job")
        selected = [dg.AssetKey(name) for name in assets] or None
        assert job.execute_in_process(
            partition_key=day.isoformat(), instance=self.instance, asset_selection=selected
        ).success
        return self.count()

    def tick(self, name: str) -> tuple[str, dict[str, int]]:
        """Lets a sensor look; gives why it skipped and what it asked of the store."""
        definitions = build_definitions(self.settings)
        with dg.build_sensor_context(
            instance=self.instance, repository_def=definitions.get_repository_def(), resources=definitions.resources
        ) as context:
            outcome = definitions.resolve_sensor_def(name).evaluate_tick(context)
        assert not outcome.run_requests
        return str(outcome.skip_message), self.count()

    def wake(self) -> dict[str, int]:
        """Lets the nightly schedule look; gives what it asked of the store."""
        definitions = build_definitions(self.settings)
        with dg.build_schedule_context(
            instance=self.instance,
            repository_def=definitions.get_repository_def(),
            resources=definitions.resources,
            scheduled_execution_time=datetime.now(UTC),
        ) as context:
            assert definitions.resolve_schedule_def("nightly_sweep").evaluate_tick(context).run_requests
        return self.count()


@pytest.fixture
def deployment(store: StoreProxy, address: str, tmp_path: Path) -> Iterator[Deployment]:
    """Gives an account of 200 calls a day, at noon of its fourth one."""
    zone = zone_at_noon()
    first_day = datetime.now(zone).date() - timedelta(days=3)
    account = Account(first_day=first_day, calls_per_day=200, timezone=zone.key, first_id=400, missing_share=0)
    clock = SettableClock(datetime.now(UTC) - timedelta(hours=1), speed=0)
    home = tmp_path / "dagster_home"
    home.mkdir()
    with (
        serve(create_app(Vendor(account), token=TOKEN, clock=clock)) as server,
        dg.DagsterInstance.local_temp(str(home), overrides={"telemetry": {"enabled": False}}) as instance,
    ):
        settings = Settings(
            data_dir=address,
            start_date=first_day,
            api_base_url=server.url,
            api_token=TOKEN,
            requests_per_second=5_000,
            timezone=zone,
        )
        yield Deployment(settings, instance, store, clock)


def test_a_tick_in_which_nothing_happens_asks_a_few_times(deployment: Deployment) -> None:
    """A listing, and whose lake it is; for new ids also whether today's tables show what is stored."""
    for back in (1, 0):
        deployment.sweep(back, "call_records", *DAILY_TABLES)
    deployment.tick("new_call_ids")  # reads the newest file, once in a process
    ticks = {name: deployment.tick(name) for name in ("call_inbox", "new_call_ids")}
    tell("object store, requests of a tick", **{name: counted for name, (_, counted) in ticks.items()})
    assert ticks == {
        "call_inbox": ("nothing waits", {"GET": 1, "LIST": 1}),
        "new_call_ids": ("no new calls", {"GET": 2, "LIST": 4}),
    }


@pytest.mark.long
def test_a_sweep_asks_a_bounded_number_of_times(deployment: Deployment) -> None:
    """With all tables, marts and the page: of a day that is over, of today with new calls, and with due reads only."""
    found = {}
    for back in (3, 2, 1):
        found["a day that is over"] = deployment.sweep(back)
    found["today, first"] = deployment.sweep(0)
    deployment.clock.advance(timedelta(minutes=30))
    found["today, new calls"] = deployment.sweep(0)
    found["today, nothing new"] = deployment.sweep(0)
    found["the schedule"] = deployment.wake()
    tell("object store, requests of a sweep", **found)
    assert sum(found["a day that is over"].values()) <= 300
    assert sum(found["today, new calls"].values()) <= 400
    assert sum(found["today, nothing new"].values()) <= 300
    assert sum(found["the schedule"].values()) <= 25
