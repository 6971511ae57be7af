"""PyAirbyte as its documentation has it: the declarative connector into its DuckDB cache, then to Parquet."""

import os
from pathlib import Path

import airbyte as ab
import yaml

first, count = int(os.environ["FIRST_ID"]), int(os.environ["COUNT"])
out = Path(os.environ["OUT"])
source = ab.get_source(
    "source-calls",
    config={
        "base_url": os.environ["BASE_URL"],
        "token": os.environ["CALLS_API_TOKEN"],
        "in_flight": int(os.environ["IN_FLIGHT"]),
        "call_ids": [str(call_id) for call_id in range(first, first + count)],
    },
    source_manifest=yaml.safe_load((Path(__file__).parent / "airbyte_manifest.yaml").read_text()),
    streams=["calls"],
)
cache = ab.caches.DuckDBCache(db_path=out / "cache.duckdb", cache_dir=out / "cache")
result = source.read(cache=cache)
frame = result["calls"].to_pandas()
assert len(frame) == count
frame.to_parquet(out / "calls.parquet")
