"""The purge of an account or a server: all its data is removed and never stored again.

What belongs here: the order of a purge, and the names under which an account may be stored. First
the entry in the suppression list, then the rows of the tables, then Kafka: the ingester's dead
letters, and all messages of the stream's topic that the tables have read. A purge can be repeated,
which completes one that was interrupted.

Messages that the tables have not read yet stay until the next purge or as long as Kafka keeps them;
the stream stores none of them. A running ingester reads the list every half minute. A dead letter
that it writes before that stays until the command is run again.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from psycopg import Connection

from mastodon_assets.config.settings import Settings
from mastodon_assets.contract.identity import account_form, domain_form
from mastodon_assets.errors import PlatformError, ServiceUnavailableError, SettingsError
from mastodon_assets.files import write_atomically
from mastodon_assets.ingest.dead_letters import remove_errors
from mastodon_assets.ingest.policy.pseudonyms import Pseudonyms
from mastodon_assets.kafka.topics import delete_records, read_topic
from mastodon_assets.stream.ledger import read_ledger
from mastodon_assets.stream.purge import purge_rows
from mastodon_assets.warehouse.database import PERSON_SECONDS, WRITE_LOCK_SECONDS, transaction
from mastodon_assets.warehouse.handle_keys import check_handle_key
from mastodon_assets.warehouse.locks import take_write_lock
from mastodon_assets.warehouse.suppression_file import FILE, export_list, required_key
from mastodon_assets.warehouse.suppression_list import (
    Kind,
    SuppressionList,
    add_entries,
    entry_hashes,
    read_suppression_list,
    remove_entries,
)

# Hosts in the uris of an account, and domains of accounts of the same name with such a host.
_ALIASES = """
WITH posts AS (
    SELECT username, lower(substring(uri from '^[A-Za-z][A-Za-z0-9+.-]*://([^/?#:]+)')) AS host
      FROM masto.toots_raw
     WHERE split_part(username, '@', 1) = %(local)s
)
SELECT DISTINCT host FROM posts WHERE username = %(handle)s
UNION
SELECT DISTINCT split_part(username, '@', 2) FROM posts WHERE host = %(domain)s
"""
_HANDLE = re.compile(r"\A[^@\s/]+@[^@\s/]+\Z")
_DOMAIN = re.compile(r"\A[^@\s/]+\Z")


@dataclass(frozen=True)
class Subject:
    """Whom a purge is about: an account (`user@domain`) or a server (its domain)."""

    kind: Kind
    name: str


@dataclass(frozen=True)
class Entry:
    """An entry of the suppression list; it holds no name."""

    kind: Kind
    withdrawn_at: datetime


def account(handle: str) -> Subject:
    """Return the account of a full handle.

    Raises:
        SettingsError: `handle` is no full handle.
    """
    name = handle.removeprefix("@")
    if not _HANDLE.match(name):
        raise SettingsError(f"--account {handle!r}: allowed: a full handle such as ada@one.example")
    return Subject("account", account_form(name))


def server(domain: str) -> Subject:
    """Return the server of a domain.

    Raises:
        SettingsError: `domain` is no domain.
    """
    if not _DOMAIN.match(domain):
        raise SettingsError(f"--server {domain!r}: allowed: a domain such as one.example")
    return Subject("server", domain_form(domain))


def subjects_of_file(path: Path) -> list[Subject]:
    """Read accounts and servers, one handle or domain per line; # begins a comment.

    Raises:
        SettingsError: The file cannot be read, or a line is neither.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SettingsError(f"--from {path}: {reason}; name a readable file") from error
    subjects: list[Subject] = []
    for number, line in enumerate(lines, start=1):
        name = line.partition("#")[0].strip()
        try:
            if name:
                subjects.append(account(name) if "@" in name else server(name))
        except SettingsError as error:
            raise SettingsError(f"--from {path}, line {number}: {error}") from error
    if not subjects:
        raise SettingsError(f"--from {path}: no handle and no domain in it")
    return subjects


