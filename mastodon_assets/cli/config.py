"""Commands for the settings: `config show`."""

from pathlib import Path
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from mastodon_assets.cli.common import AsJson, address
from mastodon_assets.cli.console import escaped, print_json, print_table
from mastodon_assets.config.origins import SettingOrigin, setting_origins
from mastodon_assets.config.settings import load_settings

config_app = typer.Typer(help="Show the settings.")
_MASK = "***"


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands of this module to `app`."""
    app.add_typer(config_app, name="config", rich_help_panel=panel)


@config_app.command("show")
def show(as_json: AsJson = False) -> None:
    """Show each setting, its value, and where the value comes from.

    Secrets are masked. A value comes from the environment, from .env in the current folder, from a
    file in /run/secrets, from connection.json or withdrawn.key of the embedded servers, or is the
    default.
    """
    origins = setting_origins(load_settings())
    if as_json:
        print_json(
            [{"name": each.name, "value": _value(each), "from": each.origin} for each in origins]
        )
        return
    table = Table("setting", "value", "from", box=None, pad_edge=False)
    for each in origins:
        cells = (each.name, _text(_value(each)), each.origin)
        table.add_row(*(Text(cell) for cell in cells))
    print_table(table)


def _value(setting: SettingOrigin) -> Any:
    if setting.name == "DATABASE_URL" and setting.value is not None:
        return f"{_MASK}@{address(setting.value.get_secret_value())}"
    if setting.is_secret:
        return _MASK
    return str(setting.value) if isinstance(setting.value, Path) else setting.value


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else escaped(str(value))
