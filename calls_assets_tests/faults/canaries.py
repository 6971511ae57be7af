"""Canaries: a token, names, numbers, notes; and the search for them in all that a deployment leaves behind and shows.

Names, numbers and notes stay in raw, tables, marts and reports, which exist for them. The token has no such place: it
is in raw where the vendor's own answer holds it, and nowhere else.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import sqlite3
import threading
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Container, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import graphql
import pyarrow.parquet as pq
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster_graphql.schema import create_schema

from calls_assets_tests.api.server import Heard, Script, Served, response, serve

TOKEN = "canary+tok/en=9f3aZephyr"
PERSON = {
    "name": "Zephyrine Quillfeather",
    "number": "4915550192837",
    "note": "left-handed unicorn",
    "recording": "rec.example/bearer-8841",
    "tag": "tagged-cormorant",
}
NEEDLES = {
    "token": TOKEN,
    "token, quoted": quote(TOKEN, safe=""),
    "token, base64": base64.b64encode(TOKEN.encode()).decode(),
    **PERSON,
    "first name": "Zephyrine",
}
TOKEN_NEEDLES = {name: needle for name, needle in NEEDLES.items() if name.startswith("token")}
DAY = date(2025, 6, 2)
IDS = range(1, 41)
_START = int(datetime(2025, 6, 2, 1, tzinfo=UTC).timestamp())
_FOR_PEOPLE = ("tables", "marts", "reports")  # marts and reports name agents


def call_of(id_: int, **fields: object) -> dict[str, object]:
    """Gives a call full of canaries."""
    return {
        "id": id_,
        "started_at": _START + 60 * id_,
        "is_ended": True,
        "contact": {"id": 9, "full_name": PERSON["name"], "number": PERSON["number"]},
        "external_numbers": [{"number": PERSON["number"]}],
        "all_agents": [{"id": 3, "alias": PERSON["name"]}],
        "disposition": {"id": 1, "code": PERSON["note"], "note": PERSON["note"]},
        "recordings": [{"id": 1, "url": PERSON["recording"]}],
        "tags": [PERSON["tag"]],
        **fields,
    }


def body_of(id_: int, **fields: object) -> bytes:
    """Gives the body of a call full of canaries."""
    return json.dumps({"calls": call_of(id_, **fields)}).encode()


_EVERYTHING = " ".join((TOKEN, *PERSON.values()))
_LINE = _EVERYTHING.encode()
_STALL_SECONDS = 0.4

FAULTS: dict[str, Callable[[int], bytes]] = {
    "an error page that echoes the request": lambda _id: response(500, _LINE),
    "a page with 200 that echoes the request": lambda _id: response(200, b"<html>" + _LINE),
    "an error with 200": lambda _id: response(200, json.dumps({"error": _EVERYTHING}).encode()),
    "a status with a telling reason": lambda _id: b"HTTP/1.1 418 " + _LINE + b"\r\nContent-Length: 0\r\n\r\n",
    "a redirect that tells": lambda _id: response(
        302, _LINE, f"Location: http://127.0.0.1:9/?t={TOKEN}&n={PERSON['number']}"
    ),
    "a refusal that echoes": lambda _id: response(401, _LINE, f"WWW-Authenticate: Token {TOKEN}"),
    "a denial": lambda _id: response(403, _LINE),
    "another call": lambda id_: response(200, body_of(id_ + 1)),
    "a contact of a wrong type": lambda id_: response(200, body_of(id_, contact=[PERSON["name"]])),
    "a number of a wrong type": lambda id_: response(200, body_of(id_, contact={"number": [PERSON["number"]]})),
    "a start in words": lambda id_: response(200, body_of(id_, started_at=PERSON["name"])),
    "a duration in words": lambda id_: response(200, body_of(id_, duration=PERSON["note"])),
    "a leg of a wrong type": lambda id_: response(200, body_of(id_, all_agents=[PERSON["name"]])),
    "tags of a wrong type": lambda id_: response(200, body_of(id_, tags={PERSON["tag"]: PERSON["tag"]})),
    "a telling key": lambda id_: response(200, body_of(id_, **{PERSON["name"]: [PERSON["name"]]})),
    "a telling id": lambda _id: response(200, json.dumps({"calls": {"id": PERSON["number"], "x": TOKEN}}).encode()),
    "invalid UTF-8": lambda id_: response(200, body_of(id_)[:-2] + b',"x":"\xff' + _LINE + b'"}}'),
    "half a body": lambda id_: response(200, body_of(id_)[:-9], length=9_999),
    "a body cut in the middle of a name": lambda id_: response(200, body_of(id_)[:140]),
    "a deep body": lambda id_: response(200, body_of(id_)[:-2] + b',"x":' + b"[" * 99_999 + _LINE),
    "an oversize body": lambda _id: response(200, (_LINE + b" ") * 60_000),
    "a cookie": lambda id_: response(200, body_of(id_), f"Set-Cookie: session={TOKEN}; Path=/"),
    "a telling Retry-After": lambda _id: response(503, _LINE, f"Retry-After: {TOKEN}"),
    "a telling encoding": lambda id_: response(200, body_of(id_), f"Content-Encoding: {TOKEN}"),
    "a broken header": lambda _id: b"HTTP/1.1 200 OK\r\n" + _LINE + b"\r\n\r\n",
    "a broken status line": lambda _id: _LINE + b"\r\n\r\n",
    "a broken chunk": lambda _id: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + _LINE + b"\r\n",
    "a broken length": lambda _id: b"HTTP/1.1 200 OK\r\nContent-Length: " + _LINE + b"\r\n\r\n",
    "a missing call that tells": lambda _id: response(404, _LINE),
    "a gone call that tells": lambda _id: response(410, _LINE),
    "no fault": lambda id_: response(200, body_of(id_)),
    "silence": lambda _id: b"",
    "hanging up": lambda _id: b"\0",
}


def script_for(fault: str, hit: Callable[[int], bool], ids: Container[int] = IDS) -> Script:
    """Serves the account; the ids that are hit meet the fault."""

    async def script(heard: Heard, writer: asyncio.StreamWriter) -> None:
        id_ = heard.call_id
        if id_ not in ids:
            writer.write(response(404, _LINE))
        elif not hit(id_):
            writer.write(response(200, body_of(id_)))
        elif fault == "hanging up":
            writer.transport.abort()
        elif fault == "silence":
            await asyncio.sleep(_STALL_SECONDS)
            writer.close()
        else:
            writer.write(FAULTS[fault](id_))
            if fault.startswith(("half", "a broken")):
                await writer.drain()
                writer.close()

    return script


@contextmanager
def serve_aside(script: Script) -> Iterator[Served]:
    """Serves from a thread, for clients that have an event loop of their own."""
    ready, holder, loop = threading.Event(), list[Served](), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def main() -> None:
        async with serve(script) as served:
            holder.append(served)
            ready.set()
            await stop.wait()

    def run() -> None:
        loop.run_until_complete(main())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield holder[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def find(text: str, needles: Mapping[str, str] = NEEDLES) -> list[str]:
    """Names the canaries in a text."""
    return [name for name, needle in needles.items() if needle in text]


def search(text: str, where: str) -> list[str]:
    """Names the canaries in a text, and where that was."""
    return [f"{name} in {where}" for name in find(text)]


@dataclass(slots=True)
class Findings:
    """What a search has read, and the canaries in it.

    Attributes:
        places: Texts read that were not empty, by the kind of place they were in.
        hits: Canaries that are where they may not be: kind of place, which canary, where exactly.
    """

    places: Counter[str] = field(default_factory=Counter)
    hits: list[tuple[str, str, str]] = field(default_factory=list)

    def search(self, text: str, place: str, detail: str = "", needles: Mapping[str, str] = NEEDLES) -> None:
        """Notes the canaries in a text."""
        self.places[place] += bool(text)
        self.hits += [(place, name, detail) for name in find(text, needles)]

    def told_in(self, canary: str) -> set[str]:
        """Gives the kinds of place where a canary is."""
        return {place for place, name, _ in self.hits if name == canary}


class Listener(logging.Handler):
    """Keeps every record as text, tracebacks included."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s %(args)s %(pathname)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps one."""
        self.lines.append(self.format(record))

    def tell(self, findings: Findings) -> None:
        """Searches what was said."""
        for line in self.lines:
            findings.search(line, "a log line", line[:60])


