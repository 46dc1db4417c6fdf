"""The ingester: reads every source of every server in the settings, one thread per source.

What belongs here: which sources are read, what the failure of one means for the others, and when
the run ends. What one source does is in `source_worker`.
"""

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import datetime, timedelta
from functools import partial

from prometheus_client import CollectorRegistry
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from mastodon_assets.config.servers import Server, servers_of
from mastodon_assets.config.settings import Settings
from mastodon_assets.config.sources import Source
from mastodon_assets.contract.identity import uri_host
from mastodon_assets.errors import PlatformError, ServiceUnavailableError, SettingsError
from mastodon_assets.ingest.api.account_filters import SCOPES, filter_counts, filters_text
from mastodon_assets.ingest.api.client import MastodonClient, client_of
from mastodon_assets.ingest.api.errors import RateLimitedError, RefusedError
from mastodon_assets.ingest.api.rate_limits import RateLimits, pause_seconds
from mastodon_assets.ingest.api.status_ids import id_time, newest_id
from mastodon_assets.ingest.checkpoint import Checkpoint
from mastodon_assets.ingest.event_queue import (
    REFUSED_TOKEN_SECONDS,
    opened_event_queue,
    start_thread,
)
from mastodon_assets.ingest.handler import EventHandler, IngestSummary
from mastodon_assets.ingest.homes import Homes
from mastodon_assets.ingest.metrics import IngestCollector, Reading
from mastodon_assets.ingest.policy.admission import admission_policy
from mastodon_assets.ingest.recovery.poll import PollStart
from mastodon_assets.ingest.removal_brake import RemovalBrake
from mastodon_assets.ingest.source_log import SourceLog
from mastodon_assets.ingest.source_states import claim_address
from mastodon_assets.ingest.source_worker import Bounds, SourceWorker, counts_text
from mastodon_assets.kafka.publisher import publishing
from mastodon_assets.warehouse.handle_keys import record_handle_key
from mastodon_assets.warehouse.suppression_list import watched_suppression_list

logger = logging.getLogger(__name__)

# Newest posts that were deleted move a quiet timeline back too, but not by this much.
_MOVED_BACK = timedelta(days=1)
_POLL_SECONDS = 0.1
# From the request to end until all waits are given up. Python needs about another second to notice
# the request and to end itself, on a busy machine too.
_END_SECONDS = 1
_MINUTE_SECONDS = 60
_BACKOFF = wait_random_exponential(multiplier=2, min=2, max=5 * 60)


def ingest(
    settings: Settings,
    *,
    max_events: int | None,
    until_caught_up: bool,
    should_stop: Callable[[], bool],
    since: datetime | None = None,
    waits_for_token: bool = False,
    registry: CollectorRegistry | None = None,
) -> IngestSummary:
    """Read the servers of the settings into Kafka until one of the ends is reached.

    The run ends when `should_stop()` is true or after `max_events`. With `until_caught_up` it ends
    when every source has read its timeline to the end and its stream is quiet. At the end
    everything published is acknowledged and the cursors are saved.

    A source that fails stops alone, logs why, and is started again later. The run fails when no
    working source is left, and with `until_caught_up` once the other sources have ended.

    Args:
        settings: Servers, sources, tokens, Kafka and PostgreSQL.
        max_events: Events to receive from all sources together: updates, edits, deletes and listed
            statuses, withheld ones included. Each further source may receive one more.
        until_caught_up: End when nothing more is to be read.
        should_stop: Asked several times per second.
        since: Backfill the timelines to this time, while everything else goes on.
        waits_for_token: Wait for another token if it is refused at the start, as it is done later.
            Whoever restarts an ended run would ask the server again and again.
        registry: Gets the collector of the ingester's metrics.

    Returns:
        The counts of all sources together.

    Raises:
        SettingsError: No server is named, or two addresses are one server.
        SuppressedServerError: A server is on the suppression list.
        WithdrawnKeyError: The suppression list cannot be read with the key of the settings.
        TopicMissingError: Kafka has no such topic.
        MissingTablesError: PostgreSQL has no such tables.
        ServiceUnavailableError: No source can be started, or Kafka or PostgreSQL is away at the
            end. With `until_caught_up` also if a stream breaks more than five times.
    """
    servers = servers_of(settings)
    if not servers:
        raise SettingsError(
            "no Mastodon server is named; set MASTODON_API_BASE_URL to one whose rules allow this"
        )
    bounds = Bounds(until_caught_up, since, waits_for_token and not until_caught_up)
    supervisor = _Supervisor(max_events)
    homes = Homes(settings.postgres_url, are_several=len(servers) > 1)
    runners = [
        _SourceRunner(settings, server, source, rate_limits, bounds, supervisor, homes)
        for server in servers
        for rate_limits in [_rate_limits_of(server)]
        for source in server.sources
    ]
    supervisor.add(runners)
    if registry is not None:
        registry.register(IngestCollector(supervisor.readings))
    _run_all(supervisor, should_stop)
    return _total([summary for runner in runners for summary in runner.summaries])


