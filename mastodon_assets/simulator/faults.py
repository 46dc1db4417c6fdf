"""Scripted faults between a server and its clients, the same in every run.

What belongs here: which frames and answers are lost or refused. A fault changes what the stream
sends, never what happened: timeline and statuses are those of the wrapped source.
"""

import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from mastodon_assets.simulator.sources import Frame, Source, StreamInterrupted
from mastodon_assets.simulator.sse import event_frame
from mastodon_assets.simulator.timeline import Entry, PageRequest

_FIRST_UNKNOWN_ID = 105_000_000_000_000_000


@dataclass(frozen=True)
class Refusal:
    """An error in place of the real answer; a rate limit ends after `reset_seconds`."""

    status_code: int
    reset_seconds: float | None = None

    def headers(self) -> dict[str, str]:
        """Return the headers of a rate limit; none for other errors."""
        if self.reset_seconds is None:
            return {}
        reset = datetime.now(UTC) + timedelta(seconds=self.reset_seconds)
        return {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset.isoformat()}


@dataclass(frozen=True)
class Fault:
    """The end or stall of all streams at a given frame of the history.

    Attributes:
        after: Number of frames that are sent before.
        lost: Number of frames after that, which no client gets: nobody is connected then.
        behind: Ids of earlier posts that the stream never sends. The timeline lists them only
            after the fault, behind newer posts.
        in_mid_event: Whether half of the next frame is sent before the connection is reset.
        is_stall: Whether the streams fall silent and stay open.
        stream_refusals: The answers to the next requests for a stream.
        page_refusals: The answers to the next requests for posts.
    """

    after: int
    lost: int = 0
    behind: frozenset[str] = frozenset()
    in_mid_event: bool = False
    is_stall: bool = False
    stream_refusals: tuple[Refusal, ...] = ()
    page_refusals: tuple[Refusal, ...] = ()


def _end_nothing() -> None:
    return None


@dataclass
class ServerFaults:
    """Faults of a whole server, as real ones were seen to have them.

    Attributes:
        is_gone: 404 for each post and empty pages, as after a restore from a backup.
        is_revoked: Whether the token is refused. A socket that is open goes on.
        end_streams: Ends the open streams properly; set by the server.
    """

    is_gone: bool = False
    is_revoked: bool = False
    end_streams: Callable[[], None] = _end_nothing


class Unsent:
    """A source whose stream leaves out a share of the posts and stays open, as under load."""

    def __init__(self, source: Source, share: float) -> None:
        self._source = source
        self._share = share
        self._frames = 0
        self.greeting = source.greeting

    def history(self) -> Iterator[Frame]:
        """Return what the stream sends once, without the frames that are left out."""
        return map(self._sent, self._source.history())

    async def live(self) -> AsyncIterator[Frame | StreamInterrupted]:
        """Yield what happens after the history, without the frames that are left out."""
        async for item in self._source.live():
            yield item if isinstance(item, StreamInterrupted) else self._sent(item)

    def page(self, request: PageRequest) -> list[Entry]:
        """Return a page of the timeline, which is complete."""
        return self._source.page(request)

    def status(self, status_id: str) -> bytes | None:
        """Return the present version of a status; None if it is gone."""
        return self._source.status(status_id)

    def _sent(self, frame: Frame) -> Frame:
        if not frame.data.startswith(b"event: update"):
            return frame
        before = int(self._frames * self._share)
        self._frames += 1
        is_left_out = int(self._frames * self._share) > before
        return replace(frame, data=b"") if is_left_out else frame


