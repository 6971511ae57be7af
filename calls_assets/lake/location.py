"""Where a lake is: from a directory or the address of an object store to its storage.

What belongs here: choosing the storage, and what has to be known of a store before anything is written to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from calls_assets.lake.errors import LakeError
from calls_assets.lake.storage import LocalStorage, Storage
from calls_assets.settings import Location, SettingsError, parse_location

if TYPE_CHECKING:
    from calls_assets.lake.object_storage import ObjectStorage

_create_only: set[str] = set()
"""Stores that this process has seen refuse to create what is there: asked once, not at every sensor tick."""


def open_storage(location: Location, *, is_writable: bool = True, is_single_writer: bool = False) -> Storage:
    """Opens the storage of a lake.

    Args:
        location: A directory, which is created when missing, or an address such as `s3://bucket/prefix`.
        is_writable: False for readers, who may have no right to write: nothing is created or tried out.
        is_single_writer: The user's word that one process at a time writes: what a store without conditional writes
            needs.

    Raises:
        LakeError: There can be no lake, the store needs a single writer, its settings are wrong, or the extra is not
            installed.
        OSError: It cannot be used.
    """
    if isinstance(location, str):
        try:
            location = parse_location("the lake's place", location)
        except SettingsError as problem:
            raise LakeError(str(problem)) from None
    if isinstance(location, Path):
        directory = LocalStorage(location, is_writable=is_writable)
        if is_writable:
            directory.clean_temporary()
        return directory
    storage = _open_store(location)
    if is_writable and location not in _create_only:
        storage.is_create_only = storage.can_create_only()
        if storage.is_create_only:
            _create_only.add(location)
        elif not is_single_writer:
            raise LakeError(
                f"the object store of {location} cannot create an object only when there is none (If-None-Match): take "
                "one that can, or see to it that one process at a time writes and say so with CALLS_SINGLE_WRITER=on"
            )
    return storage


def _open_store(address: str) -> ObjectStorage:
    try:
        from calls_assets.lake.object_storage import ObjectStorage  # noqa: PLC0415 - only who has such an address pays
    except ImportError as problem:
        raise LakeError(
            f"a lake in {address} needs the module {problem.name}: pip install 'calls-assets[object-store]'"
        ) from None
    try:
        return ObjectStorage(address)
    except OSError as problem:
        raise LakeError(f"cannot use {address}: {problem.strerror}") from None
