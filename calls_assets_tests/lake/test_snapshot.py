"""Snapshots: links where there can be any, else copies; and nothing of them is left, or seen by the lake."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import duckdb
import pytest

from calls_assets.lake import DATASETS, Lake, LakeError, LocalStorage, snapshot, verify
from calls_assets.lake.catalog import CATALOG_KEY, write_catalog
from calls_assets.lake.copy import copy_lake
from calls_assets.lake.snapshot import MARKER, SNAPSHOTS, keep_snapshot, temporary_snapshot
from calls_assets_tests.lakes import DAYS, FinishedLake

FEW = DAYS[15:18]
ALL = (list(DATASETS), date.min, date.max)


@pytest.fixture(scope="module")
def three_days(finished_lake: FinishedLake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gives the directory of a lake of three days, not to be written to."""
    root = tmp_path_factory.mktemp("three-days") / "data"
    lake = Lake.open(root)
    lake.bind("UTC", "http://127.0.0.1")
    for name, table in DATASETS.items():
        for day in FEW if table.is_daily else [None]:
            lake.write_table(name, day, finished_lake.lake.read_table(name, day))
    return root


@pytest.fixture
def lake(three_days: Path, tmp_path: Path) -> Lake:
    """Gives such a lake to write to."""
    shutil.copytree(three_days, tmp_path / "data")
    return Lake.open(tmp_path / "data")


def root_of(lake: Lake) -> Path:
    """Gives its directory."""
    assert isinstance(lake.storage, LocalStorage)
    return lake.storage.root


def list_files(root: Path) -> dict[str, int]:
    """Gives the table files below a directory with their inodes."""
    return {
        str(path.relative_to(root)): path.stat().st_ino
        for tree in ("tables", "marts")
        for path in root.glob(f"{tree}/**/*.parquet")
    }


def leftovers(place: Path) -> list[str]:
    """Lists what is in a directory for snapshots."""
    return sorted(path.name for path in place.iterdir())


