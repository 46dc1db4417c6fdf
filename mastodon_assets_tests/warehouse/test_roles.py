"""What each role may do, on a real server, for every table of the catalog."""

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import InsufficientPrivilege
from pydantic import SecretStr

import mastodon_assets
from mastodon_assets.backup.restore import check_restorable
from mastodon_assets.backup.save import BackupError, make_backup
from mastodon_assets.config.settings import load_settings
from mastodon_assets.embedded.stack import Connection as StackConnection
from mastodon_assets.sentiment.annotation.labels import remove_coder
from mastodon_assets.sentiment.annotation.sample import draw_sample
from mastodon_assets.stream.merge import prepare_session, refresh_statistics
from mastodon_assets.warehouse import roles
from mastodon_assets.warehouse.database import MissingRightsError, connect, transaction
from mastodon_assets.warehouse.migrate import MigrationError, migrate
from mastodon_assets.warehouse.roles import (
    MODERATOR,
    OWNER,
    READER,
    WRITER,
    RolesError,
    create_roles,
)
from mastodon_assets.warehouse.staging import with_staging
from mastodon_assets.warehouse.tables import SCHEMA, TABLES, Table
from mastodon_assets_tests.support.databases import empty_database, new_database
from mastodon_assets_tests.support.labelled_posts import add_post, give_label
from mastodon_assets_tests.support.migrations import add_migration

_GUIDES = Path(mastodon_assets.__file__).parent / "docs" / "guides"
_BI_GUIDE = _GUIDES / "bi.md"
_KUBERNETES_GUIDE = _GUIDES / "kubernetes.md"
PASSWORDS = {
    OWNER: SecretStr("owner's pass/word"),
    WRITER: SecretStr("writer's pass@word"),
    MODERATOR: SecretStr("moderator's pass%word"),
    READER: SecretStr("reader's pass:word"),
}
TABLE_LIST = pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
WITHOUT_VIEWS = pytest.mark.parametrize(
    "table",
    [table for table in TABLES.values() if not table.is_view],
    ids=lambda table: table.name,
)


@pytest.fixture(scope="module")
def admin_url(stack: StackConnection) -> Iterator[SecretStr]:
    """A migrated database of its own with the roles made, as its superuser."""
    with new_database(stack) as url:
        create_roles(url, PASSWORDS)
        yield url


def as_role(admin_url: SecretStr, role: str) -> SecretStr:
    parts = conninfo_to_dict(admin_url.get_secret_value())
    password = quote(PASSWORDS[role].get_secret_value(), safe="")
    return SecretStr(
        f"postgresql://{role}:{password}@{parts['host']}:{parts['port']}/{parts['dbname']}"
    )


@pytest.fixture(params=[OWNER, WRITER, MODERATOR, READER])
def role_url(request: pytest.FixtureRequest, admin_url: SecretStr) -> SecretStr:
    return as_role(admin_url, request.param)


@pytest.fixture
def owner(admin_url: SecretStr) -> Iterator[psycopg.Connection[Any]]:
    yield from _undone(as_role(admin_url, OWNER))


@pytest.fixture
def writer(admin_url: SecretStr) -> Iterator[psycopg.Connection[Any]]:
    yield from _undone(as_role(admin_url, WRITER))


@pytest.fixture
def reader(admin_url: SecretStr) -> Iterator[psycopg.Connection[Any]]:
    yield from _undone(as_role(admin_url, READER))


@pytest.fixture
def moderator(admin_url: SecretStr) -> Iterator[psycopg.Connection[Any]]:
    yield from _undone(as_role(admin_url, MODERATOR))


def _undone(url: SecretStr) -> Iterator[psycopg.Connection[Any]]:
    """Yield a connection whose work is rolled back."""
    connection = connect(url)
    yield connection
    connection.close()


def select(connection: psycopg.Connection[Any], table: Table, *columns: str) -> None:
    names = sql.SQL(", ").join(map(sql.Identifier, columns)) if columns else sql.SQL("*")
    connection.execute(sql.SQL("SELECT {} FROM {} LIMIT 1").format(names, identifier(table)))


