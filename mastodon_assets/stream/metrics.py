"""Progress and lag of the continuous stream, in the log and for Prometheus.

What belongs here: counting and reporting. Nothing here may end the stream.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import PlatformError
from mastodon_assets.kafka.topics import Offsets, read_topic
from mastodon_assets.stream.ledger import lag
from mastodon_assets.stream.merge import BatchCounts
from mastodon_assets.stream.query import Batch

logger = logging.getLogger(__name__)

REPORT_SECONDS = 60
_LAG_SECONDS = 10
# A batch of this size takes seconds and gets a log line of its own.
_LARGE_BATCH = 10_000
_BATCH_SECONDS = (0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30)


@dataclass(frozen=True)
class StreamReport:
    """What a stream did in the last `seconds`.

    Attributes:
        topic: The topic.
        seconds: The period.
        counts: Messages by outcome.
        batches: Batches committed.
        batch_seconds: Sum of their seconds.
        lag: Messages that are not in the tables yet; None if Kafka does not answer.
    """

    topic: str
    seconds: float
    counts: BatchCounts
    batches: int
    batch_seconds: float
    lag: int | None

    @property
    def rows_per_second(self) -> float:
        """Messages per second of the period."""
        return self.counts.messages / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        behind = "lag unknown" if self.lag is None else f"lag {self.lag:,}"
        if not self.batches:
            return f"{self.topic}: no messages in {self.seconds:.0f} s, {behind}"
        return (
            f"{self.topic}: {self.counts.messages:,} messages in {self.seconds:.0f} s"
            f" ({self.rows_per_second:,.1f}/s), {self.batches} batches of"
            f" {self.batch_seconds / self.batches:.2f} s, {behind}"
        )


class StreamProgress:
    """Counts the batches of a stream; logs once a minute, and large batches at once."""

    def __init__(
        self,
        settings: Settings,
        *,
        on_report: Callable[[StreamReport], None],
        registry: CollectorRegistry,
    ) -> None:
        """Create the metrics.

        Args:
            settings: The settings.
            on_report: Called at most once a minute, if batches were committed.
            registry: The registry of the metrics.
        """
        self._settings = settings
        self._topic = settings.kafka_topic
        self._on_report = on_report
        self._lag: int | None = None
        self._lag_at = float("-inf")
        self._reported_at = time.monotonic()
        self._start_period()
        self._messages = Counter(
            "mastodon_assets_stream_messages",
            "Messages read from Kafka, by outcome.",
            ["outcome"],
            registry=registry,
        )
        for outcome in BatchCounts().by_outcome():
            self._messages.labels(outcome)
        self._batch_times = Histogram(
            "mastodon_assets_stream_batch_seconds",
            "From a batch's first record read to its commit.",
            buckets=_BATCH_SECONDS,
            registry=registry,
        )
        self._lag_gauge = Gauge(
            "mastodon_assets_stream_lag_messages",
            "Messages in Kafka that are not in the tables; NaN if Kafka does not answer.",
            registry=registry,
        )
        self._lag_gauge.set(float("nan"))
        self._committed_at = Gauge(
            "mastodon_assets_stream_last_commit_timestamp_seconds",
            "Time of the last committed batch; 0 before the first.",
            registry=registry,
        )
        self._restarts = Counter(
            "mastodon_assets_stream_restarts",
            "Restarts of the query after an outage of Kafka or PostgreSQL.",
            registry=registry,
        )

    @property
    def lag(self) -> int | None:
        """Messages that are not in the tables yet; None if Kafka does not answer."""
        return self._lag

    def add(self, batch: Batch) -> None:
        """Count a committed batch."""
        self._counts += batch.counts
        self._batches += 1
        self._batch_seconds += batch.seconds
        self._batch_times.observe(batch.seconds)
        self._committed_at.set_to_current_time()
        for outcome, count in batch.counts.by_outcome().items():
            self._messages.labels(outcome).inc(count)
        if batch.counts.messages >= _LARGE_BATCH:
            logger.info(
                "%s: batch of %s messages in %.1f s (%s/s)",
                self._topic,
                f"{batch.counts.messages:,}",
                batch.seconds,
                f"{batch.counts.messages / batch.seconds:,.0f}",
            )

    def add_restart(self) -> None:
        """Count a restart of the query after an outage."""
        self._restarts.inc()

    def report_periodically(self, position: Offsets) -> None:
        """Measure the lag every ten seconds, report every minute."""
        now = time.monotonic()
        if now - self._lag_at >= _LAG_SECONDS:
            self._lag_at = now
            self._measure_lag(position)
        if now - self._reported_at >= REPORT_SECONDS:
            report = StreamReport(
                topic=self._topic,
                seconds=now - self._reported_at,
                counts=self._counts,
                batches=self._batches,
                batch_seconds=self._batch_seconds,
                lag=self._lag,
            )
            self._reported_at = now
            self._start_period()
            logger.info("%s", report)
            if report.batches:
                self._on_report(report)

    def _start_period(self) -> None:
        self._counts = BatchCounts()
        self._batches = 0
        self._batch_seconds = 0.0

    def _measure_lag(self, position: Offsets) -> None:
        try:
            self._lag = lag(position, read_topic(self._settings, self._topic).end)
        except PlatformError as error:
            if self._lag is not None:
                logger.warning("%s: the lag is unknown: %s", self._topic, error)
            self._lag = None
        self._lag_gauge.set(float("nan") if self._lag is None else self._lag)
