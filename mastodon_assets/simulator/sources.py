"""Sources of a simulated server: their protocol, synthetic toots, and a recorded stream.

What belongs here: what is sent and listed. How it is served is in `server`; recorded statuses are
in `recorded`. A source does not know its clients.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from mastodon_assets.simulator import sse
from mastodon_assets.simulator.engagement import with_engagement
from mastodon_assets.simulator.statuses import Status
from mastodon_assets.simulator.synthetic import Event, LivePosts
from mastodon_assets.simulator.timeline import Entry, PageRequest, Timeline


@dataclass(frozen=True)
class Frame:
    """Bytes for the streams.

    Attributes:
        data: The bytes.
        is_local: Which streams get it, local or remote ones; None for both.
        tags: The hashtag streams that get it; None for all.
    """

    data: bytes
    is_local: bool | None
    tags: frozenset[str] | None = None


class StreamInterrupted(Exception):
    """Ends all streams. A source's history raises it and can be continued; `live` yields it.

    Attributes:
        tail: The last bytes before the connection is reset; if empty, the stream ends properly.
        is_stall: Whether the streams fall silent, without heartbeats, until the next one ends them.
    """

    def __init__(self, tail: bytes, *, is_stall: bool) -> None:
        super().__init__()
        self.tail = tail
        self.is_stall = is_stall


class Source(Protocol):
    """The content of a simulated server."""

    @property
    def greeting(self) -> bytes:
        """Return the first bytes of a stream."""

    def history(self) -> Iterator[Frame]:
        """Return what the stream sends once, in order. Called once."""

    def live(self) -> AsyncIterator[Frame | StreamInterrupted]:
        """Return what happens after the history, as it happens."""

    def page(self, request: PageRequest) -> list[Entry]:
        """Return a page of the public timeline, newest first."""

    def status(self, status_id: str) -> bytes | None:
        """Return the present version of a status as JSON; None if unknown or deleted."""


class SyntheticSource:
    """Events of a synthetic history, then `rate` new posts per second (0: none)."""

    greeting = sse.GREETING

    def __init__(self, events: Iterable[Event], *, live: LivePosts, rate: float = 0) -> None:
        self._events = list(events)
        self._sent_statuses = {
            event.status_id: event.status for event in self._events if event.status
        }
        self._live = live
        self._rate = rate
        self._statuses = _present_statuses(self._events)
        listed = (_entry(status) for status in self._statuses.values() if _is_listed(status))
        self._timeline = Timeline(listed, position_of=_number)

    def history(self) -> Iterator[Frame]:
        """Return the frames of the events."""
        return map(self._frame, self._events)

    async def live(self) -> AsyncIterator[Frame | StreamInterrupted]:
        """Yield new posts at the given rate."""
        if self._rate <= 0:
            return
        clock = asyncio.get_running_loop().time
        started, posted = clock(), 0
        while True:
            posted += 1
            await asyncio.sleep(max(0, started + posted / self._rate - clock()))
            yield self._post()

    def page(self, request: PageRequest) -> list[Entry]:
        """Return a page of the timeline, newest first."""
        return self._timeline.page(request)

    def status(self, status_id: str) -> bytes | None:
        """Return the present version of a status; private ones cannot be requested."""
        status = self._statuses.get(status_id)
        if status is None or status["visibility"] == "private":
            return None
        return _present_json(status)

    def _post(self) -> Frame:
        event = self._live.post(datetime.now(UTC))
        assert event.status is not None
        self._statuses[event.status_id] = event.status
        self._timeline.insert(_entry(event.status))
        return self._frame(event)

    def _frame(self, event: Event) -> Frame:
        return frame_of(event, event.status or self._sent_statuses.get(event.status_id))


class RawStream:
    """A recorded stream: the file's bytes, unchanged, with its own greeting. No timeline."""

    greeting = b""

    def __init__(self, path: Path) -> None:
        self._data = path.read_bytes()

    def history(self) -> Iterator[Frame]:
        """Yield the file as one frame."""
        yield Frame(self._data, is_local=None)

    async def live(self) -> AsyncIterator[Frame | StreamInterrupted]:
        """Yield nothing."""
        return
        yield

    def page(self, _request: PageRequest) -> list[Entry]:
        """Return an empty page."""
        return []

    def status(self, _status_id: str) -> bytes | None:
        """Return None: no status is known."""
        return None


def _present_statuses(events: Iterable[Event]) -> dict[str, Status]:
    """Return the latest version of every status that was not deleted, by id."""
    versions: dict[str, Status] = {}
    deleted = set()
    for event in events:
        if event.kind == "delete":
            deleted.add(event.status_id)
        elif event.status is not None:
            known = versions.get(event.status_id)
            if known is None or _edited_at(known) < _edited_at(event.status):
                versions[event.status_id] = event.status
    return {key: status for key, status in versions.items() if key not in deleted}


def _edited_at(status: Status) -> str:
    return status["edited_at"] or ""


def _is_listed(status: Status) -> bool:
    return status["visibility"] == "public" and status["reblog"] is None


def _is_local(status: Status) -> bool:
    return "@" not in status["account"]["acct"]


def tags_of(status: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the hashtags, lower case."""
    tags = status.get("tags")
    names = [tag.get("name") for tag in tags if isinstance(tag, Mapping)] if tags else []
    return frozenset(name.lower() for name in names if isinstance(name, str))


def frame_of(event: Event, status: Status | None) -> Frame:
    """Return the frame of an event; a delete goes to the streams that got the post."""
    if event.status is not None:
        data = _json(event.status)
    else:
        data = sse.utf8(event.status_id if event.data is None else event.data)
    frame = sse.event_frame(event.kind, data)
    if status is None:
        return Frame(frame, is_local=None)
    return Frame(frame, _is_local(status), tags_of(status))


def _entry(status: Status) -> Entry:
    return entry_of(status, position=_number(status["id"]))


def entry_of(status: Status, *, position: int) -> Entry:
    """Return the entry of a status in the timeline; its body has the present counts."""
    return Entry(
        position,
        status["id"],
        _is_local(status),
        partial(_present_json, status),
        tags_of(status),
        status["in_reply_to_id"] is not None,
    )


def _number(status_id: str) -> int:
    return int(status_id) if status_id.isdecimal() else 0


def _present_json(status: Status) -> bytes:
    """Return the status with its present counts; the stream sent it with the initial ones."""
    return _json(with_engagement(status, datetime.now(UTC)))


def _json(status: Status) -> bytes:
    return sse.utf8(sse.json_text(status))