def identifier(table: Table) -> sql.Identifier:
    return sql.Identifier(SCHEMA, table.name)


def writes(table: Table) -> dict[str, sql.Composed]:
    """Statements that each need one right, and change nothing where it is there."""
    name, column = identifier(table), sql.Identifier(table.key[0])
    return {
        "insert": sql.SQL("INSERT INTO {0} SELECT * FROM {0} WHERE false").format(name)
        if len(table.stored_columns) == len(table.columns)
        else sql.SQL("INSERT INTO {0} ({1}) SELECT {1} FROM {0} WHERE false").format(name, column),
        "update": sql.SQL("UPDATE {0} SET {1} = {1} WHERE false").format(name, column),
        "delete": sql.SQL("DELETE FROM {} WHERE false").format(name),
    }


def changes_of_the_schema(table: Table) -> dict[str, sql.Composed]:
    name = identifier(table)
    return {
        "drop": sql.SQL("DROP TABLE {}").format(name),
        "truncate": sql.SQL("TRUNCATE {}").format(name),
        "add a column": sql.SQL("ALTER TABLE {} ADD more integer").format(name),
        "add an index": sql.SQL("CREATE INDEX ON {} ({})").format(
            name, sql.Identifier(table.key[0])
        ),
        "comment": sql.SQL("COMMENT ON TABLE {} IS 'x'").format(name),
    }


def denied(connection: psycopg.Connection[Any], statement: sql.SQL | sql.Composed) -> bool:
    try:
        with connection.transaction():
            connection.execute(statement)
    except InsufficientPrivilege:
        return True
    return False


@TABLE_LIST
def test_the_catalog_names_a_tables_personal_columns(table: Table) -> None:
    assert table.personal is not None, f"{table.name}: set `personal`, () if no column is"
    assert set(table.personal) <= set(table.column_names)
    assert table.readable_columns or table.is_moderated


def test_known_personal_columns_are_marked_in_every_table() -> None:
    known = {"username", "user_id", "uri", "status_id", "content_txt", "content_html", "text"}
    known |= {"payload", "message_key", "in_reply_to_id", "id", "toot_id", "secret"}
    shown = {name for table in TABLES.values() for name in table.readable_columns}
    assert not shown & known


@TABLE_LIST
def test_the_reader_sees_exactly_what_does_not_lead_to_a_person(
    reader: psycopg.Connection[Any], table: Table
) -> None:
    if not table.is_moderated:
        select(reader, table, *table.readable_columns)
    if not table.personal:
        select(reader, table)
        return
    everything = sql.SQL("SELECT * FROM {}").format(identifier(table))
    assert denied(reader, everything)
    for name in table.column_names if table.is_moderated else table.personal:
        query = sql.SQL("SELECT {} FROM {}").format(sql.Identifier(name), identifier(table))
        assert denied(reader, query), name


@TABLE_LIST
def test_the_moderator_also_sees_posts_and_scores_by_row(
    moderator: psycopg.Connection[Any], table: Table
) -> None:
    if table.is_moderated:
        select(moderator, table)
        return
    select(moderator, table, *table.readable_columns)
    for name in table.personal or ():
        query = sql.SQL("SELECT {} FROM {}").format(sql.Identifier(name), identifier(table))
        assert denied(moderator, query), name


