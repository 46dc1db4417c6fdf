"""Migration 0021: posts of earlier versions get the ids of their homes."""

from pydantic import SecretStr

from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.schema_version import MIGRATIONS
from mastodon_assets_tests.support.stored_toots import insert_toot

_NEW_TABLES = (
    *("server_names", "home_ids", "home_versions", "home_questions", "account_refusals"),
)
_URI = "https://b.fed.example/users/bea/statuses/"


def test_servers_that_were_read_get_their_names_and_posts_their_ids_at_home(
    fresh_database_url: SecretStr,
) -> None:
    with transaction(fresh_database_url) as connection:
        for name in _NEW_TABLES:
            connection.execute(f"DROP TABLE masto.{name}".encode())
        connection.execute("ALTER TABLE masto.toots_raw DROP COLUMN is_imported")
        connection.execute("DELETE FROM masto.database_secrets WHERE name = 'refusal_key'")
        for instance, address in (
            ("fed.example", "127.0.0.1:8090"),
            ("a.gts.example", "social.gts.example"),
        ):
            connection.execute(
                "INSERT INTO masto.ingest_sources (instance, source, state, address)"
                " VALUES (%s, 'public', 'stopped', %s)",
                (instance, address),
            )
        bea = "bea@fed.example"
        insert_toot(connection, 1, uri=f"{_URI}B1", instance="fed.example", username=bea)
        for number in (2, 3):
            insert_toot(
                connection, number, uri=f"{_URI}B{number}", instance="a.gts.example", username=bea
            )
        # One that home has told as well, and one of a server that is not read.
        connection.execute("INSERT INTO masto.toot_aliases VALUES ('fed.example', 'B3', 3)")
        insert_toot(
            connection,
            4,
            username="cy@c.example",
            uri="https://c.example/4",
            instance="a.gts.example",
        )
        connection.execute((MIGRATIONS / "0021_home.sql").read_bytes())

        names = connection.execute("SELECT name, instance, has_ids FROM masto.server_names")
        assert set(names.fetchall()) == {
            ("fed.example", "fed.example", False),
            ("b.fed.example", "fed.example", True),
            ("a.gts.example", "a.gts.example", False),
            ("social.gts.example", "a.gts.example", False),
        }
        ids = connection.execute("SELECT id, instance, status_id FROM masto.home_ids")
        assert ids.fetchall() == [(2, "fed.example", "B2")]