@contextmanager
def listening() -> Iterator[Listener]:
    """Sets every logger to DEBUG and keeps what they say."""
    listener = Listener()
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
    levels = [(logger, logger.level) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        if logger is logging.root or not logger.propagate:
            logger.addHandler(listener)
    try:
        yield listener
    finally:
        for logger, level in levels:
            logger.setLevel(level)
            logger.removeHandler(listener)


def search_files(root: Path, findings: Findings, faults: Mapping[str, str]) -> None:
    """Searches names and contents of all files: Dagster's below `home`, and the lakes.

    Args:
        root: Directory of both.
        findings: Take what is found.
        faults: The fault that the vendor of a lake had, by the lake's directory.
    """
    for path in sorted(root.rglob("*")):
        inner = path.relative_to(root)
        findings.search(str(inner), "a file's name")
        if not path.is_file():
            continue
        place = _place_of(inner)
        needles = TOKEN_NEEDLES if place in {"raw", "data for people"} else NEEDLES
        for text in _texts_of(path, faults.get(inner.parts[0], "")):
            findings.search(text, place, str(inner), needles)


def _texts_of(path: Path, fault: str) -> Iterator[str]:
    if path.suffix == ".parquet":
        file = pq.ParquetFile(path)
        yield repr(file.schema_arrow)
        for row in file.read().to_pylist():
            payload = row.get("payload") or b""
            if TOKEN.encode() in payload and payload == _content_of(fault, row["call_id"]):
                del row["payload"]  # what the vendor said itself is kept as it is
            yield repr(row)
        return
    yield path.read_bytes().decode("utf-8", "replace")
    if path.suffix == ".db":
        yield from _stored_texts(path)


def _place_of(path: Path) -> str:
    top, below = path.parts[0], path.parts[1]
    if top != "home":
        if below in _FOR_PEOPLE or path.match("made_of/agents.parquet"):
            return "data for people"
        return "raw" if below == "raw" else "another file"
    if "compute_logs" in path.parts:
        return "a compute log"
    if below == "history":
        return "run storage" if path.name.startswith("runs.db") else "event storage"
    return "tick storage" if below == "schedules" else "another file"


def _content_of(fault: str, call_id: int) -> bytes:
    return FAULTS[fault](call_id).partition(b"\r\n\r\n")[2]


def _stored_texts(path: Path) -> Iterator[str]:
    """Yields what a database holds, unpacked: Dagster compresses snapshots."""
    with closing(sqlite3.connect(path)) as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        for table in tables:
            for row in database.execute(f'select * from "{table}"'):  # noqa: S608 - names from the database itself
                for value in row:
                    yield _unpack(value) if isinstance(value, bytes) else str(value)


def _unpack(value: bytes) -> str:
    with suppress(zlib.error):
        value = zlib.decompress(value)
    return value.decode("utf-8", "replace")


LOCATION = "calls_assets"
SELECTOR = {"repositoryName": "__repository__", "repositoryLocationName": LOCATION}
_DEEPEST = 8
_ENTRIES = frozenset(
    [
        *("Asset", "AssetNode", "Job", "PartitionBackfill", "PartitionSet", "Pipeline", "PipelineSnapshot"),
        *("Repository", "RepositoryLocation", "Run", "RunGroup", "Schedule", "Sensor", "Solid", "SolidHandle"),
    ]
)
"""Types that have pages of their own: shown once in an answer, not again below each other."""
_ARGUMENTS = {
    "assetEventHistory": "(limit: 10000, eventTypeSelectors: [MATERIALIZATION, OBSERVATION, FAILED_TO_MATERIALIZE])"
}
_SKIPPED = frozenset(
    [
        # Days, and nothing but days: a value for each partition.
        *("partitionKeys", "partitionKeysByDimension", "partitionKeysOrError", "partitionsOrError", "partitionStats"),
        *("partitionStatuses", "partitionStatusesOrError", "assetPartitionStatuses", "dataVersionByPartition"),
        *("staleCausesByPartition", "staleStatusByPartition", "potentialTickTimestamps"),
        # Asked for elsewhere, and slow here.
        *("Run.events", "latestMaterializationByPartition", "executionForLatestMaterialization", "futureTicks"),
        *("recursiveConfigTypes", "nextTick", "targetingInstigators", "Run.executionPlan", "assetMaterializations"),
        # Dagster's own faults: an argument that only its schema calls optional, null where there is never null.
        *("concurrencyLimit", "daemonStatus", "errorChain", "InstigationEventConnection.cursor"),
    ]
)
_SKIPPED_IN_EVENTS = frozenset({"runOrError", "stepStats", "pipelineName"})


@cache
def _schema() -> graphql.GraphQLSchema:
    return cast("graphql.GraphQLSchema", create_schema().graphql_schema)


class Questions:
    """Asks Dagster's GraphQL in this process, each time for all that there is below a field, and searches the answers.

    The pages of the UI ask for parts of that. Each type has its fragment for each depth; a document takes all of them.

    Attributes:
        shown: What the answers held, by kind: a search of empty answers finds nothing.
    """

    def __init__(self, context: WorkspaceProcessContext, findings: Findings) -> None:
        self.shown: Counter[str] = Counter()
        self._context = context
        self._findings = findings
        self._fragments: dict[str, graphql.DefinitionNode] = {}
        events = _schema().type_map["DagsterRunEvent"]
        self._events = {type_.name for type_ in _schema().get_possible_types(cast("graphql.GraphQLUnionType", events))}

    def ask(self, field_name: str, *, is_mutation: bool = False, **arguments: object) -> Any:  # noqa: ANN401 - JSON
        """Asks for a field of the root; gives the answer."""
        root = _schema().mutation_type if is_mutation else _schema().query_type
        assert root is not None
        asked = root.fields[field_name]
        declared = ", ".join(f"${name}: {asked.args[name].type}" for name in arguments)
        passed = ", ".join(f"{name}: ${name}" for name in arguments)
        fragment = self._spread(graphql.get_named_type(asked.type), depth=0, is_inside=False)
        text = f"{field_name} {f'({passed})' if passed else ''} {fragment}"
        kind = "mutation" if is_mutation else "query"
        document = graphql.parse(f"{kind} {f'({declared})' if declared else ''} {{ {text} }}")
        document.definitions = (*document.definitions, *self._fragments.values())
        result = asyncio.run(self._execute(document, arguments))
        assert not result.errors, (field_name, result.errors)
        assert result.data is not None
        answer = result.data[field_name]
        assert not (isinstance(answer, dict) and answer["__typename"].endswith("Error")), answer
        self._findings.search(json.dumps(answer), f"GraphQL {field_name}")
        return answer

    async def _execute(self, document: graphql.DocumentNode, arguments: dict[str, object]) -> graphql.ExecutionResult:
        # Not validated: unions have fields of one name and different types, which the UI's smaller questions avoid.
        result = graphql.execute(
            _schema(), document, context_value=self._context.create_request_context(), variable_values=arguments
        )
        return result if isinstance(result, graphql.ExecutionResult) else await cast("Awaitable[Any]", result)

    def _spread(self, type_: graphql.GraphQLNamedType, *, depth: int, is_inside: bool) -> str:
        """Makes the fragment of a type, unless there is one; gives what includes it.

        Args:
            type_: The type; a leaf has no fragment.
            depth: Of the field, below the root.
            is_inside: Whether a type with a page of its own is above.
        """
        if graphql.is_leaf_type(type_):
            return ""
        name = f"{type_.name}_{depth}_{is_inside:d}"
        if name not in self._fragments:
            if isinstance(type_, graphql.GraphQLObjectType):
                inner = self._list_fields(type_, depth=depth, is_inside=is_inside or type_.name in _ENTRIES)
            else:
                members = _schema().get_possible_types(cast("graphql.GraphQLUnionType", type_))
                inner = [
                    f"... on {member.name} {self._spread(member, depth=depth, is_inside=is_inside)}"
                    for member in members
                    if not (is_inside and member.name in _ENTRIES)
                ]
            text = f"fragment {name} on {type_.name} {{ __typename {' '.join(inner)} }}"
            (self._fragments[name],) = graphql.parse(text, no_location=True).definitions
        return f"{{ ...{name} }}"

    def _list_fields(self, type_: graphql.GraphQLObjectType, *, depth: int, is_inside: bool) -> list[str]:
        listed = []
        for name, inner in type_.fields.items():
            inner_type = graphql.get_named_type(inner.type)
            if (
                _SKIPPED.intersection({name, f"{type_.name}.{name}"})
                or (type_.name in self._events and name in _SKIPPED_IN_EVENTS)
                or (name not in _ARGUMENTS and any(map(graphql.is_required_argument, inner.args.values())))
                or (is_inside and inner_type.name in _ENTRIES)
                or (depth == _DEEPEST and not graphql.is_leaf_type(inner_type))
            ):
                continue
            spread = self._spread(inner_type, depth=depth + 1, is_inside=is_inside)
            listed.append(f"{name} {_ARGUMENTS.get(name, '')} {spread}")
        return listed


def ask_everything(questions: Questions) -> None:
    """Asks for what a person can see of an instance and of the code location."""
    ask, shown = questions.ask, questions.shown
    ask("workspaceOrError")
    ask("repositoryOrError", repositorySelector=SELECTOR)
    ask("allTopLevelResourceDetailsOrError", repositorySelector=SELECTOR)
    ask("utilizedEnvVarsOrError", repositorySelector=SELECTOR)
    ask("componentsForLocationOrError", locationName=LOCATION)
    ask("latestDefsStateInfo")
    ask("instance")
    for job in ("sweep_job", "rebuild_job"):
        selector = SELECTOR | {"pipelineName": job}
        ask("pipelineOrError", params=selector)
        ask("resourcesOrError", pipelineSelector=selector)
        ask("runConfigSchemaOrError", selector=selector)
        ask("executionPlanOrError", pipeline=selector, mode="default", runConfigData={})
        ask("partitionSetsOrError", repositorySelector=SELECTOR, pipelineName=job)
    ask("partitionBackfillsOrError")
    keys = ask("runTagKeysOrError")["keys"]
    ask("runTagsOrError", tagKeys=keys)

    checks = set[tuple[str, str]]()
    runs = ask("runsOrError")["results"]
    for snapshot in {run["pipelineSnapshotId"] for run in runs}:
        ask("pipelineSnapshotOrError", snapshotId=snapshot)
    for run in runs:
        shown["run"] += 1
        shown["run configuration"] += run["runConfigYaml"] != "{}\n"
        told = ask("logsForRun", runId=run["runId"])
        assert not told["hasMore"]
        for event in told["events"]:
            shown["event"] += 1
            shown["error with its stack"] += bool((event.get("error") or {}).get("stack"))
            if event["__typename"] == "LogsCapturedEvent":
                log_key = [run["runId"], "compute_logs", event["fileKey"]]
                captured = ask("capturedLogs", logKey=log_key)
                shown["captured log"] += bool(captured["stdout"] or captured["stderr"])
                ask("capturedLogsMetadata", logKey=log_key)
            elif event["__typename"] == "AssetCheckEvaluationEvent":
                evaluation = event["evaluation"]
                checks.add((*evaluation["assetKey"]["path"], evaluation["checkName"]))
    for asset, check in sorted(checks):
        found = ask("assetCheckExecutions", assetKey={"path": [asset]}, checkName=check, limit=10_000)
        shown["check"] += len(found)
    ask("assetNodes", loadMaterializations=True)
    for asset in ask("assetsOrError")["nodes"]:
        shown["asset event"] += len(asset["assetEventHistory"]["results"])
    for sensor in ask("sensorsOrError", repositorySelector=SELECTOR)["results"]:
        shown["sensor's tick"] += len(sensor["sensorState"]["ticks"])
    for schedule in ask("schedulesOrError", repositorySelector=SELECTOR)["results"]:
        shown["schedule's tick"] += len(schedule["scheduleState"]["ticks"])
