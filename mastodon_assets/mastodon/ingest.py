"""One run of the ingester: from a server's stream and timeline into Kafka.

What belongs here: the order of a run, and when it ends. A run walks the timeline from the cursor
on, beside the open stream, after its start and after each time in which nobody read the stream;
without a cursor only `until_caught_up` walks, from the oldest post served. A run whose first
connection succeeds is not ended by the server, by a payload or by Kafka: it waits, tries again and
tells.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime

from mastodon_assets.errors import ServiceUnavailableError, SettingsError
from mastodon_assets.mastodon.arrivals import (
    Arrival,
    Arrivals,
    Connected,
    Disconnected,
    arriving,
)
from mastodon_assets.mastodon.client import OLDEST, MastodonClient, RefusedError
from mastodon_assets.mastodon.gaps import Gap
from mastodon_assets.mastodon.intake import IngestSummary, Intake
from mastodon_assets.mastodon.progress import Progress, later_id
from mastodon_assets.mastodon.publisher import FLUSH_SECONDS, Publisher, publishing
from mastodon_assets.mastodon.rules import rules_from
from mastodon_assets.mastodon.walk import (
    GoneStatus,
    ListedStatus,
    Route,
    WalkEnded,
    WalkFailed,
    WalkReachedStream,
)
from mastodon_assets.settings import Settings
from mastodon_assets.toots.withdrawn import watched

Report = Callable[[str], None]

_COMMIT_SECONDS = 5
_REPORT_SECONDS = 60
_POLL_SECONDS = 0.1
# A run that is told to stop ends within two seconds; readers take some of them.
_LAST_FLUSH_SECONDS = 1
# Caught up: the timeline is at its end and the stream is quiet, or has had its time to tell what
# happened before and has nothing waiting (a busy server is never quiet).
_QUIET_SECONDS = 1
_LONGEST_DRAIN_SECONDS = 5
_RECONNECTS_WHEN_CATCHING_UP = 5
# A walk that the server does not answer is begun again, seldom and not without end.
_WALKS_OF_A_GAP = 4
_SECONDS_BETWEEN_WALKS = 15 * 60
# Asked for again after a gap, in a hundred requests: most posts that go, go young.
_KNOWN_IDS = 2_000


def ingest(
    settings: Settings,
    *,
    max_events: int | None,
    until_caught_up: bool,
    report: Report,
    should_stop: Callable[[], bool],
) -> IngestSummary:
    """Read the server of the settings into Kafka.

    Ends when `should_stop()` is true, after `max_events` received events (updates, edits, deletes
    and statuses of the timeline, withheld ones included) or, with `until_caught_up`, when the
    timeline is read to its end and the stream has told what it had. At the end everything
    published is acknowledged and the cursor is saved. `report` gets a line a minute, and one for
    whatever goes wrong or is mended.

    Raises: SettingsError, WithdrawnServerError, TopicMissingError, MissingTablesError;
    ServiceUnavailableError where a service does not answer or refuses at the start, where Kafka or
    PostgreSQL are away at the end, and with `until_caught_up` at once, or after five reconnects to
    the stream.
    """
    if settings.mastodon_api_base_url is None:
        raise SettingsError(
            "no Mastodon server is named; set MASTODON_API_BASE_URL to one whose rules allow this"
        )
    client = MastodonClient(settings.mastodon_api_base_url, settings.mastodon_access_token)
    with publishing(settings) as publisher:
        instance = client.instance_domain()
        rules = rules_from(settings)
        report(f"{instance}: {rules}")
        intake = Intake(publisher, instance=instance, rules=rules, withdrawn=watched(settings))
        progress = Progress(settings.postgres_url, publisher, intake.summary)
        with arriving(client) as arrivals:
            run = _Run(
                arrivals,
                intake,
                publisher,
                progress,
                until_caught_up=until_caught_up,
                report=lambda line: report(f"{instance}: {line}"),
            )
            run.receive(max_events, should_stop)
    report(f"{instance}: {_counts_text(intake.summary)}; all acknowledged")
    return intake.summary


class _Run:
    """The loop of a run."""

    def __init__(
        self,
        arrivals: Arrivals,
        intake: Intake,
        publisher: Publisher,
        progress: Progress,
        *,
        until_caught_up: bool,
        report: Report,
    ) -> None:
        self._arrivals = arrivals
        self._intake = intake
        self._publisher = publisher
        self._progress = progress
        self._until_caught_up = until_caught_up
        self._report = report
        self._repairs = _Repairs(arrivals, intake, progress, from_oldest=until_caught_up)
        self._connections = self._disconnections = 0
        self._is_connected = False
        self._is_paused = False
        self._complaint: str | None = None
        self._walk_ended_at = self._last_arrival_at = self._committed_at = time.monotonic()
        self._minute = _Minute()

    def receive(self, max_events: int | None, should_stop: Callable[[], bool]) -> None:
        """Take arrivals until one of the ends is reached, then commit.

        Raises: ServiceUnavailableError; what was taken before is committed first.
        """
        try:
            while not should_stop() and not self._has_received(max_events):
                if self._can_publish():
                    arrival = self._arrivals.next(_POLL_SECONDS)
                    if arrival is not None:
                        self._take(arrival)
                    elif self._until_caught_up and self._has_caught_up():
                        return
                    self._repairs.try_again_in_time()
                    self._commit_now_and_then()
                self._report_now_and_then()
        finally:
            self._progress.commit(_LAST_FLUSH_SECONDS if should_stop() else FLUSH_SECONDS)

    def _can_publish(self) -> bool:
        """While Kafka is away the stream is closed, and what is read already waits.

        Raises: ServiceUnavailableError where this run is not to wait for Kafka.
        """
        if self._publisher.is_stuck():
            if self._until_caught_up:
                raise self._publisher.unavailable("no acknowledgement")
            if not self._is_paused:
                self._is_paused = True
                self._arrivals.pause()
                self._progress.open_gap(datetime.now(UTC), "Kafka away")
                self._report("Kafka takes no messages: reading pauses until it does")
                self._record(self._progress.save_gaps)
            self._publisher.wait(_POLL_SECONDS)
            return False
        if self._is_paused:
            self._is_paused = False
            self._arrivals.resume()
            self._report("Kafka takes messages again: reading goes on")
        if not self._publisher.has_room():
            self._publisher.wait(_POLL_SECONDS)
            return False
        return True

    def _take(self, arrival: Arrival) -> None:
        match arrival:
            case Connected():
                self._take_connected(arrival)
            case Disconnected():
                self._take_disconnected(arrival)
            case ListedStatus() | GoneStatus() | WalkReachedStream():
                self._repairs.take(arrival)
            case WalkEnded():
                self._walk_ended_at = time.monotonic()
                self._report(self._repairs.end(arrival.failure))
            case WalkFailed():
                if self._until_caught_up:
                    raise arrival.error
                self._report(self._repairs.fail(arrival.error))
            case _:
                status_id = self._intake.take_event(arrival)
                if status_id is not None:
                    self._repairs.note_streamed(status_id)
        self._last_arrival_at = time.monotonic()

    def _take_connected(self, connected: Connected) -> None:
        self._connections += 1
        self._is_connected = True
        self._progress.end_gaps(connected.at)
        route = self._repairs.begin()
        again = " again" if self._connections > 1 else ""
        self._report(f"connected{again}, {_route_text(route, self._repairs.is_walking)}")

    def _take_disconnected(self, disconnected: Disconnected) -> None:
        self._is_connected = False
        self._disconnections += 1
        error = disconnected.error
        is_last = self._until_caught_up and (
            self._disconnections > _RECONNECTS_WHEN_CATCHING_UP
            or (isinstance(error, RefusedError) and error.is_of_token)
        )
        if self._connections == 0 or is_last:
            raise error
        self._progress.open_gap(disconnected.at, disconnected.reason)
        self._record(self._progress.save_gaps)
        if not self._is_paused:
            seconds = disconnected.retry_seconds
            self._report(f"{disconnected.reason}: {error}; connecting again in {seconds:.0f} s")

    def _has_received(self, max_events: int | None) -> bool:
        return max_events is not None and self._intake.summary.received >= max_events

    def _has_caught_up(self) -> bool:
        if self._repairs.is_walking or not self._is_connected:
            return False
        now = time.monotonic()
        return (
            now - self._last_arrival_at >= _QUIET_SECONDS
            or now - self._walk_ended_at >= _LONGEST_DRAIN_SECONDS
        )

    def _commit_now_and_then(self) -> None:
        if time.monotonic() - self._committed_at >= _COMMIT_SECONDS:
            self._record(lambda: self._progress.commit(_LAST_FLUSH_SECONDS))
            self._committed_at = time.monotonic()

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

    def _report_now_and_then(self) -> None:
        summary = self._intake.summary
        rate = self._minute.rate_when_over(summary.received)
        if rate is None:
            return
        heard = self._arrivals.seconds_since_heard()
        self._report(
            f"{rate:.1f} events/s; {_counts_text(summary)};"
            f" {max(0, self._connections - 1)} reconnects,"
            f" {'not connected' if heard is None else f'last heard from {heard:.0f} s ago'},"
            f" {self._arrivals.waiting()} waiting"
        )


class _Repairs:
    """Walks for the gaps, one after the other; who may move the cursor meanwhile."""

    def __init__(
        self, arrivals: Arrivals, intake: Intake, progress: Progress, *, from_oldest: bool
    ) -> None:
        self._arrivals = arrivals
        self._intake = intake
        self._progress = progress
        self._from_oldest = from_oldest
        self._walked: list[Gap] = []
        self._is_behind_stream = False
        self._try_again_at: float | None = None
        self._failures = 0
        self._recovered = 0
        self._newest_streamed: str | None = None
        self._has_walked = False
        self.is_walking = False

    def begin(self) -> Route | None:
        """Walk for all gaps that wait; None where nothing waits or a walk is under way.

        A gap before which nothing is known cannot be walked.
        """
        if self.is_walking or any(gap.ended_at is None for gap in self._progress.open_gaps):
            return None
        start = self._progress.position
        if start is None and self._from_oldest:
            start = OLDEST
        if start is None:
            self._is_behind_stream = True
            self._close(self._progress.open_gaps, "nothing is known from before it")
            return None
        if not self._progress.open_gaps and (start != OLDEST or self._has_walked):
            return None
        route = Route(start, [] if start == OLDEST else self._known_ids())
        self._walked = list(self._progress.open_gaps)
        self.is_walking = self._is_behind_stream = True
        self._try_again_at = None
        self._recovered = 0
        self._newest_streamed = None
        self._arrivals.walk(route)
        return route

    def note_streamed(self, status_id: str) -> None:
        """A post came by the stream.

        While something before it is missing, a cursor from there would leave that out.
        """
        for gap in self._progress.open_gaps:
            if gap.ended_at is not None and gap.to_id is None:
                gap.to_id = status_id
        if self.is_walking:
            self._arrivals.note_streamed(status_id)
            self._newest_streamed = later_id(self._newest_streamed, status_id)
        if not self._is_behind_stream and not self._is_gap_waiting():
            self._progress.move_to(later_id(self._progress.position, status_id))

    def take(self, arrival: ListedStatus | GoneStatus | WalkReachedStream) -> None:
        """What a walk brings."""
        summary = self._intake.summary
        published = summary.upserts + summary.deletes
        if isinstance(arrival, ListedStatus):
            self._intake.take_listed(arrival.status, arrival.received_at)
            if arrival.cursor is not None:
                self._progress.move_to(arrival.cursor)
        elif isinstance(arrival, GoneStatus):
            self._intake.take_gone(arrival.status_id, arrival.received_at)
        else:
            self._is_behind_stream = False
            # The walk of a gap ends where the stream is, not at the timeline's end.
            if self._walked and self._newest_streamed and not self._is_gap_waiting():
                position = later_id(self._progress.position, self._newest_streamed)
                self._progress.move_to(position)
        self._recovered += summary.upserts + summary.deletes - published

    def end(self, failure: str | None) -> str:
        """The walk has ended; what began meanwhile is walked next. Returns the line for it."""
        self._failures = 0
        self._has_walked = True
        self.is_walking = False
        missing = "" if failure is None else f"; what is missing: {failure}"
        line = f"the timeline is read, {self._recovered} messages came of it{missing}"
        self._close(self._walked, failure)
        self.begin()
        return line

    def fail(self, error: ServiceUnavailableError) -> str:
        """The walk got no answer; it is begun again later, or given up. Returns the line for it."""
        self.is_walking = False
        self._failures += 1
        if self._failures < _WALKS_OF_A_GAP:
            self._try_again_at = time.monotonic() + _SECONDS_BETWEEN_WALKS
            if self._walked:
                self._walked[0].recovered_count += self._recovered
            minutes = _SECONDS_BETWEEN_WALKS / 60
            return f"the timeline cannot be read: {error}; trying again in {minutes:.0f} minutes"
        self._failures = 0
        self._close(self._walked, "the timeline could not be read")
        self.begin()
        return f"the timeline cannot be read: {error}; what was missed stays missing"

    def try_again_in_time(self) -> None:
        if self._try_again_at is not None and time.monotonic() >= self._try_again_at:
            self.begin()

    def _close(self, gaps: list[Gap], failure: str | None) -> None:
        closed = list(gaps)
        self._progress.close_gaps(
            closed, self._recovered, failure, are_posts_missing=self._is_behind_stream
        )
        self._progress.open_gaps = [
            gap for gap in self._progress.open_gaps if not any(gap is each for each in closed)
        ]
        self._walked = []
        self._is_behind_stream = False

    def _is_gap_waiting(self) -> bool:
        return any(
            not any(gap is walked for walked in self._walked) for gap in self._progress.open_gaps
        )

    def _known_ids(self) -> list[str]:
        """Posts whose deletes may have been missed: of this run, and at its start of those before.

        Where no message of this run is stored yet, both may be needed.
        """
        known = self._intake.published_ids(_KNOWN_IDS)
        if not self._has_walked:
            known += self._progress.stored_ids(_KNOWN_IDS)
        return list(dict.fromkeys(known))[:_KNOWN_IDS]


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


def _route_text(route: Route | None, is_walking: bool) -> str:
    if route is None:
        return "the timeline is being read" if is_walking else "reading the stream from now on"
    if route.start == OLDEST:
        return "reading the timeline from the oldest post served, and the stream"
    return "reading the timeline from the last post known, and the stream"


def _counts_text(summary: IngestSummary) -> str:
    return (
        f"{summary.received} received, {summary.upserts} published, {summary.deletes} deleted,"
        f" {summary.withheld.total()} withheld, {_dropped_text(summary)},"
        f" {summary.errors.total()} errors"
    )


def _dropped_text(summary: IngestSummary) -> str:
    by_rule = ", ".join(f"{rule} {count}" for rule, count in summary.dropped.most_common())
    return f"{summary.dropped.total()} dropped" + (f" ({by_rule})" if by_rule else "")
