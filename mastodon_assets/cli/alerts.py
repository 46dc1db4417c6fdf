"""Commands for alerts: `alerts list` and `alerts test`."""

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from mastodon_assets.cli.common import AsJson
from mastodon_assets.cli.console import escaped, print_json, print_line, print_table
from mastodon_assets.config.settings import load_settings
from mastodon_assets.errors import SettingsError

if TYPE_CHECKING:
    from mastodon_assets.alerts.incidents import Incident

alerts_app = typer.Typer(help="Show incidents, and try where messages about them go.")


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands of this module to `app`."""
    app.add_typer(alerts_app, name="alerts", rich_help_panel=panel)


@alerts_app.command(name="list")
def list_(
    closed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Also show the N that closed last.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """Show the open incidents, and those that closed last.

    Dagster's sensor `alert_sensor` opens and closes them (`ui` or `run`).
    """
    from mastodon_assets.alerts.store import read_incidents

    incidents = read_incidents(load_settings().postgres_url, closed=closed)
    if as_json:
        print_json([_document(each) for each in incidents])
        return
    if not incidents:
        print_line("no incidents")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("state", "since", "until", "first sent", "what"):
        table.add_column(column)
    for each in incidents:
        table.add_row(
            "open" if each.is_open else "closed",
            _moment(each.since),
            _moment(each.absent_since if each.closed_at else None),
            _first_sent(each),
            Text(escaped(each.what)),
        )
    print_table(table)


@alerts_app.command(name="test")
def send_test(as_json: AsJson = False) -> None:
    """Send a test message to every destination, and show which of them took it.

    The destinations are those of ALERT_WEBHOOK_URL, ALERT_URLS and ALERT_FILE. The exit status is 1
    if one of them did not take the message.
    """
    from mastodon_assets.alerts.destinations import destinations_of
    from mastodon_assets.alerts.watch import send

    destinations = destinations_of(load_settings())
    if not destinations:
        raise SettingsError(
            "no destination is configured; set ALERT_WEBHOOK_URL, ALERT_URLS or ALERT_FILE"
        )
    text = "This is a test by: mastodon-assets alerts test"
    failures = {each.name: send(each, text, "info") for each in destinations}
    if as_json:
        print_json([{"destination": name, "failure": each} for name, each in failures.items()])
    else:
        for name, failure in failures.items():
            print_line(f"{name}: {failure or 'took the message'}")
    if any(failures.values()):
        raise typer.Exit(1)


def _document(incident: "Incident") -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in asdict(incident).items()
    } | {
        "is_open": incident.is_open,
        "deliveries": {
            name: {"event": each.event, "at": each.at.isoformat()}
            for name, each in incident.deliveries.items()
        },
    }


def _moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}Z" if moment else ""


def _first_sent(incident: "Incident") -> Text:
    if incident.failure:
        return Text(escaped(f"failed: {incident.failure}"))
    return Text(_moment(incident.told_at) or "nobody")
