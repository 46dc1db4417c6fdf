"""One micro-batch into the tables, in one transaction, exactly once.

What belongs here: the merge. Rows, aliases, tombstones, rejects, windows and the ledger change
together or not at all, and every message of the batch is accounted for.

Versions of a post are ordered by edit time (never edited is oldest; a time in the future counts as
two minutes after receipt), then the earlier receipt, then server, status id and payload hash. The
newest is the row, whole, so neither order of arrival nor reading twice changes anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from psycopg import Connection, sql
from pydantic import SecretStr

from mastodon_assets.errors import PlatformError
from mastodon_assets.stream.fast_insert import (
    insert_new_rows,
    note_new_rows,
    prepare_fast_insert,
    split_new_rows,
)
from mastodon_assets.stream.ledger import advance_ledger
from mastodon_assets.stream.windows import add_posts, apply_changes, prepare_windows
from mastodon_assets.warehouse.locks import take_write_lock
from mastodon_assets.warehouse.rollups import add_changed, add_new, subtract_changed
from mastodon_assets.warehouse.rows import copy_arrow
from mastodon_assets.warehouse.suppression_list import read_suppression_list, without_suppressed
from mastodon_assets.warehouse.watermarks import bump_toots_version

if TYPE_CHECKING:
    import pyarrow as pa


class PayloadsNeededError(Exception):
    """A row is rejected by what the tables hold, and the batch came without its bytes."""


class BatchAccountError(PlatformError):
    """The outcomes of a batch do not add up to the offsets it covers; nothing was written."""


@dataclass(frozen=True)
class BatchCounts:
    """What became of a batch's messages; the six add up to the offsets covered."""

    stored: int = 0
    stale: int = 0
    delete_messages: int = 0
    tombstoned: int = 0
    rejected: int = 0
    suppressed: int = 0

    @property
    def messages(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))

    def __add__(self, other: "BatchCounts") -> "BatchCounts":
        return BatchCounts(
            **{
                field.name: getattr(self, field.name) + getattr(other, field.name)
                for field in fields(self)
            }
        )


# Temporary tables of the session, emptied at each commit. They are made once a connection: making
# them for each batch would bloat the catalogue of a process that runs for weeks.
_PREPARE = """
CREATE TEMP TABLE IF NOT EXISTS staged (
    topic text, partition integer, kafka_offset bigint, payload_hash bigint,
    reject_reason text, payload bytea, message_key bytea,
    op text, created_at timestamptz, edited_at timestamptz, received_at timestamptz,
    favourites integer, reblogs integer, replies integer,
    is_bot boolean, is_sensitive boolean,
    instance text COLLATE "C", status_id text COLLATE "C", uri text COLLATE "C",
    username text COLLATE "C", user_id text, lang text COLLATE "C", visibility text,
    in_reply_to_id text, hashtags text[], content_txt text, content_html text, id bigint
) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE IF NOT EXISTS dead (id bigint) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE IF NOT EXISTS winners (
    id bigint, partition integer, kafka_offset bigint, is_newer boolean
) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE IF NOT EXISTS changed_rows (
    sign integer, id bigint, event_at timestamptz, lang text COLLATE "C",
    username text COLLATE "C", length bigint, hashtags text[]
) ON COMMIT DELETE ROWS;
"""

