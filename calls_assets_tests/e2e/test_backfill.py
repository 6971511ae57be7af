"""The main job as users run it: a range of days through the dagster command, against an oracle."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from calls_assets.settings import Location
from calls_assets.simulator import Account, Vendor, create_app, serve
from calls_assets_tests.e2e.oracle import READ_COLUMNS, expect_agents, expect_day
from calls_assets_tests.e2e.running import (
    TABLES,
    TOKEN,
    days_between,
    list_files,
    make_environment,
    materialize,
    read_rows,
    read_stats,
)
from calls_assets_tests.faults.counts import IS_TORTURE, choose

ZONE = ZoneInfo("America/New_York")
CALLS_PER_DAY = choose(150, 2_000)
# Thirty days, in the short form ten; that of 23 hours among them.
FIRST, LAST = (date(2025, 2, 20), date(2025, 3, 21)) if IS_TORTURE else (date(2025, 3, 2), date(2025, 3, 11))


def make_vendor() -> Vendor:
    """Makes the account."""
    account = Account(
        seed=7, first_id=65_123, first_day=date(2025, 2, 10), calls_per_day=CALLS_PER_DAY, missing_share=0.02
    )
    return Vendor(account)


def check_day(lake: Location, vendor: Vendor, day: date) -> dict[str, list[dict[str, object]]]:
    """Compares every table of a day with the oracle."""
    now = datetime.now(UTC)
    nominal = vendor.ids_of_day(day)
    payloads = (vendor.answer(id_, now) for id_ in range(max(1, nominal.start - 100), nominal.stop + 100))
    expected = expect_day([payload for payload in payloads if payload is not None], day, ZONE)
    for table, rows in expected.items():
        found = read_rows(lake, table, day)
        if table == "calls":
            reading = [{column: row.pop(column) for column in READ_COLUMNS} for row in found]
            assert all(row["is_final"] and row["read_count"] == 1 for row in reading)
        assert found == rows, (table, day)
    assert read_rows(lake, "call_changes", day) == []
    return expected


def check_range(lake: Location, vendor: Vendor, url: str, sweep: Callable[[], None], most_repeated: int = 0) -> None:
    """Sweeps all days twice: every row against the oracle, at most 1.02 requests per id, none on repeating.

    Args:
        lake: Where the rows come.
        vendor: The account.
        url: Its server.
        sweep: Sweeps the days, wherever runs are executed.
        most_repeated: Ids that somebody else may ask for meanwhile.
    """
    days = days_between(FIRST, LAST)
    before = read_stats(url)
    sweep()
    expected = [check_day(lake, vendor, day) for day in days]
    ids = sum(len(vendor.ids_of_day(day)) for day in days)
    stats = read_stats(url)
    assert sum(len(tables["calls"]) for tables in expected) > 0.97 * ids
    assert stats["requests"] - before["requests"] <= 1.02 * ids + choose(1_000, 0)
    assert stats["repeated_ids"] - before["repeated_ids"] <= most_repeated
    agents = {row["agent_id"]: (row["first_seen_at"], row["last_seen_at"]) for row in read_rows(lake, "agents")}
    assert agents == expect_agents(expected)

    files = list_files(lake)
    sweep()
    assert read_stats(url)["requests"] == stats["requests"]
    assert list_files(lake) == files


def test_days_in_one_range_are_right_and_cost_no_request_twice(tmp_path: Path) -> None:
    """Every row against the oracle, at most 1.02 requests per id, none on repeating; a lone day gives the same rows."""
    vendor = make_vendor()
    lake, alone = tmp_path / "lake", tmp_path / "alone"
    with serve(create_app(vendor, token=TOKEN, base_path="/api/v2")) as server:
        environment = make_environment(
            tmp_path,
            f"{server.url}/api/v2",
            CALLS_TIMEZONE=ZONE.key,
            CALLS_BACKFILL_DAYS_PER_RUN="0",
            CALLS_API_CONCURRENCY="32",
        )

        def sweep() -> None:
            run = materialize(environment, "--partition-range", f"{FIRST}...{LAST}")
            assert run.returncode == 0, run.stderr[-3000:]

        check_range(lake, vendor, server.url, sweep)
        alone.mkdir()
        lone_environment = make_environment(alone, f"{server.url}/api/v2", CALLS_TIMEZONE=ZONE.key)
        lone_day = date(2025, 3, 9)
        run = materialize(lone_environment, "--partition", lone_day.isoformat())
        assert run.returncode == 0, run.stderr[-3000:]
        for table in TABLES:
            columns = set(READ_COLUMNS)
            one, other = (
                [{k: v for k, v in row.items() if k not in columns} for row in read_rows(root, table, lone_day)]
                for root in (lake, alone / "lake")
            )
            assert one == other
