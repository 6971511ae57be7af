"""The drawing of a day's half hours, on days that the other tests do not have."""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree as ET

import pygal
import pytest

from calls_assets.report.charts import draw_intervals
from calls_assets.report.figures import Slot

ALLOWED = {"viewBox", "font-size", "role", "aria-labelledby", "aria-describedby", "class", "transform"}
ALLOWED |= {"d", "x", "y", "width", "height", "cx", "cy", "r"}


def make_slots(count: int, offered: Callable[[int], int], level: Callable[[int], float | None]) -> list[Slot]:
    """Makes half hours from midnight on; of the calls offered, the first is answered."""
    return [
        Slot(
            label=f"{place // 2:02d}:{30 * (place % 2):02d}",
            offered=offered(place),
            answered=min(1, offered(place)),
            level=level(place),
            text=f"slot {place}",
        )
        for place in range(count)
    ]


def draw(slots: list[Slot], *, is_narrow: bool = False) -> ET.Element:
    """Draws, and reads the drawing."""
    drawn = draw_intervals(slots, key="k", title="A title", description="It shows <a day>", is_narrow=is_narrow)
    return ET.fromstring(drawn)  # noqa: S314 - our own


def list_labels(root: ET.Element, axis: str) -> list[list[str]]:
    """Lists the labels of each axis of a kind."""
    found = [group for group in root.iter("g") if group.get("class") == f"axis {axis}"]
    return [[(text.text or "").strip() for text in group.iter("text")] for group in found]


ORDINARY = make_slots(48, lambda place: 3 * (place % 7), lambda place: (place % 10) / 10 if place % 7 else None)
DAYS = {
    "ordinary": ORDINARY,
    "one half hour, one call, not known": make_slots(1, lambda _: 1, lambda _: None),
    "half past only": [Slot(label="09:30", offered=3, answered=3, level=0.5, text="x")],
    "a quarter of an hour off": [
        Slot(label=f"{place // 2:02d}:{15 + 30 * (place % 2)}", offered=9, answered=8, level=0.5, text="x")
        for place in range(48)
    ],
    "no calls": make_slots(48, lambda _: 0, lambda _: None),
    "an hour twice": make_slots(50, lambda place: place, lambda _: 1.0),
    "very many": make_slots(48, lambda _: 54_321, lambda _: 0.25),
}


@pytest.mark.parametrize("is_narrow", [False, True], ids=["wide", "narrow"])
@pytest.mark.parametrize("name", DAYS)
def test_every_day_can_be_drawn(name: str, *, is_narrow: bool) -> None:
    """A bar for each half hour, a point where there is a level; whole numbers, hours, both charts below each other."""
    slots = DAYS[name]
    root = draw(slots, is_narrow=is_narrow)
    bars = [rect for rect in root.iter("rect") if rect.get("class") is None]
    assert len(bars) == 2 * len(slots)
    assert len(list(root.iter("circle"))) == sum(slot.level is not None for slot in slots)
    numbers, levels = list_labels(root, "y")
    assert all(re.fullmatch(r"\d{1,3}(,\d{3})*", number) for number in numbers)
    assert len(set(numbers)) == len(numbers) >= 2
    assert levels == ["0%", "50%", "100%"]
    (hours,) = list_labels(root, "x")
    assert min(len(slots), 4 if is_narrow else 24) // 2 <= len(hours) <= (6 if is_narrow else 25)
    assert hours
    assert set(hours) <= {slot.label for slot in slots}
    places = [group.get("transform") for group in root.iter("g") if (group.get("transform") or "").count(",")]
    assert len({place.partition(",")[0] for place in places if place}) == 1, places
    assert "nan" not in ET.tostring(root, encoding="unicode").lower()


def test_points_stand_over_their_bars_and_at_their_level() -> None:
    """The line ends where a level is not known."""
    root = draw(ORDINARY)
    known = [place for place, slot in enumerate(ORDINARY) if slot.level is not None]
    bars = list(next(group for group in root.iter("g") if group.get("class") == "serie-0").iter("rect"))
    points = list(root.iter("circle"))
    for place, point in zip(known, points, strict=True):
        bar = bars[place].attrib
        assert float(point.attrib["cx"]) == pytest.approx(float(bar["x"]) + float(bar["width"]) / 2, abs=1)
    heights = [float(point.attrib["cy"]) for point in points]
    low, high = max(heights), min(heights)
    shown = [(low - height) / (low - high) for height in heights]
    levels = [ORDINARY[place].level or 0.0 for place in known]
    assert shown == pytest.approx([(level - min(levels)) / (max(levels) - min(levels)) for level in levels], abs=0.01)
    pieces = [path for group in root.iter("g") if group.get("class") == "serie-0" for path in group.iter("path")]
    assert len(pieces) == 7, "a piece between two half hours without a level"


def test_there_is_nothing_in_it_that_the_page_may_not_have() -> None:
    """No style, script, reference or size; the ids are those of its name and description; twice the same."""
    root = draw(ORDINARY)
    described = {element.get("id"): element.text for element in root.iter() if element.get("id")}
    assert described == {"k-title": "A title", "k-desc": "It shows <a day>"}
    for element in root.iter():
        assert element.tag in {"svg", "g", "path", "rect", "circle", "text", "title", "desc"}
        assert element.attrib.keys() <= ALLOWED | {"id"}
        assert element.tag in {"title", "desc"} or "id" not in element.attrib
    assert not {"width", "height"} & root.attrib.keys()
    assert ET.tostring(draw(ORDINARY)) == ET.tostring(root)


def test_a_column_for_each_half_hour_says_it_in_words() -> None:
    """Over both charts, as wide as the plot; on telephones there is no hovering."""
    root = draw(ORDINARY)
    columns = [rect for rect in root.iter("rect") if rect.get("class") == "hint"]
    assert [column.findtext("title") for column in columns] == [slot.text for slot in ORDINARY]
    bars = list(next(group for group in root.iter("g") if group.get("class") == "serie-0").iter("rect"))
    ends = [float(column.attrib["x"]) + float(column.attrib["width"]) for column in columns]
    for column, end, bar in zip(columns, ends, bars, strict=True):
        begin, bar_begin, bar_width = float(column.attrib["x"]), float(bar.attrib["x"]), float(bar.attrib["width"])
        assert begin < bar_begin < bar_begin + bar_width < end
    assert [float(column.attrib["x"]) for column in columns[1:]] == pytest.approx(ends[:-1], abs=0.02)
    assert not [rect for rect in draw(ORDINARY, is_narrow=True).iter("rect") if rect.get("class") == "hint"]


def test_what_is_not_known_of_pygal_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a surprise in the page."""
    render = pygal.XY.render

    def render_more(self: pygal.XY, **options: object) -> str:
        return str(render(self, **options)).replace("</svg>", "<foreignObject/></svg>")

    monkeypatch.setattr(pygal.XY, "render", render_more)
    with pytest.raises(ValueError, match="unexpected element foreignObject"):
        draw(ORDINARY)
