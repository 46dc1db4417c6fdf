"""What the sources of one process know of each other, because the home of a post has the last word.

What belongs here: names of servers, refusals of accounts at their own servers, and questions to the
home of posts that another server deleted. Deciding which version is the row is in `stream.home`.
"""

import threading
from collections.abc import Iterable
from datetime import timedelta
from hashlib import blake2b

from pydantic import SecretStr

from mastodon_assets.contract.identity import account_form, domain_form
from mastodon_assets.ingest.stored_posts import PostAlias
from mastodon_assets.warehouse.database import FEED_SECONDS, PERSON_SECONDS, transaction
from mastodon_assets.warehouse.server_names import record_server_names

# A question is asked again if its answer has not reached the tables by then.
_ASKED_AGAIN = timedelta(minutes=15)
_MOST_QUESTIONS = 100
_DIGEST_BYTES = 32

_TAKE_QUESTIONS = """
UPDATE masto.home_questions SET asked_at = now()
 WHERE id IN (SELECT id FROM masto.home_questions
               WHERE instance = %s AND (asked_at IS NULL OR asked_at < now() - %s)
               ORDER BY since, id LIMIT %s FOR UPDATE SKIP LOCKED)
RETURNING status_id
"""


class Homes:
    """Shared by the sources of all servers; every method may be called from any thread."""

    def __init__(self, postgres_url: SecretStr) -> None:
        """Keep the database; nothing is read before `load`."""
        self._postgres_url = postgres_url
        self._lock = threading.Lock()
        self._key: bytes | None = None
        self._refusals: dict[bytes, str] = {}
        self._changed: dict[bytes, str | None] = {}
        self._names: dict[str, dict[str, bool]] = {}
        self._recorded: dict[str, dict[str, bool]] = {}

    def load(self) -> None:
        """Read what earlier runs recorded, once.

        Raises:
            ServiceUnavailableError: PostgreSQL does not answer.
            MissingTablesError: The tables are missing.
        """
        with self._lock:
            if self._key is not None:
                return
            with transaction(
                self._postgres_url, snapshot=True, max_seconds=PERSON_SECONDS
            ) as connection:
                secret = connection.execute(
                    "SELECT secret FROM masto.database_secrets WHERE name = 'refusal_key'"
                ).fetchone()
                rows = connection.execute("SELECT hash, instance FROM masto.account_refusals")
                self._refusals = {bytes(hashed): instance for hashed, instance in rows}
            assert secret is not None, "a migration made it"
            self._key = blake2b(secret[0].encode(), digest_size=blake2b.MAX_KEY_SIZE).digest()

    def refuses(self, handle: str) -> bool:
        """Return whether an account refuses at its own server."""
        return self._hash(handle) in self._refusals

    def note_refusal(self, handle: str, instance: str) -> None:
        """Remember that an account of `instance` refuses there."""
        hashed = self._hash(handle)
        with self._lock:
            if hashed not in self._refusals:
                self._refusals[hashed] = self._changed[hashed] = instance

    def note_consent(self, handle: str) -> None:
        """Forget the refusal of an account that its server shows without one."""
        hashed = self._hash(handle)
        with self._lock:
            if self._refusals.pop(hashed, None) is not None:
                self._changed[hashed] = None

    def note_name(self, instance: str, name: str, *, has_ids: bool) -> None:
        """Note a name of a server; `has_ids` says whether uris of it end in ids of posts."""
        name = domain_form(name)
        with self._lock:
            names = self._names.setdefault(instance, {})
            names[name] = names.get(name, False) or has_ids

    def save(self) -> None:
        """Record what changed since the last call.

        Raises:
            ServiceUnavailableError: PostgreSQL does not answer; the next call records it.
            MissingTablesError: The tables are missing.
        """
        with self._lock:
            changed = dict(self._changed)
            names = {instance: dict(found) for instance, found in self._names.items()}
        for instance, found in names.items():
            if self._recorded.get(instance) != found:
                record_server_names(self._postgres_url, instance, found)
                self._recorded[instance] = found
        if not changed:
            return
        self._save_refusals(changed)
        with self._lock:
            for hashed, now in changed.items():
                if self._changed.get(hashed) == now:
                    self._changed.pop(hashed, None)

    def take_questions(self, instance: str) -> list[str]:
        """Return ids of posts of `instance` that another server deleted, to be asked for now.

        Raises:
            ServiceUnavailableError: PostgreSQL does not answer.
            MissingTablesError: The tables are missing.
        """
        with transaction(self._postgres_url, max_seconds=PERSON_SECONDS) as connection:
            rows = connection.execute(
                _TAKE_QUESTIONS, (instance, _ASKED_AGAIN, _MOST_QUESTIONS)
            ).fetchall()
        return [status_id for (status_id,) in rows]

    def close_questions(self, posts: Iterable[PostAlias]) -> None:
        """Drop questions whose answers changed nothing: home shows posts that may not be read.

        Raises:
            ServiceUnavailableError: PostgreSQL does not answer.
            MissingTablesError: The tables are missing.
        """
        with (
            transaction(self._postgres_url, max_seconds=FEED_SECONDS) as connection,
            connection.cursor() as cursor,
        ):
            cursor.executemany(
                "DELETE FROM masto.home_questions WHERE (instance, status_id) = (%s, %s)",
                [(post.instance, post.status_id) for post in posts],
            )

    def _save_refusals(self, changed: dict[bytes, str | None]) -> None:
        added = [(hashed, instance) for hashed, instance in changed.items() if instance is not None]
        removed = [(hashed,) for hashed, instance in changed.items() if instance is None]
        with (
            transaction(self._postgres_url, max_seconds=FEED_SECONDS) as connection,
            connection.cursor() as cursor,
        ):
            cursor.executemany(
                "INSERT INTO masto.account_refusals (hash, instance) VALUES (%s, %s)"
                " ON CONFLICT (hash) DO NOTHING",
                added,
            )
            cursor.executemany("DELETE FROM masto.account_refusals WHERE hash = %s", removed)

    def _hash(self, handle: str) -> bytes:
        assert self._key is not None, "the key is loaded first"
        text = account_form(handle).encode("utf-8", "surrogatepass")
        return blake2b(text, digest_size=_DIGEST_BYTES, key=self._key).digest()
