"""One source, read: from its stream and timeline into Kafka.

What belongs here: the order of a run, and what it tells. A run walks the timeline from the cursor
on, beside the open stream, after its start and after each time in which nobody read the stream;
without a cursor only `until_caught_up` walks, from the oldest post served, unless `since` says how
far back to go. A run whose first connection succeeds is not ended by the server, by a payload or by
Kafka: it waits, tries again and tells. Several runs beside each other are the matter of `ingest`.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest.api.client import OLDEST
from mastodon_assets.ingest.api.errors import RefusedError
from mastodon_assets.ingest.api.event_stream import StreamEvent
from mastodon_assets.ingest.backfill import Backfill
from mastodon_assets.ingest.checkpoint import Progress
from mastodon_assets.ingest.event_queue import Connected, Disconnected, EventQueue, QueueItem
from mastodon_assets.ingest.gap_repair import GapRepair
from mastodon_assets.ingest.handler import EventHandler, IngestSummary
from mastodon_assets.ingest.liveness import LivenessMonitor
from mastodon_assets.ingest.metrics import Reading
from mastodon_assets.ingest.recovery.history_walk import (
    HistoryEnded,
    HistoryFailed,
    HistoryPage,
    HistoryStatus,
)
from mastodon_assets.ingest.recovery.timeline_walk import (
    GoneStatus,
    ListedStatus,
    WalkEnded,
    WalkFailed,
    WalkReachedStream,
    WalkRequest,
)
from mastodon_assets.ingest.source_states import SourceState, StateName
from mastodon_assets.kafka.publisher import FLUSH_SECONDS, Publisher

Report = Callable[[str], None]

_COMMIT_SECONDS = 5
_REPORT_SECONDS = 60
_POLL_SECONDS = 0.1
# What Kafka does not acknowledge in this time it is asked for at the next commit.
_SHORT_FLUSH_SECONDS = 1
# Of the time left at the end; then come the cursor and the end of the readers.
_LAST_FLUSH_SHARE = 0.5
# Caught up: the timeline is at its end and the stream is quiet, or has had its time to tell what
# happened before and has nothing waiting (a busy server is never quiet).
_QUIET_SECONDS = 1
_LONGEST_DRAIN_SECONDS = 5
_RECONNECTS_WHEN_CATCHING_UP = 5
# Those of half an hour on a server with ten posts a second: what a walk lists of them is no news.
_STORED_POSTS = 20_000


@dataclass(frozen=True)
class Bounds:
    """How far back a run goes, and whether it ends when it has caught up."""

    until_caught_up: bool
    since: datetime | None


class SourceWorker:
    """The loop of a run."""

    def __init__(
        self,
        queue: EventQueue,
        handler: EventHandler,
        publisher: Publisher,
        progress: Progress,
        *,
        source: str,
        bounds: Bounds,
        report: Report,
    ) -> None:
        self._queue = queue
        self._handler = handler
        self._publisher = publisher
        self._progress = progress
        self._source = source
        self._until_caught_up = bounds.until_caught_up
        self._report = report
        from_oldest = bounds.until_caught_up and bounds.since is None
        self._gap_repair = GapRepair(queue, handler, progress, from_oldest=from_oldest)
        self._backfill = Backfill(queue, handler, progress, since=bounds.since, report=report)
        last = progress.last_state
        self._watch = LivenessMonitor(
            last_post_at=None if last is None else last.last_post_at,
            longest_pause=None if last is None else last.longest_pause,
        )
        self._anomaly: str | None = None
        self._connections = self._disconnections = 0
        self._is_connected = False
        self._is_paused = False
        self._last_failure: Disconnected | None = None
        self._complaint: str | None = None
        self._lag_seconds = 0.0
        self._walk_ended_at = self._last_arrival_at = self._committed_at = time.monotonic()
        self._minute = _Minute()

    @property
    def summary(self) -> IngestSummary:
        return self._handler.summary

    @property
    def has_connected(self) -> bool:
        """The server has let this run read; what fails from now on is waited for."""
        return self._connections > 0

    def receive(self, is_over: Callable[[], bool], seconds_left: Callable[[], float]) -> None:
        """Take arrivals until one of the ends is reached, then commit.

        Kafka gets half of `seconds_left` to acknowledge what it has not.
        Raises: ServiceUnavailableError; what was taken before is committed first.
        """
        try:
            for status_id, edited_at in reversed(self._progress.stored_posts(_STORED_POSTS)):
                self._handler.remember(status_id, edited_at)
            while not is_over():
                if self._can_publish():
                    item = self._queue.next(_POLL_SECONDS)
                    if item is not None:
                        self._take(item)
                    elif self._until_caught_up and self._has_caught_up():
                        return
                    self._gap_repair.try_again_in_time()
                    self._backfill.try_again_in_time()
                self._commit_now_and_then()
                self._report_now_and_then()
        finally:
            self._progress.commit(min(FLUSH_SECONDS, _LAST_FLUSH_SHARE * seconds_left()))
            self._record(lambda: self._progress.tell(self._last_state()))

    def reading(self) -> Reading:
        """The numbers of this moment; may be asked for by any thread."""
        summary = self._handler.summary
        gaps = dict(self._progress.closed_gaps)
        gaps["open"] = len(self._progress.open_gaps)
        return Reading(
            instance=summary.instance,
            source=self._source,
            received=summary.received,
            published={"upsert": summary.upserts, "delete": summary.deletes},
            duplicates=summary.duplicates,
            withheld=dict(summary.withheld),
            dropped=dict(summary.dropped),
            errors=dict(summary.errors),
            reconnects=self._reconnects(),
            is_connected=self._is_connected,
            is_silent=self._anomaly is not None,
            seconds_since_heard=self._queue.seconds_since_heard(),
            arrivals_waiting=self._queue.waiting(),
            messages_in_flight=self._publisher.in_flight(),
            lag_seconds=self._lag(),
            gaps=gaps,
        )

    def _can_publish(self) -> bool:
        """While Kafka is away the stream is closed, and what is read already waits.

        Raises: ServiceUnavailableError where this run is not to wait for Kafka.
        """
        if self._publisher.is_stuck():
            if self._until_caught_up:
                raise self._publisher.unavailable("no acknowledgement")
            if not self._is_paused:
                self._is_paused = True
                self._queue.pause()
                self._gap_repair.open_gap(datetime.now(UTC), "Kafka away")
                self._report("Kafka takes no messages: reading pauses until it does")
                self._record_state()
            self._publisher.wait(_POLL_SECONDS)
            return False
        if self._is_paused:
            self._is_paused = False
            self._queue.resume()
            self._report("Kafka takes messages again: reading goes on")
        if not self._publisher.has_room():
            self._publisher.wait(_POLL_SECONDS)
            return False
        return True

    def _take(self, item: QueueItem) -> None:
        match item:
            case StreamEvent():
                self._handle_event(item)
            case Connected():
                self._handle_connected(item)
            case Disconnected():
                self._handle_disconnected(item)
            case ListedStatus() | GoneStatus() | WalkReachedStream():
                self._gap_repair.take(item)
            case WalkEnded():
                self._walk_ended_at = time.monotonic()
                self._report(self._gap_repair.end(item.failure))
            case WalkFailed():
                if self._until_caught_up:
                    raise item.error
                self._report(self._gap_repair.fail(item.error))
            case HistoryFailed() if self._until_caught_up:
                raise item.error
            case HistoryStatus() | HistoryPage() | HistoryEnded() | HistoryFailed():
                self._walk_ended_at = time.monotonic()
                self._backfill.take(item)
        self._last_arrival_at = time.monotonic()

    def _handle_event(self, event: StreamEvent) -> None:
        status_id = self._handler.handle_event(event)
        if status_id is None:
            self._watch.note_other(event.received_at, is_delete=event.name == "delete")
        else:
            self._watch.note_post(event.received_at)
            self._gap_repair.note_streamed(status_id)
        self._lag_seconds = (datetime.now(UTC) - event.received_at).total_seconds()

    def _handle_connected(self, connected: Connected) -> None:
        self._connections += 1
        self._is_connected = True
        self._watch.connected(connected.at)
        request = self._gap_repair.end_gap(connected.at)
        self._backfill.begin()
        again = " again" if self._connections > 1 else ""
        self._report(f"connected{again}, {_request_text(request, self._gap_repair.is_walking)}")
        self._record_state()

    def _handle_disconnected(self, disconnected: Disconnected) -> None:
        self._is_connected = False
        self._last_failure = disconnected
        self._watch.disconnected()
        self._disconnections += 1
        error = disconnected.error
        is_last = self._until_caught_up and (
            self._disconnections > _RECONNECTS_WHEN_CATCHING_UP
            or (isinstance(error, RefusedError) and error.is_of_token)
        )
        if self._connections == 0 or is_last:
            raise error
        self._gap_repair.open_gap(disconnected.at, disconnected.reason)
        self._record_state()
        if not self._is_paused:
            seconds = disconnected.retry_seconds
            self._report(f"{disconnected.reason}: {error}; connecting again in {seconds:.0f} s")

    def _has_caught_up(self) -> bool:
        if self._gap_repair.is_walking or self._backfill.is_wanted or not self._is_connected:
            return False
        now = time.monotonic()
        return (
            now - self._last_arrival_at >= _QUIET_SECONDS
            or now - self._walk_ended_at >= _LONGEST_DRAIN_SECONDS
        )

    def _commit_now_and_then(self) -> None:
        if time.monotonic() - self._committed_at >= _COMMIT_SECONDS:
            # While Kafka is away there is nothing to commit, but to tell that the run goes on.
            if not self._is_paused:
                self._check_liveness()
                self._record(lambda: self._progress.commit(_SHORT_FLUSH_SECONDS))
            self._record_state()
            self._committed_at = time.monotonic()

    def _check_liveness(self) -> None:
        anomaly = self._watch.anomaly(datetime.now(UTC))
        if anomaly is not None and self._anomaly is None:
            self._report(anomaly)
        elif anomaly is None and self._anomaly is not None and self._is_connected:
            self._report("posts arrive again")
        self._anomaly = anomaly

    def _record_state(self) -> None:
        self._record(self._progress.save_gaps)
        self._record(lambda: self._progress.tell(self._present_state()))

    def _record(self, write: Callable[[], None]) -> None:
        """Where it cannot be written now it is later; the end of the run tells if it never was."""
        try:
            write()
        except ServiceUnavailableError as error:
            if str(error) != self._complaint:
                self._report(f"{error}; this run goes on and tries again")
            self._complaint = str(error)
        else:
            self._complaint = None

    def _present_state(self) -> SourceState:
        if self._is_paused:
            return self._state("paused", "Kafka takes no messages")
        if not self._is_connected and self._last_failure is not None:
            failure = self._last_failure
            is_refused = isinstance(failure.error, RefusedError) and failure.error.is_of_token
            name: StateName = "refused" if is_refused else "disconnected"
            return self._state(name, f"{failure.reason}: {failure.error}")
        return self._state("silent" if self._anomaly else "connected", self._anomaly)

    def _last_state(self) -> SourceState:
        """Of a source that could not be begun, why."""
        return self._state("stopped", None) if self.has_connected else self._present_state()

    def _state(self, name: StateName, detail: str | None) -> SourceState:
        watch = self._watch
        return SourceState(
            name, detail, watch.last_event_at, watch.last_post_at, watch.longest_pause
        )

    def _reconnects(self) -> int:
        return max(0, self._connections - 1)

    def _lag(self) -> float:
        """How old the last event was when it was taken, and how long Kafka owes an answer."""
        return self._lag_seconds + self._publisher.seconds_unacknowledged()

    def _report_now_and_then(self) -> None:
        summary = self._handler.summary
        rate = self._minute.rate_when_over(summary.received)
        if rate is None:
            return
        heard = self._queue.seconds_since_heard()
        self._report(
            f"{rate:.1f} events/s; {counts_text(summary)}; lag {self._lag():.1f} s,"
            f" {self._reconnects()} reconnects,"
            f" {'not connected' if heard is None else f'last heard from {heard:.0f} s ago'},"
            f" {self._queue.waiting()} waiting"
        )


class _Minute:
    """Events a second since the last line about them."""

    def __init__(self) -> None:
        self._began_at = time.monotonic()
        self._received = 0

    def rate_when_over(self, received: int) -> float | None:
        seconds = time.monotonic() - self._began_at
        if seconds < _REPORT_SECONDS:
            return None
        rate = (received - self._received) / max(seconds, 0.001)
        self._began_at, self._received = time.monotonic(), received
        return rate


def counts_text(summary: IngestSummary) -> str:
    """The counts of a run so far, in a line."""
    return (
        f"{summary.received} received, {summary.upserts} published, {summary.deletes} deleted,"
        f" {_by_reason(summary.withheld)} withheld, {_by_reason(summary.dropped)} dropped,"
        f" {_by_reason(summary.errors)} rejected"
    )


def _by_reason(counts: Counter[str]) -> str:
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
    return f"{counts.total()} ({reasons})" if reasons else "0"


def _request_text(request: WalkRequest | None, is_walking: bool) -> str:
    if request is None:
        return "the timeline is being read" if is_walking else "reading the stream from now on"
    if request.start == OLDEST:
        return "reading the timeline from the oldest post served, and the stream"
    return "reading the timeline from the last post known, and the stream"