# Two uris with one hash, or one status id of a server under two uris: the first keeps its place.
_REJECT_CONFLICTS = (
    """
    UPDATE pg_temp.staged s SET reject_reason = 'uri: another post has this hash'
      FROM masto.toots_raw r
     WHERE s.op = 'upsert' AND r.id = s.id AND r.uri <> s.uri
    """,
    """
    UPDATE pg_temp.staged s SET reject_reason = 'uri: another post has this hash'
      FROM (SELECT id, min(uri) AS kept FROM pg_temp.staged
             WHERE op = 'upsert' AND reject_reason IS NULL
             GROUP BY id HAVING min(uri) <> max(uri)) c
     WHERE s.op = 'upsert' AND s.id = c.id AND s.uri <> c.kept AND s.reject_reason IS NULL
    """,
    """
    UPDATE pg_temp.staged s SET reject_reason = 'id: this server gave it to another uri'
      FROM masto.toot_aliases a
     WHERE s.op = 'upsert' AND s.reject_reason IS NULL
       AND (a.instance, a.status_id) = (s.instance, s.status_id) AND a.id <> s.id
    """,
    """
    UPDATE pg_temp.staged s SET reject_reason = 'id: this server gave it to another uri'
      FROM (SELECT instance, status_id, min(id) AS kept FROM pg_temp.staged
             WHERE op = 'upsert' AND reject_reason IS NULL
             GROUP BY 1, 2 HAVING min(id) <> max(id)) c
     WHERE s.op = 'upsert' AND s.reject_reason IS NULL AND s.id <> c.kept
       AND (s.instance, s.status_id) = (c.instance, c.status_id)
    """,
)

# A record is there already where the ledger was set back to read a topic again.
_KEEP_REJECTED = """
INSERT INTO masto.toots_rejected (topic, partition, kafka_offset, reason, payload, message_key)
SELECT topic, partition, kafka_offset, reject_reason, payload, message_key
  FROM pg_temp.staged WHERE reject_reason IS NOT NULL
    ON CONFLICT (topic, partition, kafka_offset) DO UPDATE
   SET reason = excluded.reason, payload = excluded.payload, message_key = excluded.message_key
"""

_FORGET_REJECTED = """
DELETE FROM masto.toots_rejected
 WHERE (topic, partition) = (%s, %s) AND kafka_offset >= %s AND kafka_offset < %s
"""

_KEEP_TOMBSTONES = """
INSERT INTO masto.toots_deleted AS d (instance, status_id, deleted_at)
SELECT instance, status_id, min(received_at) FROM pg_temp.staged WHERE op = 'delete' GROUP BY 1, 2
    ON CONFLICT (instance, status_id) DO UPDATE SET deleted_at = excluded.deleted_at
 WHERE excluded.deleted_at < d.deleted_at
"""

_KEEP_ALIASES = """
INSERT INTO masto.toot_aliases (instance, status_id, id)
SELECT DISTINCT instance, status_id, id FROM pg_temp.staged
 WHERE op = 'upsert' AND reject_reason IS NULL
    ON CONFLICT (instance, status_id) DO NOTHING
"""

# A post is dead as soon as any server that knows it under an id has told of its delete.
_FIND_TOMBSTONED = """
INSERT INTO pg_temp.dead (id)
SELECT a.id FROM pg_temp.staged s JOIN masto.toot_aliases a USING (instance, status_id)
 WHERE s.op = 'delete'
 UNION
SELECT a.id
  FROM masto.toot_aliases a
  JOIN masto.toots_deleted d USING (instance, status_id)
 WHERE a.id IN (SELECT id FROM pg_temp.staged WHERE op = 'upsert' AND reject_reason IS NULL)
"""

_FIND_POSTS_OF = """
INSERT INTO pg_temp.dead (id)
SELECT id FROM masto.toots_raw WHERE username = ANY(%s) OR instance = ANY(%s)
"""

# The newest version of each post in the batch, and whether it is newer than the row there is.
# `received_at` of the other side stands in its place: the earlier receipt wins.
_FIND_LATEST = """
INSERT INTO pg_temp.winners (id, partition, kafka_offset, is_newer)
SELECT b.id, b.partition, b.kafka_offset,
       r.id IS NULL
       OR (b.version_at, r.received_at, r.instance, r.status_id, r.payload_hash)
        > (CASE WHEN r.edited_at IS NULL THEN '-infinity'::timestamptz
                ELSE least(r.edited_at, r.received_at + interval '2 minutes') END,
           b.received_at, b.instance, b.status_id, b.payload_hash)
  FROM (SELECT DISTINCT ON (id) id, partition, kafka_offset, received_at, instance, status_id,
               payload_hash, version_at
          FROM (SELECT s.*,
                       CASE WHEN edited_at IS NULL THEN '-infinity'::timestamptz
                            ELSE least(edited_at, received_at + interval '2 minutes')
                       END AS version_at
                  FROM pg_temp.staged s
                 WHERE op = 'upsert' AND reject_reason IS NULL
                   AND NOT EXISTS (SELECT FROM pg_temp.dead d WHERE d.id = s.id)) alive
         ORDER BY id, version_at DESC, received_at, instance, status_id, payload_hash,
                  partition, kafka_offset) b
  LEFT JOIN masto.toots_raw r ON r.id = b.id
"""

