"""What the sources of one process know of each other, because the home of a post has the last word.

What belongs here: names of servers, refusals of accounts at their own servers, and questions to the
home of posts that another server deleted. Deciding which version is the row is in `stream.home`.
"""

import threading
import time
from collections.abc import Iterable
from datetime import timedelta
from hashlib import blake2b
from typing import Any

from psycopg import Connection
from pydantic import SecretStr

from mastodon_assets.contract.identity import account_form, domain_form
from mastodon_assets.ingest.policy.consent import REFUSALS_OF_ACCOUNT
from mastodon_assets.ingest.stored_posts import PostAlias, PublishedPosts
from mastodon_assets.warehouse.database import FEED_SECONDS, PERSON_SECONDS, transaction
from mastodon_assets.warehouse.server_names import record_server_names

# The reason of a post whose account refuses at its own server.
REFUSED_AT_HOME = "refused_at_home"
# A question is asked again if its answer has not reached the tables by then.
_ASKED_AGAIN = timedelta(minutes=15)
_MOST_QUESTIONS = 100
_DIGEST_BYTES = 32
# Readings of engagement, in processes of their own, find refusals as well.
_READ_AGAIN_SECONDS = 60

_TAKE_QUESTIONS = """
UPDATE masto.home_questions SET asked_at = now()
 WHERE id IN (SELECT id FROM masto.home_questions
               WHERE instance = %s AND (asked_at IS NULL OR asked_at < now() - %s)
               ORDER BY since, id LIMIT %s FOR UPDATE SKIP LOCKED)
RETURNING status_id
"""


class Homes:
    """What is known of all servers; every method may be called from any thread.

    `published` are the posts that the sources of this process published last.
    """

    def __init__(self, postgres_url: SecretStr, *, are_several: bool = True) -> None:
        """Keep the database; nothing is read before `load`.

        Args:
            postgres_url: The database.
            are_several: Whether several servers are read. Names of a single one are of no use.
        """
        self._postgres_url = postgres_url
        self.are_several = are_several
        self.published = PublishedPosts()
        self._lock = threading.Lock()
        self._key: bytes | None = None
        self._refusals: dict[bytes, str] = {}
        self._changed: dict[bytes, str | None] = {}
        self._read_at = 0.0
        self._saves = 0
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
                self._refusals = _read_refusals(connection)
            self._read_at = time.monotonic()
            assert secret is not None, "a migration made it"
            self._key = blake2b(secret[0].encode(), digest_size=blake2b.MAX_KEY_SIZE).digest()

    def refuses(self, handle: str) -> bool:
        """Return whether an account refuses at its own server."""
        return self._hash(handle) in self._refusals

    def note_answer(self, handle: str, instance: str, withheld_reason: str | None) -> None:
        """Note what an account's own server, `instance`, shows of its consent now.

        Args:
            handle: The account.
            instance: The server.
            withheld_reason: Why its post is withheld; None if it is not. If the reason is of the
                post alone, it says nothing.
        """
        hashed = self._hash(handle)
        with self._lock:
            if withheld_reason in REFUSALS_OF_ACCOUNT:
                if hashed not in self._refusals:
                    self._refusals[hashed] = self._changed[hashed] = instance
            elif withheld_reason is None and self._refusals.pop(hashed, None) is not None:
                self._changed[hashed] = None

    def note_name(self, instance: str, name: str, *, has_ids: bool) -> None:
        """Note a name of a server; `has_ids` says whether uris of it end in ids of posts."""
        if not self.are_several:
            return
        name = domain_form(name)
        with self._lock:
            names = self._names.setdefault(instance, {})
            names[name] = names.get(name, False) or has_ids

    def save(self) -> None:
        """Record what changed since the last call, and read what other processes recorded.

        Raises:
            ServiceUnavailableError: PostgreSQL does not answer; the next call does it.
            MissingTablesError: The tables are missing.
        """
        with self._lock:
            changed = dict(self._changed)
            names = {instance: dict(found) for instance, found in self._names.items()}
        for instance, found in names.items():
            if self._recorded.get(instance) != found:
                record_server_names(self._postgres_url, instance, found)
                self._recorded[instance] = found
        if changed:
            self._save_refusals(changed)
            with self._lock:
                self._saves += 1
                for hashed, now in changed.items():
                    if self._changed.get(hashed) == now:
                        self._changed.pop(hashed, None)
        if time.monotonic() - self._read_at >= _READ_AGAIN_SECONDS:
            self._read_again()

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

    def _read_again(self) -> None:
        saves = self._saves
        with transaction(self._postgres_url, snapshot=True, max_seconds=FEED_SECONDS) as connection:
            refusals = _read_refusals(connection)
        with self._lock:
            # What another thread saved meanwhile may not be among the rows.
            if self._saves != saves:
                return
            self._read_at = time.monotonic()
            for hashed, instance in self._changed.items():
                if instance is None:
                    refusals.pop(hashed, None)
                else:
                    refusals[hashed] = instance
            self._refusals = refusals

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


def _read_refusals(connection: Connection[Any]) -> dict[bytes, str]:
    rows = connection.execute("SELECT hash, instance FROM masto.account_refusals")
    return {bytes(hashed): instance for hashed, instance in rows}