class UnknownDeletes:
    """A source that also sends deletes of posts that were never public, as GoToSocial does.

    After every `every` posts of the stream there is a delete of an id that no timeline lists.
    """

    def __init__(self, source: Source, every: int) -> None:
        self._source = source
        self._every = every
        self._posts = 0
        self.greeting = source.greeting
        self.ids: list[str] = []

    def history(self) -> Iterator[Frame]:
        """Return what the stream sends once, with the deletes."""
        for frame in self._source.history():
            yield self._with_delete(frame)

    async def live(self) -> AsyncIterator[Frame | StreamInterrupted]:
        """Yield what happens after the history, with the deletes."""
        async for item in self._source.live():
            yield item if isinstance(item, StreamInterrupted) else self._with_delete(item)

    def page(self, request: PageRequest) -> list[Entry]:
        """Return a page of the timeline."""
        return self._source.page(request)

    def status(self, status_id: str) -> bytes | None:
        """Return the present version of a status; None if it is gone."""
        return self._source.status(status_id)

    def _with_delete(self, frame: Frame) -> Frame:
        if not frame.data.startswith(b"event: update"):
            return frame
        self._posts += 1
        if self._posts % self._every:
            return frame
        # In the range of ids of real posts, but long before the first one.
        self.ids.append(str(_FIRST_UNKNOWN_ID + self._posts))
        deleted = event_frame("delete", self.ids[-1].encode())
        return replace(frame, data=frame.data + deleted)


@dataclass
class _Refusals:
    stream_refusals: deque[Refusal] = field(default_factory=deque)
    page_refusals: deque[Refusal] = field(default_factory=deque)


class Faults:
    """A source with scripted faults. Its history continues after a restart of the server."""

    def __init__(self, source: Source, faults: Iterable[Fault]) -> None:
        self._source = source
        self._frames = source.history()
        self._sent = 0
        self._script = deque(sorted(faults, key=lambda fault: fault.after))
        self._hidden: set[str] = set().union(*(fault.behind for fault in self._script))
        self._refusals = _Refusals()
        self._lock = threading.Lock()

    @property
    def greeting(self) -> bytes:
        """Return the first bytes of a stream."""
        return self._source.greeting

    @property
    def is_over(self) -> bool:
        """Return whether every fault of the script has happened."""
        return not self._script

    def history(self) -> Iterator[Frame]:
        """Return the frames; faults raise `StreamInterrupted` between them."""
        return self

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        """Return the next frame.

        Raises:
            StreamInterrupted: The script has a fault here.
        """
        if self._script and self._sent >= self._script[0].after:
            raise self._start(self._script.popleft())
        frame = next(self._frames)
        self._sent += 1
        return frame if not self._is_hidden(frame) else replace(frame, data=b"")

    def live(self) -> AsyncIterator[Frame | StreamInterrupted]:
        """Return what happens after the history."""
        return self._source.live()

    def page(self, request: PageRequest) -> list[Entry]:
        """Return a page of the timeline, without posts that are not listed yet."""
        return [e for e in self._source.page(request) if e.status_id not in self._hidden]

    def status(self, status_id: str) -> bytes | None:
        """Return the present version of a status; None if it is gone."""
        return self._source.status(status_id)

    def refusal(self, path: str) -> Refusal | None:
        """Return the error for a request for `path`; None for the real answer."""
        is_stream = path.startswith(("/api/v1/streaming/public", "/api/v1/streaming/hashtag"))
        with self._lock:
            waiting = self._refusals.stream_refusals if is_stream else self._refusals.page_refusals
            is_of_kind = is_stream or path.startswith(("/api/v1/timelines", "/api/v1/statuses"))
            return waiting.popleft() if waiting and is_of_kind else None

    def _start(self, fault: Fault) -> StreamInterrupted:
        lost = [frame for _, frame in zip(range(fault.lost), self._frames, strict=False)]
        self._sent += len(lost)
        self._hidden -= fault.behind
        with self._lock:
            self._refusals.stream_refusals.extend(fault.stream_refusals)
            self._refusals.page_refusals.extend(fault.page_refusals)
        half = lost[0].data[: len(lost[0].data) // 2] if fault.in_mid_event and lost else b""
        return StreamInterrupted(half, is_stall=fault.is_stall)

    def _is_hidden(self, frame: Frame) -> bool:
        return any(f'"id":"{status_id}"'.encode() in frame.data for status_id in self._hidden)
