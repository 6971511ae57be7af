"""Raw records to all daily tables by DuckDB: every day's statements of rebuild_duckdb.sql.

python benchmarks/peers/rebuild_duckdb.py LAKE OUT THREADS
"""

import sys
import time
from pathlib import Path

import duckdb

TABLES = (
    "call_agents",
    "recordings",
    "dispositions",
    "call_tags",
    "external_numbers",
    "call_changes",
    "calls",
)
OPTIONS = "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 3, ROW_GROUP_SIZE 122880)"


def main() -> None:
    """Makes the tables of every day below OUT; prints when it began and the peak of memory in MiB."""
    started = time.monotonic()
    lake, out, threads = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    sql = Path(__file__).with_suffix(".sql").read_text()
    with duckdb.connect(config={"threads": threads}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for folder in sorted((lake / "raw/call_records").iterdir()):
            texts = {
                "segments": f"'{folder}/*.parquet'",
                "day": f"'{folder.name.removeprefix('call_date=')}'",
                "rung": str(7 * 86_400),
                "options": OPTIONS,
            }
            for name in TABLES:
                target = out / name / folder.name
                target.mkdir(parents=True, exist_ok=True)
                texts[name] = f"'{target}/{name}.parquet'"
            statements = sql
            for name in sorted(texts, key=len, reverse=True):
                statements = statements.replace(f"${name}", texts[name])
            connection.execute(statements)
    status = Path("/proc/self/status").read_text()
    print(started, int(status.partition("VmHWM:")[2].split()[0]) / 1024)


if __name__ == "__main__":
    main()
