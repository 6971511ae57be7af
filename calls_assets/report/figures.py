"""Figures: adding up rows of a mart, and what a figure looks like and means.

What belongs here: sums, quotients of sums, texts of numbers. What stays out: where on the page they stand (`views`).
NULL stays NULL: a sum of nothing known is not known, and a quotient by none has no value.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from calls_assets.lake import Table, describe

Number = int | float
Row = Mapping[str, Any]
Totals = dict[str, Number | None]
NOT_KNOWN = "not known"
NO_CALLS = "no calls"


class Unit(enum.Enum):
    """What a number counts."""

    CALLS = "calls"
    SHARE = "share"
    SECONDS = "seconds"


@dataclass(frozen=True, slots=True)
class Shown:
    """A number as a reader sees it.

    Attributes:
        text: The number as text, or why there is none.
        number: The number; None when there is none.
        share: Length of the bar behind it, 0 to 1; None for no bar.
    """

    text: str
    number: Number | None
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """A half hour.

    Attributes:
        label: Its start, as `09:30`.
        offered: Calls offered.
        answered: Calls answered.
        level: Service level; None without calls.
        text: All of it in words.
    """

    label: str
    offered: int
    answered: int
    level: float | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A measure of a mart, as a reader knows it.

    Attributes:
        mart: The mart.
        name: The column.
        label: What readers call it.
        unit: What it counts.
        better: The direction in which things are better; None where neither is.
        of: The column that counts the calls it could be known of; a ratio's denominator when None.
    """

    mart: Table
    name: str
    label: str
    unit: Unit = Unit.CALLS
    better: Literal["more", "less"] | None = None
    of: str | None = None

    @property
    def definition(self) -> str:
        """The mart's description of the column: meaning, formula, source and trust."""
        return describe(self.mart.schema.field(self.name))

    @property
    def meaning(self) -> str:
        """The first part of the definition."""
        return self.definition.partition(" Formula: ")[0]

    def show(self, totals: Totals, *, bar_of: Number | None = None) -> Shown:
        """Writes the figure's number.

        Args:
            totals: From `add_up`.
            bar_of: The number whose bar is the longest; None for no bar.
        """
        number = totals[self.name]
        if number is None:
            return Shown(self._explain_none(totals), None)
        bar = min(1.0, number / bar_of) if bar_of else None
        return Shown(write_number(number, self.unit), number, bar)

    def _explain_none(self, totals: Totals) -> str:
        parts = ratio_parts(self.mart.schema.field(self.name))
        of = self.of or (parts and parts[1])
        return NO_CALLS if of and totals[of] == 0 else NOT_KNOWN


def ratio_parts(field: pa.Field) -> tuple[str, str] | None:
    """Gives the columns that a ratio is the quotient of; None for other columns."""
    metadata = field.metadata or {}
    if b"numerator" not in metadata:
        return None
    return metadata[b"numerator"].decode(), metadata[b"denominator"].decode()


def add_up(mart: Table, rows: Iterable[Row]) -> Totals:
    """Adds up rows of a mart: counts are sums, ratios quotients of sums.

    Args:
        mart: The mart.
        rows: Some of its rows; a column that was added after they were written counts as NULL.

    Returns:
        By column. A sum is None when none of its values is known and the column may be NULL.
    """
    rows = list(rows)
    totals: Totals = {}
    for field in mart.schema:
        if pa.types.is_integer(field.type) and not field.name.endswith("_id"):
            known = [row[field.name] for row in rows if row.get(field.name) is not None]
            totals[field.name] = sum(known) if known or not (field.nullable or rows) else None
    for field in mart.schema:
        if parts := ratio_parts(field):
            totals[field.name] = divide(*(totals[name] for name in parts))
    return totals


def divide(numerator: Number | None, denominator: Number | None) -> float | None:
    """Divides; NULL when either is NULL or the denominator is 0."""
    return numerator / denominator if numerator is not None and denominator else None


def write_number(number: Number, unit: Unit) -> str:
    """Writes a number for readers, for example `1,204`, `83.3%`, `2 min 05 s`."""
    if unit is Unit.SHARE:
        return f"{100 * number:.1f}%"
    if unit is Unit.CALLS:
        return f"{number:,}" if isinstance(number, int) else f"{number:,.1f}"
    seconds = round(number)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    return f"{seconds // 3600:,} h {seconds % 3600 // 60:02} min"


def write_change(before: Number, now: Number, unit: Unit) -> str:
    """Writes how a number changed, for example `+12, +8%`, `+2.1 pts`, `the same`."""
    if write_number(before, unit) == write_number(now, unit):
        return "the same"
    sign = "+" if now > before else "\N{MINUS SIGN}"
    if unit is Unit.SHARE:
        return f"{sign}{100 * abs(now - before):.1f} pts"
    if unit is Unit.SECONDS:
        return f"{sign}{write_number(abs(round(now) - round(before)), unit)}"
    relative = f", {sign}{100 * abs(now - before) / before:.0f}%" if before else ""
    return f"{sign}{write_number(abs(now - before), unit)}{relative}"
