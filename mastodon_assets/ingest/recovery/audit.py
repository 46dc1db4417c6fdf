"""The audit of an open stream: does the timeline list posts that the stream has not sent?

What belongs here: which pages an audit requests, and what it finds. Mastodon's streaming server
drops posts under load and after restarts of Redis, without an end of the stream or of heartbeats.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from mastodon_assets.ingest.api.status_ids import listed_id, newest_id, snowflake_time

# The stream may send a post later than the timeline lists it.
GRACE = timedelta(seconds=60)
# Ids are made before rows are stored, so a page may show an earlier id later.
OVERLAP = timedelta(minutes=2)
# Below this many missing posts, a stream without posts may have come too late.
_FEWEST_OF_SILENT_STREAM = 5
_REMEMBERED_IDS = 100_000


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
    """

    since: datetime
    until: datetime
    checked: int
    missing: int
    oldest: str | None
    newest: str | None
    is_complete: bool


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
        until = datetime.now(UTC) - GRACE
        missing: list[str] = []
        checked, is_complete = 0, True
        deadline = time.monotonic() + seconds
        page = self._caller.call(self._rate_limits.every, self._client.newest_page)
        while page:
            times = [_time(status) for status in page]
            for status, at in zip(page, times, strict=True):
                status_id = listed_id(status)
                if status_id is None or at is None or not since <= at <= until:
                    continue
                checked += 1
                if not self._known.has(status_id):
                    missing.append(status_id)
                    self._known.add(status_id)
                    self._put(AuditedStatus(status, datetime.now(UTC)))
            oldest = newest_id(page[::-1])
            if oldest is None or all(at is not None and at < since for at in times[-2:]):
                break
            request = partial(self._client.timeline_page_before, oldest)
            try:
                page = self._caller.call(self._rate_limits.paged, request, deadline=deadline)
            except OutOfTimeError:
                is_complete = False
                break
            if newest_id(page[::-1]) == oldest:
                break
        ended = AuditEnded(
            since,
            until,
            checked,
            len(missing),
            missing[-1] if missing else None,
            missing[0] if missing else None,
            is_complete,
        )
        self._put(ended)
        return ended

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
    found = None if status_id is None else snowflake_time(status_id)
    if found is not None or not isinstance(status, Mapping):
        return found
    value = status.get("created_at")
    try:
        claimed = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return claimed if claimed is not None and claimed.tzinfo is not None else None
