"""A real, empty, migrated database a module, and a connection whose work is rolled back."""

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from mastodon_assets.warehouse.database import connect
from mastodon_assets.warehouse.migrate import migrate

_SERVER = "postgresql://mastodon:devpw@127.0.0.1:55432/"


@pytest.fixture(scope="module")
def database_url() -> Iterator[SecretStr]:
    """An empty migrated database of this test module."""
    name = f"reports_{uuid.uuid4().hex}"
    try:
        server = psycopg.connect(f"{_SERVER}postgres", autocommit=True, connect_timeout=3)
    except psycopg.OperationalError as error:
        pytest.skip(f"the development server does not answer: {str(error).splitlines()[0]}")
    with server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            url = SecretStr(_SERVER + name)
            migrate(url)
            yield url
        finally:
            server.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))


@pytest.fixture
def connection(database_url: SecretStr) -> Iterator[psycopg.Connection[Any]]:
    """A connection in a transaction that is rolled back after the test."""
    with connect(database_url) as connection:
        yield connection
        connection.rollback()