class SuspiciousServerError(PlatformError):
    """Raised if another server answers at an address; a person must accept it."""


class _Supervisor:
    """The state that all sources share; every method may be called from any thread."""

    def __init__(self, max_events: int | None) -> None:
        self._max_events = max_events
        self._runners: list[_SourceRunner] = []
        self._failing: set[_SourceRunner] = set()
        self._addresses: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()
        self._stops_at = math.inf
        self.ending = threading.Event()

    @property
    def runners(self) -> "Sequence[_SourceRunner]":
        return self._runners

    def add(self, runners: "list[_SourceRunner]") -> None:
        self._runners = runners

    def stop(self) -> None:
        """End all sources soon; otherwise an end waits until Kafka has acknowledged everything."""
        self._stops_at = min(self._stops_at, time.monotonic() + _END_SECONDS)
        self.ending.set()

    def seconds_left(self) -> float:
        """Return the seconds left until all waits are given up."""
        return max(0, self._stops_at - time.monotonic())

    def is_over(self) -> bool:
        """Return whether all sources should end: it was requested, or enough was received."""
        return self.ending.is_set() or (
            self._max_events is not None
            and sum(runner.received for runner in self._runners) >= self._max_events
        )

    def note_failure(self, runner: "_SourceRunner") -> None:
        """Count a source as failing; if all are, end the run."""
        with self._lock:
            self._failing.add(runner)
            if len(self._failing) == len(self._runners):
                self.ending.set()

    def note_success(self, runner: "_SourceRunner") -> None:
        """Count a source as working."""
        with self._lock:
            self._failing.discard(runner)

    def claim(self, instance: str, source: Source, address: str) -> None:
        """Reserve a source for one address; two addresses of one server would share a cursor.

        Raises:
            SettingsError: Another address has the same source.
        """
        with self._lock:
            other = self._addresses.setdefault((instance, source.name), address)
        if other != address:
            raise SettingsError(
                f"{other} and {address} are both {instance}; leave one of them out of"
                " MASTODON_API_BASE_URL"
            )

    def readings(self) -> list[Reading]:
        """Return the present metrics of every source."""
        return [runner.reading() for runner in self._runners]


