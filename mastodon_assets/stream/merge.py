"""The merge: one micro-batch into the tables, in one transaction, exactly once.

What belongs here: which version of a post is stored. Rows, aliases, tombstones, rejected messages,
windows and the ledger change together or not at all. Every message of the batch is counted.

Versions of a post are ordered by edit time in whole seconds, then that of its home before others,
then the whole edit time, the earlier receipt, server, status id and payload hash. A post that was
never edited is oldest; an edit time in the future counts as two minutes after receipt. The latest
version is the row, whole. So neither the order of arrival nor reading a message twice changes the
result. Where the home of a post is read as well, `home` says which versions count after deletes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from psycopg import Connection, sql
from pydantic import SecretStr

from mastodon_assets.contract.messages import names_of_key
from mastodon_assets.errors import PlatformError
from mastodon_assets.stream import home
from mastodon_assets.stream.fast_insert import insert_new_rows, split_new_rows
from mastodon_assets.stream.ledger import advance_ledger
from mastodon_assets.stream.windows import add_posts, apply_changes
from mastodon_assets.warehouse import post_sums
from mastodon_assets.warehouse.changed_hours import (
    mark_changed_posts,
    mark_deletes,
    mark_new_posts,
)
from mastodon_assets.warehouse.horizons import Horizons, read_horizons, without_expired
from mastodon_assets.warehouse.locks import take_write_lock
from mastodon_assets.warehouse.rollups import add_changed, add_new, subtract_changed
from mastodon_assets.warehouse.rows import copy_arrow
from mastodon_assets.warehouse.server_names import read_server_names
from mastodon_assets.warehouse.staging import (
    STAGED_MESSAGES,
    create_batch_tables,
    with_staging,
)
from mastodon_assets.warehouse.suppression_list import read_suppression_list, without_suppressed
from mastodon_assets.warehouse.watermarks import bump_toots_version

if TYPE_CHECKING:
    import pyarrow as pa


class PayloadsNeededError(Exception):
    """A message is rejected because of stored rows, and the batch has no payloads to keep."""


class BatchAccountError(PlatformError):
    """The outcomes of a batch do not add up to its messages; nothing was written."""


@dataclass(frozen=True)
class OffsetRange:
    """Offsets `start` to `end` (exclusive) of a partition; some of them may have no record."""

    topic: str
    partition: int
    start: int
    end: int


@dataclass(frozen=True)
class BatchCounts:
    """Messages of a batch by outcome; the seven add up to the messages read."""

    stored: int = 0
    stale: int = 0
    delete_messages: int = 0
    tombstoned: int = 0
    rejected: int = 0
    suppressed: int = 0
    expired: int = 0

    @property
    def messages(self) -> int:
        """All messages of the batch."""
        return sum(getattr(self, field.name) for field in fields(self))

    def by_outcome(self) -> dict[str, int]:
        """Return the counts by the outcome names of metrics and JSON output."""
        return {
            "stored": self.stored,
            "stale": self.stale,
            "deletes": self.delete_messages,
            "deleted": self.tombstoned,
            "rejected": self.rejected,
            "withdrawn": self.suppressed,
            "expired": self.expired,
        }

    def __add__(self, other: "BatchCounts") -> "BatchCounts":
        return BatchCounts(
            **{
                field.name: getattr(self, field.name) + getattr(other, field.name)
                for field in fields(self)
            }
        )


# Two uris with one hash, or one status id of a server under two uris: the first one stays.
_REJECT_CONFLICTS = (
    with_staging("""
    UPDATE {staged_messages} s SET reject_reason = 'uri: another post has this hash'
      FROM masto.toots_raw r
     WHERE s.op = 'upsert' AND r.id = s.id AND r.uri <> s.uri
    """),
    with_staging("""
    UPDATE {staged_messages} s SET reject_reason = 'uri: another post has this hash'
      FROM (SELECT id, min(uri) AS kept FROM {staged_messages}
             WHERE op = 'upsert' AND reject_reason IS NULL
             GROUP BY id HAVING min(uri) <> max(uri)) c
     WHERE s.op = 'upsert' AND s.id = c.id AND s.uri <> c.kept AND s.reject_reason IS NULL
    """),
    with_staging("""
    UPDATE {staged_messages} s SET reject_reason = 'id: this server gave it to another uri'
      FROM masto.toot_aliases a
     WHERE s.op = 'upsert' AND s.reject_reason IS NULL
       AND (a.instance, a.status_id) = (s.instance, s.status_id) AND a.id <> s.id
    """),
    with_staging("""
    UPDATE {staged_messages} s SET reject_reason = 'id: this server gave it to another uri'
      FROM (SELECT instance, status_id, min(id) AS kept FROM {staged_messages}
             WHERE op = 'upsert' AND reject_reason IS NULL
             GROUP BY 1, 2 HAVING min(id) <> max(id)) c
     WHERE s.op = 'upsert' AND s.reject_reason IS NULL AND s.id <> c.kept
       AND (s.instance, s.status_id) = (c.instance, c.status_id)
    """),
)

# A row exists already if the topic is read again.
_STORE_REJECTED = with_staging(
    """
