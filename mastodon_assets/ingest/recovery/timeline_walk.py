"""The walk of a timeline for a gap, within the server's rate limits.

What belongs here: which requests are made for a gap, in which order and how fast. What becomes of
the answers is in `handler`; what is recorded of a gap is in `gaps`.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpx

from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest.api.client import MOST_IDS, NOT_SERVED_BY_IDS, OLDEST, MastodonClient
from mastodon_assets.ingest.api.errors import RefusedError
from mastodon_assets.ingest.api.rate_limits import (
    OutOfTimeError,
    RateLimitedCaller,
    RateLimits,
    StoppedError,
)
from mastodon_assets.ingest.api.status_ids import (
    id_time,
    is_number,
    listed_id,
    newest_id,
)

# Posts that a server fetches late get an id of their own time, which is behind the cursor.
OVERLAP = timedelta(minutes=30)
# After this time a walk is reported, and goes on later: other gaps and polls wait meanwhile.
_LONGEST_WALK_SECONDS = 60 * 60
# 30 minutes at five posts per second; of 300 pages in 15 minutes some are left for the gap itself.
_MOST_PAGES_OF_OVERLAP = 225
# Posts that are requested one by one after a gap, if the server serves no lists of them.
_MOST_SINGLE_REQUESTS = 100
_TOO_MANY_POSTS = "more was posted than the server's rate limits allow to be read"


@dataclass(frozen=True)
class ListedStatus:
    """A status of the timeline; `cursor` is its id if all before it has been listed too."""

    status: Mapping[str, Any]
    cursor: str | None
    received_at: datetime


@dataclass(frozen=True)
class GonePosts:
    """The posts that the server does not have any more, of `asked` posts."""

    status_ids: list[str]
    asked: int
    received_at: datetime


@dataclass(frozen=True)
class WalkReachedStream:
    """From here on the stream has sent everything that the timeline lists."""


@dataclass(frozen=True)
class WalkEnded:
    """The walk has ended; everything it found comes before this in the queue.

    `failure` says what could not be recovered; None if nothing is known to be missing. `goes_on`
    says that the rate limits allowed some of it, and more later.
    """

    failure: str | None
    goes_on: bool = False


@dataclass(frozen=True)
class WalkFailed:
    """The server did not answer; what it listed before comes before this in the queue."""

    error: ServiceUnavailableError


WalkItem = ListedStatus | GonePosts | WalkReachedStream | WalkEnded | WalkFailed


@dataclass(frozen=True)
class WalkRequest:
    """A walk from `start` on, or from the oldest post served.

    `known_ids` are requested again, because their deletes may have been missed. `goes_on` says that
    it continues a walk that came to a limit.
    """

    start: str
    known_ids: list[str]
    goes_on: bool = False


class PostChecker:
    """Requests published posts again, because edits and deletes may have been missed.

    A post that is missing in a list may be hidden for other reasons; only a 404 or 410 of its own
    counts as a delete.
    """

    def __init__(
        self,
        client: MastodonClient,
        *,
        caller: RateLimitedCaller,
        rate_limits: RateLimits,
        put: Callable[[WalkItem], bool],
    ) -> None:
        self._client = client
        self._caller = caller
        self._rate_limits = rate_limits
        self._put_item = put

    def check(self, known_ids: list[str]) -> int:
        """Put the posts that are shown, and `GonePosts`; return how many were not requested.

        Raises:
            StoppedError: The run ends.
            ServiceUnavailableError: The server does not answer; nothing counts as gone.
        """
        if not known_ids:
            return 0
        gone: list[str] = []
        unchecked = self._ask_for(known_ids, gone)
        self._put(GonePosts(gone, len(known_ids) - unchecked, datetime.now(UTC)))
        return unchecked

    def _ask_for(self, known_ids: list[str], gone: list[str]) -> int:
        """Request posts, add those that are gone, and return how many were not requested."""
        for first in range(0, len(known_ids), MOST_IDS):
            ids = known_ids[first : first + MOST_IDS]
            try:
                statuses = self._caller.call(
                    self._rate_limits.every, partial(self._client.statuses, ids)
                )
            except RefusedError as error:
                # Other software answers 403, 404 or 405 here, whatever the token (Takahe, snac).
                if error.status_code == httpx.codes.UNAUTHORIZED or error.status_code >= 500:
                    raise
                return self._ask_one_by_one(known_ids[first:], gone)
            self._put_shown(statuses)
            shown = {listed_id(status) for status in statuses}
            for status_id in (each for each in ids if each not in shown):
                self._ask_for_one(status_id, gone)
        return 0

    def _ask_one_by_one(self, known_ids: list[str], gone: list[str]) -> int:
        for status_id in known_ids[:_MOST_SINGLE_REQUESTS]:
            self._ask_for_one(status_id, gone)
        return max(0, len(known_ids) - _MOST_SINGLE_REQUESTS)

    def _ask_for_one(self, status_id: str, gone: list[str]) -> None:
        status = self._caller.call(self._rate_limits.every, partial(self._client.status, status_id))
        if status is None:
            gone.append(status_id)
        else:
            self._put_shown([status])

    def _put_shown(self, statuses: list[Mapping[str, Any]]) -> None:
        for status in statuses:
            self._put(ListedStatus(status, None, datetime.now(UTC)))

    def _put(self, item: WalkItem) -> None:
        if not self._put_item(item):
            raise StoppedError


class TimelineWalker:
    """Walks for one request at a time, in the thread that calls `walk`."""

    def __init__(
        self,
        client: MastodonClient,
        *,
        caller: RateLimitedCaller,
        rate_limits: RateLimits,
        put: Callable[[WalkItem], bool],
        streamed_ids: set[str],
    ) -> None:
        """Keep the tools of the walk.

        Args:
            client: Requests the pages.
            caller: Makes requests with pauses and retries.
            rate_limits: The limits of the server.
            put: Waits for room in the queue; returns False when stopping.
            streamed_ids: Posts of the stream during the walk, added by another thread.
        """
        self._client = client
        self._caller = caller
        self._rate_limits = rate_limits
        self._put_item = put
        self._streamed_ids = streamed_ids
        self._checker = PostChecker(client, caller=caller, rate_limits=rate_limits, put=put)

    def walk(self, request: WalkRequest) -> None:
        """Put everything that the walk finds; the last item is `WalkEnded` or `WalkFailed`."""
        try:
            self._put(self._end_of(request))
        except StoppedError:
            return
        except ServiceUnavailableError as error:
            self._put_item(WalkFailed(error))

    def _end_of(self, request: WalkRequest) -> WalkEnded:
        listed, reached_stream = self._walk_forward(request.start)
        if not reached_stream:
            # Deletes are looked for by requests of another limit.
            unasked = self._look_for_deletes(request.known_ids)
            failure = "; ".join(filter(None, (_TOO_MANY_POSTS, unasked)))
            return WalkEnded(failure, goes_on=listed > 0)
        return WalkEnded(self._failure_of(request, listed))

    def _failure_of(self, request: WalkRequest, listed: int) -> str | None:
        if request.start == OLDEST:
            self._put(WalkReachedStream())
            return None
        if listed == 0 and (failure := self._read_newest_back(request)) is not None:
            return failure
        self._put(WalkReachedStream())
        if not request.goes_on:
            self._walk_back(request.start)
        return self._look_for_deletes(request.known_ids)

    def _walk_forward(self, start: str) -> tuple[int, bool]:
        """Return the number of listed posts, and whether the walk reached the stream."""
        deadline = math.inf if start == OLDEST else time.monotonic() + _LONGEST_WALK_SECONDS
        is_end = self._is_streamed if start != OLDEST else _End(self._newest_ids()).is_passed
        min_id, requested, listed = start, {start}, 0
        while True:
            try:
                page = self._page(self._client.timeline_page, min_id, deadline)
            except OutOfTimeError:
                return listed, False
            if not page:
                return listed, True
            self._put_page(page, moves_cursor=True)
            listed += len(page)
            if is_end(page):
                return listed, True
            min_id = newest_id(page) or min_id
            if min_id in requested:
                raise ServiceUnavailableError(
                    "the server's timeline does not continue: it lists the same page again;"
                    " report this to the makers of its software, the stream is still read"
                )
            requested.add(min_id)
            if time.monotonic() > deadline:
                return listed, False

    def _read_newest_back(self, request: WalkRequest) -> str | None:
        """List from the newest page back to a known post; return why none was met.

        Nothing listed after the start may mean that the server does not hold the start any more
        (snac), or serves nothing while it is repaired.
        """
        known = {request.start, *request.known_ids}
        page = self._caller.call(self._rate_limits.every, self._client.newest_page)
        for _ in range(_MOST_PAGES_OF_OVERLAP):
            ids = [found for status in page if (found := listed_id(status)) is not None]
            if not ids:
                return "the server lists no posts"
            self._put_page(page, moves_cursor=False)
            if not known.isdisjoint(ids) or _is_before(ids[-1], request.start):
                return None
            page = self._page(self._client.timeline_page_before, ids[-1])
            if newest_id(page) == ids[0]:
                break
        return "the server lists no post that is known from before the gap"

    def _newest_ids(self) -> list[str]:
        page = self._caller.call(self._rate_limits.every, self._client.newest_page)
        return [status_id for status in page if (status_id := listed_id(status))]

    def _is_streamed(self, page: list[Mapping[str, Any]]) -> bool:
        """Return whether the stream sent the whole page, and so everything after it."""
        return all(listed_id(status) in self._streamed_ids for status in page)

    def _walk_back(self, start: str) -> int:
        """List the 30 minutes before `start` by the ids' times; one page if ids have none.

        The number of pages is bounded, so that requests are left for the gap itself.

        Returns:
            The number of listed posts.
        """
        began_at, max_id, listed = id_time(start), start, 0
        for _ in range(_MOST_PAGES_OF_OVERLAP):
            page = self._page(self._client.timeline_page_before, max_id)
            self._put_page(page, moves_cursor=False)
            listed += len(page)
            oldest = newest_id(page[::-1])
            if oldest is None or oldest == max_id or began_at is None:
                break
            reached = id_time(oldest)
            if reached is None or reached < began_at - OVERLAP:
                break
            max_id = oldest
        return listed

    def _look_for_deletes(self, known_ids: list[str]) -> str | None:
        """Request published posts again; return what could not be requested."""
        unchecked = self._checker.check(known_ids)
        return f"deletes of {unchecked} posts, {NOT_SERVED_BY_IDS}" if unchecked else None

    def _put_page(self, page: list[Mapping[str, Any]], *, moves_cursor: bool) -> None:
        for status in reversed(page):
            cursor = listed_id(status) if moves_cursor else None
            self._put(ListedStatus(status, cursor, datetime.now(UTC)))

    def _put(self, item: WalkItem) -> None:
        if not self._put_item(item):
            raise StoppedError

    def _page(
        self,
        request: Callable[[str], list[Mapping[str, Any]]],
        status_id: str,
        deadline: float = math.inf,
    ) -> list[Mapping[str, Any]]:
        return self._caller.call(
            self._rate_limits.paged, partial(request, status_id), deadline=deadline
        )


def _is_before(status_id: str, start: str) -> bool:
    """Whether both are numbers, and the first is not above the second."""
    return is_number(status_id) and is_number(start) and int(status_id) <= int(start)


class _End:
    """The end of a timeline when its walk began; newer posts come by the open stream.

    On a busy server no page is ever empty.
    """

    def __init__(self, newest_ids: list[str]) -> None:
        self._newest_ids = newest_ids
        self._was_near = False

    def is_passed(self, page: list[Mapping[str, Any]]) -> bool:
        """Return whether `page` holds the newest post, or is past it if it was deleted."""
        listed = {listed_id(status) for status in page}
        if self._newest_ids[:1] and self._newest_ids[0] in listed:
            return True
        is_near = not listed.isdisjoint(self._newest_ids)
        self._was_near, was_near = is_near, self._was_near
        return was_near and not is_near
