"""Publishing reports: which files, when they are replaced, and that a page needs nothing and lets nothing in."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from calls_assets.lake import Lake, LakeError
from calls_assets.marts import publish_marts
from calls_assets.report import LATEST_KEY, DayCoverage, ReportResult, publish_report, report_key
from calls_assets.report import publish as publishing
from calls_assets.report.views import HEAT_MAP_DAYS, DayData, DayView, clean, make_view
from calls_assets_tests.lakes import DAYS, NOW, WEBHOOK_DAYS, ZONE, FinishedLake, to_table
from calls_assets_tests.report.reading import Node, read_page, read_table, read_tile

DAY = date(2025, 5, 14)
NOON = datetime(2025, 5, 14, 12, tzinfo=UTC)
UTC_ZONE = ZoneInfo("UTC")
_HARMFUL = (
    "<script>alert(1)</script>",
    "</title></style><script src=//evil.example/x.js></script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><style>*{background:url(//evil.example)}</style></svg>",
    "\"><iframe src='javascript:alert(1)'>",
    "' onmouseover='alert(1)",
    '" onfocus="alert(1)" autofocus="',
    "`onclick=alert(1)`",
    "</td></tr></table><h1>gone</h1>",
    "</bdi></th></tr></script><b>",
    "<!-- no comment -->",
    "<![CDATA[ no ]]>",
    "<?php echo 1 ?>",
    "{{ 7 * 7 }}",
    "{% for a in b %}",
    "{# gone #}",
    "${7*7}",
    "$E=mc^2$",
    "#{7*7}",
    "&lt;b&gt;",
    "&amp;&#60;&#x3c;",
    "&notanentity;",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "<a href=http://evil.example>x</a>",
    "<base href=//evil.example/>",
    "<meta http-equiv=refresh content=0;url=//evil.example>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "@import url(//evil.example/x.css);",
    "<form action=//evil.example><input name=a>",
    "<math><mtext></mtext><script>1</script>",
    "<template><script>1</script></template>",
    "<noscript><p title='</noscript><img src=x onerror=1>'>",
    "=cmd|' /C calc'!A0",
    "'; DROP TABLE calls; --",
    "\\u003cscript\\u003e",
    "%3Cscript%3E",
    "\N{FULLWIDTH LESS-THAN SIGN}script\N{FULLWIDTH GREATER-THAN SIGN}",
    "<scr\x00ipt>",
)
HARMFUL = [f"{text}{'>' * depth}{number}" for number, text in enumerate(_HARMFUL) for depth in range(5)]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Gives an empty lake."""
    return Lake.open(tmp_path / "data")


def store(lake: Lake, calls: list[dict[str, Any]], legs: list[dict[str, Any]] = [], day: date = DAY) -> None:  # noqa: B006 - never changed
    """Stores a day's calls and legs, and makes its marts."""
    default = {
        "started_at": NOON,
        "started_at_local": NOON.replace(tzinfo=None),
        "is_inbound": True,
        "is_answered": True,
        "is_ended": True,
        "read_count": 1,
        "is_final": True,
        **dict.fromkeys(("first_read_at", "last_read_at", "last_changed_at"), NOON),
    }
    rows = [{"call_id": number, **default, **call} for number, call in enumerate(calls)]
    lake.write_table("calls", day, to_table("calls", rows))
    lake.write_table(
        "call_agents", day, to_table("call_agents", [{"leg": 0, "is_answered": True, **leg} for leg in legs])
    )
    publish_marts(lake, [day], now=NOW, timezone=UTC_ZONE)


def publish(lake: Lake, day: date = DAY) -> str:
    """Publishes a day's report and gives its page."""
    result = publish_report(lake, day, now=NOW, timezone=UTC_ZONE)
    return lake.storage.read(result.key).decode()


def name_everything(lake: Lake, texts: list[str]) -> Node:
    """Makes a page in which every text of the vendor is one of these."""
    calls = [
        {
            "campaign_id": number,
            "campaign_name": text,
            "ring_group_id": number,
            "ring_group_name": text,
            "disposition_id": number,
            "disposition_code": text,
            "contact_full_name": text,
            "answered_agent_id": number,
            "tags": [text],
        }
        for number, text in enumerate(texts)
    ]
    legs = [
        {"call_id": number, "agent_id": number, "alias": text, "hangup_reason": text}
        for number, text in enumerate(texts)
    ]
    store(lake, calls, legs)
    return read_page(publish(lake))


