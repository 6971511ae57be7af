"""Publishing: makes the page of a day from its marts and writes it.

What belongs here: which files a page is made from, and which it is written to. What stays out: what it shows (`views`).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.resources
import re
import unicodedata
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pyarrow.compute as pc

from calls_assets.lake import Lake, LakeError, StoredFile
from calls_assets.lake.recipe import make_recipe
from calls_assets.report.figures import Number, Row
from calls_assets.report.views import HEAT_MAP_DAYS, DayCoverage, DayData, make_view

REPORTS_PREFIX = "reports/"
LATEST_KEY = f"{REPORTS_PREFIX}latest.html"
_MARTS = ("service_intervals", "agent_days", "disposition_days")
_COMPARED = (1, 7)
_PAGE = re.compile(rf"{REPORTS_PREFIX}call_date=(\d{{4}}-\d\d-\d\d)/report\.html")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportResult:
    """What was written for a day.

    Attributes:
        day: The day.
        key: Path of its page in the lake.
        size: Length of the page in bytes.
        is_replaced: Whether the page changed.
        is_latest: Whether it is the newest day's, and so `reports/latest.html`.
        figures: The headline figures by column of service_intervals: counts, shares from 0 to 1, seconds. One that is
            not known is left out.
        quality: Figures about the data itself, by name; one that is not known is left out.
    """

    day: date
    key: str
    size: int
    is_replaced: bool
    is_latest: bool
    figures: dict[str, Number]
    quality: dict[str, Number]


def report_key(day: date) -> str:
    """Gives the path of a day's page."""
    return f"{REPORTS_PREFIX}call_date={day}/report.html"


def publish_report(
    lake: Lake, day: date, *, now: datetime, timezone: ZoneInfo, coverage: DayCoverage | None = None
) -> ReportResult:
    """Makes the page of a day and writes it, unless it is the same already.

    Nothing is read when the page was made of the same files in the same way; while the day runs, in the same half hour.

    Args:
        lake: The lake; it has the day's tables and marts.
        day: The day.
        now: The time: a day that is not over is compared with the same hours of the other days.
        timezone: Zone of the days.
        coverage: How the day's ids are accounted for, for example from `ingest.coverage`; shown as not known when None.

    Raises:
        LakeError: The day has no marts, or a file cannot be read or written.
    """
    key, name = report_key(day), f"report-{day}"
    until = _half_hour_under_way(day, now.astimezone(timezone))
    recipe = _make_recipe(lake, day, until=until, timezone=timezone, coverage=coverage)
    held = lake.read_made_of(name)
    page = _read_page(lake, key)
    is_replaced = False
    if held.get("recipe") != recipe or held["made_of"].encode() not in page:
        view = make_view(_read(lake, day, until=until, timezone=timezone, coverage=coverage))
        held = {
            "recipe": recipe,
            "made_of": hashlib.blake2b(f"{_hash_code()}{view!r}".encode(), digest_size=16).hexdigest(),
            "figures": view.numbers,
            "quality": {row.key: row.shown.number for row in view.quality if row.shown.number is not None},
        }
        # Drawing is most of the work: a page that was made of the same is not drawn again.
        if held["made_of"].encode() not in page:
            # Template and drawing take a tenth of a second to load.
            from calls_assets.report.page import render  # noqa: PLC0415

            page = render(view, held["made_of"]).encode()
            is_replaced = _replace(lake, key, page)
        lake.write_made_of(name, held)
    is_latest = day == max(_list_days(lake))
    if is_latest:
        _replace(lake, LATEST_KEY, page)
    return ReportResult(
        day=day,
        key=key,
        size=len(page),
        is_replaced=is_replaced,
        is_latest=is_latest,
        figures=held["figures"],
        quality=held["quality"],
    )