INSERT INTO masto.toots_rejected (topic, partition, kafka_offset, reason, payload, message_key)
SELECT topic, partition, kafka_offset, reject_reason, payload, message_key
  FROM {staged_messages}
 WHERE reject_reason IS NOT NULL AND (message_key = ANY(%s)) IS NOT TRUE
    ON CONFLICT (topic, partition, kafka_offset) DO UPDATE
   SET reason = excluded.reason, payload = excluded.payload, message_key = excluded.message_key
"""
)

_REJECTED_KEYS = with_staging(
    """
SELECT DISTINCT message_key FROM {staged_messages}
 WHERE reject_reason IS NOT NULL AND message_key IS NOT NULL
"""
)

# Keys of posts that a tombstone keeps away, from whichever server it is.
_TOMBSTONED_KEYS = """
SELECT key
  FROM unnest(%s::text[], %s::text[], %s::bytea[]) rejected (instance, status_id, key)
 WHERE EXISTS (SELECT FROM masto.toots_deleted d
                WHERE (d.instance, d.status_id) = (rejected.instance, rejected.status_id))
    OR EXISTS (SELECT FROM masto.toot_aliases own
                 JOIN masto.toot_aliases other USING (id)
                 JOIN masto.toots_deleted d
                   ON (d.instance, d.status_id) = (other.instance, other.status_id)
                WHERE (own.instance, own.status_id) = (rejected.instance, rejected.status_id))
"""

# The key of a record is that of `contract.messages.message_key`.
_REMOVE_REJECTED_OF_TOMBSTONED = with_staging(
    """
DELETE FROM masto.toots_rejected r
 USING (SELECT convert_to(instance || '/' || status_id, 'UTF8') AS key
          FROM {staged_messages} WHERE op = 'delete' AND reject_reason IS NULL
         UNION
        SELECT convert_to(a.instance || '/' || a.status_id, 'UTF8')
          FROM {tombstoned} JOIN masto.toot_aliases a USING (id)) removed
 WHERE sha256(r.message_key) = sha256(removed.key) AND r.message_key = removed.key
"""
)

_REMOVE_REJECTED = """
DELETE FROM masto.toots_rejected
 WHERE (topic, partition) = (%s, %s) AND kafka_offset >= %s AND kafka_offset < %s
"""

_STORE_TOMBSTONES = with_staging(
    """
INSERT INTO masto.toots_deleted AS d (instance, status_id, deleted_at)
SELECT instance, status_id, max(received_at)
  FROM {staged_messages} WHERE op = 'delete' GROUP BY 1, 2
    ON CONFLICT (instance, status_id) DO UPDATE SET deleted_at = excluded.deleted_at
 WHERE excluded.deleted_at > d.deleted_at
"""
)

_STORE_ALIASES = with_staging(
    """
INSERT INTO masto.toot_aliases (instance, status_id, id)
SELECT DISTINCT instance, status_id, id FROM {staged_messages}
 WHERE op = 'upsert' AND reject_reason IS NULL
    ON CONFLICT (instance, status_id) DO NOTHING
