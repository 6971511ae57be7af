"""Copying a lake: everything arrives, nothing is sent twice, and nothing is mixed with another account's."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from random import Random

import pytest

from calls_assets.cli import main
from calls_assets.lake import Lake, LakeError, LocalStorage, Storage, open_storage, verify
from calls_assets.lake.copy import copy_lake
from calls_assets.settings import Location
from calls_assets_tests.faults import world as w
from calls_assets_tests.lake.test_lake import make_read
from calls_assets_tests.stores import SECRET, SLOW_DOWN, StoreProxy

WORLD = w.World.draw(Random(5), calls_per_day=8, days=2)
DAY = date(2025, 5, 20)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Gives a swept and published lake in a directory."""
    lake = Lake.open(tmp_path / "from")
    lake.bind("UTC", "https://api.example.com")
    w.sweep_and_compact(lake, WORLD.vendor(WORLD.early), WORLD.days)
    w.publish_days(lake, WORLD.days)
    lake.storage.put_new("inbox/new/x", b"{}")
    lake.storage.put_new("raw/call_records/call_date=2025-05-20/x.parquet.damaged", b"")
    return lake


@pytest.fixture
def target(place: Location) -> Storage:
    """Gives an empty place of each kind."""
    return open_storage(place / "to" if isinstance(place, Path) else place)


def contents(storage: Storage) -> dict[str, bytes]:
    """Gives all files but those that stay where they are."""
    files = storage.list("")
    return {
        file.key: storage.read(file.key) for file in files if not file.key.startswith(".") and "damaged" not in file.key
    }


def test_a_copy_has_every_file_and_a_second_one_sends_nothing(lake: Lake, target: Storage, tmp_path: Path) -> None:
    """Byte for byte; and back again."""
    report = copy_lake(lake.storage, target)
    assert contents(target) == contents(lake.storage)
    assert report.files == len(contents(target)) == report.copied + 1
    assert report.size == sum(len(data) for data in contents(target).values())
    assert report.damaged == []
    assert verify(Lake(target)) == []
    again = copy_lake(lake.storage, target)
    assert (again.copied, again.copied_size, again.files) == (0, 0, report.files)
    back = LocalStorage(tmp_path / "back")
    copy_lake(target, back)
    assert contents(back) == contents(lake.storage)


def test_only_what_is_new_is_sent_later(lake: Lake, target: Storage) -> None:
    """The source was swept again meanwhile: what was merged away stays at the target, and counts once."""
    copy_lake(lake.storage, target)
    w.sweep_and_compact(lake, WORLD.vendor(WORLD.late), WORLD.days)
    w.publish_days(lake, WORLD.days)
    report = copy_lake(lake.storage, target)
    assert 0 < report.copied < report.files
    copied = Lake(target)
    w.publish_days(copied, WORLD.days)
    assert w.find_differences(copied, WORLD.vendor(WORLD.late), WORLD.days) == []


class Breaking(LocalStorage):
    """Refuses the fifth write, as a full disk does."""

    left = 5

    def _count(self) -> None:
        self.left -= 1
        if not self.left:
            raise OSError(28, "No space left on device")

    def put_new(self, key: str, data: bytes | memoryview) -> None:
        """Stores or refuses."""
        self._count()
        super().put_new(key, data)

    def replace(self, key: str, data: bytes | memoryview) -> None:
        """Stores or refuses."""
        self._count()
        super().replace(key, data)


def test_a_copy_that_broke_off_goes_on(lake: Lake, tmp_path: Path) -> None:
    """What has arrived is not sent again."""
    target = Breaking(tmp_path / "to")
    with pytest.raises(OSError, match="No space"):
        copy_lake(lake.storage, target)
    arrived = len(contents(target))
    assert 1 < arrived < len(contents(lake.storage))
    report = copy_lake(lake.storage, target)
    assert report.copied == report.files - arrived
    assert contents(target) == contents(lake.storage)


