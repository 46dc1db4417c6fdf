"""What a large table costs: bytes a row, and the drain's speed there against empty tables.

    python -m mastodon_assets_tests.benchmarks.size --rows 10000000 --json size.json

The history is put in by SQL, with aliases and windows, as the sink would leave it. Each drain is
`mastodon-assets stream --until-caught-up` of the same messages, from a cold JVM.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from psycopg import Connection
from rich.console import Console
from rich.table import Table

from mastodon_assets.embedded import stack as embedded
from mastodon_assets.stream.windows import rebuild_windows
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.tables import TOOT_METRICS_WINDOWED, USER_AVG_LENGTH_WINDOWED
from mastodon_assets_tests.benchmarks.drain import _TOPIC, _produce, _run
from mastodon_assets_tests.support.databases import new_database

_ROWS_AT_ONCE = 500_000
# 20 words a post, as the messages of the drain have.
_HISTORY = """
INSERT INTO masto.toots_raw (
    id, created_at, received_at, event_at, payload_hash, favourites, reblogs, replies, is_bot,
    is_sensitive, instance, status_id, uri, username, user_id, lang, visibility, hashtags,
    content_txt, content_html)
SELECT hashtextextended('h' || n, 42), at, at, at, n, 0, 0, 0, false, false, 'one.example',
       'h' || n, 'https://one.example/users/ada/statuses/h' || n,
       'user' || n %% 50000 || '@one.example', '7', 'en', 'public',
       ARRAY['news', 'tag' || n %% 500],
       repeat('garden train ', 8), '<p>' || repeat('garden train ', 8) || '</p>'
  FROM (SELECT n, timestamptz '2026-11-13T00:00Z'
                  - (%(rows)s - n) * (%(days)s * interval '1 day' / %(rows)s) AS at
          FROM generate_series(%(first)s::bigint, %(last)s::bigint) n) numbered
"""
_ALIASES = """
INSERT INTO masto.toot_aliases (instance, status_id, id)
SELECT instance, status_id, id FROM masto.toots_raw
"""
_SIZES = """
SELECT relname, pg_total_relation_size(oid) FROM pg_class
 WHERE oid = ANY(ARRAY['masto.toots_raw', 'masto.toot_aliases', 'masto.toot_metrics_windowed',
                       'masto.user_avg_length_windowed']::regclass[])
"""


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "state"
        stack = embedded.up(home, topics=[_TOPIC, "mastodon_errors"])
        drain = ("-m", "mastodon_assets.cli.main", "stream", "--until-caught-up")
        try:
            _produce(stack.kafka_access, arguments.messages)
            with new_database(stack) as url:
                on_empty = arguments.messages / _run(stack, url, *drain)
            with new_database(stack) as url:
                with transaction(url) as connection:
                    put_history(connection, arguments.rows)
                with transaction(url) as connection:
                    connection.autocommit = True
                    connection.execute("VACUUM ANALYZE")
                    sizes = dict(connection.execute(_SIZES).fetchall())
                on_large = arguments.messages / _run(stack, url, *drain)
        finally:
            embedded.down(home, wipe=True)
    result = {
        "rows": arguments.rows,
        **{f"bytes_a_row_{name}": round(size / arguments.rows) for name, size in sizes.items()},
        "messages_a_second_on_empty": round(on_empty),
        "messages_a_second_on_large": round(on_large),
        "ratio": round(on_large / on_empty, 2),
        "load": round(os.getloadavg()[0], 2),
    }
    table = Table("what", "value", box=None)
    for name, value in result.items():
        table.add_row(name, f"{value:,}")
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


def put_history(connection: Connection[Any], rows: int, days: int = 180) -> None:
    """Insert posts of the days before those of the messages, with aliases and windows; commit."""
    put_posts(connection, rows, days)
    for table in (TOOT_METRICS_WINDOWED, USER_AVG_LENGTH_WINDOWED):
        rebuild_windows(connection, table)


def put_posts(connection: Connection[Any], rows: int, days: int = 180) -> None:
    """Insert posts of the days before those of the messages, with aliases."""
    for first in range(0, rows, _ROWS_AT_ONCE):
        last = min(first + _ROWS_AT_ONCE, rows) - 1
        connection.execute(_HISTORY, {"first": first, "last": last, "rows": rows, "days": days})
    connection.execute(_ALIASES)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--messages", type=int, default=500_000)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
