"""The continuous stream: writes each message to the tables as it arrives, through outages.

What belongs here: when the query is started again, and when the process ends. An outage of Kafka or
PostgreSQL does not end it. Lost data, a missing topic and a programming error do.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.kafka.topics import read_topic
from mastodon_assets.spark.jvm_end import jvm_end_explained
from mastodon_assets.stream.drain import DrainSummary
from mastodon_assets.stream.metrics import StreamProgress
from mastodon_assets.stream.query import (
    Batch,
    TopicReader,
    TransactionStep,
    opened_reader,
)
from mastodon_assets.stream.stall import StallWatch
from mastodon_assets.stream.stream_lock import stream_lock_owner, take_stream_lock
from mastodon_assets.stream.temporary_folders import temporary_folder

if TYPE_CHECKING:
    import pyarrow as pa
    from psycopg import Connection
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1
_LONGEST_WAIT_SECONDS = 30
_BACKOFF = wait_random_exponential(multiplier=1, max=_LONGEST_WAIT_SECONDS)


class Scorer(Protocol):
    """Scores the rows of a micro-batch; see `query.MakeStep`."""

    def prepare(self, connection: "Connection[Any]") -> None:
        """Load what the first batch would otherwise wait for."""

    def __call__(self, rows: "pa.Table") -> TransactionStep:
        """Score the rows; the returned function writes the scores in the batch's transaction."""


# Called once per query. The folder is for the scorer's temporary files; the last argument gets its
# log lines.
MakeScorer = Callable[["SparkSession", Settings, Path, Callable[[str], None]], Scorer]


def stream(
    session: Callable[[], "SparkSession"],
    settings: Settings,
    *,
    make_scorer: MakeScorer,
    progress: StreamProgress,
    should_stop: Callable[[], bool],
) -> DrainSummary:
    """Write each message to the tables as it arrives, until `should_stop`.

    A batch that is being written is finished first. If another stream process is at work on the
    topic, this one stands by and takes over when that one ends.

    Raises:
        DataLossError: The topic no longer holds the messages after the ledger.
        TopicMissingError: The broker has no such topic.
        SparkEndedError: Spark's JVM ended, for lack of memory for instance.
        LedgerConflictError: Another writer moved the ledger five times in a row.
        ServiceUnavailableError: Kafka or PostgreSQL does not answer at the start. Later outages are
            waited for.
    """
    return _Stream(session, settings, make_scorer, progress, should_stop).run()


class _Stream:
    def __init__(
        self,
        session: Callable[[], "SparkSession"],
        settings: Settings,
        make_scorer: MakeScorer,
        progress: StreamProgress,
        should_stop: Callable[[], bool],
    ) -> None:
        self._session = session
        self._settings = settings
        self._make_scorer = make_scorer
        self._progress = progress
        self._should_stop = should_stop
        self._summary: DrainSummary | None = None
        self._has_advanced = False

    def run(self) -> DrainSummary:
        Retrying(
            retry=retry_if_exception(self._is_outage),
            wait=self._seconds_to_wait,
            before_sleep=self._count_restart,
            sleep=self._sleep,
            stop=lambda _state: self._should_stop(),
            retry_error_callback=lambda _state: None,
        )(self._read)
        assert self._summary is not None, "set before anything that is retried"
        return self._summary

    def _read(self) -> None:
        """Read until `should_stop`; an outage is raised."""
        if self._summary is not None and self._should_stop():
            return
        target = read_topic(self._settings, self._settings.kafka_topic)
        with (
            jvm_end_explained(),
            opened_reader(self._settings, target, self._add) as reader,
        ):
            self._summary = self._summary or DrainSummary(target.topic, start=reader.start)
            if not self._stand_by(reader):
                return
            reader.until_no_conflict(lambda keep: self._follow(reader, keep_payloads=keep))
            self._summary.end = reader.ledger()

    def _stand_by(self, reader: TopicReader) -> bool:
        """Wait until this process is the topic's stream; return False if it should stop instead."""
        has_logged = False
        while not self._should_stop():
            with reader.connection.transaction():
                if take_stream_lock(reader.connection, reader.target.topic):
                    return True
                owner = stream_lock_owner(reader.connection, reader.target.topic)
            if owner and not has_logged:
                logger.info("%s is at work; standing by until it ends", owner)
                has_logged = True
            time.sleep(_POLL_SECONDS)
        return False

    def _follow(self, reader: TopicReader, *, keep_payloads: bool) -> None:
        if keep_payloads:
            # Only for the messages that exist now: the next query does without payloads again.
            reader.read_available(self._session(), keep_payloads=True)
        with self._scoring(reader) as scorer:
            while not self._should_stop():
                with reader.query(
                    self._session(), make_step=scorer, processingTime="0 seconds"
                ) as query:
                    watch = StallWatch(reader.target.topic, self._settings.stream_stall_seconds)
                    while not self._should_stop() and not query.must_restart:
                        query.wait(_POLL_SECONDS)
                        self._progress.report_periodically(reader.position)
                        watch.check(batches=reader.batches, behind=self._progress.lag or 0)

    @contextmanager
    def _scoring(self, reader: TopicReader) -> Iterator[Scorer]:
        with temporary_folder("texts") as folder:
            scorer = self._make_scorer(self._session(), self._settings, folder, logger.info)
            with reader.connection.transaction():
                scorer.prepare(reader.connection)
            yield scorer

    def _add(self, batch: Batch) -> None:
        assert self._summary is not None, "no batch before the reader is open"
        self._summary.add(batch)
        self._progress.add(batch)
        self._has_advanced = True

    def _is_outage(self, error: BaseException) -> bool:
        # Before the first start it is more likely a wrong address.
        return isinstance(error, ServiceUnavailableError) and self._summary is not None

    def _seconds_to_wait(self, state: RetryCallState) -> float:
        if self._has_advanced:
            state.attempt_number, self._has_advanced = 1, False
        return float(_BACKOFF(state))

    def _count_restart(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._progress.add_restart()
        logger.warning("%s; going on from the ledger in %.0f s", error, state.upcoming_sleep)

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._should_stop() and time.monotonic() < end:
            time.sleep(min(_POLL_SECONDS, seconds))
