"""Reading from PostgreSQL: a few read-only connections of one role, each statement bounded."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from anyio import CapacityLimiter, to_thread
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import PlatformError, ServiceUnavailableError
from mastodon_assets.warehouse.database import MissingRightsError, MissingTablesError, connect
from mastodon_assets.warehouse.roles import MODERATOR, READER

Result = TypeVar("Result")

_MOST_CONNECTIONS = 3
_SECONDS = 5


class SlowQueryError(PlatformError):
    """A query took too long for somebody who waits."""


class Database:
    """Connections to one database by one role: at most three, opened when they are needed.

    A connection that broke, as at a restart of the server, is replaced.
    """

    def __init__(self, url: SecretStr) -> None:
        self._url = url
        self._idle: list[psycopg.Connection[Any]] = []
        self._lock = threading.Lock()
        self._limiter: CapacityLimiter | None = None

    async def read(self, function: Callable[[psycopg.Connection[Any]], Result]) -> Result:
        """Call a function with a connection in a read-only snapshot; return its result.

        Raises:
            ServiceUnavailableError: The database does not answer.
            SlowQueryError: It takes too long.
            MissingTablesError: A table or a column is missing.
            MissingRightsError: The role may not read this.
        """
        if self._limiter is None:
            # It belongs to the event loop that reads.
            self._limiter = CapacityLimiter(_MOST_CONNECTIONS)
        return await to_thread.run_sync(self.read_now, function, limiter=self._limiter)

    def read_now(self, function: Callable[[psycopg.Connection[Any]], Result]) -> Result:
        """Do what `read` does, in this thread."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is not None:
            try:
                return self._read(connection, function)
            except psycopg.OperationalError as error:
                # Statements that took too long are of this kind, too; the connection is fine.
                if not connection.closed:
                    raise _explained(error) from error
                self.close()
            except psycopg.Error as error:
                raise _explained(error) from error
        connection = self._open()
        try:
            return self._read(connection, function)
        except psycopg.Error as error:
            raise _explained(error) from error

    def check(self) -> None:
        """Check that the database answers.

        Raises:
            ServiceUnavailableError: It does not.
        """
        self.read_now(lambda _connection: None)
        self.close()

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            with suppress(psycopg.Error):
                connection.close()

    def _open(self) -> psycopg.Connection[Any]:
        connection = connect(self._url)
        try:
            connection.execute(
                "SELECT set_config('statement_timeout', %s, false)", (str(int(_SECONDS * 1000)),)
            )
            connection.commit()
        except psycopg.Error as error:
            connection.close()
            raise _explained(error) from error
        connection.read_only = True
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        return connection

    def _read(
        self,
        connection: psycopg.Connection[Any],
        function: Callable[[psycopg.Connection[Any]], Result],
    ) -> Result:
        try:
            return function(connection)
        finally:
            with suppress(psycopg.Error):
                connection.rollback()
            if not connection.closed:
                with self._lock:
                    self._idle.append(connection)


def reader_url(settings: Settings) -> SecretStr:
    """Return how the pages connect: as `masto_reader` if its password is set.

    Raises:
        SettingsError: No database is known.
    """
    return _as_role(settings, READER, settings.masto_reader_password)


def moderator_url(settings: Settings) -> SecretStr:
    """Return how the posts are read: as `masto_moderator` if its password is set.

    Raises:
        SettingsError: No database is known.
    """
    return _as_role(settings, MODERATOR, settings.masto_moderator_password)


def _as_role(settings: Settings, role: str, password: SecretStr | None) -> SecretStr:
    url = settings.postgres_url
    if password is None:
        return url
    login = {"user": role, "password": password.get_secret_value()}
    return SecretStr(make_conninfo(url.get_secret_value(), **login))


def _explained(error: psycopg.Error) -> PlatformError:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        return MissingTablesError(f"{reason}; run: mastodon-assets migrate")
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return MissingRightsError(f"{reason}; run: mastodon-assets roles")
    if isinstance(error, psycopg.errors.QueryCanceled):
        return SlowQueryError(f"this takes longer than {_SECONDS} s; choose a shorter period")
    if isinstance(error, psycopg.OperationalError):
        return ServiceUnavailableError(f"the connection to PostgreSQL broke ({reason})")
    raise error
