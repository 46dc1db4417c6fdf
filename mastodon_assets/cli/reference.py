"""The page of all commands as Markdown, from the same texts as `--help`."""

from collections.abc import Iterator

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from mastodon_assets.cli.app import PROGRAM, app

_INTRODUCTION = """\
`mastodon-assets COMMAND --help` (or `-h`) shows the same texts. `mastodon-assets --version` shows
the version, and `mastodon-assets --install-completion` installs completion for your shell.

Results go to standard output, logs and errors to standard error. With `--json`, the result is one
line of JSON. The exit status is 0 for success, 1 for a failure, 2 for wrong use or a wrong setting,
and 130 if the command was interrupted. An error is one line that says what is wrong and what to
do."""


_Command = TyperCommand | TyperGroup


def commands_markdown() -> str:
    """Return a page of Markdown with every command, its arguments and its options.

    It does not depend on the terminal, the environment or the settings.
    """
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    blocks = ["# Commands", _paragraphs(root.help), _INTRODUCTION]
    commands = _commands(root)
    for panel in dict.fromkeys(command.rich_help_panel for _, command in commands):
        blocks.append(f"## {panel}")
        for name, command in commands:
            if command.rich_help_panel == panel:
                blocks += _described(f"{PROGRAM} {name}", command)
    return "\n\n".join(blocks) + "\n"


def _commands(group: TyperGroup) -> list[tuple[str, _Command]]:
    return [
        (name, command)
        for name, command in group.commands.items()
        if isinstance(command, TyperCommand | TyperGroup)
    ]


def _described(name: str, command: _Command) -> Iterator[str]:
    yield f"### {name}"
    yield _paragraphs(command.help)
    if isinstance(command, TyperGroup):
        for subname, subcommand in _commands(command):
            yield from _described(f"{name} {subname}", subcommand)
        return
    arguments = [each for each in command.params if isinstance(each, TyperArgument)]
    options = [each for each in command.params if isinstance(each, TyperOption)]
    usage = [name, *(_placeholder(each) for each in arguments), *(["[OPTIONS]"] if options else [])]
    yield f"```sh\n{' '.join(usage)}\n```"
    if arguments or options:
        rows = [
            *(_row(_placeholder(each), each.help, "") for each in arguments),
            *(_row(_option(each), each.help, _default(each)) for each in options),
        ]
        yield "\n".join(["| option | meaning | default |", "|---|---|---|", *rows])


def _paragraphs(text: str | None) -> str:
    """Return each paragraph in one line: the page is not filled to any width."""
    return "\n\n".join(" ".join(each.split()) for each in (text or "").split("\n\n"))


def _placeholder(argument: TyperArgument) -> str:
    return argument.metavar or (argument.name or "").upper()


def _option(option: TyperOption) -> str:
    return " ".join(filter(None, (", ".join(option.opts), option.metavar)))


def _row(name: str, description: str | None, default: str) -> str:
    escaped = (cell.replace("|", r"\|") for cell in (f"`{name}`", description or "", default))
    return f"| {' | '.join(escaped)} |"


def _default(option: TyperOption) -> str:
    default = option.default
    return "" if default is None or default is False or default == "" else f"`{default}`"