_NOTE_ROWS_BEFORE = """
INSERT INTO pg_temp.changed_rows (sign, id, event_at, lang, username, length, hashtags)
SELECT -1, r.id, r.event_at, r.lang, r.username, char_length(r.content_txt), r.hashtags
  FROM masto.toots_raw r
 WHERE r.id IN (SELECT id FROM pg_temp.dead UNION ALL
                SELECT id FROM pg_temp.winners WHERE is_newer)
"""

_NOTE_ROWS_AFTER = """
INSERT INTO pg_temp.changed_rows (sign, id, event_at, lang, username, length, hashtags)
SELECT 1, r.id, r.event_at, r.lang, r.username, char_length(r.content_txt), r.hashtags
  FROM masto.toots_raw r
 WHERE r.id IN (SELECT id FROM pg_temp.winners WHERE is_newer)
"""

_REMOVE_TOMBSTONED = """
DELETE FROM masto.toots_raw r USING pg_temp.dead d WHERE r.id = d.id
"""

_STORE_LATEST = """
INSERT INTO masto.toots_raw AS r (
    id, created_at, edited_at, received_at, event_at, payload_hash, favourites, reblogs, replies,
    is_bot, is_sensitive, instance, status_id, uri, username, user_id, lang, visibility,
    in_reply_to_id, hashtags, content_txt, content_html)
SELECT s.id, s.created_at, s.edited_at, s.received_at,
       least(s.created_at, s.received_at + interval '2 minutes'),
       s.payload_hash, s.favourites, s.reblogs, s.replies, s.is_bot, s.is_sensitive, s.instance,
       s.status_id, s.uri, s.username, s.user_id, s.lang, s.visibility, s.in_reply_to_id,
       s.hashtags, s.content_txt, s.content_html
  FROM pg_temp.winners w
  JOIN pg_temp.staged s USING (partition, kafka_offset)
 WHERE w.is_newer
    ON CONFLICT (id) DO UPDATE SET
       created_at = excluded.created_at, edited_at = excluded.edited_at,
       received_at = excluded.received_at, event_at = excluded.event_at,
       payload_hash = excluded.payload_hash, favourites = excluded.favourites,
       reblogs = excluded.reblogs, replies = excluded.replies, is_bot = excluded.is_bot,
       is_sensitive = excluded.is_sensitive, instance = excluded.instance,
       status_id = excluded.status_id, uri = excluded.uri, username = excluded.username,
       user_id = excluded.user_id, lang = excluded.lang, visibility = excluded.visibility,
       in_reply_to_id = excluded.in_reply_to_id, hashtags = excluded.hashtags,
       content_txt = excluded.content_txt, content_html = excluded.content_html
"""

# Batch tables move by these, so that a refresh costs what changed.
_NOTE_CHANGES = """
INSERT INTO masto.toot_changes
       (version, toot_id, sign, event_at, length, lang, username, hashtags)
SELECT v.version, c.id, c.sign, c.event_at, c.length, c.lang, c.username, c.hashtags
  FROM pg_temp.changed_rows c CROSS JOIN masto.data_versions v
 WHERE v.dataset = 'toots_raw'
"""

