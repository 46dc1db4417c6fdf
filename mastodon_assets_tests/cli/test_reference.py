"""The page of all commands."""

import re

import pytest
import typer
from typer.core import TyperGroup

from mastodon_assets.cli.app import app
from mastodon_assets.cli.reference import commands_markdown


def test_the_page_has_every_command_with_every_option_and_its_words() -> None:
    page = commands_markdown()
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    for name, command in root.commands.items():
        assert f"### mastodon-assets {name}\n" in page
        section = page.split(f"### mastodon-assets {name}\n")[1].split("\n### ")[0]
        for parameter in command.params:
            assert parameter.opts[-1] in section or (parameter.metavar or "") in section
    assert "### mastodon-assets rejected list\n" in page
    assert re.search(r"\n\| `--toots N` \| Number of synthetic posts\. \| `2000` \|\n", page)
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert all(re.fullmatch(r"\| `[^`]+` \| \S.* \|.*\|", row) for row in rows)
    assert not any("`--" in row and row.split("|")[2].strip() == "" for row in rows)


def test_the_page_is_the_same_on_any_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = set()
    for width in ("20", "300"):
        monkeypatch.setenv("COLUMNS", width)
        monkeypatch.setenv("TERM", "dumb")
        pages.add(commands_markdown())
    assert len(pages) == 1
