"""The worker of one source: from its stream and timeline into Kafka.

What belongs here: the order of a run, and what it logs. While the stream is open, a run walks the
timeline from the cursor on: after its start, and after each interruption of the stream. Without a
cursor only `until_caught_up` walks, from the oldest post served, unless `since` names a time.

A run that has connected once is not ended by the server, by a payload or by Kafka: it survives
disconnects, stalls, rate limits and outages, logs them, and tries again. Several sources together
are in `supervisor`.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from mastodon_assets.errors import PlatformError, ServiceUnavailableError
from mastodon_assets.ingest.api.client import OLDEST
from mastodon_assets.ingest.api.errors import RefusedError
from mastodon_assets.ingest.api.event_stream import StreamEvent
from mastodon_assets.ingest.backfill import Backfill
from mastodon_assets.ingest.checkpoint import Checkpoint
from mastodon_assets.ingest.event_queue import Connected, Disconnected, EventQueue, QueueItem
from mastodon_assets.ingest.gap_repair import GapRepair
from mastodon_assets.ingest.handler import EventHandler, IngestSummary
from mastodon_assets.ingest.homes import Homes
from mastodon_assets.ingest.liveness import LivenessMonitor
from mastodon_assets.ingest.metrics import Reading
from mastodon_assets.ingest.recovery.account_view import AccountCompared
from mastodon_assets.ingest.recovery.accounts import AccountsChecked
from mastodon_assets.ingest.recovery.audit import AuditedStatus, AuditEnded, AuditItem
from mastodon_assets.ingest.recovery.gaps import Gap
from mastodon_assets.ingest.recovery.history_walk import (
    HistoryEnded,
    HistoryFailed,
    HistoryPage,
    HistoryStatus,
)
from mastodon_assets.ingest.recovery.home_questions import HomeAnswer
from mastodon_assets.ingest.recovery.poll import PollEnded, PollStarted
from mastodon_assets.ingest.recovery.recheck import Rechecked
from mastodon_assets.ingest.recovery.timeline_walk import (
    GonePosts,
    ListedStatus,
    WalkEnded,
    WalkFailed,
    WalkReachedStream,
    WalkRequest,
)
from mastodon_assets.ingest.removal_brake import RemovalBrake
from mastodon_assets.ingest.source_log import SourceLog
from mastodon_assets.ingest.source_states import SourceState, StateName
from mastodon_assets.ingest.stored_posts import PostAlias
from mastodon_assets.kafka.publisher import FLUSH_SECONDS, Publisher

logger = logging.getLogger(__name__)

_COMMIT_SECONDS = 5
_LOG_SECONDS = 60
_POLL_SECONDS = 0.1
# What Kafka has not acknowledged by then waits for the next commit.
_SHORT_FLUSH_SECONDS = 1
# Of the time left at the end; the rest is for the cursor and the end of the threads.
_LAST_FLUSH_SHARE = 0.5
# Caught up means that the timeline is read to its end and the stream is quiet. A busy stream is
# never quiet: it gets this time to send what happened before.
_QUIET_SECONDS = 1
_LONGEST_DRAIN_SECONDS = 5
_RECONNECTS_WHEN_CATCHING_UP = 5
_EMPTY = (
    "the timeline is empty, though there were posts before: nothing can be read from it; see:"
    " mastodon-assets doctor"
)
# Half an hour at ten posts per second; a walk that lists them again publishes nothing.
_STORED_POSTS = 20_000


@dataclass(frozen=True)
class Bounds:
    """How far back a run reads, whether it ends when it has caught up, or waits for a token."""

    until_caught_up: bool
    since: datetime | None
    waits_for_token: bool = False


class SourceWorker:
    """The loop of one run of one source."""

    def __init__(
        self,
        queue: EventQueue,
        handler: EventHandler,
        publisher: Publisher,
        checkpoint: Checkpoint,
        brake: RemovalBrake,
        *,
        source: str,
        bounds: Bounds,
        account_filters: str | None = None,
        homes: Homes | None = None,
    ) -> None:
        self._homes = homes
        self._answered: list[PostAlias] = []
        self._queue = queue
        self._handler = handler
        self._publisher = publisher
        self._checkpoint = checkpoint
        self._brake = brake
        self._source = source
        self._until_caught_up = bounds.until_caught_up
        name = f"{handler.summary.instance}/{source}"
        self._log = SourceLog(logger, name)
        from_oldest = bounds.until_caught_up and bounds.since is None
        self._gap_repair = GapRepair(
            queue, handler, checkpoint, brake, name, from_oldest=from_oldest
        )
        self._backfill = Backfill(queue, handler, checkpoint, name, since=bounds.since)
        last = checkpoint.last_state
        self._liveness = LivenessMonitor(
            last_post_at=None if last is None else last.last_post_at,
            longest_pause=None if last is None else last.longest_pause,
        )
        self._anomaly: str | None = None
        self._account_filters = account_filters
        self._rechecked: str | None = None
        self._accounts_checked: str | None = None
        self._unseen: str | None = None
        self._connections = self._disconnections = 0
        self._is_connected = False
        self._is_paused = False
        self._audited = self._not_streamed = 0
        self._audit_gaps: dict[datetime, Gap] = {}
        self._is_polling = False
        self._is_poll_pending = False
        self._logged_no_stream = ""
        self._reader: str | None = None
        self._empty_timeline: str | None = None
        self._last_failure: Disconnected | None = None
        self._last_write_error: str | None = None
        self._event_at: datetime | None = None
        self._walk_ended_at = self._last_item_at = self._committed_at = time.monotonic()
        self._minute = _Minute()

    @property
    def summary(self) -> IngestSummary:
        """The counts so far."""
        return self._handler.summary

    @property
    def has_connected(self) -> bool:
        """Whether the stream was open once; failures after that are waited out."""
        return self._connections > 0

    def run(self, is_over: Callable[[], bool], seconds_left: Callable[[], float]) -> None:
        """Handle items until one of the ends is reached, then commit.

        Args:
            is_over: Asked before each item.
            seconds_left: The time for the end; Kafka gets half of it to acknowledge.

        Raises:
            ServiceUnavailableError: The run cannot go on; what was handled before is committed.
        """
        try:
            for status_id, edited_at in reversed(self._checkpoint.stored_posts(_STORED_POSTS)):
                self._handler.remember(status_id, edited_at)
            while not is_over():
                if self._can_publish():
                    item = self._queue.next(_POLL_SECONDS)
                    if item is not None:
                        self._handle(item)
                    elif self._until_caught_up and self._has_caught_up():
                        return
                    self._gap_repair.try_again_in_time()
                    self._backfill.try_again_in_time()
                self._commit_now_and_then()
                self._log_now_and_then()
        finally:
            with suppress(PlatformError):
                # Otherwise it is done when the accounts are seen again.
                self._remove_posts_of_refusing()
            self._checkpoint.commit(min(FLUSH_SECONDS, _LAST_FLUSH_SHARE * seconds_left()))
            self._record(self._save_homes)
            self._record(lambda: self._checkpoint.record_state(self._last_state()))

    def reading(self) -> Reading:
        """Return the present metrics; may be called from any thread."""
        summary = self._handler.summary
        gaps = dict(self._checkpoint.closed_gaps)
        gaps["open"] = len(self._checkpoint.open_gaps)
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
            is_refused=self._is_refused(),
            seconds_since_last_bytes=self._queue.seconds_since_last_bytes(),
            events_waiting=self._queue.waiting(),
            messages_in_flight=self._publisher.in_flight(),
            lag_seconds=self._lag(),
            gaps=gaps,
            not_streamed=self._not_streamed,
            is_suspicious=self._brake.reason is not None,
        )

    def _can_publish(self) -> bool:
        """Return whether Kafka takes messages; while it is away the stream is closed.

        Raises:
            ServiceUnavailableError: Kafka is away and this run should not wait for it.
        """
        if self._publisher.is_stuck():
            if self._until_caught_up:
                raise self._publisher.unavailable("no acknowledgement")
            if not self._is_paused:
                self._is_paused = True
                self._queue.pause()
                self._gap_repair.open_gap(datetime.now(UTC), "Kafka away")
                self._log.warning(
                    "Kafka takes no messages (%s): reading pauses until it does",
                    self._publisher.failure,
                )
                self._record_state()
            self._publisher.wait(_POLL_SECONDS)
            return False
        if self._is_paused:
            self._is_paused = False
            self._queue.resume()
            self._log.info("Kafka takes messages again: reading continues")
        if not self._publisher.has_room():
            self._publisher.wait(_POLL_SECONDS)
            return False
        return True

    def _handle(self, item: QueueItem) -> None:
        match item:
            case StreamEvent():
                self._handle_event(item)
            case Connected():
                self._handle_connected(item)
            case Disconnected():
                self._handle_disconnected(item)
            case ListedStatus() | GonePosts() | WalkReachedStream():
                if self._is_polling and isinstance(item, ListedStatus):
                    self._liveness.note_post(item.received_at)
                self._gap_repair.handle(item)
            case WalkEnded():
                self._walk_ended_at = time.monotonic()
                self._gap_repair.end(item)
            case WalkFailed():
                if self._until_caught_up:
                    raise item.error
                self._gap_repair.fail(item.error)
            case (
                AccountCompared()
                | HomeAnswer()
                | AccountsChecked()
                | PollStarted()
                | PollEnded()
                | Rechecked()
                | AuditedStatus()
                | AuditEnded()
            ):
                self._handle_check(item)
            case HistoryFailed() if self._until_caught_up:
                raise item.error
            case HistoryStatus() | HistoryPage() | HistoryEnded() | HistoryFailed():
                self._walk_ended_at = time.monotonic()
                self._backfill.handle(item)
        self._last_item_at = time.monotonic()

    def _handle_check(
        self,
        item: AccountCompared
        | HomeAnswer
        | AccountsChecked
        | PollStarted
        | PollEnded
        | Rechecked
        | AuditItem,
    ) -> None:
        """Handle an item of a poll, an audit or another check."""
        match item:
            case AccountCompared():
                self._handle_compared(item)
            case HomeAnswer():
                self._handle_home_answer(item)
            case AccountsChecked():
                self._record(lambda: self._handle_accounts_checked(item))
            case PollStarted():
                self._handle_poll_started(item)
            case PollEnded():
                self._is_poll_pending = False
                self._gap_repair.end_poll(item)
                self._note_timeline(is_empty=item.newest is None)
                self._backfill.begin()
            case Rechecked():
                self._rechecked = str(item)
            case AuditedStatus():
                self._handle_audited(item)
            case AuditEnded():
                self._handle_audit_ended(item)

    def _handle_event(self, event: StreamEvent) -> None:
        self._event_at = event.received_at
        status_id = self._handler.handle_event(event)
        if status_id is None:
            self._liveness.note_other(event.received_at, is_delete=event.name == "delete")
        else:
            self._liveness.note_post(event.received_at)
            self._gap_repair.note_streamed(status_id)
        self._event_at = None

    def _handle_connected(self, connected: Connected) -> None:
        self._connections += 1
        self._is_connected = True
        self._is_polling = False
        self._liveness.connected(connected.at)
        request = self._gap_repair.end_gap(connected.at)
        self._backfill.begin()
        self._reader = f"read by {connected.reader}"
        again = " again" if self._connections > 1 else ""
        self._log.info(
            "connected%s by %s, %s",
            again,
            connected.reader,
            _request_text(request, self._gap_repair.is_walking),
        )
        self._record_state()

    def _handle_poll_started(self, started: PollStarted) -> None:
        self._connections += 1
        self._is_connected = self._is_polling = self._is_poll_pending = True
        self._reader = f"polling the timeline: {started.reason}"
        self._gap_repair.begin_polling(started.at)
        if started.reason != self._logged_no_stream:
            self._logged_no_stream = started.reason
            self._log.info(
                "connected; polling the timeline: %s; a stream is looked for again in a day",
                started.reason,
            )
        self._record_state()

    def _note_timeline(self, *, is_empty: bool) -> None:
        """Log once that a timeline has become empty, as on a server under repair."""
        if not is_empty:
            self._empty_timeline = None
        elif self._empty_timeline is None and self._liveness.last_post_at is not None:
            self._empty_timeline = _EMPTY
            self._log.warning("%s", _EMPTY)

    def _handle_compared(self, compared: AccountCompared) -> None:
        if compared.is_filtered:
            self._unseen = str(compared)
            self._log.warning("%s", compared)
        else:
            self._unseen = None

    def _handle_home_answer(self, answer: HomeAnswer) -> None:
        if not self._handler.handle_home_answer(
            answer.status_id, answer.status, answer.received_at
        ):
            self._answered.append(PostAlias(self.summary.instance, answer.status_id))

    def _handle_audited(self, item: AuditedStatus) -> None:
        summary = self._handler.summary
        published = summary.upserts
        self._handler.handle_listed(item.status, item.received_at)
        self._audited += summary.upserts - published

    def _handle_audit_ended(self, audit: AuditEnded) -> None:
        published, self._audited = self._audited, 0
        self._not_streamed += audit.missing
        gap = self._audit_gaps.pop(audit.since, None)
        failure = None
        if not audit.is_complete:
            failure = "the rate limits did not allow to check all posts"
            if audit.share is not None:
                failure += f"; not sent: {audit.share}"
            later = "; it goes on later" if audit.goes_on else ""
            self._log.warning("audit since %s: %s%s", f"{audit.since:%H:%M}Z", failure, later)
        self._note_timeline(is_empty=audit.is_empty)
        if audit.missing:
            self._log.warning(
                "audit: the stream did not send %s of %s posts that the timeline lists;"
                " %s of them published",
                audit.missing,
                audit.checked,
                published,
            )
        is_left = audit.goes_on and audit.share is None
        if gap is not None or audit.missing or is_left:
            gap = gap or Gap(audit.since, "not_streamed", None, None, audit.until)
            gap.reason, gap.from_id, gap.to_id = "not_streamed", audit.oldest, audit.newest
            gap.recovered_count += published
            self._checkpoint.close_gaps([gap], failure, are_posts_missing=False)
            if audit.goes_on:
                self._audit_gaps[audit.since] = gap

    def _handle_disconnected(self, disconnected: Disconnected) -> None:
        self._is_connected = False
        self._last_failure = disconnected
        self._liveness.disconnected()
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
            self._log.warning(
                "%s: %s; reconnecting in %.0f s",
                disconnected.reason,
                error,
                disconnected.retry_seconds,
            )

    def _has_caught_up(self) -> bool:
        is_reading = self._gap_repair.is_walking or self._is_poll_pending
        if is_reading or self._backfill.is_pending or not self._is_connected:
            return False
        if self._is_polling:
            return True
        now = time.monotonic()
        return (
            now - self._last_item_at >= _QUIET_SECONDS
            or now - self._walk_ended_at >= _LONGEST_DRAIN_SECONDS
        )

    def _commit_now_and_then(self) -> None:
        began_at = time.monotonic()
        if began_at - self._committed_at >= _COMMIT_SECONDS:
            # While Kafka is away nothing can be committed, but the state is recorded.
            if not self._is_paused:
                self._check_liveness()
                self._record(self._remove_posts_of_refusing)
                self._record(lambda: self._checkpoint.commit(_SHORT_FLUSH_SECONDS))
            self._record(self._save_homes)
            self._record_state()
            # Events wait meanwhile: a database that does not answer gets a quarter of the time.
            took = time.monotonic() - began_at
            self._committed_at = time.monotonic() + 3 * took

    def _save_homes(self) -> None:
        if self._homes is not None:
            self._homes.save()
            if self._answered:
                self._homes.close_questions(self._answered)
                self._answered.clear()

    def _remove_posts_of_refusing(self) -> None:
        """Publish deletes of the stored posts of accounts that were seen to refuse."""
        accounts = self._handler.refusing_accounts()
        if accounts:
            seen = [*accounts, *self._handler.judged_accounts()]
            judged = self._checkpoint.accounts_with_posts(seen)
            judged |= self._handler.accounts_published(seen)
            self._remove_posts_of(accounts, asked=len(judged), going=len(judged & {*accounts}))

    def _remove_posts_of(self, accounts: Sequence[str], *, asked: int, going: int) -> None:
        """Publish deletes of the stored posts of accounts, unless too many accounts would go."""
        stored = self._checkpoint.posts_of_accounts(accounts, self._handler.own_domain)
        posts = list(dict.fromkeys([*stored, *self._handler.published_posts(accounts)]))
        if posts:
            own = [post.status_id for post in posts if post.instance == self.summary.instance]
            with self._brake.reported(self._log):
                self._brake.passed(own, asked, accounts=going)
            if self._brake.reason is not None:
                posts = []
        # Held ones are looked for again later as well.
        self._handler.handle_refused(accounts, posts, datetime.now(UTC))
        if posts:
            self._log.info(
                "%s stored posts of accounts that refuse now, or are gone, are removed", len(posts)
            )

    def _handle_accounts_checked(self, checked: AccountsChecked) -> None:
        self._accounts_checked = str(checked)
        # Before enough were asked, nobody can say whether many are gone at once.
        if checked.gone and checked.checked >= min(checked.known, self._brake.fewest):
            self._remove_posts_of(checked.gone, asked=checked.checked, going=len(checked.gone))

    def _check_liveness(self) -> None:
        anomaly = self._liveness.anomaly(datetime.now(UTC))
        if anomaly is not None and self._anomaly is None:
            self._log.warning("%s", anomaly)
        elif anomaly is None and self._anomaly is not None and self._is_connected:
            self._log.info("posts arrive again")
        self._anomaly = anomaly

    def _record_state(self) -> None:
        self._record(self._checkpoint.save_gaps)
        self._record(lambda: self._checkpoint.record_state(self._present_state()))

    def _record(self, write: Callable[[], None]) -> None:
        """Write, or log the failure once and leave it to the next attempt."""
        try:
            write()
        except ServiceUnavailableError as error:
            if str(error) != self._last_write_error:
                self._log.warning("%s; this run continues and tries again", error)
            self._last_write_error = str(error)
        else:
            self._last_write_error = None

    def _present_state(self) -> SourceState:
        if self._is_paused:
            return self._state("paused", f"Kafka takes no messages ({self._publisher.failure})")
        if not self._is_connected and self._last_failure is not None:
            failure = self._last_failure
            name: StateName = "refused" if self._is_refused() else "disconnected"
            return self._state(name, f"{failure.reason}: {failure.error}")
        rechecked = self._rechecked if self._is_polling else None
        notes = (
            self._reader,
            self._anomaly,
            self._empty_timeline,
            self._account_filters,
            self._unseen,
            rechecked,
            self._accounts_checked,
        )
        detail = "; ".join(filter(None, notes)) or None
        return self._state("silent" if self._anomaly else "connected", detail)

    def _is_refused(self) -> bool:
        """Return whether the server refuses the token at present."""
        failure = None if self._is_connected else self._last_failure
        error = None if failure is None else failure.error
        return isinstance(error, RefusedError) and error.is_of_token

    def _last_state(self) -> SourceState:
        """Return `stopped`, or why the source could not be started."""
        return self._state("stopped", None) if self.has_connected else self._present_state()

    def _state(self, name: StateName, detail: str | None) -> SourceState:
        liveness = self._liveness
        return SourceState(
            name,
            detail,
            liveness.last_event_at,
            liveness.last_post_at,
            liveness.longest_pause,
        )

    def _reconnects(self) -> int:
        return max(0, self._connections - 1)

    def _lag(self) -> float:
        """Return the age of the oldest event that is not handled or not acknowledged yet."""
        oldest = self._event_at or self._queue.oldest_event_at()
        waited = 0.0 if oldest is None else (datetime.now(UTC) - oldest).total_seconds()
        return max(waited, self._publisher.seconds_unacknowledged())

    def _log_now_and_then(self) -> None:
        summary = self._handler.summary
        rate = self._minute.rate_when_over(summary.received)
        if rate is None:
            return
        self._log.info(
            "%.1f events/s; %s; lag %.1f s, %s reconnects, %s, %s waiting",
            rate,
            counts_text(summary),
            self._lag(),
            self._reconnects(),
            self._connection_text(),
            self._queue.waiting(),
        )

    def _connection_text(self) -> str:
        silent = self._queue.seconds_since_last_bytes()
        if silent is not None:
            return f"last bytes {silent:.0f} s ago"
        return "polling" if self._is_polling and self._is_connected else "not connected"


class _Minute:
    """The events per second since the last log message about them."""

    def __init__(self) -> None:
        self._began_at = time.monotonic()
        self._received = 0

    def rate_when_over(self, received: int) -> float | None:
        seconds = time.monotonic() - self._began_at
        if seconds < _LOG_SECONDS:
            return None
        rate = (received - self._received) / max(seconds, 0.001)
        self._began_at, self._received = time.monotonic(), received
        return rate


def counts_text(summary: IngestSummary) -> str:
    """Return the counts of a run so far, in one line."""
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
        return "a gap is being backfilled" if is_walking else "reading the stream from now on"
    if request.start == OLDEST:
        return "backfilling from the oldest post served, and reading the stream"
    return "backfilling from the last known post, and reading the stream"
