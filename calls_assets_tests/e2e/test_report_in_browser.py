"""The report in Chromium: it says what the marts say, and the browser has nothing to say about it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from calls_assets.lake import Lake
from calls_assets.report import publish_report
from calls_assets_tests.lakes import NOW, WEBHOOK_DAYS, ZONE, FinishedLake
from calls_assets_tests.report.reading import read_page, read_table, read_tile

DAY = WEBHOOK_DAYS[3]
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--v=0",
    "--dump-dom",
)


def open_in_chromium(page: Path, profile: Path) -> tuple[str, list[str]]:
    """Gives the document as the browser has it, and the lines of its console."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.fail("chromium is missing: install it (Debian: apt-get install chromium)")
    done = subprocess.run(
        [chromium, *FLAGS, f"--user-data-dir={profile}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, re.findall(r".*:CONSOLE.*", done.stderr)


def test_the_report_in_chromium_shows_the_marts_without_a_console_message(
    finished_lake: FinishedLake, tmp_path: Path
) -> None:
    """Values, tables and both drawings are in the document; its policy stops nothing of it."""
    shutil.copytree(finished_lake.root, tmp_path / "data")
    lake = Lake.open(tmp_path / "data")
    result = publish_report(lake, DAY, now=NOW, timezone=ZONE)
    html, console = open_in_chromium(tmp_path / "data" / result.key, tmp_path / "profile")
    assert console == []
    page = read_page(html)
    rows = lake.read_table("service_intervals", DAY).to_pylist()
    offered = sum(row["offered_calls"] for row in rows)
    assert offered > 0
    assert read_tile(page, "offered_calls") == offered
    within = sum(row["answered_within_sla_calls"] for row in rows)
    assert read_tile(page, "service_level_strict") == within / offered
    assert {name: read_tile(page, name) for name in result.figures} == result.figures
    agents = lake.read_table("agent_days", DAY).to_pylist()
    assert read_table(page, "agents")[-1][1][0] == sum(row["handled_calls"] for row in agents)
    assert [node.attributes["aria-labelledby"] for node in page.all("svg") if "aria-labelledby" in node.attributes] == [
        "wide-title",
        "narrow-title",
    ]


def test_chromium_would_tell_of_what_the_policy_stops(finished_lake: FinishedLake, tmp_path: Path) -> None:
    """The test above can fail: with a script and a style put into the page, the console has two messages."""
    shutil.copytree(finished_lake.root, tmp_path / "data")
    lake = Lake.open(tmp_path / "data")
    result = publish_report(lake, DAY, now=NOW, timezone=ZONE)
    html = lake.storage.read(result.key).decode()
    changed = tmp_path / "changed.html"
    changed.write_text(html.replace("<main>", "<main><script>document.title = 'x'</script><p style='color: red'></p>"))
    shown, console = open_in_chromium(changed, tmp_path / "profile")
    assert len(console) == 2
    assert all("Content Security Policy" in line for line in console)
    assert f"<title>Calls on {DAY}</title>" in shown