"""
)

# A post is deleted as soon as one of the servers that know it has sent a delete. See `home` for
# posts whose home is read as well.
_FIND_TOMBSTONED = with_staging(
    """
INSERT INTO {tombstoned} (id)
SELECT a.id FROM {staged_messages} s JOIN masto.toot_aliases a USING (instance, status_id)
 WHERE s.op = 'delete'
 UNION
SELECT a.id
  FROM masto.toot_aliases a
  JOIN masto.toots_deleted d USING (instance, status_id)
 WHERE a.id IN (SELECT id FROM {staged_messages} WHERE op = 'upsert' AND reject_reason IS NULL)
"""
)

# The home of a post is the server in its uri, or, if it names its accounts by another domain, that
# of the author's handle. Servers abroad cut edit times to the second, so within one second the
# version from home is the latest.
_VERSION_AT = sql.SQL(
    "CASE WHEN edited_at IS NULL THEN '-infinity'::timestamptz"
    " ELSE least(edited_at, received_at + interval '2 minutes') END"
)
_IS_HOME = sql.SQL(
    "instance IN (split_part(username, '@', 2), split_part(split_part(uri, '://', 2), '/', 1))"
)

# The latest version of each post in the batch, and whether it is newer than the stored row. The
# comparison has `received_at` of the opposite side, because the earlier receipt wins.
_FIND_LATEST = with_staging(
    """
INSERT INTO {latest_versions} (id, partition, kafka_offset, is_newer)
SELECT b.id, b.partition, b.kafka_offset,
       r.id IS NULL
       OR (date_trunc('second', b.version_at), b.is_home, b.version_at,
           r.received_at, r.instance, r.status_id, r.payload_hash)
        > (date_trunc('second', r.version_at), r.is_home, r.version_at,
           b.received_at, b.instance, b.status_id, b.payload_hash)
  FROM (SELECT DISTINCT ON (id) id, partition, kafka_offset, received_at, instance, status_id,
               payload_hash, version_at, is_home
          FROM (SELECT s.*, {version_at} AS version_at, {is_home} AS is_home
                  FROM {staged_messages} s
                 WHERE op = 'upsert' AND reject_reason IS NULL
                   AND NOT EXISTS (SELECT FROM {tombstoned} d WHERE d.id = s.id)
                   AND NOT EXISTS (SELECT FROM {disputed} d WHERE d.id = s.id)) alive
         ORDER BY id, date_trunc('second', version_at) DESC, is_home DESC, version_at DESC,
                  received_at, instance, status_id, payload_hash, partition, kafka_offset) b
  LEFT JOIN (SELECT id, received_at, instance, status_id, payload_hash,
                    {version_at} AS version_at, {is_home} AS is_home
               FROM masto.toots_raw) r ON r.id = b.id
""",
    version_at=_VERSION_AT,
    is_home=_IS_HOME,
)

_STAGE_ROWS_BEFORE = with_staging(
    """
INSERT INTO {row_changes} (sign, id, event_at, lang, username, length, hashtags)
SELECT -1, r.id, r.event_at, r.lang, r.username, char_length(r.content_txt), r.hashtags
  FROM masto.toots_raw r
 WHERE r.id IN (SELECT id FROM {tombstoned} UNION ALL
                SELECT id FROM {latest_versions} WHERE is_newer)
"""
)

_STAGE_ROWS_AFTER = with_staging(
    """
INSERT INTO {row_changes} (sign, id, event_at, lang, username, length, hashtags)
SELECT 1, r.id, r.event_at, r.lang, r.username, char_length(r.content_txt), r.hashtags
  FROM masto.toots_raw r
 WHERE r.id IN (SELECT id FROM {latest_versions} WHERE is_newer)
"""
)

_REMOVE_TOMBSTONED = with_staging(
    """
DELETE FROM masto.toots_raw r USING {tombstoned} d WHERE r.id = d.id
"""
)

_STORE_LATEST = with_staging(
    """
