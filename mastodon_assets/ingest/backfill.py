"""Backfill of the time before the first start, as far back as was asked for."""

import time
from collections.abc import Callable
from datetime import datetime

from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest.checkpoint import Progress
from mastodon_assets.ingest.event_queue import EventQueue
from mastodon_assets.ingest.gap_repair import SECONDS_BETWEEN_WALKS, WALKS_PER_GAP
from mastodon_assets.ingest.handler import EventHandler
from mastodon_assets.ingest.recovery.history_walk import (
    HistoryEnded,
    HistoryFailed,
    HistoryItem,
    HistoryPage,
    HistoryStatus,
)

_REPORT_SECONDS = 60


class Backfill:
    """The walk back to `since`; None asks for none."""

    def __init__(
        self,
        queue: EventQueue,
        handler: EventHandler,
        progress: Progress,
        *,
        since: datetime | None,
        report: Callable[[str], None],
    ) -> None:
        self._queue = queue
        self._handler = handler
        self._progress = progress
        self._since = since
        self._report = report
        self._goes_on_at: str | None = None
        self._reached: datetime | None = None
        self._posts = self._failures = 0
        self._has_begun = False
        self._try_again_at: float | None = None
        self._told_at = time.monotonic()
        self.is_wanted = since is not None

    def begin(self) -> None:
        """Walk back, from the cursor where there is one: what is newer is walked as a gap."""
        if self._since is None or self._has_begun:
            return
        self._has_begun = True
        self._goes_on_at = self._progress.position
        self._walk(self._since)

    def try_again_in_time(self) -> None:
        if self._try_again_at is not None and time.monotonic() >= self._try_again_at:
            assert self._since is not None, "only a walk that has begun fails"
            self._walk(self._since)

    def take(self, item: HistoryItem) -> None:
        """What the walk brings."""
        match item:
            case HistoryStatus():
                self._handler.handle_listed(item.status, item.received_at)
                self._posts += 1
            case HistoryPage():
                self._handle_page(item)
            case HistoryEnded():
                self.is_wanted = False
                self._report(self._end_text(is_complete=item.is_complete))
            case HistoryFailed():
                self._report(self._fail(item.error))

    def _walk(self, since: datetime) -> None:
        self._try_again_at = None
        self._queue.walk_back(since, self._goes_on_at)

    def _handle_page(self, page: HistoryPage) -> None:
        if self._progress.position is None:
            self._progress.move_to(page.newest)
        self._goes_on_at, self._reached, self._failures = page.oldest, page.reached, 0
        if time.monotonic() - self._told_at >= _REPORT_SECONDS:
            self._told_at = time.monotonic()
            left = "" if page.requests_left is None else f", {page.requests_left} requests left"
            self._report(f"history: back at {self._reached_text()}, {self._posts} posts{left}")

    def _fail(self, error: ServiceUnavailableError) -> str:
        self._failures += 1
        if self._failures < WALKS_PER_GAP:
            self._try_again_at = time.monotonic() + SECONDS_BETWEEN_WALKS
            minutes = SECONDS_BETWEEN_WALKS / 60
            return f"history: {error}; trying again in {minutes:.0f} minutes"
        self.is_wanted = False
        return f"history: given up at {self._reached_text()}, {self._posts} posts: {error}"

    def _end_text(self, *, is_complete: bool) -> str:
        if is_complete:
            return f"history: read back to {self._reached_text()}, {self._posts} posts"
        return (
            f"history: the server lists nothing before {self._reached_text()}, {self._posts} posts;"
            f" {self._since:%Y-%m-%d %H:%M}Z was asked for"
        )

    def _reached_text(self) -> str:
        return "the newest post" if self._reached is None else f"{self._reached:%Y-%m-%d %H:%M}Z"