def _half_hour_under_way(day: date, local: datetime) -> time | None:
    """Gives the beginning of the half hour that runs; None when the day is over."""
    return time(local.hour, local.minute // 30 * 30) if local.date() <= day else None


def _make_recipe(lake: Lake, day: date, *, until: time | None, timezone: ZoneInfo, coverage: DayCoverage | None) -> str:
    """Identifies what the page of a day is made of, and how."""
    counts = coverage and (coverage.missing, coverage.quarantined, coverage.unaccounted_count, coverage.unread_count)
    return make_recipe(
        ["calls_assets.lake"],
        _hash_code(),
        unicodedata.unidata_version,
        timezone.key,
        until,
        counts,
        _list_sources(lake, day),
    )


def _list_sources(lake: Lake, day: date) -> list[StoredFile]:
    """Lists the files that the page of a day is made from."""
    files = lake.list_table_files("service_intervals", _days_before(day, *range(HEAT_MAP_DAYS), *_COMPARED))
    for name in ("calls", "agent_days", "disposition_days"):
        files += lake.list_table_files(name, [day])
    return files


def _read(lake: Lake, day: date, *, until: time | None, timezone: ZoneInfo, coverage: DayCoverage | None) -> DayData:
    intervals, agents, dispositions = (_read_rows(lake, name, day) for name in _MARTS)
    missing = [name for name, rows in zip(_MARTS, (intervals, agents, dispositions), strict=True) if rows is None]
    try:
        calls = lake.read_table("calls", day, ["is_final", "last_read_at"])
    except FileNotFoundError:
        missing.append("calls")
    if intervals is None or agents is None or dispositions is None or missing:
        raise LakeError(f"{day} has no {missing[0]} in the lake: materialize its tables and marts before its report")
    compared = {other: _read_rows(lake, "service_intervals", other) for other in _days_before(day, *_COMPARED)}
    stored = set(lake.table_days("service_intervals"))
    hours = {}
    for other in _days_before(day, *range(1 if until else 0, HEAT_MAP_DAYS)):
        if other in stored:
            rows = lake.read_table("service_intervals", other, ["interval_start_local", "offered_calls"])
            hours[other] = list(zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True))
    return DayData(
        day=day,
        timezone=timezone,
        until=until,
        intervals={day: intervals, **{other: rows for other, rows in compared.items() if rows is not None}},
        agents=agents,
        dispositions=dispositions,
        hours=hours,
        stored_calls=len(calls),
        provisional_calls=len(calls) - (pc.sum(calls["is_final"]).as_py() or 0),
        read_at=pc.max(calls["last_read_at"]).as_py(),
        coverage=coverage,
    )


def _days_before(day: date, *distances: int) -> list[date]:
    return [day - timedelta(days=distance) for distance in distances]


def _read_rows(lake: Lake, name: str, day: date) -> list[Row] | None:
    try:
        rows: list[Row] = lake.read_table(name, day).to_pylist()
    except FileNotFoundError:
        return None
    return rows


@functools.cache
def _hash_code() -> str:
    """Identifies how pages are made: by this package's modules and templates."""
    package = importlib.resources.files("calls_assets.report")
    files = [file for place in (package, package / "templates") for file in place.iterdir() if file.is_file()]
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(files, key=lambda file: file.name):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _read_page(lake: Lake, key: str) -> bytes:
    with contextlib.suppress(OSError):
        return lake.storage.read(key)
    return b""


def _list_days(lake: Lake) -> list[date]:
    matches = (_PAGE.fullmatch(file.key) for file in lake.list_files(REPORTS_PREFIX))
    return [date.fromisoformat(match[1]) for match in matches if match]


def _replace(lake: Lake, key: str, page: bytes) -> bool:
    """Writes a page unless it is the same; says whether it did."""
    try:
        with contextlib.suppress(FileNotFoundError):
            if lake.storage.read(key) == page:
                return False
        lake.storage.replace(key, page)
    except OSError as problem:
        raise LakeError(f"cannot write {key}: {(problem.strerror or 'input/output error').lower()}") from problem
    return True
