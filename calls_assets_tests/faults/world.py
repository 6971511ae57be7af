"""A small account under way, and what must hold of any lake filled from it, whatever happened on the way.

What belongs here: the account, sweeping and publishing it, the questions asked of a lake. Harnesses decide what goes
wrong in between. Every question gives its violations as texts, so that a harness can count them and a twin expect them.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

from calls_assets.derive import derive_day, publish_agents, publish_day
from calls_assets.ingest import SweepReport, sweep
from calls_assets.lake import DAILY_TABLES, CorruptFileError, Lake, verify
from calls_assets_tests.ingest.model import RUNGS, ModelCall, ModelVendor, options_in

ZONE = ZoneInfo("UTC")
FIRST = date(2025, 5, 20)
MIDNIGHT = datetime(2025, 5, 20, tzinfo=UTC)
FIRST_IDS = (1, 8_192)
"""Where accounts begin: with no id below, or with more than `MAX_GAP`. The search for an account asks at both first."""
CHANGE_COLUMNS = ("call_id", "field", "old_value", "new_value")

_RANDOM = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{24}")

StoredRead = tuple[date, int, int, int]
"""Day, id, instant (UTC epoch microseconds), status."""


@dataclass(frozen=True)
class World:
    """An account of some days that is swept twice: once under way and once when tags and starts have changed.

    Attributes:
        calls: Its calls.
        days: Its days.
        early: The first sweep.
        late: The second sweep.
    """

    calls: Sequence[ModelCall]
    days: tuple[date, ...]
    early: datetime
    late: datetime

    @classmethod
    def draw(cls, random: Random, *, calls_per_day: int = 6, days: int = 2) -> World:
        """Draws an account: gaps in the ids, calls that appear, change or move to the next or last day late."""
        calls, id_ = list[ModelCall](), random.choice(FIRST_IDS)
        for index in range(calls_per_day * days):
            id_ += random.choice((1, 1, 1, 2)) if calls else 0
            started_at = MIDNIGHT + timedelta(days=1) / calls_per_day * (index + random.random())
            day = (started_at - MIDNIGHT).days
            target = random.choice([other for other in range(days) if other != day] or [day])
            moves = index % 4 == 1
            calls.append(
                ModelCall(
                    id_,
                    started_at,
                    seconds=random.randrange(30, 3_000),
                    appears_after=500_000 if index % 7 == 2 else 0,
                    tagged_after=random.choice((60, 500_000)),
                    moved_after=500_000 if moves else None,
                    moved_to=started_at + timedelta(days=target - day) if moves else None,
                )
            )
        end = MIDNIGHT + timedelta(days=days)
        dates = tuple(FIRST + timedelta(days=offset) for offset in range(days))
        return cls(calls, dates, end + timedelta(hours=2), end + timedelta(days=8))

    def vendor(self, time: datetime) -> ModelVendor:
        """Gives the account's API at an instant."""
        return ModelVendor(self.calls, time)