def outline(page: Node) -> list[tuple[str, tuple[str, ...]]]:
    """Gives all elements and the names of their attributes."""
    return [(node.tag, tuple(node.attributes)) for node in page.walk()]


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, tuple[str, ...]]]:
    """Gives the outline of a page with harmless names."""
    lake = Lake.open(tmp_path_factory.mktemp("harmless"))
    return outline(name_everything(lake, [f"name {number:02}" for number in range(25)]))


@pytest.mark.parametrize("start", range(0, len(HARMFUL), 25))
def test_a_text_of_the_vendor_is_a_text_and_nothing_else(
    lake: Lake, harmless: list[tuple[str, tuple[str, ...]]], start: int
) -> None:
    """With 200 harmful names the page has the elements and attributes it has with harmless ones, and shows them."""
    assert len(set(HARMFUL)) == 200
    texts = HARMFUL[start : start + 25]
    page = name_everything(lake, texts)
    assert outline(page) == harmless
    shown = {clean(text) for text in texts}
    assert {names[0] for names, _ in read_table(page, "agents")[:-1]} == {
        f"{clean(text)} ({number})" for number, text in enumerate(texts)
    }
    assert {names[0] for names, _ in read_table(page, "dispositions")[:-1]} == shown
    assert {names for names, _ in read_table(page, "queues")[:-1]} == {(text, text) for text in shown}
    for node in page.walk():
        for value in node.attributes.values():
            assert not any(text in value for text in texts if len(text) > 12), "no text of the vendor in an attribute"


def test_names_are_cut_and_cleaned() -> None:
    """One line of at most 120 visible characters; what turns writing round or hides is replaced."""
    assert clean("  two\n\tlines ") == "two lines"
    assert clean("a\u202eb\x07c\u200bd") == "a\ufffdb\ufffdc\ufffdd"
    joined = "\N{ARABIC LETTER MEEM}\u200c\N{ARABIC LETTER FEH} ñ 汉字 👩\u200d🚀"
    assert clean(joined) == joined
    assert clean("x" * 1000) == "x" * 119 + "…"
    assert len(clean("x" * 120)) == 120


def test_a_page_needs_nothing_and_allows_nothing(finished_lake: FinishedLake, tmp_path: Path) -> None:
    """No reference leaves it; the policy allows its own style, by its hash, and no script."""
    shutil.copytree(finished_lake.root, tmp_path / "data")
    lake = Lake.open(tmp_path / "data")
    result = publish_report(lake, DAYS[50], now=NOW, timezone=ZONE)
    html = lake.storage.read(result.key).decode()
    page = read_page(html)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", html)
    ids = [node.attributes["id"] for node in page.walk() if "id" in node.attributes]
    assert len(ids) == len(set(ids))
    for node in page.walk():
        assert node.tag not in {"script", "iframe", "object", "embed", "img", "form", "base"}
        assert not [name for name in node.attributes if name == "style" or name.startswith("on")]
        for name in ("href", "src", "xlink:href"):
            target = node.attributes.get(name, "data:,")
            assert target == "data:," or target.removeprefix("#") in ids
        for target in re.findall(r"url\(#(.*?)\)", node.attributes.get("clip-path", "")):
            assert target in ids
    (style,) = page.all("style")
    digest = base64.b64encode(hashlib.sha256(style.text.encode()).digest()).decode()
    (policy,) = [node.attributes["content"] for node in page.all("meta") if "http-equiv" in node.attributes]
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    assert page.all("html")[0].attributes["lang"] == "en"
    used = {name for node in page.walk() for name in node.attributes.get("class", "").split()}
    assert all(f".{name}" in style.text for name in used if name.startswith(("fill-", "stroke-", "heat-")))


