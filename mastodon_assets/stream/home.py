"""Deletes and versions of posts whose home is read as well: home has the last word.

What belongs here: which versions of such a post may be its row. A delete that home reports is
final. A delete of another server removes the post until home shows it again: it may have blocked
home, or suspended one account (observed: 249 deletes in two seconds, 71 of them of posts that their
home still listed). Imported recordings show nothing of the present.

The document that home sent last is kept in `masto.home_versions` if another version is the row. So
the result is the same in whatever order messages arrive.
"""

from typing import Any

from psycopg import Connection, sql

from mastodon_assets.warehouse.server_names import HOST_OF_URI, ID_OF_URI
from mastodon_assets.warehouse.staging import with_staging

_COLUMNS = sql.SQL(
    "id, created_at, edited_at, received_at, payload_hash, favourites, reblogs, replies, is_bot,"
    " is_sensitive, instance, status_id, uri, username, user_id, lang, visibility, in_reply_to_id,"
    " hashtags, content_txt, content_html"
)
# Both ways from an id of a server to posts.
_ALIASES = sql.SQL(
    "(SELECT id, instance, status_id FROM masto.toot_aliases"
    " UNION ALL SELECT id, instance, status_id FROM masto.home_ids)"
)

_STORE_HOME_IDS = with_staging(
    """
INSERT INTO masto.home_ids (id, instance, status_id)
SELECT DISTINCT s.id, n.instance, {id_of_uri}
  FROM {staged_messages} s JOIN masto.server_names n ON n.has_ids AND n.name = {host}
 WHERE s.op = 'upsert' AND s.reject_reason IS NULL AND s.instance <> n.instance
   AND length({id_of_uri}) BETWEEN 1 AND 255
    ON CONFLICT DO NOTHING
""",
    id_of_uri=ID_OF_URI,
    host=HOST_OF_URI,
)

# Posts of the batch, stored ones that it deletes included, whose home is read.
_FIND_HOMES = with_staging(
    """
INSERT INTO {post_homes} (id, home)
SELECT DISTINCT post.id, n.instance
  FROM (SELECT id, uri FROM {staged_messages} WHERE op = 'upsert' AND reject_reason IS NULL
         UNION
        SELECT id, uri FROM masto.toots_raw
         WHERE id IN (SELECT a.id FROM {staged_messages} s
                        JOIN masto.toot_aliases a USING (instance, status_id)
                       WHERE s.op = 'delete'
                       UNION
                      SELECT h.id FROM {staged_messages} s
                        JOIN masto.home_ids h USING (instance, status_id)
                       WHERE s.op = 'delete')) post
  JOIN masto.server_names n ON n.name = {host}
""",
    host=HOST_OF_URI,
)

_FIND_TOMBSTONED = with_staging(
    """
WITH changed AS (
    SELECT a.id FROM {staged_messages} s JOIN masto.toot_aliases a USING (instance, status_id)
     WHERE s.op = 'delete'
     UNION
    SELECT h.id FROM {staged_messages} s JOIN masto.home_ids h USING (instance, status_id)
     WHERE s.op = 'delete'
     UNION
    SELECT id FROM {staged_messages} WHERE op = 'upsert' AND reject_reason IS NULL
), deletes AS (
    SELECT id, instance, deleted_at FROM changed JOIN masto.toot_aliases USING (id)
      JOIN masto.toots_deleted USING (instance, status_id)
     UNION ALL
    SELECT id, instance, deleted_at FROM changed JOIN masto.home_ids USING (id)
      JOIN masto.toots_deleted USING (instance, status_id)
), of_posts AS (
    SELECT id, max(deleted_at) AS deleted_at,
           bool_or(h.home IS NULL OR d.instance = h.home) AS is_final
      FROM deletes d LEFT JOIN {post_homes} h USING (id) GROUP BY id
), final AS (
    INSERT INTO {tombstoned} (id) SELECT id FROM of_posts WHERE is_final
)
INSERT INTO {disputed} (id, deleted_at) SELECT id, deleted_at FROM of_posts WHERE NOT is_final
"""
)

# Stored documents of home take part in the choice like messages of partitions -1 and -2.
_STAGE_KEPT = with_staging(
    """
INSERT INTO {staged_messages} (op, partition, kafka_offset, is_imported, {columns})
SELECT 'stored', -1, row_number() OVER (), false, {columns} FROM masto.home_versions
 WHERE id IN (SELECT id FROM {post_homes} EXCEPT SELECT id FROM {tombstoned})
 UNION ALL
SELECT 'stored', -2, row_number() OVER (), false, {columns}
  FROM masto.toots_raw JOIN {post_homes} h USING (id)
 WHERE instance = h.home AND NOT is_imported
   AND id NOT IN (SELECT id FROM {tombstoned})
""",
    columns=_COLUMNS,
)

