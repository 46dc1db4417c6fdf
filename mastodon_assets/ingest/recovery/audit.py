"""The audit of an open stream: does the timeline list posts that the stream has not sent?

What belongs here: which pages an audit requests, and what it finds. Mastodon's streaming server
drops posts under load and after restarts of Redis, without an end of the stream or of heartbeats
(observed at 4.6.5: 8,880 of 20,000 while its database was busy; streaming/index.js).
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Lock
from typing import Any

from mastodon_assets.ingest.api.client import MastodonClient
from mastodon_assets.ingest.api.rate_limits import (
    OutOfTimeError,
    RateLimitedCaller,
    RateLimits,
    StoppedError,
)
from mastodon_assets.ingest.api.status_ids import id_at, id_time, listed_id, newest_id
from mastodon_assets.ingest.recovery.sampling import Share, drawn_moments, share_of

# The stream may send a post later than the timeline lists it.
GRACE = timedelta(seconds=60)
# Ids are made before rows are stored, so a page may show an earlier id later.
OVERLAP = timedelta(minutes=2)
# Below this many missing posts, a stream without posts may have come too late.
_FEWEST_OF_SILENT_STREAM = 5
_REMEMBERED_IDS = 100_000
# Of the pages that the rate limits allow; with the others the stretches found wanting are read.
_DRAWN_SHARE = 0.5


@dataclass(frozen=True)
class AuditedStatus:
    """A status that the stream has not sent."""

    status: Mapping[str, Any]
    received_at: datetime


@dataclass(frozen=True)
class AuditEnded:
    """An audit of the time from `since` to `until` has ended; its statuses come before this.

    `oldest` and `newest` are ids of missing posts, None if nothing is missing. `checked` counts the
    listed posts. `is_complete` is False if the rate limits did not allow to read back to `since`.
    Then `share` is the share of all posts that are missing, if pages could be drawn at random.
    """

    since: datetime
    until: datetime
    checked: int
    missing: int
    oldest: str | None
    newest: str | None
    is_complete: bool
    share: Share | None = None


AuditItem = AuditedStatus | AuditEnded


class KnownIds:
    """The ids that came by the stream or a walk, the latest ones; any thread may use it."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._lock = Lock()
        self.streamed = 0

    def add(self, status_id: str, *, is_streamed: bool = False) -> None:
        """Add an id."""
        with self._lock:
            self.streamed += is_streamed
            self._ids[status_id] = None
            if len(self._ids) > _REMEMBERED_IDS:
                self._ids.popitem(last=False)

    def has(self, status_id: str) -> bool:
        """Return whether the id is known."""
        with self._lock:
            return status_id in self._ids


@dataclass
class _Found:
    """What an audit of the time from `since` to `until` has found so far."""

    since: datetime
    until: datetime
    checked: int = 0
    missing: list[str] = field(default_factory=list)


