"""`calls-assets`: the command line beside Dagster.

What belongs here: arguments, printing, exit codes. What stays out: the work, which the packages do. Exit codes: 0 all
is well, 1 something was found or failed, 2 the command was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import stat
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from calls_assets.api import ApiError, CallsClient, connect
from calls_assets.derive import derive_day
from calls_assets.inbox import HIGHEST_REQUEST, Inbox, join_ranges, parse_ids
from calls_assets.inbox.receiver import create_app, run
from calls_assets.ingest import PlanReport, SweepOptions, coverage, make_plan
from calls_assets.lake import (
    DAILY_TABLES,
    DATASETS,
    SOURCE_KEY,
    CorruptFileError,
    Finding,
    Lake,
    LakeError,
    open_storage,
    verify,
)
from calls_assets.lake.copy import copy_lake
from calls_assets.lake.snapshot import keep_snapshot
from calls_assets.settings import Settings, SettingsError, load_environment, parse_location

_CLOCK_TOLERANCE = timedelta(seconds=60)
_DOCTOR_KEY, _DOCTOR_CONTENT = "raw/.doctor", b"read back"


class _UsageError(Exception):
    """The command was given something that makes no sense."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: The arguments; those of the process when None.

    Returns:
        The exit code.
    """
    parser = _make_parser()
    arguments = parser.parse_args(argv)
    load_environment()
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except (SettingsError, _UsageError) as error:
        print(f"calls-assets: {error}", file=sys.stderr)
        return 2
    except (LakeError, ApiError) as error:
        print(f"calls-assets: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="calls-assets", description="Call records as daily Parquet tables.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    plan = commands.add_parser("plan", help="tell what a sweep of some days would ask the API, and how long it takes")
    _add_days(plan)
    plan.add_argument(
        "--read-holes", action="store_true", help="count in the holes beside the days that are taken for jumps"
    )
    plan.set_defaults(command=_plan)

    check = commands.add_parser("verify", help="read every file of the lake and name what is wrong")
    check.set_defaults(command=_verify)

    doctor = commands.add_parser("doctor", help="check the settings, the API, the clock and the data directory")
    doctor.set_defaults(command=_doctor)

    summary = commands.add_parser("summary", help="show rows per table and day")
    _add_days(summary)
    summary.add_argument("--stats", metavar="URL", help="a simulator's /stats, to show the requests it served")
    summary.set_defaults(command=_summary)

    webhook = commands.add_parser("webhook", help="receive the vendor's webhook deliveries into the inbox")
    webhook.add_argument("--host", default="127.0.0.1", help="where to listen (default: this machine only)")
    webhook.add_argument("--port", type=int, default=8770, help="TCP port, 0 for a free one (default: %(default)s)")
    webhook.set_defaults(command=_webhook)

    enqueue = commands.add_parser("enqueue", help="put call ids into the inbox, to be read by the next sweep")
    enqueue.add_argument("ids", nargs="*", metavar="ID", help="an id, or a range such as 2000-2100")
    enqueue.add_argument("--from-file", metavar="FILE", help="a file of ids and ranges, such as CSV; - for the input")
    enqueue.set_defaults(command=_enqueue)

    copy = commands.add_parser("copy-lake", help="copy a lake to another place, or go on with a copy")
    copy.add_argument("source", metavar="FROM", help="a directory, or an address such as s3://bucket/prefix")
    copy.add_argument("target", metavar="TO", help="the same; empty, or an earlier copy of this lake")
    copy.set_defaults(command=_copy_lake)

    snapshot = commands.add_parser("snapshot", help="make a directory like the lake that does not change, for any tool")
    snapshot.add_argument("directory", metavar="DIR", type=Path, help="a new or empty directory, yours to delete")
    snapshot.add_argument("--from", dest="first", metavar="YYYY-MM-DD", help="the first day (default: of all stored)")
    snapshot.add_argument("--to", dest="last", metavar="YYYY-MM-DD", help="the last day, included (default: of all)")
    snapshot.add_argument("--tables", nargs="+", metavar="NAME", help="tables and marts (default: all)")
    snapshot.set_defaults(command=_snapshot)

    simulate = commands.add_parser("simulate", help="run a simulated vendor API with invented calls")
    # Only this command and the tests use the simulator: nothing else is to load it.
    from calls_assets.simulator import add_arguments, run_from_arguments  # noqa: PLC0415

    add_arguments(simulate)
    simulate.set_defaults(command=run_from_arguments)
    return parser


def _add_days(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", dest="first", required=True, metavar="YYYY-MM-DD", help="the first day")
    parser.add_argument("--to", dest="last", required=True, metavar="YYYY-MM-DD", help="the last day, included")


def _read_days(arguments: argparse.Namespace, settings: Settings) -> list[date]:
    first, last = _parse_day("--from", arguments.first), _parse_day("--to", arguments.last)
    today = datetime.now(settings.timezone).date()
    if first > last:
        raise _UsageError(f"--from {first} is after --to {last}: swap them")
    if last > today:
        raise _UsageError(f"--to {last} is in the future: today is {today} in {settings.timezone.key}")
    return [first + timedelta(days=offset) for offset in range((last - first).days + 1)]


def _parse_day(option: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise _UsageError(f"{option} {text!r} is not a date: write it as YYYY-MM-DD") from None


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _warn_corrupt(error: CorruptFileError) -> None:
    print(f"calls-assets: {error}; the other files are used", file=sys.stderr)


def _open_lake(settings: Settings, on_corrupt: Callable[[CorruptFileError], None] | None = None) -> Lake:
    return Lake.open(settings.data_dir, on_corrupt=on_corrupt, is_single_writer=settings.is_single_writer)


def _open_to_read(settings: Settings) -> Lake:
    lake = Lake(open_storage(settings.data_dir, is_writable=False), on_corrupt=lambda _error: None)
    if not lake.has_files():
        raise _UsageError(f"{_name(settings)} does not exist: set CALLS_DATA_DIR")
    return lake


def _plan(arguments: argparse.Namespace) -> int:
    settings = Settings.from_env()
    days = _read_days(arguments, settings)
    client = connect(settings)
    lake = _open_lake(settings, _warn_corrupt)
    lake.bind(settings.timezone.key, settings.api_base_url)
    options = replace(SweepOptions.from_settings(settings), read_holes=arguments.read_holes)

    async def run(client: CallsClient) -> PlanReport:
        async with client:
            return await make_plan(lake, client, days, options=options, now=_utc_now)

    report = asyncio.run(run(client))
    span = "none" if report.first_id is None else f"{report.first_id:,} to {report.last_id:,}"
    print(f"days                 {days[0]} to {days[-1]} ({len(days)})")
    print(f"ids to account for   {report.ids:,} ({span}, margins included)")
    print(f"already stored       {report.stored:,}")
    print(f"due to be read again {report.due:,}")
    print(f"requests to make     {report.requests:,}, about {_say_duration(report.seconds)}", end=" ")
    print(f"at {settings.requests_per_second:g} requests per second")
    print(f"asked for this plan  {report.probes:,} (the answers are stored)")
    return 0


def _say_duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _verify(_: argparse.Namespace) -> int:
    settings = Settings.from_env()
    lake = _open_to_read(settings)
    count = 0
    for finding in (
        *_find_foreign(lake, settings),
        *verify(lake),
        *_find_unaccounted(lake, settings),
        *_find_differences(lake, settings),
    ):
        count += 1
        print(finding)
    days = len(lake.published())
    print(f"{count} findings in {days} days" if count else f"{days} days verified: nothing is wrong")
    return 1 if count else 0


def _find_foreign(lake: Lake, settings: Settings) -> Iterator[Finding]:
    """Finds that the lake is not what the settings say it is."""
    try:
        lake.check_binding(settings.timezone.key, settings.api_base_url)
    except FileNotFoundError:
        return
    except LakeError as error:
        problem, _, remedy = str(error).partition(": ")
        yield Finding(SOURCE_KEY, problem, remedy)


def _find_unaccounted(lake: Lake, settings: Settings) -> Iterator[Finding]:
    """Finds ids without an answer in the days that have tables."""
    for found in coverage(lake, sorted(lake.published()), settings.timezone) if settings.id_scan else ():
        if not found.is_complete:
            first, last = found.unaccounted[0]
            problem = f"{found.unaccounted_count} ids have no answer, the first {first} to {last}"
            yield Finding(f"raw/call_records/call_date={found.day}", problem, "materialize call_records for this day")


def _find_differences(lake: Lake, settings: Settings) -> Iterator[Finding]:
    """Finds tables that do not show what raw says."""
    remedy = "materialize the tables for this day (rebuild_job): the API is not asked"
    for day in lake.published():
        raw = lake.read_day(day)
        tables = derive_day(
            raw.versions, day, events=raw.events, timezone=settings.timezone, reread_after=settings.reread_after
        )
        for name in DAILY_TABLES:
            try:
                held = lake.read_table(name, day)
            except FileNotFoundError:
                yield Finding(lake.table_key(name, day), "is missing", remedy)
            except CorruptFileError:
                continue  # named by verify() already
            else:
                if not held.equals(tables[name]):
                    yield Finding(lake.table_key(name, day), "does not show what raw says", remedy)


def _webhook(arguments: argparse.Namespace) -> int:
    settings = Settings.from_env()
    if not settings.webhook_secrets:
        raise _UsageError("CALLS_WEBHOOK_SECRET is not set: make one with openssl rand -hex 24")
    lake = _open_lake(settings)
    app = create_app(Inbox(lake.storage), secrets=settings.webhook_secrets, signing_key=settings.webhook_signing_key)
    return run(app, host=arguments.host, port=arguments.port)


def _enqueue(arguments: argparse.Namespace) -> int:
    settings = Settings.from_env()
    ranges, bad = parse_ids(arguments.ids)
    problems = [f"{arguments.ids[number - 1]!r} {problem}" for number, problem in bad]
    if arguments.from_file:
        more, bad = parse_ids(_read_lines(arguments.from_file))
        ranges += more
        problems += [f"{arguments.from_file}, line {number} {problem}" for number, problem in bad]
    if not ranges and not problems:
        raise _UsageError("no ids given: name them, or a file with --from-file")
    for problem in problems:
        print(f"calls-assets: {problem}", file=sys.stderr)
    count = sum(last - first + 1 for first, last in join_ranges(ranges))
    if count > HIGHEST_REQUEST:
        raise _UsageError(f"{count:,} ids are more than {HIGHEST_REQUEST:,} at once: enqueue them in parts")
    try:
        new = Inbox(_open_lake(settings).storage).enqueue(ranges, _utc_now()) if ranges else 0
    except OSError as problem:
        raise LakeError(f"the ids could not be stored: {(problem.strerror or 'input/output error').lower()}") from None
    print(f"{new:,} ids enqueued, {count - new:,} were waiting already: the next sweep of today reads them")
    return 1 if problems else 0


def _read_lines(name: str) -> list[str]:
    if name == "-":
        return sys.stdin.read().splitlines()
    try:
        return Path(name).read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as problem:
        raise _UsageError(f"{name} cannot be read: {(problem.strerror or 'no reason').lower()}") from None


def _doctor(_: argparse.Namespace) -> int:
    settings = Settings.from_env()
    print("ok    settings are readable")
    results = [*_examine_lake(settings), *_examine_api(settings)]
    for is_good, text in results:
        print(f"{'ok   ' if is_good else 'FAIL '} {text}")
    return 0 if all(is_good for is_good, _ in results) else 1


def _examine_lake(settings: Settings) -> Iterator[tuple[bool, str]]:
    place = _name(settings)
    try:
        lake = _open_lake(settings)
        lake.storage.replace(_DOCTOR_KEY, _DOCTOR_CONTENT)
        is_read_back = lake.storage.read(_DOCTOR_KEY) == _DOCTOR_CONTENT
        lake.storage.delete(_DOCTOR_KEY)
    except LakeError as error:
        yield False, f"{error}: give this user the right to use it, or set CALLS_DATA_DIR"
        return
    except OSError as problem:
        reason = f" ({problem.strerror})" if isinstance(settings.data_dir, str) else ""
        yield False, f"cannot write below {place}{reason}: give this user the right to, or set CALLS_DATA_DIR"
        return
    yield is_read_back, f"{place} {'is writable' if is_read_back else 'gives other bytes than were written'}"
    if isinstance(settings.data_dir, str):
        word = "creates objects only where there are none" if lake.storage.is_create_only else "needs a single writer"
        yield True, f"the store {word}; who may read raw/ and inbox/ is up to its policies"
        return
    mode = stat.S_IMODE((settings.data_dir / "raw").stat().st_mode)
    advice = "" if mode == 0o700 else f": run chmod -R go= {settings.data_dir}/raw"
    yield mode == 0o700, f"raw records are {'private' if mode == 0o700 else 'readable by others'}{advice}"


def _name(settings: Settings) -> str:
    """Says what the lake is in, for people."""
    place = settings.data_dir
    return f"object store {place}" if isinstance(place, str) else f"data directory {place.resolve()}"


def _examine_api(settings: Settings) -> Iterator[tuple[bool, str]]:
    problem = settings.api_problem()
    if problem is not None or settings.api_base_url is None:
        yield False, problem or "CALLS_API_BASE_URL is not set"
        return
    is_plain = settings.api_base_url.startswith("http://")
    if is_plain and not settings.api_base_url.startswith(("http://127.", "http://localhost", "http://[::1]")):
        yield False, "the token travels unencrypted: use https in CALLS_API_BASE_URL"
    try:
        asyncio.run(_ask_once(connect(settings, is_probe=True)))
    except (ApiError, SettingsError) as error:
        yield False, f"{error}: check CALLS_API_BASE_URL, the token and the network"
        return
    yield True, f"the API at {settings.api_base_url} answers and takes the token"
    yield from _examine_clock(settings.api_base_url)


async def _ask_once(client: CallsClient) -> None:
    async with client:
        await client.fetch(1)


def _examine_clock(url: str) -> Iterator[tuple[bool, str]]:
    """Compares the clock with the API's Date header, without the token."""
    import http.client  # noqa: PLC0415 - only here
    from email.utils import parsedate_to_datetime  # noqa: PLC0415
    from urllib.parse import urlsplit  # noqa: PLC0415

    parts = urlsplit(url)
    connection_type = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = connection_type(parts.netloc, timeout=10)
    try:
        connection.request("HEAD", "/")
        stamp = connection.getresponse().headers.get("Date")
        skew = _utc_now() - parsedate_to_datetime(stamp or "")
    except (OSError, http.client.HTTPException, ValueError, TypeError):
        yield True, "the clock could not be compared: the API tells no time"
        return
    finally:
        connection.close()
    is_good = abs(skew) <= _CLOCK_TOLERANCE
    advice = "" if is_good else ": set the clock of this machine (NTP), else calls are read too early or too late"
    yield is_good, f"the clock differs by {abs(skew.total_seconds()):.0f} s from the API's{advice}"


