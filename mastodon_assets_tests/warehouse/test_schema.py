"""The migrated database is what the registry says, and stays whole whoever migrates it."""

import runpy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from mastodon_assets.embedded.stack import Connection as StackConnection
from mastodon_assets.warehouse import migrate as migrations
from mastodon_assets.warehouse.checks import (
    duplicate_keys,
    primary_key,
    schema_differences,
    window_sum_and_rows,
)
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.migrate import MigrationError, migrate
from mastodon_assets.warehouse.tables import SCHEMA, TABLES, Table
from mastodon_assets_tests.conftest import new_database

_VERSIONS = Path(migrations.__file__).parent / "migrations/versions"
TABLE_LIST = pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)


def rows(url: SecretStr, query: str, *values: object) -> list[tuple[Any, ...]]:
    with transaction(url, snapshot=True) as connection:
        return connection.execute(query.encode(), values).fetchall()


def catalogue(url: SecretStr) -> list[tuple[Any, ...]]:
    """Everything of the schema that a migration could have left behind, with its transaction."""
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
    with new_database(stack) as url:
        with psycopg.connect(url.get_secret_value()) as connection:
            connection.execute("DROP SCHEMA masto CASCADE")
        yield url


@TABLE_LIST
def test_a_table_has_the_registrys_columns_types_and_key(
    database_url: SecretStr, table: Table
) -> None:
    with transaction(database_url, snapshot=True) as connection:
        assert schema_differences(connection, table) == []


@TABLE_LIST
def test_a_table_and_each_column_carry_the_registrys_comments(
    database_url: SecretStr, table: Table
) -> None:
    found = rows(
        database_url,
        "SELECT a.attname, col_description(a.attrelid, a.attnum) FROM pg_attribute a"
        " WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 ORDER BY a.attnum",
        f"{SCHEMA}.{table.name}",
    )
    assert found == [(column.name, column.comment) for column in table.columns]
    described = rows(
        database_url, "SELECT obj_description(to_regclass(%s))", f"{SCHEMA}.{table.name}"
    )
    assert described == [(table.comment,)]


@TABLE_LIST
def test_the_columns_marked_generated_are_postgresqls_to_fill(
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


def test_nothing_in_the_schema_is_without_a_place_in_the_registry(database_url: SecretStr) -> None:
    found = rows(
        database_url,
        "SELECT relname FROM pg_class"
        " WHERE relnamespace = to_regnamespace(%s) AND relkind IN ('r', 'v', 'm', 'p', 'f', 'S')",
        SCHEMA,
    )
    assert {name for (name,) in found} == {*TABLES, "schema_version"}


def test_nothing_in_the_schema_is_without_a_comment(database_url: SecretStr) -> None:
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


def test_every_time_is_kept_with_its_zone(database_url: SecretStr) -> None:
    assert (
        rows(
            database_url,
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = %s AND data_type = 'timestamp without time zone'",
            SCHEMA,
        )
        == []
    )


def test_the_checks_name_a_missing_a_foreign_and_a_changed_column(
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
            "n: not in the registry",
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


def test_the_files_of_the_migrations_are_named_by_their_numbers_in_the_order_they_run() -> None:
    files = sorted(_VERSIONS.glob("*.py"))
    versions = [runpy.run_path(str(file)) for file in files]
    numbers = [version["revision"] for version in versions]
    assert numbers == [file.name[:4] for file in files]
    assert [version["down_revision"] for version in versions] == [None, *numbers[:-1]]


def test_migrating_again_changes_nothing(fresh_database_url: SecretStr) -> None:
    before = catalogue(fresh_database_url)
    assert migrate(fresh_database_url) == migrate(fresh_database_url) == newest()
    assert catalogue(fresh_database_url) == before


def test_of_several_migrations_at_once_one_works_and_the_others_wait(bare_url: SecretStr) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(migrate, [bare_url] * 4)) == {newest()}
    assert rows(bare_url, "SELECT count(*) FROM masto.data_versions") == [(1,)]
    with transaction(bare_url, snapshot=True) as connection:
        assert all(schema_differences(connection, table) == [] for table in TABLES.values())


def test_a_failing_migration_leaves_the_schema_as_it_was(
    fresh_database_url: SecretStr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, version = catalogue(fresh_database_url), newest()
    add_migration(tmp_path, monkeypatch, "CREATE TABLE masto.more (a int); SELECT 1 / 0;")
    with pytest.raises(MigrationError, match=r"version 9999 \(division by zero\); nothing was"):
        migrate(fresh_database_url)
    assert catalogue(fresh_database_url) == before
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


def test_a_schema_newer_than_the_program_is_told_and_left_alone(
    fresh_database_url: SecretStr,
) -> None:
    with transaction(fresh_database_url) as connection:
        connection.execute("UPDATE masto.schema_version SET version_num = '0999'")
    with pytest.raises(MigrationError, match=r"schema 0999.*upgrade mastodon-assets"):
        migrate(fresh_database_url)


def test_one_who_may_not_create_a_schema_is_told_so(bare_url: SecretStr) -> None:
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


def newest() -> str:
    """The number of the newest migration."""
    return max(file.name for file in _VERSIONS.glob("*.py"))[:4]


def add_migration(folder: Path, monkeypatch: pytest.MonkeyPatch, statements: str) -> None:
    """Let `migrate` find the shipped migrations and one more, number 9999."""
    after = newest()
    shipped = migrations._MIGRATIONS
    copy = folder / "migrations"
    (copy / "versions").mkdir(parents=True)
    for path in [shipped / "env.py", *(shipped / "versions").glob("0*")]:
        (copy / path.relative_to(shipped)).write_bytes(path.read_bytes())
    (copy / "versions" / "9999_more.py").write_text(
        "from mastodon_assets.warehouse.migrate import run_sql\n"
        f"revision, down_revision = '9999', {after!r}\n"
        f"def upgrade():\n    run_sql({statements!r})\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(migrations, "_MIGRATIONS", copy)
