"""One run of the ingester: from a server's stream and timeline into Kafka.

What belongs here: the order of a run, when it ends, and the cursor. A run first walks the timeline
from the cursor on, beside the open stream, so that what was posted since the last run is not
missed; without a cursor only `until_caught_up` walks, from the oldest post served. Reconnecting to
a stream that broke is not done here: the run ends with an error and everything acknowledged, and
the next one goes on from the cursor.
"""

import time
from collections.abc import Callable

from pydantic import SecretStr

from mastodon_assets.errors import ServiceUnavailableError, SettingsError
from mastodon_assets.mastodon.arrivals import Arrival, Arrivals, ListedStatus, WalkEnded, arriving
from mastodon_assets.mastodon.client import OLDEST, MastodonClient
from mastodon_assets.mastodon.cursors import read_cursor, save_cursor
from mastodon_assets.mastodon.intake import IngestSummary, Intake
from mastodon_assets.mastodon.publisher import Publisher, publishing
from mastodon_assets.settings import Settings

_COMMIT_SECONDS = 5
_POLL_SECONDS = 0.1
# Caught up: the timeline is at its end and the stream is quiet, or has had its time to tell what
# happened before and has nothing waiting (a busy server is never quiet).
_QUIET_SECONDS = 1
_LONGEST_DRAIN_SECONDS = 5


def ingest(
    settings: Settings,
    *,
    max_events: int | None,
    until_caught_up: bool,
    report: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> IngestSummary:
    """Read the server of the settings into Kafka.

    Ends when `should_stop()` is true, after `max_events` received events (updates, edits, deletes
    and statuses of the timeline, withheld ones included) or, with `until_caught_up`, when the
    timeline is read to its end and the stream has told what it had. At the end everything
    published is acknowledged and the cursor is saved. `report` gets a line now and then.

    Raises: SettingsError, ServiceUnavailableError (a service does not answer or refuses, or the
    stream ended), TopicMissingError, MissingTablesError.
    """
    if settings.mastodon_api_base_url is None:
        raise SettingsError(
            "no Mastodon server is named; set MASTODON_API_BASE_URL to one whose rules allow this"
        )
    client = MastodonClient(settings.mastodon_api_base_url, settings.mastodon_access_token)
    with publishing(settings) as publisher:
        instance = client.instance_domain()
        saved = read_cursor(settings.postgres_url, instance)
        walk_from = saved or (OLDEST if until_caught_up else None)
        intake = Intake(publisher, instance=instance, policy=settings.mastodon_consent)
        with arriving(client, walk_from=walk_from) as arrivals:
            report(f"{instance}: connected, {_walk_text(walk_from)}")
            run = _Run(
                arrivals,
                intake,
                _Cursor(settings.postgres_url, publisher, intake.summary, saved),
                is_walking=walk_from is not None,
            )
            run.receive(max_events, until_caught_up, report, should_stop)
    report(f"{instance}: {_counts_text(intake.summary)}; all acknowledged")
    return intake.summary


class _Cursor:
    """The place up to which everything is published; saved only after Kafka's acknowledgement."""

    def __init__(
        self,
        postgres_url: SecretStr,
        publisher: Publisher,
        summary: IngestSummary,
        saved: str | None,
    ) -> None:
        self._postgres_url = postgres_url
        self._publisher = publisher
        self._summary = summary
        self._summary.cursor = saved
        self.position = saved

    def commit(self) -> None:
        self._publisher.flush()
        if self.position is not None and self.position != self._summary.cursor:
            save_cursor(self._postgres_url, self._summary.instance, self.position)
            self._summary.cursor = self.position


class _Run:
    """The loop of a run."""

    def __init__(
        self, arrivals: Arrivals, intake: Intake, cursor: _Cursor, *, is_walking: bool
    ) -> None:
        self._arrivals = arrivals
        self._intake = intake
        self._cursor = cursor
        self._is_walking = is_walking
        self._walk_ended_at = self._last_arrival_at = self._committed_at = time.monotonic()

    def receive(
        self,
        max_events: int | None,
        until_caught_up: bool,
        report: Callable[[str], None],
        should_stop: Callable[[], bool],
    ) -> None:
        """Take arrivals until one of the ends is reached, then commit.

        Raises: ServiceUnavailableError; what was taken before is committed first.
        """
        try:
            while not should_stop() and not self._has_received(max_events):
                arrival = self._arrivals.next(_POLL_SECONDS)
                if arrival is not None:
                    self._take(arrival)
                elif until_caught_up and self._has_caught_up():
                    return
                elif not until_caught_up and self._arrivals.has_stream_ended():
                    raise ServiceUnavailableError(
                        f"{self._intake.summary.instance} ended the stream; start again:"
                        " what was posted meanwhile is read from its timeline"
                    )
                self._commit_now_and_then(report)
        finally:
            self._cursor.commit()

    def _take(self, arrival: Arrival) -> None:
        self._last_arrival_at = time.monotonic()
        if isinstance(arrival, WalkEnded):
            self._is_walking = False
            self._walk_ended_at = self._last_arrival_at
        elif isinstance(arrival, ListedStatus):
            self._intake.take_listed(arrival.status, arrival.received_at)
            self._cursor.position = arrival.cursor or self._cursor.position
        else:
            new_id = self._intake.take_event(arrival)
            # While the walk is under way the stream is ahead of it: a cursor from there would
            # leave out what lies between.
            if new_id is not None and not self._is_walking:
                self._cursor.position = later_id(self._cursor.position, new_id)

    def _has_received(self, max_events: int | None) -> bool:
        return max_events is not None and self._intake.summary.received >= max_events

    def _has_caught_up(self) -> bool:
        if self._is_walking:
            return False
        now = time.monotonic()
        return (
            self._arrivals.has_stream_ended()
            or now - self._last_arrival_at >= _QUIET_SECONDS
            or now - self._walk_ended_at >= _LONGEST_DRAIN_SECONDS
        )

    def _commit_now_and_then(self, report: Callable[[str], None]) -> None:
        if time.monotonic() - self._committed_at >= _COMMIT_SECONDS:
            self._cursor.commit()
            self._committed_at = time.monotonic()
            report(f"{self._intake.summary.instance}: {_counts_text(self._intake.summary)}")


def later_id(known: str | None, new: str) -> str:
    """The id to go on from after `new` came by the stream.

    Numbers are compared by length and digits, because a stream does not keep their order. Ids of
    another form say nothing about time: among them the one that came last counts. A number and
    another form cannot be compared, and the known one stays: to read a post again does no harm.
    """
    if known is None or (not _is_number(known) and not _is_number(new)):
        return new
    if _is_number(known) and _is_number(new):
        return max(known, new, key=lambda status_id: (len(status_id), status_id))
    return known


def _is_number(status_id: str) -> bool:
    return status_id.isascii() and status_id.isdecimal()


def _walk_text(walk_from: str | None) -> str:
    if walk_from is None:
        return "reading the stream from now on"
    if walk_from == OLDEST:
        return "reading the timeline from the oldest post served, and the stream"
    return "reading the timeline from where the last run ended, and the stream"


def _counts_text(summary: IngestSummary) -> str:
    return (
        f"{summary.received} received, {summary.upserts} published, {summary.deletes} deleted,"
        f" {summary.withheld.total()} withheld, {summary.errors.total()} errors"
    )
