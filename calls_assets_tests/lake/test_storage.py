"""Tests of what every storage promises, and of what is the directory's alone: durable, private where it must be."""

from __future__ import annotations

import errno
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from calls_assets.lake import LocalStorage, Storage, open_storage
from calls_assets.settings import Location


@pytest.fixture
def storage(place: Location) -> Storage:
    """Gives an empty storage of each kind."""
    return open_storage(place)


def mode_of(path: Path) -> int:
    """Gives the permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def test_what_was_put_is_read_and_listed(storage: Storage) -> None:
    """The four verbs agree on one file."""
    storage.put_new("tables/calls/a.parquet", b"one")
    storage.put_new("tables/agents/b.parquet", b"four")
    assert storage.read("tables/calls/a.parquet") == b"one"
    listed = [(key, size) for key, size, _ in storage.list("tables/")]
    assert listed == [("tables/agents/b.parquet", 4), ("tables/calls/a.parquet", 3)]
    assert storage.list("tables/calls/") == storage.list("tables/")[1:]
    (before, _) = storage.list("tables/")
    storage.replace("tables/agents/b.parquet", b"FOUR")
    (after, _) = storage.list("tables/")
    assert (before.key, before.size) == (after.key, after.size)
    assert before.version != after.version
    assert storage.list("raw/") == storage.list("tables/call/") == []
    assert [file.key for file in storage.list("") if not file.key.startswith(".")] == [file.key for file in (after, _)]


def test_a_listing_begins_after_a_key(storage: Storage) -> None:
    """Whether that is a file, a part of a path or nothing at all, everything behind it is listed and no more."""
    keys = ["raw/a.x", "raw/a/1", "raw/a/2", "raw/ab/1", "raw/b/1/x", "raw/b/2"]
    for key in keys:
        storage.put_new(key, b"any")
    for after in ["", "q", "raw/", *keys, "raw/a", "raw/a/", "raw/a/15", "raw/aa/", "raw/b/1", "raw/b/1/", "raw/c/"]:
        assert [file.key for file in storage.list("raw/", after)] == [key for key in keys if key > after], after


def test_a_new_file_never_replaces_one(storage: Storage) -> None:
    """Create-only means that the first content stays."""
    storage.put_new("raw/x", b"first")
    with pytest.raises(FileExistsError):
        storage.put_new("raw/x", b"second")
    assert storage.read("raw/x") == b"first"


def test_a_new_file_with_the_content_of_the_old_is_refused_too(storage: Storage) -> None:
    """Two writers with one name must not both believe that the file is theirs."""
    storage.put_new("raw/x", b"same")
    with pytest.raises(FileExistsError):
        storage.put_new("raw/x", b"same")


@pytest.mark.parametrize("size", [0, 1, 6 * 2**20], ids=["empty", "a byte", "6 MiB"])
def test_files_of_any_size_come_back_as_they_were(storage: Storage, size: int) -> None:
    """A view of memory is as good as bytes; other programs are told where the file is."""
    content = bytes(range(251)) * (size // 251 + 1)
    storage.replace("tables/t", memoryview(content)[:size])
    assert storage.read("tables/t") == content[:size]
    assert [file.size for file in storage.list("tables/")] == [size]
    assert storage.locate("tables/t").endswith("/tables/t")


def test_of_many_writers_of_one_name_one_wins(place: Location) -> None:
    """Each with an opening of its own, at once: the others are told, and the winner's content is there."""
    names = range(8)
    barrier = threading.Barrier(len(names))

    def write(name: int) -> str:
        storage = open_storage(place)
        barrier.wait()
        try:
            storage.put_new("raw/x", f"{name}".encode())
        except FileExistsError:
            return "lost"
        return f"{name}"

    with ThreadPoolExecutor(len(names)) as pool:
        outcomes = list(pool.map(write, names))
    (winner,) = (outcome for outcome in outcomes if outcome != "lost")
    assert open_storage(place, is_writable=False).read("raw/x") == winner.encode()


def test_a_reader_leaves_no_trace(place: Location) -> None:
    """It may have no right to write; and it tells whether there is a lake at all."""
    reader = open_storage(place if isinstance(place, str) else place / "none", is_writable=False)
    assert not reader.has_files()
    assert reader.list("raw/") == []
    open_storage(place).put_new("raw/x", b"")
    assert open_storage(place, is_writable=False).has_files()


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """A reader that opened the old file keeps reading the old content."""
    storage = LocalStorage(tmp_path)
    storage.replace("tables/t", b"old")
    with (tmp_path / "tables/t").open("rb") as reader:
        storage.replace("tables/t", b"new content")
        assert reader.read() == b"old"
    assert storage.read("tables/t") == b"new content"


def test_deleting_twice_is_fine(storage: Storage) -> None:
    """A file that is gone already is what the caller wants."""
    storage.put_new("raw/x", b"")
    storage.delete("raw/x")
    storage.delete("raw/x")
    with pytest.raises(FileNotFoundError):
        storage.read("raw/x")


def test_raw_is_private_and_tables_follow_the_umask(tmp_path: Path) -> None:
    """What the vendor said about people is readable by the owner alone."""
    storage = LocalStorage(tmp_path)
    for key in ("raw/call_records/d/x", "inbox/new/y", "tables/calls/z"):
        storage.put_new(key, b"")
    assert [mode_of(tmp_path / name) for name in ("raw", "raw/call_records", "raw/call_records/d", "inbox")] == [
        0o700
    ] * 4
    assert [mode_of(tmp_path / name) for name in ("raw/call_records/d/x", "inbox/new/y")] == [0o600] * 2
    umask = os.umask(0o022)
    os.umask(umask)
    assert mode_of(tmp_path / "tables/calls/z") == 0o666 & ~umask


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk costs the new content only."""
    storage = LocalStorage(tmp_path)
    storage.replace("tables/t", b"old")

    def refuse(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        storage.replace("tables/t", b"new")
    assert storage.read("tables/t") == b"old"
    assert list((tmp_path / ".tmp").iterdir()) == []


def test_only_what_dead_writers_left_is_cleaned(tmp_path: Path) -> None:
    """A temporary file whose writer is alive is locked, and stays."""
    storage = LocalStorage(tmp_path)
    (tmp_path / ".tmp" / "left").write_bytes(b"half")
    with storage._written("tables/t", b"in progress") as temporary:
        assert storage.clean_temporary() == 1
        assert temporary.exists()
        assert not (tmp_path / ".tmp" / "left").exists()