def test_texts_stand_out_from_what_is_behind_them_in_light_and_dark() -> None:
    """By WCAG 2.2 AA: text 4.5 to 1, parts of drawings 3 to 1."""
    style = files("calls_assets.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--([\w-]+): #([0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    )
    pairs = [(text, ground) for text in ("ink", "muted", "good", "bad") for ground in ("page", "card")]
    pairs += [("ink", "bar"), ("ink", "warning"), ("level", "card")]
    pairs += [(f"heat-{'low' if level < 5 else 'high'}-ink", f"heat-{level}") for level in range(8)]
    for colours in (light, dark):
        for text, ground in pairs:
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        assert contrast(colours["answered"], colours["card"]) >= 3
        assert contrast(colours["answered"], colours["offered"]) >= 3


def contrast(one: str, other: str) -> float:
    """Gives the contrast of two colours as WCAG defines it."""
    lights = []
    for colour in (one, other):
        parts = [int(colour[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        lights.append(0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05)
    return max(lights) / min(lights)


def test_the_largest_page_is_under_a_megabyte(lake: Lake) -> None:
    """Of many long names the first are shown, and the rest in one row; sums are of all."""
    dice = Random(1)
    calls, legs = [], []
    for number in range(5000):
        moment = NOON.replace(hour=0) + timedelta(seconds=dice.randrange(86400))
        name = f"{'<&>' * 100} {number % 900}"[-300:]
        calls.append(
            {
                "started_at": moment,
                "started_at_local": moment.replace(tzinfo=None),
                "campaign_id": number % 900,
                "campaign_name": "&" * 200,
                "ring_group_id": number % 700,
                "ring_group_name": f"{number % 700:03}{'<' * 300}",
                "disposition_code": f"{number % 800:03}{'>' * 300}",
                "answered_agent_id": number % 600,
            }
        )
        legs.append({"call_id": number, "agent_id": number % 600, "alias": name})
    store(lake, calls, legs)
    html = publish(lake)
    assert len(html.encode()) < 1_000_000
    page = read_page(html)
    for name, most in (("agents", 100), ("queues", 50), ("dispositions", 40)):
        rows = read_table(page, name)
        assert len(rows) == most + 1
        assert re.fullmatch(r"\d+ more", rows[-2][0][0])
    for name, place in (("agents", 0), ("queues", 0), ("dispositions", 0)):
        *parts, everything = (float(figures[place]) for _, figures in read_table(page, name))
        assert sum(parts) == everything == 5000


def test_without_webhook_data_nothing_is_zero(lake: Lake) -> None:
    """Abandonment and waits are not known; with one call's data they are."""
    store(lake, [{}, {"is_answered": False}])
    page = read_page(publish(lake))
    assert read_tile(page, "abandonment_rate") == read_tile(page, "average_speed_of_answer_seconds") == "not known"
    assert read_tile(page, "mean_talk_seconds") == "not known"
    assert {names: figures[4] for names, figures in read_table(page, "intervals")}["12:00",] == "not known"
    store(lake, [{"waiting_seconds": 0, "is_abandoned": False}, {"is_answered": False}])
    page = read_page(publish(lake))
    assert read_tile(page, "abandonment_rate") == read_tile(page, "average_speed_of_answer_seconds") == 0


def test_half_hours_that_come_twice_are_told_apart(lake: Lake) -> None:
    """On a day of 25 hours, by their zone; an hour that does not come has no row."""
    zone = ZoneInfo("Europe/Berlin")
    for day, minutes, expected in (
        (
            date(2025, 10, 26),
            (10, 70, 190),
            ["02:00 (CEST +0200)", "02:30 (CEST +0200)", "02:00 (CET +0100)", "02:30 (CET +0100)"],
        ),
        (date(2025, 3, 30), (10, 130), ["01:00", "01:30", "03:00", "03:30"]),
    ):
        calls = []
        for count in minutes:
            moment = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(minutes=count)
            calls.append({"started_at": moment, "started_at_local": moment.astimezone(zone).replace(tzinfo=None)})
        store(lake, calls, day=day)
        result = publish_report(lake, day, now=NOW, timezone=zone)
        rows = read_table(read_page(lake.storage.read(result.key).decode()), "intervals")
        assert [names[0] for names, _ in rows[:4]] == expected
        assert sum(float(figures[0]) for _, figures in rows[:-1]) == len(minutes)


def test_a_page_that_did_not_change_keeps_its_file(lake: Lake) -> None:
    """Later, too; a changed call replaces it."""
    store(lake, [{}])
    first = publish_report(lake, DAY, now=NOW, timezone=UTC_ZONE)
    versions = {file.key: file.version for file in lake.list_files("reports/")}
    assert set(versions) == {LATEST_KEY, report_key(DAY)}
    again = publish_report(lake, DAY, now=NOW + timedelta(days=1), timezone=UTC_ZONE)
    assert (first.is_replaced, again.is_replaced) == (True, False)
    assert {file.key: file.version for file in lake.list_files("reports/")} == versions
    store(lake, [{}, {}])
    assert publish_report(lake, DAY, now=NOW, timezone=UTC_ZONE).is_replaced
    assert all(file.version != versions[file.key] for file in lake.list_files("reports/"))


COVERAGE: Any = SimpleNamespace(missing=7, quarantined=2, unaccounted_count=3, unread_count=5)
RECORD_KEY = f"made_of/report-{DAY}.json"


@pytest.fixture
def views(monkeypatch: pytest.MonkeyPatch) -> list[date]:
    """Lists the days of which a view was made."""
    made: list[date] = []

    def note(data: DayData) -> DayView:
        made.append(data.day)
        return make_view(data)

    monkeypatch.setattr(publishing, "make_view", note)
    return made


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gives a lake of a day, some of its heat map, and the one before that."""
    root = tmp_path_factory.mktemp("stored") / "data"
    for distance in (HEAT_MAP_DAYS, HEAT_MAP_DAYS - 1, 20, 7, 1, 0):
        day = DAY - timedelta(days=distance)
        store(Lake.open(root), [{}] * (distance + 1), [{"call_id": 0, "agent_id": 1}], day=day)
    return root


@pytest.fixture
def published(lake: Lake, stored: Path, tmp_path: Path) -> ReportResult:
    """Publishes a day that is over; gives the result."""
    shutil.copytree(stored, tmp_path / "data", dirs_exist_ok=True)
    return publish_with_coverage(lake)


def publish_with_coverage(
    lake: Lake, *, now: datetime = NOW, timezone: ZoneInfo = UTC_ZONE, coverage: DayCoverage | None = COVERAGE
) -> ReportResult:
    """Publishes a day's report as `published` does, but for what is given."""
    return publish_report(lake, DAY, now=now, timezone=timezone, coverage=coverage)


def rewrite(lake: Lake, key: str) -> None:
    """Replaces a file by one of the same content."""
    lake.storage.replace(key, lake.storage.read(key))


def test_a_day_that_is_over_is_not_read_again(
    finished_lake: FinishedLake, tmp_path: Path, views: list[date], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but its page and what that was made of; the result has the same numbers, types and order."""
    shutil.copytree(finished_lake.root, tmp_path / "data")
    lake, day = Lake.open(tmp_path / "data"), WEBHOOK_DAYS[3]
    first = publish_report(lake, day, now=NOW, timezone=ZONE, coverage=COVERAGE)
    assert {type(number) for number in first.figures.values()} == {int, float}
    assert {type(number) for number in first.quality.values()} == {int, float}
    versions = {file.key: file.version for file in lake.list_files("reports/")}
    opened, read = set(), lake.storage.read

    def note(key: str) -> bytes:
        opened.add(key)
        return read(key)

    monkeypatch.setattr(lake.storage, "read", note)
    again = publish_report(lake, day, now=NOW + timedelta(days=1), timezone=ZONE, coverage=COVERAGE)
    assert views == [day]
    assert opened == {f"made_of/report-{day}.json", report_key(day), LATEST_KEY}
    assert repr(again) == repr(replace(first, is_replaced=False))
    assert {file.key: file.version for file in lake.list_files("reports/")} == versions


@pytest.mark.parametrize("now", [NOW, NOON], ids=["over", "under way"])
@pytest.mark.parametrize(
    ("name", "distance"),
    [
        *((name, 0) for name in ("calls", "service_intervals", "agent_days", "disposition_days")),
        *(("service_intervals", distance) for distance in (1, 7, 20, HEAT_MAP_DAYS - 1)),
    ],
)
@pytest.mark.usefixtures("published")
def test_a_changed_mart_makes_a_page_again(
    lake: Lake, views: list[date], name: str, distance: int, now: datetime
) -> None:
    """One of the day, of those it is compared with, or of the heat map; a missing one of the day is named."""
    publish_with_coverage(lake, now=now)
    views.clear()
    key = lake.table_key(name, DAY - timedelta(days=distance))
    rewrite(lake, key)
    publish_with_coverage(lake, now=now)
    publish_with_coverage(lake, now=now)
    assert views == [DAY]
    lake.storage.delete(key)
    if distance:
        assert publish_with_coverage(lake, now=now).is_replaced
        assert views == [DAY] * 2
    else:
        with pytest.raises(LakeError, match=f"2025-05-14 has no {name} in the lake"):
            publish_with_coverage(lake, now=now)


@pytest.mark.usefixtures("published")
def test_a_day_that_appears_in_the_heat_map_makes_a_page_again(lake: Lake, views: list[date]) -> None:
    """One before the heat map does not, nor one after the day."""
    for distance, is_made in ((3, True), (HEAT_MAP_DAYS, False), (HEAT_MAP_DAYS + 1, False), (-1, False)):
        views.clear()
        store(lake, [{}] * 40, day=DAY - timedelta(days=distance))
        assert publish_with_coverage(lake).is_replaced == is_made
        assert views == [DAY] * is_made


@pytest.mark.parametrize("now", [NOW, NOON], ids=["over", "under way"])
@pytest.mark.parametrize(
    "changed",
    [
        {"coverage": None},
        *(
            {"coverage": SimpleNamespace(**{**vars(COVERAGE), name: 90})}
            for name in ("missing", "quarantined", "unaccounted_count", "unread_count")
        ),
        {"timezone": ZoneInfo("Europe/Berlin")},
    ],
)
@pytest.mark.usefixtures("published")
def test_a_changed_argument_makes_a_page_again(
    lake: Lake, views: list[date], changed: dict[str, Any], now: datetime
) -> None:
    """Each of the counts of its ids, and the zone."""
    publish_with_coverage(lake, now=now)
    views.clear()
    again = publish_with_coverage(lake, now=now, **changed)
    assert again.is_replaced
    assert replace(publish_with_coverage(lake, now=now, **changed), is_replaced=True) == again
    assert views == [DAY]


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("calls_assets.report.publish._hash_code", lambda: "other code or templates"),
        ("calls_assets.lake.recipe._hash_code", lambda package: f"other code of {package}"),
        ("unicodedata.unidata_version", "99.0.0"),
    ],
)
@pytest.mark.usefixtures("published")
def test_other_code_makes_a_page_again(
    lake: Lake, views: list[date], monkeypatch: pytest.MonkeyPatch, name: str, changed: object
) -> None:
    """Of the report or of the lake; or other knowledge of characters."""
    monkeypatch.setattr(name, changed)
    publish_with_coverage(lake)
    publish_with_coverage(lake)
    assert views == [DAY]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lake: lake.storage.delete(report_key(DAY)),
        lambda lake: lake.storage.replace(report_key(DAY), b"<!doctype html><title>by hand</title>"),
        lambda lake: lake.storage.replace(report_key(DAY), lake.storage.read(report_key(DAY - timedelta(days=1)))),
    ],
    ids=["removed", "overwritten", "of another day"],
)
def test_a_page_that_is_gone_is_made_again(
    lake: Lake, views: list[date], published: ReportResult, spoil: Callable[[Lake], None]
) -> None:
    """As it was."""
    page = lake.storage.read(report_key(DAY))
    publish(lake, DAY - timedelta(days=1))
    views.clear()
    spoil(lake)
    assert publish_with_coverage(lake) == published
    assert lake.storage.read(report_key(DAY)) == page
    assert not publish_with_coverage(lake).is_replaced
    assert views == [DAY]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lake: lake.storage.delete(RECORD_KEY),
        lambda lake: lake.storage.replace(RECORD_KEY, b""),
        lambda lake: lake.storage.replace(RECORD_KEY, b"\xff\x00"),
        lambda lake: lake.storage.replace(RECORD_KEY, b"[1, 2]"),
        lambda lake: lake.storage.replace(RECORD_KEY, lake.storage.read(RECORD_KEY)[:-9]),
        lambda lake: lake.storage.replace(RECORD_KEY, lake.storage.read(RECORD_KEY).replace(b"1", b"2", 1)),
        lambda lake: lake.write_made_of(f"report-{DAY}", {}),
    ],
    ids=["removed", "empty", "no text", "a list", "cut", "altered", "of nothing"],
)
def test_a_record_that_is_gone_is_made_again(
    lake: Lake, views: list[date], published: ReportResult, spoil: Callable[[Lake], None]
) -> None:
    """The page keeps its file, and the record is as it was."""
    record = lake.storage.read(RECORD_KEY)
    views.clear()
    spoil(lake)
    assert publish_with_coverage(lake) == replace(published, is_replaced=False)
    assert lake.storage.read(RECORD_KEY) == record
    publish_with_coverage(lake)
    assert views == [DAY]


@pytest.mark.parametrize(
    ("now", "zone"),
    [
        (NOON, UTC_ZONE),
        (datetime(2025, 5, 14, 23, 30, tzinfo=UTC), UTC_ZONE),
        (datetime(2025, 5, 15, 2, tzinfo=UTC), ZoneInfo("America/New_York")),
    ],
)
def test_a_day_that_is_not_over_is_made_again_each_half_hour(
    lake: Lake, views: list[date], now: datetime, zone: ZoneInfo
) -> None:
    """It is compared with the same hours of other days; when it is over it is made once more."""
    store(lake, [{}])
    until_next = timedelta(minutes=29, seconds=59)
    made = []
    for moment in (now, now, now + until_next, now - timedelta(seconds=1), now, NOW, NOW + timedelta(days=1), now):
        before = len(views)
        result = publish_with_coverage(lake, now=moment, timezone=zone)
        made.append((len(views) > before, result.is_replaced))
    assert made == [
        (True, True),
        (False, False),
        (False, False),
        *[(True, True)] * 3,
        (False, False),
        (True, True),
    ]


@pytest.mark.usefixtures("published")
def test_latest_is_put_right_by_a_page_that_did_not_change(lake: Lake, views: list[date]) -> None:
    """When it is gone or another; that of an older day leaves it alone."""
    page = lake.storage.read(report_key(DAY))
    views.clear()
    for other in (b"other", page[:-1]):
        lake.storage.replace(LATEST_KEY, other)
        assert publish_with_coverage(lake).is_latest
        assert lake.storage.read(LATEST_KEY) == page
        lake.storage.delete(LATEST_KEY)
        assert publish_with_coverage(lake).is_latest
        assert lake.storage.read(LATEST_KEY) == page
    assert not views
    store(lake, [{}], day=DAY + timedelta(days=1))
    newest = publish(lake, DAY + timedelta(days=1)).encode()
    assert not publish_with_coverage(lake).is_latest
    assert lake.storage.read(LATEST_KEY) == newest
    assert views == [DAY + timedelta(days=1)]


def test_latest_is_the_newest_day(lake: Lake) -> None:
    """A report of an older day leaves it alone; its own file is where the days' tables are, by day."""
    for days, is_latest in ((0, True), (-3, False), (2, True), (1, False)):
        day = DAY + timedelta(days=days)
        store(lake, [{}] * (days + 4), day=day)
        result = publish_report(lake, day, now=NOW, timezone=UTC_ZONE)
        assert (result.is_latest, result.is_replaced, result.day) == (is_latest, True, day)
        assert result.key == f"reports/call_date={day}/report.html"
        assert result.size == len(lake.storage.read(result.key))
    newest = lake.storage.read(report_key(DAY + timedelta(days=2)))
    assert lake.storage.read(LATEST_KEY) == newest
    assert b"2025-05-16" in newest


def test_a_day_without_marts_is_named(lake: Lake) -> None:
    """One line that says which day and what to do; nothing is written."""
    with pytest.raises(LakeError, match=r"2025-05-14 has no service_intervals in the lake: materialize"):
        publish_report(lake, DAY, now=NOW, timezone=UTC_ZONE)
    assert not lake.list_files("reports/")


def test_a_disk_that_refuses_is_named(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with the file; an earlier page stays."""
    store(lake, [{}])
    before = publish(lake)
    store(lake, [{}, {}])

    def refuse(key: str, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(lake.storage, "replace", refuse)
        with pytest.raises(LakeError, match=r"cannot write reports/call_date=2025-05-14/report\.html: no space left"):
            publish_report(lake, DAY, now=NOW, timezone=UTC_ZONE)
    assert lake.storage.read(report_key(DAY)).decode() == before
