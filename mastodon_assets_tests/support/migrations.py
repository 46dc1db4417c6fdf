"""Migrations beyond the shipped ones."""

from pathlib import Path

import pytest

from mastodon_assets.warehouse import schema_version
from mastodon_assets.warehouse.schema_version import MIGRATIONS


def add_migration(folder: Path, monkeypatch: pytest.MonkeyPatch, statements: str) -> None:
    """Let `migrate` find the shipped migrations and one more, number 9999."""
    copy = folder / "migrations"
    copy.mkdir()
    for file in MIGRATIONS.glob("[0-9]*.*"):
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "9999_more.sql").write_text(statements, encoding="utf-8")
    monkeypatch.setattr(schema_version, "MIGRATIONS", copy)
