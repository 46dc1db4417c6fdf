"""What the stream did not tell, brought back beside it: gaps, and the past that was asked for.

What belongs here: when a walk is begun, begun again or given up, what it means for the cursor and
what is told of it. Which requests a walk makes stands in `walk` and `history`.
"""

import time
from collections.abc import Sequence
from datetime import datetime
from itertools import chain, islice, zip_longest

from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest.api.client import OLDEST
from mastodon_assets.ingest.checkpoint import Progress, later_id
from mastodon_assets.ingest.event_queue import EventQueue
from mastodon_assets.ingest.handler import EventHandler
from mastodon_assets.ingest.recovery.gaps import Gap
from mastodon_assets.ingest.recovery.timeline_walk import (
    GoneStatus,
    ListedStatus,
    WalkReachedStream,
    WalkRequest,
)

# A walk that the server does not answer is begun again, seldom and not without end.
WALKS_PER_GAP = 4
SECONDS_BETWEEN_WALKS = 15 * 60
# Asked for again after a gap, in a hundred requests, and after several in twice as many, which is
# what five minutes allow: most posts that go, go young.
_KNOWN_IDS, _MOST_KNOWN_IDS = 2_000, 4_000


class GapRepair:
    """Walks for the gaps, one after the other; who may move the cursor meanwhile."""

    def __init__(
        self, queue: EventQueue, handler: EventHandler, progress: Progress, *, from_oldest: bool
    ) -> None:
        self._queue = queue
        self._handler = handler
        self._progress = progress
        self._from_oldest = from_oldest
        self._walked: list[Gap] = []
        self._given_up: str | None = None
        self._is_behind_stream = False
        self._try_again_at: float | None = None
        self._failures = 0
        self._recovered = 0
        self._newest_streamed: str | None = None
        self._has_walked = False
        self.is_walking = False

    def open_gap(self, at: datetime, reason: str) -> None:
        """Nobody reads the stream from `at` on."""
        if self._given_up is not None:
            self._given_up = None
            self._progress.reopen_gaps(reason)
        self._progress.open_gap(at, reason)

    def end_gap(self, at: datetime) -> WalkRequest | None:
        """The stream is open since `at`. Returns the walk that this begins, if it does."""
        self._progress.end_gaps(at, self._handler.published_ids(_KNOWN_IDS))
        return self.begin()

    def begin(self) -> WalkRequest | None:
        """Walk for all gaps that wait; None where nothing waits or a walk is under way.

        A gap before which nothing is known cannot be walked.
        """
        gaps = self._progress.open_gaps
        if self.is_walking or self._given_up or any(gap.ended_at is None for gap in gaps):
            return None
        start = self._progress.position
        if start is None and self._from_oldest:
            start = OLDEST
        if start is None:
            self._walked, self._is_behind_stream = list(gaps), bool(gaps)
            self._give_up("nothing is known from before it")
            return None
        if not gaps and (start != OLDEST or self._has_walked):
            return None
        self._walked = list(gaps)
        request = WalkRequest(start, [] if start == OLDEST else self._known_ids(self._walked))
        self.is_walking = self._is_behind_stream = True
        self._recovered = 0
        self._newest_streamed = None
        self._queue.walk(request)
        return request

    def note_streamed(self, status_id: str) -> None:
        """A post came by the stream.

        While something before it is missing, a cursor from there would leave that out.
        """
        progress = self._progress
        progress.last_streamed = later_id(progress.last_streamed, status_id)
        progress.bound_gaps(status_id)
        if self._given_up is not None:
            self._close(self._given_up)
        if self.is_walking:
            self._queue.note_streamed(status_id)
            self._newest_streamed = later_id(self._newest_streamed, status_id)
        if not self._is_behind_stream and not self._is_gap_waiting():
            self._progress.move_to(later_id(self._progress.position, status_id))

    def take(self, item: ListedStatus | GoneStatus | WalkReachedStream) -> None:
        """What a walk brings."""
        summary = self._handler.summary
        published = summary.upserts + summary.deletes
        if isinstance(item, ListedStatus):
            self._handler.handle_listed(item.status, item.received_at)
            if item.cursor is not None:
                self._progress.move_to(item.cursor)
        elif isinstance(item, GoneStatus):
            self._handler.handle_gone(item.status_id, item.received_at)
        else:
            self._is_behind_stream = False
            # The walk of a gap ends where the stream is, not at the timeline's end.
            if self._walked and self._newest_streamed and not self._is_gap_waiting():
                position = later_id(self._progress.position, self._newest_streamed)
                self._progress.move_to(position)
        self._recovered += summary.upserts + summary.deletes - published

    def end(self, failure: str | None) -> str:
        """The walk has ended; what began meanwhile is walked next. Returns the line for it."""
        self._failures, self._try_again_at = 0, None
        self._has_walked = True
        self.is_walking = False
        missing = "" if failure is None else f"; what is missing: {failure}"
        line = f"the timeline is read, {self._recovered} messages came of it{missing}"
        if failure is None:
            self._close(None)
        else:
            self._give_up(failure)
        self.begin()
        return line

    def fail(self, error: ServiceUnavailableError) -> str:
        """The walk got no answer; it is begun again later, or given up. Returns the line for it."""
        self.is_walking = False
        # A walk that is begun between, after a reconnect, is one more chance and counts as none.
        if self._try_again_at is None:
            self._failures += 1
            if self._failures == WALKS_PER_GAP:
                self._failures = 0
                self._give_up("the timeline could not be read")
                self.begin()
                return f"the timeline cannot be read: {error}; what was missed stays missing"
            self._try_again_at = time.monotonic() + SECONDS_BETWEEN_WALKS
        self._note_recovered()
        minutes = max(0, self._try_again_at - time.monotonic()) / 60
        return f"the timeline cannot be read: {error}; trying again in {minutes:.0f} minutes"

    def try_again_in_time(self) -> None:
        if self._try_again_at is not None and time.monotonic() >= self._try_again_at:
            self._try_again_at = None
            self.begin()

    def _known_ids(self, gaps: Sequence[Gap]) -> list[str]:
        """What was published last before each of them: of every gap the newest, then the next."""
        in_turn = chain.from_iterable(zip_longest(*(gap.known_ids for gap in gaps)))
        ids = dict.fromkeys(status_id for status_id in in_turn if status_id is not None)
        return list(islice(ids, _MOST_KNOWN_IDS))

    def _give_up(self, failure: str) -> None:
        """Close what was walked for, as soon as the stream tells where what is missing ends."""
        self._note_recovered()
        is_bounded = all(gap.to_id is not None for gap in self._walked)
        if is_bounded or not self._is_behind_stream:
            self._close(failure)
        elif not self._is_gap_waiting():
            self._given_up = failure

    def _note_recovered(self) -> None:
        """Of what one walk brought, nobody can tell which gap it was missing from: the first."""
        if self._walked:
            self._walked[0].recovered_count += self._recovered
        self._recovered = 0

    def _close(self, failure: str | None) -> None:
        self._note_recovered()
        closed = self._walked
        self._progress.close_gaps(closed, failure, are_posts_missing=self._is_behind_stream)
        self._progress.open_gaps = [
            gap for gap in self._progress.open_gaps if not any(gap is each for each in closed)
        ]
        # What a gap leaves missing is on record: the next walk does not begin in the middle of it.
        if self._is_behind_stream and closed and (told := closed[-1].to_id) is not None:
            self._progress.move_to(later_id(self._progress.position, told))
        self._walked, self._given_up = [], None
        self._is_behind_stream = False

    def _is_gap_waiting(self) -> bool:
        return any(
            not any(gap is walked for walked in self._walked) for gap in self._progress.open_gaps
        )
