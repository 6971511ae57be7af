"""Asset checks: what each materialization of a day proves about it.

They are evaluated by the assets themselves, so that a run over a range reports each day on its own: a check of its
own would be evaluated once for the whole range.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import dagster as dg

from calls_assets.defs.metadata import list_ranges
from calls_assets.derive import count_doubles, count_orphans
from calls_assets.ingest import MAX_GAP, MAX_HOLE, Coverage
from calls_assets.lake import DAILY_TABLES, Lake, LakeError


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """What a check says about a day.

    Attributes:
        asset: The asset checked.
        name: The check.
        passed: Whether it holds.
        severity: How bad it is when it does not.
        description: What was found, in one line.
        metadata: Figures.
    """

    asset: str
    name: str
    passed: bool
    severity: dg.AssetCheckSeverity
    description: str
    metadata: dict[str, int] = field(default_factory=dict)

    @property
    def key(self) -> dg.AssetCheckKey:
        """Identifies the check."""
        return dg.AssetCheckKey(dg.AssetKey(self.asset), self.name)


_RECORD_CHECKS = {
    "every_id_is_accounted_for": "Every id between the day's first and last is stored, missing at the vendor (404) or "
    "quarantined. Ids beside the day that were not read, as they are taken for a jump in the numbering, are named.",
    "quarantine_is_empty": "No answer broke the payload contract; broken ones are kept in raw and asked for again.",
    "nothing_is_overdue": "No read has been due for more than a day: schedule and sensor are at work.",
}
_CALL_CHECK = "one_row_per_call"
_CHILD_CHECK = "rows_have_a_call"


def build_record_checks(partitions: dg.PartitionsDefinition[Any]) -> list[dg.AssetCheckSpec]:
    """Declares the checks of call_records."""
    return [_make_spec("call_records", name, text, partitions) for name, text in _RECORD_CHECKS.items()]


def build_table_checks(partitions: dg.PartitionsDefinition[Any]) -> list[dg.AssetCheckSpec]:
    """Declares the checks of the tables."""
    specs = [_make_spec("calls", _CALL_CHECK, "No call is shown twice, in this day or the ones beside it.", partitions)]
    text = "Every row belongs to a call of the day."
    return specs + [_make_spec(name, _CHILD_CHECK, text, partitions) for name in DAILY_TABLES if name != "calls"]


def _make_spec(asset: str, name: str, text: str, partitions: dg.PartitionsDefinition[Any]) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(name=name, asset=asset, description=text, partitions_def=partitions)


def check_records(coverage: Coverage, overdue: int) -> list[CheckOutcome]:
    """Evaluates the checks of call_records for a day.

    Args:
        coverage: How the day's ids are accounted for.
        overdue: Reads of the day that have been due for more than a day.
    """
    outcomes = [
        (
            coverage.is_complete,
            dg.AssetCheckSeverity.ERROR,
            f"{coverage.unaccounted_count} ids without an answer: {list_ranges(coverage.unaccounted)}",
            {
                "unaccounted ids": coverage.unaccounted_count,
                "unread ids": coverage.unread_count,
                "missing ids": coverage.missing,
                "calls": coverage.stored,
            },
        ),
        (
            coverage.quarantined == 0,
            dg.AssetCheckSeverity.WARN,
            f"{coverage.quarantined} answers broke the contract",
            {"quarantined": coverage.quarantined},
        ),
        (overdue == 0, dg.AssetCheckSeverity.WARN, f"{overdue} reads are overdue", {"overdue": overdue}),
    ]
    found = [
        CheckOutcome("call_records", name, passed, severity, "" if passed else text, metadata)
        for name, (passed, severity, text, metadata) in zip(_RECORD_CHECKS, outcomes, strict=True)
    ]
    if coverage.unread:
        # No failure: what is a jump indeed would fail for ever.
        text = (
            f"{coverage.unread_count} ids beside this day were not read: {list_ranges(coverage.unread)}; a hole of "
            f"more than {MAX_GAP:,} ids, or below the first known call, is taken for a jump in the numbering: "
            f"launch with read_holes: true to read it, up to {MAX_HOLE:,}"
        )
        found[0] = replace(found[0], description="; ".join(filter(None, (found[0].description, text))))
    return found


def check_table(lake: Lake, name: str, day: date) -> CheckOutcome:
    """Evaluates the check of a table for a day."""
    check = _CALL_CHECK if name == "calls" else _CHILD_CHECK
    try:
        if name == "calls":
            return _make_outcome(name, check, count_doubles(lake, day), "calls shown twice")
        return _make_outcome(name, check, count_orphans(lake, name, day), "rows without a call")
    except LakeError as error:
        return CheckOutcome(name, check, False, dg.AssetCheckSeverity.ERROR, str(error))


def _make_outcome(asset: str, check: str, count: int, noun: str) -> CheckOutcome:
    text = "" if count == 0 else f"{count} {noun}: run `calls-assets verify`"
    return CheckOutcome(asset, check, count == 0, dg.AssetCheckSeverity.ERROR, text, {noun: count})


def report_checks(
    context: dg.AssetExecutionContext, outcomes: Iterable[tuple[date, CheckOutcome]]
) -> Iterator[dg.AssetCheckEvaluation | dg.Output[None]]:
    """Reports the selected checks of a run, each for its day, and ends their outputs.

    An `AssetCheckResult` has no partition in a run over a range: so the evaluations are made here.
    """
    selected = context.selected_asset_check_keys
    for day, outcome in outcomes:
        if outcome.key in selected:
            yield dg.AssetCheckEvaluation(
                asset_key=outcome.key.asset_key,
                check_name=outcome.name,
                passed=outcome.passed,
                severity=outcome.severity,
                description=outcome.description or None,
                metadata={name: dg.MetadataValue.int(value) for name, value in outcome.metadata.items()},
                partition=day.isoformat(),
            )
    for key in sorted(selected):
        yield dg.Output(None, output_name=f"{key.asset_key.to_python_identifier()}_{key.name}")
