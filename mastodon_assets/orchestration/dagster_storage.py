"""Dagster's storage in PostgreSQL, with the password from a variable or a file."""

import os
from collections.abc import Mapping
from typing import Any

from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import pg_url_from_config

from mastodon_assets.config import settings
from mastodon_assets.errors import SettingsError
from mastodon_assets.files import read_text

_NAME = "DAGSTER_POSTGRES_PASSWORD"


class PostgresStorage(DagsterPostgresStorage):
    """dagster-postgres, which itself takes a password from `dagster.yaml` or a variable only."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "PostgresStorage":
        """Open the storage that `dagster.yaml` names.

        Raises:
            SettingsError: No password is known.
        """
        database = {**config_value["postgres_db"], "password": _password()}
        url = pg_url_from_config({**config_value, "postgres_db": database})
        return cls(url, config_value["should_autocreate_tables"], inst_data)


def _password() -> str:
    file = settings.SECRETS / _NAME.lower()
    try:
        password = os.environ.get(_NAME) or read_text(file)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {file}; make it readable for this user") from error
    if not password:
        raise SettingsError(
            f"no password of Dagster's database is known; set {_NAME}, or write it to {file}"
        )
    return password
