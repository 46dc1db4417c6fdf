"""Who has withdrawn, and the rules under which each cursor was moved."""

from pathlib import Path

from mastodon_assets.warehouse.migrate import run_sql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    run_sql(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
