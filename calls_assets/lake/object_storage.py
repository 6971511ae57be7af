"""The object store: the storage's verbs over S3, Google Cloud Storage and Azure, through obstore.

What belongs here: what the verbs mean over HTTP. What stays out: addresses and which storage to take (`location`).

An object is written by one PUT and by nothing else: no temporary name, no rename, no parts. How each promise is kept:

whole       A store shows an object whole or not at all. S3 compares the bytes with the SHA-256 sent along; and in every
            store the tag in the answer is compared with the MD5 of what was meant, or, where tags are something else,
            the object is read back. Other bytes are written again.
durable     A verb returns after the store's answer.
create-only `If-None-Match: *`. Every PUT carries a random word of its own as metadata. "There is one already" is
            believed only after a look: an object with that word is ours, from an attempt whose answer was lost or which
            the network repeated; none at all means that the store gave up a race (409), and the PUT is sent again.
listed      All of these stores list what was written before (S3 since December 2020).

Attempts are repeated here and not by the library, which does not tell whether one may have succeeded. Its messages go
no further: they quote the store's answers, and those may quote keys and signatures.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import re
import secrets
import time
from collections.abc import Callable
from datetime import timedelta
from io import SEEK_CUR, SEEK_END, SEEK_SET, RawIOBase
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import from_url

from calls_assets.lake.storage import ReplacedError, StoredFile

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, ObjectMeta
    from obstore.store import ClientConfig, ObjectStore, RetryConfig, S3Config

PROBE_KEY = ".store/create-only"
_WRITER = "writer"
_ATTEMPTS = 8
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_SILENT_SECONDS = 30.0
"""A store that says nothing for so long fails; while it sends, or may still be receiving, a request takes its time."""
_SLOWEST_BYTES_PER_SECOND = 2**19
_LARGE_BYTES = 8 * 2**20
_FIRST_BYTES = 2**19
_ALLOW_HTTP = {"s3": "AWS_ALLOW_HTTP", "gs": "GOOGLE_ALLOW_HTTP", "az": "AZURE_ALLOW_HTTP"}
_NO_CONTAINER = frozenset({"NoSuchBucket", "ContainerNotFound"})
_NOT_IMPLEMENTED = "501"

_T = TypeVar("_T")

_started_in: list[int] = []
"""The process in which the library's threads were started, once they were: a fork of it does not have them."""


class _TryAgainError(Exception):
    """An attempt came to nothing; the message says why."""


class ObjectStorage:
    """A prefix of a bucket or container.

    Credentials, region and endpoint come from the environment, under the names that the clouds' own clients use.

    Args:
        address: Such as `s3://bucket/prefix`.
        is_create_only: Whether the store refuses to create what is there, as `can_create_only` tells; else `put_new`
            looks first and then writes, which is right for a single writer only.
    """

    def __init__(self, address: str, *, is_create_only: bool = True) -> None:
        self.address = address
        self.is_create_only = is_create_only
        self._store = self._connect()

    def _connect(self, sent_bytes: int = 0) -> ObjectStore:
        """Makes a client that waits as long as it may take to send so many bytes.

        The library's read timeout runs from the request's first byte to the answer's, and then anew with each part of
        the answer; its timeout for whole requests, 30 seconds when none is given, would forbid large objects.
        """
        scheme = self.address.partition(":")[0]
        retry: RetryConfig = {"max_retries": 0, "retry_timeout": timedelta(seconds=1)}
        client: ClientConfig = {
            "timeout": timedelta(days=1),
            "read_timeout": timedelta(seconds=_SILENT_SECONDS + sent_bytes / _SLOWEST_BYTES_PER_SECOND),
            # With options of ours the library does not look for its own in the environment.
            "allow_http": os.environ.get(_ALLOW_HTTP[scheme], "").lower() in {"true", "1"},
        }
        try:
            if scheme == "s3":
                config: S3Config = {"checksum_algorithm": "SHA256"}
                return from_url(self.address, config=config, client_options=client, retry_config=retry)
            return from_url(self.address, client_options=client, retry_config=retry)
        except (BaseError, ValueError):
            # Its message may repeat values of the environment.
            raise OSError(errno.EINVAL, "the environment's settings for the store are not understood") from None

    def list(self, prefix: str, after: str = "") -> list[StoredFile]:
        """Lists every file below a prefix whose key comes after another."""
        return _persist(
            lambda: sorted(
                StoredFile(meta["path"], meta["size"], meta["e_tag"] or meta["last_modified"].isoformat())
                for chunk in obstore.list(self._store, prefix, offset=after or None, chunk_size=1_000)
                for meta in chunk
                if meta["path"] > after  # the library leaves out a slash at the end of an offset
            )
        )

    def has_files(self) -> bool:
        """Tells whether there is anything, in one request."""
        return _persist(lambda: any(len(chunk) for chunk in obstore.list(self._store, chunk_size=1)))

    def read(self, key: str) -> bytes:
        """Gives a file's content."""
        return _persist(lambda: self._get(key))[1]

    def open_parts(self, key: str) -> RawIOBase:
        """Opens a file of which some parts are wanted; a small one is got at once."""
        return _Parts(self._store, key)

    def put_new(self, key: str, data: bytes | memoryview) -> None:
        """Stores a new file durably."""
        if self.is_create_only:
            self._put(key, data, is_new=True)
        elif self._holds(key):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), key)
        else:
            self._put(key, data, is_new=False)

    def replace(self, key: str, data: bytes | memoryview) -> None:
        """Stores a file durably in one step."""
        self._put(key, data, is_new=False)

    def delete(self, key: str) -> None:
        """Removes a file."""
        try:
            _persist(lambda: obstore.delete(self._store, key))
        except FileNotFoundError:
            return  # S3 says nothing of it, the others do

    def locate(self, key: str) -> str:
        """Gives the address under which other programs find a file."""
        return f"{self.address}/{key}"

    def can_create_only(self) -> bool:
        """Tells whether the store refuses to create an object that is there already, by trying.

        The object stays, so that the next look costs one request. A store that knows no conditions overwrites it.
        """
        try:
            return not (_persist(self._create_probe) and _persist(self._create_probe))
        except (NotImplementedError, NotSupportedError):
            return False

    def _create_probe(self) -> bool:
        """Creates the probe; tells whether the store did so."""
        try:
            obstore.put(self._store, PROBE_KEY, b"", mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        except BaseError as problem:
            if _find_status(problem) == _NOT_IMPLEMENTED:
                raise NotImplementedError from None
            raise
        return True

    def _holds(self, key: str) -> bool:
        try:
            _persist(lambda: obstore.head(self._store, key))
        except FileNotFoundError:
            return False
        return True

    def _get(self, key: str) -> tuple[str | None, bytes]:
        """Gives the word of an object's writer and its content."""
        found = obstore.get(self._store, key)
        return found.attributes.get(_WRITER), bytes(found.bytes())

    def _put(self, key: str, data: bytes | memoryview, *, is_new: bool) -> None:
        writer = secrets.token_hex(16)
        digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
        must_create = is_new
        store = self._store if len(data) < _LARGE_BYTES else self._connect(len(data))

        def attempt() -> None:
            nonlocal must_create
            try:
                tag = obstore.put(
                    store,
                    key,
                    data,
                    mode="create" if must_create else "overwrite",
                    attributes={_WRITER: writer},
                    use_multipart=False,
                )["e_tag"]
            except AlreadyExistsError:
                if not must_create:
                    raise _TryAgainError("the store gave up a race") from None
                is_refused = True
            else:
                is_refused = False
                if tag is not None and tag.strip('"') == digest:
                    return
            try:
                held_writer, held = self._get(key)
            except FileNotFoundError:
                if is_refused:
                    raise _TryAgainError("the store gave up a race") from None
                return  # it was there: somebody has merged or settled it since
            if held_writer != writer:
                if is_refused:
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), key) from None
                return  # somebody has replaced it since
            if held != data:
                must_create = False  # it is there, it is ours, and it is not what it should be
                raise _TryAgainError("other bytes were stored than were sent")

        _persist(attempt)


