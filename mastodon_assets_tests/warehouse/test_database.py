"""Rows by Arrow, transactions, and the errors of a lost connection."""

import socket
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pyarrow as pa
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from mastodon_assets.embedded.stack import Connection as StackConnection
from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.warehouse.database import (
    DifferingSumsError,
    MissingTablesError,
    connect,
    transaction,
)
from mastodon_assets.warehouse.migrate import migrate, schema_versions
from mastodon_assets.warehouse.rows import copy_arrow, count_rows
from mastodon_assets.warehouse.tables import (
    BATCH_TOOTS_PER_DAY,
)
from mastodon_assets.warehouse.watermarks import bump_toots_version, set_watermark, toots_version

PASSWORD = "s3c:r@e/t %?#"


def fail_after(url: SecretStr, work: Callable[[psycopg.Connection[Any]], Any]) -> None:
    with transaction(url) as connection:
        work(connection)
        connection.execute("SELECT 1 / 0")


@pytest.mark.parametrize("has_pgpq", [True, False], ids=["binary", "as text, as on arm64"])
def test_arrow_rows_arrive_as_they_are(
    fresh_database_url: SecretStr, monkeypatch: pytest.MonkeyPatch, has_pgpq: bool
) -> None:
    if not has_pgpq:
        monkeypatch.setitem(sys.modules, "pgpq", None)
    texts = ["plain", "", None]
    texts += ["„Grüße“ 👩‍👩‍👧 \u200f\u0639\u0631\u0628\u064a 漢字", "a\tb\n\\N\"'\\."]
    lists = [["x", 'ü,{}"\\'], [], None, ["NULL"], ["", "a b"]]
    moments = [
        datetime(2026, 1, 1, 12, 30, 15, 123456, UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
        None,
        datetime(9999, 12, 31, tzinfo=UTC),
    ]
    columns: dict[str, tuple[pa.DataType, str, list[Any]]] = {
        "t": (pa.string(), "text", texts),
        "a": (pa.list_(pa.string()), "text[]", lists),
        "b": (pa.binary(), "bytea", [b"\x00\xff\\x", b"", None, b"{", bytes(range(256))]),
        "z": (pa.timestamp("us", "UTC"), "timestamptz", moments),
        "d": (pa.date32(), "date", [date(2026, 2, 28), None, date(1, 1, 1), date.max, date.min]),
        "i": (pa.int32(), "integer", [0, -1, None, 2**31 - 1, -(2**31)]),
        "n": (pa.int64(), "bigint", [0, None, -1, 2**63 - 1, -(2**63)]),
        "s": (pa.int16(), "smallint", [0, 1, None, -1, 32767]),
        "f": (pa.float64(), "double precision", [0.1, None, -0.0, 1e308, float("inf")]),
        "o": (pa.bool_(), "boolean", [True, False, None, True, False]),
    }
    rows = pa.table({name: pa.array(values, t) for name, (t, _, values) in columns.items()})
    definition = ", ".join(f"{name} {column[1]}" for name, column in columns.items())
    with transaction(fresh_database_url) as connection:
        connection.execute(f"CREATE TEMP TABLE odd ({definition}, more text)".encode())
        # In another order: columns are found by name.
        copy_arrow(connection, sql.Identifier("pg_temp", "odd"), rows.select(sorted(columns)))
        found = connection.execute("TABLE odd").fetchall()
    expected = zip(*(values for _, _, values in columns.values()), strict=True)
    assert found == [(*row, None) for row in expected]


def test_copying_no_rows_is_fine(fresh_database_url: SecretStr) -> None:
    with transaction(fresh_database_url) as connection:
        copy_arrow(
            connection,
            sql.Identifier("masto", "batch_toots_per_day"),
            pa.table({"day": pa.array([], pa.date32())}),
        )
        assert count_rows(connection, BATCH_TOOTS_PER_DAY) == 0


def test_more_rows_than_one_batch_arrive_once_each(fresh_database_url: SecretStr) -> None:
    rows = pa.table({"n": pa.array(range(25_001), pa.int64())})
    with transaction(fresh_database_url) as connection:
        connection.execute("CREATE TEMP TABLE many (n bigint)")
        copy_arrow(connection, sql.Identifier("pg_temp", "many"), rows)
        found = connection.execute("SELECT count(*), count(DISTINCT n), max(n) FROM many")
        assert found.fetchone() == (25_001, 25_001, 25_000)


def test_a_watermark_is_one_row_per_asset_and_is_written_only_when_it_changes(
    fresh_database_url: SecretStr,
) -> None:
    def note(version: int, model: str | None) -> tuple[Any, ...]:
        with transaction(fresh_database_url) as connection:
            set_watermark(connection, "chart", toots_version=version, model_version=model)
        with transaction(fresh_database_url) as connection:
            rows = connection.execute(
                "SELECT toots_version, model_version, updated_at, xmin::text"
                " FROM masto.asset_progress"
            ).fetchall()
        assert len(rows) == 1
        return tuple(rows[0])

    first = note(1, None)
    assert first[:2] == (1, None)
    assert note(1, None) == first
    second = note(1, "model")
    assert second[:2] == (1, "model")
    assert second[2] > first[2]
    assert note(2, "model")[:2] == (2, "model")
    assert note(2, None)[:2] == (2, None)


def test_the_toots_version_counts_committed_transactions(
    fresh_database_url: SecretStr,
) -> None:
    with transaction(fresh_database_url) as connection:
        assert toots_version(connection) == 0
        bump_toots_version(connection)
    with pytest.raises(psycopg.errors.DivisionByZero):
        fail_after(fresh_database_url, bump_toots_version)
    with transaction(fresh_database_url) as connection:
        assert toots_version(connection) == 1


def test_a_snapshot_is_read_only_and_sees_one_moment(fresh_database_url: SecretStr) -> None:
    with transaction(fresh_database_url, snapshot=True) as connection:
        assert count_rows(connection, BATCH_TOOTS_PER_DAY) == 0
        with transaction(fresh_database_url) as other:
            other.execute("INSERT INTO masto.batch_toots_per_day VALUES ('2026-01-01', 1)")
        assert count_rows(connection, BATCH_TOOTS_PER_DAY) == 0
    with (
        pytest.raises(psycopg.errors.ReadOnlySqlTransaction),
        transaction(fresh_database_url, snapshot=True) as connection,
    ):
        bump_toots_version(connection)


def test_times_come_back_in_utc(database_url: SecretStr) -> None:
    with transaction(database_url, snapshot=True) as connection:
        assert connection.execute("SHOW timezone").fetchone() == ("UTC",)


def test_an_error_on_a_database_without_tables_says_how_to_create_them(
    fresh_database_url: SecretStr,
) -> None:
    with transaction(fresh_database_url) as connection:
        connection.execute("DROP SCHEMA masto CASCADE")
    with (
        pytest.raises(MissingTablesError, match="run: mastodon-assets up"),
        transaction(fresh_database_url) as connection,
    ):
        toots_version(connection)


def is_one_line_without_the_password(error: BaseException) -> bool:
    message = str(error)
    return "\n" not in message and not any(part in message for part in ("s3c", "r@e", "r%40e"))


@pytest.mark.usefixtures("loopback")
def test_the_error_for_a_server_that_is_down_is_one_line_without_the_password() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        url = SecretStr(f"postgresql://someone:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/d")
        with pytest.raises(
            ServiceUnavailableError, match=r"refused.*run: mastodon-assets up"
        ) as down:
            connect(url)
        with pytest.raises(ServiceUnavailableError, match=r"refused.*run: mastodon-assets up"):
            migrate(url)
    assert is_one_line_without_the_password(down.value)


# Without a limit of its own it would wait for ever.
@pytest.mark.timeout(120)
@pytest.mark.usefixtures("loopback")
def test_a_server_that_does_not_answer_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        with pytest.raises(ServiceUnavailableError, match="timeout"):
            connect(SecretStr(f"postgresql://someone:p@127.0.0.1:{port}/d"))


def test_the_error_for_a_server_that_goes_away_is_one_line(
    fresh_database_url: SecretStr,
) -> None:
    def lose_the_server(connection: psycopg.Connection[Any]) -> None:
        bump_toots_version(connection)
        with psycopg.connect(fresh_database_url.get_secret_value()) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))

    with pytest.raises(
        ServiceUnavailableError, match=r"connection to PostgreSQL broke.*run it again"
    ):
        fail_after(fresh_database_url, lose_the_server)
    with transaction(fresh_database_url) as connection:
        assert toots_version(connection) == 0


