#!/usr/bin/env bash
# `make demo`: starts the simulator, materializes seven days through Dagster, shows what came out.
# The days and the account are remembered in .demo, so that a second run asks for nothing that is final.
set -euo pipefail
port=8765
url="http://127.0.0.1:$port"
mkdir -p .demo/dagster .demo/data
cp dagster.yaml .demo/dagster/dagster.yaml
if [ ! -s .demo/days ]; then
  python -c 'from datetime import date, timedelta as d; t = date.today(); print(t - d(16), t - d(10), t - d(45))' >.demo/days
fi
read -r first last begin <.demo/days

calls-assets simulate --port "$port" --first-day "$begin" --calls-per-day 400 >.demo/simulator.log 2>&1 &
simulator=$!
trap 'kill "$simulator" 2>/dev/null || true; wait "$simulator" 2>/dev/null || true' EXIT
for _ in $(seq 100); do
  if ! kill -0 "$simulator" 2>/dev/null; then
    cat .demo/simulator.log >&2
    exit 1
  fi
  if python -c "import urllib.request; urllib.request.urlopen('$url/stats', timeout=1)" 2>/dev/null; then break; fi
  sleep 0.1
done

export DAGSTER_HOME="$PWD/.demo/dagster" CALLS_DATA_DIR="$PWD/.demo/data"
export CALLS_API_BASE_URL="$url" CALLS_API_TOKEN=simulator-token CALLS_API_REQUESTS_PER_SECOND=500
export CALLS_TIMEZONE=America/New_York CALLS_START_DATE="$begin" CALLS_BACKFILL_DAYS_PER_RUN=0
unset CALLS_API_TOKEN_FILE CALLS_ID_SCAN CALLS_REREAD_AFTER CALLS_API_CONCURRENCY 2>/dev/null || true

echo "Materializing $first to $last from the simulator with Dagster (log: .demo/run.log) …"
if ! dagster asset materialize -m calls_assets.definitions --select '*' --partition-range "$first...$last" >.demo/run.log 2>&1; then
  grep -E "Failure|Error" .demo/run.log | tail -5 >&2
  echo "The run failed; the whole log is .demo/run.log" >&2
  exit 1
fi
calls-assets summary --from "$first" --to "$last" --stats "$url/stats"

cat <<TEXT

pandas:
  >>> calls = pd.read_parquet("$CALLS_DATA_DIR/tables/calls")
  >>> calls.groupby(["call_date", "is_inbound"], observed=True)["is_answered"].agg(["size", "mean"])
TEXT
python - <<'PYTHON'
import os

import pandas as pd

calls = pd.read_parquet(os.environ["CALLS_DATA_DIR"] + "/tables/calls")
print(calls.groupby(["call_date", "is_inbound"], observed=True)["is_answered"].agg(["size", "mean"]).tail(4).to_string())
PYTHON
query="SELECT call_date, code, count(*) AS calls FROM read_parquet('$CALLS_DATA_DIR/tables/dispositions/*/*.parquet', hive_partitioning = true)
GROUP BY ALL ORDER BY call_date DESC, calls DESC LIMIT 4"
printf '\nSQL (DuckDB):\n%s\n' "$query"
QUERY="$query" python -c 'import os, duckdb; print(duckdb.sql(os.environ["QUERY"]))'
cat <<TEXT
Where to look next:
  make dev                       the Dagster UI on this lake, sensor and schedule at work
  .demo/data/reports/latest.html  the newest day on one page
  docs/data-dictionary.md        every table and column
  docs/operations.md             running it on the real API
  calls-assets --help            plan, verify, doctor
TEXT
