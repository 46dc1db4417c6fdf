"""The public timeline: the listed statuses, and paging through them."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice


@dataclass(frozen=True)
class Entry:
    """A listed status.

    Attributes:
        position: Its place in the order of the timeline.
        status_id: Its id.
        is_local: Whether its author is of this server.
        body: Returns the status as JSON.
        tags: Its hashtags, lower case.
        is_reply: Whether it answers another post.
    """

    position: int
    status_id: str
    is_local: bool
    body: Callable[[], bytes]
    tags: frozenset[str] = frozenset()
    is_reply: bool = False


@dataclass(frozen=True)
class PageRequest:
    """The parameters of a request, named as in the API.

    Attributes:
        limit: Size of the page.
        max_id: Only older posts.
        since_id: Only newer posts, the newest page.
        min_id: Only newer posts, the page right after it.
        is_local: Only local (True) or remote (False) posts; None for both.
        tag: Only posts with this hashtag; None for all.
        has_replies: Whether posts that answer others are wanted.
    """

    limit: int
    max_id: str | None = None
    since_id: str | None = None
    min_id: str | None = None
    is_local: bool | None = None
    tag: str | None = None
    has_replies: bool = True

    def wants(self, entry: Entry) -> bool:
        """Return whether the request is for such an entry."""
        has_tag = self.tag is None or self.tag.lower() in entry.tags
        is_of_kind = self.is_local in (None, entry.is_local)
        return has_tag and is_of_kind and (self.has_replies or not entry.is_reply)


class Timeline:
    """Statuses in ascending order of position.

    `position_of` returns the position of an id; for an unknown id, one before all others.
    """

    def __init__(self, entries: Iterable[Entry], *, position_of: Callable[[str], int]) -> None:
        self._entries = sorted(entries, key=_position)
        self._position_of = position_of

    def insert(self, entry: Entry) -> None:
        """Add an entry; most entries are the newest."""
        insort(self._entries, entry, key=_position)

    def remove(self, position: int) -> None:
        """Remove the entry at `position`, which must exist."""
        del self._entries[bisect_left(self._entries, position, key=_position)]

    def page(self, request: PageRequest) -> list[Entry]:
        """Return a page, newest first.

        With `min_id` it is the page that follows right after that id, so that a client can walk
        forward. With `since_id` it is the newest page above that id, which may leave a hole.
        """
        lowest, highest = 0, len(self._entries)
        for lower in (request.min_id, request.since_id):
            if lower is not None:
                above = bisect_right(self._entries, self._position_of(lower), key=_position)
                lowest = max(lowest, above)
        if request.max_id is not None:
            highest = bisect_left(self._entries, self._position_of(request.max_id), key=_position)
        if request.min_id is not None:
            return self._take(range(lowest, highest), request)[::-1]
        return self._take(range(highest - 1, lowest - 1, -1), request)

    def _take(self, indexes: range, request: PageRequest) -> list[Entry]:
        candidates = (self._entries[index] for index in indexes)
        page = list(islice(filter(request.wants, candidates), request.limit))
        # The client continues from the id of the last entry. If that id is at another position too,
        # the client would continue from there, and skip entries or never end.
        while len(page) > 1 and self._position_of(page[-1].status_id) != page[-1].position:
            page.pop()
        return page


def _position(entry: Entry) -> int:
    return entry.position
