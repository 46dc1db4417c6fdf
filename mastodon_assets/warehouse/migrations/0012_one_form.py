"""Rewrite stored handles and hashtags to their one form (`contract.identity`).

Earlier versions kept internationalized domains in Unicode and hashtags in the Unicode form that the
server sent. They named an account of the server that was read by the host of its page. Such a post
has its own status id in its uri, which is how it is found. Pseudonyms and entries of the
suppression list cannot be rewritten: they hold no names.
"""

from typing import Any

from psycopg import Connection

from mastodon_assets.contract.identity import UNKNOWN_INSTANCE, account_form, tag_form
from mastodon_assets.warehouse.watermarks import bump_toots_version

_HANDLES = """
SELECT username, max(instance) FILTER (WHERE
         instance <> %s AND instance <> split_part(username, '@', 2)
         AND uri LIKE '%%/' || status_id
         AND lower(substring(uri from '://([^/?#:]+)')) = lower(split_part(username, '@', 2)))
  FROM masto.toots_raw GROUP BY username
"""
_TAGS = "SELECT DISTINCT unnest(hashtags) FROM masto.toots_raw"
_CREATE = "CREATE TEMP TABLE new_forms (old text PRIMARY KEY, new text NOT NULL) ON COMMIT DROP"
_RENAME_HANDLES = """
UPDATE masto.toots_raw SET username = new FROM new_forms WHERE username = old
"""
_RENAME_TAGS = """
UPDATE masto.toots_raw t
   SET hashtags = (SELECT array_agg(form ORDER BY place)
                     FROM (SELECT coalesce(n.new, u.tag) AS form, min(u.place) AS place
                             FROM unnest(t.hashtags) WITH ORDINALITY u(tag, place)
                             LEFT JOIN new_forms n ON n.old = u.tag GROUP BY 1) forms)
 WHERE hashtags && (SELECT array_agg(old) FROM new_forms)
"""
_REMOVE_WINDOWS = """
DELETE FROM masto.user_avg_length_windowed
 WHERE username IN (SELECT old FROM new_forms UNION SELECT new FROM new_forms)
"""
_ADD_WINDOWS = """
INSERT INTO masto.user_avg_length_windowed
       (window_start, window_end, username, toots_count, total_length)
SELECT date_trunc('minute', event_at, 'UTC'),
       date_trunc('minute', event_at, 'UTC') + interval '1 minute',
       username, count(*), sum(char_length(content_txt))
  FROM masto.toots_raw WHERE username IN (SELECT new FROM new_forms)
 GROUP BY 1, 2, 3
"""


def upgrade(connection: Connection[Any]) -> None:
    """Rewrite the rows; a later migration computes the sums from them."""
    handles = {
        name: _handle(name, instance)
        for name, instance in connection.execute(_HANDLES, (UNKNOWN_INSTANCE,))
    }
    tags = {tag: tag_form(tag) for (tag,) in connection.execute(_TAGS)}
    connection.execute(_CREATE)
    if _fill(connection, handles):
        connection.execute(_REMOVE_WINDOWS)
        connection.execute(_RENAME_HANDLES)
        connection.execute(_ADD_WINDOWS)
    if _fill(connection, tags):
        connection.execute(_RENAME_TAGS)


def _handle(name: str, instance: str | None) -> str:
    return account_form(name if instance is None else f"{name.partition('@')[0]}@{instance}")


def _fill(connection: Connection[Any], forms: dict[str, str]) -> bool:
    """Fill the table of changed names; return whether there are any."""
    changed = [(old, new) for old, new in forms.items() if old != new]
    connection.execute("TRUNCATE new_forms")
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO new_forms VALUES (%s, %s)", changed)
    if changed:
        bump_toots_version(connection)
    return bool(changed)