INSERT INTO masto.toots_raw AS r (
    id, created_at, edited_at, received_at, event_at, payload_hash, favourites, reblogs, replies,
    is_bot, is_sensitive, is_imported, instance, status_id, uri, username, user_id, lang,
    visibility, in_reply_to_id, hashtags, content_txt, content_html)
SELECT s.id, s.created_at, s.edited_at, s.received_at,
       least(s.created_at, s.received_at + interval '2 minutes'),
       s.payload_hash, s.favourites, s.reblogs, s.replies, s.is_bot, s.is_sensitive,
       s.is_imported, s.instance, s.status_id, s.uri, s.username, s.user_id, s.lang, s.visibility,
       s.in_reply_to_id, s.hashtags, s.content_txt, s.content_html
  FROM {latest_versions} w
  JOIN {staged_messages} s USING (partition, kafka_offset)
 WHERE w.is_newer
    ON CONFLICT (id) DO UPDATE SET
       created_at = excluded.created_at, edited_at = excluded.edited_at,
       received_at = excluded.received_at, event_at = excluded.event_at,
       payload_hash = excluded.payload_hash, favourites = excluded.favourites,
       reblogs = excluded.reblogs, replies = excluded.replies, is_bot = excluded.is_bot,
       is_sensitive = excluded.is_sensitive, is_imported = excluded.is_imported,
       instance = excluded.instance,
       status_id = excluded.status_id, uri = excluded.uri, username = excluded.username,
       user_id = excluded.user_id, lang = excluded.lang, visibility = excluded.visibility,
       in_reply_to_id = excluded.in_reply_to_id, hashtags = excluded.hashtags,
       content_txt = excluded.content_txt, content_html = excluded.content_html
"""
)

_QUEUE_UNSCORED = with_staging(
    """
INSERT INTO masto.toots_unscored (id)
SELECT c.id FROM {row_changes} c
 WHERE c.sign = 1 AND NOT EXISTS (SELECT FROM masto.toots_sentiment s WHERE s.id = c.id)
    ON CONFLICT (id) DO NOTHING
"""
)

_UNQUEUE_TOMBSTONED = with_staging(
    "DELETE FROM masto.toots_unscored u USING {tombstoned} d WHERE u.id = d.id"
)

# A score belongs to the text that was scored; another text waits for the next refresh.
_REMOVE_OUTDATED_SCORES = with_staging(
    """
DELETE FROM masto.toots_sentiment s
 USING (SELECT DISTINCT id FROM {row_changes} WHERE sign = -1) c
  LEFT JOIN masto.toots_raw r ON r.id = c.id
 WHERE s.id = c.id
   AND (r.content_txt, r.lang, r.created_at) IS DISTINCT FROM (s.text, s.lang, s.created_at)
"""
)

_COUNT = with_staging(
    """
SELECT count(*) FILTER (WHERE op = 'delete'),
       count(*) FILTER (WHERE op = 'upsert' AND reject_reason IS NULL AND d.id IS NOT NULL),
       count(*) FILTER (WHERE op = 'upsert' AND reject_reason IS NULL AND d.id IS NULL)
         - (SELECT count(*) FROM {latest_versions} WHERE is_newer AND partition >= 0),
       (SELECT count(*) FROM {latest_versions} WHERE is_newer AND partition >= 0),
       count(*) FILTER (WHERE reject_reason IS NOT NULL)
  FROM {staged_messages} s
  LEFT JOIN {tombstoned} d USING (id)
