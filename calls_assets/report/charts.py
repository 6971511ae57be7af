"""Charts: the day's half hours as SVG for a page with a strict policy: no scripts, no styles, no colours of its own.

What belongs here: drawing with matplotlib, and turning its colours into CSS classes, so that the page's style decides
(light, dark, print). What stays out: which numbers are drawn. No text of the vendor gets here: matplotlib would read
`$` as mathematics.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from calls_assets.report.figures import Slot

# Colours by which the drawing's parts are told apart; none of them reaches the page.
_OFFERED, _ANSWERED, _LEVEL, _AXIS, _GRID, _TEXT = (f"#00000{number}" for number in range(1, 7))
_HIT = "#000007"
_CLASSES = {
    _OFFERED: "offered",
    _ANSWERED: "answered",
    _LEVEL: "level",
    _AXIS: "axis",
    _GRID: "grid",
    _TEXT: "text",
    _HIT: "hit",
}
_KEPT_STYLES = frozenset({"stroke-width", "stroke-dasharray", "text-anchor", "font-size"})
_KEPT_ATTRIBUTES = frozenset({"d", "x", "y", "width", "height", "transform", "viewBox"})
_REFERENCES = frozenset({"id", "href", "clip-path"})
_KEPT_TAGS = frozenset({"svg", "g", "path", "use", "text", "tspan", "defs", "clipPath", "rect", "title"})
_HIT_ID = "slot-"
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",  # measured with it: it comes with matplotlib, so the drawing is the same everywhere
    "path.simplify": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": _AXIS,
    "axes.labelcolor": _TEXT,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "text.color": _TEXT,
    "xtick.color": _AXIS,
    "ytick.color": _AXIS,
    "xtick.labelcolor": _TEXT,
    "ytick.labelcolor": _TEXT,
    "ytick.major.size": 0,
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def draw_intervals(slots: Sequence[Slot], *, key: str, title: str, description: str, is_narrow: bool) -> str:
    """Draws calls offered and answered, and below them the service level, by half hour.

    Args:
        slots: The half hours in order, at least one.
        key: Begins the drawing's ids.
        title: Its name for those who do not see it.
        description: What it shows, for the same.
        is_narrow: For screens of telephones: higher, with larger text and fewer labels.

    Returns:
        An `svg` element: classes for colours, no size, no style, no reference outside itself.
    """
    size, text_size = ((4.9, 5.4), 11) if is_narrow else ((12.4, 4.5), 9.5)
    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": key, "font.size": text_size, "axes.titlesize": text_size}):
        figure = Figure(figsize=size)
        calls, level = figure.subplots(2, sharex=True, height_ratios=(3, 2))
        _set_margins(figure, text_size)
        places = range(len(slots))
        calls.bar(places, [slot.offered for slot in slots], 0.86, color=_OFFERED, edgecolor=_ANSWERED, linewidth=0.7)
        calls.bar(places, [slot.answered for slot in slots], 0.86, color=_ANSWERED)
        calls.set_title("Calls per half hour")
        calls.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        calls.set_ylim(0, max(1.0, 1.05 * max(slot.offered for slot in slots)))
        calls.tick_params(axis="x", length=0)
        levels = [float("nan") if slot.level is None else slot.level for slot in slots]
        level.plot(places, levels, color=_LEVEL, linewidth=1.6, marker="o", markersize=3.5)
        level.set_title("Service level")
        level.set_ylim(-0.04, 1.04)
        level.yaxis.set_major_formatter(PercentFormatter(1))
        level.set_yticks((0, 0.5, 1))
        _label_hours(level, slots, at_most=6 if is_narrow else 25)
        for axes in (calls, level):
            axes.grid(axis="y", linewidth=0.7)
            if not is_narrow:
                for place in places:
                    hit = Rectangle(
                        (place - 0.5, 0), 1, 1, transform=axes.get_xaxis_transform(), gid=f"{_HIT_ID}{place}"
                    )
                    hit.set(color=_HIT, linewidth=0)
                    axes.add_artist(hit)
        level.set_xlim(-0.6, len(slots) - 0.4)
        sink = io.StringIO()
        figure.savefig(sink, format="svg", metadata={"Date": None})
    root = _to_inline(sink.getvalue(), key, [slot.text for slot in slots])
    root.set("role", "img")
    for attribute, tag, text in (("aria-describedby", "desc", description), ("aria-labelledby", "title", title)):
        child = ET.Element(tag, {"id": f"{key}-{tag}"})
        child.text = text
        root.insert(0, child)
        root.set(attribute, f"{key}-{tag}")
    return re.sub(r">\s+<", "><", ET.tostring(root, encoding="unicode"))


def _set_margins(figure: Figure, text_size: float) -> None:
    """Leaves room for titles, hours, and numbers of five digits: measuring all texts takes longer than drawing them."""
    width, height = (72 * inches for inches in figure.get_size_inches())
    figure.subplots_adjust(
        left=4 * text_size / width,
        right=1 - 0.5 * text_size / width,
        top=1 - 2.2 * text_size / height,
        bottom=2 * text_size / height,
        hspace=0.3,
    )


def _label_hours(axes: Axes, slots: Sequence[Slot], *, at_most: int) -> None:
    """Labels full hours, every second, third … where there are too many."""
    hours = [place for place, slot in enumerate(slots) if slot.label.endswith(":00")]
    step = next(step for step in (1, 2, 3, 4, 6, 12, 24) if len(hours) <= step * at_most)
    shown = [place for place in hours if int(slots[place].label[:2]) % step == 0]
    axes.set_xticks(shown, [slots[place].label for place in shown])


def _to_inline(svg: str, key: str, hints: Sequence[str]) -> ET.Element:
    """Makes of matplotlib's file an element for a page; raises ValueError for what the page could not have."""
    root = ET.fromstring(svg)  # noqa: S314 - what was drawn above
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in {"metadata", "style"}:
                parent.remove(child)
    used = set(re.findall(r"(?:href=\"|url\()#([^)\"]+)", svg))
    for element in root.iter():
        element.tag = _local(element.tag)
        if element.tag not in _KEPT_TAGS:
            raise ValueError(f"unexpected element {element.tag}")
        attributes = {_local(name): value for name, value in element.attrib.items()}
        element.attrib.clear()
        name = attributes.get("id", "")
        if name.startswith(_HIT_ID):
            hint = ET.Element("title")
            hint.text = hints[int(name.removeprefix(_HIT_ID))]
            element.insert(0, hint)
        if name not in used:
            attributes.pop("id", None)
        for attribute, value in attributes.items():
            if attribute in _REFERENCES:
                element.set(attribute, re.sub(r"^(url\(#|#|)", rf"\1{key}-", value))
            elif attribute in _KEPT_ATTRIBUTES:
                element.set(attribute, value)
        _set_look(element, attributes.get("style", ""))
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    return root


def _set_look(element: ET.Element, style: str) -> None:
    """Turns a style into classes and attributes."""
    classes = []
    for declaration in filter(str.strip, style.split(";")):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name in {"fill", "stroke"}:
            if value == "none":
                element.set(name, value)
            else:
                classes.append(f"{name}-{_CLASSES[value]}")
        elif name in _KEPT_STYLES:
            element.set(name, value)
    if element.tag == "text" and not classes:
        classes = ["fill-text"]
    if classes:
        element.set("class", " ".join(classes))


def _local(name: str) -> str:
    return name.rpartition("}")[2]