def test_the_reader_cannot_go_from_a_post_on_the_web_to_its_label(
    admin_url: SecretStr, reader: psycopg.Connection[Any]
) -> None:
    with transaction(admin_url) as connection:
        connection.execute(
            "INSERT INTO masto.toots_raw (id, created_at, received_at, event_at, payload_hash,"
            " favourites, reblogs, replies, is_bot, is_sensitive, instance, status_id, uri,"
            " username, lang, hashtags, content_txt) VALUES (77, now(), now(), now(), 1, 0, 0, 0,"
            " false, false, 'one.example', '1', 'https://one.example/1', 'ada@one.example', 'en',"
            " '{}', 'hello') ON CONFLICT DO NOTHING"
        )
        connection.execute(
            "INSERT INTO masto.toots_sentiment (id, created_at, scored_at, lang, reason, text)"
            " VALUES (77, now(), now(), 'en', 'no_model', 'hello') ON CONFLICT DO NOTHING"
        )
    found = reader.execute("SELECT post_key, reason FROM masto.v_post_labels").fetchall()
    assert [reason for _, reason in found] == ["no_model"]
    guessed = reader.execute("SELECT encode(sha256('77'), 'hex')").fetchone()
    assert guessed is not None
    assert found[0][0] != guessed[0]
    assert denied(reader, sql.SQL("SELECT label_str FROM masto.toots_sentiment WHERE id = 77"))


@WITHOUT_VIEWS
@pytest.mark.parametrize("role", [MODERATOR, READER])
def test_readers_write_nothing_and_moderators_only_labels(
    admin_url: SecretStr, role: str, table: Table
) -> None:
    statements = {**writes(table), **changes_of_the_schema(table)}
    with closing(connect(as_role(admin_url, role))) as connection:
        allowed = {name for name, text in statements.items() if not denied(connection, text)}
    may_write = role == MODERATOR and table.name == "annotations"
    assert allowed == (set(writes(table)) if may_write else set())


def test_a_moderator_labels_posts_that_were_drawn(admin_url: SecretStr) -> None:
    with transaction(admin_url) as connection:
        add_post(connection, 78, "hello")
    draw_sample(admin_url, 1)
    give_label(as_role(admin_url, MODERATOR), 78, "ada", "positive")
    assert remove_coder(as_role(admin_url, MODERATOR), "ada") == 1
    with transaction(admin_url) as connection:
        connection.execute("DELETE FROM masto.toots_raw WHERE id = 78")
        connection.execute("DELETE FROM masto.toots_sentiment WHERE id = 78")


@TABLE_LIST
def test_the_writer_reads_everything(writer: psycopg.Connection[Any], table: Table) -> None:
    select(writer, table)


def test_the_writer_makes_backups_and_checks_them_if_it_may_create_databases(
    admin_url: SecretStr, tmp_path: Path
) -> None:
    url = as_role(admin_url, WRITER)
    settings = load_settings(mastodon_assets_home=tmp_path / "state", database_url=url)
    backup = make_backup(settings, tmp_path / "backups", lambda line: None)
    with pytest.raises(BackupError, match="grant it CREATEDB"):
        check_restorable(settings, backup, lambda line: None)
    with connect(admin_url) as connection:
        connection.execute("ALTER ROLE masto_writer CREATEDB")
        connection.commit()
        try:
            check_restorable(settings, backup, lambda line: None)
        finally:
            connection.execute("ALTER ROLE masto_writer NOCREATEDB")
            connection.commit()


@WITHOUT_VIEWS
def test_the_writer_changes_rows_and_no_table(
    writer: psycopg.Connection[Any], table: Table
) -> None:
    refused = [name for name, statement in writes(table).items() if denied(writer, statement)]
    assert refused == []
    statements = changes_of_the_schema(table)
    assert [name for name, statement in statements.items() if not denied(writer, statement)] == []


