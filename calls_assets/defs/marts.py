"""Marts: the KPI tables of the run's days, and the catalogue for SQL tools.

What belongs here: running the work and telling Dagster about each day. What stays out: what a measure is (`marts`).
(Dagster reads the annotations of decorated functions, so they are not postponed here.)
"""

from collections.abc import Iterator, Sequence
from datetime import date
from itertools import groupby
from typing import Any

import dagster as dg

from calls_assets.defs.metadata import describe_mart
from calls_assets.defs.partitions import to_days
from calls_assets.defs.resources import CallsApi, LakeStore
from calls_assets.defs.runs import is_sweep
from calls_assets.ingest import coverage
from calls_assets.lake import DAILY_TABLES, MARTS, Lake, LakeError
from calls_assets.lake.catalog import write_catalog
from calls_assets.marts import MartsReport, days_with_journeys_through, publish_marts
from calls_assets.marts.weeks import monday_of
from calls_assets.report import publish_report
from calls_assets.settings import Settings

_JOURNEYS = "call_journeys"
_LOGGED_DAYS = 28
"""A run that says nothing for minutes is taken for dead (`runs`). Whole weeks, by which journeys are made."""

_Events = Iterator[dg.MaterializeResult[Any] | dg.AssetMaterialization]


def build_marts(
    settings: Settings, partitions: dg.DailyPartitionsDefinition, policy: dg.BackfillPolicy, owners: Sequence[str]
) -> list[dg.AssetsDefinition]:
    """Makes the assets of the marts, the catalogue and the report.

    Args:
        settings: Tell how the catalogue names files.
        partitions: The days.
        policy: How many days a run of a backfill has.
        owners: Owners of the assets.
    """

    @dg.multi_asset(
        specs=[
            dg.AssetSpec(
                name,
                deps=["calls", "call_agents"],
                group_name="marts",
                owners=owners,
                kinds={"duckdb", "parquet"},
                description=mart.description,
                metadata=describe_mart(mart),
            )
            for name, mart in MARTS.items()
        ],
        can_subset=True,
        partitions_def=partitions,
        backfill_policy=policy,
    )
    def marts(
        context: dg.AssetExecutionContext,
        calls_api: dg.ResourceParam[CallsApi],
        lake_store: dg.ResourceParam[LakeStore],
    ) -> _Events:
        yield from _publish_marts(context, calls_api, lake_store, partitions)

    @dg.asset(
        deps=[*DAILY_TABLES, "agents", *MARTS],
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name="marts",
        owners=owners,
        kinds={"duckdb"},
        description="catalog.duckdb: a view for every table and mart, with comments, for SQL tools; it holds no rows.",
    )
    def catalog(
        context: dg.AssetExecutionContext, lake_store: dg.ResourceParam[LakeStore]
    ) -> dg.MaterializeResult[None]:
        try:
            views = write_catalog(
                lake_store.open(), relative=settings.has_relative_catalog, unless_current=is_sweep(context.run)
            )
        except LakeError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from None
        return dg.MaterializeResult(metadata={"views": len(views)})

    @dg.asset(
        deps=["calls", "service_intervals", "agent_days", "disposition_days"],
        partitions_def=partitions,
        backfill_policy=policy,
        group_name="reports",
        owners=owners,
        kinds={"html"},
        description="reports/call_date=D/report.html: a day on one page for people; the newest is reports/latest.html.",
    )
    def daily_report(
        context: dg.AssetExecutionContext,
        calls_api: dg.ResourceParam[CallsApi],
        lake_store: dg.ResourceParam[LakeStore],
    ) -> _Events:
        yield from _publish_reports(context, calls_api, lake_store)

    return [marts, catalog, daily_report]


def _publish_reports(context: dg.AssetExecutionContext, api: CallsApi, store: LakeStore) -> _Events:
    zone = api.settings.timezone
    try:
        lake = store.open()
        days = to_days(context.partition_keys)
        for number, found in enumerate(coverage(lake, days, zone)):
            day = found.day
            if number and number % _LOGGED_DAYS == 0:
                context.log.info(f"pages of {number} of {len(days)} days")
            if not api.settings.id_scan:
                found = found.without_scan()  # noqa: PLW2901 - one way on for both
            result = publish_report(lake, day, now=api.now(), timezone=zone, coverage=found)
            context.add_asset_metadata(
                {**result.figures, **result.quality, "bytes": result.size},
                asset_key="daily_report",
                partition_key=day.isoformat(),
            )
    except LakeError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None
    yield dg.MaterializeResult(asset_key="daily_report")


def _publish_marts(
    context: dg.AssetExecutionContext, api: CallsApi, store: LakeStore, partitions: dg.DailyPartitionsDefinition
) -> _Events:
    days = to_days(context.partition_keys)
    selected = [name for name in MARTS if dg.AssetKey(name) in context.selected_asset_keys]
    try:
        lake = store.open()
        reports: dict[date, MartsReport] = {}
        for _, group in groupby(days, lambda day: monday_of(day).toordinal() // _LOGGED_DAYS):
            reports |= publish_marts(
                lake,
                group,
                now=api.now(),
                timezone=api.settings.timezone,
                names=selected,
                unless_current=is_sweep(context.run),
            )
            if len(reports) < len(days):
                context.log.info(f"marts of {len(reports)} of {len(days)} days")
        others = publish_journeys_around(lake, days, api) if _JOURNEYS in selected else {}
    except LakeError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None
    yield from report_marts({day: report for day, report in others.items() if report.replaced}, partitions)
    for name in selected:
        for day in days:
            context.add_asset_metadata(
                {"dagster/partition_row_count": reports[day].row_counts[name]},
                asset_key=name,
                partition_key=day.isoformat(),
            )
        yield dg.MaterializeResult(asset_key=name)


def publish_journeys_around(lake: Lake, days: Sequence[date], api: CallsApi) -> dict[date, MartsReport]:
    """Makes the journeys of the other days that are made from these days too.

    Of today, which is swept every minute, only those of its week: the nightly runs of the days before it do the rest.
    """
    today = api.today()
    around = {
        other
        for day in days
        for other in days_with_journeys_through(day)
        if day < today or monday_of(other) == monday_of(day)
    }
    stored = set(lake.table_days("calls")) & set(lake.table_days("call_agents"))
    wanted = sorted((around & stored) - set(days))
    return publish_marts(
        lake, wanted, now=api.now(), timezone=api.settings.timezone, names=[_JOURNEYS], unless_current=True
    )


def report_marts(
    reports: dict[date, MartsReport], partitions: dg.DailyPartitionsDefinition
) -> Iterator[dg.AssetMaterialization]:
    """Tells Dagster about marts of days beside the run's own."""
    for day, report in reports.items():
        if partitions.has_partition_key(day.isoformat()):
            for name, count in report.row_counts.items():
                metadata = {"dagster/partition_row_count": count}
                yield dg.AssetMaterialization(name, partition=day.isoformat(), metadata=metadata)
