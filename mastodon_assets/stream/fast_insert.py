"""The fast insert of posts that no table knows yet, without the merge.

What belongs here: finding such rows in a batch, and storing them. Most messages of a stream are new
posts. A row that can conflict with no other needs no staging, which halves the cost of its batch.
The result is the same as that of the merge.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from psycopg import Connection, sql

from mastodon_assets.warehouse.rows import copy_arrow
from mastodon_assets.warehouse.server_names import is_read_abroad
from mastodon_assets.warehouse.staging import STAGED_IDS, STAGED_KEYS, with_staging
from mastodon_assets.warehouse.tables import SCHEMA

if TYPE_CHECKING:
    import pyarrow as pa

# With fewer rows any plan is fast, and ANALYZE takes longer than the query.
_ROWS_TO_ANALYZE = 1_000

# A post with a row, and one that was deleted, has an alias.
_FIND_KNOWN = with_staging(
    """
SELECT position FROM {staged_keys} k JOIN masto.toot_aliases a ON a.id = k.id
 UNION
SELECT position FROM {staged_keys} k JOIN masto.toot_aliases a USING (instance, status_id)
 UNION
SELECT position FROM {staged_keys} k JOIN masto.toots_deleted d USING (instance, status_id)
"""
)

# An id may be left from a row that was removed by hand.
_QUEUE = with_staging(
    "INSERT INTO masto.toots_unscored (id) SELECT id FROM {staged_ids} ON CONFLICT DO NOTHING"
)

_SAME_COLUMNS = (
    *("id", "created_at", "edited_at", "received_at", "payload_hash", "favourites", "reblogs"),
    *(
        "replies",
        "is_bot",
        "is_sensitive",
        "is_imported",
        "instance",
        "status_id",
        "uri",
        "username",
        "user_id",
    ),
    *("lang", "visibility", "in_reply_to_id", "hashtags", "content_txt", "content_html"),
)


def split_new_rows(
    connection: Connection[Any], rows: "pa.Table", names: Mapping[str, str]
) -> tuple["pa.Table", "pa.Table"]:
    """Split a batch into new posts and all other rows.

    A new post shares neither its id nor a server's status id with a stored row, an alias, a
    tombstone or another row of the batch. It was not read abroad while its home, by `names` of
    `read_server_names`, is read as well. Hold the write lock until the new posts are stored.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    unique = _are_unique(rows)
    if names:
        unique = pc.and_not(unique, is_read_abroad(rows, names))
    is_new = unique.to_numpy(zero_copy_only=False)
    candidates = rows.select(["id", "instance", "status_id"]).filter(pa.array(is_new))
    positions = pa.array(np.flatnonzero(is_new), pa.int32())
    copy_arrow(connection, STAGED_KEYS.identifier, candidates.append_column("position", positions))
    if len(candidates) > _ROWS_TO_ANALYZE:
        connection.execute(with_staging("ANALYZE {staged_keys}"))
    known = [position for (position,) in connection.execute(_FIND_KNOWN)]
    is_new[known] = False
    return rows.filter(pa.array(is_new)), rows.filter(pa.array(~is_new))


def insert_new_rows(connection: Connection[Any], rows: "pa.Table") -> "pa.Table":
    """Insert rows and aliases of new posts, as `split_new_rows` found them; queue their scoring.

    Returns:
        One row per post, for the derived tables: event_at, lang, username, hashtags, length
        (characters).
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    created_at = rows.column("created_at")
    latest = pc.add(rows.column("received_at"), timedelta(minutes=2))
    event_at = pc.if_else(pc.less(created_at, latest), created_at, latest)
    # Sorted by key, the index of the table grows page by page.
    posts = rows.select(_SAME_COLUMNS).append_column("event_at", event_at).sort_by("id")
    copy_arrow(connection, sql.Identifier(SCHEMA, "toots_raw"), posts)
    by_status = [("instance", "ascending"), ("status_id", "ascending")]
    aliases = posts.select(["instance", "status_id", "id"]).sort_by(by_status)
    copy_arrow(connection, sql.Identifier(SCHEMA, "toot_aliases"), aliases)
    copy_arrow(connection, STAGED_IDS.identifier, posts.select(["id"]))
    connection.execute(_QUEUE)
    length = pc.utf8_length(posts.column("content_txt"))
    derived = posts.select(["event_at", "lang", "username", "hashtags"])
    return derived.append_column("length", length.cast(pa.int32()))


def _are_unique(rows: "pa.Table") -> "pa.Array":
    """Find accepted posts whose id, and whose server's status id, no other row has."""
    import pyarrow as pa
    import pyarrow.compute as pc

    # Two pairs that join to the same text count as repeated, which only costs time.
    pairs = pc.binary_join_element_wise(rows.column("instance"), rows.column("status_id"), "/")
    is_accepted = pc.and_(
        pc.equal(rows.column("op"), "upsert"), pc.is_null(rows.column("reject_reason"))
    )
    unique = pc.fill_null(is_accepted, False)
    for keys in (rows.column("id"), pairs):
        counts = keys.value_counts()
        is_repeated = pc.greater(counts.field("counts"), 1)
        repeated = counts.field("values").filter(is_repeated)
        unique = pc.and_not(unique, pc.is_in(keys, repeated))
    return unique if isinstance(unique, pa.Array) else unique.combine_chunks()
