"""The process that brings each message into the tables as it comes, and outlives cuts.

What belongs here: when the query begins anew, and when the process ends. A cut of Kafka or
PostgreSQL does not end it; lost data, a missing topic and a mistake of ours do.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.kafka.topics import read_topic
from mastodon_assets.stream.drain import DrainSummary
from mastodon_assets.stream.metrics import StreamProgress
from mastodon_assets.stream.query import Addition, Batch, Reader, opened_reader, staging_folder
from mastodon_assets.stream.stream_lock import stream_lock_owner, take_stream_lock

if TYPE_CHECKING:
    import pyarrow as pa
    from psycopg import Connection
    from pyspark.sql import SparkSession

_POLL_SECONDS = 1
_LONGEST_WAIT_SECONDS = 30
_BACKOFF = wait_random_exponential(multiplier=1, max=_LONGEST_WAIT_SECONDS)


class Scorer(Protocol):
    """Scores the rows of a micro-batch; see `query.Derive`."""

    def prepare(self, connection: "Connection[Any]") -> None:
        """Load what the first batch would otherwise wait for."""

    def __call__(self, rows: "pa.Table") -> Addition:
        """Score the rows; what is returned writes the scores in the batch's transaction."""


# Made once per query, with a folder of its own for temporary files.
MakeScorer = Callable[["SparkSession", Settings, Path, Callable[[str], None]], Scorer]


def stream(
    session: Callable[[], "SparkSession"],
    settings: Settings,
    *,
    make_scorer: MakeScorer,
    report: Callable[[str], None],
    progress: StreamProgress,
    should_stop: Callable[[], bool],
) -> DrainSummary:
    """Bring each message into the tables as it comes, until `should_stop`.

    A batch that is being written then is finished first. Where another stream process is at work
    on the topic this one stands by and takes over when that one ends.

    Raises: DataLossError, TopicMissingError, LedgerConflictError; ServiceUnavailableError only
    where Kafka or PostgreSQL do not answer at the start.
    """
    return _Stream(session, settings, make_scorer, report, progress, should_stop).run()


class _Stream:
    def __init__(
        self,
        session: Callable[[], "SparkSession"],
        settings: Settings,
        make_scorer: MakeScorer,
        report: Callable[[str], None],
        progress: StreamProgress,
        should_stop: Callable[[], bool],
    ) -> None:
        self._session = session
        self._settings = settings
        self._make_scorer = make_scorer
        self._report = report
        self._progress = progress
        self._should_stop = should_stop
        self._summary: DrainSummary | None = None
        self._has_advanced = False

    def run(self) -> DrainSummary:
        Retrying(
            retry=retry_if_exception(self._is_a_cut),
            wait=self._seconds_to_wait,
            before_sleep=self._report_disconnect,
            sleep=self._sleep,
            stop=lambda _state: self._should_stop(),
            retry_error_callback=lambda _state: None,
        )(self._read)
        assert self._summary is not None, "set before anything that is tried again"
        return self._summary

    def _read(self) -> None:
        """Read until `should_stop`; what a cut raises is raised."""
        if self._summary is not None and self._should_stop():
            return
        target = read_topic(self._settings, self._settings.kafka_topic)
        with opened_reader(self._settings, target, self._add) as reader:
            self._summary = self._summary or DrainSummary(target.topic, start=reader.start)
            if not self._stand_by(reader):
                return
            reader.until_no_conflict(lambda keep: self._follow(reader, keep_payloads=keep))
            self._summary.end = reader.ledger()

    def _stand_by(self, reader: Reader) -> bool:
        """Wait until this process is the topic's stream; False where it is to stop instead."""
        has_told = False
        while not self._should_stop():
            with reader.connection.transaction():
                if take_stream_lock(reader.connection, reader.target.topic):
                    return True
                owner = stream_lock_owner(reader.connection, reader.target.topic)
            if owner and not has_told:
                self._report(f"{owner} is at work; standing by until it ends")
                has_told = True
            time.sleep(_POLL_SECONDS)
        return False

    def _follow(self, reader: Reader, *, keep_payloads: bool) -> None:
        if keep_payloads:
            # Only what is there now: the next query does without payloads again.
            with reader.query(self._session(), keep_payloads=True, availableNow=True) as query:
                query.wait()
        with (
            self._scoring(reader) as derive,
            reader.query(self._session(), derive=derive, processingTime="0 seconds") as query,
        ):
            while not self._should_stop():
                query.wait(_POLL_SECONDS)
                self._progress.report_periodically(reader.position)

    @contextmanager
    def _scoring(self, reader: Reader) -> Iterator[Scorer]:
        with staging_folder("mastodon_assets-scoring-") as folder:
            scorer = self._make_scorer(self._session(), self._settings, folder, self._report)
            with reader.connection.transaction():
                scorer.prepare(reader.connection)
            yield scorer

    def _add(self, batch: Batch) -> None:
        assert self._summary is not None, "no batch before the reader is open"
        self._summary.add(batch)
        self._progress.add(batch)
        self._has_advanced = True

    def _is_a_cut(self, error: BaseException) -> bool:
        # At the start it is more likely an address that is wrong.
        return isinstance(error, ServiceUnavailableError) and self._summary is not None

    def _seconds_to_wait(self, state: RetryCallState) -> float:
        if self._has_advanced:
            state.attempt_number, self._has_advanced = 1, False
        return float(_BACKOFF(state))

    def _report_disconnect(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._progress.add_restart()
        self._report(f"{error}; going on from the ledger in {state.upcoming_sleep:.0f} s")

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._should_stop() and time.monotonic() < end:
            time.sleep(min(_POLL_SECONDS, seconds))
