"""Assets: the raw records, the daily tables made from them, and the agents seen in all days.

What belongs here: running the work for the partitions of a run, and telling Dagster about each day. A run over a range
reports every day on its own, so that days done stay done when another one fails.
(Dagster reads the annotations of decorated functions, so they are not postponed here.)
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
from pydantic import Field

from calls_assets.api import PermanentError, loop
from calls_assets.defs.checks import (
    build_record_checks,
    build_table_checks,
    check_records,
    check_table,
    report_checks,
)
from calls_assets.defs.marts import build_marts, publish_journeys_around, report_marts
from calls_assets.defs.metadata import describe_coverage, describe_sweep, describe_table
from calls_assets.defs.partitions import to_days
from calls_assets.defs.resources import CallsApi, LakeStore
from calls_assets.defs.runs import assets_of, is_sweep
from calls_assets.derive import publish_agents, publish_day
from calls_assets.inbox import Inbox
from calls_assets.ingest import (
    MAX_HOLE,
    SweepFailedError,
    SweepReport,
    Wanted,
    group_waiting,
    list_wanted,
    settle_waiting,
    sweep,
)
from calls_assets.lake import (
    CALL_EVENTS,
    CALL_RECORDS,
    DAILY_TABLES,
    RAW_PREFIX,
    TABLES,
    CorruptFileError,
    Lake,
    LakeError,
)
from calls_assets.marts import publish_marts
from calls_assets.settings import Settings, SettingsError

POOL = "calls_api"
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
OWNERS = ["team:data-engineering"]
_Events = Iterator[dg.MaterializeResult[Any] | dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.Output[None]]


class SweepConfig(dg.Config):
    """What a run may ask of a sweep."""

    reread_final: bool = Field(
        default=False,
        description="Ask again for every call of the days, final ones included: for corrections the vendor made late.",
    )
    seen_id: int = Field(
        default=0, ge=0, description="An id beyond the highest stored one at which the sensor saw a call; 0 for none."
    )
    look_far_ahead: bool = Field(
        default=False, description="Look for new ids far beyond the highest one, over long runs of missing ids."
    )
    read_holes: bool = Field(
        default=False,
        description=f"Read holes of up to {MAX_HOLE:,} ids beside the days that are taken for jumps in the numbering.",
    )


def build_assets(settings: Settings, partitions: dg.DailyPartitionsDefinition) -> list[dg.AssetsDefinition]:
    """Makes the assets.

    Args:
        settings: Give the days per run of a backfill.
        partitions: The days.
    """
    policy = (
        dg.BackfillPolicy.multi_run(settings.backfill_days_per_run)
        if settings.backfill_days_per_run
        else dg.BackfillPolicy.single_run()
    )

    @dg.asset(
        partitions_def=partitions,
        backfill_policy=policy,
        pool=POOL,
        group_name="raw",
        owners=OWNERS,
        kinds={"python", "parquet"},
        description=(
            f"{CALL_RECORDS.description} Materializing a day sweeps it: finds its ids, asks the API for those never "
            "read or due to be read again, and stores every answer before anything else happens to it."
        ),
        metadata={"dagster/column_schema": describe_table(CALL_RECORDS)["dagster/column_schema"]},
        check_specs=build_record_checks(partitions),
    )
    def call_records(
        context: dg.AssetExecutionContext,
        config: SweepConfig,
        calls_api: dg.ResourceParam[CallsApi],
        lake_store: dg.ResourceParam[LakeStore],
    ) -> _Events:
        yield from _sweep_days(context, config, calls_api, lake_store, partitions)

    @dg.asset(
        deps=["call_records"],
        partitions_def=partitions,
        backfill_policy=policy,
        group_name="raw",
        owners=OWNERS,
        kinds={"python", "parquet"},
        description=(
            f"{CALL_EVENTS.description} Materializing a day takes its deliveries out of the inbox, once their calls "
            "are read."
        ),
        metadata={"dagster/column_schema": describe_table(CALL_EVENTS)["dagster/column_schema"]},
    )
    def call_events(
        context: dg.AssetExecutionContext,
        calls_api: dg.ResourceParam[CallsApi],
        lake_store: dg.ResourceParam[LakeStore],
    ) -> _Events:
        yield from _land_events(context, calls_api, lake_store)

    @dg.multi_asset(
        specs=[
            dg.AssetSpec(
                name,
                deps=["call_records", "call_events"],
                group_name="tables",
                owners=OWNERS,
                kinds={"python", "parquet"},
                description=TABLES[name].description,
                metadata=describe_table(TABLES[name]),
            )
            for name in DAILY_TABLES
        ],
        can_subset=True,
        partitions_def=partitions,
        backfill_policy=policy,
        check_specs=build_table_checks(partitions),
    )
    def tables(
        context: dg.AssetExecutionContext,
        calls_api: dg.ResourceParam[CallsApi],
        lake_store: dg.ResourceParam[LakeStore],
    ) -> _Events:
        yield from _publish_days(context, calls_api, lake_store, partitions)

    @dg.asset(
        deps=["calls", "call_agents"],
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name="tables",
        owners=OWNERS,
        kinds={"python", "parquet"},
        description=TABLES["agents"].description,
        metadata=describe_table(TABLES["agents"]),
    )
    def agents(
        context: dg.AssetExecutionContext, lake_store: dg.ResourceParam[LakeStore]
    ) -> dg.MaterializeResult[None]:
        try:
            count = publish_agents(lake_store.open(), unless_current=is_sweep(context.run))
        except LakeError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from None
        return dg.MaterializeResult(metadata={"dagster/row_count": count})

    return [call_records, call_events, tables, agents, *build_marts(settings, partitions, policy, OWNERS)]


def _sweep_days(
    context: dg.AssetExecutionContext,
    config: SweepConfig,
    api: CallsApi,
    store: LakeStore,
    partitions: dg.DailyPartitionsDefinition,
) -> _Events:
    """Sweeps the run's days.

    When the sweep fails, each day that is complete in raw gets its event all the same, and the tables are made here:
    Dagster skips the steps after a failed one.
    """
    days = to_days(context.partition_keys)
    damaged: dict[str, CorruptFileError] = {}
    failure: str | None = None

    def note(error: CorruptFileError) -> None:
        if error.key not in damaged:
            damaged[error.key] = error
            context.log.warning(f"{error}; the other files are used")

    try:
        client = api.connect()
        lake = store.open(note)
        lake.bind(api.settings.timezone.key, api.settings.api_base_url)

        waiting = group_waiting(Inbox(lake.storage), api.settings, api.today())
        wanted = list_wanted([item for day in days for item in waiting.get(day, ())], api.settings.timezone, api.now())

        if config.seen_id:
            wanted.setdefault(config.seen_id, Wanted(_LONG_AGO))

        async def run() -> SweepReport:
            async with client:
                return await sweep(
                    lake,
                    client,
                    days,
                    options=replace(api.options, read_holes=config.read_holes),
                    now=api.now,
                    reread_final=config.reread_final,
                    wide=config.look_far_ahead,
                    wanted=wanted,
                    log=context.log.info,
                )

        report = loop.run(run())
    except SweepFailedError as error:
        report, failure = error.report, str(error)
    except (PermanentError, LakeError, SettingsError) as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None
    for key in damaged:
        # What it held was asked for again, as far as it belonged to the days of this run.
        is_of_run = any(key.startswith(f"{RAW_PREFIX}call_date={day}/") for day in days)
        if failure is None and not report.failed_ids and api.settings.id_scan and is_of_run:
            lake.set_aside(key)
    has_tables = assets_of(context.run).issuperset(map(dg.AssetKey, DAILY_TABLES))
    for day in sorted(report.touched_days.difference(days if has_tables and failure is None else ())):
        _merge_raw(context, lake, day)
    if report.failed_ids:
        first = ", ".join(map(str, report.failed_ids[:10]))
        context.log.warning(f"{len(report.failed_ids)} ids had no answer, the next sweep asks for them: {first}")
    cost = describe_sweep(report)
    done = [day for day in days if day in report.coverage]
    for day in done:
        metadata = describe_coverage(report.coverage[day]) | cost
        if failure is None:
            context.add_asset_metadata(metadata, asset_key="call_records", partition_key=day.isoformat())
        elif report.coverage[day].is_complete:
            yield dg.AssetMaterialization("call_records", partition=day.isoformat(), metadata=metadata)
    if failure is not None:
        # A day that was not reached stays one without tables, to be made up for, though sweeps of its neighbours have
        # left some answers in it. What is left of damaged days is not shown, so they are opened anew: that does not let
        # damage pass.
        yield from _publish_from_outside(context, store.open(), api, partitions, sorted({*done, *lake.stale_days()}))
        raise dg.Failure(description=failure, metadata=cost, allow_retries=False)
    yield dg.MaterializeResult(asset_key="call_records")
    checked = {day: check_records(report.coverage[day], report.overdue[day]) for day in done}
    yield from report_checks(context, ((day, outcome) for day in done for outcome in checked[day]))


def _land_events(context: dg.AssetExecutionContext, api: CallsApi, store: LakeStore) -> _Events:
    """Lands the deliveries that wait for the run's days."""
    days = to_days(context.partition_keys)
    try:
        lake = store.open()
        inbox = Inbox(lake.storage)
        waiting = group_waiting(inbox, api.settings, api.today())
        items = [item for day in days for item in waiting.get(day, ())]
        landed = settle_waiting(lake, inbox, items, api.settings, api.now())
        counts = {day: len(lake.read_events(day)) for day in days}
    except LakeError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None
    if landed:
        context.log.info(f"{landed:,} deliveries of the webhook landed")
    for day in days:
        context.add_asset_metadata(
            {"dagster/partition_row_count": counts[day]}, asset_key="call_events", partition_key=day.isoformat()
        )
    yield dg.MaterializeResult(asset_key="call_events")


