"""A database of an earlier version, made by that version from simulated posts, is upgraded.

`data/schema_0018.dump` is the schema `masto` after `demo --toots 300 --days 3 --keep` of the last
commit with schema 0018, by `pg_dump --format=custom --schema=masto --no-owner --no-privileges`.
"""

from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection, sql
from pydantic import SecretStr

from mastodon_assets.batch.hourly import refresh_hourly_tables
from mastodon_assets.stream.windows import WINDOW_SUMS, rebuild_windows
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.dump import restore_schema
from mastodon_assets.warehouse.hourly import hours_that_differ
from mastodon_assets.warehouse.migrate import migrate
from mastodon_assets.warehouse.rollups import rebuild_rollups
from mastodon_assets.warehouse.schema_version import migrations
from mastodon_assets.warehouse.tables import HOURLY_ACTIVITY, SCHEMA

_DUMP = Path(__file__).parents[1] / "data" / "schema_0018.dump"
# What users keep; tables of sums follow from these.
_KEPT = (
    *("toots_raw", "toots_deleted", "toots_rejected", "toots_sentiment", "toots_engagement"),
    *("toot_metrics_windowed", "user_avg_length_windowed", "sentiment_models", "withdrawn"),
    *("kafka_offsets", "ingest_cursors", "stream_gaps", "batch_hashtag_by_hour"),
    *("v_sentiment_daily", "batch_active_users", "batch_top_hashtag"),
)


@pytest.fixture
def old_database(fresh_database_url: SecretStr) -> SecretStr:
    """A database with schema 0018 and its rows."""
    with transaction(fresh_database_url) as connection:
        connection.execute("DROP SCHEMA masto CASCADE")
        connection.execute("CREATE SCHEMA masto")
        owner = connection.info.user
    restore_schema(fresh_database_url, _DUMP, owner, lambda line: None)
    return fresh_database_url


def columns_of(connection: Connection[Any], table: str) -> list[str]:
    return [
        name
        for (name,) in connection.execute(
            "SELECT column_name FROM information_schema.columns"
            " WHERE (table_schema, table_name) = (%s, %s) ORDER BY 1",
            (SCHEMA, table),
        )
    ]


def rows(connection: Connection[Any], table: str, columns: list[str]) -> list[Any]:
    """The rows as text, without the columns that a migration adds."""
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    found = connection.execute(
        sql.SQL("SELECT {} FROM {}").format(names, sql.Identifier(SCHEMA, table))
    ).fetchall()
    return sorted(str(dict(zip(columns, row, strict=True))) for row in found)


def test_an_old_database_keeps_its_rows_and_gets_the_new_tables_filled(
    old_database: SecretStr,
) -> None:
    with transaction(old_database, snapshot=True) as connection:
        columns = {table: columns_of(connection, table) for table in _KEPT}
        before = {table: rows(connection, table, columns[table]) for table in _KEPT}
    assert len(before["toots_raw"]) > 200

    assert migrate(old_database) == max(migrations())
    refresh_hourly_tables(old_database, print)

    with transaction(old_database, snapshot=True) as connection:
        after = {table: rows(connection, table, columns[table]) for table in _KEPT}
        assert after == before
        counted = connection.execute(
            sql.SQL("SELECT sum(toots_count) FROM {}").format(
                sql.Identifier(SCHEMA, HOURLY_ACTIVITY.name)
            )
        ).fetchone()
        hours = [
            hour
            for (hour,) in connection.execute(
                "SELECT DISTINCT date_trunc('hour', event_at, 'UTC') FROM masto.toots_raw"
            )
        ]
    assert counted == (len(before["toots_raw"]),)
    with transaction(old_database) as connection:
        assert hours_that_differ(connection, hours) == {}
        assert rebuild_rollups(connection) == 0
        for window in WINDOW_SUMS.values():
            assert rebuild_windows(connection, window.table) == 0
