"""The suppression list, `masto.withdrawn`: accounts and servers that have withdrawn.

What belongs here: the list, which ingester, merge and replay read. What a withdrawal removes is in
`purge`. An entry is a keyed hash (BLAKE2b, RFC 7693) of a handle or a domain in lower case. The
table names nobody: only the key shows whether a given name is listed.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal

from psycopg import Connection
from pydantic import SecretStr

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import ServiceUnavailableError, SettingsError
from mastodon_assets.warehouse.database import transaction

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["account", "server"]

_NAMES = re.compile(r"(?P<handle>(?<![\w.+-])[\w.+-]++@[\w.-]*\w)|://(?P<host>[\w.-]*\w)")
_DIGEST_BYTES = 32
_FINGERPRINT_BYTES = 8
_SECONDS_BETWEEN_READS = 30


class SuppressionKeyError(SettingsError):
    """The list has entries that cannot be compared: the key is missing or a different one."""


@dataclass(frozen=True)
class SuppressionList:
    """The list at one moment. Without entries it matches nobody and needs no key."""

    key: SecretStr | None = None
    hashes: frozenset[bytes] = field(default=frozenset(), repr=False)

    def matches(self, username: str | None, instance: str | None) -> bool:
        """Return whether the account, its server, or the server that was read has withdrawn.

        Args:
            username: `user@domain` or its pseudonym.
            instance: The server that the post was read from.
        """
        if not self.hashes:
            return False
        names: list[tuple[Kind, str]] = []
        if username:
            domain = username.partition("@")[2]
            names += [("account", username), ("server", domain)]
        if instance:
            names.append(("server", instance))
        assert self.key is not None, "entries are read with a key"
        return any(entry_hash(self.key, kind, name) in self.hashes for kind, name in names)

    def matches_record(self, value: bytes | None) -> bool:
        """Return whether the author of a record that breaks the contract has withdrawn.

        If the author cannot be read, any listed handle or server in the record's text matches: it
        is better to lose a dead letter of somebody else.
        """
        if not self.hashes or value is None:
            return False
        text = value.decode("utf-8", "replace")
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            document = None
        author = document.get("username") if isinstance(document, Mapping) else None
        if isinstance(author, str):
            instance = document.get("instance")
            return self.matches(author, instance if isinstance(instance, str) else None)
        return any(
            self.matches(found["handle"], found["host"])
            for found in _NAMES.finditer(text.replace("\\u0040", "@").replace("\\/", "/"))
        )


def entry_hash(key: SecretStr, kind: Kind, name: str) -> bytes:
    """Return the entry for a handle or a domain, in any case, with or without a leading @.

    The hashes of accounts and servers differ.
    """
    secret = blake2b(key.get_secret_value().encode(), digest_size=blake2b.MAX_KEY_SIZE).digest()
    canonical = name.removeprefix("@").casefold().encode("utf-8", "surrogatepass")
    return blake2b(canonical, digest_size=_DIGEST_BYTES, key=secret, person=kind.encode()).digest()


def key_fingerprint(key: SecretStr) -> str:
    """Return a fingerprint that identifies the key without revealing it."""
    secret = key.get_secret_value().encode()
    return blake2b(secret, digest_size=_FINGERPRINT_BYTES, person=b"fingerprint").hexdigest()


def read_suppression_list(connection: Connection[Any], key: SecretStr | None) -> SuppressionList:
    """Read the list in the caller's transaction.

    Raises:
        SuppressionKeyError: There are entries that were not made with `key`.
    """
    rows = connection.execute("SELECT hash, key_fingerprint FROM masto.withdrawn").fetchall()
    if not rows:
        return SuppressionList()
    if key is None:
        raise SuppressionKeyError(
            f"{len(rows)} accounts or servers have withdrawn and WITHDRAWN_KEY is not set; set the"
            " key that `mastodon-assets purge` used"
        )
    ours = key_fingerprint(key)
    others = sum(fingerprint != ours for _, fingerprint in rows)
    if others:
        raise SuppressionKeyError(
            f"{others} accounts or servers have withdrawn under another WITHDRAWN_KEY; set the key"
            " that `mastodon-assets purge` used then"
        )
    return SuppressionList(key, frozenset(bytes(hashed) for hashed, _ in rows))


def add_entries(
    connection: Connection[Any], key: SecretStr, kind: Kind, names: Iterable[str]
) -> None:
    """Add names to the list; an existing entry keeps its time."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO masto.withdrawn (kind, hash, key_fingerprint) VALUES (%s, %s, %s)"
            " ON CONFLICT (kind, hash) DO NOTHING",
            [(kind, entry_hash(key, kind, name), key_fingerprint(key)) for name in names],
        )


def remove_entries(
    connection: Connection[Any], key: SecretStr, kind: Kind, names: Iterable[str]
) -> int:
    """Remove names whose consent was given again; return the number of entries removed."""
    return connection.execute(
        "DELETE FROM masto.withdrawn WHERE kind = %s AND hash = ANY(%s)",
        (kind, [entry_hash(key, kind, name) for name in names]),
    ).rowcount


def without_suppressed(rows: "pa.Table", suppression_list: SuppressionList) -> "pa.Table":
    """Drop the messages of accounts and servers on the list; deletes stay.

    A dropped message leaves no row, alias, reject or payload.

    Args:
        rows: Columns as from `parse.parse_records`.
        suppression_list: The list to apply.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not suppression_list.hashes:
        return rows
    usernames = [name for name in _names(rows, "username") if suppression_list.matches(name, None)]
    instances = [name for name in _names(rows, "instance") if suppression_list.matches(None, name)]
    is_suppressed = pc.or_(
        pc.is_in(rows.column("username"), pa.array(usernames, pa.string())),
        pc.is_in(rows.column("instance"), pa.array(instances, pa.string())),
    )
    is_post = pc.fill_null(pc.equal(rows.column("op"), "upsert"), False)
    rejected_payloads = rows.column("payload").filter(pc.is_valid(rows.column("reject_reason")))
    suppressed = [
        value for value in rejected_payloads.to_pylist() if suppression_list.matches_record(value)
    ]
    is_suppressed_reject = pc.and_(
        pc.is_valid(rows.column("reject_reason")),
        pc.is_in(rows.column("payload"), pa.array(suppressed, rows.column("payload").type)),
    )
    return rows.filter(pc.invert(pc.or_(pc.and_(is_post, is_suppressed), is_suppressed_reject)))


def _names(rows: "pa.Table", column: str) -> list[str]:
    return list(rows.column(column).drop_null().unique().to_pylist())


def watched_suppression_list(settings: Settings) -> Callable[[], SuppressionList]:
    """Return a function that returns the list, read again when it is half a minute old.

    While PostgreSQL is away, the list read last is used: the merge reads the list again in its own
    transaction.

    Raises:
        SuppressionKeyError: The key does not fit, now or later.
        MissingTablesError: No migration was applied, now or later.
        ServiceUnavailableError: The database does not answer now.
    """

    def read() -> SuppressionList:
        with transaction(settings.postgres_url, snapshot=True) as connection:
            return read_suppression_list(connection, settings.suppression_key)

    known, read_at = read(), time.monotonic()

    def now() -> SuppressionList:
        nonlocal known, read_at
        if time.monotonic() - read_at >= _SECONDS_BETWEEN_READS:
            read_at = time.monotonic()
            try:
                known = read()
            except ServiceUnavailableError:
                return known
        return known

    return now
