"""Dead letters of the merge, `masto.toots_rejected`: listed, read, published again.

What belongs here: the rows of the table. The ingester's dead letters, in the topic
`mastodon_errors`, are in `ingest.dead_letters`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from psycopg import Connection
from pydantic import SecretStr

from mastodon_assets.contract.dead_letter import DeadLetter, NoDeadLetterError, ReplaySummary
from mastodon_assets.contract.messages import ContractError, Message, decode, post_id
from mastodon_assets.warehouse.database import PERSON_SECONDS, transaction
from mastodon_assets.warehouse.suppression_list import SuppressionList, read_suppression_list

if TYPE_CHECKING:
    from mastodon_assets.kafka.publisher import Publisher

_REPLAYED_AT_ONCE = 500

_COLUMNS = "topic, partition, kafka_offset, reason, payload, rejected_at, message_key"
_PAGE = f"""
SELECT {_COLUMNS} FROM masto.toots_rejected
 WHERE (topic, partition, kafka_offset) > (%(topic)s::text, %(partition)s, %(offset)s)
   AND strpos(lower(reason), lower(%(reason)s)) > 0 AND rejected_at <= %(until)s
 ORDER BY topic, partition, kafka_offset LIMIT %(limit)s
"""  # noqa: S608 - the columns above
_NEWEST = f"""
SELECT {_COLUMNS} FROM masto.toots_rejected
 WHERE strpos(lower(reason), lower(%s)) > 0
 ORDER BY rejected_at DESC, topic, partition, kafka_offset DESC LIMIT %s
"""  # noqa: S608
_ONE = f"""
SELECT {_COLUMNS} FROM masto.toots_rejected WHERE (topic, partition, kafka_offset) = (%s, %s, %s)
"""  # noqa: S608
_COUNTS = """
SELECT reason, count(*) FROM masto.toots_rejected
 WHERE strpos(lower(reason), lower(%s)) > 0 GROUP BY reason
"""
# What the merge would reject because of stored rows (`merge._REJECT_CONFLICTS`).
_CONFLICT = """
SELECT CASE
  WHEN EXISTS (SELECT FROM masto.toots_raw WHERE id = %(id)s AND uri <> %(uri)s)
  THEN 'uri: another post has this hash'
  WHEN EXISTS (SELECT FROM masto.toot_aliases
                WHERE (instance, status_id) = (%(instance)s, %(status_id)s) AND id <> %(id)s)
  THEN 'id: this server gave it to another uri' END
