"""The stream and the walk of the timeline, each read by a thread, in one bounded queue.

What belongs here: who reads what when, and how the reading ends. What an arrival means stands in
`intake`.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.mastodon.client import (
    EventStream,
    MastodonClient,
    RateLimitedError,
    StreamEvent,
)
from mastodon_assets.mastodon.normalise import readable_id

_QUEUED_ARRIVALS = 2_000
_STOP_SECONDS = 1
# Mastodon counts paged requests in windows of 15 minutes (rack_attack.rb).
_LONGEST_PAUSE_SECONDS = 15 * 60
_SHORTEST_PAUSE_SECONDS = 5
_PAUSES_IN_A_ROW = 3


@dataclass(frozen=True)
class ListedStatus:
    """A status of the timeline; `cursor` is its id, None where it has none."""

    status: Mapping[str, Any]
    cursor: str | None
    received_at: datetime


@dataclass(frozen=True)
class WalkEnded:
    """The timeline has no more; everything it had stands before this in the queue."""


Arrival = StreamEvent | ListedStatus | WalkEnded


class Arrivals:
    """Arrivals in the order in which they are to be taken; made and ended by `arriving`."""

    def __init__(self, client: MastodonClient, stream: EventStream, walk_from: str | None) -> None:
        self._client = client
        self._stream = stream
        self._queue: queue.Queue[Arrival] = queue.Queue(_QUEUED_ARRIVALS)
        self._stopping = threading.Event()
        self._stream_reader = _start("stream-reader", self._read_stream)
        self._readers = [self._stream_reader]
        if walk_from is not None:
            self._readers.append(_start("timeline-walker", lambda: self._walk(walk_from)))

    def next(self, seconds: float) -> Arrival | None:
        """The next arrival; None if there is none within `seconds`.

        Raises: whatever ended a reader, once all that it had read is taken.
        """
        try:
            return self._queue.get(timeout=seconds)
        except queue.Empty:
            for reader in self._readers:
                if reader.done() and self._queue.empty():
                    reader.result()
            return None

    def has_stream_ended(self) -> bool:
        """The server has ended the stream and all of it is taken."""
        return self._stream_reader.done() and self._queue.empty()

    def stop(self) -> None:
        """End both readers; what they still read is dropped."""
        self._stopping.set()
        self._stream.close()
        for reader in self._readers:
            # A reader that waits for an answer of the server ends on its own, later.
            try:
                reader.exception(_STOP_SECONDS)
            except TimeoutError:
                continue

    def _read_stream(self) -> None:
        for event in self._stream:
            if not self._put(event):
                return

    def _walk(self, min_id: str) -> None:
        asked = {min_id}
        while page := self._page(min_id):
            for status in reversed(page):
                listed = ListedStatus(status, _status_id(status), datetime.now(UTC))
                if not self._put(listed):
                    return
            min_id = _newest_id(page) or min_id
            if min_id in asked:
                raise ServiceUnavailableError(
                    "the server's timeline does not go on: it lists the same page again;"
                    " report it to its software's makers, the stream alone works"
                )
            asked.add(min_id)
        self._put(WalkEnded())

    def _page(self, min_id: str) -> list[Mapping[str, Any]]:
        """The page after `min_id`, empty when stopping. Raises: ServiceUnavailableError."""
        for _ in range(_PAUSES_IN_A_ROW):
            try:
                return self._client.timeline_page(min_id)
            except RateLimitedError as error:
                if self._stopping.wait(_pause_seconds(error.reset_at)):
                    return []
        return self._client.timeline_page(min_id)

    def _put(self, arrival: Arrival) -> bool:
        """Wait for room in the queue; False when stopping."""
        while not self._stopping.is_set():
            try:
                self._queue.put(arrival, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False


@contextmanager
def arriving(client: MastodonClient, *, walk_from: str | None) -> Iterator[Arrivals]:
    """Connect to the stream, then walk the timeline from `walk_from` on; None does not walk.

    In this order, so that nothing lies between the two.
    Raises: ServiceUnavailableError where the server cannot be reached or refuses.
    """
    with client.open_stream() as stream:
        arrivals = Arrivals(client, stream, walk_from)
        try:
            yield arrivals
        finally:
            arrivals.stop()


def _start(name: str, work: Callable[[], None]) -> "Future[None]":
    """Run `work` in a thread that does not keep the process alive."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def _newest_id(page: list[Mapping[str, Any]]) -> str | None:
    """A page stands newest first; that order counts, ids are opaque."""
    return next((found for status in page if (found := _status_id(status))), None)


def _status_id(status: object) -> str | None:
    return readable_id(status.get("id")) if isinstance(status, Mapping) else None


def _pause_seconds(reset_at: datetime | None) -> float:
    wanted = 60 if reset_at is None else (reset_at - datetime.now(UTC)).total_seconds()
    return min(max(wanted, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