class _SourceRunner:
    """Runs the worker of one source, again after each failure."""

    def __init__(
        self,
        settings: Settings,
        server: Server,
        source: Source,
        rate_limits: RateLimits,
        bounds: Bounds,
        supervisor: _Supervisor,
        homes: Homes,
    ) -> None:
        self._homes = homes
        self._settings = settings
        self._server = server
        self._source = source
        self._client = client_of(settings, server, source, rate_limits=rate_limits)
        self._rate_limits = rate_limits
        self._bounds = bounds
        self._supervisor = supervisor
        self._worker: SourceWorker | None = None
        self._is_failing = self._is_refused = False
        self._has_ever_connected = False
        self.instance = server.address
        self.summaries: list[IngestSummary] = []

    @property
    def received(self) -> int:
        """Events received by all runs of this source."""
        return sum(summary.received for summary in self.summaries)

    @property
    def is_reading(self) -> bool:
        """Whether something may have been published that is not acknowledged yet."""
        worker = self._worker
        return worker is not None and worker.has_connected

    @property
    def name(self) -> str:
        """The server and the source, as in log messages."""
        return f"{self.instance}/{self._source.name}"

    def reading(self) -> Reading:
        """Return the present metrics."""
        worker = self._worker
        if worker is None:
            return Reading(self.instance, self._source.name, is_refused=self._is_refused)
        return worker.reading()

    def run(self) -> None:
        """Run workers until one of the ends is reached.

        Raises:
            PlatformError: The last worker failed, and another attempt is not wanted.
        """
        Retrying(
            retry=retry_if_exception(self._may_try_again),
            wait=_seconds_to_retry,
            before_sleep=self._log_failure,
            sleep=self._sleep,
            reraise=True,
        )(self._run_once)

    def _run_once(self) -> None:
        if self._supervisor.is_over():
            return
        try:
            with self._opened_worker() as worker:
                worker.run(self._is_over, self._supervisor.seconds_left)
        except PlatformError as error:
            self._is_failing = True
            self._is_refused = _is_of_token(error)
            waits = self._has_ever_connected or self._bounds.waits_for_token
            if not (waits and self._is_refused):
                self._supervisor.note_failure(self)
            raise
        finally:
            self._worker = None
        self._log.info("%s; all acknowledged", counts_text(worker.summary))

    @contextmanager
    def _opened_worker(self) -> Iterator[SourceWorker]:
        settings = self._settings
        with publishing(settings) as publisher:
            self.instance = self._client.instance_domain()
            self._supervisor.claim(self.instance, self._source, self._server.address)
            record_handle_key(settings)
            policy = admission_policy(settings)
            self._log.info("admission policy: %s", policy)
            software = self._client.software()
            if policy.consent == "opt-in" and not software.says_indexable:
                self._log.warning(
                    "%s does not say which accounts agree to be indexed: with MASTODON_CONSENT="
                    "opt-in none of its posts are published",
                    software.name,
                )
            self._load_homes()
            handler = EventHandler(
                publisher,
                instance=self.instance,
                policy=policy,
                suppression_list=watched_suppression_list(settings),
                software=software,
                timeline=self._source.kind,
                homes=self._homes,
            )
            checkpoint = Checkpoint(
                settings.postgres_url, publisher, handler.summary, self._source.name
            )
            filters = self._account_filters()
            brake = RemovalBrake(
                settings.postgres_url,
                self.instance,
                share=settings.removal_brake_share,
                fewest=settings.removal_brake_min,
            )
            self._check_identity(checkpoint, brake)
            self.summaries.append(handler.summary)
            poll_start = PollStart(
                checkpoint.read_until,
                self._bounds.until_caught_up and self._bounds.since is None,
                checkpoint.stored_uris,
                checkpoint.recent_posts,
                checkpoint.known_accounts,
                policy.stored_uri,
            )
            with opened_event_queue(
                self._client,
                self._rate_limits,
                poll_start,
                audit_seconds=_MINUTE_SECONDS * settings.audit_minutes,
                home_questions=self._home_questions(),
            ) as queue:
                self._worker = SourceWorker(
                    queue,
                    handler,
                    publisher,
                    checkpoint,
                    brake,
                    source=self._source.name,
                    bounds=self._bounds,
                    account_filters=filters,
                    homes=self._homes,
                )
                yield self._worker

    def _load_homes(self) -> None:
        """Read what is known of all servers, and note the names of this one."""
        self._homes.load()
        self._homes.note_name(self.instance, self.instance, has_ids=False)
        host = uri_host(self._server.base_url)
        if host is not None and not self._client.is_on_this_machine:
            self._homes.note_name(self.instance, host, has_ids=False)
        self._homes.save()

    def _home_questions(self) -> Callable[[], list[str]] | None:
        if not self._homes.are_several:
            return None
        return partial(self._homes.take_questions, self.instance)

    def _account_filters(self) -> str | None:
        """Return what the server leaves out for the token's account, and log it."""
        if self._server.token is None:
            return None
        for _ in SCOPES:
            self._rate_limits.every.count()
        try:
            text = filters_text(filter_counts(self._client))
        except ServiceUnavailableError:
            # The worker reports what is wrong.
            return None
        if text is not None:
            self._log.warning("%s", text)
        return text

    def _check_identity(self, checkpoint: Checkpoint, brake: RemovalBrake) -> None:
        """Check that the address is still the same server, with the posts that it had.

        Raises:
            SuspiciousServerError: Another server answers at the address.
        """
        if self._client.is_on_this_machine:
            return
        address = self._server.address
        before = claim_address(
            self._settings.postgres_url,
            self.instance,
            self._source.name,
            address,
            is_accepted=brake.is_accepted,
        )
        if before is not None:
            brake.suspect(f"{address} was {before} before, and now answers as {self.instance}")
            raise SuspiciousServerError(
                f"{brake.reason}; if that is right, run: mastodon-assets sources accept"
                f" {self.instance}"
            )
        reached = id_time(checkpoint.position or "")
        newest = id_time(self._newest_id() or "")
        if reached is not None and newest is not None and newest < reached - _MOVED_BACK:
            brake.suspect(
                f"its newest post is of {newest:%Y-%m-%d %H:%M}Z, but posts until"
                f" {reached:%Y-%m-%d %H:%M}Z were read before: was it restored from a backup?"
            )
            self._log.warning(
                "suspicious: %s If that is right, run: mastodon-assets sources accept %s",
                brake.reason,
                self.instance,
            )

    def _newest_id(self) -> str | None:
        self._rate_limits.every.count()
        try:
            return newest_id(self._client.newest_page())
        except ServiceUnavailableError:
            # The worker reports what is wrong.
            return None

    def _is_over(self) -> bool:
        self._has_ever_connected = self._has_ever_connected or self.is_reading
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

    def _log_failure(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._log.warning("%s; this source is tried again in %.0f s", error, state.upcoming_sleep)

    def _sleep(self, seconds: float) -> None:
        self._supervisor.ending.wait(seconds)

    @property
    def _log(self) -> SourceLog:
        return SourceLog(logger, self.name)


def _run_all(supervisor: _Supervisor, should_stop: Callable[[], bool]) -> None:
    """Run all sources in threads until they have ended; then raise the first failure."""
    futures = {start_thread(runner.name, runner.run): runner for runner in supervisor.runners}
    waiting: set[Future[None]] = set(futures)
    while waiting and supervisor.seconds_left() > 0:
        done, waiting = wait(waiting, _POLL_SECONDS)
        if should_stop():
            supervisor.stop()
        elif supervisor.is_over() or any(map(_is_bug, done)):
            supervisor.ending.set()
    _raise_first(futures, waiting)


def _raise_first(
    futures: "Mapping[Future[None], _SourceRunner]", late: "set[Future[None]]"
) -> None:
    """Raise a programming error if there is one, otherwise the first error in source order."""
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


def _is_of_token(error: BaseException) -> bool:
    return isinstance(error, RefusedError) and error.is_of_token


def _seconds_to_retry(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if error is not None and _is_of_token(error):
        return REFUSED_TOKEN_SECONDS
    if isinstance(error, RateLimitedError):
        return max(pause_seconds(error.reset_at), _BACKOFF(state))
    return _BACKOFF(state)


def _total(summaries: Sequence[IngestSummary]) -> IngestSummary:
    """Add counts up; `instance` names all servers, and several runs have no common cursor."""
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