"""


def newest_rejected(postgres_url: SecretStr, *, reason: str, limit: int) -> list[DeadLetter]:
    """Read the newest dead letters whose reason contains `reason` (any case), at most `limit`.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: The database has no tables yet.
    """
    with transaction(postgres_url, snapshot=True, max_lock_seconds=PERSON_SECONDS) as connection:
        return [DeadLetter(*row) for row in connection.execute(_NEWEST, (reason, limit))]


def count_rejected(postgres_url: SecretStr, *, reason: str) -> Counter[str]:
    """Count dead letters by reason, for the reasons that contain `reason` (any case).

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: The database has no tables yet.
    """
    with transaction(postgres_url, snapshot=True, max_lock_seconds=PERSON_SECONDS) as connection:
        return Counter(dict(connection.execute(_COUNTS, (reason,)).fetchall()))


def read_rejected(postgres_url: SecretStr, topic: str, partition: int, offset: int) -> DeadLetter:
    """Read one dead letter.

    Raises:
        NoDeadLetterError: There is none at this offset.
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: The database has no tables yet.
    """
    with transaction(postgres_url, snapshot=True, max_seconds=PERSON_SECONDS) as connection:
        row = connection.execute(_ONE, (topic, partition, offset)).fetchone()
    if row is None:
        raise NoDeadLetterError(
            f"no dead letter at {topic} {partition} {offset}; see: mastodon-assets rejected list"
        )
    return DeadLetter(*row)


def replay_rejected(
    postgres_url: SecretStr,
    publisher: "Publisher | None",
    *,
    reason: str = "",
    limit: int | None = None,
    suppression_key: SecretStr | None = None,
) -> ReplaySummary:
    """Publish the dead letters that the present contract accepts, and remove their rows.

    The payload is published byte for byte. Dead letters of suppressed accounts stay. A row is
    removed after Kafka's acknowledgement: a crash between the two repeats a message, which the
    merge ignores.

    Args:
        postgres_url: The database.
        publisher: Publishes the payloads; None only counts them.
        reason: Only dead letters whose reason contains it (any case).
        limit: Publish at most that many.
        suppression_key: The key of the suppression list.

    Raises:
        ServiceUnavailableError: Kafka or PostgreSQL does not answer.
        MissingTablesError: The database has no tables yet.
        SuppressionKeyError: The suppression list has entries under another key.
    """
    summary = ReplaySummary()
    for dead_letters in _pages(postgres_url, reason):
        accepted: list[DeadLetter] = []
        for dead_letter, refusal in _examine(postgres_url, dead_letters, suppression_key):
            if limit is not None and summary.published + len(accepted) >= limit:
                break
            problem = refusal or _publish(publisher, dead_letter)
            if problem is None:
                accepted.append(dead_letter)
            else:
                summary.kept[problem] += 1
        if publisher is not None:
            publisher.flush()
            _remove(postgres_url, accepted)
        summary.published += len(accepted)
        if summary.published == limit:
            break
    return summary


def _pages(postgres_url: SecretStr, reason: str) -> Iterator[list[DeadLetter]]:
    """Yield the dead letters that there are now; one that is rejected again meanwhile is not."""
    with transaction(postgres_url, snapshot=True) as connection:
        until = connection.execute("SELECT now()").fetchone()
    assert until is not None, "it has one row"
    parameters = {"reason": reason, "limit": _REPLAYED_AT_ONCE, "until": until[0]}
    position: dict[str, Any] = {"topic": "", "partition": 0, "offset": 0}
    while True:
        with transaction(postgres_url, snapshot=True) as connection:
            page = [DeadLetter(*row) for row in connection.execute(_PAGE, parameters | position)]
        if not page:
            return
        yield page
        last = page[-1]
        position = {"topic": last.topic, "partition": last.partition, "offset": last.offset}


def _examine(
    postgres_url: SecretStr, dead_letters: Sequence[DeadLetter], suppression_key: SecretStr | None
) -> list[tuple[DeadLetter, str | None]]:
    """Pair each dead letter with the reason why it is still rejected, or None."""
    with transaction(postgres_url, snapshot=True) as connection:
        suppression_list = read_suppression_list(connection, suppression_key)
        return [
            (dead_letter, _refusal(connection, dead_letter, suppression_list))
            for dead_letter in dead_letters
        ]


def _refusal(
    connection: Connection[Any], dead_letter: DeadLetter, suppression_list: SuppressionList
) -> str | None:
    assert dead_letter.at is not None, "the column has no nulls"
    try:
        message = decode(dead_letter.payload, dead_letter.at)
    except ContractError as error:
        return str(error)
    if message["op"] == "delete":
        return None
    if suppression_list.matches(message["username"], message["instance"], message["uri"]):
        return "withdrawn"
    return _conflict(connection, message)


def _conflict(connection: Connection[Any], message: Message) -> str | None:
    row = connection.execute(
        _CONFLICT,
        {
            "id": post_id(message["uri"]),
            "uri": message["uri"],
            "instance": message["instance"],
            "status_id": message["status_id"],
        },
    ).fetchone()
    return row[0] if row else None


def _publish(publisher: "Publisher | None", dead_letter: DeadLetter) -> str | None:
    """Publish a dead letter; return the reason if Kafka cannot take it."""
    if publisher is not None and dead_letter.payload is not None:
        try:
            publisher.publish_record(dead_letter.payload, dead_letter.key)
        except ContractError as error:
            return str(error)
    return None


def _remove(postgres_url: SecretStr, dead_letters: Sequence[DeadLetter]) -> None:
    with transaction(postgres_url) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "DELETE FROM masto.toots_rejected"
            " WHERE (topic, partition, kafka_offset) = (%s, %s, %s)",
            [
                (dead_letter.topic, dead_letter.partition, dead_letter.offset)
                for dead_letter in dead_letters
            ],
        )
