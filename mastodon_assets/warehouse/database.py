"""Connections to PostgreSQL, transactions, and the errors that end them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from pydantic import SecretStr

from mastodon_assets.errors import PlatformError, ServiceUnavailableError
from mastodon_assets.warehouse.tables import TABLES

# A feed goes on and writes later.
FEED_SECONDS = 2.0
# Somebody waits for an answer.
PERSON_SECONDS = 10.0
# A large batch holds the write lock for seconds.
WRITE_LOCK_SECONDS = 30.0
# As long as the keepalives, which it limits too.
_UNACKNOWLEDGED_MS = 30_000


class MissingTablesError(PlatformError):
    """The database answers, but the platform's tables are missing."""


class DifferingSumsError(PlatformError):
    """Windows or sums do not contain a row that a change subtracts: they were changed by hand."""


class MissingRightsError(PlatformError):
    """The role in DATABASE_URL lacks a right."""


def connect(postgres_url: SecretStr) -> psycopg.Connection[Any]:
    """Open a connection in UTC that notices a dead server; the caller closes it.

    Raises:
        ServiceUnavailableError: The server does not answer or refuses; the password is not shown.
    """
    try:
        return psycopg.connect(
            postgres_url.get_secret_value(),
            connect_timeout=3,
            keepalives_idle=15,
            keepalives_interval=5,
            keepalives_count=3,
            # Keepalives are not sent while sent data waits to be acknowledged. A long query is not
            # ended: its request was acknowledged.
            tcp_user_timeout=_UNACKNOWLEDGED_MS,
            application_name="mastodon_assets",
            # The server also notices a client that is gone, and releases its locks.
            options="-c timezone=UTC -c tcp_keepalives_idle=15 -c tcp_keepalives_interval=5"
            " -c tcp_keepalives_count=3",
        )
    except psycopg.OperationalError as error:
        raise ServiceUnavailableError(
            f"no connection to PostgreSQL ({_reason(error)}); run: mastodon-assets up"
            " (or check DATABASE_URL)"
        ) from error


@contextmanager
def transaction(
    postgres_url: SecretStr,
    *,
    snapshot: bool = False,
    max_seconds: float | None = None,
    max_lock_seconds: float | None = None,
) -> Iterator[psycopg.Connection[Any]]:
    """Open a connection, commit at the end, roll back on an error, and close it.

    Args:
        postgres_url: DATABASE_URL.
        snapshot: Read-only, and all reads see the same moment.
        max_seconds: Longest time that a statement may take, its wait for a lock included.
        max_lock_seconds: Longest wait for a lock. Both limits end with the first commit.

    Raises:
        ServiceUnavailableError: The server does not answer, also if it goes away meanwhile.
        MissingTablesError: No migration was applied.
        MissingRightsError: The role may not do this.
        DifferingSumsError: Sums were changed by hand.
    """
    try:
        with connect(postgres_url) as connection:
            if snapshot:
                connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                connection.read_only = True
            limits = {"statement_timeout": max_seconds, "lock_timeout": max_lock_seconds}
            for setting, seconds in limits.items():
                if seconds is not None:
                    connection.execute(
                        "SELECT set_config(%s, %s, true)", (setting, f"{seconds * 1000:.0f}")
                    )
            yield connection
    except psycopg.errors.UndefinedTable as error:
        raise MissingTablesError(
            f"{_reason(error)}; run: mastodon-assets up (it applies migrations)"
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise MissingRightsError(
            f"the role in DATABASE_URL may not do this ({_reason(error)}); nothing was written;"
            " use masto_writer, or see: mastodon-assets roles --help"
        ) from error
    except psycopg.errors.CheckViolation as error:
        table = TABLES.get(error.diag.table_name or "")
        if table is None or "toots_count" not in table.column_names:
            raise
        raise DifferingSumsError(
            f"{table.name} does not match the posts, it was changed by hand; nothing was written;"
            " run: mastodon-assets rebuild all"
        ) from error
    except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled) as error:
        seconds = max_seconds if max_lock_seconds is None else max_lock_seconds
        limit = "in time" if seconds is None else f"within {seconds:g} s"
        raise ServiceUnavailableError(
            f"PostgreSQL did not answer {limit}, a table may be locked"
            f" ({_reason(error)}); this step wrote nothing: run it again"
        ) from error
    except psycopg.OperationalError as error:
        raise ServiceUnavailableError(
            f"the connection to PostgreSQL broke ({_reason(error)}); this step wrote nothing: run"
            " it again"
        ) from error


@contextmanager
def snapshot_of(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Let all statements of a transaction see the same moment; commit at the end.

    Args:
        connection: A connection without a transaction. It may also write.
    """
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    try:
        yield
        connection.commit()
    finally:
        if not connection.broken:
            connection.rollback()
            connection.isolation_level = None


def _reason(error: psycopg.Error) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].removeprefix("connection failed: ")
