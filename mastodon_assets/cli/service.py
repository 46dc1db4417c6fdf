"""Commands for a service of systemd: `service install`, `uninstall` and `status`."""

from pathlib import Path
from typing import Annotated

import typer

from mastodon_assets.cli.common import AsJson, flag, port_option
from mastodon_assets.cli.console import print_json, print_line

service_app = typer.Typer(help="Run everything at boot, as a service of systemd.")

System = Annotated[
    bool, flag("--system", "The system's service, not that of this user; needs root.")
]


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands of this module to `app`."""
    app.add_typer(service_app, name="service", rich_help_panel=panel)


@service_app.command()
def install(
    folder: Annotated[
        Path,
        typer.Argument(
            help="The folder with .env and the state folder.", exists=True, file_okay=False
        ),
    ] = Path(),
    port: Annotated[int, port_option("Port of the web page.")] = 3000,
    system: System = False,
) -> None:
    """Write a unit that runs `mastodon-assets run` in a folder, then enable and start it.

    The service of the system runs as the owner of the folder. Safe to repeat: the unit is written
    again.
    """
    from mastodon_assets.operations import service

    scope = service.scope_of(system=system)
    notes = service.install(scope, folder, port)
    print_line(f"{scope.unit} written")
    for note in notes:
        print_line(note)


@service_app.command()
def uninstall(system: System = False) -> None:
    """Stop the service and remove its unit. Data stay."""
    from mastodon_assets.operations import service

    scope = service.scope_of(system=system)
    was_installed = service.uninstall(scope)
    print_line(f"{scope.unit} {'removed' if was_installed else 'does not exist'}")


@service_app.command()
def status(system: System = False, as_json: AsJson = False) -> None:
    """Show whether the service is enabled and active."""
    from mastodon_assets.operations import service

    state = service.state(service.scope_of(system=system))
    if as_json:
        print_json(state)
        return
    for name, value in state.items():
        print_line(f"{name:<8} {value}")
    option = "" if system else "--user "
    print_line(f"log      journalctl {option}-u {service.NAME}")
