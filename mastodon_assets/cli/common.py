"""Options and texts that several commands share."""

from typing import Annotated, Any

import typer

from mastodon_assets.config.settings import MOST_DAYS
from mastodon_assets.errors import SettingsError
from mastodon_assets.ports import is_free


def flag(name: str, description: str, **options: Any) -> Any:
    """Return an option without a value, and without the `<bool>` that help would show for it."""
    return typer.Option(name, help=description, metavar="", **options)


AsJson = Annotated[bool, flag("--json", "Print JSON for a program to read.")]
Toots = Annotated[int, typer.Option(min=1, metavar="N", help="Number of synthetic posts.")]
Days = Annotated[
    int,
    typer.Option(min=1, max=MOST_DAYS, metavar="N", help="Days of history to spread them over."),
]
Seed = Annotated[int, typer.Option(metavar="N", help="The same seed gives the same posts.")]


def port_option(description: str, *, lowest: int = 1) -> Any:
    """Return an option whose value is a port."""
    return typer.Option(min=lowest, max=65535, metavar="PORT", help=description)


REASONS_SHOWN = 20


def refuse_taken_port(port: int, option: str) -> None:
    """Check that a server can listen on `port` of 127.0.0.1, which `option` chose.

    Raises: SettingsError if something else listens there.
    """
    if not is_free(port):
        raise SettingsError(
            f"port {port} is taken; stop what listens there or choose another with {option}"
        )


def address(postgres_url: str) -> str:
    """Return `host:port/database` of a URL, without user and password."""
    return postgres_url.rpartition("@")[2].partition("?")[0]
