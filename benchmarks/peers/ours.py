"""calls-assets: what a run of Dagster does for a day, without Dagster: sweep, compact, tables, checks.

Every answer is landed durably (fsync) as it was sent, the payload contract is checked, retries and limiter are on,
seven tables and the agents are made and read again by the checks. The ids are not given: the sweep finds them. pandas,
which pyarrow loads with the first list it is given, is loaded before the first request, as it is in run workers.
"""

import os
from datetime import date

import pandas as pd  # noqa: F401 - see above

from calls_assets.api import loop
from calls_assets.defs.checks import OVERDUE_AFTER, check_records, check_table
from calls_assets.defs.resources import CallsApi, LakeStore
from calls_assets.derive import publish_agents, publish_day
from calls_assets.ingest import SweepReport, count_overdue, sweep
from calls_assets.lake import DAILY_TABLES
from calls_assets.settings import Settings

settings = Settings.from_env()
api = CallsApi(settings)
day = date.fromisoformat(os.environ["DAY"])
lake = LakeStore(settings).open()
lake.bind(settings.timezone.key, settings.api_base_url)


async def run() -> SweepReport:
    """Sweeps the day, as the asset call_records does."""
    async with api.connect() as client:
        return await sweep(lake, client, [day], options=api.options, now=api.now, log=lambda _line: None)


report = loop.run(run())
for touched in sorted(report.touched_days):
    lake.compact(touched)
published = publish_day(lake, day, timezone=settings.timezone, reread_after=settings.reread_after)
publish_agents(lake)
overdue = count_overdue(lake, [day], now=api.now() - OVERDUE_AFTER, options=api.options)
outcomes = check_records(report.coverage[day], overdue[day])
outcomes += [check_table(lake, name, day) for name in DAILY_TABLES]
assert all(outcome.passed for outcome in outcomes), [outcome for outcome in outcomes if not outcome.passed]
assert published.row_counts["calls"] == int(os.environ["COUNT"])
