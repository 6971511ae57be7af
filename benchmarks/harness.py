"""What the benchmarks of requests share: the server, the contenders, one run of one of them.

Every contender is a process (or a pipe of two) that is given the same ids of the same server through its environment.
The server has a core of its own, the contender another. Who writes its own benchmark needs `emit` only.

Figures of a run:
    work_seconds    from the first request the server saw to the end of the last process: starting the interpreter and
                    importing does not count, writing files does
    whole_seconds   from starting the process to its end
    cpu_seconds     user and system time of the processes, starting included (RUSAGE_CHILDREN)

A run waits (two minutes at most) until the machine is idle; one during which others used it for more than a twentieth
of the time is done again, a few times at most: then the least disturbed one counts, and is marked.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "benchmarks" / "peers"
BENCH = ROOT / ".bench"
QUICK = os.environ.get("QUICK", "") not in {"", "0"}
OURS = "calls-assets"
TIMEOUT_SECONDS = 300.0
DISTURBED_SHARE = 0.05
QUIET_ATTEMPTS = 1 if QUICK else 4
QUIET_WAIT_SECONDS = 0 if QUICK else 120
MOST_WAITING_SECONDS = 600  # of all runs of a benchmark together: then it takes the machine as it is
FIRST_ID = 65_123
DAY = "2025-05-01"
TOKEN = "benchmark-token"  # noqa: S105 - of a server that lives as long as the benchmark


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """Somebody who fetches calls.

    Attributes:
        name: As in the tables.
        venv: Its directory below `.bench`, or None for the project's own.
        script: Its code below `benchmarks/peers`, with arguments.
        pipe: A command of another venv that gets its output: (venv, command, arguments).
        work: What it does beside asking, and what it does not.
        is_slow: Takes part in every other round only.
    """

    name: str
    venv: str | None
    script: tuple[str, ...]
    pipe: tuple[str, ...] = ()
    work: str
    is_slow: bool = False

    @property
    def command(self) -> str:
        """The command as somebody would type it."""
        text = " ".join(("python", f"benchmarks/peers/{self.script[0]}", *self.script[1:]))
        return text + (" | " + " ".join(self.pipe[1:]) if self.pipe else "")


CONTENDERS = (
    Contender(
        name=OURS,
        venv=None,
        script=("ours.py",),
        work="finds the ids itself (360 more requests), retries, limiter, payload contract; answers stored durably as "
        "they were sent; seven tables and the agents as Parquet, made durable; completeness and keys checked",
    ),
    Contender(
        name="script, aiohttp",
        venv="scripts",
        script=("script_aiohttp.py",),
        work="collects bodies in memory: nothing parsed, stored, retried or limited",
    ),
    Contender(
        name="script, httpx over aiohttp",
        venv="scripts",
        script=("script_httpx_aiohttp.py",),
        work="collects bodies in memory: nothing parsed, stored, retried or limited",
    ),
    Contender(
        name="script, httpx over aiohttp, uvloop",
        venv="scripts",
        script=("script_httpx_aiohttp.py", "--uvloop"),
        work="the same on uvloop",
    ),
    Contender(
        name="script, httpx",
        venv="scripts",
        script=("script_httpx.py",),
        work="collects bodies in memory: nothing parsed, stored, retried or limited",
        is_slow=True,
    ),
    Contender(
        name="dlt, async, extract only",
        venv="dlt",
        script=("dlt_async.py", "--extract"),
        work="leaves its own intermediate files, no tables; no retries (dies on the first 500), no limiter, no fsync",
    ),
    Contender(
        name="dlt, async, one table",
        venv="dlt",
        script=("dlt_async.py", "--flat"),
        work="one Parquet table, nested lists as JSON; no retries, no limiter, no fsync, bodies not kept",
    ),
    Contender(
        name="dlt, async",
        venv="dlt",
        script=("dlt_async.py",),
        work="Parquet, nested lists as child tables; no retries, no limiter, no fsync, bodies not kept",
    ),
    Contender(
        name="dlt, async, pages, extract only",
        venv="dlt",
        script=("dlt_async.py", "--pages", "--extract"),
        work="the same by pages of a hundred ids and calls",
    ),
    Contender(
        name="dlt, async, pages, one table",
        venv="dlt",
        script=("dlt_async.py", "--pages", "--flat"),
        work="one table as above, by pages of a hundred ids and calls",
    ),
    Contender(
        name="dlt, as documented",
        venv="dlt",
        script=("dlt_docs.py",),
        work="parallelized over threads, retries; Parquet, nested lists as child tables; no limiter, no fsync",
        is_slow=True,
    ),
    Contender(
        name="Airbyte CDK",
        venv="airbyte_cdk",
        script=("airbyte_source.py",),
        work="declarative connector, concurrent, retries; JSON lines on standard output, no tables, no fsync",
        is_slow=True,
    ),
    Contender(
        name="PyAirbyte",
        venv="pyairbyte",
        script=("pyairbyte.py",),
        work="the same connector into a DuckDB cache, then one Parquet file; no fsync",
        is_slow=True,
    ),
    Contender(
        name="Singer tap",
        venv="singer",
        script=("singer_tap.py",),
        work="parent and child stream, one request at a time (the SDK has no other way), retries; messages on stdout",
        is_slow=True,
    ),
    Contender(
        name="Singer tap, partitions, no log",
        venv="singer",
        script=("singer_tap.py", "--partitions"),
        work="the same as one stream with a partition for each id, and without its log",
        is_slow=True,
    ),
    Contender(
        name="Singer tap and target",
        venv="singer",
        script=("singer_tap.py",),
        pipe=("target_jsonl", "target-jsonl", "--config", "{out}/target.json"),
        work="the tap into target-jsonl: records checked against the schema, JSON lines in a file; no fsync",
        is_slow=True,
    ),
    Contender(
        name="Singer tap and target, partitions, no log",
        venv="singer",
        script=("singer_tap.py", "--partitions"),
        pipe=("target_jsonl", "target-jsonl", "--config", "{out}/target.json"),
        work="the same with the tap's other form",
        is_slow=True,
    ),
)


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of a contender took.

    Attributes:
        is_success: Whether it ended with 0 and got all calls.
        work_seconds: From the first request to the end.
        whole_seconds: From its start to its end.
        cpu_seconds: User and system time, starting included.
        others_seconds: User and system time of everybody else but the server.
        stats: What the server saw.
    """

    is_success: bool
    work_seconds: float
    whole_seconds: float
    cpu_seconds: float
    others_seconds: float
    stats: dict[str, Any] = field(repr=False)

    @property
    def is_disturbed(self) -> bool:
        """Whether others used the machine for long enough to matter."""
        return self.others_seconds > DISTURBED_SHARE * self.whole_seconds + 0.05