def test_a_locked_table_is_given_up_after_the_time_that_the_caller_waits(
    fresh_database_url: SecretStr,
) -> None:
    with transaction(fresh_database_url) as other:
        other.execute("LOCK TABLE masto.ingest_cursors")
        with (
            pytest.raises(ServiceUnavailableError, match=r"within 0.2 s.*locked.*run it again"),
            transaction(fresh_database_url, max_seconds=0.2) as connection,
        ):
            connection.execute("SELECT FROM masto.ingest_cursors")


def test_sums_changed_by_hand_are_an_error_that_says_rebuild(
    fresh_database_url: SecretStr,
) -> None:
    with (
        pytest.raises(DifferingSumsError, match=r"day_totals .* run: mastodon-assets rebuild"),
        transaction(fresh_database_url) as connection,
    ):
        connection.execute("INSERT INTO masto.day_totals VALUES ('2026-01-01', -1, 0, 1)")


def test_the_servers_log_holds_no_row_and_no_statement_of_an_error(
    fresh_database_url: SecretStr, stack_folder: Path
) -> None:
    words = "words of a person"
    # PostgreSQL's details quote the row, and the statement has them too.
    insert = "INSERT INTO masto.user_totals (username, toots_count) VALUES (%s, 1)"
    with connect(fresh_database_url) as connection:
        with pytest.raises(psycopg.errors.NotNullViolation, match=words):
            connection.execute(insert.replace("%s", f"'{words}'").encode())
        connection.rollback()
        with pytest.raises(psycopg.errors.NotNullViolation):
            connection.execute(insert, [words])
    log = (stack_folder / "postgres" / "server.log").read_text(encoding="utf-8")
    assert log.count('null value in column "total_length" of relation "user_totals"') >= 2
    assert words not in log


