"""`prepare`, `roles` and `migrate` as an administrator meets them."""

from psycopg.conninfo import conninfo_to_dict

from mastodon_assets.config.settings import Settings, as_environment
from mastodon_assets.embedded.stack import Connection as StackConnection
from mastodon_assets.kafka.topics import read_topic
from mastodon_assets_tests.support.commands import Commands
from mastodon_assets_tests.support.databases import new_database

PASSWORD = "planted%41secret"


def test_the_roles_are_made_by_one_command_and_log_in_with_the_passwords_given(
    stack: StackConnection, commands: Commands
) -> None:
    with new_database(stack) as admin:
        made = commands(
            "roles",
            DATABASE_URL=admin.get_secret_value(),
            MASTO_OWNER_PASSWORD="o",
            MASTO_WRITER_PASSWORD=PASSWORD,
        )
        assert (made.status, made.err) == (0, "")
        assert PASSWORD not in made.out
        parts = conninfo_to_dict(admin.get_secret_value())
        place = f"{parts['host']}:{parts['port']}/{parts['dbname']}"
        owner = f"postgresql://masto_owner:o@{place}"
        writer = f"postgresql://masto_writer:planted%2541secret@{place}"
        assert commands("migrate", DATABASE_URL=owner).status == 0
        assert commands("migrate", DATABASE_URL=writer).status == 0
        refused = commands.failure(1, "roles", DATABASE_URL=writer)
    assert refused.startswith("roles cannot be created (")


def test_prepare_makes_topics_and_tables_on_servers_of_ones_own_and_does_it_twice(
    settings: Settings, commands: Commands
) -> None:
    topics = {"kafka_topic": "prepared_stream", "kafka_errors_topic": "prepared_errors"}
    prepared = settings.model_copy(update=topics)
    for _ in range(2):
        ended = commands("prepare", **as_environment(prepared))
        assert ended.status == 0, ended.err
        assert "@" not in ended.out
    for topic in topics.values():
        assert len(read_topic(prepared, topic).end) == 4
