"""A source for measurements: its live posts end, and the timeline lists each a moment late."""

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

from mastodon_assets.simulator.sources import Frame, Source, StreamInterrupted
from mastodon_assets.simulator.timeline import Entry, PageRequest


class BoundedSource:
    """A source that posts `posts` live posts and no more.

    The row of an id appears up to `late` seconds after the id was made, in another order than the
    ids, as on a server with several writers.
    """

    def __init__(self, source: Source, posts: int, *, late: float = 0) -> None:
        self._source = source
        self._posts = posts
        self._late = late
        self.greeting = source.greeting
        self.is_over = False

    def history(self) -> Iterator[Frame]:
        return self._source.history()

    async def live(self) -> AsyncIterator[Frame | StreamInterrupted]:
        posted = 0
        async for item in self._source.live():
            yield item
            posted += 1
            if posted == self._posts:
                break
        self.is_over = True

    def page(self, request: PageRequest) -> list[Entry]:
        if not self._late:
            return self._source.page(request)
        now, limit = time.time(), request.limit
        while True:
            found = self._source.page(replace(request, limit=limit))
            shown = [entry for entry in found if self._shown_at(entry) <= now]
            if len(shown) >= request.limit or len(found) < limit:
                # With `min_id` the page is the one right after it.
                return shown[-request.limit :] if request.min_id else shown[: request.limit]
            limit *= 4

    def status(self, status_id: str) -> bytes | None:
        return self._source.status(status_id)

    def _shown_at(self, entry: Entry) -> float:
        """Return when the row of an id appears: its own time, and a part of the delay."""
        share = int(entry.status_id) % 1009 / 1009
        return (int(entry.status_id) >> 16) / 1000 + share * self._late
