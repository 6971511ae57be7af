"""Views: what the page shows of a day, in the order in which it shows it.

What belongs here: which figures, beside which others, under which names, and what is left out when there is too much.
What stays out: reading files (`publish`), HTML (`page`). Texts of the vendor are in here as they came, but for their
length and characters that no reader can see.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal, Protocol
from zoneinfo import ZoneInfo

from calls_assets.lake import CALL_RECORDS, MARTS, TABLES, describe
from calls_assets.report.figures import (
    NO_CALLS,
    NOT_KNOWN,
    Figure,
    Number,
    Row,
    Shown,
    Slot,
    Totals,
    Unit,
    add_up,
    divide,
    write_change,
    write_number,
)

HEAT_MAP_DAYS = 28
_HEAT_LEVELS = 8
_LONGEST_TEXT = 120
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_HALF_HOUR = timedelta(minutes=30)

_INTERVALS, _AGENTS, _DISPOSITIONS = (MARTS[name] for name in ("service_intervals", "agent_days", "disposition_days"))


def _service(
    name: str,
    label: str,
    unit: Unit = Unit.CALLS,
    better: Literal["more", "less"] | None = None,
    *,
    of: str | None = None,
) -> Figure:
    return Figure(mart=_INTERVALS, name=name, label=label, unit=unit, better=better, of=of)


def _agent(name: str, label: str, unit: Unit = Unit.CALLS, *, of: str | None = None) -> Figure:
    return Figure(mart=_AGENTS, name=name, label=label, unit=unit, of=of)


def _outcome(name: str, label: str, unit: Unit = Unit.CALLS, *, of: str | None = None) -> Figure:
    return Figure(mart=_DISPOSITIONS, name=name, label=label, unit=unit, of=of)


_OFFERED = _service("offered_calls", "Calls offered")
_LEVEL = _service("service_level_strict", "Service level", Unit.SHARE, "more")
HEADLINE: tuple[Figure, ...] = (
    _OFFERED,
    _LEVEL,
    _service("answer_rate", "Answer rate", Unit.SHARE, "more"),
    _service("average_speed_of_answer_seconds", "Average speed of answer", Unit.SECONDS, "less", of="answered_calls"),
    _service("abandonment_rate", "Abandonment rate", Unit.SHARE, "less", of="offered_calls"),
    _service("answered_calls", "Calls answered"),
    _service("unanswered_calls", "Calls unanswered", better="less"),
    _service("callbacks_requested", "Callbacks requested"),
    _service("service_level_without_callbacks", "Service level without callbacks", Unit.SHARE, "more"),
    _service("service_level_answered", "Service level of answered calls", Unit.SHARE),
    _service("mean_talk_seconds", "Mean talk time", Unit.SECONDS, of="connected_calls"),
    _service("transfer_rate", "Transfer rate", Unit.SHARE),
    _service("outbound_calls", "Outbound calls"),
    _service("outbound_connect_rate", "Outbound connect rate", Unit.SHARE, "more"),
    _service("calls", "Calls of both directions"),
)
_SLOT_FIGURES = (
    _service("offered_calls", "Offered"),
    _service("answered_calls", "Answered"),
    _service("unanswered_calls", "Unanswered"),
    _LEVEL,
    _service("abandonment_rate", "Abandoned", Unit.SHARE, of="offered_calls"),
    _service("outbound_calls", "Outbound"),
)
_QUEUE_FIGURES = (
    *_SLOT_FIGURES[:3],
    _service("answer_rate", "Answer rate", Unit.SHARE),
    _LEVEL,
    _service("mean_talk_seconds", "Mean talk", Unit.SECONDS, of="connected_calls"),
    _service("outbound_calls", "Outbound"),
    _service("outbound_connect_rate", "Connect rate", Unit.SHARE),
)
_AGENT_FIGURES = (
    _agent("handled_calls", "Handled"),
    _agent("talk_seconds", "Talk time", Unit.SECONDS),
    _agent("mean_talk_seconds", "Mean talk", Unit.SECONDS, of="handled_calls"),
    _agent("offered_legs", "Legs offered"),
    _agent("answered_legs", "Legs answered"),
    _agent("no_answer_legs", "No answer"),
    _agent("declined_legs", "Declined"),
    _agent("caller_hangup_legs", "Caller hung up"),
    _agent("lost_race_legs", "Lost race"),
    _agent("other_reason_legs", "Other reason"),
    _agent("unknown_reason_legs", "Reason not told"),
    _agent("transferred_calls", "Transferred"),
    _agent("disposition_coverage", "Disposed", Unit.SHARE),
)
_OUTCOME_FIGURES = (
    _outcome("calls", "Calls"),
    _outcome("connected_calls", "Connected"),
    _outcome("mean_talk_seconds", "Mean talk", Unit.SECONDS, of="connected_calls"),
)
_MOST_AGENTS, _MOST_QUEUES, _MOST_OUTCOMES = 100, 50, 40


class DayCoverage(Protocol):
    """How the ids of the day are accounted for."""

    @property
    def missing(self) -> int:
        """Ids the API does not have."""

    @property
    def quarantined(self) -> int:
        """Answers that broke the contract."""

    @property
    def unaccounted_count(self) -> int:
        """Ids never answered."""

    @property
    def unread_count(self) -> int:
        """Ids beside the day that were not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DayData:
    """What is stored of a day and of those it is compared with.

    Attributes:
        day: The day.
        timezone: Zone of the days.
        until: Beginning of the half hour that runs, while the day does; None when it is over.
        intervals: Rows of service_intervals by day: of this one, of the one before, and of the one a week before,
            as far as they are stored.
        agents: Rows of agent_days.
        dispositions: Rows of disposition_days.
        hours: Start and calls offered of each row of service_intervals, by day, of the days of the heat map.
        stored_calls: Rows of calls.
        provisional_calls: Those that are asked for again.
        read_at: When the newest answer about a call of the day was given; None without calls.
        coverage: How its ids are accounted for; None when that is not known.
    """

    day: date
    timezone: ZoneInfo
    until: time | None
    intervals: Mapping[date, Sequence[Row]]
    agents: Sequence[Row]
    dispositions: Sequence[Row]
    hours: Mapping[date, Sequence[tuple[datetime, int]]]
    stored_calls: int
    provisional_calls: int
    read_at: datetime | None
    coverage: DayCoverage | None


