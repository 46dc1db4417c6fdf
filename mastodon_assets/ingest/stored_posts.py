"""Stored posts that may not stay: their account now refuses, or their server says they are gone.

What belongs here: which posts an answer is about, in the tables or on their way to them. Each
becomes a `delete` in the topic, which the tables apply like a delete that the server sent.
"""

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import SecretStr

from mastodon_assets.config.settings import Settings
from mastodon_assets.ingest.policy.normalize import to_delete
from mastodon_assets.kafka.publisher import publishing
from mastodon_assets.warehouse.database import transaction

# Half an hour at ten posts per second.
_PUBLISHED_POSTS = 20_000

# A post is removed as soon as one server that knows it has sent a delete. What a server says of an
# account counts for the posts that were read from it, and at the account's own server for all.
_POSTS_OF_ACCOUNTS = """
SELECT coalesce(a.instance, r.instance), coalesce(a.status_id, r.status_id)
  FROM masto.toots_raw r
  LEFT JOIN masto.toot_aliases a ON a.id = r.id AND a.instance = %(instance)s
 WHERE r.username = ANY (%(usernames)s)
   AND (a.id IS NOT NULL OR split_part(r.username, '@', 2) = %(own_domain)s)
 ORDER BY r.event_at
"""


@dataclass(frozen=True)
class PostAlias:
    """A post by a server that knows it and its id there."""

    instance: str
    status_id: str


class PublishedPosts:
    """The posts that this process published last, because the tables may not hold them yet.

    Every method may be called from any thread.
    """

    def __init__(self) -> None:
        """Begin without any post."""
        self._lock = threading.Lock()
        self._accounts: OrderedDict[PostAlias, str] = OrderedDict()

    def note(self, post: PostAlias, username: str) -> None:
        """Note a post of an account, named as in the tables."""
        with self._lock:
            self._accounts[post] = username
            if len(self._accounts) > _PUBLISHED_POSTS:
                self._accounts.popitem(last=False)

    def of_accounts(
        self, instance: str, usernames: Collection[str], *, own_domain: str
    ) -> list[PostAlias]:
        """Return what the function `posts_of_accounts` would return if the tables held it."""
        wanted = frozenset(usernames)
        with self._lock:
            return [
                post
                for post, username in self._accounts.items()
                if username in wanted
                and (post.instance == instance or username.endswith(f"@{own_domain}"))
            ]

    def accounts(self, usernames: Collection[str]) -> set[str]:
        """Return those of the accounts that have posts here."""
        with self._lock:
            return set(usernames) & set(self._accounts.values())

    def forget(self, posts: Iterable[PostAlias]) -> None:
        """Forget posts whose deletes are published."""
        with self._lock:
            for post in posts:
                self._accounts.pop(post, None)


def posts_of_accounts(
    postgres_url: SecretStr,
    instance: str,
    usernames: Collection[str],
    *,
    own_domain: str,
) -> list[PostAlias]:
    """Return the stored posts of accounts that refuse, as `instance` says.

    Args:
        postgres_url: The database.
        instance: The server that was read.
        usernames: The accounts as stored: handles or pseudonyms.
        own_domain: The domain of accounts of `instance`, as stored.

    Raises:
        ServiceUnavailableError: The database does not answer.
        MissingTablesError: The database has no tables.
    """
    with transaction(postgres_url, snapshot=True) as connection:
        rows = connection.execute(
            _POSTS_OF_ACCOUNTS,
            {
                "instance": instance,
                "usernames": list(usernames),
                "own_domain": own_domain,
            },
        )
        return [PostAlias(*row) for row in rows]


def publish_deletes(settings: Settings, posts: Iterable[PostAlias]) -> None:
    """Publish a delete per post and wait until Kafka has acknowledged all.

    Raises:
        ServiceUnavailableError: Kafka does not answer, or does not acknowledge.
        TopicMissingError: Kafka has no such topic.
    """
    now = datetime.now(UTC)
    with publishing(settings) as publisher:
        for post in posts:
            publisher.publish(
                to_delete(
                    post.status_id, instance=post.instance, received_at=now, origin="backfill"
                )
            )
        publisher.flush()
