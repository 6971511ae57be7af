"""Asking a hostile server: what each case comes to, alone and amid the others of a sweep; also a command of its own.

`python -m calls_assets_tests.faults.hostile URL ROOT [no-limit | by-number]` sweeps and prints its peak memory: a
process of its own, so that the server's memory does not count.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import resource
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from calls_assets.api import (
    AccessDeniedError,
    CallsClient,
    ClientConfig,
    ContractError,
    RedirectRefusedError,
    RequestRefusedError,
    TransientError,
    decode_call,
)
from calls_assets.ingest import SweepFailedError, SweepOptions, SweepReport, sweep
from calls_assets.lake import Lake
from calls_assets_tests.api.server import Heard, Script, body_of, response
from calls_assets_tests.faults.wire import Case

ZONE = ZoneInfo("UTC")
DAY = date(2025, 5, 20)
START = int(datetime(2025, 5, 20, tzinfo=UTC).timestamp())
DEADLINE_SECONDS = 2.0  # a slow machine answers too
MOST_SECONDS = 20.0  # for two attempts, whatever the server does
OPTIONS = SweepOptions(timezone=ZONE, reread_after=(timedelta(hours=1),), concurrency=16, requests_per_second=5_000)


def config_for(url: str, *, concurrency: int = 16, body_limit_bytes: int = 4 * 2**20) -> ClientConfig:
    """Gives a configuration with a short deadline and two attempts."""
    return ClientConfig(
        base_url=url,
        token="tok-hostile",
        requests_per_second=5_000.0,
        concurrency=concurrency,
        timeout_seconds=DEADLINE_SECONDS,
        max_attempts=2,
        body_limit_bytes=body_limit_bytes,
    )


def script_for(cases: Mapping[int, Case], count: int) -> Script:
    """Gives a server on which some ids are hostile; the ids up to `count` are calls of one day, others are missing."""

    async def answer(heard: Heard, writer: asyncio.StreamWriter) -> None:
        id_ = heard.call_id
        if id_ in cases:
            await cases[id_].speak(id_, writer)
        else:
            writer.write(response(200, body_of(id_, started_at=START + id_)) if id_ <= count else response(404, b"{}"))

    return answer


async def judge(client: CallsClient, id_: int) -> str:
    """Tells what an id comes to, by the kinds of `wire`; anything else begins with `crash` or `hang`."""
    try:
        async with asyncio.timeout(MOST_SECONDS):
            answer = await client.fetch(id_)
        if answer.body is None:
            return "missing"
        decode_call(id_, answer.body)
    except TransientError as error:
        return f"transient: {error.reason}"
    except ContractError as error:
        return f"quarantined: {error}"
    except RedirectRefusedError:
        return "redirect"
    except RequestRefusedError:
        return "refused"
    except AccessDeniedError:
        return "denied"
    except TimeoutError:
        return f"hang of more than {MOST_SECONDS:g} s"
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        return f"crash: {type(error).__name__}"
    return "row"


async def ask_alone(url: str, id_: int, case: Case) -> list[str]:
    """Asks for a hostile id and then, over the same connection if it lives, for an ordinary one."""
    async with CallsClient(config_for(url, concurrency=1), jitter=lambda: 0.0) as client:
        came_to = await judge(client, id_)
        after = await judge(client, 1)
    problems = [] if came_to.startswith(case.comes_to) else [f"{case.name}: {came_to}"]
    return problems if after == "row" else [*problems, f"{case.name}: the next call comes to {after}"]


async def sweep_amid(url: str, root: Path, *, body_limit_bytes: int = 4 * 2**20) -> SweepReport:
    """Sweeps the day; gives the report also when too many ids fail."""
    async with CallsClient(config_for(url, body_limit_bytes=body_limit_bytes), jitter=lambda: 0.0) as client:
        try:
            return await sweep(
                Lake.open(root), client, [DAY], options=OPTIONS, now=lambda: datetime.now(UTC), log=lambda _line: None
            )
        except SweepFailedError as failure:
            return failure.report


def look_up(root: Path) -> dict[int, str]:
    """Tells what the lake knows of each id: row, missing, or quarantined with its reason."""
    lake, found = Lake.open(root), {}
    for segment in lake.segments():
        for row in lake.read_segment(segment.key, ("call_id", "http_status", "error")).to_pylist():
            kind = "missing" if row["http_status"] == 404 else f"quarantined: {row['error']}" if row["error"] else "row"
            found[row["call_id"]] = kind
    return found


def find_losses(root: Path, failed_ids: Sequence[int], cases: Mapping[int, Case], count: int) -> dict[int, str]:
    """Compares what the lake and the sweep know with what each id has to come to; gives what it came to instead."""
    found = look_up(root) | dict.fromkeys(failed_ids, "named")
    named = {"transient", "refused", "redirect"}
    losses = {}
    for id_ in range(1, count + 1):
        expected = {"named" if kind in named else kind for kind in cases[id_].comes_to} if id_ in cases else {"row"}
        came_to = found.get(id_, "nothing")
        if not came_to.startswith(tuple(expected)) or came_to == "quarantined: ":
            losses[id_] = came_to
    return losses


async def behave(id_: int, writer: asyncio.StreamWriter) -> None:
    """Gives an ordinary answer in place of a hostile one: the normal run to compare with."""
    writer.write(response(200, body_of(id_, started_at=START + id_)))


async def fill_up(id_: int, writer: asyncio.StreamWriter) -> None:
    """Gives an ordinary answer and as much white space as is still accepted."""
    writer.write(response(200, body_of(id_, started_at=START + id_).ljust(4 * 2**20)))
    await writer.drain()


def _peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage gives includes the parent's peak
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1_024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _main() -> None:
    url, root, *rest = sys.argv[1:]
    limit = 2**40 if "no-limit" in rest else 4 * 2**20
    if "by-number" in rest:
        vars(importlib.import_module("calls_assets.ingest.sweep"))["LAND_EVERY_BYTES"] = 2**40
    report = asyncio.run(sweep_amid(url, Path(root), body_limit_bytes=limit))
    sys.stdout.write(json.dumps({"peak_bytes": _peak_bytes(), "failed_ids": report.failed_ids}))


if __name__ == "__main__":
    _main()
