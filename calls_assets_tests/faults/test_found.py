"""What the harnesses of this package found, each once more by itself and at its exact moment."""

from __future__ import annotations

import errno
import fcntl
import os
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from calls_assets.lake import Lake, LakeError, LocalStorage, Read
from calls_assets_tests.faults import world as w
from calls_assets_tests.faults.counts import SEED


def make_read(call_id: int) -> Read:
    """Makes a plain read."""
    return Read(call_id, w.MIDNIGHT, 200, w.MIDNIGHT, True, None, b"{}")


def test_a_listing_during_a_compaction_shows_the_old_files_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day merged between the two looks of a listing, at names and at sizes, seemed to be empty."""
    lake = Lake.open(tmp_path)
    for call_id in (1, 2):
        lake.land(w.FIRST, [make_read(call_id)])
    real = os.scandir

    def merge_after_the_first_look(path: Path) -> object:
        entries = list(real(path))
        monkeypatch.setattr(os, "scandir", real)
        lake.compact(w.FIRST)
        return entries

    monkeypatch.setattr(os, "scandir", merge_after_the_first_look)
    assert lake.read_day(w.FIRST).versions["call_id"].to_pylist() == [1, 2]


def test_a_temporary_file_cleaned_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process opened the lake between creating the file and locking it: the writer failed."""
    storage = LocalStorage(tmp_path)
    real = fcntl.flock

    def clean_first(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        assert LocalStorage(tmp_path).clean_temporary() == 1
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", clean_first)
    storage.put_new("raw/x", b"x")
    assert storage.read("raw/x") == b"x"
    assert list((tmp_path / ".tmp").iterdir()) == []


@pytest.mark.parametrize("interrupted", [0, 1])
def test_a_move_landed_in_one_of_its_days_only_is_completed_without_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: int
) -> None:
    """Killed between two days' segments, a call moved from one to the other was shown in none, or in both."""
    world = w.World.draw(Random(SEED))
    lake = Lake.open(tmp_path)
    w.sweep_and_compact(lake, world.vendor(world.early), world.days)
    landed, real = [], lake.land

    def land_one_day_only(day: object, reads: object) -> object:
        landed.append(day)
        if len(landed) - 1 != interrupted:
            return None
        return real(day, reads)  # type: ignore[arg-type] # passed on as it came

    monkeypatch.setattr(lake, "land", land_one_day_only)
    w.sweep_days(lake, world.vendor(world.late), world.days)
    assert landed == list(world.days)
    vendor = world.vendor(world.late + timedelta(seconds=1))
    lake = Lake.open(tmp_path)
    since = w.to_us(world.late)
    stored = {call_id for _, call_id, instant, status in w.stored_reads(lake) if instant >= since and status == 200}
    w.sweep_and_compact(lake, vendor, world.days)
    w.publish_days(lake, world.days)
    assert w.find_differences(lake, vendor, world.days) == []
    assert stored
    assert not stored & vendor.asked.keys()
    asked = vendor.asked.total()
    w.sweep_and_compact(lake, vendor, world.days)
    assert vendor.asked.total() == asked


def test_a_listing_that_fails_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was a bare OSError."""
    lake = Lake.open(tmp_path)

    def refuse(_path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(LakeError, match="cannot list raw/call_records/: input/output error"):
        lake.segments()


def test_a_landing_that_failed_once_takes_a_moved_calls_history_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second try landed the answers and forgot to copy what the day before knew."""
    world = w.World.draw(Random(SEED))
    lake = Lake.open(tmp_path)
    w.sweep_and_compact(lake, world.vendor(world.early), world.days)
    real = lake.copy_reads

    def refuse_once(*_: object) -> None:
        monkeypatch.setattr(lake, "copy_reads", real)
        raise LakeError("the disk is full")

    monkeypatch.setattr(lake, "copy_reads", refuse_once)
    with pytest.raises(LakeError):
        w.sweep_days(lake, world.vendor(world.late), world.days)
    w.publish_days(lake, world.days)
    changed = {call_id for call_id, field, *_ in w.list_changes(lake, world.days) if field == "started_at"}
    assert changed == {call.id for call in world.calls if call.moved_after is not None and not call.appears_after}
