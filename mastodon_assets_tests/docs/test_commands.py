"""The commands that the pages show exist, with their options and arguments."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from mastodon_assets.cli.app import PROGRAM, app
from mastodon_assets_tests.docs.reference import ROOT

_PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / ".github").glob("*.md")),
    *sorted((ROOT / "docker").rglob("*.md")),
    *sorted((ROOT / "mastodon_assets" / "docs" / "guides").glob("*.md")),
    *sorted((ROOT / "mastodon_assets" / "docs").glob("*.md")),
]
# A line of an indented block, from the program's name on, without what a shell does with it. After
# `-n` it is kubectl's namespace.
_LINE = re.compile(rf"^ {{4,}}.*?(?<![\w./])(?<!-n ){PROGRAM}( [^#&|;>\n]+)", re.MULTILINE)
_WITHIN_TEXT = re.compile(rf"`{PROGRAM}( [^`\n…]*)`")


def _words(text: str) -> list[str]:
    return shlex.split(text, comments=True)


def _command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words name, and the words after its name."""
    command: Any = typer.main.get_command(app)
    while words[:1] != ["--help"] and words and (commands := getattr(command, "commands", {})):
        assert words[0] in commands, f"no command {words[0]}"
        command, words = commands[words[0]], words[1:]
    return command, words


def _shown(pattern: re.Pattern[str]) -> Iterator[Any]:
    for page in _PAGES:
        for found in pattern.findall(page.read_text(encoding="utf-8")):
            yield pytest.param(found.strip(), id=f"{page.relative_to(ROOT)}: {found.strip()}")


@pytest.mark.parametrize("line", list(_shown(_LINE)))
def test_a_command_of_a_page_has_all_its_arguments_and_only_options_that_exist(line: str) -> None:
    command, words = _command(_words(line))
    if hasattr(command, "commands"):
        assert words == ["--help"]
        return
    values, rest, _ = command.make_parser(command.context_class(command)).parse_args(words)
    assert rest == []
    missing = [
        each.name for each in command.params if each.required and values.get(each.name) is None
    ]
    assert missing == []


@pytest.mark.parametrize("text", list(_shown(_WITHIN_TEXT)))
def test_a_command_within_a_text_exists_with_its_options(text: str) -> None:
    command, words = _command(_words(text))
    options = {option for each in command.params for option in each.opts} | {"--help"}
    assert [word for word in words if word.startswith("--") and word not in options] == []
