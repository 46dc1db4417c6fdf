"""What each source of the ingester was last seen to do."""

from pathlib import Path

from mastodon_assets.warehouse.migrate import run_sql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run_sql(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
