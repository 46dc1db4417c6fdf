"""Commands for servers of one's own: `prepare`, `migrate` and `roles`."""

import typer

from mastodon_assets.cli.common import address
from mastodon_assets.cli.console import print_line
from mastodon_assets.config.settings import load_settings


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands of this module to `app`."""
    for command in (prepare, migrate, roles):
        app.command(rich_help_panel=panel)(command)


def prepare() -> None:
    """Create topics and tables on your own Kafka and PostgreSQL.

    The servers are those of KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL. For the embedded ones, `up`
    does this. Safe to repeat.
    """
    from mastodon_assets.kafka.topics import create_topics
    from mastodon_assets.warehouse.migrate import migrate as apply_migrations

    settings = load_settings()
    topics = [settings.kafka_topic, settings.kafka_errors_topic]
    create_topics(settings.kafka_access, topics, errors_topic=settings.kafka_errors_topic)
    version = apply_migrations(settings.postgres_url)
    print_line(f"Kafka       {settings.kafka_servers}, topics {' and '.join(topics)}")
    url = settings.postgres_url.get_secret_value()
    print_line(f"PostgreSQL  {address(url)}, schema version {version}")


def migrate() -> None:
    """Upgrade the database schema to this version of the program.

    DATABASE_URL must log in as the schema's owner. The other commands upgrade it themselves if
    they run as the owner.
    """
    from mastodon_assets.warehouse.migrate import migrate as apply_migrations

    print_line(f"schema version {apply_migrations(load_settings().postgres_url)}")


def roles() -> None:
    """Create the database roles masto_owner, masto_writer, masto_moderator and masto_reader.

    Only for this command, DATABASE_URL must log in as a superuser, or as the database's owner with
    CREATEROLE. Also creates the schema.

    MASTO_OWNER_PASSWORD, MASTO_WRITER_PASSWORD, MASTO_MODERATOR_PASSWORD and MASTO_READER_PASSWORD
    let the roles log in. Without a password, grant the role to a user of your own.
    """
    from mastodon_assets.warehouse.migrate import migrate as apply_migrations
    from mastodon_assets.warehouse.roles import MODERATOR, OWNER, READER, WRITER, create_roles

    settings = load_settings()
    create_roles(
        settings.postgres_url,
        {
            OWNER: settings.masto_owner_password,
            WRITER: settings.masto_writer_password,
            MODERATOR: settings.masto_moderator_password,
            READER: settings.masto_reader_password,
        },
    )
    version = apply_migrations(settings.postgres_url)
    for role, description in {
        OWNER: f"owns schema masto, version {version}; for: mastodon-assets migrate",
        WRITER: "reads and writes rows; for all other commands",
        MODERATOR: f"reads posts and scores by row and what {READER} reads; labels posts",
        READER: "reads only what does not identify a person",
    }.items():
        print_line(f"{role:<15}  {description}")
