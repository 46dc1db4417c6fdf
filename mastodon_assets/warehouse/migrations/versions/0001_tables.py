"""The tables of the first version."""

from pathlib import Path

from mastodon_assets.warehouse.migrate import run_sql

revision = "0001"
down_revision = None


def upgrade() -> None:
    run_sql(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
