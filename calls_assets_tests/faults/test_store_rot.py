"""Bit rot in an object store: objects changed behind the lake's back are named by `verify`, and healed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from random import Random

import pytest

from calls_assets.cli import main
from calls_assets.lake import CorruptFileError, Lake
from calls_assets_tests.faults import world as w
from calls_assets_tests.faults.counts import SEED, choose, tell
from calls_assets_tests.faults.disk import MemoryStorage
from calls_assets_tests.faults.rot import Damage, draw_damage
from calls_assets_tests.faults.stages import AFTER
from calls_assets_tests.faults.test_bit_rot import finish, is_named, judge
from calls_assets_tests.stores import BUCKET, StoreProxy, ask

pytestmark = pytest.mark.timeout(900)
_CAN_BE_MADE_AGAIN = ("raw/call_records/", "tables/", "published/")


def put(store: StoreProxy, address: str, files: Mapping[str, bytes]) -> None:
    """Writes objects straight to the store, with none of the lake's code."""
    for key, content in files.items():
        ask(store.store_url, "PUT", f"/{BUCKET}/{address.removeprefix(f's3://{BUCKET}/')}/{key}", content)


def test_whatever_decays_in_the_store_is_named(
    store: StoreProxy, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command, every time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALLS_DATA_DIR", address)
    monkeypatch.setenv("CALLS_TIMEZONE", w.ZONE.key)
    monkeypatch.setenv("CALLS_API_BASE_URL", "https://api.example.com/v2")
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.store_url)
    random, counts, unseen, began = Random(SEED), Counter[str](), list[str](), time.monotonic()
    files = finish(w.World.draw(random, calls_per_day=12))
    put(store, address, files)
    assert main(["verify"]) == 0
    for _ in range(choose(12, 300)):
        damage = draw_damage(random, files)
        put(store, address, damage.contents)
        capsys.readouterr()
        code = main(["verify"])
        output = "".join(capsys.readouterr())
        put(store, address, {key: files[key] for key in damage.contents})
        counts[f"{damage.kind}: {next(iter(damage.contents)).split('/')[0]}"] += 1
        if code == 0 or not is_named(damage, output):
            unseen.append(f"{damage.kind} of {sorted(damage.contents)}")
    tell(
        "object store, bit rot",
        damages=counts.total(),
        kinds=dict(sorted(counts.items())),
        unseen=len(unseen),
        seconds=round(time.monotonic() - began, 1),
    )
    assert unseen == []


def test_whatever_decays_in_the_store_is_healed(
    store: StoreProxy, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a run that asks for the damaged ids only, and for nothing when no answers are damaged."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.store_url)
    random, counts, wrong, began = Random(SEED), Counter[str](), list[str](), time.monotonic()
    world = w.World.draw(random, calls_per_day=12)
    files = finish(world)
    at_risk = {key: content for key, content in files.items() if key.startswith(_CAN_BE_MADE_AGAIN)}
    for number in range(choose(6, 60)):
        damage = draw_damage(random, at_risk)
        counts[next(iter(damage.contents)).split("/")[0]] += 1
        put(store, f"{address}/{number}", files | damage.contents)
        problems = heal(world, f"{address}/{number}", files, damage)
        wrong += [f"{damage.kind} of {sorted(damage.contents)}: {text}" for text in problems]
    seconds = round(time.monotonic() - began, 1)
    tell("object store, bit rot healed", **counts, wrong=len(wrong), seconds=seconds)
    assert wrong == []


def heal(world: w.World, address: str, files: dict[str, bytes], damage: Damage) -> list[str]:
    """Does what a run does; gives what is wrong then."""
    corrupt: list[CorruptFileError] = []
    lake, held = Lake.open(address, on_corrupt=corrupt.append), Lake(MemoryStorage(files))
    gone = {
        id_
        for key in damage.contents
        if key.startswith("raw/")
        for id_ in held.read_segment(key, ("call_id",))["call_id"].to_pylist()
    }
    vendor = world.vendor(world.late + AFTER)
    w.sweep_days(lake, vendor, world.days)
    for key in {error.key for error in corrupt}:
        lake.set_aside(key)
    lake = Lake.open(address)
    w.publish_days(lake, world.days)
    return judge(lake, world, vendor, damage, gone)
