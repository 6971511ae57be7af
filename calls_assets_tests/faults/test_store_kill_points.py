"""Kill points over an object store: at every request of a stage the writer is cut off, or refused once.

Over HTTP a writer that dies is a request that never leaves, one of which half leaves, or one whose answer nobody sees;
and nothing follows. So the proxy lets requests pass up to one of them and none after it. Then a lake opened over a
clean connection must hold all that was reported as landed, every object must be readable, and one more sweep and
publish must complete the days without asking for what is stored: the same questions as in `test_kill_points`.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import NamedTuple

import obstore
import pytest
import uuid6
from obstore.store import from_url

from calls_assets.lake import Lake, LakeError, location
from calls_assets.lake.object_storage import ObjectStorage
from calls_assets_tests.faults import world as w
from calls_assets_tests.faults.counts import SEED, choose, tell
from calls_assets_tests.faults.disk import MemoryStorage
from calls_assets_tests.faults.stages import Crash, Expected, Stage, TellingLake, expect, make_stages, recover
from calls_assets_tests.faults.test_kill_points import DestructiveLake, HastyLake
from calls_assets_tests.faults.test_object_store import HastyStorage
from calls_assets_tests.stores import (
    BROKEN_OFF_PUT,
    BUCKET,
    DROPPED_ANSWER,
    DROPPED_REQUEST,
    TRUNCATED_PUT,
    StoreProxy,
    ask,
)

pytestmark = pytest.mark.timeout(900)
Opener = Callable[[str], Lake]

BEFORE, AFTER, HALF, REFUSED = "cut off before", "cut off after", "cut off half-way", "refused"
_FAULTS = {
    BEFORE: DROPPED_REQUEST,
    AFTER: DROPPED_ANSWER,
    HALF: BROKEN_OFF_PUT,
    REFUSED: "403 AccessDenied",
}
_MODES = {"GET": (BEFORE, REFUSED), "POST": (BEFORE, AFTER, REFUSED), "PUT": (BEFORE, HALF, AFTER, REFUSED)}
"""How requests can fail (POST deletes): an answer that nobody sees is a request never sent when nothing was changed."""
_LONGEST_SECONDS = 10.0
"""What a writer may take until it gives up, with the fixture's short pauses between attempts."""


class Point(NamedTuple):
    """One way for one request to fail.

    Attributes:
        at: The request's place, from 0.
        method: Its method.
        mode: `refused` lets pass what follows, the others do not.
    """

    at: int
    method: str
    mode: str


class Tried(NamedTuple):
    """What became of a point.

    Attributes:
        point: The point.
        state: What tells apart the states that points left.
        problems: The violations.
    """

    point: Point
    state: str
    problems: list[str]


class Start(NamedTuple):
    """A stage and the lake before it.

    Attributes:
        stage: The stage.
        files: The lake's files.
        expected: What must hold after it.
    """

    stage: Stage
    files: dict[str, bytes]
    expected: Expected


def prepare(world: w.World) -> list[Start]:
    """Lives a life without a store and gives the lake before each of its stages."""
    files: dict[str, bytes] = {}
    starts = []
    for stage in make_stages(world):
        before = dict(files)
        stage.act(Lake(MemoryStorage(files)), world)
        expected = expect(stage, world, Lake(MemoryStorage(dict(before))), Lake(MemoryStorage(dict(files))))
        starts.append(Start(stage, before, expected))
    return starts


def question(start: Start, world: w.World, lake: Lake, crash: Crash) -> list[str]:
    """Questions and completes what a crash left; gives the violations."""
    try:
        return recover(start.stage, world, lake, crash, expected=start.expected)
    except Exception as error:  # noqa: BLE001 - a recovery that fails is a violation
        return [f"recovery failed: {type(error).__name__}: {error}"]


