"""Kill points: every file operation of landing, compacting, publishing and replacing is killed or refused once.

A fork per point does one stage of a day's work over a copy of a prepared lake; at the N-th file operation it is killed
before or after it, half-way through a write, or gets an error. Then the lake must hold all that was reported as landed,
every file must be readable, and one more sweep and publish must complete the days without asking for what is stored.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from hashlib import blake2b
from multiprocessing import get_context
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest

from calls_assets.lake import Lake, LocalStorage, Read, Segment
from calls_assets.lake.raw import merge_rows
from calls_assets_tests.faults import world as w
from calls_assets_tests.faults.counts import IS_TORTURE, SEED, choose, tell
from calls_assets_tests.faults.failpoints import MODES, Point, list_points
from calls_assets_tests.faults.stages import (
    Expected,
    Opener,
    TellingLake,
    expect,
    make_stages,
    record_operations,
    recover,
    run_stage,
)
from calls_assets_tests.faults.twins import InPlaceStorage

# Forking is the method; a child does nothing but its stage.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.timeout(900),
]
_PROCESSES = min(4, os.cpu_count() or 1)
_SMALL = get_context("forkserver")
_SMALL.set_forkserver_preload([__name__])
"""Forks from a process that has run no other tests: what is small is forked fast."""

_RARE = frozenset({"half", "EPERM"})
"""Ways to fail of which an account has a dozen points among a thousand."""

_Job = tuple[int, w.World, Path, Point, Opener, Expected]


@pytest.mark.timeout(1_200)
def test_every_kill_point_is_survived() -> None:
    """Killed or refused at any file operation, nothing landed is lost and the next sweep completes the days."""
    wanted, counts, violations, worlds = choose(500, 10_000), Counter[str](), list[str](), 0
    states = 0
    while counts.total() < wanted:
        random = Random(SEED + worlds)
        world = w.World.draw(random, calls_per_day=random.choice((4, 6, 12)))
        found = torment(world, TellingLake.open, sample=(random, wanted - counts.total()))
        worlds += 1
        counts.update(found[0])
        violations += found[1]
        states += found[2]
    tell(
        "kill_points",
        points=counts.total(),
        modes=dict(counts),
        accounts=worlds,
        states=states,
        violations=len(violations),
    )
    assert violations == []


def torment(
    world: w.World,
    open_lake: Opener,
    *,
    only: str | None = None,
    modes: Collection[str] = MODES,
    sample: tuple[Random, int] | None = None,
    until: str | None = None,
) -> tuple[Counter[str], list[str], int]:
    """Runs the points of a world's stages.

    Args:
        world: The account.
        open_lake: Opens the lake that is tried.
        only: The stage; all when None.
        modes: The ways to fail.
        sample: Draws this many of the points when there are more; none of the rare ones is left out.
        until: The violation after which it is enough.

    Returns:
        The number of points tried by mode, the violations, and the number of different states that were left.
    """
    with w.fast_directory() as directory:
        jobs: list[_Job] = []
        base = directory / "base"
        for number, stage in enumerate(make_stages(world)):
            before = directory / f"before {number}"
            if base.exists():
                shutil.copytree(base, before)
            else:
                before.mkdir()
            operations = record_operations(stage, world, base, TellingLake.open)
            if only in {None, stage.name}:
                after = directory / f"after {number}"
                shutil.copytree(base, after)
                expected = expect(stage, world, Lake.open(before), Lake.open(after))
                points = [point for point in list_points(operations) if point.mode in modes]
                jobs += [(number, world, before, point, open_lake, expected) for point in points]
        if sample is not None and len(jobs) > sample[1]:
            rare = [job for job in jobs if job[3].mode in _RARE]
            others = [job for job in jobs if job[3].mode not in _RARE]
            jobs = rare + sample[0].sample(others, max(0, sample[1] - len(rare)))
        (directory / "claims").mkdir()
        results: list[tuple[str, list[str] | None]] = []
        with ProcessPoolExecutor(_PROCESSES, mp_context=_SMALL) as pool:
            for result in pool.map(run_job, jobs, chunksize=4 if until else 16):
                results.append(result)
                if until is not None and any(until in text for text in result[1] or ()):
                    pool.shutdown(cancel_futures=True)
                    break
    done, found = jobs[: len(results)], {state: problems for state, problems in results if problems is not None}
    assert until or all(state in found for state, _ in results), "a state was left that no process has recovered"
    violations = [
        f"{make_stages(world)[number].name}, operation {point.at}, {point.mode}: {problem}"
        for (number, _, _, point, *_), (state, problems) in zip(done, results, strict=True)
        for problem in (found.get(state, ()) if problems is None else problems)
    ]
    return Counter(job[3].mode for job in done), violations, len({state for state, _ in results})


def run_job(job: _Job) -> tuple[str, list[str] | None]:
    """Runs one point; gives the state it left and its problems.

    Many points leave the same files, whose recovery is the same: None when another point has seen, or sees, to that.
    """
    number, world, before, point, open_lake, expected = job
    stage = make_stages(world)[number]
    root = before.parent / f"work {os.getpid()}"
    shutil.copytree(before, root)
    state, problems = "", None
    try:
        crash = run_stage(stage, world, root, point, open_lake)
        left = w.digest(Lake(LocalStorage(root, is_writable=False)))
        state = f"{stage.name} {left} {sorted(crash.acknowledged)} {crash.problems}"
        if claim(before.parent / "claims", state):
            problems = recover(stage, world, open_lake(root), crash, expected=expected)
    except Exception as error:  # noqa: BLE001 - a recovery that fails is a violation
        problems = [f"recovery failed: {type(error).__name__}: {error}"]
    finally:
        shutil.rmtree(root)
    return state, problems


def claim(claims: Path, state: str) -> bool:
    """Tells whether a state is the caller's to recover: it is for the first process that asks."""
    try:
        (claims / blake2b(state.encode()).hexdigest()).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def open_in_place(root: Path) -> Lake:
    """Opens a lake whose files are written where they end."""
    return TellingLake(InPlaceStorage(root))


