"""Repair of gaps: posts and deletes that the stream missed, read from the timeline.

What belongs here: when a walk starts, restarts or is given up, and what it means for the cursor.
Which requests a walk makes is in `recovery.timeline_walk`.
"""

import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import chain, islice, zip_longest

from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest.api.client import OLDEST
from mastodon_assets.ingest.api.status_ids import listed_id
from mastodon_assets.ingest.checkpoint import Checkpoint, later_id
from mastodon_assets.ingest.event_queue import EventQueue
from mastodon_assets.ingest.handler import EventHandler
from mastodon_assets.ingest.recovery.gaps import Gap
from mastodon_assets.ingest.recovery.poll import PollEnded
from mastodon_assets.ingest.recovery.timeline_walk import (
    GonePosts,
    ListedStatus,
    WalkEnded,
    WalkReachedStream,
    WalkRequest,
)
from mastodon_assets.ingest.removal_brake import RemovalBrake
from mastodon_assets.ingest.source_log import SourceLog

logger = logging.getLogger(__name__)

# A walk that the server does not answer is restarted this often, after a pause.
WALKS_PER_GAP = 4
SECONDS_BETWEEN_WALKS = 15 * 60
SECONDS_UNTIL_GOING_ON = 60
# Posts asked for again after one gap, in 100 requests, and after several, in 200: that many are
# allowed in five minutes. Most deleted posts are deleted young.
_KNOWN_IDS, _MOST_KNOWN_IDS = 2_000, 4_000


