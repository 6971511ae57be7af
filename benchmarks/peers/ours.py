"""calls-assets: what a run of Dagster does for a day, without Dagster: sweep, tables, compact, checks.

Every answer is landed durably (fsync) as it was sent, the payload contract is checked, retries and limiter are on,
seven tables and the agents are made and read again by the checks. The ids are not given: the sweep finds them. pandas,
which pyarrow loads with the first list it is given, is loaded before the first request, as it is in run workers. The
collector is spared what was loaded, as it is when Dagster loads the definitions.
"""

import os
from datetime import UTC, date, datetime

import pandas as pd  # noqa: F401 - see above

from calls_assets.api import connect, loop
from calls_assets.collector import spare_loaded
from calls_assets.derive import count_doubles, count_orphans, publish_agents, publish_day
from calls_assets.ingest import SweepOptions, SweepReport, sweep
from calls_assets.lake import DAILY_TABLES, Lake
from calls_assets.settings import Settings

spare_loaded()
settings = Settings.from_env()
options = SweepOptions.from_settings(settings)
day = date.fromisoformat(os.environ["DAY"])
lake = Lake.open(settings.data_dir)
lake.bind(settings.timezone.key, settings.api_base_url)


def now() -> datetime:
    """Gives the time."""
    return datetime.now(UTC)


async def run() -> SweepReport:
    """Sweeps the day, as the asset call_records does."""
    async with connect(settings) as client:
        return await sweep(lake, client, [day], options=options, now=now, log=lambda _line: None)


report = loop.run(run())
published = publish_day(lake, day, timezone=settings.timezone, reread_after=settings.reread_after, unless_current=True)
for touched in sorted(report.touched_days):
    lake.compact(touched)
publish_agents(lake)
found = report.coverage[day]
assert found.is_complete
assert found.quarantined == 0
assert report.overdue[day] == 0
assert count_doubles(lake, day) == 0
assert all(count_orphans(lake, name, day) == 0 for name in DAILY_TABLES if name != "calls")
assert published.row_counts["calls"] == int(os.environ["COUNT"])