# A score stands for the text it was made from; another text waits for the next refresh.
_REMOVE_OUTDATED_SCORES = """
DELETE FROM masto.toots_sentiment s
 USING (SELECT DISTINCT id FROM pg_temp.changed_rows WHERE sign = -1) c
  LEFT JOIN masto.toots_raw r ON r.id = c.id
 WHERE s.id = c.id
   AND (r.content_txt, r.lang, r.created_at) IS DISTINCT FROM (s.text, s.lang, s.created_at)
"""

_COUNT = """
SELECT count(*) FILTER (WHERE op = 'delete'),
       count(*) FILTER (WHERE op = 'upsert' AND reject_reason IS NULL AND d.id IS NOT NULL),
       count(*) FILTER (WHERE op = 'upsert' AND reject_reason IS NULL AND d.id IS NULL)
         - (SELECT count(*) FROM pg_temp.winners)
         + (SELECT count(*) FROM pg_temp.winners WHERE NOT is_newer)
  FROM pg_temp.staged s
  LEFT JOIN pg_temp.dead d USING (id)
"""


def prepare_session(connection: Connection[Any]) -> None:
    """Make the temporary tables that `write_batch` works with, once a connection."""
    connection.execute(_PREPARE)
    prepare_fast_insert(connection)
    prepare_windows(connection)
    # Batches are sorted and joined in memory; the default of 4 MB would spill each of them.
    connection.execute("SET work_mem = '128MB'")
    # What a batch looks up is in memory mostly; the default of 4, for turning disks, would have
    # the planner read all of a large table instead.
    connection.execute("SET random_page_cost = 1.1")


def refresh_statistics(connection: Connection[Any], stored: int) -> None:
    """Tell the planner how large the tables are after `stored` more rows, where that matters.

    Autovacuum would take a minute to notice, and a table that was empty a moment ago is joined as
    if it still were. By its own measure, a tenth of new rows, a large table's numbers still hold.
    """
    with connection.transaction():
        is_tenth = connection.execute(
            "SELECT %s > greatest(reltuples, 0) / 10 FROM pg_class"
            " WHERE oid = 'masto.toots_raw'::regclass",
            (stored,),
        ).fetchone()
        if is_tenth == (True,):
            connection.execute(
                "ANALYZE masto.toots_raw, masto.toot_aliases, masto.toot_metrics_windowed,"
                " masto.user_avg_length_windowed"
            )


def write_batch(
    connection: Connection[Any],
    rows: "pa.Table",
    topic_ids: Mapping[str, str] | None,
    *,
    withdrawn_key: SecretStr | None = None,
) -> BatchCounts:
    """Write one batch in the caller's transaction, which must commit or roll back afterwards.

    `rows` has the columns of `parse.parse_records`; each partition's offsets must be without a
    hole and begin where the ledger stands. Without `topic_ids` they are read once more: the ledger
    stays where it is, and dead letters of these offsets are those of now.

    Raises: LedgerConflictError, BatchAccountError, WithdrawnKeyError, PayloadsNeededError (read the
    batch again with its payloads). None of them leaves anything behind once rolled back.
    """
    take_write_lock(connection)
    for topic, partition, start, end in offset_ranges(rows):
        if topic_ids is None:
            connection.execute(_FORGET_REJECTED, (topic, partition, start, end))
        else:
            advance_ledger(connection, topic, topic_ids[topic], partition, start=start, end=end)
    kept = without_suppressed(rows, read_suppression_list(connection, withdrawn_key))
    fresh, others = split_new_rows(connection, kept)
    counts = BatchCounts(stored=fresh.num_rows, suppressed=rows.num_rows - kept.num_rows)
    if others.num_rows:
        counts += _merge(connection, others)
        _apply_to_derived(connection)
    if fresh.num_rows:
        _insert_new_rows(connection, fresh)
    if counts.messages != rows.num_rows:
        raise BatchAccountError(
            f"{rows.num_rows} messages were read and {counts} accounted for; the batch was undone"
        )
    return counts


def _insert_new_rows(connection: Connection[Any], fresh: "pa.Table") -> None:
    posts = insert_new_rows(connection, fresh)
    add_posts(connection, posts)
    add_new(connection, posts)
    note_new_rows(connection, posts, bump_toots_version(connection))


