"""What alembic runs: the pending versions on the connection that `migrate` holds."""

from alembic import context

from mastodon_assets.warehouse.tables import SCHEMA

context.configure(
    connection=context.config.attributes["connection"],
    version_table="schema_version",
    version_table_schema=SCHEMA,
)
context.run_migrations()
