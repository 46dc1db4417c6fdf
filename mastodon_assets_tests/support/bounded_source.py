"""A source for measurements: its live posts end, and several writers store each a moment late."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

from mastodon_assets.simulator.sources import Frame, Source, StreamInterrupted
from mastodon_assets.simulator.timeline import Entry, PageRequest


class BoundedSource:
    """A source that posts `posts` live posts and no more.

    With `late`, `writers` writers at once make an id each, store its row up to that many seconds
    later, and then go on with the next post, as GoToSocial does. So rows appear in another order
    than their ids. Timeline and stream show a post when its row is stored.
    """

    def __init__(self, source: Source, posts: int, *, late: float = 0, writers: int = 8) -> None:
        self._source = source
        self._posts = posts
        self._late = late
        self._writers = writers if late else 1
        self._unstored: set[str] = set()
        self.greeting = source.greeting
        self.is_over = False

    def history(self) -> Iterator[Frame]:
        return self._source.history()

    async def live(self) -> AsyncIterator[Frame | StreamInterrupted]:
        stored: asyncio.Queue[Frame | StreamInterrupted] = asyncio.Queue()
        items, taking = self._source.live(), asyncio.Lock()
        left = self._posts

        async def write() -> None:
            nonlocal left
            while True:
                async with taking:
                    if not left:
                        return
                    left -= 1
                    item = await anext(items)
                    status_id = _id_of(item)
                    self._unstored.add(status_id)
                # Any number that differs from post to post.
                await asyncio.sleep(self._late * (int(status_id or 0) % 1009) / 1009)
                self._unstored.discard(status_id)
                stored.put_nowait(item)

        tasks = [asyncio.create_task(write()) for _ in range(self._writers)]
        try:
            for _ in range(self._posts):
                yield await stored.get()
        finally:
            for task in tasks:
                task.cancel()
        self.is_over = True

    def page(self, request: PageRequest) -> list[Entry]:
        wanted = replace(request, limit=request.limit + len(self._unstored))
        shown = [e for e in self._source.page(wanted) if e.status_id not in self._unstored]
        # With `min_id` the page is the one right after it.
        return shown[-request.limit :] if request.min_id else shown[: request.limit]

    def status(self, status_id: str) -> bytes | None:
        return None if status_id in self._unstored else self._source.status(status_id)


def _id_of(item: Frame | StreamInterrupted) -> str:
    """Return the id of the post in a frame; an empty text for anything else."""
    if isinstance(item, StreamInterrupted) or not item.data.startswith(b"event: update"):
        return ""
    return str(json.loads(item.data.partition(b"data: ")[2])["id"])
