"""Two servers that show each other's posts, as two GoToSocials 0.20.0 did.

What belongs here: how a post looks at a server that is not its home, and what a block does. Abroad
a post has another id, made of its time. Times are cut to the second, and accounts have a domain.
A server that blocks a domain deletes every post of it, and hears of nothing there from then on.
"""

import asyncio
import json
import threading
import zlib
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from mastodon_assets.simulator import sse
from mastodon_assets.simulator.sources import Frame, Source, StreamInterrupted
from mastodon_assets.simulator.statuses import snowflake
from mastodon_assets.simulator.timeline import Entry, PageRequest, Timeline

_POLL_SECONDS = 0.02
_MOST_POSTS = 1_000_000


class FederatedSource:
    """A source of one server, with the local posts of another one after `follow`."""

    def __init__(self, source: Source, domain: str) -> None:
        """Wrap a source; `domain` is that of its accounts."""
        self._source = source
        self.domain = domain
        self.greeting = source.greeting
        self._peer: FederatedSource | None = None
        self._is_blocking = False
        # Other threads append, and only the server's own takes.
        self._inbox: deque[Frame] = deque()
        self._abroad: dict[str, bytes] = {}
        self._removed: set[str] = set()
        self._timeline = Timeline([], position_of=_position)
        self._lock = threading.Lock()

    def send_to(self, peer: "FederatedSource") -> None:
        """Show the local posts to another server, the ones until now and later ones."""
        self._peer = peer
        for entry in self._source.page(PageRequest(limit=_MOST_POSTS, is_local=True)):
            peer.receive(json.loads(entry.body()), self.domain, is_announced=False)

    def block(self) -> list[str]:
        """Delete all posts of the other server, and receive none from now on; return their ids."""
        self._is_blocking = True
        ids = list(self._abroad)
        for status_id in ids:
            self._remove_abroad(status_id)
        return ids

    def remove(self, status_ids: list[str]) -> None:
        """Delete posts of this server here; the other one hears of it unless it blocks."""
        for status_id in status_ids:
            body = self._source.status(status_id)
            self._removed.add(status_id)
            self._announce("delete", status_id.encode(), is_local=True)
            if body is not None and self._peer is not None:
                self._peer.forget(json.loads(body), self.domain)

    def history(self) -> Iterator[Frame]:
        """Return what the stream sends once: posts of this server."""
        return self._source.history()

    async def live(self) -> AsyncIterator[Frame | StreamInterrupted]:
        """Yield what both servers post, as it happens."""
        queue: asyncio.Queue[Frame | StreamInterrupted] = asyncio.Queue()

        async def post() -> None:
            async for item in self._source.live():
                if isinstance(item, Frame) and item.is_local and self._peer is not None:
                    self._peer.receive(_document(item), self.domain, is_announced=True)
                queue.put_nowait(item)

        task = asyncio.create_task(post())
        try:
            while True:
                while self._inbox:
                    yield self._inbox.popleft()
                try:
                    yield await asyncio.wait_for(queue.get(), _POLL_SECONDS)
                except TimeoutError:
                    continue
        finally:
            task.cancel()

    def page(self, request: PageRequest) -> list[Entry]:
        """Return a page of both servers' posts."""
        wanted = replace(request, limit=request.limit + len(self._removed))
        own = [entry for entry in self._source.page(wanted) if entry.status_id not in self._removed]
        with self._lock:
            abroad = self._timeline.page(request)
        found = sorted([*own, *abroad], key=lambda entry: entry.position, reverse=True)
        # With `min_id` the page is the one right after it.
        return found[-request.limit :] if request.min_id else found[: request.limit]

    def status(self, status_id: str) -> bytes | None:
        """Return the present version of a status; None if it is gone."""
        if status_id in self._removed:
            return None
        return self._abroad.get(status_id) or self._source.status(status_id)

    def receive(self, status: dict[str, Any], domain: str, *, is_announced: bool) -> None:
        """Take a post of the other server."""
        if self._is_blocking or status["visibility"] != "public" or status["reblog"] is not None:
            return
        body = sse.utf8(sse.json_text(seen_abroad(status, domain)))
        status_id = json.loads(body)["id"]
        if status_id in self._abroad:
            return
        tags = frozenset(tag["name"].lower() for tag in status["tags"])
        with self._lock:
            self._abroad[status_id] = body
            self._timeline.insert(Entry(int(status_id), status_id, False, lambda: body, tags))
        if is_announced:
            self._announce("update", body, is_local=False)

    def forget(self, status: dict[str, Any], domain: str) -> None:
        """Take a delete of the other server."""
        status_id = seen_abroad(status, domain)["id"]
        if status_id in self._abroad:
            self._remove_abroad(status_id)

    def _remove_abroad(self, status_id: str) -> None:
        with self._lock:
            del self._abroad[status_id]
            self._timeline.remove(int(status_id))
        self._announce("delete", status_id.encode(), is_local=False)

    def _announce(self, kind: str, data: bytes, *, is_local: bool) -> None:
        self._inbox.append(Frame(sse.event_frame(kind, data), is_local))


def seen_abroad(status: dict[str, Any], domain: str) -> dict[str, Any]:
    """Return a status as a server shows it that is not its home; `domain` is that of its author."""
    account = {**status["account"], "acct": f"{status['account']['acct']}@{domain}"}
    created_at = datetime.fromisoformat(status["created_at"]).replace(microsecond=0)
    rest = zlib.crc32(status["uri"].encode())
    milliseconds = int(created_at.timestamp()) * 1000
    return {
        **status,
        # Within a second, ids abroad are in no order.
        "id": snowflake(milliseconds + rest % 1000, rest & 0xFFFF),
        "in_reply_to_id": None,
        "in_reply_to_account_id": None,
        "created_at": f"{created_at:%Y-%m-%dT%H:%M:%S}.000Z",
        "edited_at": status["edited_at"] and f"{status['edited_at'][:19]}.000Z",
        "account": {key: value for key, value in account.items() if key != "noindex"},
    }


def _document(frame: Frame) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(frame.data.partition(b"data: ")[2])
    return document


def _position(status_id: str) -> int:
    return int(status_id) if status_id.isdecimal() else 0
