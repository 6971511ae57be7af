#!/bin/sh
# Secrets come as files; what can only be given as a variable is read from the file that <NAME>_FILE names.
# (CALLS_API_TOKEN_FILE is not among them: calls-assets reads that file itself, again when the token is refused.)
set -eu
for name in DAGSTER_POSTGRES_PASSWORD CALLS_WEBHOOK_SECRET CALLS_WEBHOOK_SIGNING_KEY CALLS_ALERT_URL; do
  eval "file=\${${name}_FILE:-}"
  if [ -n "$file" ]; then
    value=$(cat "$file")
    export "$name=$value"
  fi
done
exec "$@"
