"""The bounded queue of everything one source sends, filled by one thread per kind of reading.

What belongs here: which thread reads what, how a broken stream is reopened, and how reading ends.
What an item means is in `handler`; which requests a walk makes is in `recovery`.
"""

import math
import queue
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
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
    NoStreamError,
    RateLimitedError,
    RefusedError,
    StreamEndedError,
    StreamSilentError,
)
from mastodon_assets.ingest.api.event_socket import EventSocket
from mastodon_assets.ingest.api.event_stream import EventStream, StreamEvent
from mastodon_assets.ingest.api.rate_limits import (
    RateLimitedCaller,
    RateLimits,
    StoppedError,
    pause_seconds,
)
from mastodon_assets.ingest.recovery.account_view import AccountCompared, compare_views
from mastodon_assets.ingest.recovery.accounts import AccountChecker, AccountsChecked
from mastodon_assets.ingest.recovery.audit import (
    OVERLAP,
    AuditedStatus,
    AuditItem,
    Auditor,
    KnownIds,
)
from mastodon_assets.ingest.recovery.history_walk import (
    SPARE_REQUESTS,
    HistoryItem,
    HistoryStatus,
    HistoryWalker,
)
from mastodon_assets.ingest.recovery.home_questions import (
    RESERVED_REQUESTS,
    SECONDS_BETWEEN_QUESTIONS,
    HomeAnswer,
    HomeAsker,
)
from mastodon_assets.ingest.recovery.poll import PollEnded, Poller, PollStart, PollStarted
from mastodon_assets.ingest.recovery.recheck import Rechecked, Rechecker
from mastodon_assets.ingest.recovery.timeline_walk import (
    ListedStatus,
    PostChecker,
    TimelineWalker,
    WalkItem,
    WalkRequest,
)

_QUEUE_ITEMS, _QUEUE_BYTES = 2_000, 32 * 1024 * 1024
# A stream that nobody reads burdens its server, and stops the timelines of all members of a
# GoToSocial: it is closed when the queue stays full this long, and the gap is backfilled.
_FULL_SECONDS = 2
_MOST_WAITING_AT_AUDIT = 100
_FIRST_ID = re.compile(r'\s*\{\s*"id"\s*:\s*"([^"\\]{1,255})"')
_STOP_SECONDS = 0.3
# A server without a stream is polled this long before its stream is looked for again.
_POLLING_SECONDS = 24 * 60 * 60
_SILENT = "the stream is open but sends no posts"
_COMPARING_SECONDS = 24 * 60 * 60
_CHECK_SECONDS = 30
_BACKOFF = wait_random_exponential(multiplier=1, min=0.2, max=60)
# A stream that lived this long was a good one: the back-off begins again.
_STABLE_SECONDS = 60
# A token may become valid again, but a request per minute for a week would be hammering.
REFUSED_TOKEN_SECONDS = 15 * 60
_REMEMBERED_STREAMED_IDS = 50_000

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Connected:
    """The stream of the kind `reader` is open; the items that follow in the queue came later."""

    at: datetime
    reader: str


@dataclass(frozen=True)
class Disconnected:
    """The stream broke or could not be opened; the next attempt is in `retry_seconds`."""

    at: datetime
    error: ServiceUnavailableError
    retry_seconds: float

    @property
    def reason(self) -> str:
        """The kind of failure, short enough to count by it."""
        error = self.error
        if isinstance(error, RateLimitedError):
            return "rate limit"
        if isinstance(error, QueueFullError):
            return "queue full"
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


QueueItem = (
    StreamEvent
    | Connected
    | Disconnected
    | WalkItem
    | HistoryItem
    | PollStarted
    | PollEnded
    | Rechecked
    | AccountCompared
    | AuditItem
    | HomeAnswer
    | AccountsChecked
)


class QueueFullError(ServiceUnavailableError):
    """Raised if the queue stays full, so that the stream is not left unread."""


