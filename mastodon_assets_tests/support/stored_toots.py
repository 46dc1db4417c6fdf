"""Rows of `toots_raw` as a test needs them, without a message of their own."""

from datetime import UTC, datetime
from typing import Any

import psycopg

from mastodon_assets.stream import windows
from mastodon_assets.stream.merge import prepare_session
from mastodon_assets.warehouse import post_sums
from mastodon_assets.warehouse.staging import with_staging

_INSERT = """
INSERT INTO masto.toots_raw (id, created_at, received_at, event_at, payload_hash, favourites,
       reblogs, replies, is_bot, is_sensitive, instance, status_id, uri, username, lang, hashtags,
       content_txt)
VALUES (%(id)s, %(at)s, %(at)s, %(at)s, 1, 0, 0, 0, false, false, %(instance)s, %(status_id)s,
        %(uri)s, %(username)s, 'en', %(hashtags)s, 'hello')
"""


def insert_toot(
    connection: psycopg.Connection[Any],
    id_: int,
    *,
    username: str,
    uri: str,
    instance: str = "one.example",
    hashtags: list[str] | None = None,
) -> None:
    """Insert a row; its status id is the end of the uri."""
    connection.execute(
        _INSERT,
        {
            "id": id_,
            "at": datetime(2026, 11, 20, 12, 0, id_ % 60, tzinfo=UTC),
            "instance": instance,
            "status_id": uri.rpartition("/")[2],
            "uri": uri,
            "username": username,
            "hashtags": hashtags or [],
        },
    )


def count_toots(connection: psycopg.Connection[Any]) -> None:
    """Fill windows and sums from all rows, as the merge would have."""
    prepare_session(connection)
    connection.execute(
        with_staging(
            "INSERT INTO {row_changes} (sign, id, event_at, lang, username, length, hashtags)"
            " SELECT 1, id, event_at, lang, username, char_length(content_txt), hashtags"
            "   FROM masto.toots_raw"
        )
    )
    windows.apply_changes(connection)
    post_sums.apply_changes(connection, 1)
