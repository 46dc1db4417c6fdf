"""The key of the suppression list, for the embedded stack: `withdrawn.key` in the state folder.

What belongs here: making the key once, and never a second one while the list needs the first.
Entries of the list are hashes made with the key. Under another key nobody could be found in it.
"""

import re
import secrets
from collections.abc import Collection
from pathlib import Path

import psycopg
from pydantic import SecretStr

from mastodon_assets.config.state_folder import SUPPRESSION_KEY_FILE, StateDamagedError
from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.files import write_atomically
from mastodon_assets.warehouse.suppression_list import key_fingerprint

_KEY_BYTES = 32
# What earlier versions wrote to connection.json, also if the rest of that file is damaged.
_KEY_OF_CONNECTION = re.compile(rf"(?<![0-9a-f])[0-9a-f]{{{2 * _KEY_BYTES}}}(?![0-9a-f])")


def keep(home: Path, postgres_url: str, own_key: SecretStr | None) -> None:
    """Write the key to its file if it has none: that of an earlier version, or a new one.

    Args:
        home: The state folder.
        postgres_url: The running server, whose list may have entries.
        own_key: WITHDRAWN_KEY, if it is set; it is then used instead of the file.

    Raises:
        StateDamagedError: The list has entries, and no key is left that made them.
        ServiceUnavailableError: The list cannot be read.
    """
    path = home / SUPPRESSION_KEY_FILE
    needed = _fingerprints(postgres_url)
    stored = _text(path).strip()
    if stored and _fits(stored, needed):
        return
    found = next((key for key in _earlier_keys(home) if _fits(key, needed)), None)
    if found is None and needed:
        if own_key is not None and key_fingerprint(own_key) in needed:
            return
        raise StateDamagedError(
            f"the suppression list has entries, and {path} does not hold the key that made them;"
            " restore that file (or a connection.json of an earlier version), or set WITHDRAWN_KEY"
        )
    write_atomically(path, f"{found or secrets.token_hex(_KEY_BYTES)}\n")


def _fits(key: str, needed: Collection[str]) -> bool:
    return not needed or key_fingerprint(SecretStr(key)) in needed


def _earlier_keys(home: Path) -> list[str]:
    return _KEY_OF_CONNECTION.findall(_text(home / "connection.json"))


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _fingerprints(postgres_url: str) -> set[str]:
    """Return the fingerprints of the keys of all entries; nothing if there is no table yet."""
    try:
        with psycopg.connect(postgres_url) as connection:
            rows = connection.execute("SELECT DISTINCT key_fingerprint FROM masto.withdrawn")
            return {fingerprint for (fingerprint,) in rows}
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return set()
    except psycopg.Error as error:
        reason = str(error).splitlines()[0]
        raise ServiceUnavailableError(
            f"cannot read the suppression list ({reason}); run: mastodon-assets up"
        ) from error
