"""The keys of pseudonyms that were used: fingerprints of `MASTODON_HANDLE_KEY`.

What belongs here: recording a key, and checking that a purge can find posts under pseudonyms.
"""

import logging
from typing import Any

from psycopg import Connection

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import SettingsError
from mastodon_assets.warehouse.database import PERSON_SECONDS, transaction
from mastodon_assets.warehouse.suppression_list import key_fingerprint

logger = logging.getLogger(__name__)

# Handles under pseudonyms are two hashes.
PSEUDONYM = r"^[0-9a-f]{32}@[0-9a-f]{32}$"
# Earlier versions recorded no fingerprint.
_HAS_PSEUDONYMS = "SELECT EXISTS (SELECT FROM masto.toots_raw WHERE username ~ %s)"


class HandleKeyError(SettingsError):
    """Raised if posts are stored under pseudonyms of a key that is missing or a different one."""


def record_handle_key(settings: Settings) -> None:
    """Record the fingerprint of the settings' key, if there is one, before it is used.

    Raises:
        ServiceUnavailableError: The database does not answer.
        MissingTablesError: The database has no tables.
    """
    if settings.mastodon_handle_key is None:
        return
    with transaction(settings.postgres_url, max_seconds=PERSON_SECONDS) as connection:
        connection.execute(
            "INSERT INTO masto.handle_keys (key_fingerprint) VALUES (%s) ON CONFLICT DO NOTHING",
            (key_fingerprint(settings.mastodon_handle_key),),
        )


def check_handle_key(connection: Connection[Any], settings: Settings) -> None:
    """Check that the posts of an account can be found under their pseudonyms.

    Raises:
        HandleKeyError: They cannot, because the key is missing or was never used.
    """
    used = {row[0] for row in connection.execute("SELECT key_fingerprint FROM masto.handle_keys")}
    if settings.mastodon_handle_key is None:
        if used or connection.execute(_HAS_PSEUDONYMS, (PSEUDONYM,)).fetchone() == (True,):
            raise HandleKeyError(
                "posts are stored under pseudonyms, which cannot be found without"
                " MASTODON_HANDLE_KEY; set the key that the ingester used"
            )
        return
    ours = key_fingerprint(settings.mastodon_handle_key)
    if used and ours not in used:
        raise HandleKeyError(
            "posts are stored under pseudonyms of another MASTODON_HANDLE_KEY; set the key that the"
            " ingester used"
        )
    if others := len(used - {ours}):
        logger.warning(
            "posts of %s other keys cannot be found; repeat the purge with each MASTODON_HANDLE_KEY"
            " that was used",
            others,
        )
