"""How far the stream is and how fast: counted once, told in the log and to Prometheus.

What belongs here: counting and telling. Nothing here may end the stream.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, fields

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import PlatformError
from mastodon_assets.kafka.topics import Offsets, read_topic
from mastodon_assets.stream.ledger import lag
from mastodon_assets.stream.merge import BatchCounts
from mastodon_assets.stream.query import Batch

REPORT_SECONDS = 60
_LAG_SECONDS = 10
# A batch of this size is work of seconds, and gets a line of its own.
_LARGE_BATCH = 10_000
_BATCH_SECONDS = (0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30)


@dataclass(frozen=True)
class StreamReport:
    """What a stream did in the last `seconds`; `lag` is None while Kafka does not say."""

    topic: str
    seconds: float
    counts: BatchCounts
    batches: int
    batch_seconds: float
    lag: int | None

    @property
    def rows_per_second(self) -> float:
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
    """Counts the batches of a stream; tells once a minute, and large batches at once."""

    def __init__(
        self,
        settings: Settings,
        *,
        report: Callable[[str], None],
        tell: Callable[[StreamReport], None],
        registry: CollectorRegistry,
    ) -> None:
        """`tell` gets what was done, at most once a minute, where rows may have changed."""
        self._settings = settings
        self._topic = settings.kafka_topic
        self._report = report
        self._tell = tell
        self._lag: int | None = None
        self._lag_at = float("-inf")
        self._told_at = time.monotonic()
        self._start_period()
        self._messages = Counter(
            "mastodon_assets_stream_messages",
            "Messages brought into the tables, by what became of them.",
            ["outcome"],
            registry=registry,
        )
        for outcome in fields(BatchCounts):
            self._messages.labels(outcome.name)
        self._batch_times = Histogram(
            "mastodon_assets_stream_batch_seconds",
            "From a batch's first record read to its commit.",
            buckets=_BATCH_SECONDS,
            registry=registry,
        )
        self._lag_gauge = Gauge(
            "mastodon_assets_stream_lag_messages",
            "Messages in Kafka that are not in the tables; NaN while Kafka does not say.",
            registry=registry,
        )
        self._lag_gauge.set(float("nan"))
        self._committed_at = Gauge(
            "mastodon_assets_stream_last_commit_timestamp_seconds",
            "When the last batch was committed; 0 before the first.",
            registry=registry,
        )
        self._restarts = Counter(
            "mastodon_assets_stream_restarts",
            "Times that a cut of Kafka or PostgreSQL made the query begin anew.",
            registry=registry,
        )

    def add(self, batch: Batch) -> None:
        """Count a committed batch."""
        self._counts += batch.counts
        self._batches += 1
        self._batch_seconds += batch.seconds
        self._batch_times.observe(batch.seconds)
        self._committed_at.set_to_current_time()
        for outcome in fields(BatchCounts):
            self._messages.labels(outcome.name).inc(getattr(batch.counts, outcome.name))
        if batch.counts.messages >= _LARGE_BATCH:
            rate = batch.counts.messages / batch.seconds
            self._report(
                f"{self._topic}: batch of {batch.counts.messages:,} messages in"
                f" {batch.seconds:.1f} s ({rate:,.0f}/s)"
            )

    def add_restart(self) -> None:
        """Count a cut."""
        self._restarts.inc()

    def report_periodically(self, position: Offsets) -> None:
        """Ask Kafka for its end each ten seconds, tell what was done each minute."""
        now = time.monotonic()
        if now - self._lag_at >= _LAG_SECONDS:
            self._lag_at = now
            self._measure_lag(position)
        if now - self._told_at >= REPORT_SECONDS:
            told = StreamReport(
                topic=self._topic,
                seconds=now - self._told_at,
                counts=self._counts,
                batches=self._batches,
                batch_seconds=self._batch_seconds,
                lag=self._lag,
            )
            self._told_at = now
            self._start_period()
            self._report(str(told))
            if told.batches:
                self._tell(told)

    def _start_period(self) -> None:
        self._counts = BatchCounts()
        self._batches = 0
        self._batch_seconds = 0.0

    def _measure_lag(self, position: Offsets) -> None:
        try:
            self._lag = lag(position, read_topic(self._settings, self._topic).end)
        except PlatformError as error:
            if self._lag is not None:
                self._report(f"{self._topic}: the lag is unknown: {error}")
            self._lag = None
        self._lag_gauge.set(float("nan") if self._lag is None else self._lag)