def _copy_lake(arguments: argparse.Namespace) -> int:
    settings = Settings.from_env()
    source, target = parse_location("FROM", arguments.source), parse_location("TO", arguments.target)
    if source == target:
        raise _UsageError("FROM and TO are the same place")
    try:
        report = copy_lake(
            open_storage(source, is_writable=False),
            open_storage(target, is_single_writer=settings.is_single_writer),
            log=print,
        )
    except OSError as problem:
        raise LakeError(
            f"the copy broke off: {(problem.strerror or 'input/output error').lower()}; go on with the same command"
        ) from None
    for key in report.damaged:
        print(f"{key} was damaged before, and is copied as it is", file=sys.stderr)
    for key in report.repaired:
        print(f"{key} was damaged at the target, and was sent again", file=sys.stderr)
    print(f"{report.files:,} files, {report.size:,} bytes: {report.copied:,} files, {report.copied_size:,} bytes sent")
    print(f"now set CALLS_DATA_DIR={target}, run calls-assets verify, and materialize catalog, which names its files")
    return 1 if report.damaged else 0


def _snapshot(arguments: argparse.Namespace) -> int:
    settings, directory = Settings.from_env(), arguments.directory
    first = _parse_day("--from", arguments.first) if arguments.first else date.min
    last = _parse_day("--to", arguments.last) if arguments.last else date.max
    if first > last:
        raise _UsageError(f"--from {first} is after --to {last}: swap them")
    names = arguments.tables or list(DATASETS)
    for name in names:
        if name not in DATASETS:
            raise _UsageError(f"{name!r} is no table or mart: there are {', '.join(DATASETS)}")
    lake = _open_to_read(settings)
    try:
        if any(directory.iterdir()):
            raise _UsageError(f"{directory} is not empty: name a new directory")
    except FileNotFoundError:
        pass  # it is made
    except OSError as problem:
        raise _UsageError(f"{directory} cannot be used: {(problem.strerror or 'no reason').lower()}") from None
    linked, copied = keep_snapshot(lake, directory, names, first, last)
    print(f"{linked + copied:,} files in {directory}, {copied:,} of them copies: delete it when it is read no more")
    return 0


