"""Bit rot: whatever decays in a finished lake is named by `verify`, and healed.

Bits flip, files are cut off, blocked out with zeroes or mistaken for one another. `calls-assets verify` must name every
such file; tables, marts and marks heal by publishing, without the API; the API's answers by a sweep that asks for what
is gone only. Deliveries of the webhook cannot be asked for again: they are named, and a backup heals them.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest

from calls_assets.cli import main
from calls_assets.lake import CALL_EVENTS, MARTS, SOURCE_KEY, CorruptFileError, Lake, verify
from calls_assets.lake import parquet as codec
from calls_assets.marts import publish_marts
from calls_assets_tests.faults import world as w
from calls_assets_tests.faults.counts import SEED, choose, tell
from calls_assets_tests.faults.disk import MemoryStorage
from calls_assets_tests.faults.rot import Damage, draw_damage
from calls_assets_tests.faults.stages import AFTER
from calls_assets_tests.ingest.model import ModelCall, ModelVendor

pytestmark = pytest.mark.timeout(900)
_SOURCE = "https://api.example.com/v2"


def finish(world: w.World) -> dict[str, bytes]:
    """Makes a finished lake whose days have several files of answers and of deliveries; gives its files."""
    files: dict[str, bytes] = {}
    lake = Lake(MemoryStorage(files))
    lake.bind(w.ZONE.key, _SOURCE)
    w.sweep_and_compact(lake, world.vendor(world.early), world.days)
    w.sweep_days(lake, world.vendor(world.late), world.days)
    for first in (0, 1):
        deliver(lake, world, world.calls[first::4])
    w.publish_days(lake, world.days)
    publish_marts(lake, world.days, now=world.late, timezone=w.ZONE)
    return files


def deliver(lake: Lake, world: w.World, calls: Sequence[ModelCall]) -> None:
    """Lands a delivery of the webhook for each call, in the day it is in at last."""
    for day in world.days:
        rows = [
            {
                "call_id": call.id,
                "received_at": world.early,
                "payload": json.dumps({"id": call.id, "waitingTime": call.seconds % 60, "abandoned": False}).encode(),
            }
            for call in calls
            if call.start_at(world.late).date() == day
        ]
        lake.land_events(day, pa.Table.from_pylist(rows, CALL_EVENTS.schema))


def run_command(root: Path) -> tuple[int, str]:
    """Runs `calls-assets verify` as a user does; gives its exit code and output."""
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(output):
        code = main(["verify"])
    return code, output.getvalue()


@pytest.fixture
def deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Gives the data directory of a deployment that the environment names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALLS_DATA_DIR", str(tmp_path / "lake"))
    monkeypatch.setenv("CALLS_TIMEZONE", w.ZONE.key)
    monkeypatch.setenv("CALLS_API_BASE_URL", _SOURCE)
    return tmp_path / "lake"


def store(root: Path, files: dict[str, bytes]) -> None:
    """Writes files, as a failing disk does."""
    for key, content in files.items():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(content)


def is_named(damage: Damage, output: str) -> bool:
    """Tells whether an output names all damaged files."""
    return all(key in output for key in damage.contents)


def test_whatever_decays_is_named(deployed: Path) -> None:
    """By the function and by the command, every time."""
    random, counts, unseen = Random(SEED), Counter[str](), list[str]()
    files = finish(w.World.draw(random, calls_per_day=12))
    store(deployed, files)
    assert run_command(deployed)[0] == 0
    assert verify(Lake(MemoryStorage(dict(files)))) == []
    for _ in range(choose(80, 2_000)):
        damage = draw_damage(random, files)
        store(deployed, damage.contents)
        code, output = run_command(deployed)
        store(deployed, {key: files[key] for key in damage.contents})
        found = verify(Lake(MemoryStorage(files | damage.contents)))
        counts[f"{damage.kind}: {tree_of(damage)}"] += 1
        if code == 0 or not is_named(damage, output):
            unseen.append(f"the command: {damage.kind} of {sorted(damage.contents)}")
        # What the lake is filled from, only the command can compare with the settings.
        if SOURCE_KEY not in damage.contents and not is_named(damage, " ".join(map(str, found))):
            unseen.append(f"the function: {damage.kind} of {sorted(damage.contents)}")
    tell("bit_rot", damages=counts.total(), kinds=dict(sorted(counts.items())), unseen=len(unseen))
    assert unseen == []


def tree_of(damage: Damage) -> str:
    """Names what is damaged: the first directory, of raw the second one too."""
    key = next(iter(damage.contents))
    return "/".join(key.split("/")[: 1 + key.startswith("raw/")])


def test_whatever_decays_is_healed() -> None:
    """Tables, marts and marks by publishing, without a request; answers by a sweep for the damaged ids only."""
    random, counts, wrong = Random(SEED), Counter[str](), list[str]()
    world = w.World.draw(random, calls_per_day=12)
    files = finish(world)
    while counts.total() < choose(40, 400):
        damage = draw_damage(random, files)
        tree = tree_of(damage)
        if tree not in {SOURCE_KEY, "raw/call_events"}:
            counts[tree] += 1
            wrong += [f"{damage.kind} of {sorted(damage.contents)}: {text}" for text in heal(world, files, damage)]
    tell("bit_rot healed", **counts, wrong=len(wrong))
    assert wrong == []
    assert counts.keys() == {"marts", "published", "raw/call_records", "tables"}


def heal(world: w.World, files: dict[str, bytes], damage: Damage, *, reread_final: bool = False) -> list[str]:
    """Does what the remedy says, as a run does it; gives what is wrong then. `reread_final` asks for everything."""
    corrupt: list[CorruptFileError] = []
    lake = Lake(MemoryStorage(files | damage.contents), on_corrupt=corrupt.append)
    vendor, held = world.vendor(world.late + AFTER), Lake(MemoryStorage(files))
    gone: set[int] = set()
    if tree_of(damage) == "raw/call_records":
        gone = {id_ for key in damage.contents for id_ in held.read_segment(key, ("call_id",))["call_id"].to_pylist()}
        w.sweep_days(lake, vendor, world.days, reread_final=reread_final)
        for key in {error.key for error in corrupt}:
            lake.set_aside(key)
    lake = Lake(lake.storage)
    w.publish_days(lake, world.days)
    if tree_of(damage) == "marts":
        publish_marts(lake, world.days, now=world.late, timezone=w.ZONE)
    return judge(lake, world, vendor, damage, gone) + [
        f"{day}: {name} is not what it was"
        for day in world.days
        for name in MARTS
        if not lake.read_table(name, day).equals(held.read_table(name, day))
    ]


def judge(lake: Lake, world: w.World, vendor: ModelVendor, damage: Damage, gone: set[int]) -> list[str]:
    """Questions a lake that was healed, whatever it is stored in; `gone` are the ids whose answers were damaged."""
    top = max(call.id for call in world.calls)
    asked = {id_ for id_ in vendor.asked if id_ <= top}
    problems = w.find_differences(lake, vendor, world.days)
    if not asked <= gone:
        problems.append(f"ids {sorted(asked - gone)} were asked for and are not damaged")
    if damage.contents.keys() & {finding.key for finding in verify(lake)}:
        problems.append("is named still")
    return problems


def test_a_sweep_that_asks_for_more_than_is_damaged_is_caught() -> None:
    """The twin heals raw by asking for every id again."""
    random = Random(SEED)
    world = w.World.draw(random, calls_per_day=12)
    files = finish(world)
    answers = {key: content for key, content in files.items() if key.startswith("raw/call_records/")}
    damages = [draw_damage(random, answers) for _ in range(5)]
    sign = "were asked for and are not damaged"
    caught = sum(any(sign in text for text in heal(world, files, damage, reread_final=True)) for damage in damages)
    tell("bit_rot healed, twin", damages=len(damages), caught=caught)
    assert caught == len(damages)


def test_a_codec_without_seals_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin trusts Parquet's own checksums, which leave out headers and footers."""
    monkeypatch.setattr(codec, "check_seal", lambda _key, _data: None)
    random, unseen = Random(SEED), Counter[str]()
    files = finish(w.World.draw(random, calls_per_day=12))
    tables = {key: content for key, content in files.items() if key.endswith(".parquet")}
    damages = 0
    while damages < 200 and not (unseen["flip"] and unseen["flip in the footer"]):
        damage = draw_damage(random, tables)
        damages += 1
        found = " ".join(map(str, verify(Lake(MemoryStorage(files | damage.contents)))))
        if not is_named(damage, found):
            unseen[damage.kind] += 1
    tell("bit_rot twin", damages=damages, unseen=dict(unseen))
    assert unseen["flip"]
    assert unseen["flip in the footer"]
