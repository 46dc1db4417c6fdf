"""The migrated database matches the table catalog, whoever migrates it."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from mastodon_assets.embedded.stack import Connection as StackConnection
from mastodon_assets.warehouse.checks import (
    duplicate_keys,
    primary_key,
    schema_differences,
    window_sum_and_rows,
)
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.locks import take_write_lock
from mastodon_assets.warehouse.migrate import MigrationError, migrate
from mastodon_assets.warehouse.schema_version import MIGRATIONS, SchemaVersionError
from mastodon_assets.warehouse.tables import SCHEMA, TABLES, Table
from mastodon_assets.warehouse.views import apply_view
from mastodon_assets_tests.support.databases import empty_database
from mastodon_assets_tests.support.migrations import add_migration

TABLE_LIST = pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)


def rows(url: SecretStr, query: str, *values: object) -> list[tuple[Any, ...]]:
    with transaction(url, snapshot=True) as connection:
        return connection.execute(query.encode(), values).fetchall()


def catalog(url: SecretStr) -> list[tuple[Any, ...]]:
    """Return all that a migration could change, with the transaction that wrote it."""
    return rows(
        url,
        "SELECT c.relname, c.relkind::text, c.xmin::text, a.attname, a.xmin::text"
        "  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
        " WHERE c.relnamespace = to_regnamespace(%s) ORDER BY 1, 4",
        SCHEMA,
    )


@pytest.fixture
def bare_url(stack: StackConnection) -> Any:
    """A database to which no migration was ever applied."""
    with empty_database(stack) as url:
        yield url


@TABLE_LIST
def test_a_table_has_the_catalogs_columns_types_and_key(
    database_url: SecretStr, table: Table
) -> None:
    with transaction(database_url, snapshot=True) as connection:
        assert schema_differences(connection, table) == []


def test_no_index_keeps_all_entries_of_a_value_in_one_bucket(
    database_url: SecretStr,
) -> None:
    """A hash index does: each new post of a busy account then reads all its others."""
    hash_indexes = rows(
        database_url,
        "SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        "  JOIN pg_am a ON a.oid = c.relam"
        " WHERE c.relnamespace = 'masto'::regnamespace AND a.amname = 'hash'",
    )
    assert hash_indexes == []


def comments(connection: psycopg.Connection[Any], table: Table) -> list[tuple[Any, ...]]:
    """Name and comment of the table, then of each column."""
    return connection.execute(
        "SELECT c.relname::text, obj_description(c.oid), 0 AS place FROM pg_class c"
        " WHERE c.oid = to_regclass(%(table)s)"
        " UNION ALL SELECT attname, col_description(attrelid, attnum), attnum FROM pg_attribute"
        " WHERE attrelid = to_regclass(%(table)s) AND attnum > 0 AND NOT attisdropped"
        " ORDER BY place",
        {"table": f"{SCHEMA}.{table.name}"},
    ).fetchall()


def expected_comments(table: Table) -> list[tuple[Any, ...]]:
    named = [(table.name, table.comment), *((c.name, c.comment) for c in table.columns)]
    return [(*pair, place) for place, pair in enumerate(named)]


@TABLE_LIST
def test_a_table_and_each_column_carry_the_catalogs_comments(
    database_url: SecretStr, table: Table
) -> None:
    with transaction(database_url, snapshot=True) as connection:
        assert comments(connection, table) == expected_comments(table)


@TABLE_LIST
def test_the_columns_marked_generated_are_filled_by_postgresql(
    database_url: SecretStr, table: Table
) -> None:
    found = rows(
        database_url,
        "SELECT attname FROM pg_attribute"
        " WHERE attrelid = to_regclass(%s) AND attgenerated <> '' ORDER BY attnum",
        f"{SCHEMA}.{table.name}",
    )
    assert [name for (name,) in found] == [
        column.name for column in table.columns if column.generated
    ]


def test_every_table_of_the_schema_is_in_the_catalog(database_url: SecretStr) -> None:
    found = rows(
        database_url,
        "SELECT relname FROM pg_class"
        " WHERE relnamespace = to_regnamespace(%s) AND relkind IN ('r', 'v', 'm', 'p', 'f', 'S')",
        SCHEMA,
    )
    assert {name for (name,) in found} == {*TABLES, "schema_version"}


def test_everything_in_the_schema_has_a_comment(database_url: SecretStr) -> None:
    bare = rows(
        database_url,
        "SELECT c.relname, a.attname FROM pg_class c"
        "  LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
        " WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind IN ('r', 'v')"
        "   AND (obj_description(c.oid) IS NULL OR col_description(c.oid, a.attnum) IS NULL)",
        SCHEMA,
    )
    assert bare == []


def test_every_table_has_a_primary_key(database_url: SecretStr) -> None:
    with transaction(database_url, snapshot=True) as connection:
        without = [
            table.name
            for table in TABLES.values()
            if not table.is_view and not primary_key(connection, table)
        ]
    assert without == []


def test_every_time_has_a_time_zone(database_url: SecretStr) -> None:
    assert (
        rows(
            database_url,
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = %s AND data_type = 'timestamp without time zone'",
            SCHEMA,
        )
        == []
    )


def test_the_checks_name_missing_unknown_and_changed_columns(
    fresh_database_url: SecretStr,
) -> None:
    table = TABLES["batch_toots_per_day"]
    with transaction(fresh_database_url) as connection:
        connection.execute(
            "ALTER TABLE masto.batch_toots_per_day DROP CONSTRAINT batch_toots_per_day_pkey"
        )
        connection.execute("ALTER TABLE masto.batch_toots_per_day ALTER day DROP NOT NULL")
        connection.execute("ALTER TABLE masto.batch_toots_per_day RENAME toots_count TO n")
        connection.execute("INSERT INTO masto.batch_toots_per_day VALUES ('2026-01-01', 1)")
        connection.execute("INSERT INTO masto.batch_toots_per_day VALUES ('2026-01-01', 2)")
        assert schema_differences(connection, table) == [
            "day: date instead of date not null",
            "n: not in the catalog",
            "primary key () instead of ('day',)",
            "toots_count: missing",
        ]
        assert duplicate_keys(connection, table) == 1


def test_the_window_check_compares_windows_with_rows(fresh_database_url: SecretStr) -> None:
    with transaction(fresh_database_url) as connection:
        assert window_sum_and_rows(connection) == (0, 0)
        connection.execute(
            "INSERT INTO masto.toot_metrics_windowed VALUES (now(), now(), 3, 12, 'en')"
        )
        assert window_sum_and_rows(connection) == (3, 0)


def test_the_migrations_are_numbered_files_with_four_digits_each() -> None:
    numbers = [file.name[:5] for file in MIGRATIONS.glob("[!_]*")]
    assert len(set(numbers)) == len(numbers)
    assert [number for number in numbers if not re.fullmatch(r"\d{4}_", number)] == []


@pytest.fixture
def old_url(bare_url: SecretStr) -> SecretStr:
    """A database as the version before 0010 left it, with rows and the comments of that time."""
    with transaction(bare_url) as connection:
        connection.execute("CREATE SCHEMA masto")
        connection.execute(
            "CREATE TABLE masto.schema_version"
            " (version_num varchar(32) CONSTRAINT schema_version_pkc PRIMARY KEY)"
        )
        connection.execute("INSERT INTO masto.schema_version VALUES ('0009')")
        for file in sorted(MIGRATIONS.glob("000*.sql")):
            connection.execute(file.read_bytes())
        apply_view(connection, "v_sentiment_daily")
        connection.execute("COMMENT ON TABLE masto.toots_raw IS 'One row a public post'")
        connection.execute("COMMENT ON COLUMN masto.v_sentiment_daily.day IS 'Tag'")
        connection.execute("UPDATE masto.data_versions SET version = 7")
        connection.execute("INSERT INTO masto.toots_deleted VALUES ('one.example', '1', now())")
        connection.execute(
            "INSERT INTO masto.toots_raw (id, created_at, received_at, event_at, payload_hash,"
            " favourites, reblogs, replies, is_bot, is_sensitive, instance, status_id, uri,"
            " username, lang, hashtags, content_txt) SELECT n, at, at, at, n, 0, 0, 0, false,"
            " false, 'one.example', n, n, 'ada@one.example', 'en', '{tea}', 'four'"
            " FROM generate_series(1, 6) n, LATERAL (SELECT '2026-01-01 00:30+00'::timestamptz"
            " + n * interval '10 minutes') t (at)"
        )
        connection.execute(
            "INSERT INTO masto.toots_sentiment (id, created_at, scored_at, lang, reason, text)"
            " SELECT id, created_at, now(), lang, 'no_words', content_txt FROM masto.toots_raw"
            " WHERE id > 2"
        )
        # As far as a refresh of that version came.
        connection.execute("INSERT INTO masto.user_totals VALUES ('bob@one.example', 1, 1)")
        connection.execute(
            "INSERT INTO masto.asset_progress (asset, toots_version, parameters)"
            " VALUES ('batch_active_users', 1, '{''min_toots'': 5}')"
        )
    return bare_url


def utc(hour: int) -> datetime:
    return datetime(2026, 1, 1, hour, tzinfo=UTC)


def test_a_database_of_the_version_before_is_migrated_with_its_rows_and_gets_the_comments(
    old_url: SecretStr,
) -> None:
    assert migrate(old_url) == newest()
    assert rows(old_url, "SELECT version_num FROM masto.schema_version") == [(newest(),)]
    assert rows(old_url, "SELECT version FROM masto.data_versions") == [(7,)]
    assert rows(old_url, "SELECT status_id FROM masto.toots_deleted") == [("1",)]
    expected = {
        "batch_active_users": [("ada@one.example", 6, 4.0)],
        "batch_hashtag_by_hour": [(utc(0), "tea", 2), (utc(1), "tea", 4)],
        "batch_top_hashtag": [("tea", 6, 1)],
        "batch_toots_per_day": [(date(2026, 1, 1), 6)],
        "batch_avg_len_per_day": [(date(2026, 1, 1), 4.0)],
        "batch_toots_by_lang_per_day": [(date(2026, 1, 1), "en", 6)],
        "toots_unscored": [(1,), (2,)],
    }
    assert {name: sorted(rows(old_url, f"TABLE masto.{name}")) for name in expected} == expected
    hours = "SELECT hour FROM masto.changed_hours ORDER BY 1"
    deleted = "SELECT date_trunc('hour', deleted_at, 'UTC') FROM masto.toots_deleted"
    assert rows(old_url, hours) == [(utc(0),), (utc(1),), *rows(old_url, deleted)]
    with transaction(old_url, snapshot=True) as connection:
        for table in TABLES.values():
            assert schema_differences(connection, table) == []
            assert comments(connection, table) == expected_comments(table)


def test_migrating_again_changes_nothing(fresh_database_url: SecretStr) -> None:
    before = catalog(fresh_database_url)
    assert migrate(fresh_database_url) == migrate(fresh_database_url) == newest()
    assert catalog(fresh_database_url) == before


def test_of_several_migrations_at_once_one_works_and_the_others_wait(bare_url: SecretStr) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(migrate, [bare_url] * 4)) == {newest()}
    assert rows(bare_url, "SELECT count(*) FROM masto.data_versions") == [(1,)]
    with transaction(bare_url, snapshot=True) as connection:
        assert all(schema_differences(connection, table) == [] for table in TABLES.values())


def test_a_failing_migration_leaves_the_schema_as_it_was(
    fresh_database_url: SecretStr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, version = catalog(fresh_database_url), newest()
    add_migration(tmp_path, monkeypatch, "CREATE TABLE masto.more (a int); SELECT 1 / 0;")
    with pytest.raises(MigrationError, match=r"version 9999 \(division by zero\); nothing was"):
        migrate(fresh_database_url)
    assert catalog(fresh_database_url) == before
    assert rows(fresh_database_url, "SELECT version_num FROM masto.schema_version") == [(version,)]


def test_a_first_migration_that_fails_leaves_no_schema(
    bare_url: SecretStr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_migration(tmp_path, monkeypatch, "SELECT 1 / 0;")
    with pytest.raises(MigrationError):
        migrate(bare_url)
    assert rows(bare_url, "SELECT to_regnamespace('masto') IS NULL") == [(True,)]


def test_a_pending_migration_keeps_the_rows(
    fresh_database_url: SecretStr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with transaction(fresh_database_url) as connection:
        connection.execute("INSERT INTO masto.batch_toots_per_day VALUES ('2026-01-01', 7)")
    add_migration(tmp_path, monkeypatch, "CREATE INDEX more ON masto.batch_toots_per_day (day);")
    assert migrate(fresh_database_url) == "9999"
    assert rows(fresh_database_url, "SELECT toots_count FROM masto.batch_toots_per_day") == [(7,)]


def test_a_schema_newer_than_the_program_is_an_error_and_left_alone(
    fresh_database_url: SecretStr,
) -> None:
    with transaction(fresh_database_url) as connection:
        connection.execute("UPDATE masto.schema_version SET version_num = '0999'")
    with pytest.raises(MigrationError, match=r"schema 0999.*upgrade mastodon-assets"):
        migrate(fresh_database_url)


def test_a_writer_of_an_older_version_stops_after_a_migration(
    fresh_database_url: SecretStr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        add_migration(tmp_path, patched, "CREATE TABLE masto.more (a int);")
        migrate(fresh_database_url)
    with (
        pytest.raises(SchemaVersionError, match=r"version 9999 and this program writes version 00"),
        transaction(fresh_database_url) as connection,
    ):
        take_write_lock(connection)


def test_a_migration_waits_for_the_writer_that_holds_the_lock(
    fresh_database_url: SecretStr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadPoolExecutor(1) as pool:
        with transaction(fresh_database_url) as connection:
            take_write_lock(connection)
            add_migration(tmp_path, monkeypatch, "CREATE TABLE masto.more (a int);")
            migration = pool.submit(migrate, fresh_database_url)
            while not connection.execute(
                "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            ).fetchone():
                assert not migration.done()
            assert connection.execute("SELECT to_regclass('masto.more')").fetchone() == (None,)
        assert migration.result() == "9999"


def test_a_role_that_cannot_create_a_schema_gets_an_error(bare_url: SecretStr) -> None:
    role = f"reader_{id(bare_url)}"
    with psycopg.connect(bare_url.get_secret_value()) as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'p'").format(sql.Identifier(role))
        )
    try:
        _, _, place = bare_url.get_secret_value().rpartition("@")
        with pytest.raises(MigrationError, match="permission denied for database"):
            migrate(SecretStr(f"postgresql://{role}:p@{place}"))
    finally:
        with psycopg.connect(bare_url.get_secret_value()) as connection:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_a_day_is_found_by_few_blocks_after_deletes_let_new_rows_fill_the_holes(
    fresh_database_url: SecretStr,
) -> None:
    insert = (
        "INSERT INTO masto.toots_raw (id, created_at, received_at, event_at, payload_hash,"
        " favourites, reblogs, replies, is_bot, is_sensitive, instance, status_id, uri, username,"
        " lang, hashtags, content_txt) SELECT n, at, at, at, n, 0, 0, 0, false, false, 'a', n, n,"
        " 'u', 'en', '{}', repeat('x', 200) FROM generate_series(%s::int, %s::int) n,"
        " LATERAL (SELECT '2026-01-01'::timestamptz + n * interval '3 minutes') t (at)"
    )
    with psycopg.connect(fresh_database_url.get_secret_value(), autocommit=True) as connection:
        connection.execute(insert, (0, 19_999))
        connection.execute("DELETE FROM masto.toots_raw WHERE id % 10 = 0")
        connection.execute("VACUUM ANALYZE masto.toots_raw")
        connection.execute(insert, (20_000, 21_999))
        connection.execute("VACUUM ANALYZE masto.toots_raw")
        found = connection.execute(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT count(*) FROM masto.toots_raw"
            " WHERE event_at >= '2026-01-20' AND event_at < '2026-01-21'"
        ).fetchone()
        blocks = connection.execute("SELECT pg_relation_size('masto.toots_raw') / 8192").fetchone()
    assert found is not None
    assert blocks is not None
    plan = found[0][0]["Plan"]
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < blocks[0] / 10


def newest() -> str:
    """Return the number of the newest migration."""
    return max(file.name for file in MIGRATIONS.glob("[0-9]*.*"))[:4]