def _summary(arguments: argparse.Namespace) -> int:
    settings = Settings.from_env()
    days = _read_days(arguments, settings)
    lake = _open_lake(settings, _warn_corrupt)
    names = ["calls", *(name for name in DAILY_TABLES if name != "calls")]
    lines = [["day", *names, "ids", "missing", "unaccounted", "unread"]]
    calls = 0
    for found in coverage(lake, days, settings.timezone):
        if not settings.id_scan:
            found = found.without_scan()  # noqa: PLW2901 - one way on for both
        day, counts = found.day, []
        for name in names:
            try:
                counts.append(f"{lake.read_table(name, day, ['call_id']).num_rows:,}")
            except FileNotFoundError:
                counts.append("-")
        calls += found.stored
        ids = f"{found.first_id}-{found.last_id}" if found.first_id is not None else "none"
        numbers = (found.missing, found.unaccounted_count, found.unread_count)
        lines.append([day.isoformat(), *counts, ids, *map(str, numbers)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))
    if arguments.stats:
        with urllib.request.urlopen(arguments.stats, timeout=10) as response:  # noqa: S310 - an address the user gave
            requests = json.load(response)["requests"]
        share = f", {requests / calls:.2f} per call" if calls else ""
        print(f"{calls:,} calls in {len(days)} days; the simulator served {requests:,} requests in this run{share}")
    return 0