def _publish_days(
    context: dg.AssetExecutionContext, api: CallsApi, store: LakeStore, partitions: dg.DailyPartitionsDefinition
) -> _Events:
    """Makes the tables of the run's days, and of published days whose raw has changed since."""
    days = to_days(context.partition_keys)
    selected = [name for name in DAILY_TABLES if dg.AssetKey(name) in context.selected_asset_keys]
    counts: dict[date, dict[str, int]] = {}
    failures: list[str] = []
    try:
        lake = store.open()
        stale = [day for day in lake.stale_days() if day not in days]
    except LakeError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None
    for day in days:
        try:
            # A sweep makes what its answers call for; who asks for tables alone gets them made again.
            counts[day] = _publish(context, lake, api.settings, day, selected, unless_current=is_sweep(context.run))
        except LakeError as error:
            failures.append(_explain(error, day))
        if is_sweep(context.run):
            _merge_raw(context, lake, day)
    yield from _publish_from_outside(context, lake, api, partitions, stale)
    if failures:
        for day in days:
            for name in selected if day in counts else []:
                yield _materialized(name, day, counts[day][name])
        raise dg.Failure(description="; ".join(failures), allow_retries=False)
    yield from _report_tables(context, lake, days, selected, counts)


def _publish(
    context: dg.AssetExecutionContext,
    lake: Lake,
    settings: Settings,
    day: date,
    names: Sequence[str],
    *,
    unless_current: bool = False,
) -> dict[str, int]:
    report = publish_day(
        lake,
        day,
        timezone=settings.timezone,
        reread_after=settings.reread_after,
        names=names,
        unless_current=unless_current,
    )
    replaced = ", ".join(sorted(report.replaced)) or "no table"
    context.log.info(f"{day}: {report.row_counts.get('calls', 0):,} calls; replaced {replaced}")
    return report.row_counts


