"""What the queries of each refresh read after months of deletes, edits and vacuums.

    python -m mastodon_assets_tests.benchmarks.indexes DATABASE_URL [rows]

It drops and recreates the schema `masto`. History is written in ten parts. After each, a
twentieth of the posts is deleted and another one edited, and a vacuum lets new rows fill the holes.
It prints the plan's kind of scan, blocks read and milliseconds of each query.
"""

import sys
from typing import Any

from psycopg import Connection
from pydantic import SecretStr

from mastodon_assets.stream.windows import WINDOW_SUMS, rebuild_windows
from mastodon_assets.warehouse.database import connect
from mastodon_assets.warehouse.migrate import migrate
from mastodon_assets.warehouse.post_sums import ALL_POSTS, POST_SUMS
from mastodon_assets.warehouse.sum_tables import correct_sums

_PARTS, _DAYS_PER_PART = 10, 18
_INSERT = """
INSERT INTO masto.toots_raw (
    id, created_at, received_at, event_at, payload_hash, favourites, reblogs, replies, is_bot,
    is_sensitive, instance, status_id, uri, username, lang, hashtags, content_txt)
SELECT hashtextextended('h' || n, 42), at, at, at, n, 0, 0, 0, false, false, 'one.example',
       'h' || n, 'https://one.example/' || n, 'user' || n %% 50000 || '@one.example', 'en',
       ARRAY['news', 'tag' || n %% 500], repeat('garden train ', 8)
  FROM (SELECT n, timestamptz '2026-01-01T00:00Z'
                  + n * (interval '1 day' * %(days)s / %(rows)s) AS at
          FROM generate_series(%(first)s::bigint, %(last)s::bigint) n) numbered
"""
_ALIASES = """
INSERT INTO masto.toot_aliases (instance, status_id, id)
SELECT instance, status_id, id FROM masto.toots_raw ON CONFLICT DO NOTHING
"""
_CHANGES = (
    "DELETE FROM masto.toots_raw WHERE payload_hash %% 20 = %s",
    "UPDATE masto.toots_raw SET content_txt = content_txt || ' edited'"
    " WHERE payload_hash %% 20 = (%s + 7) %% 20",
)
_QUERIES = {
    "posts of a day": "SELECT count(*) FROM masto.toots_raw"
    " WHERE event_at >= '2026-04-11T00:00Z' AND event_at < '2026-04-12T00:00Z'",
    "windows of a day": "SELECT sum(toots_count) FROM masto.toot_metrics_windowed"
    " WHERE window_start >= '2026-04-11T00:00Z' AND window_start < '2026-04-12T00:00Z'",
    "windows of users of a day": "SELECT sum(toots_count) FROM masto.user_avg_length_windowed"
    " WHERE window_start >= '2026-04-11T00:00Z' AND window_start < '2026-04-12T00:00Z'",
    "the oldest 1,000 posts": "SELECT id FROM masto.toots_raw"
    " WHERE event_at < '2026-03-01' ORDER BY event_at, id LIMIT 1000",
    "aliases of 1,000 posts": "SELECT count(*) FROM masto.toot_aliases WHERE id IN"
    " (SELECT id FROM masto.toots_raw ORDER BY id LIMIT 1000)",
    "posts that wait for a score": "SELECT count(*) FROM masto.toots_unscored",
    "days that changed": "SELECT day FROM masto.day_totals WHERE toots_version > 1",
}


def main(url: SecretStr, rows: int) -> None:
    """Fill the tables, and print a line per query."""
    with connect(url) as connection:
        connection.execute("DROP SCHEMA IF EXISTS masto CASCADE")
    migrate(url)
    with connect(url) as connection:
        for part in range(_PARTS):
            _write_part(connection, rows, part)
        for window in WINDOW_SUMS.values():
            rebuild_windows(connection, window.table)
        for sums in POST_SUMS:
            query = sums.query(ALL_POSTS)
            correct_sums(connection, sums.sum_table, lambda _, query=query: query)  # type: ignore[misc]
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE")
        blocks = connection.execute("SELECT pg_relation_size('masto.toots_raw') / 8192").fetchone()
        sys.stdout.write(f"{rows:,} posts written, {blocks[0] if blocks else 0:,} blocks\n")
        for name, query_text in _QUERIES.items():
            _explain(connection, name, query_text)


def _write_part(connection: Connection[Any], rows: int, part: int) -> None:
    size = rows // _PARTS
    bounds = {"first": part * size, "last": (part + 1) * size - 1}
    connection.execute(_INSERT, {**bounds, "rows": rows, "days": _PARTS * _DAYS_PER_PART})
    connection.execute(_ALIASES)
    for change in _CHANGES:
        connection.execute(change.encode(), (part,))
    connection.commit()
    connection.autocommit = True
    connection.execute("VACUUM masto.toots_raw")
    connection.autocommit = False


def _explain(connection: Connection[Any], name: str, query: str) -> None:
    found = connection.execute(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}".encode()
    ).fetchone()
    assert found is not None
    (document,) = found[0]
    plan = document["Plan"]
    blocks = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    sys.stdout.write(
        f"{name}: {', '.join(_scans(plan))}; {blocks:,} blocks,"
        f" {document['Execution Time']:.1f} ms\n"
    )


def _scans(plan: dict[str, Any]) -> list[str]:
    own = [f"{plan['Node Type']} {plan.get('Index Name', '')}".strip()]
    inner = [scan for child in plan.get("Plans", []) for scan in _scans(child)]
    return inner or own


if __name__ == "__main__":
    main(SecretStr(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2_000_000)
