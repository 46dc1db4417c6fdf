"""Commands for whoever administers the database: `migrate` and `roles`.

What belongs here: their options and what they print. `cli` registers them.
"""

import typer
from rich.console import Console

from mastodon_assets.config.settings import load_settings

_out = Console(highlight=False, emoji=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.command()(migrate)
    app.command()(roles)


def migrate() -> None:
    """Bring the schema to the version of this program, as its owner.

    Other commands do so themselves where the role in DATABASE_URL owns the schema.
    """
    from mastodon_assets.warehouse.migrate import migrate as apply_migrations

    version = apply_migrations(load_settings().postgres_url)
    _out.print(f"schema {version}")


def roles() -> None:
    """Create the roles masto_owner, masto_writer, masto_moderator, masto_reader, and the schema.

    DATABASE_URL must be of a superuser, or of the database's owner with CREATEROLE, for this
    command alone. MASTO_OWNER_PASSWORD, MASTO_WRITER_PASSWORD, MASTO_MODERATOR_PASSWORD and
    MASTO_READER_PASSWORD let the roles log in; without one, grant the role to a user of your own.
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
    _out.print(f"{OWNER}  owns schema masto, version {version}; runs: mastodon-assets migrate")
    _out.print(f"{WRITER}  reads and writes rows; runs everything else")
    _out.print(f"{MODERATOR}  reads posts and scores by row, and what {READER} reads")
    _out.print(f"{READER}  reads what does not lead to a person")
