"""Report: one HTML page per day for people, made of the day's marts.

Belongs here: which figures a reader sees, beside which others, and how (`figures`, `views`, `charts`, `page`), and
writing the page (`publish`). Stays out: what a figure means: formulas and definitions are those of the marts.
"""

from calls_assets.report.publish import LATEST_KEY, ReportResult, publish_report, report_key
from calls_assets.report.views import DayCoverage

__all__ = ["LATEST_KEY", "DayCoverage", "ReportResult", "publish_report", "report_key"]
