"""The table `masto.server_names`: the names under which servers that are read appear in uris.

What belongs here: which server is the home of a post. A source has two names, its own domain and
the host of its pages. Its documents tell both.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import Connection, sql
from pydantic import SecretStr

from mastodon_assets.warehouse.database import PERSON_SECONDS, transaction
from mastodon_assets.warehouse.locks import take_write_lock

if TYPE_CHECKING:
    import pyarrow as pa

_HOST: LiteralString = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?(?P<host>[^/?#@:]+)"
# The host of a column `uri`, and the last part of its path, which is an id if it is no longer than
# the contract allows ids to be.
HOST_OF_URI = sql.SQL(
    "lower(substring(uri FROM '^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?([^/?#@:]+)'))"
)
ID_OF_URI = sql.SQL("substring(rtrim(uri, '/') FROM '[^/]*$')")

# The names of another server stay: no server speaks for a server that is read itself.
_RECORD = """
INSERT INTO masto.server_names AS n (name, instance, has_ids) VALUES (%s, %s, %s)
    ON CONFLICT (name) DO UPDATE SET has_ids = excluded.has_ids
 WHERE n.instance = excluded.instance AND excluded.has_ids AND NOT n.has_ids
"""
_ADD_IDS = sql.SQL(
    """
INSERT INTO masto.home_ids (id, instance, status_id)
SELECT r.id, %(instance)s, {id_of_uri} FROM masto.toots_raw r
 WHERE {host} = %(name)s AND r.instance <> %(instance)s AND length({id_of_uri}) BETWEEN 1 AND 255
   AND NOT EXISTS (SELECT FROM masto.toot_aliases a
                    WHERE a.id = r.id AND a.instance = %(instance)s)
    ON CONFLICT DO NOTHING
"""
).format(host=HOST_OF_URI, id_of_uri=ID_OF_URI)


def read_server_names(connection: Connection[Any]) -> dict[str, str]:
    """Return name to server, in the caller's transaction."""
    return dict(connection.execute("SELECT name, instance FROM masto.server_names").fetchall())


def record_server_names(postgres_url: SecretStr, instance: str, names: Mapping[str, bool]) -> None:
    """Record names of a server, and find its stored posts that were read from others.

    Args:
        postgres_url: The database.
        instance: The server.
        names: Name to whether uris of this host end in the server's id of the post.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: The tables are missing.
    """
    with transaction(postgres_url, max_lock_seconds=PERSON_SECONDS) as connection:
        found = dict(
            connection.execute(
                "SELECT name, has_ids FROM masto.server_names WHERE name = ANY(%s)", (list(names),)
            ).fetchall()
        )
        new = {
            name: has_ids
            for name, has_ids in names.items()
            if name not in found or (has_ids and not found[name])
        }
        if not new:
            return
        # Merges that began before see no names; after this they add the ids themselves.
        take_write_lock(connection)
        with connection.cursor() as cursor:
            cursor.executemany(
                _RECORD, [(name, instance, has_ids) for name, has_ids in new.items()]
            )
        connection.commit()
        for name, has_ids in new.items():
            if has_ids:
                connection.execute(_ADD_IDS, {"instance": instance, "name": name})
                connection.commit()


def is_read_abroad(rows: "pa.Table", names: Mapping[str, str]) -> "pa.Array":
    """Return which rows are posts of a server in `names` that were read from another one.

    Args:
        rows: Columns `uri` and `instance`.
        names: Name to server.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    hosts = pc.utf8_lower(pc.struct_field(pc.extract_regex(rows.column("uri"), _HOST), "host"))
    found = pa.array([False] * len(rows), pa.bool_())
    for instance in set(names.values()):
        own = pa.array([name for name, server in names.items() if server == instance], pa.string())
        is_other = pc.not_equal(rows.column("instance"), instance)
        found = pc.or_(found, pc.fill_null(pc.and_(pc.is_in(hosts, own), is_other), False))
    return found if isinstance(found, pa.Array) else found.combine_chunks()
