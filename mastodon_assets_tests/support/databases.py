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
# A server's URL to the name of its database that is migrated and otherwise empty.
_templates: dict[str, str] = {}


@contextmanager
def new_database(stack: embedded.Connection) -> Iterator[SecretStr]:
    """Create a migrated database and afterwards drop it.

    It is a copy of one that was migrated once per server: a copy takes a fraction of the time.
    """
    with _database(stack, _template(stack)) as url:
        yield url


@contextmanager
def left_database(stack: embedded.Connection) -> Iterator[SecretStr]:
    """The same, and leave it to the server's end, which removes all files at once.

    To drop a database costs a checkpoint.
    """
    name = _create(stack, _template(stack))
    yield _url(stack, name)
    with psycopg.connect(stack.postgres_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
        )


@contextmanager
def empty_database(stack: embedded.Connection) -> Iterator[SecretStr]:
    """Create a database to which no migration was ever applied, and afterwards drop it."""
    with _database(stack, "template1") as url:
        yield url


def without_fsync(stack: embedded.Connection) -> None:
    """Let the server not wait for the disk. Its files are lost only if the machine fails."""
    with psycopg.connect(stack.postgres_url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")


def _template(stack: embedded.Connection) -> str:
    from mastodon_assets.warehouse.migrate import migrate

    if stack.postgres_url not in _templates:
        name = _create(stack, "template1")
        migrate(_url(stack, name))
        _templates[stack.postgres_url] = name
    return _templates[stack.postgres_url]


@contextmanager
def _database(stack: embedded.Connection, template: str) -> Iterator[SecretStr]:
    name = _create(stack, template)
    try:
        yield _url(stack, name)
    finally:
        with psycopg.connect(stack.postgres_url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            )


def _create(stack: embedded.Connection, template: str) -> str:
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(stack.postgres_url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
    return name


def _url(stack: embedded.Connection, name: str) -> SecretStr:
    parts = conninfo_to_dict(stack.postgres_url)
    return SecretStr(
        f"postgresql://{parts['user']}:{parts['password']}@{parts['host']}:{parts['port']}/{name}"
    )
