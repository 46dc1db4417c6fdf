"""Cost of the merge alone: batches of posts into an empty database, without Kafka and Spark.

    python -m mastodon_assets_tests.benchmarks.merge DATABASE_URL [posts] [posts per batch]

It drops and recreates the schema `masto`. A twentieth of the messages are edits and deletes of
stored posts. The last number is the part of the batches' seconds in which changed hours are marked.
"""

import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
from pydantic import SecretStr

from mastodon_assets.kafka.topics import TopicState
from mastodon_assets.stream import merge
from mastodon_assets.stream.ledger import open_ledger
from mastodon_assets.stream.merge import prepare_session, refresh_statistics, write_batch
from mastodon_assets.warehouse.database import connect
from mastodon_assets.warehouse.migrate import migrate
from mastodon_assets_tests.support.records import TOPIC, delete, on_partition, staged, upsert

_USERS, _TAGS = 200_000, 20_000
_TEXT = "A post about the weather, the trains, and a cat that was seen in the garden again. " * 3


def main(url: SecretStr, posts: int, batch_size: int) -> None:
    """Write `posts` messages and print seconds, CPU seconds and WAL bytes per message."""
    with connect(url) as connection:
        connection.execute("DROP SCHEMA IF EXISTS masto CASCADE")
    migrate(url)
    with connect(url) as connection:
        topic = TopicState(TOPIC, "topic-id", {0: 0}, {0: posts})
        with connection.transaction():
            open_ledger(connection, topic, accept_data_loss=False)
        prepare_session(connection)
        connection.commit()
        backend = psutil.Process(connection.info.backend_pid)
        wall = client = server = 0.0
        wal = _wal(connection)
        marking = _timed_marks()
        for messages, first in _batches(posts, batch_size):
            rows = staged(on_partition(messages, 0, first))
            start = time.perf_counter(), time.process_time(), sum(backend.cpu_times()[:2])
            with connection.transaction():
                stored = write_batch(connection, rows, {TOPIC: "topic-id"}).stored
            refresh_statistics(connection, stored)
            wall += time.perf_counter() - start[0]
            client += time.process_time() - start[1]
            server += sum(backend.cpu_times()[:2]) - start[2]
        written = _wal(connection) - wal
    print(
        f"{posts:,} messages in {wall:.1f} s; per message:"
        f" {client / posts * 1e6:.1f} µs client CPU, {server / posts * 1e6:.1f} µs server CPU,"
        f" {written / posts:.0f} bytes of WAL; marking hours took {sum(marking) / wall:.2%}"
    )


def _timed_marks() -> list[float]:
    """Let the merge note the seconds of each call that marks hours; return where it does."""
    seconds: list[float] = []

    def timed(mark: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            start = time.perf_counter()
            mark(*arguments)
            seconds.append(time.perf_counter() - start)

        return call

    for name in ("mark_new_posts", "mark_changed_posts", "mark_deletes"):
        setattr(merge, name, timed(getattr(merge, name)))
    return seconds


def _wal(connection: Any) -> int:
    with connection.transaction():
        row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
    return int(row[0])


def _batches(posts: int, size: int) -> Iterator[tuple[list[dict[str, Any]], int]]:
    generator = random.Random(1)
    for first in range(0, posts, size):
        yield (
            [_message(number, generator) for number in range(first, min(first + size, posts))],
            first,
        )


def _message(number: int, generator: random.Random) -> dict[str, Any]:
    day, hour, minute = 1 + number // 100_000 % 28, number // 4200 % 24, number // 70 % 60
    at = f"2026-11-{day:02}T{hour:02}:{minute:02}:00Z"
    kind = generator.random()
    if number and kind < 0.02:
        return delete(str(generator.randrange(number)), received_at=at)
    changes: dict[str, Any] = {}
    status = number
    if number and kind < 0.05:
        status, changes = generator.randrange(number), {"edited_at": at}
    return upsert(
        str(status),
        created_at=at,
        received_at=at,
        username=f"user{int(generator.random() ** 2 * _USERS)}@one.example",
        language=generator.choice(["en", "en", "en", "de", "fr", "ja", None]),
        content=_TEXT[: generator.randrange(20, len(_TEXT))],
        content_html=f"<p>{_TEXT}</p>",
        hashtags=[
            f"tag{int(generator.random() ** 3 * _TAGS)}"
            for _ in range(generator.choice([0, 0, 1, 3]))
        ],
        **changes,
    )


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[2:]]
    main(SecretStr(sys.argv[1]), *(given or [200_000]), *([50_000] if len(given) < 2 else []))
