"""The key of the suppression list: made once, found again, never replaced while it is needed."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from mastodon_assets.config.state_folder import StateDamagedError
from mastodon_assets.embedded import suppression_key
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.suppression_list import add_entries

KEY = "fedcba9876543210" * 4
OTHER = "0123456789abcdef" * 4


def add_entry(database_url: SecretStr, key: str = KEY) -> None:
    with transaction(database_url) as connection:
        add_entries(connection, SecretStr(key), "account", ["ada@one.example"])


def test_a_key_is_made_once_for_the_owner_alone(
    fresh_database_url: SecretStr, tmp_path: Path
) -> None:
    url = fresh_database_url.get_secret_value()
    suppression_key.keep(tmp_path, url, None)
    path = tmp_path / "withdrawn.key"
    made = path.read_text()
    assert len(made.strip()) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    add_entry(fresh_database_url, made.strip())
    suppression_key.keep(tmp_path, url, None)
    assert path.read_text() == made


def test_no_new_key_is_made_while_the_list_has_entries_of_another(
    fresh_database_url: SecretStr, tmp_path: Path
) -> None:
    url, path = fresh_database_url.get_secret_value(), tmp_path / "withdrawn.key"
    add_entry(fresh_database_url)
    for damaged in (None, "", KEY[:-1], OTHER):
        if damaged is not None:
            path.write_text(damaged)
        with pytest.raises(StateDamagedError, match=r"withdrawn\.key does not hold .* restore"):
            suppression_key.keep(tmp_path, url, None)
        assert (path.read_text() if path.exists() else None) == damaged
    # With the key in the settings the file is not needed.
    suppression_key.keep(tmp_path, url, SecretStr(KEY))
    assert path.read_text() == OTHER


def test_the_key_that_made_the_entries_is_found_in_an_earlier_connection_file(
    fresh_database_url: SecretStr, tmp_path: Path
) -> None:
    url, path = fresh_database_url.get_secret_value(), tmp_path / "withdrawn.key"
    add_entry(fresh_database_url)
    (tmp_path / "connection.json").write_bytes(
        f'{{"other": "{OTHER}", "withdrawn_key": "{KEY}'.encode() + b"\xff"
    )
    path.write_text(OTHER)
    suppression_key.keep(tmp_path, url, None)
    assert path.read_text() == f"{KEY}\n"
