"""Connections of the dashboard: few, read-only, bounded in time, and replaced when they break."""

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg import Connection
from pydantic import SecretStr

from mastodon_assets.dashboard import database as module
from mastodon_assets.dashboard.database import Database, SlowQueryError
from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.warehouse.database import transaction


def _pid(connection: Connection[Any]) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


def test_at_most_three_connections_serve_everybody_and_nobody_can_write(
    database_url: SecretStr,
) -> None:
    database = Database(database_url)

    def slowly(connection: Connection[Any]) -> int:
        connection.execute("SELECT pg_sleep(0.02)")
        return _pid(connection)

    async def read_often() -> list[int]:
        return await asyncio.gather(*(database.read(slowly) for _ in range(30)))

    assert len(set(asyncio.run(read_often()))) <= 3
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        database.read_now(lambda c: c.execute("DELETE FROM masto.data_versions"))
    database.close()


def test_a_query_that_takes_too_long_ends_and_the_connection_serves_on(
    database_url: SecretStr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SECONDS", 0.05)
    database = Database(database_url)
    pid = database.read_now(_pid)
    with pytest.raises(SlowQueryError, match="choose a shorter period"):
        database.read_now(lambda connection: connection.execute("SELECT pg_sleep(60)"))
    assert database.read_now(_pid) == pid
    database.close()


def test_a_broken_connection_is_replaced_and_an_unknown_server_is_one_line(
    database_url: SecretStr,
) -> None:
    database = Database(database_url)
    pid = database.read_now(_pid)
    with transaction(database_url) as connection:
        connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
    assert database.read_now(_pid) != pid
    database.close()
    with pytest.raises(ServiceUnavailableError, match="no connection to PostgreSQL"):
        Database(SecretStr("postgresql://a:secret@127.0.0.1:9/b")).check()