class _Parts(RawIOBase):
    """An object as a file: what is read is got, all from the same version."""

    def __init__(self, store: ObjectStore, key: str) -> None:
        found, self._first = _persist(lambda: self._get(obstore.get(store, key, options={"range": (0, _FIRST_BYTES)})))
        self._store, self._key, self._size, self._tag = store, key, found["size"], found["e_tag"]
        self._place = 0

    @staticmethod
    def _get(result: GetResult) -> tuple[ObjectMeta, bytes]:
        return result.meta, bytes(result.bytes())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        self._place = offset + {SEEK_SET: 0, SEEK_CUR: self._place, SEEK_END: self._size}[whence]
        return self._place

    def read(self, size: int = -1) -> bytes:
        start, end = self._place, self._size if size < 0 else min(self._size, self._place + size)
        self._place = max(start, end)
        if end <= len(self._first):
            return self._first[start:end]
        options: GetOptions = {"range": (start, end), "if_match": self._tag}
        try:
            return _persist(lambda: self._get(obstore.get(self._store, self._key, options=options)))[1]
        except FileNotFoundError:
            raise ReplacedError from None


def _persist(deed: Callable[[], _T]) -> _T:
    """Does something on the store, several times when need be.

    Raises:
        FileNotFoundError: There is no such object.
        FileExistsError: There is one.
        OSError: It cannot be done; the text says why in a few words of our own.
    """
    if not _started_in:
        _started_in.append(os.getpid())
    elif os.getpid() not in _started_in:
        # It would wait for ever.
        raise OSError(errno.EDEADLK, "this process was forked from one that used the object store: have it spawned")
    reason = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(random.uniform(0, min(_FIRST_PAUSE_SECONDS * 2**attempt, _LONGEST_PAUSE_SECONDS)))  # noqa: S311 - spreads retries
        try:
            return deed()
        except FileNotFoundError as problem:
            if _find_code(problem) in _NO_CONTAINER:
                raise OSError(errno.ENXIO, "there is no such bucket or container") from None
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
        except (PermissionDeniedError, UnauthenticatedError) as problem:
            raise PermissionError(errno.EACCES, f"the object store refuses ({_explain(problem)})") from None
        except NotSupportedError:
            raise
        except PreconditionError:
            raise ReplacedError from None
        except _TryAgainError as problem:
            reason = str(problem)
        except BaseError as problem:
            if _find_code(problem) in _NO_CONTAINER:
                raise OSError(errno.ENXIO, "there is no such bucket or container") from None
            reason = _explain(problem)
    raise OSError(errno.EIO, f"the object store failed {_ATTEMPTS} times in a row, at last with: {reason}")


def _find_status(problem: Exception) -> str | None:
    match = re.search(r"status code: (\d{3})", str(problem))
    return match[1] if match else None


def _find_code(problem: Exception) -> str | None:
    match = re.search(r"<Code>(\w{1,60})</Code>", str(problem))
    return match[1] if match else None


def _explain(problem: Exception) -> str:
    """Takes from the library's message what cannot be a secret: the status, and the store's word for it."""
    status = _find_status(problem)
    if status is not None:
        return " ".join(filter(None, (status, _find_code(problem))))
    kind = re.search(r"kind: ([A-Z]\w{1,30})", str(problem))
    return f"no answer ({kind[1]})" if kind else type(problem).__name__
