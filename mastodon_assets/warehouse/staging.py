"""Every temporary table: its name, its columns, its creation.

What belongs here: the one place that names them. Statements of other modules get the names from
`with_staging`. A staging table belongs to one session; most are empty when a transaction begins.
"""

from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import Connection, sql

from mastodon_assets.warehouse.horizons import HORIZONS


def _temporary(name: str) -> sql.Identifier:
    return sql.Identifier("pg_temp", name)


@dataclass(frozen=True)
class StagingTable:
    """A temporary table with its columns, emptied at each commit unless `is_kept`.

    It is created once per session: a new one per batch would bloat the catalog of a process that
    runs for weeks.
    """

    name: LiteralString
    columns: LiteralString
    is_kept: bool = False

    @property
    def identifier(self) -> sql.Identifier:
        """Its name in statements."""
        return _temporary(self.name)

    def create(self, connection: Connection[Any]) -> None:
        """Create the table unless this session has it."""
        connection.execute(
            sql.SQL("CREATE TEMP TABLE IF NOT EXISTS {} ({}) ON COMMIT {} ROWS").format(
                sql.Identifier(self.name),
                sql.SQL(self.columns),
                sql.SQL("PRESERVE" if self.is_kept else "DELETE"),
            )
        )


# Messages of a micro-batch that need the merge; see `stream.parse` for the columns.
STAGED_MESSAGES = StagingTable(
    "staged_messages",
    """
    topic text, partition integer, kafka_offset bigint, payload_hash bigint,
    reject_reason text, payload bytea, message_key bytea,
    op text, created_at timestamptz, edited_at timestamptz, received_at timestamptz,
    favourites integer, reblogs integer, replies integer,
    is_bot boolean, is_sensitive boolean, is_imported boolean,
    instance text COLLATE "C", status_id text COLLATE "C", uri text COLLATE "C",
    username text COLLATE "C", user_id text, lang text COLLATE "C", visibility text,
    in_reply_to_id text, hashtags text[], content_txt text, content_html text, id bigint
    """,
)
# Keys of a micro-batch's posts, to find those that no table knows.
STAGED_KEYS = StagingTable(
    "staged_keys",
    """position integer, id bigint, instance text COLLATE "C", status_id text COLLATE "C" """,
)
# Ids of the new posts of a micro-batch.
STAGED_IDS = StagingTable("staged_ids", "id bigint")
# Posts whose rows are removed: deleted at one of the servers that know them, or purged.
TOMBSTONED = StagingTable("tombstoned", "id bigint")
# The latest version of each post in a batch, and whether it is newer than the stored row.
LATEST_VERSIONS = StagingTable(
    "latest_versions", "id bigint, partition integer, kafka_offset bigint, is_newer boolean"
)
# Posts of a batch whose home is read, and that server; see `stream.home`.
POST_HOMES = StagingTable("post_homes", 'id bigint, home text COLLATE "C"')
# Posts that only servers other than their home have deleted, and when the last one did.
DISPUTED = StagingTable("disputed", "id bigint, deleted_at timestamptz")
# The document of each post that its home sent last.
HOME_DOCUMENTS = StagingTable(
    "home_documents",
    "id bigint, partition integer, kafka_offset bigint, received_at timestamptz",
)
# Rows of `toots_raw` before a change (sign -1) and after it (sign +1).
ROW_CHANGES = StagingTable(
    "row_changes",
    """
    sign integer, id bigint, event_at timestamptz, lang text COLLATE "C",
    username text COLLATE "C", length bigint, hashtags text[]
    """,
)
# What new posts add to the windows of a language, and of a user.
_WINDOW_COLUMNS = """
    position integer, window_start timestamptz, name text COLLATE "C", toots_count bigint,
    total_length bigint
    """
STAGED_LANGUAGE_WINDOWS = StagingTable("staged_language_windows", _WINDOW_COLUMNS)
STAGED_USER_WINDOWS = StagingTable("staged_user_windows", _WINDOW_COLUMNS)
# Scores to be written if their toot is still the version that was scored.
STAGED_SCORES = StagingTable(
    "staged_scores",
    """
    id bigint, payload_hash bigint, created_at timestamptz, lang text, text text,
    label_bin smallint, prob_pos double precision, label_str text, reason text, model_version text
    """,
)
# Posts that go in chunks, numbered.
POSTS_TO_REMOVE = StagingTable(
    "posts_to_remove", "place bigint PRIMARY KEY, id bigint", is_kept=True
)
# Accounts that are purged: of a large server too many for a parameter of each chunk.
PURGED_USERNAMES = StagingTable(
    "purged_usernames", 'name text COLLATE "C" PRIMARY KEY', is_kept=True
)
# Hours that a refresh of the hourly tables computes, and what was marked when it began.
REFRESHED_HOURS = StagingTable(
    "refreshed_hours", "hour timestamptz PRIMARY KEY, changes bigint", is_kept=True
)
# The posts of these hours: what the hourly tables count.
HOURLY_POSTS = StagingTable(
    "hourly_posts",
    """
    hour timestamptz, lateness interval, prob_pos double precision, instance text COLLATE "C",
    lang text COLLATE "C", username text COLLATE "C", outcome text COLLATE "C", hashtags text[]
    """,
    is_kept=True,
)
_OF_A_BATCH = (
    STAGED_MESSAGES,
    STAGED_KEYS,
    STAGED_IDS,
    TOMBSTONED,
    LATEST_VERSIONS,
    POST_HOMES,
    DISPUTED,
    HOME_DOCUMENTS,
    ROW_CHANGES,
    STAGED_LANGUAGE_WINDOWS,
    STAGED_USER_WINDOWS,
)

_NAMES = {
    **{
        table.name: table.identifier
        for table in (
            *_OF_A_BATCH,
            STAGED_SCORES,
            POSTS_TO_REMOVE,
            PURGED_USERNAMES,
            REFRESHED_HOURS,
            HOURLY_POSTS,
        )
    },
    **HORIZONS,
}


def create_batch_tables(connection: Connection[Any]) -> None:
    """Create the staging tables of a micro-batch's transaction, once per session."""
    for table in _OF_A_BATCH:
        table.create(connection)


def with_staging(statement: LiteralString, **parts: sql.Composable) -> sql.Composed:
    """Compose a statement in which `{tombstoned}` and the like name staging tables.

    `{posts_since}` and the like are horizons, see `with_horizons`. Other names in braces are
    `parts`.
    """
    return sql.SQL(statement).format(**_NAMES, **parts)