# The latest receipt, then the order of versions.
_FIND_DOCUMENTS = with_staging(
    """
INSERT INTO {home_documents} (id, partition, kafka_offset, received_at)
SELECT DISTINCT ON (s.id) s.id, s.partition, s.kafka_offset, s.received_at
  FROM {staged_messages} s JOIN {post_homes} h ON h.id = s.id AND h.home = s.instance
 WHERE s.op IN ('upsert', 'stored') AND s.reject_reason IS NULL AND NOT s.is_imported
   AND s.id NOT IN (SELECT id FROM {tombstoned})
 ORDER BY s.id, s.received_at DESC, coalesce(s.edited_at, '-infinity') DESC, s.status_id,
          s.payload_hash, s.partition, s.kafka_offset
"""
)

# Home shows the post after the latest delete of others: its document is the row.
_CHOOSE_DOCUMENTS = with_staging(
    """
INSERT INTO {latest_versions} (id, partition, kafka_offset, is_newer)
SELECT id, h.partition, h.kafka_offset,
       (r.received_at, r.instance, r.status_id, r.payload_hash)
       IS DISTINCT FROM (s.received_at, s.instance, s.status_id, s.payload_hash)
  FROM {disputed} d
  JOIN {home_documents} h USING (id)
  JOIN {staged_messages} s USING (id, partition, kafka_offset)
  LEFT JOIN masto.toots_raw r USING (id)
 WHERE h.received_at > d.deleted_at
"""
)

_REMOVE_OTHERS = with_staging(
    """
INSERT INTO {tombstoned} (id)
SELECT id FROM {disputed} EXCEPT SELECT id FROM {latest_versions}
"""
)

_ASK_HOME = with_staging(
    """
INSERT INTO masto.home_questions (id, instance, status_id)
SELECT id, home,
       coalesce((SELECT min(a.status_id) FROM masto.toot_aliases a
                  WHERE a.id = d.id AND a.instance = h.home),
                (SELECT min(i.status_id) FROM masto.home_ids i
                  WHERE i.id = d.id AND i.instance = h.home)) AS status_id
  FROM {disputed} d JOIN {tombstoned} USING (id) JOIN {post_homes} h USING (id)
 WHERE EXISTS (SELECT FROM {aliases} a WHERE a.id = d.id AND a.instance = h.home)
    ON CONFLICT (id) DO NOTHING
""",
    aliases=_ALIASES,
)
_CLOSE_QUESTIONS = with_staging(
    """
DELETE FROM masto.home_questions
 WHERE id IN (SELECT id FROM {tombstoned} EXCEPT SELECT id FROM {disputed})
    OR id IN (SELECT id FROM {latest_versions})
"""
)

_FORGET_TOMBSTONED = with_staging(
    "DELETE FROM masto.home_versions WHERE id IN (SELECT id FROM {tombstoned})"
)
_FORGET_ROWS = with_staging(
    """
DELETE FROM masto.home_versions v
 USING {home_documents} h JOIN {staged_messages} s USING (id, partition, kafka_offset)
  JOIN masto.toots_raw r USING (id)
 WHERE v.id = h.id AND (r.received_at, r.instance, r.status_id, r.payload_hash)
                     = (s.received_at, s.instance, s.status_id, s.payload_hash)
"""
)
_KEEP_DOCUMENTS = with_staging(
    """
INSERT INTO masto.home_versions AS v ({columns})
SELECT {named} FROM {home_documents} h
  JOIN {staged_messages} s USING (id, partition, kafka_offset)
  JOIN masto.toots_raw r USING (id)
 WHERE (r.received_at, r.instance, r.status_id, r.payload_hash)
    <> (s.received_at, s.instance, s.status_id, s.payload_hash)
    ON CONFLICT (id) DO UPDATE SET {updates}
""",
    columns=_COLUMNS,
    named=sql.SQL(", ").join(
        sql.SQL("s.{}").format(sql.Identifier(name)) for name in _COLUMNS.as_string().split(", ")
    ),
    updates=sql.SQL(", ").join(
        sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name))
        for name in _COLUMNS.as_string().split(", ")
        if name != "id"
    ),
)


def find_tombstoned(connection: Connection[Any]) -> None:
    """Fill `tombstoned` and `disputed`, and find the last document of home of each post.

    Tombstones and aliases of the batch must be stored.
    """
    for statement in (_STORE_HOME_IDS, _FIND_HOMES, _FIND_TOMBSTONED, _STAGE_KEPT, _FIND_DOCUMENTS):
        connection.execute(statement)


def choose_documents(connection: Connection[Any]) -> None:
    """Add home's documents of disputed posts to the latest versions; other such posts go."""
    for statement in (_CHOOSE_DOCUMENTS, _REMOVE_OTHERS, _ASK_HOME, _CLOSE_QUESTIONS):
        connection.execute(statement)


def keep_documents(connection: Connection[Any]) -> None:
    """Keep home's last documents of posts whose rows, stored by now, are other versions."""
    for statement in (_FORGET_TOMBSTONED, _FORGET_ROWS, _KEEP_DOCUMENTS):
        connection.execute(statement)
