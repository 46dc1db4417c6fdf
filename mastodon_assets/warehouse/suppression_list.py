"""The suppression list, `masto.withdrawn`: accounts and servers that have withdrawn.

What belongs here: the list, which ingester, merge and replay read. What a withdrawal removes is in
`purge`. An entry is a keyed hash (BLAKE2b, RFC 7693) of a handle or a domain in its one form
(`contract.identity`). The table names nobody: only the key shows whether a given name is listed.
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
from mastodon_assets.contract.identity import (
    account_form,
    domain_form,
    unicode_domain,
    uri_host,
)
from mastodon_assets.errors import ServiceUnavailableError, SettingsError
from mastodon_assets.warehouse.database import FEED_SECONDS, transaction

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["account", "server"]

_NAMES = re.compile(r"(?P<handle>(?<![\w.+-])[\w.+-]++@[\w.-]*\w)|://(?P<host>[\w.-]*\w)")
_SERVER_OF_URI = r"^(?P<server>[A-Za-z][A-Za-z0-9+.-]*://[^/?#]+)"
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

    def matches(self, username: str | None, instance: str | None, uri: object = None) -> bool:
        """Return whether the account, its server, or the server that was read has withdrawn.

        Args:
            username: `user@domain` or its pseudonym.
            instance: The server that the post was read from.
            uri: The post's uri. Its host is another name of the author's server, if handles and
                pages of that server have different domains.
        """
        if not self.hashes:
            return False
        names: list[tuple[Kind, str]] = []
        if username:
            local, _, domain = username.partition("@")
            names += [("account", username), ("server", domain)]
            host = uri_host(uri)
            if host is not None:
                names += [("account", f"{local}@{host}"), ("server", host)]
        if instance:
            names.append(("server", instance))
        return any(self._lists(kind, name) for kind, name in names)

    def _lists(self, kind: Kind, name: str) -> bool:
        assert self.key is not None, "entries are read with a key"
        return any(hashed in self.hashes for hashed in entry_hashes(self.key, kind, name))

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
            instance = instance if isinstance(instance, str) else None
            return self.matches(author, instance, document.get("uri"))
        return any(
            self.matches(found["handle"], found["host"])
            for found in _NAMES.finditer(text.replace("\\u0040", "@").replace("\\/", "/"))
        )


def entry_hash(key: SecretStr, kind: Kind, name: str) -> bytes:
    """Return the entry for a handle or a domain in any spelling; accounts and servers differ."""
    return _hash(key, kind, account_form(name) if kind == "account" else domain_form(name))


def entry_hashes(key: SecretStr, kind: Kind, name: str) -> tuple[bytes, ...]:
    """Return every entry that means a handle or a domain.

    Older versions wrote entries of internationalized domains in Unicode. Entries cannot be
    rewritten, because they hold no names.
    """
    now = entry_hash(key, kind, name)
    local, separator, domain = name.rpartition("@")
    unicode_form = f"{local}{separator}{unicode_domain(domain_form(domain))}"
    before = unicode_form.removeprefix("@").casefold()
    return (now,) if before.isascii() else (now, _hash(key, kind, before))


def _hash(key: SecretStr, kind: Kind, name: str) -> bytes:
    secret = blake2b(key.get_secret_value().encode(), digest_size=blake2b.MAX_KEY_SIZE).digest()
    text = name.encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=_DIGEST_BYTES, key=secret, person=kind.encode()).digest()


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
            " key that `mastodon-assets purge` used (embedded servers: restore withdrawn.key)"
        )
    ours = key_fingerprint(key)
    others = sum(fingerprint != ours for _, fingerprint in rows)
    if others:
        raise SuppressionKeyError(
            f"{others} accounts or servers have withdrawn under another WITHDRAWN_KEY; set the key"
            " that `mastodon-assets purge` used then (embedded servers: restore withdrawn.key)"
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
        (kind, [hashed for name in names for hashed in entry_hashes(key, kind, name)]),
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
    # Author and uri's host in one text, which far fewer posts have in common than a uri.
    hosts = pc.extract_regex(rows.column("uri"), _SERVER_OF_URI)
    owners = pc.binary_join_element_wise(
        rows.column("username"), pc.struct_field(hosts, "server"), " "
    )
    suppressed_owners = [
        owner
        for owner in owners.drop_null().unique().to_pylist()
        if suppression_list.matches(owner.partition(" ")[0], None, owner.partition(" ")[2])
    ]
    is_suppressed = pc.or_(
        pc.or_(
            pc.is_in(rows.column("username"), pa.array(usernames, pa.string())),
            pc.is_in(rows.column("instance"), pa.array(instances, pa.string())),
        ),
        pc.is_in(owners, pa.array(suppressed_owners, pa.string())),
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
        with transaction(
            settings.postgres_url, snapshot=True, max_seconds=FEED_SECONDS
        ) as connection:
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
