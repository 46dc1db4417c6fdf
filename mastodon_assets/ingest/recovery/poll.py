"""Polling of a timeline, for servers without a stream.

What belongs here: which pages a poll requests, when it is complete, and how long to pause. A poll
begins with the newest page and goes back by ids that were just listed, because an id that a server
does not hold any more gives an empty page (snac). It is complete when it meets known posts, by
their `uri`, because an edit may change the id (snac).
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest.api.client import MastodonClient
from mastodon_assets.ingest.api.rate_limits import (
    OutOfTimeError,
    RateLimitedCaller,
    RateLimits,
    StoppedError,
)
from mastodon_assets.ingest.api.status_ids import inner_post, newest_id, posted_at
from mastodon_assets.ingest.recovery.accounts import KnownAccount
from mastodon_assets.ingest.recovery.recheck import StoredPost
from mastodon_assets.ingest.recovery.timeline_walk import ListedStatus

# Ids are made before rows are stored, and posts of other servers arrive late (GoToSocial).
OVERLAP = timedelta(seconds=30)
# Before anything is stored no post is known, and time alone says where an earlier run ended.
_OVERLAP_IF_NONE_IS_STORED = timedelta(minutes=30)
_LONGEST_POLL_SECONDS = 60 * 60
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 2.0, 5 * 60.0
# Half a page: what comes in two pauses still fits on one.
_POSTS_PER_POLL = 20
_REMEMBERED_POSTS = 100_000
_INCOMPLETE = "more was posted than the server's rate limits allow to be read"


@dataclass(frozen=True)
class PollStarted:
    """The timeline is polled from now on; `reason` says why there is no stream."""

    at: datetime
    reason: str


@dataclass(frozen=True)
class PollEnded:
    """A poll has ended; its statuses come before this in the queue.

    `newest` is the newest id listed, None if the server listed nothing: then the next poll tries
    again. `since` is the time down to which the poll should read. `failure` says what is missing;
    None if the poll met known posts.
    """

    since: datetime
    newest: str | None
    failure: str | None


PollItem = PollStarted | ListedStatus | PollEnded


@dataclass(frozen=True)
class PollStart:
    """What is known before the first poll.

    `read_until` is the time until which an earlier run has read the timeline; None at a first
    start, which reads the newest page, or everything if `from_oldest`. `stored_uris` returns the
    posts in the tables, the newest last, `recent_posts` those of the last days, and
    `known_accounts` their accounts. `stored_uri` returns a uri as the tables hold it.
    """

    read_until: datetime | None
    from_oldest: bool
    stored_uris: Callable[[], Iterable[str]]
    recent_posts: Callable[[], Iterable[StoredPost]] = tuple
    known_accounts: Callable[[], Iterable[KnownAccount]] = tuple
    stored_uri: Callable[[str], str] = str


class Poller:
    """Polls one timeline, in the thread that calls `poll`."""

    def __init__(
        self,
        client: MastodonClient,
        *,
        caller: RateLimitedCaller,
        rate_limits: RateLimits,
        put: Callable[[PollItem], bool],
        start: PollStart,
    ) -> None:
        self._client = client
        self._caller = caller
        self._rate_limits = rate_limits
        self._put_item = put
        self._start = start
        self._known: OrderedDict[str, str | None] = OrderedDict()
        self._has_loaded = self._has_stored = False
        self._read_until = start.read_until
        self._polled_at: float | None = None
        self._pause = _SHORTEST_PAUSE_SECONDS

    def poll(self) -> None:
        """Put all new and changed statuses, and `PollEnded`.

        Raises:
            StoppedError: The run ends.
            ServiceUnavailableError: The server or PostgreSQL does not answer.
        """
        if not self._has_loaded:
            for uri in self._start.stored_uris():
                self._remember(uri, None)
            self._has_loaded, self._has_stored = True, bool(self._known)
        began_at = datetime.now(UTC)
        newest, new, failure = self._read_back()
        self._set_pause(new)
        since = self._read_until or began_at
        if newest is not None:
            self._read_until = began_at
            self._has_stored = self._has_stored or bool(self._known)
        self._put(PollEnded(since, newest, failure))

    def pause_seconds(self) -> float:
        """Return the seconds to wait, which follow the server's own rate of posts."""
        return self._pause

    def _read_back(self) -> tuple[str | None, int, str | None]:
        """Return the newest id, the number of new posts, and what is missing."""
        floor = None if self._read_until is None else self._read_until - OVERLAP
        deadline = time.monotonic() + _LONGEST_POLL_SECONDS
        page = self._caller.call(self._rate_limits.every, self._client.newest_page)
        newest, new, has_known = newest_id(page), 0, False
        while page:
            is_known_page, unknown = self._put_page(page)
            has_known = has_known or is_known_page
            new += len(unknown)
            if self._is_complete(floor, has_known, unknown):
                return newest, new, None
            oldest = newest_id(page[::-1])
            if oldest is None:
                return newest, new, "the server lists posts without ids"
            request = partial(self._client.timeline_page_before, oldest)
            try:
                page = self._caller.call(self._rate_limits.paged, request, deadline=deadline)
            except OutOfTimeError:
                return newest, new, _INCOMPLETE
            if newest_id(page[::-1]) == oldest:
                raise ServiceUnavailableError(
                    "the server's timeline does not continue: it lists the same page again;"
                    " report this to the makers of its software"
                )
        is_whole = floor is None or newest is not None
        return newest, new, None if is_whole else "the server lists no posts"

    def _is_complete(
        self, floor: datetime | None, has_known: bool, unknown: list[datetime | None]
    ) -> bool:
        """Whether nothing is missing before this page, if known posts were met until here.

        Unknown posts from before the floor came late or were withheld by an earlier run.
        """
        if floor is None:
            return not self._start.from_oldest
        if not self._has_stored:
            oldest = floor - _OVERLAP_IF_NONE_IS_STORED
            return all(at is not None and at < oldest for at in unknown)
        return has_known and all(at is not None and at < floor for at in unknown)

    def _put_page(self, page: list[Mapping[str, Any]]) -> tuple[bool, list[datetime | None]]:
        """Put new and changed statuses; return whether some are known, and the new ones' times."""
        has_known, unknown = False, []
        for listed in page:
            status = inner_post(listed)
            uri, edited_at = self._version(status)
            is_known = uri is not None and uri in self._known
            has_known = has_known or is_known
            if is_known and uri is not None and self._known[uri] == (edited_at or ""):
                continue
            if not is_known:
                unknown.append(posted_at(listed))
            self._put(ListedStatus(status, None, datetime.now(UTC)))
            if uri is not None:
                self._remember(uri, edited_at or "")
        return has_known, unknown

    def _version(self, status: object) -> tuple[str | None, str | None]:
        """Return the stored form of a status's uri, and its edit time as the server writes it."""
        if not isinstance(status, Mapping):
            return None, None
        uri, edited_at = status.get("uri"), status.get("edited_at")
        return (
            self._start.stored_uri(uri) if isinstance(uri, str) else None,
            edited_at if isinstance(edited_at, str) else None,
        )

    def _remember(self, uri: str, edited_at: str | None) -> None:
        self._known[uri] = edited_at
        self._known.move_to_end(uri)
        if len(self._known) > _REMEMBERED_POSTS:
            self._known.popitem(last=False)

    def _set_pause(self, new: int) -> None:
        now = time.monotonic()
        if self._polled_at is not None:
            seconds = now - self._polled_at
            wanted = seconds * _POSTS_PER_POLL / new if new else 2 * self._pause
            self._pause = min(max(wanted, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
        self._polled_at = now

    def _put(self, item: PollItem) -> None:
        if not self._put_item(item):
            raise StoppedError
