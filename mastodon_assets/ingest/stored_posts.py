"""Stored posts that may not stay: their account now refuses, or their server says they are gone.

What belongs here: which stored posts an answer is about. Each becomes a `delete` in the topic,
which the tables apply like a delete that the server sent.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import SecretStr

from mastodon_assets.config.settings import Settings
from mastodon_assets.ingest.policy.normalize import to_delete
from mastodon_assets.kafka.publisher import publishing
from mastodon_assets.warehouse.database import transaction

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