class Server:
    """The canned server in a process of its own.

    Attributes:
        url: Its address.
        waited_seconds: How long runs against it waited for a quiet machine, all together.
    """

    def __init__(self, url: str, process_id: int) -> None:
        self.url = url
        self.waited_seconds = 0.0
        self._process_id = process_id

    def configure(self, options: Mapping[str, float | str]) -> None:
        """Sets latency, limit and number of calls, and starts counting again."""
        self._get("/set?" + urlencode(options))

    def cpu_seconds(self) -> float:
        """Gives its user and system time."""
        fields = Path(f"/proc/{self._process_id}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stats(self) -> dict[str, Any]:
        """Gives what was counted."""
        return dict(self._get("/stats"))

    def _get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return json.load(answer)


@contextmanager
def run_server(calls: int, *options: str) -> Iterator[Server]:
    """Runs the server on the last core, and pins this process and what it starts to the first."""
    cores = sorted(os.sched_getaffinity(0))
    command = [
        sys.executable,
        str(ROOT / "benchmarks/server.py"),
        "--calls",
        str(calls),
        "--core",
        str(cores[-1]),
        *options,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            server = Server(process.stdout.readline().strip(), process.pid)
            os.sched_setaffinity(0, {cores[0]})
            yield server
        finally:
            os.sched_setaffinity(0, cores)
            process.terminate()


def run_once(
    contender: Contender,
    server: Server,
    options: Mapping[str, float | str],
    *,
    count: int,
    in_flight: int = 64,
    rate: int | None = None,
    prepare: Callable[[], Mapping[str, str]] = dict,
) -> Run:
    """Lets a contender fetch `count` calls, and again when others disturbed it.

    Args:
        contender: Who.
        server: From whom.
        options: How the server behaves.
        count: How many calls.
        in_flight: Requests at a time, for those who can.
        rate: The allowed requests a second, for those who can keep to one.
        prepare: Called before each attempt; gives further variables of its environment.
    """
    runs: list[Run] = []
    for _ in range(QUIET_ATTEMPTS if server.waited_seconds < MOST_WAITING_SECONDS else 1):
        server.waited_seconds += _wait_until_quiet(MOST_WAITING_SECONDS - server.waited_seconds)
        server.configure(options)
        run = _run(contender, server, count=count, in_flight=in_flight, rate=rate, more=prepare())
        if not run.is_disturbed:
            return run
        runs.append(run)
        tell(f"disturbed: {contender.name}, others used {run.others_seconds:.2f} s of {run.whole_seconds:.2f} s")
    return min(runs, key=lambda run: run.others_seconds / run.whole_seconds)


def _wait_until_quiet(most_seconds: float) -> float:
    """Waits until nobody uses the machine, or too long; gives for how long."""
    began = time.monotonic()
    while time.monotonic() - began < min(QUIET_WAIT_SECONDS, most_seconds):
        used = _machine_seconds()
        time.sleep(0.5)
        if _machine_seconds() - used <= DISTURBED_SHARE:
            break
    return time.monotonic() - began


def _run(
    contender: Contender, server: Server, *, count: int, in_flight: int, rate: int | None, more: Mapping[str, str]
) -> Run:
    out = BENCH / "run" / contender.script[0].removesuffix(".py")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    environment = _make_environment(server, out, count=count, in_flight=in_flight, rate=rate) | dict(more)
    (out / "target.json").write_text(json.dumps({"destination_path": str(out), "do_timestamp_file": False}))
    commands = [[_interpreter(contender.venv), str(PEERS / contender.script[0]), *contender.script[1:]]]
    if contender.pipe:
        venv, program, *arguments = contender.pipe
        commands.append([str(BENCH / venv / "bin" / program), *(text.format(out=out) for text in arguments)])
    others, own = _machine_seconds() - server.cpu_seconds(), _own_seconds()
    began = time.monotonic()
    codes = _run_pipe(commands, environment, out)
    ended = time.monotonic()
    own = _own_seconds() - own
    stats = server.stats()
    return Run(
        is_success=codes == [0] * len(commands) and stats["calls"] >= count,
        work_seconds=ended - (stats["first_request_at"] or began),
        whole_seconds=ended - began,
        cpu_seconds=own,
        others_seconds=_machine_seconds() - server.cpu_seconds() - others - own,
        stats=stats,
    )


def _own_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _machine_seconds() -> float:
    """Gives the user, nice and system time of the whole machine."""
    fields = Path("/proc/stat").read_text().split(maxsplit=4)
    return sum(int(text) for text in fields[1:4]) / os.sysconf("SC_CLK_TCK")


def _make_environment(server: Server, out: Path, *, count: int, in_flight: int, rate: int | None) -> dict[str, str]:
    """Gives what all contenders get, each in its own words."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "TMPDIR"}}
    ours = {
        "CALLS_API_BASE_URL": server.url,
        "CALLS_API_TOKEN": TOKEN,
        "CALLS_API_CONCURRENCY": str(in_flight),
        "CALLS_API_REQUESTS_PER_SECOND": str(rate or 100_000),
        "CALLS_DATA_DIR": str(out / "lake"),
        "CALLS_START_DATE": DAY,
        "DAY": DAY,
    }
    peers = {
        "BASE_URL": server.url,
        "FIRST_ID": str(FIRST_ID),
        "COUNT": str(count),
        "IN_FLIGHT": str(in_flight),
        "OUT": str(out),
        "EXTRACT__WORKERS": str(in_flight),  # dlt
        "EXTRACT__MAX_PARALLEL_ITEMS": str(in_flight),
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "AIRBYTE_OFFLINE_MODE": "1",  # no look at a registry, no telemetry
        "DO_NOT_TRACK": "1",
    }
    return kept | ours | peers | ({"RATE": str(rate)} if rate else {})


def _interpreter(venv: str | None) -> str:
    return sys.executable if venv is None else str(BENCH / venv / "bin" / "python")


def _run_pipe(commands: Sequence[Sequence[str]], environment: Mapping[str, str], out: Path) -> list[int]:
    """Runs commands, each reading what the one before prints; the last one prints to a file."""
    processes: list[subprocess.Popen[bytes]] = []
    with (out / "stdout").open("wb") as stdout, (out / "stderr").open("wb") as stderr:
        for command in commands:
            source = processes[-1].stdout if processes else subprocess.DEVNULL
            target = stdout if command is commands[-1] else subprocess.PIPE
            process = subprocess.Popen(command, env=environment, stdin=source, stdout=target, stderr=stderr, cwd=out)
            if processes and processes[-1].stdout is not None:
                processes[-1].stdout.close()  # so that the first one notices when the second one dies
            processes.append(process)
        deadline = time.monotonic() + TIMEOUT_SECONDS
        for process in reversed(processes):
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    return [process.returncode for process in processes]


def emit(benchmark: str, contender: str, metric: str, values: Sequence[float], **more: object) -> None:
    """Prints one result line.

    Args:
        benchmark: Which benchmark; its results make one table.
        contender: Who.
        metric: What, with its unit.
        values: One of each round.
        more: Further keys.
    """
    rounded = [float(f"{value:.5g}") for value in values]
    median = float(f"{statistics.median(values):.5g}")
    line = {"benchmark": benchmark, "contender": contender, "metric": metric, "values": rounded, "median": median}
    print(json.dumps(line | more), flush=True)


def emit_runs(benchmark: str, contender: str, metric: str, runs: Sequence[Run], figure: Callable[[Run], float]) -> None:
    """Prints a figure of each run as one result line."""
    disturbed = sum(run.is_disturbed for run in runs)
    more = {"disturbed": disturbed} if disturbed else {}
    emit(benchmark, contender, metric, [figure(run) for run in runs], **more)


def tell(text: str) -> None:
    """Says on standard error what is going on."""
    print(text, file=sys.stderr, flush=True)