def test_another_accounts_place_is_refused(lake: Lake, target: Storage) -> None:
    """And one whose owner nobody can tell; nothing is written there."""
    target.put_new("raw/x", b"")
    with pytest.raises(LakeError, match=r"files but no lake\.json at the target"):
        copy_lake(lake.storage, target)
    Lake(target).bind("UTC", "https://other.example.com")
    before = contents(target)
    with pytest.raises(LakeError, match=r"belongs to another account or time zone \(lake\.json differs\)"):
        copy_lake(lake.storage, target)
    assert contents(target) == before


def test_a_place_without_a_lake_is_not_copied(tmp_path: Path) -> None:
    """A mistyped source must not make an empty target look finished."""
    with pytest.raises(LakeError, match=r"there is no lake to copy: .*lake\.json is missing"):
        copy_lake(LocalStorage(tmp_path / "none", is_writable=False), LocalStorage(tmp_path / "to"))


def test_one_name_with_two_contents_is_refused(lake: Lake, target: Storage) -> None:
    """Raw files are never replaced: such a target is no copy of this lake."""
    copy_lake(lake.storage, target)
    (segment, *_) = lake.segments()
    target.replace(segment.key, b"other")
    with pytest.raises(LakeError, match="is at the target with another content"):
        copy_lake(lake.storage, target)


