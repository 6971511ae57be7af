#!/bin/sh
# Backs up a lake while it is in use, and, when its directory is given, Dagster's SQLite storage.
#   deploy/backup.sh DATA_DIR DESTINATION [DAGSTER_HOME]
# Restoring: docs/operations.md, Backup and restore. Drilled by calls_assets_tests/e2e/test_backup.py.
set -eu
data=$1
to=$2
home=${3:-}
umask 077
mkdir -p "$to/lake"
cp -a "$data/lake.json" "$to/lake/"
# Raw is never edited: files are added, and go when they have been merged into another one. So a pass in which a file went
# is repeated. The second pass takes what was stored in another day while the first one was at work.
pass=1
until copied=true
  for tree in raw inbox; do
    [ ! -d "$data/$tree" ] || cp -au "$data/$tree" "$to/lake/" || copied=false
  done
  [ "$pass" -ge 2 ] && $copied
do
  if [ "$pass" -ge 20 ]; then
    echo "backup.sh: files still go while they are copied, or cannot be: see above" >&2
    exit 1
  fi
  pass=$((pass + 1))
done
# A copy of a database in use may be torn; its own backup is not. (With PostgreSQL: pg_dump.)
if [ -n "$home" ]; then
  "${PYTHON:-python3}" - "$home" "$to/dagster_home" <<'PYTHON'
import contextlib, pathlib, shutil, sqlite3, sys

source, target = map(pathlib.Path, sys.argv[1:])
target.mkdir(parents=True, exist_ok=True)
for path in source.rglob("*.db"):
    copy = target / path.relative_to(source)
    copy.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as old, contextlib.closing(sqlite3.connect(copy)) as new:
        old.backup(new)
if (source / "dagster.yaml").exists():
    shutil.copy2(source / "dagster.yaml", target)
PYTHON
fi
