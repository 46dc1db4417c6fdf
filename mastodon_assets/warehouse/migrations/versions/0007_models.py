"""Why a model has its status, and since when."""

from pathlib import Path

from mastodon_assets.warehouse.migrate import run_sql

revision = "0007"
down_revision = "0004"


def upgrade() -> None:
    run_sql(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
