"""Airbyte CDK: a declarative connector, run as its command runs it, records as JSON lines on standard output.

Retries; nothing typed or stored. With RATE its own call-rate policy holds requests back.
"""

import json
import os
import sys
from pathlib import Path

import yaml
from airbyte_cdk.cli.source_declarative_manifest import run

first, count = int(os.environ["FIRST_ID"]), int(os.environ["COUNT"])
here, out = Path(__file__).parent, Path(os.environ["OUT"])
manifest = yaml.safe_load((here / "airbyte_manifest.yaml").read_text())
if "RATE" in os.environ:
    policy = {
        "type": "MovingWindowCallRatePolicy",
        "rates": [{"type": "Rate", "limit": int(os.environ["RATE"]), "interval": "PT1S"}],
        "matchers": [],
    }
    manifest["api_budget"] = {"type": "HTTPAPIBudget", "policies": [policy]}
config = {
    "base_url": os.environ["BASE_URL"],
    "token": os.environ["CALLS_API_TOKEN"],
    "in_flight": int(os.environ["IN_FLIGHT"]),
    "call_ids": [str(call_id) for call_id in range(first, first + count)],
}
stream = {
    "name": "calls",
    "json_schema": manifest["streams"][0]["schema_loader"]["schema"],
    "supported_sync_modes": ["full_refresh"],
}
catalog = {"streams": [{"stream": stream, "sync_mode": "full_refresh", "destination_sync_mode": "overwrite"}]}
paths = {}
for name, content in {"config": config, "catalog": catalog, "manifest": manifest}.items():
    path = paths[name] = out / f"{name}.{'yaml' if name == 'manifest' else 'json'}"
    path.write_text(json.dumps(content))
arguments = ["read", "--config", str(paths["config"]), "--catalog", str(paths["catalog"])]
sys.argv = ["source-declarative-manifest", *arguments, "--manifest-path", str(paths["manifest"])]
run()