def refuse_links(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Makes every link fail as on another file system, or without the right to."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)


def test_a_snapshot_has_every_file_of_the_lake_as_a_link(lake: Lake) -> None:
    """The very files, below the same names; its directory is its owner's, beside the lake's trees."""
    with temporary_snapshot(lake, *ALL) as path:
        assert path.parent == root_of(lake) / SNAPSHOTS
        assert list_files(path) == list_files(root_of(lake)) != {}
        assert path.stat().st_mode & 0o777 == 0o700
        assert leftovers(path) == sorted([MARKER, CATALOG_KEY, "marts", "tables"])


def test_what_is_replaced_or_deleted_afterwards_is_not_seen(lake: Lake) -> None:
    """By whom reads the files, nor through the catalogue, which is the snapshot's own."""
    before = lake.read_table("calls", FEW[0])
    with temporary_snapshot(lake, *ALL) as path, duckdb.connect(str(path / CATALOG_KEY), read_only=True) as catalog:
        lake.write_table("calls", FEW[0], before.slice(0, 5))
        lake.storage.delete(lake.table_key("calls", FEW[1]))
        lake.write_table("calls", DAYS[30], before)
        assert Lake(LocalStorage(path, is_writable=False)).read_table("calls", FEW[0]).equals(before)
        counted = catalog.sql("SELECT call_date, count(*) FROM calls GROUP BY ALL ORDER BY ALL").fetchall()
        assert [day for day, _ in counted] == FEW
        assert counted[0][1] == len(before)
    with temporary_snapshot(lake, *ALL) as path:
        assert Lake(LocalStorage(path, is_writable=False)).read_table("calls", FEW[0]).num_rows == 5
        assert len(list(path.glob("tables/calls/*"))) == 3


def test_only_the_tables_and_days_asked_for_are_there(lake: Lake) -> None:
    """The catalogue shows no view that would lack a table it joins: it would be wrong and not say so."""
    with temporary_snapshot(lake, ["calls", "agents", "calls"], FEW[1], FEW[1]) as path:
        assert {*list_files(path)} == {f"tables/calls/call_date={FEW[1]}/calls.parquet", "tables/agents/agents.parquet"}
        with duckdb.connect(str(path / CATALOG_KEY), read_only=True) as catalog:
            assert catalog.sql("SHOW TABLES").fetchall() == [("agents",), ("calls",)]
    with (
        temporary_snapshot(lake, *ALL) as path,
        duckdb.connect(str(path / CATALOG_KEY), read_only=True) as catalog,
    ):
        assert {name for (name,) in catalog.sql("SHOW TABLES").fetchall()} == {*write_catalog(lake)}


def test_no_days_are_directories_and_empty_views(lake: Lake) -> None:
    """With all columns and their types."""
    with temporary_snapshot(lake, list(DATASETS), DAYS[40], DAYS[50]) as path:
        assert {*list_files(path)} == {"tables/agents/agents.parquet"}
        assert all((path / table.tree / name).is_dir() for name, table in DATASETS.items())
        with (
            duckdb.connect(str(path / CATALOG_KEY), read_only=True) as catalog,
            temporary_snapshot(lake, *ALL) as whole,
        ):
            with duckdb.connect(str(whole / CATALOG_KEY), read_only=True) as expected:
                for name in DATASETS:
                    assert catalog.sql(f"FROM {name}").types == expected.sql(f"FROM {name}").types
            assert catalog.sql("SELECT count(*) FROM calls_enriched").fetchall() == [(0,)]
    empty = Lake(LocalStorage(root_of(lake).parent / "empty"))
    with temporary_snapshot(empty, *ALL) as path:
        assert list_files(path) == {}
        assert (path / "tables/agents").is_dir()


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP])
def test_where_links_cannot_be_files_are_copied(lake: Lake, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Whole, with other inodes."""
    refuse_links(monkeypatch, code)
    with temporary_snapshot(lake, *ALL) as path:
        copies, files = list_files(path), list_files(root_of(lake))
        assert copies.keys() == files.keys()
        assert not {*copies.values()} & {*files.values()}
        assert all((path / key).read_bytes() == (root_of(lake) / key).read_bytes() for key in files)
    assert keep_snapshot(lake, root_of(lake).parent / "kept", *ALL) == (0, len(files))


def test_without_the_right_to_write_it_is_a_temporary_directory(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader may have none in the lake's directory; of the place that users name, an error tells."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (root_of(lake) / SNAPSHOTS).touch()  # so that even root can make no directory of this name
    with temporary_snapshot(lake, *ALL) as path:
        assert path.parent == tmp_path / "tmp"
        assert list_files(path) == list_files(root_of(lake))
    assert leftovers(tmp_path / "tmp") == []
    with (
        pytest.raises(LakeError, match=r"cannot make a snapshot in .*\.snapshots: file exists"),
        temporary_snapshot(lake, *ALL, place=root_of(lake) / SNAPSHOTS),
    ):
        pass


def test_where_no_lock_can_be_had_it_is_a_temporary_directory(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on network file systems: what nobody can tell to be abandoned is not left in the lake."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    lock = fcntl.flock

    def refuse(descriptor: int, how: int) -> None:
        if SNAPSHOTS in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", refuse)
    with temporary_snapshot(lake, *ALL) as path:
        assert path.parent == tmp_path / "tmp"
    assert leftovers(root_of(lake) / SNAPSHOTS) == []


def test_a_snapshot_goes_when_it_is_left(lake: Lake, tmp_path: Path) -> None:
    """Also by an exception, also when it could not be made; the lake's files stay."""
    before = list_files(root_of(lake))
    with temporary_snapshot(lake, *ALL, place=tmp_path / "place"):
        assert len(leftovers(tmp_path / "place")) == 1
    with pytest.raises(ZeroDivisionError), temporary_snapshot(lake, *ALL, place=tmp_path / "place"):
        raise ZeroDivisionError("any error of a reader")
    (root_of(lake) / lake.table_key("calls", FEW[0])).write_bytes(b"damaged")
    with (
        pytest.raises(LakeError, match=r"cannot make a snapshot in .*place/.*calls\.parquet"),
        temporary_snapshot(lake, *ALL, place=tmp_path / "place"),
    ):
        pass
    assert leftovers(tmp_path / "place") == []
    assert list_files(root_of(lake)) == before


def test_a_file_that_goes_while_the_snapshot_is_taken_is_left_out(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it had been taken a moment later."""
    link, gone = os.link, root_of(lake) / lake.table_key("calls", FEW[1])

    def vanish(source: Path, target: Path) -> None:
        if source == gone:
            gone.unlink()
        link(source, target)

    monkeypatch.setattr(os, "link", vanish)
    with temporary_snapshot(lake, *ALL) as path, duckdb.connect(str(path / CATALOG_KEY), read_only=True) as catalog:
        assert catalog.sql("SELECT DISTINCT call_date FROM calls ORDER BY ALL").fetchall() == [(FEW[0],), (FEW[2],)]


def test_a_file_that_is_there_is_never_written_into(lake: Lake, tmp_path: Path) -> None:
    """It may be a link: the bytes would be the lake's."""
    keep_snapshot(lake, tmp_path / "kept", ["calls"], FEW[0], FEW[0])
    before = lake.storage.read(lake.table_key("calls", FEW[0]))
    with pytest.raises(FileExistsError):
        snapshot._take(lake.storage, tmp_path / "kept", lake.table_key("calls", FEW[0]))
    assert lake.storage.read(lake.table_key("calls", FEW[0])) == before


_HOLD = """
import sys
from pathlib import Path
from calls_assets.read import snapshot
with snapshot(data_dir=sys.argv[1]) as path:
    print(path, flush=True)
    sys.stdin.read()
"""


def test_what_killed_processes_left_goes_with_the_next_snapshot(lake: Lake) -> None:
    """That of a living process stays, and so does what is no snapshot."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(root_of(lake))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        held = Path(holder.stdout.readline().strip())
        (held.parent / "mine").mkdir()
        with temporary_snapshot(lake, *ALL) as path:
            assert leftovers(held.parent) == sorted(["mine", held.name, path.name])
            assert list_files(held) == list_files(root_of(lake))
        holder.kill()
        holder.wait()
        assert held.is_dir()
        with temporary_snapshot(lake, *ALL) as path:
            assert leftovers(held.parent) == sorted(["mine", path.name])
    assert list_files(root_of(lake))


def test_what_only_has_the_name_of_a_snapshot_is_never_removed(lake: Lake, tmp_path: Path) -> None:
    """A lake, or a snapshot that somebody keeps."""
    root = root_of(lake).rename(tmp_path / "calls-snapshot-march")
    lake = Lake(LocalStorage(root))
    keep_snapshot(lake, tmp_path / "calls-snapshot-kept", *ALL)
    files = list_files(root)
    for place in (tmp_path, root):
        with temporary_snapshot(lake, *ALL, place=place) as path:
            assert list_files(path) == files
    assert list_files(root) == list_files(tmp_path / "calls-snapshot-kept") == files != {}
    assert leftovers(tmp_path) == ["calls-snapshot-kept", "calls-snapshot-march"]


def test_a_snapshot_that_is_kept_is_there_whole_or_not_at_all(lake: Lake, tmp_path: Path) -> None:
    """What somebody else puts into its place meanwhile is not touched."""
    place = tmp_path / "new" / "kept"
    place.mkdir(parents=True)
    keep_snapshot(lake, place, *ALL)
    assert leftovers(place) == [CATALOG_KEY, "marts", "tables"]
    assert place.stat().st_mode & 0o777 == (tmp_path / "new").stat().st_mode & 0o777
    before = list_files(place)
    with pytest.raises(LakeError, match=r"cannot make a snapshot in .*kept: directory not empty"):
        keep_snapshot(lake, place, *ALL)
    assert list_files(place) == before
    with duckdb.connect(str(place / CATALOG_KEY), read_only=True) as catalog:
        assert catalog.sql("SELECT count(*) > 0 FROM calls").fetchall() == [(True,)]
    (root_of(lake) / lake.table_key("calls", FEW[0])).write_bytes(b"damaged")
    with pytest.raises(LakeError, match=r"cannot make a snapshot in .*other"):
        keep_snapshot(lake, tmp_path / "new" / "other", *ALL)
    assert leftovers(tmp_path / "new") == ["kept"]


def test_one_that_is_taken_for_abandoned_before_it_is_locked_is_made_anew(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process looks between the making of the directory and its lock, or waits there for its own."""
    lock = snapshot._lock

    def remove_first(path: Path, how: int) -> int:
        shutil.rmtree(path.parent)
        return lock(path, how)

    def remove_after(path: Path, how: int) -> int:
        descriptor = lock(path, how)
        shutil.rmtree(path.parent)
        return descriptor

    stages = [remove_first, remove_after, lock]

    def run_next(path: Path, how: int) -> int:
        return stages.pop(0)(path, how)

    monkeypatch.setattr(snapshot, "_lock", run_next)
    with temporary_snapshot(lake, *ALL) as path:
        assert stages == []
        assert leftovers(root_of(lake) / SNAPSHOTS) == [path.name]


def test_the_lake_does_not_see_its_snapshots(lake: Lake, tmp_path: Path) -> None:
    """Not to verify, copy, list its days, or make its catalogue."""
    findings, days, views = verify(lake), lake.table_days("calls"), write_catalog(lake)
    with temporary_snapshot(lake, *ALL):
        assert verify(lake) == findings
        assert lake.table_days("calls") == days
        assert write_catalog(lake) == views
        copied = copy_lake(lake.storage, LocalStorage(tmp_path / "copy"))
        assert copied.files == 1 + len(list_files(root_of(lake)))
        assert not (tmp_path / "copy" / SNAPSHOTS).exists()
        assert Lake.open(root_of(lake)).table_days("calls") == days  # and writers clean up beside it


def test_a_lake_in_an_object_store_is_copied(
    lake: Lake, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into a directory for temporary files, with a catalogue that needs nothing to read it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    remote = Lake.open(address)
    for day in FEW:
        remote.write_table("calls", day, lake.read_table("calls", day))
    with temporary_snapshot(remote, ["calls"], FEW[1], FEW[2]) as path:
        assert path.parent == tmp_path
        assert {*list_files(path)} == {lake.table_key("calls", day) for day in FEW[1:]}
        with duckdb.connect(str(path / CATALOG_KEY), read_only=True) as catalog:
            (counted,) = catalog.sql("SELECT count(*) FROM calls").fetchall()
    assert counted[0] == sum(len(lake.read_table("calls", day)) for day in FEW[1:])
    assert not path.exists()
