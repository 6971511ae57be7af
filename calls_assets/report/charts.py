"""Charts: the day's half hours as SVG for a page with a strict policy: no scripts, no styles, no colours of its own.

What belongs here: drawing with pygal, and keeping of it what the page may have; the page's style gives the classes
their looks (light, dark, print). What stays out: which numbers are drawn. No text of the vendor gets here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree as ET

import pygal
from pygal.style import Style

from calls_assets.report.figures import Slot

_KEPT_TAGS = frozenset({"svg", "g", "path", "rect", "circle", "text"})
_DROPPED_TAGS = frozenset({"defs", "title", "desc"})
_KEPT_ATTRIBUTES = frozenset({"d", "x", "y", "width", "height", "cx", "cy", "r", "transform"})
_KEPT_CLASSES = frozenset({"x", "y", "axis", "guide", "line", "serie-0", "serie-1"})
_DROPPED_CLASSES = frozenset({"background", "titles", "text-overlay", "tooltip-overlay"})
_LEVELS = (0.0, 0.5, 1.0)


def draw_intervals(slots: Sequence[Slot], *, key: str, title: str, description: str, is_narrow: bool) -> str:
    """Draws calls offered and answered, and below them the service level, by half hour.

    Args:
        slots: The half hours in order, at least one.
        key: Begins the drawing's ids.
        title: Its name for those who do not see it.
        description: What it shows, for the same.
        is_narrow: For screens of telephones: higher, with larger text and fewer labels.

    Returns:
        An `svg` element: classes for looks, no size, no style, no reference outside itself.
    """
    width, heights, text_size = (350, (230, 150), 11) if is_narrow else (1180, (250, 150), 12)
    head = 2 * text_size
    hours = _list_hours(slots, at_most=6 if is_narrow else 25)
    common: dict[str, Any] = {
        "width": width,
        "style": Style(label_font_size=text_size),
        "js": (),
        "no_data_text": "",
        "show_legend": False,
        "truncate_label": -1,
        "spacing": round(text_size / 2),
        "margin": 1,
        "margin_top": round(text_size / 2),
        "margin_right": round(text_size / 2),
    }
    most = max(slot.offered for slot in slots)
    calls = pygal.StackedBar(
        **common,
        height=heights[0],
        range=(0, max(1, most)),
        order_min=0,
        max_scale=6,
        value_formatter=lambda value: _pad(f"{value:,.0f}"),
        x_labels=["" for _ in slots],
        show_x_labels=False,
    )
    calls.add(None, [slot.answered for slot in slots])
    calls.add(None, [slot.offered - slot.answered for slot in slots])
    level = pygal.XY(
        **common,
        height=heights[1],
        range=(0, 1),
        xrange=(0, len(slots)),
        y_labels=_LEVELS,
        value_formatter=lambda value: _pad(f"{value:.0%}"),
        x_labels=[{"value": place + 0.5, "label": slots[place].label} for place in hours],
        allow_interruptions=True,
        dots_size=text_size / 4,
    )
    level.add(None, [(place + 0.5, slot.level) for place, slot in enumerate(slots)])
    root = ET.Element("svg", {"viewBox": f"0 0 {width} {sum(heights) + 2 * head}", "font-size": f"{text_size}"})
    root.set("role", "img")
    for attribute, tag, text in (("aria-labelledby", "title", title), ("aria-describedby", "desc", description)):
        ET.SubElement(root, tag, {"id": f"{key}-{tag}"}).text = text
        root.set(attribute, f"{key}-{tag}")
    top = 0
    for name, chart, height in (("Calls per half hour", calls, heights[0]), ("Service level", level, heights[1])):
        drawn = ET.fromstring(chart.render(is_unicode=True, disable_xml_declaration=True))  # noqa: S314 - drawn here
        plot = next(element for element in drawn.iter() if element.get("class") == "plot")
        left = re.findall(r"\d+", plot.attrib["transform"])[0]
        ET.SubElement(root, "text", {"x": left, "y": f"{top + head - text_size / 2}"}).text = name
        part = ET.SubElement(root, "g", {"transform": f"translate(0 {top + head})"})
        _copy(drawn, part)
        top += head + height
    if not is_narrow:  # telephones do not hover
        hints = ET.SubElement(root, "g", {"transform": f"translate({left} 0)"})
        hints.extend(_make_hints(root, slots, top))
    return ET.tostring(root, encoding="unicode")


def _pad(label: str) -> str:
    """Makes labels equally long, to the thousands: pygal leaves room by their letters, and both charts begin there."""
    return label.rjust(len("99,999"))


def _list_hours(slots: Sequence[Slot], *, at_most: int) -> list[int]:
    """Lists the places of full hours, every second, third … where there are too many."""
    minute = min(slot.label[3:5] for slot in slots)  # some zones are a quarter of an hour off
    hours = [place for place, slot in enumerate(slots) if slot.label[3:5] == minute]
    step = next(step for step in (1, 2, 3, 4, 6, 12, 24) if len(hours) <= step * at_most)
    return [place for place in hours if int(slots[place].label[:2]) % step == 0]


def _make_hints(drawn: ET.Element, slots: Sequence[Slot], height: float) -> list[ET.Element]:
    """Makes around the bar of each half hour a column that says it in words."""
    bars = [(float(bar.attrib["x"]), float(bar.attrib["width"])) for bar in drawn.iter("rect")][: len(slots)]
    width = bars[1][0] - bars[0][0] if len(bars) > 1 else bars[0][1]
    columns = []
    for slot, (x, bar_width) in zip(slots, bars, strict=True):
        begin = x + (bar_width - width) / 2
        size = {"x": f"{begin:.2f}", "width": f"{width:.2f}", "height": f"{height}"}
        columns.append(ET.Element("rect", {"class": "hint", **size}))
        ET.SubElement(columns[-1], "title").text = slot.text
    return columns


def _copy(drawn: ET.Element, target: ET.Element) -> None:
    """Copies what is in an element of pygal's, as far as the page may have it; raises ValueError for what is new."""
    for element in drawn:
        tag = element.tag.rpartition("}")[2]
        classes = element.get("class", "").split()
        if tag in _DROPPED_TAGS or not _DROPPED_CLASSES.isdisjoint(classes):
            continue
        if tag not in _KEPT_TAGS:
            raise ValueError(f"unexpected element {tag}")
        kept = ET.SubElement(target, tag, {name: value for name, value in element.items() if name in _KEPT_ATTRIBUTES})
        if shown := " ".join(name for name in classes if name in _KEPT_CLASSES):
            kept.set("class", shown)
        kept.text = element.text if tag == "text" else None
        _copy(element, kept)
        if tag == "g" and not len(kept):
            target.remove(kept)