def _merge_raw(context: dg.AssetExecutionContext, lake: Lake, day: date) -> None:
    """Merges a day's raw files when its tables show them: that can wait when it cannot be done."""
    try:
        lake.compact(day)
    except LakeError as error:
        context.log.warning(f"{day}: raw files are not merged: {error}")


def _publish_from_outside(
    context: dg.AssetExecutionContext,
    lake: Lake,
    api: CallsApi,
    partitions: dg.DailyPartitionsDefinition,
    days: Sequence[date],
) -> Iterator[dg.AssetMaterialization]:
    """Makes tables and marts of days beside the run's own outputs; what cannot be made is left to the day's own run."""
    settings, is_quick = api.settings, is_sweep(context.run)
    for day in days:
        try:
            counts = _publish(context, lake, settings, day, DAILY_TABLES, unless_current=is_quick)
            marts = publish_marts(lake, [day], now=api.now(), timezone=settings.timezone, unless_current=is_quick)
            marts |= publish_journeys_around(lake, [day], api)
        except LakeError as error:
            context.log.warning(_explain(error, day))
            continue
        if is_quick:
            _merge_raw(context, lake, day)
        yield from report_marts({key: report for key, report in marts.items() if report.replaced}, partitions)
        if partitions.has_partition_key(day.isoformat()):
            for name in DAILY_TABLES:
                yield _materialized(name, day, counts[name])


def _explain(error: LakeError, day: date) -> str:
    if isinstance(error, CorruptFileError):
        return (
            f"{day}: {error.key} is damaged ({error.reason}), so the tables stay as they were: "
            "materialize call_records for this day, which asks for its ids again"
        )
    return f"{day}: {error}"


def _materialized(name: str, day: date, count: int) -> dg.AssetMaterialization:
    metadata = {"dagster/partition_row_count": count}
    return dg.AssetMaterialization(name, partition=day.isoformat(), metadata=metadata)


def _report_tables(
    context: dg.AssetExecutionContext,
    lake: Lake,
    days: Sequence[date],
    selected: Sequence[str],
    counts: dict[date, dict[str, int]],
) -> _Events:
    for name in selected:
        for day in days:
            context.add_asset_metadata(
                {"dagster/partition_row_count": counts[day][name]}, asset_key=name, partition_key=day.isoformat()
            )
        yield dg.MaterializeResult(asset_key=name)
    yield from report_checks(context, ((day, check_table(lake, name, day)) for name in selected for day in days))