class Harness:
    """Cuts writers off from a store.

    Args:
        store: The proxy that the writers use.
        address: Where there is room.
        patch: Changes the environment.
        open_lake: Opens the lake that is tried.
        faults: What the proxy does in each mode.
        every: One of how many states is completed where it is; the others are read, and completed in memory.
    """

    def __init__(
        self,
        store: StoreProxy,
        address: str,
        patch: pytest.MonkeyPatch,
        *,
        open_lake: Opener = TellingLake.open,
        faults: Mapping[str, str] = _FAULTS,
        every: int = 1,
    ) -> None:
        self.longest_seconds = 0.0
        self._store, self._address, self._patch = store, address, patch
        self._open_lake, self._faults, self._every = open_lake, faults, every
        self._places = 0
        self._seen: dict[str, list[str]] = {}
        self._contents: dict[str, bytes] = {}

    def try_points(
        self,
        world: w.World,
        *,
        only: str | None = None,
        is_wanted: Callable[[Point], bool] = lambda _point: True,
        sample: tuple[Random, int] | None = None,
    ) -> Iterator[Tried]:
        """Tries the points of a world's stages.

        Args:
            world: The account.
            only: The stage; all when None.
            is_wanted: Chooses the points.
            sample: Draws this many points of each stage when there are more.
        """
        for start in prepare(world):
            if only not in {None, start.stage.name}:
                continue
            points = [point for point in self._list_points(start, world) if is_wanted(point)]
            if sample is not None and len(points) > sample[1]:
                points = sample[0].sample(points, sample[1])
            for point in points:
                yield self._try_point(start, world, point)

    def _list_points(self, start: Start, world: w.World) -> list[Point]:
        crash = self._run(start.stage, world, self._make_place(start.files), None)
        assert crash.problems == []
        methods = [heard.method for heard in self._store.heard]
        return [Point(at, method, mode) for at, method in enumerate(methods) for mode in _MODES[method]]

    def _make_place(self, files: Mapping[str, bytes]) -> str:
        """Puts files straight into the store, at a place of their own."""
        self._places += 1
        address = f"{self._address}/{self._places}"
        with self._patch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", self._store.store_url)
            place = from_url(address)
        for key, content in files.items():
            obstore.put(place, key, content, use_multipart=False)
        return address

    def _try_point(self, start: Start, world: w.World, point: Point) -> Tried:
        address = self._make_place(start.files)
        crash = self._run(start.stage, world, address, point)
        with self._patch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", self._store.store_url)
            patch.setattr(location, "_create_only", set())  # as in a new process
            held = Lake(MemoryStorage(self._fetch(address)))
            state = f"{start.stage.name} {w.digest(held)} {sorted(crash.acknowledged)} {crash.problems}"
            if state not in self._seen:
                is_over_http = len(self._seen) % self._every == 0
                lake = self._open_lake(address) if is_over_http else held
                self._seen[state] = question(start, world, lake, crash)
        where = f"{start.stage.name}, request {point.at} ({point.method}), {point.mode}"
        return Tried(point, state, [f"{where}: {problem}" for problem in self._seen[state]])

    def _fetch(self, address: str) -> dict[str, bytes]:
        """Reads what the store holds at a place; contents of a tag that was seen before are known."""
        storage = ObjectStorage(address)
        files = {}
        for key, _, tag in storage.list(""):
            if tag not in self._contents:
                self._contents[tag] = storage.read(key)
            files[key] = self._contents[tag]
        return files

    def _run(self, stage: Stage, world: w.World, address: str, point: Point | None) -> Crash:
        """Does a stage whose connection fails at a point, opening the lake included."""
        self._store.heard.clear()
        self._store.choose = lambda _heard: self._befall(point)
        failure: Exception | None = None
        began = time.monotonic()
        with tempfile.TemporaryFile() as notes:
            try:
                lake = self._open_lake(address)
                lake.pipe = notes.fileno()  # type: ignore[attr-defined] # a TellingLake
                stage.act(lake, world)
            except (LakeError, OSError) as error:
                failure = error
            notes.seek(0)
            crash = Crash.of_lines(notes.read().decode())
        seconds = time.monotonic() - began
        self.longest_seconds = max(self.longest_seconds, seconds)
        if seconds > _LONGEST_SECONDS:
            crash.problems.append("the writer does not give up")
        if point is not None and len(self._store.heard) <= point.at:
            crash.problems.append("the point was not reached")
        elif not isinstance(failure, LakeError | None) or (point is None and failure is not None):
            crash.problems.append(f"the writer ended with {failure!r}")
        elif point is not None and point.mode != REFUSED and failure is None:
            crash.problems.append("the writer ended as if all were well")
        return crash

    def _befall(self, point: Point | None) -> str | None:
        """Says what befalls the next request of the only writer, which asks for one thing after the other."""
        now = len(self._store.heard)
        if point is None or now < point.at:
            return None
        if now == point.at:
            return self._faults[point.mode]
        return None if point.mode == REFUSED else DROPPED_REQUEST