class _ByteBoundedQueue(queue.Queue[QueueItem]):
    """A queue that is full by its number of items or by their bytes."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self._sizes: deque[int] = deque()
        self._bytes = 0

    def _qsize(self) -> int:
        return self.maxsize if self._bytes >= _QUEUE_BYTES else self.items()

    def _put(self, item: QueueItem) -> None:
        super()._put(item)
        self._sizes.append(_size_of(item))
        self._bytes += self._sizes[-1]

    def _get(self) -> QueueItem:
        self._bytes -= self._sizes.popleft()
        return super()._get()

    def oldest_event_at(self) -> datetime | None:
        """Return when the oldest waiting event was received."""
        with self.mutex:
            events = (item for item in self.queue if isinstance(item, StreamEvent))
            return next((event.received_at for event in events), None)

    def items(self) -> int:
        """Return the number of items."""
        return len(self.queue)


class EventQueue:
    """Items in the order to handle them in; opened and closed by `opened_event_queue`."""

    def __init__(
        self,
        client: MastodonClient,
        rate_limits: RateLimits,
        poll_start: PollStart,
        *,
        audit_seconds: float = 0,
        home_questions: Callable[[], list[str]] | None = None,
    ) -> None:
        self._client = client
        self._queue = _ByteBoundedQueue(_QUEUE_ITEMS)
        self._stopping = threading.Event()
        self._may_read = threading.Event()
        self._may_read.set()
        self._stream: EventStream | EventSocket | None = None
        self._polls_until = -math.inf
        self._no_stream = ""
        self._opened_at: float | None = None
        self._streamed_ids: set[str] = set()
        self._walker = TimelineWalker(
            client,
            caller=RateLimitedCaller(self._stopping),
            rate_limits=rate_limits,
            put=self._put,
            streamed_ids=self._streamed_ids,
        )
        self._history_walker = HistoryWalker(
            client,
            caller=RateLimitedCaller(self._stopping, spare=SPARE_REQUESTS),
            rate_limits=rate_limits,
            put=self._put,
        )
        self._poller = Poller(
            client,
            caller=RateLimitedCaller(self._stopping),
            rate_limits=rate_limits,
            put=self._put,
            start=poll_start,
        )
        self._rechecker = Rechecker(
            PostChecker(
                client,
                caller=RateLimitedCaller(self._stopping, spare=SPARE_REQUESTS),
                rate_limits=rate_limits,
                put=self._put,
            ),
            put=self._put,
            stored=poll_start.recent_posts,
        )
        self._threads: dict[str, Future[None]] = {}
        self._known = KnownIds()
        self._auditor = Auditor(
            client,
            caller=RateLimitedCaller(self._stopping, spare=SPARE_REQUESTS),
            rate_limits=rate_limits,
            put=self._put,
            known=self._known,
        )
        self._rate_limits = rate_limits
        self._comparing_caller = RateLimitedCaller(self._stopping, spare=SPARE_REQUESTS)
        self._connected_at: datetime | None = None
        if audit_seconds:
            self._start("auditor", lambda: self._keep_auditing(audit_seconds))
        checker = AccountChecker(
            client,
            caller=RateLimitedCaller(self._stopping, spare=SPARE_REQUESTS),
            rate_limits=rate_limits,
            put=self._put,
            known=poll_start.known_accounts,
        )
        self._start("account-checker", lambda: self._repeat(checker.check_if_due, _CHECK_SECONDS))
        if home_questions is not None:
            asker = HomeAsker(
                client,
                caller=RateLimitedCaller(self._stopping, spare=-RESERVED_REQUESTS),
                rate_limits=rate_limits,
                put=self._put,
                questions=home_questions,
            )
            self._start("home-asker", lambda: self._repeat(asker.ask, SECONDS_BETWEEN_QUESTIONS))
        self._start("stream-reader", self._keep_reading)

    def next(self, seconds: float) -> QueueItem | None:
        """Return the next item, or None if there is none within `seconds`.

        Raises whatever ended a reading thread that should not end.
        """
        try:
            return self._queue.get(timeout=seconds)
        except queue.Empty:
            for thread in self._threads.values():
                if thread.done():
                    thread.result()
            return None

    def waiting(self) -> int:
        """Return the number of items that wait to be handled."""
        return self._queue.items()

    def oldest_event_at(self) -> datetime | None:
        """Return when the oldest waiting event was received; None if none waits."""
        return self._queue.oldest_event_at()

    def seconds_since_last_bytes(self) -> float | None:
        """Return the seconds without a byte, heartbeats included; None without an open stream."""
        stream = self._stream
        return None if stream is None else time.monotonic() - stream.last_bytes_at

    def walk(self, request: WalkRequest) -> None:
        """Start a walk of the timeline; the previous one must have ended."""
        if not request.goes_on:
            self._streamed_ids.clear()
        self._start("timeline-walker", lambda: self._walker.walk(request))

    def walk_back(self, since: datetime, max_id: str | None) -> None:
        """Start a walk back to `since`; the previous one must have ended."""
        self._start("history-walker", lambda: self._history_walker.walk(since, max_id))

    def note_streamed(self, status_id: str) -> None:
        """Remember a post of the stream: a page of such posts alone ends the walk."""
        self._known.add(status_id, is_streamed=True)
        if len(self._streamed_ids) < _REMEMBERED_STREAMED_IDS:
            self._streamed_ids.add(status_id)

    def note_listed(self, status_id: str) -> None:
        """Remember a post of a walk, so that an audit does not take it for missing."""
        self._known.add(status_id)

    def pause(self) -> None:
        """Close the stream until `resume` is called."""
        self._may_read.clear()
        if (stream := self._stream) is not None:
            stream.close()

    def resume(self) -> None:
        """Open the stream again."""
        self._may_read.set()

    def stop(self) -> None:
        """End all reading threads and drop what they still read."""
        self._stopping.set()
        self.pause()
        # A thread that waits for the server ends by itself, later.
        wait(self._threads.values(), _STOP_SECONDS)

    def _start(self, name: str, work: Callable[[], None]) -> None:
        self._threads[name] = start_thread(name, work)

    def _keep_reading(self) -> None:
        Retrying(
            retry=retry_if_exception_type(ServiceUnavailableError),
            wait=self._seconds_to_retry,
            before_sleep=self._put_disconnected,
            sleep=sleep_using_event(self._stopping),
            stop=stop_when_event_set(self._stopping),
            retry_error_callback=lambda _state: None,
        )(self._read_stream)

    def _read_stream(self) -> None:
        """Read one stream to its end, or poll the timeline if there is none.

        Raises:
            ServiceUnavailableError: Always, unless stopping.
        """
        while self._wait_until_readable():
            if time.monotonic() < self._polls_until:
                self._poll()
                continue
            try:
                self._read_events()
            except NoStreamError as error:
                self._no_stream = str(error)
                self._polls_until = time.monotonic() + _POLLING_SECONDS
            else:
                return

    def _keep_auditing(self, seconds: float) -> None:
        """Audit the open stream now and then."""
        since: datetime | None = None
        compare_at = time.monotonic()
        while not self._stopping.wait(seconds):
            if self._client.has_token and time.monotonic() >= compare_at:
                compare_at = time.monotonic() + _COMPARING_SECONDS
                self._compare_views()
            connected_at = self._connected_at
            if self._stream is None or connected_at is None:
                # Nothing to compare with; the time until the next connection is a gap.
                since = None
                continue
            if self._queue.items() > _MOST_WAITING_AT_AUDIT:
                # What waits to be handled would be taken for missing.
                continue
            # What came before the stream was open is recovered by a walk.
            start = connected_at if since is None else max(connected_at, since - OVERLAP)
            try:
                ended = self._auditor.audit(start, seconds=seconds)
            except ServiceUnavailableError:
                # The next audit covers this one's time.
                continue
            except StoppedError:
                return
            since = ended.until
            if self._auditor.is_stream_silent(ended):
                self._no_stream = _SILENT
                self._polls_until = time.monotonic() + _POLLING_SECONDS
                if (stream := self._stream) is not None:
                    stream.close()

    def _repeat(self, ask: Callable[[], None], seconds: float) -> None:
        """Ask something again and again, until the run ends."""
        while not self._stopping.wait(seconds):
            try:
                ask()
            except ServiceUnavailableError:
                # It is asked again; the stream's reader reports what is wrong.
                continue
            except StoppedError:
                return

    def _compare_views(self) -> None:
        with suppress(ServiceUnavailableError, StoppedError):
            compared = compare_views(self._client, self._comparing_caller, self._rate_limits)
            if compared is not None:
                self._put(compared)

    def _wait_until_readable(self) -> bool:
        """Wait for the end of a pause; return False when stopping."""
        while not self._may_read.wait(0.1):
            if self._stopping.is_set():
                return False
        return not self._stopping.is_set()

    def _poll(self) -> None:
        """Poll the timeline until a pause, the end, or the next look for a stream."""
        self._opened_at = time.monotonic()
        self._put(PollStarted(datetime.now(UTC), self._no_stream))
        try:
            while self._may_read.is_set() and time.monotonic() < self._polls_until:
                self._poller.poll()
                self._rechecker.check_if_due()
                if self._stopping.wait(self._poller.pause_seconds()):
                    return
        except StoppedError:
            return

    def _read_events(self) -> None:
        with self._client.open_events() as stream:
            self._stream = stream
            self._opened_at = time.monotonic()
            try:
                self._connected_at = datetime.now(UTC)
                self._put(Connected(self._connected_at, stream.kind))
                if self._may_read.is_set():
                    for event in stream:
                        if event.name == "update" and (found := _FIRST_ID.match(event.data)):
                            # Before it is handled: an audit may come in between.
                            self._known.add(found[1], is_streamed=True)
                        if not self._put_event(event):
                            return
            finally:
                self._stream = None
        if time.monotonic() < self._polls_until:
            raise StreamSilentError(_SILENT)
        raise StreamEndedError("the stream was closed")

    def _seconds_to_retry(self, state: RetryCallState) -> float:
        error = _error_of(state)
        opened_at, self._opened_at = self._opened_at, None
        if opened_at is not None and time.monotonic() - opened_at >= _STABLE_SECONDS:
            state.attempt_number = 1
        if isinstance(error, RateLimitedError):
            # A server that still refuses after its own reset is asked less and less often.
            return max(pause_seconds(error.reset_at), _BACKOFF(state))
        if isinstance(error, RefusedError) and error.is_of_token:
            return REFUSED_TOKEN_SECONDS
        return _BACKOFF(state)

    def _put_disconnected(self, state: RetryCallState) -> None:
        self._put(Disconnected(datetime.now(UTC), _error_of(state), state.upcoming_sleep))

    def _put_event(self, event: StreamEvent) -> bool:
        """Wait a moment for room in the queue; return False when stopping.

        Raises:
            QueueFullError: The queue stays full.
        """
        deadline = time.monotonic() + _FULL_SECONDS
        while not self._stopping.is_set():
            try:
                self._queue.put(event, timeout=0.2)
            except queue.Full:
                if time.monotonic() > deadline:
                    raise QueueFullError(
                        "events arrive faster than they are handled; the stream is closed for now"
                    ) from None
                continue
            return True
        return False

    def _put(self, item: QueueItem) -> bool:
        """Wait for room in the queue; return False when stopping."""
        while not self._stopping.is_set():
            try:
                self._queue.put(item, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False


@contextmanager
def opened_event_queue(
    client: MastodonClient,
    rate_limits: RateLimits,
    poll_start: PollStart,
    *,
    audit_seconds: float = 0,
    home_questions: Callable[[], list[str]] | None = None,
) -> Iterator[EventQueue]:
    """Keep the stream connected until the end of the block."""
    queue = EventQueue(
        client,
        rate_limits,
        poll_start,
        audit_seconds=audit_seconds,
        home_questions=home_questions,
    )
    try:
        yield queue
    finally:
        queue.stop()


def _size_of(item: QueueItem) -> int:
    """Return about how many bytes of text an item holds."""
    match item:
        case StreamEvent():
            return len(item.data)
        case ListedStatus() | HistoryStatus() | AuditedStatus() | HomeAnswer():
            return _text_size(item.status)
        case _:
            return 0


def _text_size(document: object) -> int:
    """Return the number of characters of all texts in a document, and one per other value."""
    # Not recursive: a server may nest its answer deeper than Python's stack.
    size, waiting = 0, [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += value.keys()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        else:
            size += len(value) if isinstance(value, str) else 1
    return size


def _error_of(state: RetryCallState) -> ServiceUnavailableError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, ServiceUnavailableError), "no other error is retried"
    return error


def start_thread(name: str, work: Callable[[], _Result]) -> "Future[_Result]":
    """Run `work` in a thread that does not keep the process alive; return its future result."""
    future: Future[_Result] = Future()

    def run() -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - the future raises it
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
