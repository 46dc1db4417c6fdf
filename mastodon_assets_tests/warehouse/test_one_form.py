import runpy
from pathlib import Path
from typing import Any

import psycopg
from pydantic import SecretStr

from mastodon_assets.warehouse import migrate as migrations
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.watermarks import toots_version
from mastodon_assets_tests.support.stored_toots import insert_toot

_MIGRATION = Path(migrations.__file__).parent / "migrations" / "0012_one_form.py"
_SOCIAL = "https://social.one.example/users/sam/statuses/"


def upgrade(connection: psycopg.Connection[Any]) -> None:
    runpy.run_path(str(_MIGRATION))["upgrade"](connection)


def test_stored_rows_of_older_versions_are_brought_to_the_one_form(
    fresh_database_url: SecretStr,
) -> None:
    with transaction(fresh_database_url) as connection:
        # Its own server named the account by the host of the page, another one by its domain.
        insert_toot(connection, 1, username="sam@social.one.example", uri=f"{_SOCIAL}1")
        insert_toot(
            connection, 2, username="sam@one.example", uri=f"{_SOCIAL}2", instance="two.example"
        )
        # A remote account of a server with one domain only.
        insert_toot(connection, 3, username="eve@two.example", uri="https://two.example/x")
        connection.execute("UPDATE masto.toots_raw SET status_id = '99' WHERE id = 3")
        insert_toot(connection, 4, username="Ada@Bücher.example", uri="https://b.example/4")
        insert_toot(
            connection,
            5,
            username="ada@xn--bcher-kva.example",
            uri="https://b.example/5",
            hashtags=["tea", "cafe\u0301", "caf\u00e9", "ＡＩ"],
        )
        version = toots_version(connection)
        upgrade(connection)
        assert toots_version(connection) > version
        names = connection.execute("SELECT id, username FROM masto.toots_raw ORDER BY 1")
        assert names.fetchall() == [
            (1, "sam@one.example"),
            (2, "sam@one.example"),
            (3, "eve@two.example"),
            (4, "ada@xn--bcher-kva.example"),
            (5, "ada@xn--bcher-kva.example"),
        ]
        tags = connection.execute("SELECT hashtags FROM masto.toots_raw WHERE id = 5").fetchone()
        assert tags == (["tea", "caf\u00e9", "ai"],)
        windows = connection.execute(
            "SELECT username, toots_count, total_length FROM masto.user_avg_length_windowed"
            " ORDER BY 1"
        )
        assert windows.fetchall() == [
            ("ada@xn--bcher-kva.example", 2, 10),
            ("sam@one.example", 2, 10),
        ]


def test_rows_in_their_one_form_stay_as_they_are(fresh_database_url: SecretStr) -> None:
    with transaction(fresh_database_url) as connection:
        insert_toot(
            connection, 1, username="sam@one.example", uri=f"{_SOCIAL}1", hashtags=["tea", "ガ"]
        )
        before = connection.execute("TABLE masto.toots_raw").fetchall()
        version = toots_version(connection)
        upgrade(connection)
        assert connection.execute("TABLE masto.toots_raw").fetchall() == before
        assert toots_version(connection) == version
