"""How posts were received: readings after an hour and after a day."""

from pathlib import Path

from mastodon_assets.warehouse.migrate import run_sql

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    run_sql(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