"""
)


def prepare_session(connection: Connection[Any]) -> None:
    """Prepare a connection for `write_batch`: its staging tables and planner settings."""
    create_batch_tables(connection)
    post_sums.prepare_sums(connection)
    # Batches are sorted and joined in memory; with the default of 4 MB each of them would spill.
    connection.execute("SET work_mem = '128MB'")
    # Most pages that a batch looks up are in memory. With the default of 4, meant for spinning
    # disks, the planner would read all of a large table instead.
    connection.execute("SET random_page_cost = 1.1")


def refresh_statistics(connection: Connection[Any], stored: int) -> None:
    """Analyze the tables if `stored` new rows are a tenth of them or more.

    Autovacuum needs a minute to notice. Until then the planner joins a table that was empty a
    moment ago as if it still were.
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
    ranges: Sequence[OffsetRange] | None = None,
    suppression_key: SecretStr | None = None,
) -> BatchCounts:
    """Write one batch in the caller's transaction, which must commit or roll back afterwards.

    Args:
        connection: Prepared by `prepare_session`.
        rows: Columns of `parse.parse_records`.
        topic_ids: Topic to the broker's id of it. None for a replay: the ledger stays as it is, and
            rejected messages of these offsets are replaced.
        ranges: The offsets that were read; they must begin at the ledger. Not all of them have a
            record: transactions and compaction leave holes. None takes them from `rows`, whose
            offsets must then have no hole.
        suppression_key: The key of the suppression list.

    Returns:
        The messages by outcome.

    Raises:
        LedgerConflictError: Another writer has moved the ledger.
        BatchAccountError: The outcomes do not add up.
        SuppressionKeyError: The suppression list has entries under another key.
        PayloadsNeededError: Read the batch again with payloads.
    """
    take_write_lock(connection)
    ranges = offset_ranges(rows) if ranges is None else _checked_ranges(rows, ranges)
    for read in ranges:
        if topic_ids is None:
            connection.execute(_REMOVE_REJECTED, (read.topic, read.partition, read.start, read.end))
        else:
            topic_id = topic_ids[read.topic]
            advance_ledger(
                connection, read.topic, topic_id, read.partition, start=read.start, end=read.end
            )
    wanted = without_suppressed(rows, read_suppression_list(connection, suppression_key))
    horizons = read_horizons(connection)
    kept = without_expired(wanted, horizons.posts)
    names = read_server_names(connection)
    is_federated = len(set(names.values())) > 1
    new, others = split_new_rows(connection, kept, names if is_federated else {})
    counts = BatchCounts(
        stored=new.num_rows,
        suppressed=rows.num_rows - wanted.num_rows,
        expired=wanted.num_rows - kept.num_rows,
    )
    if others.num_rows:
        counts += _merge(connection, others, is_federated=is_federated)
        _update_derived_tables(connection)
    if new.num_rows:
        _insert_new_rows(connection, new, horizons)
    if counts.messages != rows.num_rows:
        raise BatchAccountError(
            f"{rows.num_rows} messages were read, but their outcomes are {counts};"
            " the batch was rolled back"
        )
    return counts


def _insert_new_rows(connection: Connection[Any], rows: "pa.Table", horizons: Horizons) -> None:
    posts = insert_new_rows(connection, rows)
    add_posts(connection, posts, horizons.windows)
    add_new(connection, posts)
    post_sums.add_posts(connection, posts, bump_toots_version(connection))
    mark_new_posts(connection, posts)


def _merge(connection: Connection[Any], rows: "pa.Table", *, is_federated: bool) -> BatchCounts:
    """Merge messages whose posts or status ids occur elsewhere, in the tables or in the batch."""
    copy_arrow(connection, STAGED_MESSAGES.identifier, rows)
    connection.execute(with_staging("ANALYZE {staged_messages}"))
    _reject_conflicts(connection)
    mark_deletes(connection)
    connection.execute(_STORE_TOMBSTONES)
    connection.execute(_STORE_ALIASES)
    if is_federated:
        home.find_tombstoned(connection)
    else:
        connection.execute(_FIND_TOMBSTONED)
    connection.execute(_STORE_REJECTED, (_tombstoned_keys(connection),))
    connection.execute(_FIND_LATEST)
    if is_federated:
        home.choose_documents(connection)
    connection.execute(_REMOVE_REJECTED_OF_TOMBSTONED)
    connection.execute(with_staging("ANALYZE {latest_versions}"))
    _change_rows(connection)
    if is_federated:
        home.keep_documents(connection)
    return _counts(connection)


