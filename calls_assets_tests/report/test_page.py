"""The page of a day: its values equal the marts, NULL is no 0, and every figure says what it means."""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from datetime import date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from calls_assets.lake import MARTS, TABLES, Lake, describe
from calls_assets.report import publish_report
from calls_assets_tests.lakes import DAYS, EMPTY_DAY, NOW, WEBHOOK_DAYS, ZONE, FinishedLake
from calls_assets_tests.report.reading import Node, read_changes, read_page, read_table, read_tile, read_value

LONG_DAY = date(2025, 2, 23)
SHORT_DAY = date(2025, 4, 6)
SHOWN_DAYS = [WEBHOOK_DAYS[3], DAYS[50], LONG_DAY, SHORT_DAY]
COUNTS = (
    "offered_calls",
    "answered_calls",
    "unanswered_calls",
    "callbacks_requested",
    "outbound_calls",
    "calls",
)
MINUS = "\N{MINUS SIGN}"
COVERAGE = SimpleNamespace(missing=7, quarantined=2, unaccounted_count=3, unread_count=5)


@pytest.fixture(scope="module")
def lake(finished_lake: FinishedLake, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Gives a lake of the same days to write reports to."""
    root = tmp_path_factory.mktemp("report") / "data"
    shutil.copytree(finished_lake.root, root)
    return Lake.open(root)


def make_page(lake: Lake, day: date, now: datetime = NOW) -> Node:
    """Publishes a day's report and reads it."""
    result = publish_report(lake, day, now=now, timezone=ZONE, coverage=COVERAGE)
    return read_page(lake.storage.read(result.key).decode())


def total(rows: list[dict[str, Any]], name: str) -> int:
    """Adds up what is known."""
    return sum(row[name] for row in rows if row[name] is not None)


def quotient(rows: list[dict[str, Any]], numerator: str, denominator: str, otherwise: str = "no calls") -> float | str:
    """Divides sums, or gives the words for a quotient by none."""
    return total(rows, numerator) / total(rows, denominator) if total(rows, denominator) else otherwise


@pytest.mark.parametrize("day", SHOWN_DAYS)
def test_the_headline_figures_are_sums_of_the_mart(lake: Lake, day: date) -> None:
    """Each of them, and the result has the same numbers for metadata."""
    rows = lake.read_table("service_intervals", day).to_pylist()
    is_told = day in WEBHOOK_DAYS
    expected = {name: total(rows, name) for name in COUNTS} | {
        name: quotient(rows, numerator, denominator, "not known")
        for name, numerator, denominator in (
            ("service_level_strict", "answered_within_sla_calls", "offered_calls"),
            ("service_level_answered", "answered_within_sla_calls", "answered_calls"),
            ("service_level_without_callbacks", "answered_within_sla_calls", "offered_without_callbacks_calls"),
            ("answer_rate", "answered_calls", "offered_calls"),
            ("average_speed_of_answer_seconds", "answered_wait_seconds", "wait_known_calls"),
            ("abandonment_rate", "abandoned_calls", "abandonment_known_calls"),
            ("mean_talk_seconds", "talk_seconds", "talk_known_calls"),
            ("transfer_rate", "transferred_calls", "connected_calls"),
            ("outbound_connect_rate", "outbound_answered_calls", "outbound_calls"),
        )
    }
    page = make_page(lake, day)
    assert {name: read_tile(page, name) for name in expected} == expected
    assert (expected["abandonment_rate"] == "not known") == (not is_told)
    result = publish_report(lake, day, now=NOW, timezone=ZONE, coverage=COVERAGE)
    assert result.figures == {name: value for name, value in expected.items() if value != "not known"}
    assert all(type(value) in {int, float} for value in (result.figures | result.quality).values())


@pytest.mark.parametrize("day", SHOWN_DAYS)
def test_the_half_hours_are_those_of_the_mart_and_the_chart_shows_them(lake: Lake, day: date) -> None:
    """Half hours without calls are there too; the hints of the drawing say the same."""
    rows = lake.read_table("service_intervals", day).to_pylist()
    page = make_page(lake, day)
    shown = read_table(page, "intervals")
    grouped = defaultdict(list)
    for row in rows:
        grouped[f"{row['interval_start_local']:%H:%M}"].append(row)
    found: dict[str, list[list[float | str]]] = defaultdict(list)
    for (name,), figures in shown[:-1]:
        found[name[:5]].append(figures)
    for name, of_slot in grouped.items():
        for place, column in enumerate(("offered_calls", "answered_calls", "unanswered_calls")):
            assert sum(float(figures[place]) for figures in found[name]) == total(of_slot, column), (name, column)
        if len(found[name]) == 1:
            (figures,) = found[name]
            assert figures[3] == quotient(of_slot, "answered_within_sla_calls", "offered_calls")
    assert all(figures[:4] == [0, 0, 0, "no calls"] for name in found.keys() - grouped for figures in found[name])
    assert shown[-1][1][0] == total(rows, "offered_calls")

    names = [name for (name,), _ in shown[:-1]]
    assert len(names) == len(set(names)), "names of half hours tell them apart"
    wide = page.by_id("wide-title")
    hints = [node.text for node in page.walk() if node.tag == "title" and re.match(r"\d\d:\d\d", node.text)]
    assert wide.text == "Calls offered and answered, and service level, by half hour"
    for ((name,), figures), hint in zip(shown[:-1], hints, strict=True):
        assert hint.startswith(f"{name}: offered {figures[0]:.0f}, answered {figures[1]:.0f}, unanswered ")


def test_the_height_of_a_bar_is_its_number(lake: Lake) -> None:
    """In the drawing, the bars of the calls offered are in proportion to them."""
    page = make_page(lake, DAYS[50])
    offered = [float(figures[0]) for _, figures in read_table(page, "intervals")[:-1]]
    (chart,) = [node for node in page.all("svg") if node.attributes.get("aria-labelledby") == "narrow-title"]
    drawn = [group for group in chart.all("g") if group.attributes.get("class", "").startswith("serie-")]
    parts = [group.all("rect") for group in drawn[:2]]
    heights = [sum(float(bar.attributes["height"]) for bar in bars) for bars in zip(*parts, strict=True)]
    assert len(heights) == len(offered)
    scale = max(heights) / max(offered)
    assert heights == pytest.approx([scale * number for number in offered], abs=0.01)


@pytest.mark.parametrize("day", SHOWN_DAYS)
def test_tables_of_agents_queues_and_dispositions_equal_the_marts(lake: Lake, day: date) -> None:
    """Row by row, and in sum."""
    page = make_page(lake, day)
    agents = lake.read_table("agent_days", day).to_pylist()
    expected = {}
    for row in agents:
        name = f"{row['alias']} ({row['agent_id']})" if row["alias"] is not None else f"number {row['agent_id']}"
        expected["no agent named" if row["agent_id"] is None else name] = [
            row["handled_calls"],
            row["talk_seconds"],
            quotient([row], "talk_seconds", "talk_known_calls", "not known" if row["handled_calls"] else "no calls"),
            *(row[f"{name}_legs"] for name in ("offered", "answered", "no_answer", "declined", "caller_hangup")),
            *(row[f"{name}_legs"] for name in ("lost_race", "other_reason", "unknown_reason")),
            row["transferred_calls"],
            quotient([row], "disposed_calls", "handled_calls"),
        ]
    shown = read_table(page, "agents")
    assert {name: figures for (name,), figures in shown[:-1]} == expected
    assert shown[-1][0] == ("All",)
    assert shown[-1][1][3] == total(agents, "offered_legs")

    intervals = lake.read_table("service_intervals", day).to_pylist()
    groups = defaultdict(list)
    for row in intervals:
        groups[row["campaign_name"] or "none", row["ring_group_name"] or "none"].append(row)
    shown = read_table(page, "queues")
    assert {names: figures[:5] + figures[6:] for names, figures in shown[:-1]} == {
        names: [
            *(total(rows, name) for name in ("offered_calls", "answered_calls", "unanswered_calls")),
            quotient(rows, "answered_calls", "offered_calls"),
            quotient(rows, "answered_within_sla_calls", "offered_calls"),
            total(rows, "outbound_calls"),
            quotient(rows, "outbound_answered_calls", "outbound_calls"),
        ]
        for names, rows in groups.items()
    }

    dispositions = lake.read_table("disposition_days", day).to_pylist()
    outcomes = defaultdict(list)
    for row in dispositions:
        outcomes[row["disposition_code"] or "none set, or not yet"].append(row)
    shown = read_table(page, "dispositions")
    assert {names: figures[:2] for names, figures in shown[:-1]} == {
        (name,): [total(rows, "calls"), total(rows, "connected_calls")] for name, rows in outcomes.items()
    }
    assert shown[-1][1][0] == len(lake.read_table("calls", day))
    bars = [float(node.attributes["width"]) for node in page.by_id("dispositions").all("rect")]
    counts = [float(figures[0]) for _, figures in shown[:-1]]
    assert bars == pytest.approx([100 * count / max(counts) for count in counts], abs=0.01)


def test_the_heat_map_is_the_mean_of_four_weeks(lake: Lake) -> None:
    """By local hour and weekday; an hour that a day does not have counts for no mean of it."""
    for day in (DAYS[40], DAYS[55]):
        page = make_page(lake, day)
        days = [other for other in DAYS if timedelta(0) <= day - other < timedelta(days=28)]
        counts: dict[tuple[int, int], int] = defaultdict(int)
        for other in days:
            for row in lake.read_table("service_intervals", other).to_pylist():
                counts[row["interval_start_local"].hour, other.weekday()] += row["offered_calls"]
        shown = {
            (int(name[:2]), weekday): value
            for (name,), figures in read_table(page, "heat")
            for weekday, value in enumerate(figures)
        }
        assert all(count == 0 or cell in shown for cell, count in counts.items())
        for (hour, weekday), value in shown.items():
            missing = SHORT_DAY in days and (hour, weekday) == (2, 6)
            assert value == pytest.approx(counts[hour, weekday] / (3 if missing else 4))
        levels = [
            (value, int(node.attributes["class"].removeprefix("heat-")))
            for node in page.by_id("heat").all("td")
            if isinstance(value := read_value(node), float)
        ]
        assert [level for _, level in sorted(levels)] == sorted(level for _, level in levels)
        assert {level for _, level in levels} <= set(range(8))
        assert max(levels)[1] == 7


def test_weekdays_that_are_not_stored_are_not_known(lake: Lake) -> None:
    """On the second day of a lake five weekdays have no figure, which is not 0."""
    page = make_page(lake, DAYS[1])
    for _, figures in read_table(page, "heat"):
        assert [isinstance(value, str) for value in figures] == [True] * 4 + [False] * 2 + [True]
        assert set(figures[:4]) == {"not known"}


def test_comparisons_are_with_yesterday_and_the_same_weekday(lake: Lake) -> None:
    """Numbers, differences, and whether that is good."""
    day = DAYS[50]
    now, yesterday, last_week = (
        lake.read_table("service_intervals", day - timedelta(days=days)).to_pylist() for days in (0, 1, 7)
    )
    page = make_page(lake, day)
    expected = []
    for name, rows in (("yesterday", yesterday), (f"last {day:%a}", last_week)):
        before, after = (quotient(of, "answered_calls", "offered_calls") for of in (rows, now))
        assert isinstance(before, float)
        assert isinstance(after, float)
        assert before != after
        sign, mood = ("+", "good") if after > before else (MINUS, "bad")
        expected.append((mood, f"{name} {100 * before:.1f}% ({sign}{100 * abs(after - before):.1f} pts)"))
    assert read_changes(page, "answer_rate") == expected
    (_, text), _ = read_changes(page, "offered_calls")
    before, after = total(yesterday, "offered_calls"), total(now, "offered_calls")
    sign = "+" if after > before else MINUS
    assert text == (
        f"yesterday {before} ({sign}{abs(after - before)}, {sign}{100 * abs(after - before) / before:.0f}%)"
    )
    assert read_changes(page, "abandonment_rate")[0] == ("plain", "yesterday not known")


def test_a_day_without_comparison_days_says_so(lake: Lake) -> None:
    """The first day has neither; nothing is compared with 0."""
    page = make_page(lake, DAYS[0])
    assert read_changes(page, "offered_calls") == [("plain", "yesterday not stored"), ("plain", "last Fri not stored")]


def test_a_day_under_way_is_compared_until_the_same_time(lake: Lake) -> None:
    """And its own hours are not in the heat map yet; a notice says that it is not over."""
    day = DAYS[50]
    now = datetime.combine(day, datetime.min.time(), ZONE) + timedelta(hours=11, minutes=40)
    page = make_page(lake, day, now)
    rows = lake.read_table("service_intervals", day - timedelta(days=1)).to_pylist()
    until = [row for row in rows if f"{row['interval_start_local']:%H:%M}" <= "11:30"]
    assert read_changes(page, "offered_calls")[0][1].startswith(f"yesterday {total(until, 'offered_calls')} (")
    assert "This day is not over" in page.text
    assert f"to {day - timedelta(days=1)}." in page.text
    assert "This day is not over" not in make_page(lake, day).text


def test_an_empty_day_has_a_page(lake: Lake) -> None:
    """Counts are 0, quotients have no calls, and there is no drawing."""
    page = make_page(lake, EMPTY_DAY)
    assert read_tile(page, "offered_calls") == 0
    for name in ("service_level_strict", "abandonment_rate", "mean_talk_seconds", "outbound_connect_rate"):
        assert read_tile(page, name) == "no calls"
    assert "No calls are stored for this day." in page.text
    assert not page.all("svg")
    result = publish_report(lake, EMPTY_DAY, now=NOW, timezone=ZONE)
    assert result.figures == dict.fromkeys(COUNTS, 0)


def test_data_quality_is_shown(lake: Lake) -> None:
    """Provisional calls, coverage and quarantine, with a notice; without coverage they are not known."""
    day = WEBHOOK_DAYS[3]
    page = make_page(lake, day)
    calls = lake.read_table("calls", day).to_pylist()
    intervals = lake.read_table("service_intervals", day).to_pylist()
    assert {names: figures[0] for names, figures in read_table(page, "quality")} == {
        ("Calls stored",): len(calls),
        ("Provisional calls",): sum(not call["is_final"] for call in calls),
        ("Calls not over when read",): sum(call["is_ended"] is not True for call in calls),
        ("Ids never answered",): 3,
        ("Ids beside the day not read",): 5,
        ("Ids the vendor does not have",): 7,
        ("Answers in quarantine",): 2,
        ("Connected calls with a disposition",): quotient(intervals, "disposed_calls", "connected_calls"),
        ("Connected calls with a recording",): quotient(intervals, "recorded_calls", "connected_calls"),
        ("Offered calls with webhook data",): quotient(intervals, "abandonment_known_calls", "offered_calls"),
        ("Answered calls with a known wait",): quotient(intervals, "wait_known_calls", "answered_calls"),
        ("Connected calls with a known talk time",): quotient(intervals, "talk_known_calls", "connected_calls"),
        ("Answered calls without a told service level",): total(intervals, "sla_unknown_calls"),
    }
    notices = [node.text for node in page.walk() if node.attributes.get("class") == "warning"]
    assert notices == [
        "Calls may be missing: ids without an answer so far: 3.",
        "Calls may be missing: answers in quarantine: 2.",
    ]
    result = publish_report(lake, day, now=NOW, timezone=ZONE)
    page = read_page(lake.storage.read(result.key).decode())
    for name in ("unaccounted_ids", "unread_ids", "missing_ids", "quarantined_answers"):
        assert read_value(page.by_id(f"quality-{name}")) == "not known"
        assert name not in result.quality


def test_every_figure_says_what_it_means(lake: Lake) -> None:
    """On hover by its title; for keyboard and screen reader by a description that can be opened."""
    page = make_page(lake, SHOWN_DAYS[0])
    for node in page.walk():
        if node.tag == "data" or node.attributes.get("class") == "unknown":
            assert len(node.attributes["title"]) > 10, node
    ids = {node.attributes["id"] for node in page.walk() if "id" in node.attributes}
    for name in ("intervals", "queues", "agents", "dispositions"):
        heads = [node for node in page.by_id(name).all("th") if "title" in node.attributes]
        assert len(heads) == len(read_table(page, name)[0][1])
        for head in heads:
            assert page.by_id(head.attributes["aria-describedby"]).text == head.attributes["title"]
    for tile in (node for node in page.all("article") if node.attributes["class"] == "tile"):
        column = tile.attributes["id"].removeprefix("figure-")
        definition = describe(MARTS["service_intervals"].schema.field(column))
        (details,) = tile.all("details")
        assert details.all("p")[0].text == definition
        assert details.all("summary")[0].text.startswith("Definition of ")
        assert tile.all("h3")[0].attributes["title"] == definition
    assert describe(TABLES["calls"].schema.field("is_final")) in page.by_id("quality-def-provisional_calls").text
    for node in page.walk():
        for attribute in ("aria-labelledby", "aria-describedby"):
            assert set(node.attributes.get(attribute, "").split()) <= ids, node.attributes