@pytest.mark.parametrize("role", [WRITER, MODERATOR, READER])
@TABLE_LIST
def test_neither_writer_nor_reader_grants_its_rights_to_others(
    admin_url: SecretStr, role: str, table: Table
) -> None:
    statement = sql.SQL("GRANT SELECT ON {} TO PUBLIC").format(identifier(table))
    with closing(connect(as_role(admin_url, role))) as connection:
        # Refused with an error or, where one holds the right itself, with a warning.
        if not denied(connection, statement):
            assert not connection.execute(
                "SELECT FROM information_schema.role_table_grants WHERE table_schema = %s"
                " AND table_name = %s AND grantee = 'PUBLIC'",
                (SCHEMA, table.name),
            ).fetchall()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE masto.more (a int)",
        "CREATE TABLE public.more (a int)",
        "CREATE SCHEMA more",
        "CREATE DATABASE more",
        "CREATE ROLE more",
        "ALTER SCHEMA masto RENAME TO more",
        "CREATE OR REPLACE VIEW masto.v_sentiment_daily AS SELECT 1",
        "UPDATE masto.schema_version SET version_num = '9999'",
        "SET ROLE masto_owner",
        "COPY masto.toots_raw TO PROGRAM 'cat'",
        "SELECT pg_read_file('postgresql.conf')",
        "SELECT rolpassword FROM pg_authid",
    ],
)
@pytest.mark.parametrize("role", [WRITER, MODERATOR, READER])
def test_neither_writer_nor_reader_goes_beyond_rows(
    admin_url: SecretStr, role: str, statement: str
) -> None:
    url = as_role(admin_url, role).get_secret_value()
    with (
        psycopg.connect(url, autocommit=True) as connection,
        pytest.raises(InsufficientPrivilege),
    ):
        connection.execute(statement.encode())


@pytest.mark.parametrize("statement", ["CREATE DATABASE more", "CREATE ROLE more"])
def test_the_owner_owns_the_schema_and_not_the_server(admin_url: SecretStr, statement: str) -> None:
    url = as_role(admin_url, OWNER).get_secret_value()
    with (
        psycopg.connect(url, autocommit=True) as connection,
        pytest.raises(InsufficientPrivilege),
    ):
        connection.execute(statement.encode())


def test_everything_in_the_schema_is_the_owners(admin_url: SecretStr) -> None:
    with transaction(admin_url, snapshot=True) as connection:
        others = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace"
            " AND pg_get_userbyid(relowner) <> %s"
            " UNION SELECT proname FROM pg_proc WHERE pronamespace = %s::regnamespace"
            " AND pg_get_userbyid(proowner) <> %s",
            (SCHEMA, OWNER, SCHEMA, OWNER),
        ).fetchall()
    assert others == []


def test_the_writer_can_create_temporary_tables_and_statistics(
    admin_url: SecretStr,
) -> None:
    notices: list[str] = []
    with connect(as_role(admin_url, WRITER)) as connection:
        connection.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
        prepare_session(connection)
        connection.execute(with_staging("ANALYZE {staged_messages}"))
        refresh_statistics(connection, stored=1_000_000)
    # PostgreSQL skips with a warning what one may not ANALYZE.
    assert notices == []


def test_every_query_of_the_guide_for_bi_tools_runs_for_the_reader(
    reader: psycopg.Connection[Any],
) -> None:
    queries = re.findall(r"(?s)```sql\n(.*?)```", _BI_GUIDE.read_text(encoding="utf-8"))
    assert len(queries) >= 5
    for query in queries:
        reader.execute(query)


def test_with_nothing_pending_every_role_goes_on(admin_url: SecretStr, role_url: SecretStr) -> None:
    assert migrate(role_url) == migrate(admin_url)


