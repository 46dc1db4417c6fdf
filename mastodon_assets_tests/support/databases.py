"""Databases of the tests' own on a running server."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from mastodon_assets.embedded import stack as embedded

_numbers = count(1)


@contextmanager
def new_database(stack: embedded.Connection) -> Iterator[SecretStr]:
    """Create, migrate and afterwards drop a database."""
    from mastodon_assets.warehouse.migrate import migrate

    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(stack.postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    parts = conninfo_to_dict(stack.postgres_url)
    url = SecretStr(
        f"postgresql://{parts['user']}:{parts['password']}@{parts['host']}:{parts['port']}/{name}"
    )
    try:
        migrate(url)
        yield url
    finally:
        with psycopg.connect(stack.postgres_url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            )
