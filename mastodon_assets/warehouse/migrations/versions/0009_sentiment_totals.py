"""Toots a day and outcome, which the view of labels a day and the charts read."""

from pathlib import Path

from mastodon_assets.warehouse.migrate import run_sql

revision = "0009"
down_revision = "0006"


def upgrade() -> None:
    run_sql(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