def test_a_wrong_password_is_not_shown(database_url: SecretStr) -> None:
    _, _, place = database_url.get_secret_value().rpartition("@")
    with pytest.raises(ServiceUnavailableError, match="password authentication failed") as wrong:
        connect(SecretStr(f"postgresql://mastodon:{quote(PASSWORD, safe='')}@{place}"))
    assert is_one_line_without_the_password(wrong.value)


@pytest.fixture
def odd_password_url(stack: StackConnection, fresh_database_url: SecretStr) -> Iterator[SecretStr]:
    """The test's database as a role whose password has every character that could break a URL."""
    role = "odd@user"
    parts = conninfo_to_dict(fresh_database_url.get_secret_value())
    with psycopg.connect(stack.postgres_url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD {}").format(
                sql.Identifier(role), sql.Literal(PASSWORD)
            )
        )
        try:
            yield SecretStr(
                f"postgresql://{quote(role, safe='')}:{quote(PASSWORD, safe='')}"
                f"@{parts['host']}:{parts['port']}/{parts['dbname']}"
            )
        finally:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_a_password_with_odd_characters_works_for_psycopg_and_migrations(
    odd_password_url: SecretStr,
) -> None:
    with transaction(odd_password_url) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("odd@user",)
        connection.execute("DROP SCHEMA masto CASCADE")
    version = migrate(odd_password_url)
    with transaction(odd_password_url) as connection:
        assert version == schema_versions(connection)[1][0]
        connection.execute("DROP SCHEMA masto CASCADE")


def test_a_password_with_odd_characters_works_for_spark(
    odd_password_url: SecretStr, spark: Any
) -> None:
    from mastodon_assets.batch.tables import read_toots

    with transaction(odd_password_url, snapshot=True) as connection:
        assert read_toots(spark, odd_password_url, connection).count() == 0


def test_a_connection_waits_half_a_minute_for_a_server_that_acknowledges_nothing(
    database_url: SecretStr,
) -> None:
    with connect(database_url) as connection:
        assert connection.info.get_parameters()["tcp_user_timeout"] == "30000"
