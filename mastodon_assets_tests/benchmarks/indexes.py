"""What the queries of each refresh read after months of deletes, edits and vacuums.

    python -m mastodon_assets_tests.benchmarks.indexes DATABASE_URL [rows]

It drops and recreates the schema `masto`, and needs PostgreSQL 18. History is written in ten parts,
and each change moves windows and sums, as the merge does. After each part, a twentieth of the posts
is deleted and another one edited, and a vacuum lets new rows fill the holes. It prints the seconds
of each part, and the kind of scan, blocks read and milliseconds of each query.
"""

import sys
import time
from typing import Any, LiteralString

from psycopg import Connection
from pydantic import SecretStr

from mastodon_assets.stream import windows
from mastodon_assets.stream.merge import prepare_session
from mastodon_assets.warehouse import post_sums
from mastodon_assets.warehouse.database import connect
from mastodon_assets.warehouse.migrate import migrate
from mastodon_assets.warehouse.staging import with_staging
from mastodon_assets.warehouse.watermarks import bump_toots_version

_PARTS, _DAYS_PER_PART = 10, 18
_ROWS_AT_ONCE = 250_000
_INSERT: LiteralString = """
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
_DELETE: LiteralString = "DELETE FROM masto.toots_raw WHERE payload_hash %% 20 = %(part)s"
_EDIT: LiteralString = """
UPDATE masto.toots_raw SET content_txt = content_txt || ' edited'
 WHERE payload_hash %% 20 = (%(part)s + 7) %% 20
"""
_STAGED: LiteralString = """
WITH changed AS (
    {change}
    RETURNING old.id AS old_id, old.event_at AS old_at, old.lang AS old_lang,
              old.username AS old_name, char_length(old.content_txt) AS old_length,
              old.hashtags AS old_tags,
              new.id AS new_id, new.event_at AS new_at, new.lang AS new_lang,
              new.username AS new_name, char_length(new.content_txt) AS new_length,
              new.hashtags AS new_tags)
INSERT INTO {row_changes} (sign, id, event_at, lang, username, length, hashtags)
SELECT -1, old_id, old_at, old_lang, old_name, old_length, old_tags
  FROM changed WHERE old_id IS NOT NULL
 UNION ALL
SELECT 1, new_id, new_at, new_lang, new_name, new_length, new_tags
  FROM changed WHERE new_id IS NOT NULL
"""
_STORE_ALIASES = with_staging(
    """
INSERT INTO masto.toot_aliases (instance, status_id, id)
SELECT 'one.example', status_id, id FROM {row_changes} JOIN masto.toots_raw USING (id)
"""
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
    """Fill the tables, and print a line per part and per query."""
    with connect(url) as connection:
        connection.execute("DROP SCHEMA IF EXISTS masto CASCADE")
    migrate(url)
    with connect(url) as connection:
        prepare_session(connection)
        # A crash would only mean to start again.
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET maintenance_work_mem = '512MB'")
        connection.commit()
        for part in range(_PARTS):
            began_at = time.monotonic()
            _write_part(connection, rows, part)
            _say(f"part {part + 1} of {_PARTS} in {time.monotonic() - began_at:.0f} s")
        _vacuum(connection, "VACUUM ANALYZE")
        blocks = connection.execute("SELECT pg_relation_size('masto.toots_raw') / 8192").fetchone()
        _say(f"{rows:,} posts written, {blocks[0] if blocks else 0:,} blocks")
        for name, query_text in _QUERIES.items():
            _explain(connection, name, query_text)


def _write_part(connection: Connection[Any], rows: int, part: int) -> None:
    size = rows // _PARTS
    for first in range(part * size, (part + 1) * size, _ROWS_AT_ONCE):
        last = min(first + _ROWS_AT_ONCE, (part + 1) * size) - 1
        days = _PARTS * _DAYS_PER_PART
        parameters = {"first": first, "last": last, "rows": rows, "days": days}
        _change(connection, _INSERT, parameters)
        connection.execute(_STORE_ALIASES)
        connection.commit()
    delete_and_edit(connection, part)
    _vacuum(connection, "VACUUM")


def delete_and_edit(connection: Connection[Any], part: int) -> None:
    """Delete a twentieth of the posts and edit another one, as the merge does; commit.

    Args:
        connection: A connection prepared by `prepare_session`.
        part: Chooses the posts; one number deletes the same posts only once.
    """
    for change in (_DELETE, _EDIT):
        _change(connection, change, {"part": part})
        connection.commit()


def _change(connection: Connection[Any], change: LiteralString, parameters: dict[str, int]) -> None:
    """Change posts, and windows and sums with them."""
    connection.execute(with_staging(_STAGED, change=with_staging(change)), parameters)
    windows.apply_changes(connection)
    post_sums.apply_changes(connection, bump_toots_version(connection))


def _vacuum(connection: Connection[Any], statement: LiteralString) -> None:
    connection.autocommit = True
    connection.execute(statement)
    connection.autocommit = False


def _explain(connection: Connection[Any], name: str, query: str) -> None:
    found = connection.execute(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}".encode()
    ).fetchone()
    assert found is not None
    (document,) = found[0]
    plan = document["Plan"]
    blocks = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    milliseconds = document["Execution Time"]
    _say(f"{name}: {', '.join(_scans(plan))}; {blocks:,} blocks, {milliseconds:.1f} ms")


def _scans(plan: dict[str, Any]) -> list[str]:
    own = [f"{plan['Node Type']} {plan.get('Index Name', '')}".strip()]
    inner = [scan for child in plan.get("Plans", []) for scan in _scans(child)]
    return inner or own


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main(SecretStr(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2_000_000)
