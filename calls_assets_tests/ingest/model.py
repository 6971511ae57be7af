"""A model vendor: an account as a plain list of calls, answering like the API client, without a network."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from calls_assets.api import Answer, ClientStats, TransientError
from calls_assets.derive import derive_day
from calls_assets.ingest import SweepOptions, SweepReport, Wanted, sweep
from calls_assets.lake import Lake

RUNGS = (timedelta(hours=1), timedelta(hours=24), timedelta(days=7))


@dataclass(frozen=True)
class ModelCall:
    """One call of the model.

    Attributes:
        id: Its id.
        started_at: Its start.
        seconds: How long it lasts.
        appears_after: Seconds after the start during which the API does not know it.
        tagged_after: Seconds after the start at which a tag appears.
        moved_after: Seconds after the start at which the start is corrected; None for never.
        moved_to: The corrected start.
        details: What the body says besides: seconds after the start, rising, and the fields it has from then on.
    """

    id: int
    started_at: datetime
    seconds: int = 60
    appears_after: int = 0
    tagged_after: int = 0
    moved_after: int | None = None
    moved_to: datetime | None = None
    details: Sequence[tuple[int, Mapping[str, object]]] = ()

    def start_at(self, now: datetime) -> datetime:
        """Gives the start as the API tells it at an instant."""
        if self.moved_after is not None and self.moved_to is not None and now >= self._after(self.moved_after):
            return self.moved_to
        return self.started_at

    def is_known(self, now: datetime) -> bool:
        """Tells whether the API has the call at an instant."""
        return now >= self._after(self.appears_after)

    def body(self, now: datetime) -> dict[str, object]:
        """Gives what the API says at an instant."""
        is_ended = now >= self._after(self.seconds)
        tags = ["late"] if now >= self._after(self.tagged_after) else []
        body: dict[str, object] = {
            "id": self.id,
            "started_at": int(self.start_at(now).timestamp()),
            "is_ended": is_ended,
            "duration": self.seconds if is_ended else 0,
            "tags": tags,
        }
        for seconds, fields in self.details:
            body |= fields if now >= self._after(seconds) else {}
        return body

    def _after(self, seconds: int) -> datetime:
        return self.started_at + timedelta(seconds=seconds)


@dataclass
class ModelVendor:
    """An account, its clock, and what was asked."""

    calls: Sequence[ModelCall]
    time: datetime
    fails: frozenset[int] = frozenset()
    stats: ClientStats = field(default_factory=ClientStats)
    asked: Counter[int] = field(default_factory=Counter)
    is_paused: bool = False

    def __post_init__(self) -> None:
        self._by_id = {call.id: call for call in self.calls}

    def now(self) -> datetime:
        """Gives the time; each look takes a microsecond, so that no two reads are at one instant."""
        self.time += timedelta(microseconds=1)
        return self.time

    async def fetch(self, call_id: int) -> Answer:
        """Answers like `CallsClient.fetch`."""
        await asyncio.sleep(0)
        self.stats.requests += 1
        self.asked[call_id] += 1
        if call_id in self.fails:
            raise TransientError(call_id, 1, "HTTP 500")
        call = self._by_id.get(call_id)
        now = self.now()
        if call is None or not call.is_known(now):
            return Answer(call_id, now, 404, None)
        return Answer(call_id, now, 200, json.dumps({"calls": call.body(now)}).encode())

    def truth(self, day: date, zone: ZoneInfo) -> dict[int, dict[str, object]]:
        """Gives the calls of a day as the API tells them now."""
        return {
            call.id: call.body(self.time)
            for call in self.calls
            if call.is_known(self.time) and call.start_at(self.time).astimezone(zone).date() == day
        }


def options_in(zone: ZoneInfo, *, id_scan: bool = True, read_holes: bool = False) -> SweepOptions:
    """Gives the options of the tests."""
    return SweepOptions(
        timezone=zone,
        reread_after=RUNGS,
        id_scan=id_scan,
        concurrency=4,
        requests_per_second=10,
        read_holes=read_holes,
    )


def run_sweep(
    root: Path,
    vendor: ModelVendor,
    days: Iterable[date],
    zone: ZoneInfo,
    *,
    reread_final: bool = False,
    wide: bool = False,
    read_holes: bool = False,
    wanted: Mapping[int, Wanted] | None = None,
) -> SweepReport:
    """Sweeps days of a lake, the way a run does."""
    lake = Lake.open(root)
    report = asyncio.run(
        sweep(
            lake,
            vendor,
            list(days),
            options=options_in(zone, read_holes=read_holes),
            now=vendor.now,
            reread_final=reread_final,
            wide=wide,
            wanted=wanted,
            log=lambda _line: None,
        )
    )
    for day in report.touched_days:
        lake.compact(day)
    return report


def shown(root: Path, day: date, zone: ZoneInfo) -> dict[int, dict[str, object]]:
    """Gives the calls that the tables show for a day, in the model's terms."""
    tables = derive_day(Lake.open(root).read_day(day).versions, day, timezone=zone, reread_after=RUNGS)
    return {
        row["call_id"]: {
            "id": row["call_id"],
            "started_at": int(row["started_at"].timestamp()),
            "is_ended": row["is_ended"],
            "duration": row["duration_seconds"],
            "tags": row["tags"],
        }
        for row in tables["calls"].to_pylist()
    }


class Account(list[ModelCall]):
    """Calls that show as what they were drawn from."""

    recipe = ""

    def __repr__(self) -> str:
        return f"Account({self.recipe})"


@st.composite
def accounts(draw: st.DrawFn, first_day: date, days: int) -> Account:
    """Draws an account: quiet and busy days, gaps, runs of missing ids, ids out of order by up to 100 places."""
    seed = draw(st.integers(0, 2**32))
    random = Random(seed)
    per_day = draw(st.lists(st.sampled_from([0, 1, 5, 40, 150, 400]), min_size=days, max_size=days))
    missing_share = draw(st.sampled_from([0.0, 0.02, 0.3]))
    longest_run = draw(st.sampled_from([0, 5, 60]))
    disorder = draw(st.sampled_from([0, 3, 100]))
    first_id = draw(st.sampled_from([1, 37, 65_123]))
    if first_id > 37:
        per_day[0] = 400  # an account of few calls with high ids cannot be found by search
    start = datetime(first_day.year, first_day.month, first_day.day, tzinfo=UTC)
    starts = sorted(
        start + timedelta(days=index, seconds=random.randrange(86_400))
        for index, count in enumerate(per_day)
        for _ in range(count)
    )
    ids: list[int] = []
    id_ = first_id
    for _ in starts:
        if longest_run and random.random() < 0.01:
            id_ += random.randrange(longest_run)
        while random.random() < missing_share:
            id_ += 1
        ids.append(id_)
        id_ += 1
    if disorder:
        # Sorting by a blurred position moves nothing by more than the blur.
        order = sorted(range(len(ids)), key=lambda place: place + random.uniform(0, disorder / 2))
        ids = [ids[place] for place in order]
    account = Account(
        ModelCall(id_, moment, seconds=random.randrange(1, 4_000)) for id_, moment in zip(ids, starts, strict=True)
    )
    account.recipe = f"{seed=}, {per_day=}, {missing_share=}, {longest_run=}, {disorder=}, first={min(ids, default=0)}"
    return account
