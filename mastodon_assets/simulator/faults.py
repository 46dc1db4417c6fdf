"""What goes wrong between a server and its clients: scripted, so that it is the same in every run.

What belongs here: which frames and answers do not come as they should. A fault changes what the
stream tells, never what happened: the timeline and the statuses are those of the wrapped source.
"""

import threading
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from mastodon_assets.simulator.sources import Frame, Interrupted, Source
from mastodon_assets.simulator.timeline import Entry, PageRequest


@dataclass(frozen=True)
class Refusal:
    """An answer in place of the real one; `reset_seconds` is when a rate limit ends."""

    status_code: int
    reset_seconds: float | None = None

    def headers(self) -> dict[str, str]:
        if self.reset_seconds is None:
            return {}
        reset = datetime.now(UTC) + timedelta(seconds=self.reset_seconds)
        return {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset.isoformat()}


@dataclass(frozen=True)
class Fault:
    """After `after` frames of the history all streams end, or stall with `is_stall`.

    With `in_mid_event` half of the next frame is sent and the connection torn. The next `lost`
    frames no client gets: they tell what happens while nobody is connected. Of the frames before,
    the last `behind` posts come late: no client gets them, and the timeline lists them only now,
    with the ids they have. `of_streams` are the answers to the next requests for a stream,
    `of_pages` those to the next requests for anything else.
    """

    after: int
    lost: int = 0
    behind: frozenset[str] = frozenset()
    in_mid_event: bool = False
    is_stall: bool = False
    of_streams: tuple[Refusal, ...] = ()
    of_pages: tuple[Refusal, ...] = ()


@dataclass
class _Refusals:
    of_streams: deque[Refusal] = field(default_factory=deque)
    of_pages: deque[Refusal] = field(default_factory=deque)


class Faults:
    """`source` with what goes wrong. Its history goes on where it was when a server restarts."""

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
        return self._source.greeting

    @property
    def is_over(self) -> bool:
        """All that is in the script has happened."""
        return not self._script

    def history(self) -> Iterator[Frame]:
        return self

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        """The next frame. Raises: Interrupted where a fault stands in the script."""
        if self._script and self._sent >= self._script[0].after:
            raise self._happen(self._script.popleft())
        frame = next(self._frames)
        self._sent += 1
        return frame if not self._is_hidden(frame) else replace(frame, data=b"")

    def live(self) -> AsyncIterator[Frame | Interrupted]:
        return self._source.live()

    def page(self, request: PageRequest) -> list[Entry]:
        return [e for e in self._source.page(request) if e.status_id not in self._hidden]

    def status(self, status_id: str) -> bytes | None:
        return self._source.status(status_id)

    def refusal(self, path: str) -> Refusal | None:
        """The answer to a request for `path`, None for the real one."""
        is_stream = path.startswith(("/api/v1/streaming/public", "/api/v1/streaming/hashtag"))
        with self._lock:
            waiting = self._refusals.of_streams if is_stream else self._refusals.of_pages
            is_of_kind = is_stream or path.startswith(("/api/v1/timelines", "/api/v1/statuses"))
            return waiting.popleft() if waiting and is_of_kind else None

    def _happen(self, fault: Fault) -> Interrupted:
        lost = [frame for _, frame in zip(range(fault.lost), self._frames, strict=False)]
        self._sent += len(lost)
        self._hidden -= fault.behind
        with self._lock:
            self._refusals.of_streams.extend(fault.of_streams)
            self._refusals.of_pages.extend(fault.of_pages)
        half = lost[0].data[: len(lost[0].data) // 2] if fault.in_mid_event and lost else b""
        return Interrupted(half, is_stall=fault.is_stall)

    def _is_hidden(self, frame: Frame) -> bool:
        return any(f'"id":"{status_id}"'.encode() in frame.data for status_id in self._hidden)
