#!/usr/bin/env bash
# `make dev`: the Dagster UI, on the API that .env names, else on the simulator and the demo's lake.
set -euo pipefail
if [ -f .env ]; then
  home="$PWD/.dagster"
else
  port=8765
  home="$PWD/.demo/dagster"
  mkdir -p .demo/data "$home"
  if [ ! -s .demo/days ]; then
    python -c 'from datetime import date, timedelta as d; t = date.today(); print(t - d(16), t - d(10), t - d(45))' >.demo/days
  fi
  read -r _ _ begin <.demo/days
  calls-assets simulate --port "$port" --first-day "$begin" --calls-per-day 400 >.demo/simulator.log 2>&1 &
  simulator=$!
  trap 'kill "$simulator" 2>/dev/null || true' EXIT
  sleep 2
  if ! kill -0 "$simulator" 2>/dev/null; then
    cat .demo/simulator.log >&2
    exit 1
  fi
  export CALLS_DATA_DIR="$PWD/.demo/data" CALLS_API_BASE_URL="http://127.0.0.1:$port" CALLS_API_TOKEN=simulator-token
  export CALLS_TIMEZONE=America/New_York CALLS_START_DATE="$begin" CALLS_API_REQUESTS_PER_SECOND=100
  echo "No .env: the UI shows the simulator's account (invented people and numbers)."
fi
mkdir -p "$home"
cp dagster.yaml "$home/dagster.yaml"
export DAGSTER_HOME="$home"
echo "Dagster UI: http://127.0.0.1:${DAGSTER_PORT:-3000}"
dagster dev -w workspace.yaml --host 127.0.0.1 --port "${DAGSTER_PORT:-3000}"