def test_only_the_owner_migrates_and_the_error_says_what_to_run(
    stack: StackConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_database(stack) as admin:
        create_roles(admin, PASSWORDS)
        add_migration(tmp_path, monkeypatch, "CREATE TABLE masto.more (a int);")
        for role in (WRITER, READER):
            with pytest.raises(MigrationError, match=r"owner's DATABASE_URL run: .* migrate\Z"):
                migrate(as_role(admin, role))
        migrate(as_role(admin, OWNER))
        migrate(as_role(admin, WRITER))


def test_a_superusers_migration_creates_tables_of_the_owner(
    stack: StackConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_database(stack) as admin:
        create_roles(admin, PASSWORDS)
        add_migration(tmp_path, monkeypatch, "CREATE TABLE masto.more (a int);")
        migrate(admin)
        with transaction(admin) as connection:
            assert connection.execute(
                "SELECT tableowner FROM pg_tables WHERE tablename = 'more'"
            ).fetchall() == [(OWNER,)]


def test_roles_can_be_created_before_the_tables(stack: StackConnection) -> None:
    with empty_database(stack) as admin:
        create_roles(admin, PASSWORDS)
        migrate(as_role(admin, OWNER))
        with transaction(as_role(admin, READER), snapshot=True) as connection:
            select(connection, TABLES["batch_toots_per_day"])
        with (
            pytest.raises(MissingRightsError, match="permission denied for table toots_raw"),
            transaction(as_role(admin, READER), snapshot=True) as connection,
        ):
            select(connection, TABLES["toots_raw"])


def test_creating_the_roles_again_revokes_other_grants(
    stack: StackConnection,
) -> None:
    with new_database(stack) as admin:
        create_roles(admin, PASSWORDS)
        with transaction(admin) as connection:
            connection.execute("GRANT SELECT ON masto.toots_raw TO masto_reader")
            connection.execute("GRANT SELECT (username) ON masto.toots_raw TO masto_reader")
            connection.execute("GRANT TRUNCATE ON masto.toots_raw TO masto_writer")
        create_roles(admin, {})
        with connect(as_role(admin, READER)) as connection:
            assert denied(connection, sql.SQL("SELECT username FROM masto.toots_raw"))
        with connect(as_role(admin, WRITER)) as connection:
            assert denied(connection, sql.SQL("TRUNCATE masto.toots_raw"))


def test_the_error_of_a_role_that_cannot_create_roles_says_who_can(admin_url: SecretStr) -> None:
    with pytest.raises(RolesError, match=r"superuser, or to the database's owner") as raised:
        create_roles(as_role(admin_url, WRITER), {WRITER: SecretStr("new")})
    assert "\n" not in str(raised.value)


def test_a_database_owner_with_createrole_can_create_the_roles(
    stack: StackConnection,
) -> None:
    with empty_database(stack) as admin:
        parts = conninfo_to_dict(admin.get_secret_value())
        with psycopg.connect(admin.get_secret_value(), autocommit=True) as connection:
            connection.execute("CREATE ROLE landlord LOGIN CREATEROLE PASSWORD 'p'")
            # The roles are there already, from the other tests.
            connection.execute(
                "GRANT masto_owner, masto_writer, masto_moderator, masto_reader TO landlord"
                " WITH ADMIN OPTION"
            )
            connection.execute(
                sql.SQL("ALTER DATABASE {} OWNER TO landlord").format(
                    sql.Identifier(str(parts["dbname"]))
                )
            )
        place = f"{parts['host']}:{parts['port']}/{parts['dbname']}"
        try:
            create_roles(SecretStr(f"postgresql://landlord:p@{place}"), PASSWORDS)
            migrate(SecretStr(f"postgresql://landlord:p@{place}"))
            with transaction(as_role(admin, WRITER), snapshot=True) as connection:
                select(connection, TABLES["toots_raw"])
        finally:
            with psycopg.connect(admin.get_secret_value(), autocommit=True) as connection:
                connection.execute(
                    sql.SQL("ALTER DATABASE {} OWNER TO CURRENT_USER").format(
                        sql.Identifier(str(parts["dbname"]))
                    )
                )
                connection.execute("DROP OWNED BY landlord")
                connection.execute("DROP ROLE landlord")


def test_an_administrator_of_a_cloud_can_create_roles_that_are_not_there(
    stack: StackConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As RDS, Cloud SQL and Azure have them: no superuser, but CREATEROLE and CREATEDB.

    Since PostgreSQL 16 such a role may grant the roles it created, and not act as them.
    """
    names = {role: f"{role}_of_cloud" for role in PASSWORDS}
    monkeypatch.setattr(roles, "ROLES", tuple(names.values()))
    for constant in ("OWNER", "WRITER", "MODERATOR", "READER"):
        monkeypatch.setattr(roles, constant, names[getattr(roles, constant)])
    parts = conninfo_to_dict(stack.postgres_url)
    place = f"{parts['host']}:{parts['port']}"
    url = SecretStr(f"postgresql://cloud_admin:p@{place}/cloud")
    with psycopg.connect(stack.postgres_url, autocommit=True) as superuser:
        superuser.execute(
            "CREATE ROLE cloud_admin LOGIN NOSUPERUSER CREATEROLE CREATEDB PASSWORD 'p'"
        )
        try:
            with psycopg.connect(
                f"postgresql://cloud_admin:p@{place}/postgres", autocommit=True
            ) as cloud_admin:
                for statement in _statements_of_the_guide():
                    cloud_admin.execute(statement)
            # Again, because a job may be run twice.
            for _ in range(2):
                create_roles(url, {names[role]: PASSWORDS[role] for role in PASSWORDS})
                migrate(url)
            password = quote(PASSWORDS[WRITER].get_secret_value(), safe="")
            writer = SecretStr(f"postgresql://{names[WRITER]}:{password}@{place}/cloud")
            with transaction(writer) as connection:
                select(connection, TABLES["toots_raw"])
                assert denied(connection, sql.SQL("DROP TABLE masto.toots_raw"))
                owners = connection.execute(
                    "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'masto'"
                ).fetchall()
            assert owners == [(names[OWNER],)]
            psycopg.connect(f"postgresql://dagster_of_cloud:d@{place}/dagster_of_cloud").close()
        finally:
            for database in ("cloud", "dagster_of_cloud"):
                superuser.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
            for role in (*names.values(), "dagster_of_cloud", "cloud_admin"):
                superuser.execute(f"DROP ROLE IF EXISTS {role}")


def _statements_of_the_guide() -> list[str]:
    """The guide's SQL for the administrator, with names of this test's own."""
    text = _KUBERNETES_GUIDE.read_text(encoding="utf-8")
    (found,) = re.findall(r"((?:^    (?:CREATE|GRANT) .*;\n)+)", text, re.MULTILINE)
    statements = [line.strip() for line in found.splitlines()]
    assert len(statements) == 4
    renamed = [
        re.sub(r"\bdagster\b", "dagster_of_cloud", statement).replace("'…'", "'d'")
        for statement in statements
    ]
    return [re.sub(r"\bmastodon\b", "cloud", statement) for statement in renamed]


def test_dagsters_database_and_ours_are_closed_to_each_others_users(
    stack: StackConnection, admin_url: SecretStr
) -> None:
    """As the deployment does it: a database of Dagster's own user, without rights for others."""
    parts = conninfo_to_dict(admin_url.get_secret_value())
    place = f"{parts['host']}:{parts['port']}"
    with psycopg.connect(stack.postgres_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE dagster LOGIN PASSWORD 'd'")
        connection.execute("CREATE DATABASE dagster OWNER dagster")
        connection.execute("REVOKE ALL ON DATABASE dagster FROM PUBLIC")
    try:
        psycopg.connect(f"postgresql://dagster:d@{place}/dagster").close()
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(f"postgresql://dagster:d@{place}/{parts['dbname']}").close()
        for role in PASSWORDS:
            url = as_role(admin_url, role).get_secret_value()
            with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
                psycopg.connect(url, dbname="dagster").close()
    finally:
        with psycopg.connect(stack.postgres_url, autocommit=True) as connection:
            connection.execute("DROP DATABASE dagster WITH (FORCE)")
            connection.execute("DROP ROLE dagster")


def test_the_servers_log_of_statements_holds_no_password(
    stack: StackConnection, stack_folder: Path
) -> None:
    with new_database(stack) as admin:
        name = str(conninfo_to_dict(admin.get_secret_value())["dbname"])
        with psycopg.connect(stack.postgres_url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("ALTER DATABASE {} SET log_statement = 'all'").format(sql.Identifier(name))
            )
        create_roles(admin, PASSWORDS)
    log = (stack_folder / "postgres" / "server.log").read_text(encoding="utf-8")
    assert 'ALTER ROLE "masto_writer" LOGIN PASSWORD' in log
    for password in PASSWORDS.values():
        assert password.get_secret_value().replace("'", "") not in log.replace("'", "")