def _tombstoned_keys(connection: Connection[Any]) -> list[bytes]:
    """Return the keys of rejected messages whose posts were deleted; nothing of these is kept."""
    keys = [key for (key,) in connection.execute(_REJECTED_KEYS)]
    named = [(*names, key) for key in keys if (names := names_of_key(key)) is not None]
    if not named:
        return []
    columns = [list(column) for column in zip(*named, strict=True)]
    return [key for (key,) in connection.execute(_TOMBSTONED_KEYS, columns)]


def remove_staged_posts(connection: Connection[Any]) -> None:
    """Remove the posts of the staging table `tombstoned`, with windows, sums and scores.

    Call `prepare_session` and take the write lock first. The posts may be stored again later.
    """
    _change_rows(connection)
    _update_derived_tables(connection)


def _change_rows(connection: Connection[Any]) -> None:
    """Remove tombstoned posts and store latest versions."""
    connection.execute(_STAGE_ROWS_BEFORE)
    connection.execute(_REMOVE_TOMBSTONED)
    connection.execute(_UNQUEUE_TOMBSTONED)
    connection.execute(_STORE_LATEST)
    connection.execute(_STAGE_ROWS_AFTER)


def _update_derived_tables(connection: Connection[Any]) -> None:
    """Apply the row changes to windows, roll-ups, sums and scores."""
    apply_changes(connection)
    subtract_changed(connection)
    connection.execute(_REMOVE_OUTDATED_SCORES)
    add_changed(connection)
    has_changes = connection.execute(with_staging("SELECT FROM {row_changes} LIMIT 1")).fetchone()
    if has_changes is not None:
        version = bump_toots_version(connection)
        post_sums.apply_changes(connection, version)
        mark_changed_posts(connection)
        connection.execute(_QUEUE_UNSCORED)


def offset_ranges(rows: "pa.Table") -> list[OffsetRange]:
    """Return the offsets of a batch, checked to have no hole.

    Raises:
        BatchAccountError: Offsets are missing or repeated.
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
                f" between offsets {start} and {end}"
            )
        ranges.append(OffsetRange(row["topic"], row["partition"], start, end))
    return ranges


def _checked_ranges(rows: "pa.Table", ranges: Sequence[OffsetRange]) -> Sequence[OffsetRange]:
    """Return `ranges` if each row is inside of one, and no offset is repeated.

    Raises:
        BatchAccountError: Rows are outside, or repeated.
    """
    by_partition = {(read.topic, read.partition): read for read in ranges}
    grouped = rows.group_by(["topic", "partition"]).aggregate(
        [
            ("kafka_offset", "min"),
            ("kafka_offset", "max"),
            ("kafka_offset", "count"),
            ("kafka_offset", "count_distinct"),
        ]
    )
    for row in grouped.to_pylist():
        read = by_partition.get((row["topic"], row["partition"]))
        first, last = row["kafka_offset_min"], row["kafka_offset_max"]
        is_inside = read is not None and read.start <= first and last < read.end
        if not is_inside or row["kafka_offset_count"] != row["kafka_offset_count_distinct"]:
            raise BatchAccountError(
                f"{row['topic']}[{row['partition']}]: records at offsets {first} to {last} are"
                f" repeated or outside of the offsets planned ({read}); the batch was rolled back"
            )
    return ranges


def _reject_conflicts(connection: Connection[Any]) -> None:
    found = sum(connection.execute(statement).rowcount for statement in _REJECT_CONFLICTS)
    if not found:
        return
    without_payload = connection.execute(
        with_staging(
            "SELECT FROM {staged_messages} WHERE op = 'upsert' AND reject_reason IS NOT NULL"
            " AND payload IS NULL LIMIT 1"
        )
    ).fetchone()
    if without_payload is not None:
        raise PayloadsNeededError


def _counts(connection: Connection[Any]) -> BatchCounts:
    row = connection.execute(_COUNT).fetchone()
    assert row is not None
    delete_messages, tombstoned, stale, stored, rejected = row
    return BatchCounts(
        stored=stored,
        stale=stale,
        delete_messages=delete_messages,
        tombstoned=tombstoned,
        rejected=rejected,
    )