class GapRepair:
    """Walks that fill the gaps, one after the other, and the rules for moving the cursor."""

    def __init__(
        self,
        queue: EventQueue,
        handler: EventHandler,
        checkpoint: Checkpoint,
        brake: RemovalBrake,
        name: str,
        *,
        from_oldest: bool,
    ) -> None:
        self._log = SourceLog(logger, name)
        self._queue = queue
        self._handler = handler
        self._checkpoint = checkpoint
        self._brake = brake
        self._from_oldest = from_oldest
        self._walked: list[Gap] = []
        self._given_up: str | None = None
        self._is_behind_stream = False
        self._try_again_at: float | None = None
        self._failures = 0
        self._recovered = 0
        self._newest_streamed: str | None = None
        self._has_walked = self._goes_on = False
        self._is_polling = False
        self.is_walking = False

    def open_gap(self, at: datetime, reason: str) -> None:
        """Begin a gap at `at`."""
        if self._given_up is not None:
            self._given_up = None
            self._checkpoint.reopen_gaps(reason)
        self._checkpoint.open_gap(at, reason)

    def end_gap(self, at: datetime) -> WalkRequest | None:
        """End the gap at `at`; return the walk that this starts, if any."""
        self._is_polling = False
        self._checkpoint.end_gaps(at, self._handler.published_ids(_KNOWN_IDS))
        return self.begin()

    def begin(self) -> WalkRequest | None:
        """Start a walk for all waiting gaps and return it.

        Returns:
            None if nothing waits, if a walk is running, or if no post before the gap is known.
        """
        gaps = self._checkpoint.open_gaps
        if (
            self.is_walking
            or self._is_polling
            or self._given_up
            or any(gap.ended_at is None for gap in gaps)
        ):
            return None
        start = self._checkpoint.position
        if start is None and self._from_oldest:
            start = OLDEST
        if start is None:
            self._walked, self._is_behind_stream = list(gaps), bool(gaps)
            self._give_up("no post before the gap is known")
            return None
        if not gaps and (start != OLDEST or self._has_walked):
            return None
        goes_on, self._goes_on = self._goes_on and self._walked == gaps, False
        self._walked = list(gaps)
        known_ids = [] if start == OLDEST else self._known_ids(self._walked)
        request = WalkRequest(start, known_ids, goes_on)
        self.is_walking = self._is_behind_stream = True
        self._recovered = 0
        if not goes_on:
            self._newest_streamed = None
        self._queue.walk(request)
        return request

    def begin_polling(self, at: datetime) -> None:
        """Leave the gaps to the polls, which go back to known posts by themselves."""
        self._is_polling = True
        self._recovered = 0
        self._checkpoint.end_gaps(at, [])

    def end_poll(self, poll: PollEnded) -> None:
        """Close the gaps after a poll, and move the cursor to the newest post."""
        newest, failure = poll.newest, poll.failure
        if newest is None:
            # Later polls read from the same time on; the gaps stay open until then.
            if failure is not None and self._checkpoint.open_gaps:
                self._log.warning("polling: %s; the gap stays open", failure)
            return
        if failure is not None and not self._checkpoint.open_gaps:
            self._checkpoint.open_gap(poll.since, "polling")
            self._checkpoint.end_gaps(datetime.now(UTC), [])
        if gaps := [gap for gap in self._checkpoint.open_gaps if gap.ended_at is not None]:
            gaps[0].recovered_count += self._recovered
            if failure is None:
                self._log.info("gap read by polling: %s messages", self._recovered)
            else:
                self._log.warning("gap partly read by polling; missing: %s", failure)
            for gap in gaps:
                gap.to_id = gap.to_id or newest
            self._checkpoint.close_gaps(gaps, failure, are_posts_missing=failure is not None)
            self._checkpoint.open_gaps = [
                gap for gap in self._checkpoint.open_gaps if gap not in gaps
            ]
        self._recovered = 0
        self._checkpoint.move_to(newest)

    def note_streamed(self, status_id: str) -> None:
        """Note a post of the stream; it moves the cursor unless posts before it are missing."""
        checkpoint = self._checkpoint
        checkpoint.last_streamed = later_id(checkpoint.last_streamed, status_id)
        checkpoint.bound_gaps(status_id)
        if self._given_up is not None:
            self._close(self._given_up)
        if self.is_walking:
            self._queue.note_streamed(status_id)
            self._newest_streamed = later_id(self._newest_streamed, status_id)
        if not self._is_behind_stream and not self._is_gap_waiting():
            self._checkpoint.move_to(later_id(self._checkpoint.position, status_id))

    def handle(self, item: ListedStatus | GonePosts | WalkReachedStream) -> None:
        """Handle an item of the walk."""
        summary = self._handler.summary
        published = summary.upserts + summary.deletes
        if isinstance(item, ListedStatus):
            if (status_id := listed_id(item.status)) is not None:
                self._queue.note_listed(status_id)
            self._handler.handle_listed(item.status, item.received_at)
            if item.cursor is not None:
                self._checkpoint.move_to(item.cursor)
        elif isinstance(item, GonePosts):
            self._remove(item)
        else:
            self._is_behind_stream = False
            # The walk of a gap ends where the stream began again, not at the timeline's end.
            if self._walked and self._newest_streamed and not self._is_gap_waiting():
                position = later_id(self._checkpoint.position, self._newest_streamed)
                self._checkpoint.move_to(position)
        self._recovered += summary.upserts + summary.deletes - published

    def _remove(self, gone: GonePosts) -> None:
        with self._brake.reported(self._log):
            passed = self._brake.passed(gone.status_ids, gone.asked)
        for status_id in passed:
            self._handler.handle_gone(status_id, gone.received_at)

    def end(self, ended: WalkEnded) -> None:
        """Close the gaps of the walk that has ended, and start the walk for those that wait.

        A walk that came to a limit goes on later, from where it was.
        """
        failure = ended.failure
        if ended.goes_on:
            self._pause()
            return
        self._failures, self._try_again_at = 0, None
        self._has_walked = True
        self.is_walking = False
        if failure is None:
            if self._walked:
                self._log.info("gap backfilled: %s messages recovered", self._recovered)
            else:
                self._log.info("timeline read: %s messages published", self._recovered)
            self._close(None)
        else:
            self._log.warning(
                "gap partly backfilled: %s messages recovered; missing: %s",
                self._recovered,
                failure,
            )
            self._give_up(failure)
        self.begin()

    def _pause(self) -> None:
        self.is_walking = False
        self._goes_on = True
        for gap in self._walked:
            # They were requested, as far as the server allows it.
            gap.known_ids = []
        self._try_again_at = time.monotonic() + SECONDS_UNTIL_GOING_ON
        self._log.warning(
            "gap backfilled until %s: %s messages recovered; the rate limits allow no more for"
            " now, it goes on in %.0f minutes",
            self._checkpoint.position,
            self._recovered,
            SECONDS_UNTIL_GOING_ON / 60,
        )
        self._note_recovered()

    def fail(self, error: ServiceUnavailableError) -> None:
        """Restart the walk that got no answer later, or give it up."""
        self.is_walking = False
        # A walk that starts earlier, after a reconnect, is an extra attempt and does not count.
        if self._try_again_at is None:
            self._failures += 1
            if self._failures == WALKS_PER_GAP:
                self._failures = 0
                self._give_up("the timeline could not be read")
                self.begin()
                self._log.warning(
                    "the timeline cannot be read: %s; the gap stays, see: mastodon-assets status",
                    error,
                )
                return
            self._try_again_at = time.monotonic() + SECONDS_BETWEEN_WALKS
        self._note_recovered()
        minutes = max(0, self._try_again_at - time.monotonic()) / 60
        self._log.warning(
            "the timeline cannot be read: %s; trying again in %.0f minutes", error, minutes
        )

    def try_again_in_time(self) -> None:
        """Restart a failed walk when its pause is over."""
        if self._try_again_at is not None and time.monotonic() >= self._try_again_at:
            self._try_again_at = None
            self.begin()

    def _known_ids(self, gaps: Sequence[Gap]) -> list[str]:
        """Return what was published last before each gap: the newest of each gap, then the next."""
        in_turn = chain.from_iterable(zip_longest(*(gap.known_ids for gap in gaps)))
        ids = dict.fromkeys(status_id for status_id in in_turn if status_id is not None)
        return list(islice(ids, _MOST_KNOWN_IDS))

    def _give_up(self, failure: str) -> None:
        """Close the walked gaps as soon as the stream shows where the missing range ends."""
        self._note_recovered()
        is_bounded = all(gap.to_id is not None for gap in self._walked)
        if is_bounded or not self._is_behind_stream:
            self._close(failure)
        elif not self._is_gap_waiting():
            self._given_up = failure

    def _note_recovered(self) -> None:
        """Count recovered messages for the first gap; a walk cannot tell gaps apart."""
        if self._walked:
            self._walked[0].recovered_count += self._recovered
        self._recovered = 0

    def _close(self, failure: str | None) -> None:
        self._note_recovered()
        closed = self._walked
        self._checkpoint.close_gaps(closed, failure, are_posts_missing=self._is_behind_stream)
        self._checkpoint.open_gaps = [
            gap for gap in self._checkpoint.open_gaps if not any(gap is each for each in closed)
        ]
        # The missing range is recorded: the next walk should not start in the middle of it.
        if self._is_behind_stream and closed and (end := closed[-1].to_id) is not None:
            self._checkpoint.move_to(later_id(self._checkpoint.position, end))
        self._walked, self._given_up = [], None
        self._is_behind_stream = False

    def _is_gap_waiting(self) -> bool:
        return any(
            not any(gap is walked for walked in self._walked) for gap in self._checkpoint.open_gaps
        )
