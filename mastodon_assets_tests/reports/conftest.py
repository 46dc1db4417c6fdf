"""A connection whose work is rolled back after the test."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from mastodon_assets.warehouse.database import connect


@pytest.fixture
def connection(database_url: SecretStr) -> Iterator[psycopg.Connection[Any]]:
    """To the module's database."""
    with connect(database_url) as connection:
        yield connection
        connection.rollback()
