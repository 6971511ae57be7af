"""Metadata: column schemas and lineage from the registry, figures from reports. Numbers and ids only, no content."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from calls_assets.ingest import Coverage, SweepReport
from calls_assets.lake import TABLES, Table, describe

_FROM_READS = frozenset({"read_count", "first_read_at", "last_read_at", "last_changed_at", "is_final", "changed_at"})
_FROM_WEBHOOK = frozenset({"ended_at", "waiting_seconds", "is_abandoned"})
_FROM_PAYLOAD_AND_START = frozenset({"started_at", "started_at_local"})
_AGENT_SOURCES = {
    "agent_id": (("call_agents", "agent_id"), ("calls", "agent_ids")),
    "first_seen_at": (("call_agents", "started_at"), ("calls", "started_at")),
    "last_seen_at": (("call_agents", "started_at"), ("calls", "started_at")),
}
_LISTED_RANGES = 10


def describe_columns(table: Table) -> dg.TableSchema:
    """Gives a table's columns for the UI."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=field.name,
                type=str(field.type),
                description=describe(field),
                constraints=dg.TableColumnConstraints(nullable=field.nullable, unique=table.key == (field.name,)),
            )
            for field in table.schema
        ]
    )


def trace_columns(table: Table) -> dg.TableColumnLineage:
    """Tells which upstream columns each column comes from."""
    return dg.TableColumnLineage(
        deps_by_column={
            name: [dg.TableColumnDep(asset_key=asset, column_name=column) for asset, column in _sources(table, name)]
            for name in table.schema.names
            if name not in _FROM_WEBHOOK
        }
    )


def _sources(table: Table, column: str) -> tuple[tuple[str, str], ...]:
    if table.name == "agents":
        return _AGENT_SOURCES.get(column, (("call_agents", column),))
    if column == "call_id":
        return (("call_records", "call_id"),)
    if column in _FROM_READS:
        return (("call_records", "reads"),)
    if table.name == "calls" and column in _FROM_PAYLOAD_AND_START:
        return (("call_records", "started_at"),)
    return (("call_records", "payload"),)


def describe_table(table: Table) -> Mapping[str, Any]:
    """Gives the metadata of a table's definition."""
    return {
        "dagster/column_schema": describe_columns(table),
        "dagster/column_lineage": trace_columns(table),
        "key": ", ".join(table.key),
        "order": ", ".join(table.sort_by),
    }


def describe_mart(mart: Table) -> Mapping[str, Any]:
    """Gives the metadata of a mart's definition; the formula of each measure is in its column's description."""
    sources = {"agent_days": ("calls", "call_agents"), "call_journeys": ("calls", "call_agents")}
    names = sources.get(mart.name, ("calls",))
    lineage = {
        field: [
            dg.TableColumnDep(asset_key=source, column_name=field)
            for source in names
            if field in TABLES[source].schema.names
        ]
        for field in mart.schema.names
    }
    return {
        "dagster/column_schema": describe_columns(mart),
        "dagster/column_lineage": dg.TableColumnLineage({name: deps for name, deps in lineage.items() if deps}),
        "key": ", ".join(mart.key),
        "order": ", ".join(mart.sort_by),
    }


def describe_coverage(coverage: Coverage) -> dict[str, Any]:
    """Gives a day's accounting."""
    return {
        "dagster/partition_row_count": coverage.stored,
        "calls": coverage.stored,
        "missing ids": coverage.missing,
        "quarantined": coverage.quarantined,
        "unaccounted ids": coverage.unaccounted_count,
        "unread ids": coverage.unread_count,
        "first id": coverage.first_id if coverage.first_id is not None else "none",
        "last id": coverage.last_id if coverage.last_id is not None else "none",
    }


def describe_sweep(report: SweepReport) -> dict[str, Any]:
    """Gives what a sweep of all its days cost."""
    return {
        "ids asked for in the run": report.requested,
        "requests in the run": report.requests,
        "retries in the run": report.retries,
        "failed ids in the run": len(report.failed_ids),
        "requests per second": round(report.requests / report.seconds, 1) if report.seconds else 0.0,
        "sweep seconds": round(report.seconds, 2),
        "days in the run": len(report.days),
    }


def list_ranges(ranges: tuple[tuple[int, int], ...]) -> str:
    """Names the first ranges of ids."""
    shown = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges[:_LISTED_RANGES])
    rest = len(ranges) - _LISTED_RANGES
    return f"{shown} and {rest} more ranges" if rest > 0 else shown or "none"
