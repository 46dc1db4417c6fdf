"""The audit of an open stream: does the timeline list posts that the stream has not sent?

What belongs here: which pages an audit requests, and what it finds. Mastodon's streaming server
drops posts under load and after restarts of Redis, without an end of the stream or of heartbeats
(observed at 4.6.5: 8,880 of 20,000 while its database was busy; streaming/index.js).
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Lock
from typing import Any

from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest.api.client import MastodonClient
from mastodon_assets.ingest.api.rate_limits import (
    OutOfTimeError,
    RateLimitedCaller,
    RateLimits,
    StoppedError,
)
from mastodon_assets.ingest.api.status_ids import id_at, id_order, listed_id, newest_id, posted_at
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
_FEWEST_DRAWN = 10
# Earlier audits that go on; at a server that is too fast for its limits they would pile up.
_MOST_UNFINISHED = 6


@dataclass(frozen=True)
class AuditedStatus:
    """A status that the stream has not sent."""

    status: Mapping[str, Any]
    received_at: datetime


@dataclass(frozen=True)
class AuditEnded:
    """An audit of the time from `since` to `until` has ended; its statuses come before this.

    It also reads a little from before `since`, which an earlier audit has read.

    If the rate limits did not allow to read all of that time, it goes on later: then there are
    several of the same `since`, and only the last one has a `goes_on` that is False.

    Attributes:
        since: The begin of the time.
        until: Its end.
        checked: Posts listed since the last `AuditEnded` of the same time.
        missing: Those of them that the stream did not send.
        oldest: The first id that may be missing; None if nothing is, or if that is not known.
        newest: The last id that may be missing; None if nothing is.
        is_complete: Whether all of the time was read.
        goes_on: Whether more of it is read later.
        share: The share of all posts that are missing, if pages were drawn at random.
        is_empty: Whether the timeline lists nothing at all.
    """

    since: datetime
    until: datetime
    checked: int
    missing: int
    oldest: str | None
    newest: str | None
    is_complete: bool
    goes_on: bool = False
    share: Share | None = None
    is_empty: bool = False


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
    """What an audit of the time from `since` to `until` has found so far.

    `began` is the begin of the time that no earlier audit has read. `unread` are ids before which
    pages are still to be read: to the begin of the time, or to a page without missing posts if
    pages were drawn at random. The last one is read first.
    """

    began: datetime
    since: datetime
    until: datetime
    checked: int = 0
    missing: int = 0
    oldest: str | None = None
    newest: str | None = None
    unread: list[str] = field(default_factory=list)
    share: Share | None = None
    is_empty: bool = False

    def note_missing(self, status_id: str) -> None:
        """Count a post that is missing."""
        self.missing += 1
        self.oldest = min(self.oldest or status_id, status_id, key=id_order)
        self.newest = max(self.newest or status_id, status_id, key=id_order)

    def ended(self) -> AuditEnded:
        """Return what was found since the last call."""
        is_read = self.share is None and not self.unread
        ended = AuditEnded(
            self.began,
            self.until,
            self.checked,
            self.missing,
            *((self.oldest, self.newest) if is_read else self._unknown()),
            is_complete=is_read,
            goes_on=bool(self.unread),
            share=self.share,
            is_empty=self.is_empty,
        )
        self.checked = self.missing = 0
        return ended

    def _unknown(self) -> tuple[str | None, str | None]:
        """Return the ids between which posts may be missing."""
        ids = [each for each in (self.newest, *self.unread) if each is not None]
        example = ids[0] if ids else ""
        if self.share is not None:
            return id_at(self.since, example), id_at(self.until, example)
        # Everything down to the last unread id was read.
        return id_at(self.since, example), max(self.unread, key=id_order)


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
        self._unfinished: list[_Found] = []
        self._audited_until: datetime | None = None

    def audit(self, since: datetime, *, seconds: float) -> AuditEnded:
        """Put what the stream has not sent since `since`, and `AuditEnded`, which is returned.

        Then earlier audits go on that the rate limits had ended.

        Args:
            since: The stream is open since then, or an audit has read until after then.
            seconds: The longest time to take.

        Raises:
            StoppedError: The run ends.
            ServiceUnavailableError: The server does not answer.
        """
        began = max(since, self._audited_until or since)
        found = _Found(began, since, datetime.now(UTC) - GRACE)
        deadline = time.monotonic() + seconds
        page = self._caller.call(self._rate_limits.every, self._client.newest_page)
        found.is_empty = not page
        count = self._pages_to_draw(page, found)
        if count:
            self._sample(page, found, count, deadline)
        elif (goes_on := self._note_stretch(page, found)) is not None:
            found.unread.append(goes_on)
        self._read_back(found, deadline)
        ended = found.ended()
        self._put(ended)
        self._audited_until = found.until
        self._go_on(deadline)
        if found.unread:
            self._unfinished.append(found)
        return ended

    def _go_on(self, deadline: float) -> None:
        """Read what earlier audits had to leave, the oldest last, as far as the limits allow it."""
        while len(self._unfinished) > _MOST_UNFINISHED:
            self._put(replace(self._unfinished.pop(0).ended(), goes_on=False))
        while self._unfinished:
            found = self._unfinished[-1]
            before = found.unread[-1]
            with suppress(ServiceUnavailableError):
                # The next audit goes on; what is published until then is in the same gap.
                self._read_back(found, deadline)
            if found.unread and found.unread[-1] == before:
                return
            self._put(found.ended())
            if found.unread:
                return
            self._unfinished.pop()

    def _pages_to_draw(self, page: list[Mapping[str, Any]], found: "_Found") -> int:
        """Return how many pages are drawn at random; 0 if all can be read, or ids have no times.

        All can be read, now or later, if no more is posted than the rate limits allow for good.
        """
        paged, spare = self._rate_limits.paged, self._caller.spare
        left, allowed, newest = paged.left(), paged.per_second(spare=spare), newest_id(page)
        times = [at for status in page if (at := posted_at(status)) is not None]
        if left is None or allowed is None or newest is None or not times:
            return 0
        # Until now: a burst that is over can be read later.
        span = (datetime.now(UTC) - min(times)).total_seconds()
        if id_at(found.until, newest) is None or span * allowed >= 1:
            return 0
        return max(_FEWEST_DRAWN, int((left - spare) * _DRAWN_SHARE))

    def _sample(
        self, page: list[Mapping[str, Any]], found: "_Found", count: int, deadline: float
    ) -> None:
        """Read pages drawn at random; the stretches around those with missing posts are unread."""
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
        except OutOfTimeError:
            pass
        found.share = share_of(pages)
        found.unread = [oldest for _, oldest in sorted(wanting)]

    def _read_back(self, found: "_Found", deadline: float) -> None:
        """Read what is unread, as far as the rate limits allow it."""
        while found.unread:
            try:
                page = self._page_before(found.unread[-1], deadline)
            except OutOfTimeError:
                return
            goes_on = self._note_stretch(page, found)
            if goes_on in (None, found.unread[-1]):
                found.unread.pop()
            else:
                found.unread[-1] = goes_on

    def _note_stretch(self, page: list[Mapping[str, Any]], found: "_Found") -> str | None:
        """Put the missing posts of a page; return the id before which to go on, None at the end."""
        _, missing = self._note_page(page, found)
        is_before = all(at is not None and at < found.since for at in map(posted_at, page[-2:]))
        is_known = found.share is not None and not missing
        return None if is_before or is_known else newest_id(page[::-1])

    def _note_page(self, page: list[Mapping[str, Any]], found: "_Found") -> tuple[int, int]:
        """Put the missing posts of a page; return how many were checked, and how many missing."""
        checked = missing = 0
        for status in page:
            status_id, at = listed_id(status), posted_at(status)
            if status_id is None or at is None or not found.since <= at <= found.until:
                continue
            checked += 1
            if not self._known.has(status_id):
                missing += 1
                found.note_missing(status_id)
                self._known.add(status_id)
                self._put(AuditedStatus(status, datetime.now(UTC)))
        found.checked += checked
        return checked, missing

    def _page_before(self, max_id: str, deadline: float) -> list[Mapping[str, Any]]:
        request = partial(self._client.timeline_page_before, max_id)
        return self._caller.call(self._rate_limits.paged, request, deadline=deadline)

    def is_stream_silent(self, ended: AuditEnded) -> bool:
        """Return whether the stream sent no post since the last call, and none of those listed."""
        streamed, self._streamed_before = (
            self._known.streamed - self._streamed_before,
            self._known.streamed,
        )
        return not streamed and ended.checked == ended.missing >= _FEWEST_OF_SILENT_STREAM

    def _put(self, item: AuditItem) -> None:
        if not self._put_item(item):
            raise StoppedError
