"""Posts that no table knows yet: straight into the tables, without the merge.

What belongs here: telling such rows of a batch from the others, and storing them. Most of what a
stream brings is new, and a row that nothing can collide with needs no staging: its batch costs
half. The tables then hold what the merge in `sink` would have made of it.
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from psycopg import Connection, sql

from mastodon_assets.warehouse.rows import copy_arrow
from mastodon_assets.warehouse.tables import SCHEMA

if TYPE_CHECKING:
    import pyarrow as pa

# Below it any plan is fast, and looking at the rows takes longer than they do.
_ROWS_WORTH_A_LOOK = 1_000

_PREPARE = """
CREATE TEMP TABLE IF NOT EXISTS new_keys (
    place integer, id bigint, instance text COLLATE "C", status_id text COLLATE "C"
) ON COMMIT DELETE ROWS
"""

# A post with a row, and one that was deleted, has an alias.
_FIND_KNOWN = """
SELECT place FROM pg_temp.new_keys k JOIN masto.toot_aliases a ON a.id = k.id
 UNION
SELECT place FROM pg_temp.new_keys k JOIN masto.toot_aliases a USING (instance, status_id)
 UNION
SELECT place FROM pg_temp.new_keys k JOIN masto.toots_deleted d USING (instance, status_id)
"""

_SAME_COLUMNS = (
    *("id", "created_at", "edited_at", "received_at", "payload_hash", "favourites", "reblogs"),
    *("replies", "is_bot", "is_sensitive", "instance", "status_id", "uri", "username", "user_id"),
    *("lang", "visibility", "in_reply_to_id", "hashtags", "content_txt", "content_html"),
)


def prepare_fast_insert(connection: Connection[Any]) -> None:
    """Make the temporary table that `split_new_rows` works with, once a connection."""
    connection.execute(_PREPARE)


def split_new_rows(connection: Connection[Any], rows: "pa.Table") -> tuple["pa.Table", "pa.Table"]:
    """(posts that nothing in the tables or in `rows` has to do with, all other rows).

    The write lock must be held until the fresh ones are stored.
    """
    import numpy as np
    import pyarrow as pa

    is_new = _are_alone(rows).to_numpy(zero_copy_only=False)
    candidates = rows.select(["id", "instance", "status_id"]).filter(pa.array(is_new))
    places = pa.array(np.flatnonzero(is_new), pa.int32())
    copy_arrow(
        connection,
        sql.Identifier("pg_temp", "new_keys"),
        candidates.append_column("place", places),
    )
    if len(candidates) > _ROWS_WORTH_A_LOOK:
        connection.execute("ANALYZE pg_temp.new_keys")
    known = [place for (place,) in connection.execute(_FIND_KNOWN)]
    is_new[known] = False
    return rows.filter(pa.array(is_new)), rows.filter(pa.array(~is_new))


def insert_new_rows(connection: Connection[Any], fresh: "pa.Table") -> "pa.Table":
    """Write rows and aliases of posts that `split_new_rows` found; returns what derives move by.

    That is, a row a post: toot_id, event_at, lang, username, hashtags, length (characters).
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    created_at = fresh.column("created_at")
    latest = pc.add(fresh.column("received_at"), timedelta(minutes=2))
    event_at = pc.if_else(pc.less(created_at, latest), created_at, latest)
    # In the order of its key a table's index grows page by page.
    posts = fresh.select(_SAME_COLUMNS).append_column("event_at", event_at).sort_by("id")
    copy_arrow(connection, sql.Identifier(SCHEMA, "toots_raw"), posts)
    by_status = [("instance", "ascending"), ("status_id", "ascending")]
    aliases = posts.select(["instance", "status_id", "id"]).sort_by(by_status)
    copy_arrow(connection, sql.Identifier(SCHEMA, "toot_aliases"), aliases)
    length = pc.utf8_length(posts.column("content_txt"))
    changed = posts.select(["id", "event_at", "lang", "username", "hashtags"])
    changed = changed.rename_columns(["toot_id", *changed.column_names[1:]])
    return changed.append_column("length", length.cast(pa.int32()))


def note_new_rows(connection: Connection[Any], posts: "pa.Table", version: int) -> None:
    """Enter what `insert_new_rows` returned into the journal of changes, as `version`."""
    import pyarrow as pa

    signed = posts.append_column("sign", pa.repeat(pa.scalar(1, pa.int16()), len(posts)))
    rows = signed.append_column("version", pa.repeat(pa.scalar(version, pa.int64()), len(posts)))
    copy_arrow(connection, sql.Identifier(SCHEMA, "toot_changes"), rows)


def _are_alone(rows: "pa.Table") -> "pa.Array":
    """Which rows are accepted posts with an id, and a server's id, that no other row has."""
    import pyarrow as pa
    import pyarrow.compute as pc

    # Two pairs that join to one text would count as repeated, which only costs time.
    pairs = pc.binary_join_element_wise(rows.column("instance"), rows.column("status_id"), "/")
    is_accepted = pc.and_(
        pc.equal(rows.column("op"), "upsert"), pc.is_null(rows.column("reject_reason"))
    )
    alone = pc.fill_null(is_accepted, False)
    for keys in (rows.column("id"), pairs):
        counts = keys.value_counts()
        is_repeated = pc.greater(counts.field("counts"), 1)
        repeated = counts.field("values").filter(is_repeated)
        alone = pc.and_not(alone, pc.is_in(keys, repeated))
    return alone if isinstance(alone, pa.Array) else alone.combine_chunks()
