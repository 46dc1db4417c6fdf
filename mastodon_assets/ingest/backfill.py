"""Backfill of the time before the first start, as far back as `since` asks for.

What belongs here: when the walk back starts, continues or is given up, and what it logs. Which
requests it makes is in `recovery.history_walk`.
"""

import logging
import time
from datetime import datetime

from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest.checkpoint import Checkpoint
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
from mastodon_assets.ingest.source_log import SourceLog

logger = logging.getLogger(__name__)

_LOG_SECONDS = 60


class Backfill:
    """The walk back to `since`; None asks for none."""

    def __init__(
        self,
        queue: EventQueue,
        handler: EventHandler,
        checkpoint: Checkpoint,
        name: str,
        *,
        since: datetime | None,
    ) -> None:
        self._log = SourceLog(logger, name)
        self._queue = queue
        self._handler = handler
        self._checkpoint = checkpoint
        self._since = since
        self._oldest_listed: str | None = None
        self._reached: datetime | None = None
        self._posts = self._failures = 0
        self._has_begun = False
        self._try_again_at: float | None = None
        self._logged_at = time.monotonic()
        self.is_pending = since is not None

    def begin(self) -> None:
        """Start the walk at the cursor, if there is one; newer posts are read as a gap."""
        if self._since is None or self._has_begun:
            return
        self._has_begun = True
        self._oldest_listed = self._checkpoint.position
        self._walk(self._since)

    def try_again_in_time(self) -> None:
        """Continue a failed walk when its pause is over."""
        if self._try_again_at is not None and time.monotonic() >= self._try_again_at:
            assert self._since is not None, "only a walk that has begun fails"
            self._walk(self._since)

    def handle(self, item: HistoryItem) -> None:
        """Handle an item of the walk."""
        match item:
            case HistoryStatus():
                self._handler.handle_listed(item.status, item.received_at)
                self._posts += 1
            case HistoryPage():
                self._handle_page(item)
            case HistoryEnded():
                self.is_pending = False
                self._log_end(is_complete=item.is_complete)
            case HistoryFailed():
                self._fail(item.error)

    def _walk(self, since: datetime) -> None:
        self._try_again_at = None
        self._queue.walk_back(since, self._oldest_listed)

    def _handle_page(self, page: HistoryPage) -> None:
        if self._checkpoint.position is None:
            self._checkpoint.move_to(page.newest)
        self._oldest_listed, self._reached, self._failures = page.oldest, page.reached, 0
        if time.monotonic() - self._logged_at >= _LOG_SECONDS:
            self._logged_at = time.monotonic()
            left = "" if page.requests_left is None else f", {page.requests_left} requests left"
            self._log.info("backfill: back to %s, %s posts%s", self._place(), self._posts, left)

    def _fail(self, error: ServiceUnavailableError) -> None:
        self._failures += 1
        if self._failures < WALKS_PER_GAP:
            self._try_again_at = time.monotonic() + SECONDS_BETWEEN_WALKS
            minutes = SECONDS_BETWEEN_WALKS / 60
            self._log.warning("backfill: %s; trying again in %.0f minutes", error, minutes)
            return
        self.is_pending = False
        self._log.warning(
            "backfill: given up at %s, %s posts: %s", self._place(), self._posts, error
        )

    def _log_end(self, *, is_complete: bool) -> None:
        if is_complete:
            self._log.info("backfill: read back to %s, %s posts", self._place(), self._posts)
        else:
            self._log.warning(
                "backfill: the server lists nothing before %s, %s posts; requested: since %s",
                self._place(),
                self._posts,
                f"{self._since:%Y-%m-%d %H:%M}Z",
            )

    def _place(self) -> str:
        return "the newest post" if self._reached is None else f"{self._reached:%Y-%m-%d %H:%M}Z"