@dataclass(frozen=True, slots=True)
class Change:
    """A comparison: with what, the difference where there is one, and whether that is good or bad news."""

    text: str
    difference: str | None = None
    mood: Literal["good", "bad", "plain"] = "plain"


@dataclass(frozen=True, slots=True)
class Tile:
    """A headline figure."""

    figure: Figure
    shown: Shown
    changes: list[Change]


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of a table: what it is about, and its numbers. A name that is None is not the vendor's but `none`."""

    names: list[str | None]
    shown: list[Shown]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableView:
    """A table.

    Attributes:
        key: Its place on the page.
        caption: What it shows.
        row_labels: Heads of the columns that name a row.
        figures: The other columns.
        rows: The rows.
        total: The last row; None for none.
        none: What a name that is None reads.
    """

    key: str
    caption: str
    row_labels: list[str]
    figures: Sequence[Figure]
    rows: list[TableRow]
    total: TableRow | None
    none: str


@dataclass(frozen=True, slots=True)
class HeatCell:
    """A cell of the heat map: calls offered in a mean hour, its level of colour, and all of it in words."""

    shown: Shown
    level: int | None
    text: str


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Calls offered by hour and weekday."""

    weekdays: Sequence[str]
    rows: list[tuple[str, list[HeatCell]]]
    days: list[date]


@dataclass(frozen=True, slots=True)
class QualityRow:
    """A figure about the data itself."""

    key: str
    label: str
    shown: Shown
    definition: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DayView:
    """The page."""

    day: date
    weekday: str
    timezone: str
    until: str | None
    read_at: str | None
    tiles: list[Tile]
    slots: list[Slot]
    intervals: TableView
    heat_map: HeatMap
    queues: TableView
    agents: TableView
    dispositions: TableView
    quality: list[QualityRow]
    warnings: list[str]

    @property
    def numbers(self) -> dict[str, Number]:
        """The headline figures that are known, by name of their columns."""
        return {tile.figure.name: tile.shown.number for tile in self.tiles if tile.shown.number is not None}


def make_view(data: DayData) -> DayView:
    """Makes the page of a day."""
    rows = data.intervals[data.day]
    totals = add_up(_INTERVALS, rows)
    local = data.read_at and data.read_at.astimezone(data.timezone)
    compared = _add_up_compared(data)
    slots = _by_slot(data)
    names = _name_starts([start for start, _ in slots])
    return DayView(
        day=data.day,
        weekday=_WEEKDAYS[data.day.weekday()],
        timezone=data.timezone.key,
        until=f"{data.until:%H:%M}" if data.until else None,
        read_at=f"{local:%Y-%m-%d %H:%M}" if local else None,
        tiles=[Tile(figure, figure.show(totals), _compare(figure, totals, compared)) for figure in HEADLINE],
        slots=[_to_slot(start, name, of_slot) for name, (start, of_slot) in zip(names, slots, strict=True)],
        intervals=TableView(
            key="intervals",
            caption="Calls by half hour",
            row_labels=["Start"],
            figures=_SLOT_FIGURES,
            rows=[
                TableRow([name], _show(_SLOT_FIGURES, of_slot)) for name, (_, of_slot) in zip(names, slots, strict=True)
            ],
            total=TableRow(["Day"], _show(_SLOT_FIGURES, totals)),
            none="",
        ),
        heat_map=_make_heat_map(data),
        queues=_make_table(
            _QUEUE_FIGURES,
            rows,
            _name_queue,
            key="queues",
            caption="Campaigns and ring groups",
            row_labels=["Campaign", "Ring group"],
            most=_MOST_QUEUES,
            order="calls",
            none="none",
        ),
        agents=_make_table(
            _AGENT_FIGURES,
            data.agents,
            _name_agent,
            key="agents",
            caption="Agents",
            row_labels=["Agent"],
            most=_MOST_AGENTS,
            order="handled_calls",
            none="no agent named",
        ),
        dispositions=_make_table(
            _OUTCOME_FIGURES,
            data.dispositions,
            _name_outcome,
            key="dispositions",
            caption="Dispositions",
            row_labels=["Disposition"],
            most=_MOST_OUTCOMES,
            order="calls",
            none="none set, or not yet",
            bars="calls",
        ),
        quality=_judge(data, totals),
        warnings=_warn(data),
    )


def clean(text: str) -> str:
    """Makes a text of the vendor one line of visible characters, at most 120 of them."""
    text = " ".join(text.split())
    text = "".join(
        "\N{REPLACEMENT CHARACTER}"
        if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Cn"} and c not in "\u200c\u200d"
        else c
        for c in text
    )
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"


def _show(figures: Iterable[Figure], totals: Totals, *, bars: str | None = None, longest: Number = 0) -> list[Shown]:
    return [figure.show(totals, bar_of=longest if figure.name == bars else None) for figure in figures]


def _add_up_compared(data: DayData) -> dict[str, Totals | None]:
    """Adds up the day before and the same weekday of the week before, while the day runs until the same time."""
    until = data.until
    compared = {"yesterday": 1, f"last {_WEEKDAYS[data.day.weekday()][:3]}": 7}
    days = {name: data.intervals.get(data.day - timedelta(days=distance)) for name, distance in compared.items()}
    return {
        name: None
        if rows is None
        else add_up(_INTERVALS, [row for row in rows if not until or row["interval_start_local"].time() <= until])
        for name, rows in days.items()
    }


def _compare(figure: Figure, totals: Totals, compared: Mapping[str, Totals | None]) -> list[Change]:
    changes = []
    for name, then in compared.items():
        if then is None:
            changes.append(Change(f"{name} not stored"))
            continue
        before, now = then[figure.name], totals[figure.name]
        if before is None or now is None:
            changes.append(Change(f"{name} {figure.show(then).text}"))
            continue
        change = write_change(before, now, figure.unit)
        mood: Literal["good", "bad", "plain"] = "plain"
        if figure.better and change != "the same":
            mood = "good" if (now > before) == (figure.better == "more") else "bad"
        changes.append(Change(f"{name} {write_number(before, figure.unit)}", change, mood))
    return changes


def _by_slot(data: DayData) -> list[tuple[datetime, Totals]]:
    """Adds up by half hour, every one from the first full hour with calls to the last; starts are local."""
    grouped: dict[datetime, list[Row]] = {}
    for row in data.intervals[data.day]:
        grouped.setdefault(row["interval_start_at"].astimezone(UTC), []).append(row)
    if not grouped:
        return []
    start, end = min(grouped), max(grouped)
    start -= _HALF_HOUR if start.astimezone(data.timezone).minute else timedelta(0)
    moments = {start + step * _HALF_HOUR for step in range((end - start) // _HALF_HOUR + 1)} | grouped.keys()
    return [
        (moment.astimezone(data.timezone), add_up(_INTERVALS, grouped.get(moment, []))) for moment in sorted(moments)
    ]


def _name_starts(starts: Sequence[datetime]) -> list[str]:
    """Writes local times, those that come twice (clocks go back) with their distance from UTC."""
    count = Counter(f"{start:%H:%M}" for start in starts)
    return [f"{start:%H:%M}" if count[f"{start:%H:%M}"] == 1 else f"{start:%H:%M} ({start:%Z %z})" for start in starts]


def _to_slot(start: datetime, name: str, totals: Totals) -> Slot:
    level = totals[_LEVEL.name]
    parts = ", ".join(f"{figure.label.lower()} {figure.show(totals).text}" for figure in _SLOT_FIGURES[:4])
    return Slot(
        f"{start:%H:%M}",
        int(totals["offered_calls"] or 0),
        int(totals["answered_calls"] or 0),
        level,
        f"{name}: {parts}",
    )


def _make_table(
    figures: Sequence[Figure],
    rows: Iterable[Row],
    name: Callable[[Row], tuple[str | None, ...]],
    *,
    key: str,
    caption: str,
    row_labels: list[str],
    most: int,
    order: str,
    none: str,
    bars: str | None = None,
) -> TableView:
    """Adds up rows by name, the largest first, those beyond `most` together in one row."""
    mart = figures[0].mart
    grouped: dict[tuple[str | None, ...], list[Row]] = {}
    for row in rows:
        grouped.setdefault(name(row), []).append(row)
    summed = [(names, add_up(mart, of_name)) for names, of_name in grouped.items()]
    summed.sort(key=lambda item: (None in item[0], -(item[1][order] or 0), tuple(map(str, item[0]))))
    shown = summed if len(summed) <= most else summed[: most - 1]
    rest = [row for names, _ in summed[len(shown) :] for row in grouped[names]]
    blank: list[str | None] = [""] * (len(row_labels) - 1)
    longest = max((totals[bars] or 0 for _, totals in shown), default=0) if bars else 0
    views = [
        TableRow(
            [text if text is None else clean(text) for text in names],
            _show(figures, totals, bars=bars, longest=longest),
        )
        for names, totals in shown
    ]
    if rest:
        views.append(TableRow([f"{len(summed) - len(shown)} more", *blank], _show(figures, add_up(mart, rest))))
    everything = add_up(mart, (row for of_name in grouped.values() for row in of_name))
    return TableView(
        key=key,
        caption=caption,
        row_labels=row_labels,
        figures=figures,
        rows=views,
        total=TableRow(["All", *blank], _show(figures, everything)),
        none=none,
    )


def _name_queue(row: Row) -> tuple[str | None, ...]:
    return tuple(_name(row[f"{thing}_name"], row[f"{thing}_id"]) for thing in ("campaign", "ring_group"))


def _name_agent(row: Row) -> tuple[str | None]:
    alias, id_ = row["alias"], row["agent_id"]
    # Two agents may have one name.
    return (f"{clean(alias)} ({id_})" if alias is not None and id_ is not None else _name(alias, id_),)


def _name_outcome(row: Row) -> tuple[str | None]:
    return (_name(row["disposition_code"], row["disposition_id"]),)


def _name(text: str | None, id_: int | None) -> str | None:
    if text is not None:
        return clean(text) or "(blank)"
    return None if id_ is None else f"number {id_}"


def _make_heat_map(data: DayData) -> HeatMap:
    """Calls offered in a mean hour of each weekday; hours that clocks leave out are in no mean."""
    offered: Counter[tuple[int, int]] = Counter()
    counted: Counter[tuple[int, int]] = Counter()
    for day, rows in data.hours.items():
        for start, calls in rows:
            offered[start.hour, day.weekday()] += calls
        for hour in range(24):
            start = datetime.combine(day, time(hour), data.timezone)
            counted[hour, day.weekday()] += start.astimezone(UTC).astimezone(data.timezone).hour == hour
    hours = [hour for hour, _ in offered if any(offered[hour, weekday] for weekday in range(7))]
    means = {cell: divide(offered[cell], count) for cell, count in counted.items()}
    highest = max((mean for mean in means.values() if mean), default=0)
    rows_shown = []
    for hour in range(min(hours), max(hours) + 1) if hours else ():
        cells = [_make_cell(hour, weekday, means.get((hour, weekday)), highest, counted) for weekday in range(7)]
        rows_shown.append((f"{hour:02}:00", cells))
    return HeatMap(_WEEKDAYS, rows_shown, sorted(data.hours))


def _make_cell(
    hour: int, weekday: int, mean: float | None, highest: float, counted: Mapping[tuple[int, int], int]
) -> HeatCell:
    name = f"{_WEEKDAYS[weekday]} {hour:02}:00 to {hour + 1:02}:00"
    if mean is None:
        return HeatCell(Shown(NOT_KNOWN, None), None, f"{name}: no such day is stored")
    count = counted[hour, weekday]
    level = min(_HEAT_LEVELS - 1, int(mean / highest * _HEAT_LEVELS)) if highest else 0
    text = f"{name}: {write_number(mean, Unit.CALLS)} calls offered, mean of {count} {'day' if count == 1 else 'days'}"
    return HeatCell(Shown(f"{mean:.1f}" if 0 < mean < 9.95 else f"{mean:.0f}", mean), level, text)


def _judge(data: DayData, totals: Totals) -> list[QualityRow]:
    """Says how far the figures can be trusted."""
    calls = TABLES["calls"].schema
    rows = [
        _quality(
            "stored_calls",
            "Calls stored",
            data.stored_calls,
            Unit.CALLS,
            f"{TABLES['calls'].description} All of the day.",
        ),
        _quality(
            "provisional_calls",
            "Provisional calls",
            data.provisional_calls,
            Unit.CALLS,
            "Calls that are asked for again: their disposition, tags or recording may still come. "
            f"Not is_final: {describe(calls.field('is_final'))}",
        ),
        _quality(
            "calls_under_way",
            "Calls not over when read",
            _subtract(totals["calls"], totals["ended_calls"]),
            Unit.CALLS,
            f"They are in no count of calls offered, answered or connected. ended_calls: {_define('ended_calls')}",
        ),
    ]
    for name, label, number, meaning in (
        (
            "unaccounted_ids",
            "Ids never answered",
            data.coverage.unaccounted_count if data.coverage else None,
            "Ids that may belong to the day, without any answer of the API so far: calls may be missing.",
        ),
        (
            "unread_ids",
            "Ids beside the day not read",
            data.coverage.unread_count if data.coverage else None,
            "Ids in a hole at the day's edge that is so large that it is taken for a jump in the vendor's numbering, "
            "or below the first known call: where it is none, calls are missing.",
        ),
        (
            "missing_ids",
            "Ids the vendor does not have",
            data.coverage.missing if data.coverage else None,
            f"Ids between the day's first and last call. http_status: {_record('http_status')}",
        ),
        (
            "quarantined_answers",
            "Answers in quarantine",
            data.coverage.quarantined if data.coverage else None,
            f"Answers that are no call records; they are kept and asked for again. error: {_record('error')}",
        ),
    ):
        rows.append(_quality(name, label, number, Unit.CALLS, meaning))
    for name, label in (
        ("disposition_coverage", "Connected calls with a disposition"),
        ("recording_coverage", "Connected calls with a recording"),
    ):
        figure = _service(name, label, Unit.SHARE)
        rows.append(QualityRow(name, label, figure.show(totals), figure.definition))
    for name, label, known, of in (
        ("abandonment_known_share", "Offered calls with webhook data", "abandonment_known_calls", "offered_calls"),
        ("wait_known_share", "Answered calls with a known wait", "wait_known_calls", "answered_calls"),
        ("talk_known_share", "Connected calls with a known talk time", "talk_known_calls", "connected_calls"),
    ):
        share = divide(totals[known], totals[of])
        shown = Shown(NO_CALLS, None) if share is None else Shown(write_number(share, Unit.SHARE), share)
        rows.append(QualityRow(name, label, shown, f"{known} / {of}. {known}: {_define(known)}"))
    unknown = _service("sla_unknown_calls", "Answered calls without a told service level")
    rows.append(QualityRow(unknown.name, unknown.label, unknown.show(totals), unknown.definition))
    return rows


def _quality(key: str, label: str, number: Number | None, unit: Unit, definition: str) -> QualityRow:
    shown = Shown(NOT_KNOWN, None) if number is None else Shown(write_number(number, unit), number)
    return QualityRow(key, label, shown, definition)


def _define(name: str) -> str:
    return describe(_INTERVALS.schema.field(name))


def _record(name: str) -> str:
    return describe(CALL_RECORDS.schema.field(name))


def _subtract(minuend: Number | None, subtrahend: Number | None) -> Number | None:
    return None if minuend is None or subtrahend is None else minuend - subtrahend


def _warn(data: DayData) -> list[str]:
    """Says what a reader has to know before the figures."""
    warnings = []
    if data.until:
        warnings.append("This day is not over: its figures are those so far, and so are those they are compared with.")
    if data.coverage and data.coverage.unaccounted_count:
        count = write_number(data.coverage.unaccounted_count, Unit.CALLS)
        warnings.append(f"Calls may be missing: ids without an answer so far: {count}.")
    if data.coverage and data.coverage.quarantined:
        count = write_number(data.coverage.quarantined, Unit.CALLS)
        warnings.append(f"Calls may be missing: answers in quarantine: {count}.")
    if not data.stored_calls:
        warnings.append("No calls are stored for this day.")
    return warnings
