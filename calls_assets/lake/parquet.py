"""Parquet: tables to bytes and back, with the settings every file of the lake has.

What belongs here: the codec. What stays out: where the bytes go. Files are made in memory, because writing to a final
path is not atomic; page checksums are written and verified.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from calls_assets.lake.errors import CorruptFileError

ROW_GROUP_ROWS = 122_880


def encode(table: pa.Table) -> memoryview:
    """Serialises a table; the same rows give the same bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=3,
        row_group_size=ROW_GROUP_ROWS,
        write_statistics=True,
        write_page_index=True,
        write_page_checksum=True,
    )
    return memoryview(sink.getvalue())


def decode(key: str, data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Parses a file of the lake.

    Args:
        key: Its name, for the error.
        data: Its bytes.
        columns: The columns to read; all when None.

    Raises:
        CorruptFileError: The bytes are not the whole file that was written.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        return file.read(columns=None if columns is None else list(columns), use_threads=False)
    except (pa.ArrowException, OSError, ValueError, KeyError) as problem:
        raise CorruptFileError(key, _summarise(problem)) from None


def _summarise(problem: Exception) -> str:
    first_line = str(problem).partition("\n")[0]
    return json.dumps(first_line[:120], ensure_ascii=True).strip('"') or type(problem).__name__
