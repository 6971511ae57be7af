"""dlt as its documentation has it: a parallelized transformer with dlt's own requests, loaded as Parquet files.

Retries (dlt's session); nested lists become child tables. The number of threads is set by EXTRACT__WORKERS.
"""

import os
from collections.abc import Iterator
from typing import Any

import dlt
from dlt.sources.helpers import requests


@dlt.resource
def call_ids() -> Iterator[int]:
    """Gives every id."""
    first = int(os.environ["FIRST_ID"])
    yield from range(first, first + int(os.environ["COUNT"]))


@dlt.transformer(data_from=call_ids, parallelized=True, primary_key="id")
def calls(call_id: int) -> dict[str, Any]:
    """Gives one call."""
    response = requests.get(
        f"{os.environ['BASE_URL']}/calls/{call_id}", headers={"Access-Token": os.environ["CALLS_API_TOKEN"]}
    )
    response.raise_for_status()
    return response.json()["calls"]


pipeline = dlt.pipeline(
    "calls",
    pipelines_dir=os.environ["OUT"] + "/state",
    destination=dlt.destinations.filesystem(bucket_url=os.environ["OUT"] + "/lake"),
    dataset_name="calls",
)
pipeline.run(calls, loader_file_format="parquet")
assert pipeline.last_trace.last_normalize_info.row_counts["calls"] == int(os.environ["COUNT"])
