"""The table `masto.stream_gaps`: times in which the stream was not read.

What belongs here: the records. How a gap is filled is in `timeline_walk`.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from pydantic import SecretStr

from mastodon_assets.ingest.recovery.accounts import KnownAccount
from mastodon_assets.ingest.recovery.recheck import StoredPost
from mastodon_assets.warehouse.database import FEED_SECONDS, PERSON_SECONDS, transaction
from mastodon_assets.warehouse.handle_keys import PSEUDONYM

# The first span is enough for a busy server.
_STORED_SPANS = (timedelta(hours=2), timedelta(days=2))

_MOST_RECENT_POSTS = 20_000
_MOST_ACCOUNTS = 5_000

GapStatus = Literal["open", "recovered", "partial", "unrecoverable"]


@dataclass
class Gap:
    """A gap of the stream of one source.

    `from_id` is the last post before the gap and `to_id` the first post of the stream after it, if
    known. For a `partial` gap, `from_id` is the last recovered post. `ended_at` is None until the
    stream is open again. `known_ids` are the posts published last before the gap, newest first;
    their deletes may have been missed. They are set at the end of the gap, and not stored.
    """

    started_at: datetime
    reason: str
    from_id: str | None
    to_id: str | None = None
    ended_at: datetime | None = None
    recovered_count: int = 0
    status: GapStatus = "open"
    known_ids: list[str] = field(default_factory=list, repr=False, compare=False)


def read_open_gaps(postgres_url: SecretStr, instance: str, source: str) -> list[Gap]:
    """Return the gaps that earlier runs have not filled, oldest first.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: PostgreSQL has no such tables.
    """
    with transaction(postgres_url, max_seconds=PERSON_SECONDS) as connection:
        rows = connection.execute(
            """
            SELECT started_at, reason, from_id, to_id, ended_at, recovered_count
              FROM masto.stream_gaps
             WHERE instance = %s AND source = %s AND status = 'open'
             ORDER BY started_at
            """,
            (instance, source),
        ).fetchall()
    return [Gap(*row) for row in rows]


def save_gap(postgres_url: SecretStr, instance: str, source: str, gap: Gap) -> None:
    """Record the present state of `gap`.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: PostgreSQL has no such tables.
    """
    with transaction(postgres_url, max_seconds=FEED_SECONDS) as connection:
        connection.execute(
            """
            INSERT INTO masto.stream_gaps
                   (instance, source, started_at, ended_at, from_id, to_id, reason,
                    recovered_count, status)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT (instance, source, started_at) DO UPDATE
               SET ended_at = excluded.ended_at, from_id = excluded.from_id,
                   to_id = excluded.to_id, reason = excluded.reason,
                   recovered_count = excluded.recovered_count, status = excluded.status
            """,
            (
                instance,
                source,
                gap.started_at,
                gap.ended_at,
                gap.from_id,
                gap.to_id,
                gap.reason,
                gap.recovered_count,
                gap.status,
            ),
        )


def read_stored_uris(postgres_url: SecretStr, instance: str, limit: int) -> list[str]:
    """Return the uris of the newest stored posts of `instance`, newest last.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: PostgreSQL has no such tables.
    """
    with transaction(postgres_url, snapshot=True, max_lock_seconds=PERSON_SECONDS) as connection:
        rows = connection.execute(
            """
            SELECT t.uri FROM masto.toots_raw t JOIN masto.toot_aliases a ON a.id = t.id
             WHERE a.instance = %s AND t.event_at > now() - %s
             ORDER BY t.event_at DESC
             LIMIT %s
            """,
            (instance, _STORED_SPANS[-1], limit),
        ).fetchall()
    return [uri for (uri,) in reversed(rows)]


def read_recent_posts(postgres_url: SecretStr, instance: str) -> list[StoredPost]:
    """Return the stored posts of `instance` of the last two days, at most 20,000, the newest ones.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: PostgreSQL has no such tables.
    """
    with transaction(postgres_url, snapshot=True, max_lock_seconds=PERSON_SECONDS) as connection:
        rows = connection.execute(
            """
            SELECT a.status_id, t.event_at
              FROM masto.toots_raw t JOIN masto.toot_aliases a ON a.id = t.id
             WHERE a.instance = %s AND t.event_at > now() - %s
             ORDER BY t.event_at DESC
             LIMIT %s
            """,
            (instance, _STORED_SPANS[-1], _MOST_RECENT_POSTS),
        ).fetchall()
    return [StoredPost(*row) for row in rows]


def read_known_accounts(postgres_url: SecretStr, instance: str) -> list[KnownAccount]:
    """Return the accounts of stored posts of the last two days, at most 5,000, the latest ones.

    Accounts of other servers that are read are left out: these speak for them. So are accounts
    under pseudonyms: their ids are hashes, and a server would answer that it does not know them.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: PostgreSQL has no such tables.
    """
    with transaction(postgres_url, snapshot=True, max_lock_seconds=PERSON_SECONDS) as connection:
        rows = connection.execute(
            """
            SELECT t.user_id, t.username, max(t.event_at)
              FROM masto.toots_raw t
             WHERE t.instance = %(instance)s AND t.event_at > now() - %(span)s
               AND t.user_id IS NOT NULL AND NOT t.is_imported AND t.username !~ %(pseudonym)s
               AND NOT EXISTS (SELECT FROM masto.server_names n
                                WHERE n.name = split_part(t.username, '@', 2)
                                  AND n.instance <> %(instance)s)
             GROUP BY 1, 2 ORDER BY 3 DESC LIMIT %(limit)s
            """,
            {
                "instance": instance,
                "span": _STORED_SPANS[-1],
                "pseudonym": PSEUDONYM,
                "limit": _MOST_ACCOUNTS,
            },
        ).fetchall()
    return [KnownAccount(*row) for row in rows]


def read_accounts_with_posts(postgres_url: SecretStr, usernames: Collection[str]) -> set[str]:
    """Return those of the accounts, named as posts name them, that have stored posts.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: PostgreSQL has no such tables.
    """
    with transaction(postgres_url, snapshot=True, max_lock_seconds=PERSON_SECONDS) as connection:
        rows = connection.execute(
            "SELECT DISTINCT username FROM masto.toots_raw WHERE username = ANY(%s)",
            (list(usernames),),
        )
        return {username for (username,) in rows}


def read_stored_posts(
    postgres_url: SecretStr, instance: str, limit: int
) -> list[tuple[str, datetime | None]]:
    """Return id and last edit of the newest stored posts of `instance`, newest first.

    Only posts of the two days before the cursors were last moved count; without a cursor there are
    none.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: PostgreSQL has no such tables.
    """
    with transaction(postgres_url, snapshot=True, max_lock_seconds=PERSON_SECONDS) as connection:
        row = connection.execute(
            "SELECT max(updated_at) FROM masto.ingest_cursors WHERE instance = %s", (instance,)
        ).fetchone()
        if row is None or row[0] is None:
            return []
        posts: list[tuple[str, datetime | None]] = []
        # Hours of posts, not years of them, are read; there is an index on `event_at`.
        for span in _STORED_SPANS:
            posts = connection.execute(
                """
                SELECT a.status_id, t.edited_at
                  FROM masto.toots_raw t JOIN masto.toot_aliases a ON a.id = t.id
                 WHERE a.instance = %s AND t.event_at > %s
                 ORDER BY t.event_at DESC
                 LIMIT %s
                """,
                (instance, row[0] - span, limit),
            ).fetchall()
            if len(posts) == limit:
                break
        return posts
