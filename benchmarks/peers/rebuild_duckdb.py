"""Raw records to all daily tables by DuckDB: every day's statements of rebuild_duckdb.sql.

python benchmarks/peers/rebuild_duckdb.py LAKE OUT THREADS PROCESSES

Of several processes each takes its share of the days.
"""

import sys
import time
from functools import partial
from pathlib import Path

import duckdb
from shared_days import peak_memory, share_days

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
    """Makes the tables of every day; prints when it began and the peak of memory of all processes together, in MiB."""
    started = time.monotonic()
    lake, out, threads, processes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    folders = sorted((lake / "raw/call_records").iterdir())
    print(started, share_days(partial(publish, out, threads), folders, processes))


def publish(out: Path, threads: int, folders: list[Path]) -> float:
    """Makes the tables of some days below OUT; gives this process's peak of memory."""
    sql = Path(__file__).with_suffix(".sql").read_text()
    with duckdb.connect(config={"threads": threads}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for folder in folders:
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
    return peak_memory()


if __name__ == "__main__":
    main()
