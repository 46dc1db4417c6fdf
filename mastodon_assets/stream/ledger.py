"""The offsets ledger `masto.kafka_offsets`: where the tables are in each partition of a topic.

What belongs here: comparing the ledger with the broker before reading, and moving it by
compare-and-set in the transaction that writes the rows. No other progress counts.
"""

from typing import Any

from psycopg import Connection

from mastodon_assets.errors import PlatformError
from mastodon_assets.kafka.topics import Offsets, TopicState
from mastodon_assets.warehouse.locks import take_write_lock


class LedgerConflictError(PlatformError):
    """Another writer moved the ledger since this batch was read; start from it again."""


class DataLossError(PlatformError):
    """The topic no longer holds the messages after the ledger."""


def read_ledger(connection: Connection[Any], topic: str) -> dict[int, int]:
    """Return partition to the first offset that is not in the tables yet; empty at first."""
    return dict(
        connection.execute(
            "SELECT partition, next_offset FROM masto.kafka_offsets WHERE topic = %s", (topic,)
        ).fetchall()
    )


def read_ledger_of(connection: Connection[Any], state: TopicState) -> dict[int, int]:
    """Return the ledger like `read_ledger`; empty if it is of an earlier topic of this name."""
    return dict(
        connection.execute(
            "SELECT partition, next_offset FROM masto.kafka_offsets"
            " WHERE (topic, topic_id) = (%s, %s)",
            (state.topic, state.topic_id),
        ).fetchall()
    )


def open_ledger(
    connection: Connection[Any], state: TopicState, *, accept_data_loss: bool
) -> dict[int, int]:
    """Compare the ledger with the broker and add new partitions; return its offsets.

    Raises:
        DataLossError: The topic was created again, retention has passed the ledger, or the topic
            is shorter than the ledger. With `accept_data_loss` the ledger is moved to the offsets
            that exist instead.
    """
    take_write_lock(connection)
    problem = find_loss(connection, state)
    if problem and not accept_data_loss:
        raise DataLossError(
            f"{problem}; set KAFKA_ACCEPT_DATA_LOSS=true to go on without the lost messages"
        )
    if problem:
        _accept_loss(connection, state)
    for partition, earliest in state.earliest.items():
        connection.execute(
            "INSERT INTO masto.kafka_offsets (topic, partition, topic_id, next_offset)"
            " VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (state.topic, partition, state.topic_id, earliest),
        )
    return read_ledger(connection, state.topic)


def advance_ledger(
    connection: Connection[Any],
    topic: str,
    topic_id: str,
    partition: int,
    *,
    start: int,
    end: int,
) -> None:
    """Move one partition of the ledger from offset `start` to `end`.

    Raises:
        LedgerConflictError: The ledger is not at `start`; the caller's transaction must end.
    """
    moved = connection.execute(
        "UPDATE masto.kafka_offsets SET next_offset = %s, updated_at = now()"
        " WHERE (topic, partition, topic_id, next_offset) = (%s, %s, %s, %s)",
        (end, topic, partition, topic_id, start),
    )
    if moved.rowcount == 1:
        return
    # A partition that was added while the query runs: the tables can have nothing of it yet.
    if start == 0 and partition not in read_ledger(connection, topic):
        connection.execute(
            "INSERT INTO masto.kafka_offsets (topic, partition, topic_id, next_offset)"
            " VALUES (%s, %s, %s, %s)",
            (topic, partition, topic_id, end),
        )
        return
    found = read_ledger(connection, topic).get(partition)
    raise LedgerConflictError(
        f"{topic}[{partition}]: this batch starts at offset {start}, the ledger is at {found}"
    )


def lag(ledger: Offsets, end: Offsets) -> int:
    """Count the records that are not in the tables yet; unknown partitions count from 0."""
    return sum(max(0, offset - ledger.get(partition, 0)) for partition, offset in end.items())


def find_loss(connection: Connection[Any], state: TopicState) -> str | None:
    """Return what the topic no longer holds after the ledger, in words; None if it holds all."""
    rows = connection.execute(
        "SELECT partition, topic_id, next_offset FROM masto.kafka_offsets"
        " WHERE topic = %s ORDER BY partition",
        (state.topic,),
    ).fetchall()
    for partition, topic_id, expected in rows:
        place = f"{state.topic}[{partition}]: expected offset {expected}"
        found = f"found {state.earliest.get(partition)} to {state.end.get(partition)}"
        if topic_id != state.topic_id:
            return f"{place}, but the topic was created again (id {state.topic_id}), {found}"
        if partition not in state.end:
            return f"{place}, but the topic has no such partition"
        if state.earliest[partition] > expected:
            return f"{place}, but retention has passed it, {found}"
        if state.end[partition] < expected:
            return f"{place}, but the topic ends before it, {found}"
    return None


def _accept_loss(connection: Connection[Any], state: TopicState) -> None:
    # Offsets of a topic that was created again start over; old dead letters keep their own key.
    connection.execute(
        """
        UPDATE masto.toots_rejected r SET topic = r.topic || '@' || o.topic_id
          FROM masto.kafka_offsets o
         WHERE r.topic = %(topic)s AND o.topic_id <> %(topic_id)s
           AND (o.topic, o.partition) = (r.topic, r.partition)
        """,
        {"topic": state.topic, "topic_id": state.topic_id},
    )
    # A topic that was created again may have fewer.
    connection.execute(
        "DELETE FROM masto.kafka_offsets WHERE topic = %s AND partition <> ALL(%s)",
        (state.topic, list(state.end)),
    )
    for partition, expected in read_ledger(connection, state.topic).items():
        earliest = state.earliest[partition]
        is_inside = earliest <= expected <= state.end[partition]
        connection.execute(
            """
            UPDATE masto.kafka_offsets
               SET next_offset = CASE WHEN topic_id = %(topic_id)s AND %(is_inside)s
                                      THEN next_offset ELSE %(earliest)s END,
                   topic_id = %(topic_id)s, updated_at = now()
             WHERE topic = %(topic)s AND partition = %(partition)s
            """,
            {
                "topic": state.topic,
                "partition": partition,
                "topic_id": state.topic_id,
                "is_inside": is_inside,
                "earliest": earliest,
            },
        )