def purge(settings: Settings, *who: Subject, dry_run: bool = False) -> Mapping[str, int]:
    """Remove all data of accounts and servers and add them to the suppression list.

    A server's data are the posts of its accounts and everything that was read from it.

    Args:
        settings: They name database, broker and keys.
        who: The accounts and servers.
        dry_run: Count only; nothing is changed.

    Returns:
        Number of removed entries per table, and of removed messages per topic of Kafka.

    Raises:
        SuppressionKeyError: The list has no key, or another one.
        SettingsError: The list cannot be written to BACKUP_DIR.
        HandleKeyError: Posts are stored under pseudonyms that cannot be found.
        MissingTablesError: The database has no tables.
        ServiceUnavailableError: Database or broker fails; the message says what is done already.
    """
    key = required_key(settings)
    with transaction(settings.postgres_url, max_lock_seconds=WRITE_LOCK_SECONDS) as connection:
        check_handle_key(connection, settings)
        names = {subject: _stored_names(connection, settings, subject) for subject in who}
        take_write_lock(connection)
        read_suppression_list(connection, key)
        if not dry_run:
            for subject in who:
                add_entries(connection, key, subject.kind, names[subject])
    purged = SuppressionList(
        key,
        frozenset(
            hashed
            for subject in who
            for name in names[subject]
            for hashed in entry_hashes(key, subject.kind, name)
        ),
    )
    if not dry_run:
        _keep_with_backups(settings)
    with transaction(settings.postgres_url) as connection:
        removed = purge_rows(connection, purged, dry_run=dry_run)
    try:
        removed[settings.kafka_errors_topic] = remove_errors(settings, purged, dry_run=dry_run)
        removed[settings.kafka_topic] = _delete_stored_messages(settings, dry_run=dry_run)
    except PlatformError as error:
        raise ServiceUnavailableError(
            f"the tables are {'checked' if dry_run else 'purged'}, the topics in Kafka are not:"
            f" {error}; run the same command again"
        ) from error
    return removed


def _keep_with_backups(settings: Settings) -> None:
    """Write the list to BACKUP_DIR, so that a restored backup does not bring the account back."""
    if settings.backup_dir is None:
        return
    path = settings.backup_dir / FILE
    try:
        settings.backup_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, export_list(settings))
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be written ({error.strerror}), and a restored backup would bring the"
            " account back; mend BACKUP_DIR, then run the same command again"
        ) from error


def _delete_stored_messages(settings: Settings, *, dry_run: bool) -> int:
    """Delete the messages of the stream's topic that the tables have; return their number.

    Kafka cannot delete single messages, and the tables hold what is to be kept of these.
    """
    topic = settings.kafka_topic
    with transaction(
        settings.postgres_url, snapshot=True, max_seconds=PERSON_SECONDS
    ) as connection:
        ledger = read_ledger(connection, topic)
    if not ledger:
        return 0
    state = read_topic(settings, topic)
    before = {
        partition: min(offset, state.end[partition])
        for partition, offset in ledger.items()
        if offset > state.earliest.get(partition, offset)
    }
    if not dry_run:
        delete_records(settings, topic, before)
    return sum(offset - state.earliest[partition] for partition, offset in before.items())


def undo(settings: Settings, who: Subject) -> bool:
    """Remove an entry from the suppression list, so that the posts may be read again.

    Removed posts do not come back by themselves.

    Returns:
        Whether the entry was on the list.

    Raises:
        SuppressionKeyError: The list has no key, or another one.
        MissingTablesError: The database has no tables.
        ServiceUnavailableError: The database fails.
    """
    key = required_key(settings)
    with transaction(settings.postgres_url, max_lock_seconds=WRITE_LOCK_SECONDS) as connection:
        take_write_lock(connection)
        read_suppression_list(connection, key)
        names = _stored_names(connection, settings, who)
        return remove_entries(connection, key, who.kind, names) > 0


def entries(settings: Settings) -> list[Entry]:
    """Return the suppression list, newest first; it holds no names.

    Raises:
        ServiceUnavailableError: The database fails.
        MissingTablesError: The database has no tables.
    """
    with transaction(
        settings.postgres_url, snapshot=True, max_seconds=PERSON_SECONDS
    ) as connection:
        rows = connection.execute(
            "SELECT DISTINCT kind, withdrawn_at FROM masto.withdrawn ORDER BY 2 DESC, 1"
        )
        return [Entry(*row) for row in rows]


def _stored_names(connection: Connection[Any], settings: Settings, who: Subject) -> list[str]:
    """Return the names under which posts may be stored: known aliases, and their pseudonyms."""
    names = [who.name]
    if who.kind == "account":
        names += _aliases(connection, who.name)
    if settings.mastodon_handle_key is None:
        return names
    pseudonyms = Pseudonyms(settings.mastodon_handle_key)
    hidden = pseudonyms.handle if who.kind == "account" else pseudonyms.domain
    return names + [hidden(name) for name in names]


def _aliases(connection: Connection[Any], handle: str) -> list[str]:
    """Return other handles of an account: with the host of its uris, or with its server's domain.

    The posts of an account whose server has two domains show both.
    """
    local, _, domain = handle.partition("@")
    rows = connection.execute(_ALIASES, {"handle": handle, "local": local, "domain": domain})
    found = {account_form(f"{local}@{host}") for (host,) in rows if host}
    return sorted(found - {handle})
