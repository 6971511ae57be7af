"""Parquet: tables to bytes and back, with the settings every file of the lake has.

What belongs here: the codec. What stays out: where the bytes go. Files are made in memory, because writing to a final
path is not atomic. Each file carries a seal, a hash of its bytes and of its name in the lake: Parquet's own checksums
leave out headers and footers, and cannot tell that a file stands in another one's place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import RawIOBase
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from calls_assets.lake.errors import CorruptFileError

ROW_GROUP_ROWS = 122_880
_SAMPLE_ROWS = 512
_SEAL_NAME = "calls_assets.seal"
_SEAL_PREFIX = b"blake2b:"
_SEAL_BYTES = 16
_NO_SEAL = b"0" * (2 * _SEAL_BYTES)


def encode(key: str, table: pa.Table, *, compression: str = "zstd") -> memoryview:
    """Serialises a table; the same rows give the same bytes.

    Args:
        key: The file's name in the lake.
        table: The rows.
        compression: How pages are compressed.
    """
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression=compression,
        compression_level=3 if compression == "zstd" else None,
        write_statistics=True,
        write_page_index=True,
        write_page_checksum=True,
        use_dictionary=_find_repetitive(table),
    ) as writer:
        writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        writer.add_key_value_metadata({_SEAL_NAME: (_SEAL_PREFIX + _NO_SEAL).decode()})
    data = bytearray(sink.getvalue())
    start = _find_seal(data)
    data[start : start + len(_NO_SEAL)] = _make_seal(key, data, start)
    return memoryview(data)


def _find_repetitive(table: pa.Table) -> list[str]:
    """Gives the columns whose values repeat, by their first rows; lists by the path of their elements.

    A dictionary makes the others larger, above all ids and instants in order, which compress well as they are: days of
    5,000 calls take a fifth less without. Looking for repetitions was a third of the work of writing raw.
    """
    found = []
    for field, column in zip(table.schema, table.columns, strict=True):
        is_nested = pa.types.is_nested(field.type)
        first = column.slice(0, _SAMPLE_ROWS)
        values = pc.list_flatten(first) if is_nested else first
        if 2 * pc.count_distinct(values).as_py() <= len(values):
            found.append(f"{field.name}.list.element" if is_nested else field.name)
    return found


def _find_seal(data: bytes | bytearray) -> int:
    """Gives the place of the seal: the footer is last in the file, so the last match is no content; -1 for none."""
    name = data.rfind(_SEAL_NAME.encode())
    prefix = data.find(_SEAL_PREFIX, name) if name >= 0 else -1
    return prefix + len(_SEAL_PREFIX) if prefix >= 0 else -1


def _make_seal(key: str, data: bytes | bytearray, start: int) -> bytes:
    """Hashes a file's name and its bytes but for the seal itself."""
    digest = hashlib.blake2b(key.encode() + b"\0", digest_size=_SEAL_BYTES)
    view = memoryview(data)
    digest.update(view[:start])
    digest.update(view[start + len(_NO_SEAL) :])
    return digest.hexdigest().encode()


def read_seal(data: bytes | memoryview) -> str:
    """Gives the seal of a file of the lake, which tells its rows from all others."""
    start = _find_seal(bytes(data))
    return bytes(data[start : start + len(_NO_SEAL)]).decode()


def check_seal(key: str, data: bytes) -> str:
    """Compares a file with its seal, and gives it.

    Raises:
        CorruptFileError: The bytes are not those that were written under this name.
    """
    start = _find_seal(data)
    seal = data[start : start + len(_NO_SEAL)]
    if start < 0 or seal != _make_seal(key, data, start):
        raise CorruptFileError(key, "its seal is missing" if start < 0 else "its bytes do not match its seal")
    return seal.decode()


def count_rows(key: str, data: bytes) -> tuple[int, str]:
    """Gives the number of rows of a file of the lake, and its seal.

    Raises:
        CorruptFileError: The bytes are not the whole file that was written under this name.
    """
    seal = check_seal(key, data)
    try:
        return pq.read_metadata(pa.BufferReader(data)).num_rows, seal
    except (pa.ArrowException, OSError) as problem:
        raise CorruptFileError(key, _summarise(problem)) from None


def decode(key: str, data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Parses a file of the lake.

    Args:
        key: Its name in the lake.
        data: Its bytes.
        columns: The columns to read; all when None.

    Raises:
        CorruptFileError: The bytes are not the whole file that was written under this name.
    """
    check_seal(key, data)
    return _parse(key, pa.BufferReader(data), columns)


def decode_parts(key: str, file: RawIOBase, columns: Sequence[str]) -> pa.Table:
    """Parses columns of a file of the lake, and reads no more of it than that takes.

    Pages are compared with their checksums, but not the file with its seal.

    Args:
        key: Its name in the lake.
        file: It, opened.
        columns: The columns to read.

    Raises:
        CorruptFileError: The bytes are no such file.
        OSError: They cannot be read.
    """
    return _parse(key, file, columns, pre_buffer=True)


def _parse(
    key: str, source: RawIOBase | pa.BufferReader, columns: Sequence[str] | None, *, pre_buffer: bool = False
) -> pa.Table:
    with _named_damage(key):
        file = pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=pre_buffer)
        table = file.read(columns=None if columns is None else list(columns), use_threads=False)
    if not table.num_columns:
        return table  # only its length is wanted, and new metadata would forget that
    metadata = {name: value for name, value in (table.schema.metadata or {}).items() if name != _SEAL_NAME.encode()}
    return table.replace_schema_metadata(metadata or None)


def decode_backwards(key: str, file: BinaryIO, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Parses row groups of a file of the lake, the last one first, and reads no more of it than that takes.

    Pages are compared with their checksums, but not the file with its seal: for hints, not for what is published.

    Args:
        key: Its name in the lake.
        file: It, opened.
        columns: The columns to read.

    Raises:
        CorruptFileError: The bytes are no such file.
        OSError: The system does not give them.
    """
    with _named_damage(key):
        parts = pq.ParquetFile(file, page_checksum_verification=True)
        for index in reversed(range(parts.num_row_groups)):
            yield parts.read_row_group(index, columns=list(columns), use_threads=False)


@contextmanager
def _named_damage(key: str) -> Iterator[None]:
    """Turns what pyarrow raises about bytes into a `CorruptFileError`; what the system raises stays what it is."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError) as problem:
        if isinstance(problem, OSError) and problem.errno is not None:  # pyarrow's own have none
            raise
        raise CorruptFileError(key, _summarise(problem)) from None


def _summarise(problem: Exception) -> str:
    first_line = str(problem).partition("\n")[0]
    return json.dumps(first_line[:120], ensure_ascii=True).strip('"') or type(problem).__name__
