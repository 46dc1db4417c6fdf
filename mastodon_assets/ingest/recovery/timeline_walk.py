"""What the stream did not tell, asked for by REST, inside the server's limits.

What belongs here: which requests are made for a gap, in which order and how fast. What becomes of
the answers stands in `handler`, what is recorded of a gap in `gaps`.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest.api.client import MOST_IDS, NOT_SERVED_BY_IDS, OLDEST, MastodonClient
from mastodon_assets.ingest.api.errors import RefusedError
from mastodon_assets.ingest.api.rate_limits import (
    OutOfTimeError,
    RateLimitedCaller,
    RateLimits,
    StoppedError,
)
from mastodon_assets.ingest.api.status_ids import _status_id, newest_id, snowflake_time

# Posts that a server fetches late get an id of their own time and land behind the cursor.
OVERLAP = timedelta(minutes=30)
# What the budget does not bring in this time, a server is too busy for.
_LONGEST_WALK_SECONDS = 60 * 60
# 30 minutes of five posts a second; of 300 pages in 15 minutes some are left for what was missed.
_MOST_PAGES_OF_OVERLAP = 225
_TOO_MANY_POSTS = "more was posted than the server's limits let be read"


@dataclass(frozen=True)
class ListedStatus:
    """A status of the timeline; `cursor` is its id where all before it has been listed too."""

    status: Mapping[str, Any]
    cursor: str | None
    received_at: datetime


@dataclass(frozen=True)
class GoneStatus:
    """A post that the server has no more."""

    status_id: str
    received_at: datetime


@dataclass(frozen=True)
class WalkReachedStream:
    """From here on the stream has told all that the timeline lists."""


@dataclass(frozen=True)
class WalkEnded:
    """Everything that could be had stands before this in the queue.

    `failure` says what could not be had, None where nothing is known to be missing.
    """

    failure: str | None


@dataclass(frozen=True)
class WalkFailed:
    """The server did not answer; what was listed before stands before this in the queue."""

    error: ServiceUnavailableError


WalkItem = ListedStatus | GoneStatus | WalkReachedStream | WalkEnded | WalkFailed


@dataclass(frozen=True)
class WalkRequest:
    """A walk from `start` on, or from the oldest post served.

    `known_ids` are asked for again, because a delete of one may have been missed.
    """

    start: str
    known_ids: list[str]


class TimelineWalker:
    """Walks one route at a time, in whatever thread calls `walk`."""

    def __init__(
        self,
        client: MastodonClient,
        *,
        asker: RateLimitedCaller,
        rate_limits: RateLimits,
        put: Callable[[WalkItem], bool],
        streamed_ids: set[str],
    ) -> None:
        """`put` waits for room and is false when stopping; `streamed_ids` is filled by others."""
        self._client = client
        self._asker = asker
        self._rate_limits = rate_limits
        self._put_item = put
        self._streamed_ids = streamed_ids

    def walk(self, request: WalkRequest) -> None:
        """Put what `request` brings, and at the end `WalkEnded` or `WalkFailed`."""
        try:
            self._put(WalkEnded(self._failure_of(request)))
        except StoppedError:
            return
        except ServiceUnavailableError as error:
            self._put_item(WalkFailed(error))

    def _failure_of(self, request: WalkRequest) -> str | None:
        listed, has_arrived = self._walk_forward(request.start)
        if not has_arrived:
            # Deletes are asked for by requests of another limit, which may be left.
            unasked = self._look_for_deletes(request.known_ids)
            return "; ".join(filter(None, (_TOO_MANY_POSTS, unasked)))
        if request.start == OLDEST:
            self._put(WalkReachedStream())
            return None
        if listed == 0 and self._walk_back(request.start) == 0:
            return "the server lists no posts"
        self._put(WalkReachedStream())
        if listed:
            self._walk_back(request.start)
        return self._look_for_deletes(request.known_ids)

    def _walk_forward(self, start: str) -> tuple[int, bool]:
        """How many posts were listed, and whether the walk arrived where the stream is."""
        deadline = math.inf if start == OLDEST else time.monotonic() + _LONGEST_WALK_SECONDS
        has_arrived = self._is_streamed if start != OLDEST else _End(self._newest_ids()).is_passed
        min_id, asked, listed = start, {start}, 0
        while True:
            try:
                page = self._page(self._client.timeline_page, min_id, deadline)
            except OutOfTimeError:
                return listed, False
            if not page:
                return listed, True
            self._put_page(page, moves_cursor=True)
            listed += len(page)
            if has_arrived(page):
                return listed, True
            min_id = newest_id(page) or min_id
            if min_id in asked:
                raise ServiceUnavailableError(
                    "the server's timeline does not go on: it lists the same page again;"
                    " report it to its software's makers, the stream alone works"
                )
            asked.add(min_id)
            if time.monotonic() > deadline:
                return listed, False

    def _newest_ids(self) -> list[str]:
        page = self._asker.ask(self._rate_limits.every, self._client.newest_page)
        return [status_id for status in page if (status_id := _status_id(status))]

    def _is_streamed(self, page: list[Mapping[str, Any]]) -> bool:
        """The stream told all of it, so what follows too: a busy timeline has no empty page."""
        return all(_status_id(status) in self._streamed_ids for status in page)

    def _walk_back(self, start: str) -> int:
        """List what lies up to 30 minutes before `start`, by the ids' time; else one page.

        On a server so busy that this would take most of what the limits allow, as many pages as
        they leave: what comes late there is rarely worth what was missed elsewhere.
        """
        began_at, max_id, listed = snowflake_time(start), start, 0
        for _ in range(_MOST_PAGES_OF_OVERLAP):
            page = self._page(self._client.timeline_page_before, max_id)
            self._put_page(page, moves_cursor=False)
            listed += len(page)
            oldest = newest_id(page[::-1])
            if oldest is None or oldest == max_id or began_at is None:
                break
            reached = snowflake_time(oldest)
            if reached is None or reached < began_at - OVERLAP:
                break
            max_id = oldest
        return listed

    def _look_for_deletes(self, known_ids: list[str]) -> str | None:
        """Ask again for posts that were published; what was missed of one is an edit or a delete.

        A post that is missing in a list may be hidden for other reasons: only its own 404 or 410
        counts.
        """
        for first in range(0, len(known_ids), MOST_IDS):
            ids = known_ids[first : first + MOST_IDS]
            try:
                statuses = self._asker.ask(
                    self._rate_limits.every, partial(self._client.statuses, ids)
                )
            except RefusedError as error:
                if error.is_of_token or error.status_code >= 500:
                    raise
                return NOT_SERVED_BY_IDS
            self._put_page(statuses, moves_cursor=False)
            shown = {_status_id(status) for status in statuses}
            for status_id in (each for each in ids if each not in shown):
                is_gone = partial(self._client.is_gone, status_id)
                if self._asker.ask(self._rate_limits.every, is_gone):
                    self._put(GoneStatus(status_id, datetime.now(UTC)))
        return None

    def _put_page(self, page: list[Mapping[str, Any]], *, moves_cursor: bool) -> None:
        for status in reversed(page):
            cursor = _status_id(status) if moves_cursor else None
            self._put(ListedStatus(status, cursor, datetime.now(UTC)))

    def _put(self, item: WalkItem) -> None:
        if not self._put_item(item):
            raise StoppedError

    def _page(
        self,
        ask: Callable[[str], list[Mapping[str, Any]]],
        status_id: str,
        deadline: float = math.inf,
    ) -> list[Mapping[str, Any]]:
        return self._asker.ask(self._rate_limits.paged, partial(ask, status_id), deadline=deadline)


class _End:
    """Where a timeline ended when its walk began, with an open stream that tells what is newer.

    On a busy server no page is ever empty.
    """

    def __init__(self, newest_ids: list[str]) -> None:
        self._newest_ids = newest_ids
        self._was_near = False

    def is_passed(self, page: list[Mapping[str, Any]]) -> bool:
        """The newest post of then is in `page`, or was deleted and those before it are passed."""
        listed = {_status_id(status) for status in page}
        if self._newest_ids[:1] and self._newest_ids[0] in listed:
            return True
        is_near = not listed.isdisjoint(self._newest_ids)
        self._was_near, was_near = is_near, self._was_near
        return was_near and not is_near
