"""The walk of a timeline back to a given time, for posts from before the first start.

What belongs here: which pages are requested and when the walk ends. What becomes of the posts is in
`handler`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest.api.client import MastodonClient
from mastodon_assets.ingest.api.rate_limits import RateLimitedCaller, RateLimits, StoppedError
from mastodon_assets.ingest.api.status_ids import id_time, newest_id

# Paged requests that are left to gaps, which are filled at the same time and matter more.
SPARE_REQUESTS = 100
_AGO = re.compile(r"\A([1-9][0-9]{0,4})([dhm])\Z")
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


@dataclass(frozen=True)
class HistoryStatus:
    """A status of the timeline."""

    status: Mapping[str, Any]
    received_at: datetime


@dataclass(frozen=True)
class HistoryPage:
    """A page was listed; its statuses come before this in the queue.

    `newest` and `oldest` are ids. `reached` is the time of the oldest post, None if unknown.
    `requests_left` is None on a server without a limit.
    """

    newest: str
    oldest: str
    reached: datetime | None
    requests_left: int | None


@dataclass(frozen=True)
class HistoryEnded:
    """The walk has ended; it is complete if the time is reached, not if the timeline is shorter."""

    is_complete: bool


@dataclass(frozen=True)
class HistoryFailed:
    """The server did not answer; what it listed before comes before this in the queue."""

    error: ServiceUnavailableError


HistoryItem = HistoryStatus | HistoryPage | HistoryEnded | HistoryFailed


class HistoryWalker:
    """Walks a timeline back, in the thread that calls `walk`."""

    def __init__(
        self,
        client: MastodonClient,
        *,
        caller: RateLimitedCaller,
        rate_limits: RateLimits,
        put: Callable[[HistoryItem], bool],
    ) -> None:
        """Keep the tools of the walk; `put` waits for room and returns False when stopping."""
        self._client = client
        self._caller = caller
        self._rate_limits = rate_limits
        self._put_item = put

    def walk(self, since: datetime, max_id: str | None) -> None:
        """Put the pages from before `max_id` (None: from the newest post) down to `since`.

        The last item is `HistoryEnded` or `HistoryFailed`.
        """
        try:
            self._put(HistoryEnded(self._has_reached(since, max_id)))
        except StoppedError:
            return
        except ServiceUnavailableError as error:
            self._put_item(HistoryFailed(error))

    def _has_reached(self, since: datetime, max_id: str | None) -> bool:
        while page := self._page(max_id):
            for status in page:
                self._put(HistoryStatus(status, datetime.now(UTC)))
            newest, oldest = newest_id(page), newest_id(page[::-1])
            if newest is None or oldest is None or oldest == max_id:
                return False
            reached = _time_of(page)
            self._put(HistoryPage(newest, oldest, reached, self._rate_limits.paged.left()))
            if reached is not None and reached <= since:
                return True
            max_id = oldest
        return False

    def _put(self, item: HistoryItem) -> None:
        if not self._put_item(item):
            raise StoppedError

    def _page(self, max_id: str | None) -> list[Mapping[str, Any]]:
        if max_id is None:
            return self._caller.call(self._rate_limits.every, self._client.newest_page)
        request = partial(self._client.timeline_page_before, max_id)
        return self._caller.call(self._rate_limits.paged, request)


def parse_since(text: str, now: datetime) -> datetime:
    """Parse an age before `now`, such as `7d`, `12h` or `90m`, or a date or time in ISO 8601.

    A time without a zone is in UTC.

    Raises:
        ValueError: The text has another form, or the time is not before `now`.
    """
    if ago := _AGO.fullmatch(text):
        since = now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    else:
        since = datetime.fromisoformat(text)
        since = since.replace(tzinfo=since.tzinfo or UTC)
    if since >= now:
        raise ValueError("it is not in the past")
    return since


def _time_of(page: list[Mapping[str, Any]]) -> datetime | None:
    """Return the time of the oldest post, by its id or else by `created_at`.

    Authors' servers may claim wrong times, so the latest `created_at` of the page counts.
    """
    oldest = newest_id(page[::-1])
    by_id = None if oldest is None else id_time(oldest)
    if by_id is not None:
        return by_id
    claimed = [_created_at(status) for status in page]
    return max((each for each in claimed if each is not None), default=None)


def _created_at(status: object) -> datetime | None:
    value = status.get("created_at") if isinstance(status, Mapping) else None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    return value if isinstance(value, datetime) and value.tzinfo is not None else None
