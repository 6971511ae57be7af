"""The lake: paths, atomic writing, raw segments, table files and their schemas; the only code that touches storage."""

from calls_assets.lake.errors import CorruptFileError, LakeError
from calls_assets.lake.lake import RAW_PREFIX, SOURCE_KEY, TABLES_PREFIX, Lake, Published, RawDay, Segment
from calls_assets.lake.location import open_storage
from calls_assets.lake.mart_schemas import DATASETS, MARTS
from calls_assets.lake.raw import Read
from calls_assets.lake.schemas import CALL_EVENTS, CALL_RECORDS, DAILY_TABLES, TABLES, Table, describe
from calls_assets.lake.storage import LocalStorage, Storage, StoredFile
from calls_assets.lake.verify import Finding, verify

__all__ = [
    "CALL_EVENTS",
    "CALL_RECORDS",
    "DAILY_TABLES",
    "DATASETS",
    "MARTS",
    "RAW_PREFIX",
    "SOURCE_KEY",
    "TABLES",
    "TABLES_PREFIX",
    "CorruptFileError",
    "Finding",
    "Lake",
    "LakeError",
    "LocalStorage",
    "Published",
    "RawDay",
    "Read",
    "Segment",
    "Storage",
    "StoredFile",
    "Table",
    "describe",
    "open_storage",
    "verify",
]