@contextmanager
def fast_directory() -> Iterator[Path]:
    """Gives a directory in memory where there is one: these tests take the disk's word for nothing."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as name:
        yield Path(name)


def sweep_days(lake: Lake, vendor: ModelVendor, days: Collection[date], *, reread_final: bool = False) -> SweepReport:
    """Sweeps days."""
    return asyncio.run(
        sweep(
            lake,
            vendor,
            sorted(days),
            options=options_in(ZONE),
            now=vendor.now,
            reread_final=reread_final,
            log=lambda _line: None,
        )
    )


def sweep_and_compact(lake: Lake, vendor: ModelVendor, days: Collection[date]) -> SweepReport:
    """Sweeps days and merges the segments, before any table shows them."""
    report = sweep_days(lake, vendor, days)
    for day in sorted(report.touched_days):
        lake.compact(day)
    return report


def run_days(lake: Lake, vendor: ModelVendor, days: Collection[date]) -> None:
    """Does what a run does: sweeps days, makes their tables, merges what these show."""
    report = sweep_days(lake, vendor, days)
    publish_days(lake, days)
    for day in sorted(report.touched_days):
        lake.compact(day)


def publish_days(lake: Lake, days: Collection[date]) -> None:
    """Makes the tables of days, and of published days whose raw has changed, as a run does."""
    for day in sorted({*days, *lake.stale_days()}):
        publish_day(lake, day, timezone=ZONE, reread_after=RUNGS, unless_current=True)
    publish_agents(lake)


def stored_reads(lake: Lake) -> set[StoredRead]:
    """Gives every read of the lake."""
    found: set[StoredRead] = set()
    for segment in lake.segments():
        rows = lake.read_segment(segment.key, ("call_id", "http_status", "reads")).to_pylist()
        found |= {
            (segment.day, row["call_id"], to_us(moment), row["http_status"]) for row in rows for moment in row["reads"]
        }
    return found


def to_us(instant: datetime) -> int:
    """Converts to UTC epoch microseconds."""
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def digest(lake: Lake) -> str:
    """Tells states apart: names and contents of all files, with the random parts of names replaced by their rank."""
    files = {file.key: lake.storage.read(file.key) for file in lake.list_files("")}
    names = list(dict.fromkeys(match for key in files for match in _RANDOM.findall(key)))
    ranks = {name: f"<{rank}>" for rank, name in enumerate(names)}
    content = hashlib.blake2b(digest_size=16)
    for key, data in files.items():
        held = data
        if key.endswith(".json"):
            held = _RANDOM.sub(lambda match: ranks.get(match[0], "<gone>"), data.decode(errors="replace")).encode()
        name = _RANDOM.sub(lambda match: ranks[match[0]], key)
        content.update(f"{name}\0{len(held)}\0".encode() + held)
    return content.hexdigest()


def find_unreadable(lake: Lake) -> list[str]:
    """Names files that are torn or strange, and files with several rows for one key; half-done days are fine."""
    fatal = ("is damaged", "is no file of the lake", "has several rows", "holds other ids", "other columns")
    return [str(finding) for finding in verify(lake) if finding.problem.startswith(fatal)]


def find_differences(lake: Lake, vendor: ModelVendor, days: Collection[date]) -> list[str]:
    """Compares the tables with the account as it is now, and with raw; verifies the lake."""
    problems = [str(finding) for finding in verify(lake)]
    for day in days:
        try:
            calls = lake.read_table("calls", day).to_pylist()
            raw = lake.read_day(day)
            derived = derive_day(raw.versions, day, events=raw.events, timezone=ZONE, reread_after=RUNGS)
            problems += [
                f"{day}: {name} is not what raw says"
                for name in DAILY_TABLES
                if not lake.read_table(name, day).equals(derived[name])
            ]
        except (FileNotFoundError, CorruptFileError) as error:
            problems.append(f"{day}: {error}")
            continue
        shown = {
            row["call_id"]: {
                "id": row["call_id"],
                "started_at": int(row["started_at"].timestamp()),
                "is_ended": row["is_ended"],
                "duration": row["duration_seconds"],
                "tags": row["tags"],
            }
            for row in calls
        }
        if len(shown) != len(calls):
            problems.append(f"{day}: a call has several rows")
        if shown != vendor.truth(day, ZONE):
            wrong = sorted(id_ for id_ in shown.keys() ^ vendor.truth(day, ZONE).keys())
            problems.append(f"{day}: calls are not the account's (ids {wrong or 'agree, contents do not'})")
    return problems


def list_changes(lake: Lake, days: Collection[date]) -> list[tuple[object, ...]]:
    """Gives what `call_changes` shows, but for the instants."""
    return sorted(
        tuple(row[column] for column in CHANGE_COLUMNS)
        for day in days
        for row in lake.read_table("call_changes", day).to_pylist()
    )
