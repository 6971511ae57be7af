"""dlt at its best: an asynchronous transformer over aiohttp, loaded as Parquet files.

No retries: the first 500 ends it. EXTRACT__MAX_PARALLEL_ITEMS says how many requests are in flight. With
`--flat`, nested lists stay JSON in a column instead of becoming child tables; with `--extract`, nothing but the
extraction runs, which leaves dlt's own intermediate files.
"""

import os
import sys
from collections.abc import Iterator
from typing import Any

import aiohttp
import dlt

sessions: list[aiohttp.ClientSession] = []


@dlt.resource
def call_ids() -> Iterator[int]:
    """Gives every id."""
    first = int(os.environ["FIRST_ID"])
    yield from range(first, first + int(os.environ["COUNT"]))


@dlt.transformer(data_from=call_ids, primary_key="id", max_table_nesting=0 if "--flat" in sys.argv else None)
async def calls(call_id: int) -> dict[str, Any]:
    """Gives one call."""
    if not sessions:
        sessions.append(
            aiohttp.ClientSession(
                headers={"Access-Token": os.environ["CALLS_API_TOKEN"]}, connector=aiohttp.TCPConnector(limit=0)
            )
        )
    async with sessions[0].get(f"{os.environ['BASE_URL']}/calls/{call_id}") as response:
        response.raise_for_status()
        return (await response.json())["calls"]


pipeline = dlt.pipeline(
    "calls",
    pipelines_dir=os.environ["OUT"] + "/state",
    destination=dlt.destinations.filesystem(bucket_url=os.environ["OUT"] + "/lake"),
    dataset_name="calls",
)
if "--extract" in sys.argv:
    pipeline.extract(calls, loader_file_format="parquet")
else:
    pipeline.run(calls, loader_file_format="parquet")
    assert pipeline.last_trace.last_normalize_info.row_counts["calls"] == int(os.environ["COUNT"])
