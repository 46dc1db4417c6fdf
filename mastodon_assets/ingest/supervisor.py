"""The ingester: every source of every server that the settings name, read beside each other.

What belongs here: which sources are read, each in a thread with its own publisher, cursor and gaps;
what the failure of one means for the others; when all of it ends. What a source does is in
`source_run`.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import datetime

from prometheus_client import CollectorRegistry
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from mastodon_assets.config.servers import Server, servers_of
from mastodon_assets.config.settings import Settings
from mastodon_assets.config.sources import Source
from mastodon_assets.errors import PlatformError, ServiceUnavailableError, SettingsError
from mastodon_assets.ingest.api.client import MastodonClient
from mastodon_assets.ingest.api.errors import RefusedError
from mastodon_assets.ingest.api.rate_limits import RateLimits
from mastodon_assets.ingest.checkpoint import Progress
from mastodon_assets.ingest.event_queue import (
    REFUSED_TOKEN_SECONDS,
    opened_event_queue,
    start_thread,
)
from mastodon_assets.ingest.handler import EventHandler, IngestSummary
from mastodon_assets.ingest.metrics import IngestCollector, Reading
from mastodon_assets.ingest.policy.admission import admission_policy
from mastodon_assets.ingest.source_worker import Bounds, Report, SourceWorker, counts_text
from mastodon_assets.kafka.publisher import publishing
from mastodon_assets.warehouse.suppression_list import watched_suppression_list

_POLL_SECONDS = 0.1
# From the wish to end to the end of all waits. With what Python needs to see the wish and to end
# itself these are two seconds, on a busy machine too.
_END_SECONDS = 1
_BACKOFF = wait_random_exponential(multiplier=2, min=2, max=5 * 60)


def ingest(
    settings: Settings,
    *,
    max_events: int | None,
    until_caught_up: bool,
    report: Report,
    should_stop: Callable[[], bool],
    since: datetime | None = None,
    registry: CollectorRegistry | None = None,
) -> IngestSummary:
    """Read the servers of the settings into Kafka; the counts of all sources together.

    Ends when `should_stop()` is true, after `max_events` received events of all sources (updates,
    edits, deletes and statuses of the timelines, withheld ones included; of n sources each may take
    one more) or, with `until_caught_up`, when every source has read its timeline to the end and its
    stream has told what it had. At the end everything published is acknowledged and the cursors are
    saved. `since` walks the timelines back to that time beside all else. `report` gets a line a
    minute and source, and one for whatever goes wrong or is mended; several threads call it.
    `registry` gets the
    collector of the numbers that the caller serves for Prometheus.

    A source that fails stops alone, tells and is begun again later. That ends the run where no
    source is left that works, and with `until_caught_up` when the others have ended.

    Raises: SettingsError, WithdrawnServerError, WithdrawnKeyError, TopicMissingError,
    MissingTablesError; ServiceUnavailableError where a service does not answer or
    refuses at the start of all sources, where Kafka or PostgreSQL are away at the end, and with
    `until_caught_up` at once, or after five reconnects to a stream.
    """
    servers = servers_of(settings)
    if not servers:
        raise SettingsError(
            "no Mastodon server is named; set MASTODON_API_BASE_URL to one whose rules allow this"
        )
    bounds = Bounds(until_caught_up, since)
    supervisor = _Supervisor(max_events)
    readers = [
        _Reader(settings, server, source, rate_limits, bounds, supervisor, report)
        for server in servers
        for rate_limits in [_rate_limits_of(server)]
        for source in server.sources
    ]
    supervisor.add(readers)
    if registry is not None:
        registry.register(IngestCollector(supervisor.readings))
    _follow(supervisor, should_stop)
    return _sum([summary for reader in readers for summary in reader.summaries])


class _Supervisor:
    """What the readers know of each other. Its methods are called by all their threads."""

    def __init__(self, max_events: int | None) -> None:
        self._max_events = max_events
        self._readers: list[_Reader] = []
        self._failing: set[_Reader] = set()
        self._taken: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()
        self._stops_at = math.inf
        self.ending = threading.Event()

    @property
    def readers(self) -> "Sequence[_Reader]":
        return self._readers

    def add(self, readers: "list[_Reader]") -> None:
        self._readers = readers

    def stop(self) -> None:
        """All readers are to end soon; without this, an end lets Kafka take what it was given."""
        self._stops_at = min(self._stops_at, time.monotonic() + _END_SECONDS)
        self.ending.set()

    def seconds_left(self) -> float:
        """The time that is left to all readers together."""
        return max(0, self._stops_at - time.monotonic())

    def is_over(self) -> bool:
        """All readers are to end: there is a wish for it, or enough was received."""
        return self.ending.is_set() or (
            self._max_events is not None
            and sum(reader.received for reader in self._readers) >= self._max_events
        )

    def note_failure(self, reader: "_Reader") -> None:
        with self._lock:
            self._failing.add(reader)
            if len(self._failing) == len(self._readers):
                self.ending.set()

    def note_success(self, reader: "_Reader") -> None:
        with self._lock:
            self._failing.discard(reader)

    def claim(self, instance: str, source: Source, address: str) -> None:
        """Two addresses of one server would move one cursor. Raises: SettingsError."""
        with self._lock:
            other = self._taken.setdefault((instance, source.name), address)
        if other != address:
            raise SettingsError(
                f"{other} and {address} are both {instance}; leave one of them out of"
                " MASTODON_API_BASE_URL"
            )

    def readings(self) -> list[Reading]:
        return [reader.reading() for reader in self._readers]


class _Reader:
    """Keeps one source read: one run after the other, as long as a run fails."""

    def __init__(
        self,
        settings: Settings,
        server: Server,
        source: Source,
        rate_limits: RateLimits,
        bounds: Bounds,
        supervisor: _Supervisor,
        report: Report,
    ) -> None:
        self._settings = settings
        self._server = server
        self._source = source
        self._client = MastodonClient(server.base_url, server.token, source)
        self._rate_limits = rate_limits
        self._bounds = bounds
        self._supervisor = supervisor
        self._report_line = report
        self._run: SourceWorker | None = None
        self._is_failing = False
        self.instance = server.address
        self.summaries: list[IngestSummary] = []

    @property
    def received(self) -> int:
        return sum(summary.received for summary in self.summaries)

    @property
    def is_reading(self) -> bool:
        """Something may have been published that is not acknowledged yet."""
        run = self._run
        return run is not None and run.has_connected

    @property
    def name(self) -> str:
        return f"{self.instance}/{self._source.name}"

    def reading(self) -> Reading:
        run = self._run
        return Reading(self.instance, self._source.name) if run is None else run.reading()

    def keep_reading(self) -> None:
        """Returns at one of the ends. Raises: PlatformError where it is not to be tried again."""
        Retrying(
            retry=retry_if_exception(self._may_try_again),
            wait=_seconds_to_retry,
            before_sleep=self._report_failure,
            sleep=self._sleep,
            reraise=True,
        )(self._read)

    def _read(self) -> None:
        if self._supervisor.is_over():
            return
        try:
            with self._running() as run:
                run.receive(self._is_over, self._supervisor.seconds_left)
        except PlatformError:
            self._is_failing = True
            self._supervisor.note_failure(self)
            raise
        finally:
            self._run = None
        self._report(f"{counts_text(run.summary)}; all acknowledged")

    @contextmanager
    def _running(self) -> Iterator[SourceWorker]:
        settings = self._settings
        with publishing(settings) as publisher:
            self.instance = self._client.instance_domain()
            self._supervisor.claim(self.instance, self._source, self._server.address)
            rules = admission_policy(settings)
            self._report(str(rules))
            handler = EventHandler(
                publisher,
                instance=self.instance,
                rules=rules,
                suppression_list=watched_suppression_list(settings),
            )
            progress = Progress(
                settings.postgres_url, publisher, handler.summary, self._source.name
            )
            self.summaries.append(handler.summary)
            with opened_event_queue(self._client, self._rate_limits) as queue:
                self._run = SourceWorker(
                    queue,
                    handler,
                    publisher,
                    progress,
                    source=self._source.name,
                    bounds=self._bounds,
                    report=self._report,
                )
                yield self._run

    def _is_over(self) -> bool:
        if self._is_failing and self.is_reading:
            self._is_failing = False
            self._supervisor.note_success(self)
        return self._supervisor.is_over()

    def _may_try_again(self, error: BaseException) -> bool:
        return (
            isinstance(error, PlatformError)
            and not self._bounds.until_caught_up
            and not self._supervisor.is_over()
        )

    def _report_failure(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._report(f"{error}; this source is tried again in {state.upcoming_sleep:.0f} s")

    def _sleep(self, seconds: float) -> None:
        self._supervisor.ending.wait(seconds)

    def _report(self, line: str) -> None:
        self._report_line(f"{self.name}: {line}")


def _follow(supervisor: _Supervisor, should_stop: Callable[[], bool]) -> None:
    """Let all readers read until they have ended. Raises: the first failure among them."""
    futures = {start_thread(r.name, r.keep_reading): r for r in supervisor.readers}
    waiting: set[Future[None]] = set(futures)
    while waiting and supervisor.seconds_left() > 0:
        done, waiting = wait(waiting, _POLL_SECONDS)
        if should_stop():
            supervisor.stop()
        elif supervisor.is_over() or any(map(_is_bug, done)):
            supervisor.ending.set()
    _raise_first(futures, waiting)


def _raise_first(futures: "Mapping[Future[None], _Reader]", late: "set[Future[None]]") -> None:
    """A mistake of ours before all others, then what the sources met in the order of settings."""
    errors = [error for future in futures if future not in late and (error := future.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, PlatformError)):
        raise error
    names = [futures[future].name for future in futures if future in late]
    if any(futures[future].is_reading for future in late):
        raise ServiceUnavailableError(
            f"{', '.join(names)} did not end in time; what is not acknowledged is read again at"
            " the next start"
        )


def _is_bug(future: "Future[None]") -> bool:
    error = future.exception()
    return error is not None and not isinstance(error, PlatformError)


def _rate_limits_of(server: Server) -> RateLimits:
    client = MastodonClient(server.base_url, server.token)
    return RateLimits(is_limited=not client.is_on_this_machine)


def _seconds_to_retry(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, RefusedError) and error.is_of_token:
        return REFUSED_TOKEN_SECONDS
    return _BACKOFF(state)


def _sum(summaries: Sequence[IngestSummary]) -> IngestSummary:
    """Counts added up; of several runs `instance` names all servers, and there is no one cursor."""
    first, *others = summaries or [IngestSummary("")]
    if not others:
        return first
    instances = dict.fromkeys(summary.instance for summary in summaries)
    total = replace(first, instance=", ".join(instances), cursor=None)
    for field in fields(IngestSummary):
        values = [getattr(summary, field.name) for summary in summaries]
        if isinstance(values[0], int):
            setattr(total, field.name, sum(values))
        elif isinstance(values[0], Counter):
            setattr(total, field.name, sum(values, Counter()))
    return total
