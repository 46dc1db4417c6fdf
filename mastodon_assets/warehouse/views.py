"""Views, from their SQL files, and the comments on every table and view."""

from pathlib import Path
from typing import Any

from psycopg import Connection, sql

from mastodon_assets.warehouse.tables import SCHEMA, TABLES, Table

VIEWS = (
    "v_sentiment_daily",
    "v_post_labels",
    "batch_active_users",
    "batch_top_hashtag",
    "batch_avg_len_per_day",
    "v_hashtag_trends",
    "v_activity_by_weekday",
    "v_sentiment_by_language",
    "v_sentiment_by_hashtag",
    "v_servers",
    "v_lateness",
)


def view_sql(name: str) -> str:
    """Return the statement that creates the view `name`."""
    return (Path(__file__).parent / "sql" / f"{name}.sql").read_text(encoding="utf-8")


def apply_view(connection: Connection[Any], name: str) -> None:
    """Create or replace the view `name`, with its comments."""
    connection.execute(view_sql(name).encode())
    comment_on(connection, TABLES[name])


def comment_on(connection: Connection[Any], table: Table) -> None:
    """Put the catalog's comments on a table or view and its columns."""
    connection.execute(
        sql.SQL("COMMENT ON {} {} IS {}").format(
            sql.SQL("VIEW" if table.is_view else "TABLE"),
            sql.Identifier(SCHEMA, table.name),
            sql.Literal(table.comment),
        )
    )
    for column in table.columns:
        connection.execute(
            sql.SQL("COMMENT ON COLUMN {} IS {}").format(
                sql.Identifier(SCHEMA, table.name, column.name), sql.Literal(column.comment)
            )
        )