def open_untidied(root: Path) -> Lake:
    """Opens a lake without looking for what dead writers left."""
    return TellingLake(LocalStorage(root))


class HastyLake(TellingLake):
    """Reports reads as landed before they are."""

    def land(self, day: date, reads: Sequence[Read]) -> Segment:
        """Tells, then lands."""
        self.tell(day, reads)
        return super().land(day, reads)


class DestructiveLake(TellingLake):
    """Deletes the merged segments before it writes the one that replaces them."""

    def compact(self, day: date) -> bool:
        """Merges, the wrong way round."""
        segments = self.segments(day)
        rows = merge_rows(pa.concat_tables([self.read_segment(segment.key) for segment in segments]))
        for segment in segments:
            self.storage.delete(segment.key)
        self._put_segment(day, rows)
        return True


@pytest.mark.parametrize(
    ("stage", "open_lake", "what"),
    [
        ("second sweep", open_in_place, "is damaged"),
        ("replace", open_in_place, "is damaged"),
        ("replace", open_untidied, "is left of a dead writer"),
        ("second sweep", HastyLake.open, "are lost"),
        ("compact", DestructiveLake.open, "are lost"),
    ],
    ids=["lands in place", "replaces in place", "never tidies", "reports too early", "deletes before it writes"],
)
def test_broken_protocols_are_caught(stage: str, open_lake: Callable[[Path], Lake], what: str) -> None:
    """Each twin breaks one promise, and the harness says which."""
    world = w.World.draw(Random(SEED))
    counts, violations, _ = torment(world, open_lake, only=stage, modes=MODES[:3], until=None if IS_TORTURE else what)
    caught = [text for text in violations if what in text]
    tell("kill_points twin", twin=f"{stage}: {what}", points=counts.total(), caught=len(caught))
    assert caught