class Auditor:
    """Audits one source, in the thread that calls `audit`."""

    def __init__(
        self,
        client: MastodonClient,
        *,
        caller: RateLimitedCaller,
        rate_limits: RateLimits,
        put: Callable[[AuditItem], bool],
        known: KnownIds,
    ) -> None:
        self._client = client
        self._caller = caller
        self._rate_limits = rate_limits
        self._put_item = put
        self._known = known
        self._streamed_before = 0

    def audit(self, since: datetime, *, seconds: float) -> AuditEnded:
        """Put what the stream has not sent since `since`, and `AuditEnded`, which is returned.

        Args:
            since: The stream is open since then, or the last audit ended then.
            seconds: The longest time to take.

        Raises:
            StoppedError: The run ends.
            ServiceUnavailableError: The server does not answer.
        """
        found = _Found(since, datetime.now(UTC) - GRACE)
        deadline = time.monotonic() + seconds
        page = self._caller.call(self._rate_limits.every, self._client.newest_page)
        count = self._pages_to_draw(page, found)
        if count:
            share = self._sample(page, found, count, deadline)
            is_complete = False
        else:
            share = None
            is_complete = self._read_back(page, found, deadline, until_known=False)
        missing = sorted(found.missing, key=lambda status_id: (len(status_id), status_id))
        ended = AuditEnded(
            since,
            found.until,
            found.checked,
            len(missing),
            missing[0] if missing else None,
            missing[-1] if missing else None,
            is_complete,
            share,
        )
        self._put(ended)
        return ended

    def _pages_to_draw(self, page: list[Mapping[str, Any]], found: "_Found") -> int:
        """Return how many pages are drawn at random; 0 if all can be read, or ids have no times."""
        left, newest = self._rate_limits.paged.left(), newest_id(page)
        times = [at for status in page if (at := _time(status)) is not None]
        if left is None or newest is None or id_at(found.until, newest) is None or len(times) < 2:
            return 0
        allowed = max(0, left - self._caller.spare)
        span = max(times) - min(times)
        needed = (found.until - found.since) / span if span else math.inf
        return int(allowed * _DRAWN_SHARE) if needed > allowed else 0

    def _sample(
        self, page: list[Mapping[str, Any]], found: "_Found", count: int, deadline: float
    ) -> Share:
        """Read pages drawn at random, then the stretches around those that have missing posts."""
        example, pages, wanting = newest_id(page) or "", [], []
        try:
            for moment in drawn_moments(found.since, found.until, count):
                max_id = id_at(moment, example) or ""
                drawn = self._page_before(max_id, deadline)
                checked, missing = self._note_page(drawn, found)
                if checked:
                    pages.append((checked, missing))
                if missing and (oldest := newest_id(drawn[::-1])) is not None:
                    wanting.append((missing / checked, oldest))
            share = share_of(pages)
            for _, oldest in sorted(wanting, reverse=True):
                stretch = self._page_before(oldest, deadline)
                if not self._read_back(stretch, found, deadline, until_known=True):
                    break
        except OutOfTimeError:
            share = share_of(pages)
        return share

    def _read_back(
        self,
        page: list[Mapping[str, Any]],
        found: "_Found",
        deadline: float,
        *,
        until_known: bool,
    ) -> bool:
        """Read back from `page` to the beginning, or to a page without missing posts.

        Returns:
            Whether the rate limits allowed it.
        """
        while page:
            _, missing = self._note_page(page, found)
            oldest = newest_id(page[::-1])
            is_before = all(at is not None and at < found.since for at in map(_time, page[-2:]))
            if oldest is None or is_before or (until_known and not missing):
                return True
            try:
                page = self._page_before(oldest, deadline)
            except OutOfTimeError:
                return False
            if newest_id(page[::-1]) == oldest:
                return True
        return True

    def _note_page(self, page: list[Mapping[str, Any]], found: "_Found") -> tuple[int, int]:
        """Put the missing posts of a page; return how many were checked, and how many missing."""
        checked, missing = 0, []
        for status in page:
            status_id, at = listed_id(status), _time(status)
            if status_id is None or at is None or not found.since <= at <= found.until:
                continue
            checked += 1
            if not self._known.has(status_id):
                missing.append(status_id)
                self._known.add(status_id)
                self._put(AuditedStatus(status, datetime.now(UTC)))
        found.checked += checked
        found.missing += missing
        return checked, len(missing)

    def _page_before(self, max_id: str, deadline: float) -> list[Mapping[str, Any]]:
        request = partial(self._client.timeline_page_before, max_id)
        return self._caller.call(self._rate_limits.paged, request, deadline=deadline)

    def is_stream_silent(self, ended: AuditEnded) -> bool:
        """Return whether the stream sent no post since the last call, while posts were listed."""
        streamed, self._streamed_before = (
            self._known.streamed - self._streamed_before,
            self._known.streamed,
        )
        return not streamed and ended.missing >= _FEWEST_OF_SILENT_STREAM

    def _put(self, item: AuditItem) -> None:
        if not self._put_item(item):
            raise StoppedError


def _time(status: object) -> datetime | None:
    """Return the time of a post by its id, else the one that its author's server claims."""
    status_id = listed_id(status)
    found = None if status_id is None else id_time(status_id)
    if found is not None or not isinstance(status, Mapping):
        return found
    value = status.get("created_at")
    try:
        claimed = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return claimed if claimed is not None and claimed.tzinfo is not None else None