def test_a_writer_cut_off_at_any_request_is_survived(
    store: StoreProxy, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing landed is lost, nothing is torn or left over, and the next sweep completes the days."""
    began, worlds = time.monotonic(), choose(1, 5)
    harness = Harness(store, address, monkeypatch, every=choose(8, 1))
    tried: list[Tried] = []
    for number in range(worlds):
        random = Random(SEED + number)
        world = w.World.draw(random, calls_per_day=random.choice((4, 6, 12)))
        tried += harness.try_points(world, sample=(random, choose(8, 1_000)))
    violations = [text for one in tried for text in one.problems]
    unfinished = ask(store.store_url, "GET", f"/{BUCKET}?uploads")
    tell(
        "object store, kill points",
        points=len(tried),
        modes=dict(Counter(one.point.mode for one in tried)),
        accounts=worlds,
        states=len({one.state for one in tried}),
        violations=len(violations),
        longest_writer_seconds=round(harness.longest_seconds, 2),
        seconds=round(time.monotonic() - began, 1),
    )
    assert violations == []
    assert b"<Upload>" not in unfinished


def open_hasty_storage(address: str) -> Lake:
    """Opens a lake that takes objects for stored before the store has answered."""
    return TellingLake(HastyStorage(address))


class RenamingStorage(ObjectStorage):
    """A twin that writes under a temporary name first, as into a directory."""

    def put_new(self, key: str, data: bytes | memoryview) -> None:
        """Writes, copies, deletes."""
        temporary = f".tmp/{uuid6.uuid7()}"
        super().put_new(temporary, data)
        super().put_new(key, self.read(temporary))
        self.delete(temporary)


def open_renaming_storage(address: str) -> Lake:
    """Opens a lake whose storage assumes that there is a rename."""
    return TellingLake(RenamingStorage(address))


class Twin(NamedTuple):
    """What breaks a promise, and how that shows.

    Attributes:
        stage: The stage in which it shows.
        open_lake: Opens the lake.
        mode: How the writer is cut off.
        fault: What the store or the network does then.
        what: What the harness is to say.
    """

    stage: str
    open_lake: Opener
    mode: str
    fault: str
    what: str


@pytest.mark.parametrize(
    "twin",
    [
        Twin("second sweep", HastyLake.open, BEFORE, DROPPED_REQUEST, "are lost"),
        Twin("second sweep", open_hasty_storage, BEFORE, DROPPED_REQUEST, "are lost"),
        Twin("compact", DestructiveLake.open, BEFORE, DROPPED_REQUEST, "are lost"),
        Twin("second sweep", open_renaming_storage, AFTER, DROPPED_ANSWER, "is left of a dead writer"),
        Twin("second sweep", TellingLake.open, HALF, TRUNCATED_PUT, "is damaged"),
    ],
    ids=["lake tells early", "storage tells early", "deletes before it writes", "renames", "a store keeps halves"],
)
def test_broken_protocols_are_caught(
    store: StoreProxy, address: str, monkeypatch: pytest.MonkeyPatch, twin: Twin
) -> None:
    """Each twin breaks one promise, and the harness says which."""
    world = w.World.draw(Random(SEED))
    harness = Harness(
        store, address, monkeypatch, open_lake=twin.open_lake, faults={twin.mode: twin.fault}, every=1_000
    )
    found = harness.try_points(
        world, only=twin.stage, is_wanted=lambda point: point.method != "GET" and point.mode == twin.mode
    )
    for points, tried in enumerate(found, 1):
        if any(twin.what in text for text in tried.problems):
            tell("object store, kill points twin", twin=f"{twin.stage}: {twin.what}", points=points)
            return
    pytest.fail("nothing was noticed")
