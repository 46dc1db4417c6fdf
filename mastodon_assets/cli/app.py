"""The commands of `mastodon-assets` in their groups, and how each of them ends.

What belongs here: what all commands share. Each group has a module that reads options, calls, and
prints. Errors are one line; the exit status is 2 for wrong use or settings, 1 for a failure, 130 if
interrupted.
"""

import errno
import logging
import os
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any

import typer

from mastodon_assets.cli import (
    alerts,
    annotate,
    backup,
    config,
    database,
    feed,
    files,
    models,
    people,
    service,
    stack,
    stream,
)
from mastodon_assets.cli.common import flag
from mastodon_assets.cli.console import configure_logging, print_error, print_line
from mastodon_assets.cli.interrupts import INTERRUPTED, set_seconds_to_end
from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.errors import PlatformError, SettingsError

PROGRAM = "mastodon-assets"

app = typer.Typer(
    name=PROGRAM,
    help="Mastodon posts to Kafka, Spark, PostgreSQL, sentiment scores and charts, as one Dagster"
    " asset graph.\n\n"
    "Start with: mastodon-assets demo",
    context_settings={"help_option_names": ["-h", "--help"]},
    # Paragraphs are filled to the width of the terminal.
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
for _module, _panel in (
    (stack, "This machine"),
    (service, "This machine"),
    (feed, "Posts to Kafka"),
    (stream, "Kafka to tables"),
    (models, "Sentiment"),
    (annotate, "Sentiment"),
    (files, "Tables to files"),
    (people, "Privacy"),
    (alerts, "Alerts"),
    (backup, "Backups"),
    (config, "Settings"),
    (database, "Your own servers"),
):
    _module.register(app, _panel)

_logger = logging.getLogger(__name__)
# Writing to an open file does not name it.
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# The words of typer's checks of values, and ours.
_VALUE_WORDS = {
    r"Value error, (.*) does not match the formats .*": r"\1 is not a day such as 2026-11-20",
    r"Input should be a valid integer.*": "allowed: a whole number",
    r"Input should be a valid number.*": "allowed: a number",
    r"Input should be greater than or equal to ": "allowed: at least ",
    r"Input should be less than or equal to ": "allowed: at most ",
}
# What typer raises for wrong use; of its kinds it exports only this one.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def run(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name; report in one line what the user can fix.

    Returns:
        The exit status.
    """
    try:
        status = app(arguments or ["--help"], prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except _UsageError as error:
        return _failed(_usage_text(error), 2)
    except SettingsError as error:
        return _failed(str(error), 2)
    except PlatformError as error:
        return _failed(str(error), 1)
    except BrokenPipeError:
        # The reader of our output, such as `head`, has ended. Nothing more can be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if isinstance(error.__cause__, KeyboardInterrupt):
            # C code that was interrupted, such as Kafka's client, says so by a SystemError.
            return INTERRUPTED
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            return _failed(f"{error.strerror}; free disk space, then run it again", 1)
        if isinstance(error, OSError) and error.filename is not None:
            return _failed(f"{error.filename}: {error.strerror}", 1)
        _logger.exception("this is a mistake of the program; please report it with these lines:")
        return 1
    return status or 0


def _version(is_wanted: bool) -> None:
    if is_wanted:
        print_line(f"{PROGRAM} {version(PROGRAM)}")
        raise typer.Exit


@app.callback()
def _prepare(
    _show_version: Annotated[
        bool,
        flag("--version", "Show the version and exit.", callback=_version),
    ] = False,
) -> None:
    try:
        settings = load_settings()
    except SettingsError:
        # The command itself reports it; `--help` must work without.
        settings = Settings.model_construct()
    configure_logging(settings.log_level, settings.log_format)
    set_seconds_to_end(settings.stop_seconds)


def _usage_text(error: Any) -> str:
    command = error.ctx.command_path if error.ctx else PROGRAM
    # So begins what no single option is to blame for; the rest says it better.
    message = error.format_message().removeprefix("Invalid value: ").rstrip(".")
    for theirs, ours in _VALUE_WORDS.items():
        message = re.sub(theirs, ours, message)
    return f"{message} (see: {command} --help)"


def _failed(message: str, status: int) -> int:
    print_error(message)
    return status
