"""Copying: moves a lake to another place, from a directory to an object store or any other way round.

What belongs here: which files, in which order, and how it is known that they have arrived. What stays out: what is in
them. Nothing is deleted at either end, so a copy can be broken off and started again, and the source can go on being
written to: copied once more, only what is new is sent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from calls_assets.lake import parquet
from calls_assets.lake.errors import CorruptFileError, LakeError
from calls_assets.lake.lake import SET_ASIDE_SUFFIX, SOURCE_KEY
from calls_assets.lake.storage import Storage, StoredFile

_THREADS = 8
_LIST_AGAIN = 20
_ADDED_TREES = ("raw/", "inbox/")
"""Trees whose files are added and never replaced: under one name there is one content."""

_STAGES = (*_ADDED_TREES, "tables/", "marts/", "reports/", "published/")
"""Each complete before the next: a mark says that the tables before it show the raw before them. `catalog.duckdb` names
files by their place, and is made again at the new one."""


@dataclass(slots=True)
class CopyReport:
    """What a copy did.

    Attributes:
        files: Files of the source.
        size: Their length in bytes.
        copied: Files that were sent.
        copied_size: Their length in bytes.
        damaged: Files that do not match their seals at the source, copied as they are.
        repaired: Files that were at the target already, but not as they are at the source, and were sent again.
    """

    files: int = 0
    size: int = 0
    copied: int = 0
    copied_size: int = 0
    damaged: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)


def copy_lake(source: Storage, target: Storage, *, log: Callable[[str], None] = lambda _line: None) -> CopyReport:
    """Copies all files of a lake that are not at the target already, and reads every one there once.

    What is sent is read back. What was there is known by its seal when it is only added, else by its content.

    Args:
        source: The lake.
        target: Its new place: empty, or a copy of this lake from before.
        log: Told of each finished tree.

    Raises:
        LakeError: There is no lake, the target belongs to another account, or something does not arrive.
        OSError: A storage cannot be read or written.
    """
    _bind(source, target)
    report = CopyReport()
    for _ in range(_LIST_AGAIN):
        report.files, report.size = 1, len(source.read(SOURCE_KEY))
        report.damaged.clear()
        if all(_copy_tree(source, target, tree, report, log) for tree in _STAGES):
            return report
        log("files went while they were copied, merged or replaced: looking again")
    raise LakeError("the lake keeps changing while it is copied: try again when no run is at work")


def _bind(source: Storage, target: Storage) -> None:
    """Makes the target a lake of the same account, or refuses it."""
    try:
        binding = source.read(SOURCE_KEY)
    except FileNotFoundError:
        raise LakeError(f"there is no lake to copy: {source.locate(SOURCE_KEY)} is missing") from None
    try:
        held = target.read(SOURCE_KEY)
    except FileNotFoundError:
        if any(target.list(tree) for tree in _STAGES):
            raise LakeError(
                f"there are files but no {SOURCE_KEY} at the target, so nobody can tell whose: choose another place"
            ) from None
        try:
            target.put_new(SOURCE_KEY, binding)
        except FileExistsError:
            held = target.read(SOURCE_KEY)
        else:
            held = binding
    if held != binding:
        raise LakeError(
            f"the target belongs to another account or time zone ({SOURCE_KEY} differs): choose another place"
        )


class _Outcome(NamedTuple):
    """What became of a file: sent or not, and if not, whether it has gone from the source."""

    size: int = 0
    is_sent: bool = False
    is_gone: bool = False
    is_damaged: bool = False
    is_repaired: bool = False


def _copy_tree(source: Storage, target: Storage, tree: str, report: CopyReport, log: Callable[[str], None]) -> bool:
    """Copies a tree; tells whether nothing of it went meanwhile."""
    files = [file for file in source.list(tree) if not file.key.endswith(SET_ASIDE_SUFFIX)]
    there = {file.key: file.size for file in target.list(tree)}
    copy = _copy_added if tree in _ADDED_TREES else _copy_replaceable
    with ThreadPoolExecutor(_THREADS) as pool:
        outcomes = list(pool.map(lambda file: copy(source, target, file, there.get(file.key)), files))
    sent = [outcome.size for outcome in outcomes if outcome.is_sent]
    report.files += len(files)
    report.size += sum(file.size for file in files)
    report.copied += len(sent)
    report.copied_size += sum(sent)
    for file, outcome in zip(files, outcomes, strict=True):
        if outcome.is_damaged:
            report.damaged.append(file.key)
        if outcome.is_repaired:
            report.repaired.append(file.key)
    log(f"{tree} {len(files):,} files, {len(sent):,} sent")
    return not any(outcome.is_gone for outcome in outcomes)


def _copy_added(source: Storage, target: Storage, file: StoredFile, held_size: int | None) -> _Outcome:
    held = None if held_size is None else _read_held(target, file.key)
    if held is not None and file.key.endswith(".parquet") and not _is_damaged(file.key, held):
        return _Outcome()  # the seal is of this name and these bytes: the source need not be read
    try:
        data = source.read(file.key)
    except FileNotFoundError:
        return _Outcome(is_gone=True)
    if held is None:
        with contextlib.suppress(FileExistsError):  # another copy of this lake was faster
            target.put_new(file.key, data)
    elif held == data:
        return _Outcome(is_damaged=_is_damaged(file.key, data))
    elif len(held) == len(data):
        target.replace(file.key, data)
    else:
        raise LakeError(f"{file.key} is at the target with another content: what is there is no copy of this lake")
    return _read_back(target, file.key, data, is_repaired=held is not None)


def _copy_replaceable(source: Storage, target: Storage, file: StoredFile, held_size: int | None) -> _Outcome:
    try:
        data = source.read(file.key)
    except FileNotFoundError:
        return _Outcome(is_gone=True)
    if held_size == len(data) and _read_held(target, file.key) == data:
        return _Outcome(is_damaged=_is_damaged(file.key, data))
    target.replace(file.key, data)
    return _read_back(target, file.key, data)


def _read_back(target: Storage, key: str, data: bytes, *, is_repaired: bool = False) -> _Outcome:
    """Compares what has arrived."""
    if _read_held(target, key) != data:
        raise LakeError(f"{key} has not arrived as it is: copy again, and look at the target")
    return _Outcome(len(data), is_sent=True, is_damaged=_is_damaged(key, data), is_repaired=is_repaired)


def _read_held(target: Storage, key: str) -> bytes | None:
    """Gives what is at the target."""
    try:
        return target.read(key)
    except FileNotFoundError:
        return None


def _is_damaged(key: str, data: bytes) -> bool:
    try:
        if key.endswith(".parquet"):
            parquet.check_seal(key, data)
    except CorruptFileError:
        return True
    return False
