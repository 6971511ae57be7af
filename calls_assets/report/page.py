"""Page: a day as one HTML document that needs nothing else.

What belongs here: filling the template, its policy and its style. What stays out: what is shown (`views`). The template
escapes every text; only what is drawn and styled here is put in as it is.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from calls_assets.report.charts import draw_intervals
from calls_assets.report.views import DayView

# Compiled with the module: run workers that are forked from a process that has loaded it need not.
_TEMPLATE = Environment(
    loader=PackageLoader(__package__),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
).get_template("report.html")


def render(view: DayView, made_of: str = "") -> str:
    """Makes the document. The same view gives the same text.

    Args:
        view: What it shows.
        made_of: Identifies the view and this code, kept in the document.
    """
    style = _read_style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    charts = {}
    for key in ("wide", "narrow") if view.slots else ():
        drawing = draw_intervals(
            view.slots,
            key=key,
            title="Calls offered and answered, and service level, by half hour",
            description=_describe(view),
            is_narrow=key == "narrow",
        )
        charts[key] = Markup(drawing)  # noqa: S704 - numbers and times only
    return _TEMPLATE.render(
        view=view,
        made_of=made_of,
        charts=charts,
        style=Markup(style),  # noqa: S704 - a file of this package
        policy=policy,
    )


def _describe(view: DayView) -> str:
    busiest = max(view.slots, key=lambda slot: slot.offered)
    return (
        f"From {view.slots[0].label} to {view.slots[-1].label}. The most calls: {busiest.text}. All in the table below."
    )


@cache
def _read_style() -> str:
    return files(__package__).joinpath("templates/report.css").read_text(encoding="utf-8")
