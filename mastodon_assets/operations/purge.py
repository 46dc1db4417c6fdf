"""An account or a server withdraws: everything of it goes, and nothing of it comes back.

What belongs here: the order of a withdrawal, and under which names somebody may be stored. First
the tables with the entry in the list, in one transaction, then the ingester's dead letters in
Kafka. Doing it again is harmless, and mends a withdrawal that was broken off in between.

Messages in the stream's topic stay there as long as Kafka keeps them (the embedded one for good);
the sink stores none of them. An ingester that runs reads the list every half minute: a dead letter
that it writes before that stays until the command is run again.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import SecretStr

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import PlatformError, ServiceUnavailableError, SettingsError
from mastodon_assets.ingest.dead_letters import remove_errors
from mastodon_assets.ingest.policy.pseudonyms import Pseudonyms
from mastodon_assets.stream.purge import purge_rows
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.locks import take_write_lock
from mastodon_assets.warehouse.suppression_list import (
    Kind,
    SuppressionKeyError,
    SuppressionList,
    add_entries,
    entry_hash,
    read_suppression_list,
    remove_entries,
)

_HANDLE = re.compile(r"\A[^@\s/]+@[^@\s/]+\Z")
_DOMAIN = re.compile(r"\A[^@\s/]+\Z")


@dataclass(frozen=True)
class Named:
    """Who withdraws: `user@domain`, or a server's domain."""

    kind: Kind
    name: str


@dataclass(frozen=True)
class Entry:
    """One line of the list of the withdrawn."""

    kind: Kind
    withdrawn_at: datetime


def account(handle: str) -> Named:
    """Raises: SettingsError where it is no full handle."""
    name = handle.removeprefix("@")
    if not _HANDLE.match(name):
        raise SettingsError(f"--account {handle!r}: allowed: a full handle such as ada@one.example")
    return Named("account", name)


def server(domain: str) -> Named:
    """Raises: SettingsError where it is no domain."""
    if not _DOMAIN.match(domain):
        raise SettingsError(f"--server {domain!r}: allowed: a domain such as one.example")
    return Named("server", domain)


def purge(settings: Settings, who: Named, *, dry_run: bool = False) -> Mapping[str, int]:
    """Remove everything of an account or a server and enter it in the list; place to entries gone.

    Places are tables, and the errors topic. A server's are the posts of its accounts, and all that
    was read from it. With `dry_run` all is counted and nothing changed.

    Raises: WithdrawnKeyError, MissingTablesError, ServiceUnavailableError (which says what is done
    already).
    """
    key, names = _key(settings), _stored_names(settings, who)
    covered = SuppressionList(key, frozenset(entry_hash(key, who.kind, name) for name in names))
    with transaction(settings.postgres_url) as connection:
        take_write_lock(connection)
        read_suppression_list(connection, key)
        add_entries(connection, key, who.kind, names)
        removed = purge_rows(connection, covered)
        if dry_run:
            connection.rollback()
    try:
        removed[settings.kafka_errors_topic] = remove_errors(settings, covered, dry_run=dry_run)
    except PlatformError as error:
        raise ServiceUnavailableError(
            f"the tables are {'looked through' if dry_run else 'done'}, the topic"
            f" {settings.kafka_errors_topic} is not: {error}; run the same command again"
        ) from error
    return removed


def undo(settings: Settings, who: Named) -> bool:
    """Take it off the list, so that it may be read again; false where it did not stand there.

    What was removed does not come back by itself. Raises: as `purge`.
    """
    key = _key(settings)
    with transaction(settings.postgres_url) as connection:
        take_write_lock(connection)
        read_suppression_list(connection, key)
        return remove_entries(connection, key, who.kind, _stored_names(settings, who)) > 0


def entries(settings: Settings) -> list[Entry]:
    """The list, newest first; it does not say who.

    Raises: ServiceUnavailableError, MissingTablesError.
    """
    with transaction(settings.postgres_url, snapshot=True) as connection:
        rows = connection.execute(
            "SELECT DISTINCT kind, withdrawn_at FROM masto.withdrawn ORDER BY 2 DESC, 1"
        )
        return [Entry(*row) for row in rows]


def _key(settings: Settings) -> SecretStr:
    if settings.suppression_key is None:
        raise SuppressionKeyError(
            "there is no key for the list of the withdrawn; set WITHDRAWN_KEY to a random text and"
            " keep it, such as one from: python -c 'import secrets; print(secrets.token_hex(32))'"
        )
    return settings.suppression_key


def _stored_names(settings: Settings, who: Named) -> list[str]:
    """The name, and under pseudonyms the one that messages have; posts from before have the first.

    One transaction gives both entries one time.
    """
    if settings.mastodon_handle_key is None:
        return [who.name]
    pseudonyms = Pseudonyms(settings.mastodon_handle_key)
    hidden = pseudonyms.handle if who.kind == "account" else pseudonyms.domain
    return [who.name, hidden(who.name)]
