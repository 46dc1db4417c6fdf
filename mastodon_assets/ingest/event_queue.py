"""The stream, kept open, and walks of the timeline, each read by a thread, in one bounded queue.

What belongs here: who reads what when, how a stream that broke is opened again, and how the reading
ends. What an arrival means stands in `handler`, which requests a walk makes in `walk`.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_random_exponential,
)

from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest.api.client import MastodonClient
from mastodon_assets.ingest.api.errors import (
    RateLimitedError,
    RefusedError,
    StreamEndedError,
    StreamSilentError,
)
from mastodon_assets.ingest.api.event_stream import EventStream, StreamEvent
from mastodon_assets.ingest.api.rate_limits import RateLimitedCaller, RateLimits, pause_seconds
from mastodon_assets.ingest.recovery.history_walk import (
    SPARE_REQUESTS,
    HistoryItem,
    HistoryWalker,
)
from mastodon_assets.ingest.recovery.timeline_walk import TimelineWalker, WalkItem, WalkRequest

_QUEUE_SIZE = 2_000
_STOP_SECONDS = 0.3
_BACKOFF = wait_random_exponential(multiplier=1, min=0.2, max=60)
# Tokens come back, but to ask every minute for a week is hammering.
REFUSED_TOKEN_SECONDS = 15 * 60
_REMEMBERED_STREAMED_IDS = 50_000

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Connected:
    """The stream is open; what follows it in the queue was told since."""

    at: datetime


@dataclass(frozen=True)
class Disconnected:
    """The stream broke, or could not be opened; it is tried again after `retry_seconds`."""

    at: datetime
    error: ServiceUnavailableError
    retry_seconds: float

    @property
    def reason(self) -> str:
        """What kind of failure this is, in a word or two that can be counted."""
        error = self.error
        if isinstance(error, RateLimitedError):
            return "rate limit"
        if isinstance(error, StreamSilentError):
            return "silence"
        if isinstance(error, StreamEndedError):
            return "ended by the server"
        if not isinstance(error, RefusedError):
            return "cut"
        if error.is_of_token:
            return f"token refused ({error.status_code})"
        kind = (
            "server error" if error.status_code >= httpx.codes.INTERNAL_SERVER_ERROR else "refused"
        )
        return f"{kind} ({error.status_code})"


QueueItem = StreamEvent | Connected | Disconnected | WalkItem | HistoryItem


class EventQueue:
    """Items in the order in which to handle them; opened and closed by `opened_event_queue`."""

    def __init__(self, client: MastodonClient, rate_limits: RateLimits) -> None:
        self._client = client
        self._queue: queue.Queue[QueueItem] = queue.Queue(_QUEUE_SIZE)
        self._stopping = threading.Event()
        self._may_read = threading.Event()
        self._may_read.set()
        self._stream: EventStream | None = None
        self._has_told = False
        self._streamed_ids: set[str] = set()
        self._walker = TimelineWalker(
            client,
            asker=RateLimitedCaller(self._stopping),
            rate_limits=rate_limits,
            put=self._put,
            streamed_ids=self._streamed_ids,
        )
        self._history_walker = HistoryWalker(
            client,
            asker=RateLimitedCaller(self._stopping, spare=SPARE_REQUESTS),
            rate_limits=rate_limits,
            put=self._put,
        )
        self._readers: dict[str, Future[None]] = {}
        self._start("stream-reader", self._keep_reading)

    def next(self, seconds: float) -> QueueItem | None:
        """The next arrival; None if there is none within `seconds`.

        Raises: what ended a reader that must not end.
        """
        try:
            return self._queue.get(timeout=seconds)
        except queue.Empty:
            for reader in self._readers.values():
                if reader.done():
                    reader.result()
            return None

    def waiting(self) -> int:
        """How many arrivals are read and not yet taken."""
        return self._queue.qsize()

    def seconds_since_heard(self) -> float | None:
        """How long the stream has sent nothing, not even a heartbeat; None while there is none."""
        stream = self._stream
        return None if stream is None else time.monotonic() - stream.heard_at

    def walk(self, request: WalkRequest) -> None:
        """Walk `request` beside the stream. One walk at a time: the one before must have ended."""
        self._streamed_ids.clear()
        self._start("timeline-walker", lambda: self._walker.walk(request))

    def walk_back(self, since: datetime, max_id: str | None) -> None:
        """Walk back beside both. One such walk at a time: the one before must have ended."""
        self._start("history-walker", lambda: self._history_walker.walk(since, max_id))

    def note_streamed(self, status_id: str) -> None:
        """A post came by the stream: a walk that meets such posts alone has arrived."""
        if len(self._streamed_ids) < _REMEMBERED_STREAMED_IDS:
            self._streamed_ids.add(status_id)

    def pause(self) -> None:
        """Close the stream, and do not open it before `resume`."""
        self._may_read.clear()
        if (stream := self._stream) is not None:
            stream.close()

    def resume(self) -> None:
        self._may_read.set()

    def stop(self) -> None:
        """End all readers; what they still read is dropped."""
        self._stopping.set()
        self.pause()
        # A reader that waits for an answer of the server ends on its own, later.
        wait(self._readers.values(), _STOP_SECONDS)

    def _start(self, name: str, work: Callable[[], None]) -> None:
        self._readers[name] = start_thread(name, work)

    def _keep_reading(self) -> None:
        Retrying(
            retry=retry_if_exception_type(ServiceUnavailableError),
            wait=self._seconds_to_retry,
            before_sleep=self._report_disconnected,
            sleep=sleep_using_event(self._stopping),
            stop=stop_when_event_set(self._stopping),
            retry_error_callback=lambda _state: None,
        )(self._read_stream)

    def _read_stream(self) -> None:
        """Read one stream to its end. Raises: ServiceUnavailableError unless stopping."""
        while not self._may_read.wait(0.1):
            if self._stopping.is_set():
                return
        with self._client.open_stream() as stream:
            self._stream = stream
            try:
                self._put(Connected(datetime.now(UTC)))
                if self._may_read.is_set():
                    for event in stream:
                        self._has_told = True
                        if not self._put(event):
                            return
            finally:
                self._stream = None
        raise StreamEndedError("the stream was closed")

    def _seconds_to_retry(self, state: RetryCallState) -> float:
        error = _error_of(state)
        if self._has_told:
            state.attempt_number, self._has_told = 1, False
        if isinstance(error, RateLimitedError):
            # A server that goes on refusing after its own reset is asked less and less often.
            return max(pause_seconds(error.reset_at), _BACKOFF(state))
        if isinstance(error, RefusedError) and error.is_of_token:
            return REFUSED_TOKEN_SECONDS
        return _BACKOFF(state)

    def _report_disconnected(self, state: RetryCallState) -> None:
        self._put(Disconnected(datetime.now(UTC), _error_of(state), state.upcoming_sleep))

    def _put(self, item: QueueItem) -> bool:
        """Wait for room in the queue; False when stopping."""
        while not self._stopping.is_set():
            try:
                self._queue.put(item, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False


@contextmanager
def opened_event_queue(client: MastodonClient, rate_limits: RateLimits) -> Iterator[EventQueue]:
    """Connect to the stream, again and again, until the end of the block."""
    queue = EventQueue(client, rate_limits)
    try:
        yield queue
    finally:
        queue.stop()


def _error_of(state: RetryCallState) -> ServiceUnavailableError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, ServiceUnavailableError), "no other error is tried again"
    return error


def start_thread(name: str, work: Callable[[], _Result]) -> "Future[_Result]":
    """Run `work` in a thread that does not keep the process alive."""
    future: Future[_Result] = Future()

    def run() -> None:
        try:
            result = work()
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
