"""The suppression list across a wipe: a file in the state folder, which the next `up` reads.

What belongs here: keeping the list of the embedded PostgreSQL, and adding it to the next one. Who
asked to be removed stays out also after all data were removed.
"""

from pathlib import Path

from pydantic import SecretStr

from mastodon_assets.config.settings import load_settings
from mastodon_assets.embedded import postgres
from mastodon_assets.errors import SettingsError
from mastodon_assets.files import write_atomically
from mastodon_assets.jvm.maven import Report
from mastodon_assets.warehouse.database import MissingTablesError
from mastodon_assets.warehouse.suppression_file import FILE, export_list, import_list


def keep(home: Path, report: Report) -> int:
    """Write the list to its file in the state folder `home`; return the number of its entries.

    Starts PostgreSQL if it does not run.

    Raises:
        PlatformError: PostgreSQL does not start or answer; then nothing should be removed.
    """
    home = home.resolve()
    if not (home / "postgres").exists():
        return 0
    url = SecretStr(postgres.start(home, report))
    try:
        text = export_list(load_settings(mastodon_assets_home=home, database_url=url))
    except MissingTablesError:
        return 0
    if text:
        write_atomically(home / FILE, text)
    return len(text.splitlines())


def restore(home: Path) -> int:
    """Add the kept list to the running PostgreSQL and remove its file; return the new entries.

    Raises:
        SettingsError: The file cannot be read, or its entries were made with another key.
        PlatformError: PostgreSQL does not answer, or has no tables.
    """
    path = home / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return 0
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read; restore it, or remove it") from error
    try:
        added = import_list(load_settings(mastodon_assets_home=home), text)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error
    path.unlink()
    return added
