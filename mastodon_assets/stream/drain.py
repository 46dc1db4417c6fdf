"""The drain: bring the tables to the end that the topic has now, and no further.

What belongs here: the bounded reading of assets and of `stream --until-caught-up`. The process that
does not end is in `continuous`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mastodon_assets.config.settings import Settings
from mastodon_assets.kafka.topics import Offsets, read_topic
from mastodon_assets.spark.jvm_end import jvm_end_explained
from mastodon_assets.stream.merge import BatchCounts, refresh_statistics
from mastodon_assets.stream.query import Batch, opened_reader
from mastodon_assets.stream.stream_lock import LockOwner, wait_for_stream

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass
class DrainSummary:
    """What one drain did.

    Attributes:
        topic: The topic that was read.
        start: Partition to ledger offset before.
        end: Partition to ledger offset after.
        batches: Batches that this drain wrote.
        counts: Their messages by outcome.
        stream: The stream process that wrote meanwhile, if one did.
    """

    topic: str
    start: Offsets
    end: Offsets = field(default_factory=dict)
    batches: int = 0
    counts: BatchCounts = field(default_factory=BatchCounts)
    stream: LockOwner | None = None

    def add(self, batch: Batch) -> None:
        """Count a committed batch."""
        self.batches += 1
        self.counts += batch.counts

    @property
    def messages(self) -> int:
        """Messages between the two ledgers, whoever wrote them."""
        return sum(offset - self.start.get(partition, 0) for partition, offset in self.end.items())


def drain(
    session: Callable[[], "SparkSession"], settings: Settings, *, report: Callable[[str], None]
) -> DrainSummary:
    """Bring the tables to the end offsets that the topic has now.

    While a stream process is at work, the drain leaves the reading to it and waits until the ledger
    passes those offsets. If another writer moves the ledger meanwhile, its messages are skipped.

    Args:
        session: Called only if there is something to read.
        settings: The settings.
        report: Gets a line per batch.

    Raises:
        DataLossError: The topic no longer holds the messages after the ledger.
        LedgerConflictError: Another writer moved the ledger five times in a row.
        SuppressionKeyError: The suppression list has entries under another key.
        ServiceUnavailableError: Kafka, PostgreSQL or Spark does not answer.
        SparkEndedError: Spark's JVM ended, for lack of memory for instance.
        StreamStalledError: The stream process does not move the ledger.
        QueryStalledError: No batch was written for STREAM_STALL_SECONDS.
        TopicMissingError: The broker has no such topic.
    """
    target = read_topic(settings, settings.kafka_topic)
    summary = DrainSummary(topic=target.topic, start={})

    def give_way() -> None:
        waited = wait_for_stream(settings.postgres_url, target, report)
        summary.start = summary.start or waited.start
        summary.stream = waited.owner or summary.stream

    def count(batch: Batch) -> None:
        summary.add(batch)
        report(f"batch of {batch.counts.messages:,} messages in {batch.seconds:.1f} s")

    give_way()
    with jvm_end_explained(), opened_reader(settings, target, count) as reader:
        summary.start = summary.start or reader.start

        def read(keep_payloads: bool) -> None:
            while behind := reader.lag():
                report(f"{target.topic}: {behind:,} messages to read")
                if reader.read_available(session(), keep_payloads=keep_payloads):
                    return

        reader.until_no_conflict(read, give_way=give_way)
        refresh_statistics(reader.connection, summary.counts.stored)
        summary.end = reader.ledger()
        return summary
