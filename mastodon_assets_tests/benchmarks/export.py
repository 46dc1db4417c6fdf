"""What `export` needs for a day of many posts: peak memory, seconds, bytes.

    python -m mastodon_assets_tests.benchmarks.export DATABASE_URL [--posts 100000 2000000]

It drops and recreates the schema `masto` for each number. All posts are of one day, so of one file
per table. The memory must not grow with their number.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from psycopg import Connection
from pydantic import SecretStr
from rich.console import Console

from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.migrate import migrate
from mastodon_assets_tests.benchmarks.size import _HISTORY, _ROWS_AT_ONCE

_DAY = "2026-11-12"
_LINK = '<a href="https://one.example/read">read</a></p>'


def main() -> None:
    """Fill, export, print as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database_url")
    parser.add_argument("--posts", type=int, nargs="+", default=[100_000, 2_000_000])
    arguments = parser.parse_args()
    for posts in arguments.posts:
        Console().print_json(json.dumps(_measured(arguments.database_url, posts)))


def _measured(url: str, posts: int) -> dict[str, float]:
    with transaction(SecretStr(url)) as connection:
        connection.execute("DROP SCHEMA IF EXISTS masto CASCADE")
    migrate(SecretStr(url))
    with transaction(SecretStr(url)) as connection:
        _fill(connection, posts)
    with tempfile.TemporaryDirectory() as folder:
        began_at = time.monotonic()
        peak = _export(url, folder)
        seconds = time.monotonic() - began_at
        sizes = sum(file.stat().st_size for file in Path(folder).rglob("*.parquet"))
    return {
        "posts": posts,
        "peak_mebibytes": round(peak),
        "seconds": round(seconds, 1),
        "mebibytes_written": round(sizes / 2**20, 1),
        "load": round(os.getloadavg()[0], 1),
    }


def _fill(connection: Connection, posts: int) -> None:
    statement = _HISTORY.replace("'</p>'", f"'{_LINK}'").encode()
    for first in range(0, posts, _ROWS_AT_ONCE):
        last = min(first + _ROWS_AT_ONCE, posts) - 1
        values = {"first": first, "last": last, "rows": posts, "days": 1}
        connection.execute(statement, values)
        connection.commit()


def _export(url: str, folder: str) -> float:
    """Run the command; return its peak memory in MiB."""
    command = [sys.executable, "-m", "mastodon_assets.cli.main", "export", folder, "--from", _DAY]
    process = os.posix_spawn(command[0], command, {**os.environ, "DATABASE_URL": url})
    _, status, usage = os.wait4(process, 0)
    assert status == 0
    return usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
