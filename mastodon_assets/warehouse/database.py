"""Connections, transactions and locks; rows by Arrow; whole tables replaced by their difference.

What belongs here: how PostgreSQL is talked to, for any table. What a table means stands elsewhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from pydantic import SecretStr

from mastodon_assets.errors import PlatformError, ServiceUnavailableError


class MissingTablesError(PlatformError):
    """The database answers but has no tables of ours yet."""


class MissingRightsError(PlatformError):
    """The role of DATABASE_URL may not do what was asked of it."""


def connect(postgres_url: SecretStr) -> psycopg.Connection[Any]:
    """A connection in UTC that notices a dead server. Close it, or use `transaction`.

    Raises: ServiceUnavailableError, without the password, where the server does not answer or
    refuses.
    """
    try:
        return psycopg.connect(
            postgres_url.get_secret_value(),
            connect_timeout=3,
            keepalives_idle=15,
            keepalives_interval=5,
            keepalives_count=3,
            application_name="mastodon_assets",
            # The server, too, notices a client that is gone, and gives its locks back.
            options="-c timezone=UTC -c tcp_keepalives_idle=15 -c tcp_keepalives_interval=5"
            " -c tcp_keepalives_count=3",
        )
    except psycopg.OperationalError as error:
        raise ServiceUnavailableError(
            f"no connection to PostgreSQL ({_reason(error)}); run: mastodon-assets up"
            " (or look at DATABASE_URL)"
        ) from error


@contextmanager
def transaction(
    postgres_url: SecretStr, *, snapshot: bool = False
) -> Iterator[psycopg.Connection[Any]]:
    """A connection whose work is committed at the end, or rolled back and closed on an error.

    `snapshot` makes it read-only and lets all its reads see the same moment.
    Raises: ServiceUnavailableError (also where the server goes away meanwhile), MissingTablesError,
    MissingRightsError.
    """
    try:
        with connect(postgres_url) as connection:
            if snapshot:
                connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                connection.read_only = True
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
    except psycopg.OperationalError as error:
        raise ServiceUnavailableError(
            f"PostgreSQL broke off ({_reason(error)}); this step wrote nothing: run it again"
        ) from error


def _reason(error: psycopg.Error) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].removeprefix("connection failed: ")