def flip(storage: Storage, key: str) -> None:
    """Damages a file and leaves its size as it is."""
    data = bytearray(storage.read(key))
    data[len(data) // 3] ^= 0xFF
    storage.replace(key, bytes(data))


def test_a_damaged_file_is_copied_and_named(lake: Lake, target: Storage) -> None:
    """A copy heals nothing at its source, and hides nothing, however often it is asked."""
    (segment, *_) = lake.segments()
    flip(lake.storage, segment.key)
    for sent in (True, False):
        report = copy_lake(lake.storage, target)
        assert (report.damaged, report.repaired, report.copied > 0) == ([segment.key], [], sent)
    assert contents(target) == contents(lake.storage)


@pytest.mark.parametrize("tree", ["raw/call_records/", "inbox/", "tables/calls/", "published/"])
def test_what_was_damaged_at_the_target_is_sent_again(lake: Lake, target: Storage, tree: str) -> None:
    """A file of the right size is not taken for a whole one; of those that are only added, it is named."""
    copy_lake(lake.storage, target)
    key = target.list(tree)[0].key
    flip(target, key)
    report = copy_lake(lake.storage, target)
    assert contents(target) == contents(lake.storage)
    assert (report.copied, report.damaged) == (1, [])
    assert report.repaired == [key] * tree.startswith(("raw/", "inbox/"))


def test_a_whole_copy_of_a_file_is_kept_when_its_original_rots(lake: Lake, target: Storage) -> None:
    """Of a file with a seal, the copy is judged by itself."""
    copy_lake(lake.storage, target)
    before = contents(target)
    (segment, *_) = lake.segments()
    flip(lake.storage, segment.key)
    assert copy_lake(lake.storage, target).copied == 0
    assert contents(target) == before


def test_a_target_that_loses_or_garbles_what_it_took_is_found_out(lake: Lake, tmp_path: Path) -> None:
    """What has arrived is looked at, not assumed."""

    class Losing(LocalStorage):
        """Says yes, and keeps nothing of raw."""

        def put_new(self, key: str, data: bytes | memoryview) -> None:
            if not key.startswith("raw/"):
                super().put_new(key, data)

    class Garbling(LocalStorage):
        """Stores something else of the same size, as a disk or a network does that nobody checks."""

        def put_new(self, key: str, data: bytes | memoryview) -> None:
            super().put_new(key, bytes(len(data)) if key.startswith("raw/") else data)

        def replace(self, key: str, data: bytes | memoryview) -> None:
            super().replace(key, bytes(len(data)))

    class GarblingTables(Garbling):
        """The same, of what is replaced only."""

        def put_new(self, key: str, data: bytes | memoryview) -> None:
            LocalStorage.put_new(self, key, data)

    for number, (kind, tree) in enumerate([(Losing, "raw"), (Garbling, "raw"), (GarblingTables, "tables")]):
        with pytest.raises(LakeError, match=rf"{tree}/.* has not arrived as it is: copy again"):
            copy_lake(lake.storage, kind(tmp_path / f"to-{number}"))


def test_of_two_copies_to_one_place_at_once_the_other_accounts_is_refused(lake: Lake, tmp_path: Path) -> None:
    """Both found the place empty; the second is told, or goes on when it is the same lake."""

    class Late(LocalStorage):
        """Gets its binding from another copy just before ours."""

        def put_new(self, key: str, data: bytes | memoryview) -> None:
            if key == "lake.json":
                super().put_new(key, binding)
            super().put_new(key, data)

    binding = lake.storage.read("lake.json")
    copy_lake(lake.storage, Late(tmp_path / "same"))
    binding = b"other"
    with pytest.raises(LakeError, match="belongs to another account"):
        copy_lake(lake.storage, Late(tmp_path / "other"))
    assert [file.key for file in LocalStorage(tmp_path / "other").list("")] == ["lake.json"]


@pytest.mark.parametrize("tree", ["raw/", "tables/"])
def test_a_lake_that_never_holds_still_is_given_up(lake: Lake, tmp_path: Path, tree: str) -> None:
    """After twenty looks, in one line."""

    class Restless(LocalStorage):
        """Loses every file before it is read."""

        def read(self, key: str) -> bytes:
            if key.startswith(tree):
                raise FileNotFoundError(key)
            return super().read(key)

    assert lake.has_files()
    with pytest.raises(LakeError, match="the lake keeps changing while it is copied"):
        copy_lake(Restless(tmp_path / "from"), LocalStorage(tmp_path / "to"))


def test_files_that_go_meanwhile_are_looked_for_again(lake: Lake, tmp_path: Path) -> None:
    """A run merges segments while they are copied."""

    class Moving(LocalStorage):
        """Loses what is merged before it is read."""

        is_first = True

        def read(self, key: str) -> bytes:
            if self.is_first and key.startswith("raw/"):
                self.is_first = False
                lake.land(DAY, [make_read(900)])
                w.publish_days(lake, [DAY])
                assert lake.compact(DAY)
            return super().read(key)

    source = Moving(tmp_path / "from")
    lines: list[str] = []
    copy_lake(source, LocalStorage(tmp_path / "to"), log=lines.append)
    assert any("looking again" in line for line in lines)
    target = Lake.open(tmp_path / "to")
    assert w.stored_reads(target) >= w.stored_reads(lake)


def test_the_command_says_what_it_did(
    lake: Lake, tmp_path: Path, store: StoreProxy, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line of counts, exit code 0; a store that fails for good is one clear line without a secret."""
    assert lake.has_files()
    assert main(["copy-lake", f"{tmp_path}/from", address]) == 0
    output = capsys.readouterr().out
    assert f"now set CALLS_DATA_DIR={address}" in output
    assert main(["copy-lake", f"{tmp_path}/from", address]) == 0
    assert ": 0 files, 0 bytes sent" in capsys.readouterr().out
    flip(open_storage(address), "inbox/new/x")
    assert main(["copy-lake", f"{tmp_path}/from", address]) == 0
    repaired = capsys.readouterr()
    assert repaired.err == "inbox/new/x was damaged at the target, and was sent again\n"
    assert ": 1 files, 2 bytes sent" in repaired.out
    assert main(["copy-lake", address, address]) == 2
    assert main(["copy-lake", "ftp://x", address]) == 2
    assert main(["copy-lake", f"{tmp_path}/none", address]) == 1
    capsys.readouterr()
    store.choose = lambda _heard: SLOW_DOWN
    assert main(["copy-lake", f"{tmp_path}/from", address]) == 1
    errors = capsys.readouterr().err
    assert "the copy broke off: the object store failed 8 times in a row" in errors
    assert SECRET not in errors
