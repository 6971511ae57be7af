"""dlt at its best: an asynchronous transformer over aiohttp, loaded as Parquet files.

No retries: the first 500 ends it. EXTRACT__MAX_PARALLEL_ITEMS says how many requests are in flight. With
`--flat`, nested lists stay JSON in a column instead of becoming child tables; with `--extract`, nothing but the
extraction runs, which leaves dlt's own intermediate files. With `--pages`, ids and calls go through dlt's pipes by the
hundred, as its page on performance advises; four pages are under way then, with as many requests between them.
"""

import asyncio
import os
import sys
from collections.abc import Iterator
from typing import Any

import aiohttp
import dlt

PAGE = 100 if "--pages" in sys.argv else None
if PAGE:
    os.environ["EXTRACT__MAX_PARALLEL_ITEMS"] = "4"
sessions: list[aiohttp.ClientSession] = []


@dlt.resource
def call_ids() -> Iterator[int | list[int]]:
    """Gives every id, or page of ids."""
    first, count = int(os.environ["FIRST_ID"]), int(os.environ["COUNT"])
    ids = range(first, first + count)
    yield from ids if PAGE is None else (list(ids[at : at + PAGE]) for at in range(0, count, PAGE))


@dlt.transformer(data_from=call_ids, primary_key="id", max_table_nesting=0 if "--flat" in sys.argv else None)
async def calls(wanted: int | list[int]) -> dict[str, Any] | list[dict[str, Any]]:
    """Gives one call, or a page of them."""
    if not sessions:
        limit = int(os.environ["IN_FLIGHT"]) if PAGE else 0
        sessions.append(
            aiohttp.ClientSession(
                headers={"Access-Token": os.environ["CALLS_API_TOKEN"]}, connector=aiohttp.TCPConnector(limit=limit)
            )
        )
    return await asyncio.gather(*map(fetch, wanted)) if isinstance(wanted, list) else await fetch(wanted)


async def fetch(call_id: int) -> dict[str, Any]:
    """Asks for one call."""
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
