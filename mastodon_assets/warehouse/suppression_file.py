"""The suppression list as a file: JSON, one entry per line, without names.

What belongs here: writing and reading the entries. What an entry is, is in `suppression_list`.
"""

import json

from pydantic import SecretStr

from mastodon_assets.config.settings import Settings
from mastodon_assets.contract.times import parse_utc
from mastodon_assets.errors import SettingsError
from mastodon_assets.warehouse.database import PERSON_SECONDS, WRITE_LOCK_SECONDS, transaction
from mastodon_assets.warehouse.locks import take_write_lock
from mastodon_assets.warehouse.suppression_list import (
    SuppressionKeyError,
    key_fingerprint,
    read_suppression_list,
)

# In the state folder after a wipe, and in BACKUP_DIR next to the backups.
FILE = "suppression-list.jsonl"


def required_key(settings: Settings) -> SecretStr:
    """Return the key of the suppression list.

    Raises:
        SuppressionKeyError: There is none.
    """
    if settings.suppression_key is None:
        raise SuppressionKeyError(
            "the suppression list has no key; set WITHDRAWN_KEY to a random text and keep it, such"
            " as one from: python -c 'import secrets; print(secrets.token_hex(32))'"
        )
    return settings.suppression_key


def export_list(settings: Settings) -> str:
    """Return the suppression list as JSON, one entry per line; it holds no names.

    Raises:
        ServiceUnavailableError: The database fails.
        MissingTablesError: The database has no tables.
    """
    with transaction(
        settings.postgres_url, snapshot=True, max_seconds=PERSON_SECONDS
    ) as connection:
        rows = connection.execute(
            "SELECT kind, encode(hash, 'hex'), key_fingerprint, withdrawn_at FROM masto.withdrawn"
            " ORDER BY withdrawn_at, kind, hash"
        ).fetchall()
    names = ("kind", "hash", "key_fingerprint", "withdrawn_at")
    entries_ = (dict(zip(names, (*row[:3], row[3].isoformat()), strict=True)) for row in rows)
    return "".join(f"{json.dumps(entry)}\n" for entry in entries_)


def import_list(settings: Settings, text: str) -> int:
    """Add the entries of an exported suppression list; return how many are new.

    Stored posts stay: entries hold no names to find them by. The stream and the ingester withhold
    later ones.

    Raises:
        SettingsError: A line is no entry, or was made with another WITHDRAWN_KEY.
        SuppressionKeyError: The list has no key, or another one.
        MissingTablesError: The database has no tables.
        ServiceUnavailableError: The database fails.
    """
    key = required_key(settings)
    ours = key_fingerprint(key)
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            entry = json.loads(line)
            hashed, at = bytes.fromhex(entry["hash"]), parse_utc(entry["withdrawn_at"])
            if entry["kind"] not in ("account", "server"):
                raise ValueError(entry["kind"])
        except (ValueError, KeyError, TypeError) as error:
            raise SettingsError(
                f"line {number} is no entry of a suppression list; give a file that"
                " `mastodon-assets purge --export` wrote"
            ) from error
        if entry["key_fingerprint"] != ours:
            raise SettingsError(
                f"line {number} was made with another WITHDRAWN_KEY; set the key of the"
                " installation that exported the list"
            )
        rows.append((entry["kind"], hashed, ours, at))
    with transaction(settings.postgres_url, max_lock_seconds=WRITE_LOCK_SECONDS) as connection:
        take_write_lock(connection)
        before = len(read_suppression_list(connection, key).hashes)
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO masto.withdrawn (kind, hash, key_fingerprint, withdrawn_at)"
                " VALUES (%s, %s, %s, %s) ON CONFLICT (kind, hash) DO NOTHING",
                rows,
            )
        return len(read_suppression_list(connection, key).hashes) - before
