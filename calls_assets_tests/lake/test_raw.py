"""Property tests of raw: a day is a set of reads, however it is stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from calls_assets.lake.raw import Read, hash_content, merge_rows, reads_to_rows, rows_to_newest, rows_to_versions
from calls_assets.lake.schemas import CALL_RECORDS

START = datetime(2025, 5, 20, 12, tzinfo=UTC)


def make_read(call_id: int, minute: int, body: str | None) -> Read:
    """Makes a read whose fields follow from its content; body None is a 404, "!" a quarantined body."""
    is_call = body is not None and body != "!"
    return Read(
        call_id=call_id,
        fetched_at=START + timedelta(minutes=minute),
        http_status=404 if body is None else 200,
        started_at=START if is_call else None,
        is_ended=True if is_call else None,
        error="not JSON" if body == "!" else None,
        payload=None if body is None else body.encode(),
    )


READS = st.lists(
    st.builds(make_read, st.integers(1, 4), st.integers(0, 6), st.sampled_from([None, "!", "a", "b"])), max_size=25
)


def split(reads: list[Read], cuts: list[int]) -> list[pa.Table]:
    """Cuts reads into segments."""
    edges = [0, *sorted(min(cut, len(reads)) for cut in cuts), len(reads)]
    parts = [reads[a:b] for a, b in pairwise(edges)]
    return [reads_to_rows(part) for part in parts if part] or [CALL_RECORDS.schema.empty_table()]


def expected_versions(reads: list[Read]) -> list[tuple[Any, ...]]:
    """Says in plain Python what versions are."""
    distinct = {(r.call_id, r.fetched_at, hash_content(r.http_status, r.payload)): r for r in reads}
    rows: list[tuple[Any, ...]] = []
    for (call_id, digest), group in groupby(
        (distinct[key] for key in sorted(distinct)), lambda r: (r.call_id, hash_content(r.http_status, r.payload))
    ):
        run = list(group)
        rows.append((call_id, digest, run[0].payload, run[0].error, run[0].fetched_at, run[-1].fetched_at, len(run)))
    return rows


def seen_versions(rows: pa.Table) -> list[tuple[Any, ...]]:
    """Gives the same columns of what the code made."""
    names = ("call_id", "content_hash", "payload", "error", "first_read_at", "last_read_at", "read_count")
    return [tuple(row[name] for name in names) for row in rows_to_versions(rows).to_pylist()]


@given(READS, st.lists(st.integers(0, 25), max_size=4))
def test_versions_are_the_runs_of_equal_answers(reads: list[Read], cuts: list[int]) -> None:
    """However the reads are spread over segments, and in whatever order."""
    assert seen_versions(pa.concat_tables(split(reads, cuts))) == expected_versions(reads)


@given(READS, st.lists(st.integers(0, 25), max_size=4), st.integers(0, 5))
def test_merging_changes_nothing_that_is_read(reads: list[Read], cuts: list[int], crash: int) -> None:
    """Not even when only some of the merged segments were deleted, or two merged the same ones at once."""
    segments = split(reads, cuts)
    merged = merge_rows(pa.concat_tables(segments))
    assert seen_versions(merged) == expected_versions(reads)
    left_over = pa.concat_tables([merged, merge_rows(merged), *segments[crash:]])
    assert seen_versions(left_over) == expected_versions(reads)
    assert merge_rows(left_over).equals(merged)


@given(READS)
def test_a_content_of_an_id_is_stored_once(reads: list[Read]) -> None:
    """Re-reads of the same body cost eight bytes, not a body."""
    merged = merge_rows(pa.concat_tables(split(reads, [3, 9])))
    keys = [(row["call_id"], row["content_hash"]) for row in merged.to_pylist()]
    assert len(set(keys)) == len(keys)
    assert [(row["call_id"], row["fetched_at"]) for row in merged.to_pylist()] == sorted(
        (row["call_id"], max(row["reads"])) for row in merged.to_pylist()
    )


@given(READS, st.lists(st.integers(0, 25), max_size=4))
def test_the_index_tells_the_newest_read(reads: list[Read], cuts: list[int]) -> None:
    """The newest instant and the number of distinct reads of every id."""
    rows = pa.concat_tables(split(reads, cuts))
    row, read_us, count = rows_to_newest(rows)
    ids = rows["call_id"].to_numpy()[row].tolist()
    versions = expected_versions(reads)
    newest = {v[0]: v[5] for v in versions}
    assert ids == sorted(newest)
    assert [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(us)) for us in read_us] == [
        newest[i] for i in ids
    ]
    assert count.tolist() == [sum(v[6] for v in versions if v[0] == i) for i in ids]