def _merge(connection: Connection[Any], rows: "pa.Table") -> BatchCounts:
    """Rows that meet others, in the tables or among themselves; what became of them."""
    copy_arrow(connection, sql.Identifier("pg_temp", "staged"), rows)
    connection.execute("ANALYZE pg_temp.staged")
    _reject_conflicts(connection)
    rejected = connection.execute(_KEEP_REJECTED).rowcount
    connection.execute(_KEEP_TOMBSTONES)
    connection.execute(_KEEP_ALIASES)
    connection.execute(_FIND_TOMBSTONED)
    connection.execute(_FIND_LATEST)
    connection.execute("ANALYZE pg_temp.winners")
    stored = _change_rows(connection)
    return _counts(connection, stored=stored, rejected=rejected)


def remove_posts(
    connection: Connection[Any], *, usernames: Sequence[str], instances: Sequence[str]
) -> None:
    """Remove the rows of these authors and servers, with windows and scores, in the caller's
    transaction; their ids stand in `pg_temp.dead` until it ends. They may come back.

    `prepare_session` and the write lock come first.
    """
    connection.execute(_FIND_POSTS_OF, (list(usernames), list(instances)))
    _change_rows(connection)
    _apply_to_derived(connection)


def _change_rows(connection: Connection[Any]) -> int:
    """Remove `pg_temp.dead` and store `pg_temp.winners`; how many rows were stored."""
    connection.execute(_NOTE_ROWS_BEFORE)
    connection.execute(_REMOVE_TOMBSTONED)
    stored = connection.execute(_STORE_LATEST).rowcount
    connection.execute(_NOTE_ROWS_AFTER)
    return stored


def _apply_to_derived(connection: Connection[Any]) -> None:
    """Bring what derives from the rows to what `pg_temp.changed_rows` says of them."""
    apply_changes(connection)
    subtract_changed(connection)
    connection.execute(_REMOVE_OUTDATED_SCORES)
    add_changed(connection)
    if connection.execute("SELECT FROM pg_temp.changed_rows LIMIT 1").fetchone() is not None:
        bump_toots_version(connection)
        connection.execute(_NOTE_CHANGES)


def offset_ranges(rows: "pa.Table") -> list[tuple[str, int, int, int]]:
    """(topic, partition, first offset, end offset) of the batch, checked to have no hole.

    Raises: BatchAccountError.
    """
    grouped = rows.group_by(["topic", "partition"]).aggregate(
        [("kafka_offset", "min"), ("kafka_offset", "max"), ("kafka_offset", "count_distinct")]
    )
    ranges = []
    for row in grouped.sort_by("partition").to_pylist():
        start, end = row["kafka_offset_min"], row["kafka_offset_max"] + 1
        if end - start != row["kafka_offset_count_distinct"]:
            raise BatchAccountError(
                f"{row['topic']}[{row['partition']}]: {row['kafka_offset_count_distinct']} records"
                f" between offsets {start} and {end}; compacted or transactional topics are not"
                " supported"
            )
        ranges.append((row["topic"], row["partition"], start, end))
    return ranges


def _reject_conflicts(connection: Connection[Any]) -> None:
    found = sum(connection.execute(statement).rowcount for statement in _REJECT_CONFLICTS)
    if not found:
        return
    without_bytes = connection.execute(
        "SELECT FROM pg_temp.staged WHERE op = 'upsert' AND reject_reason IS NOT NULL"
        " AND payload IS NULL LIMIT 1"
    ).fetchone()
    if without_bytes is not None:
        raise PayloadsNeededError


def _counts(connection: Connection[Any], *, stored: int, rejected: int) -> BatchCounts:
    row = connection.execute(_COUNT).fetchone()
    assert row is not None
    delete_messages, tombstoned, stale = row
    return BatchCounts(
        stored=stored,
        stale=stale,
        delete_messages=delete_messages,
        tombstoned=tombstoned,
        rejected=rejected,
    )
