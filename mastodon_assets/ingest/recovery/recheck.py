"""Stored posts of the last days are asked for again, if there is no stream that sends deletes.

What belongs here: which posts are due, and how many are asked for at a time. What becomes of the
answers is in `gap_repair`, which holds removals of many posts at once.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest.api.rate_limits import StoppedError
from mastodon_assets.ingest.recovery.timeline_walk import PostChecker

# Between two rounds; a post is asked for after it, and then at intervals that double.
SECONDS_BETWEEN_ROUNDS = 10 * 60.0
# As many as five requests answer where a server serves posts by their ids, and a quarter of what it
# allows in five minutes where it does not.
_MOST_PER_ROUND = 100
_FIRST_INTERVAL, _LONGEST_INTERVAL = 3600.0, 24 * 3600.0


@dataclass(frozen=True)
class StoredPost:
    """A stored post: its id at the server, and when it was posted."""

    status_id: str
    event_at: datetime


@dataclass(frozen=True)
class Rechecked:
    """A round has ended; its posts come before this in the queue.

    `known` are the stored posts of the last days, `checked` those that were asked for at least
    once by this run. `oldest_unchecked` is the time of the oldest of the others.
    """

    known: int
    checked: int
    oldest_unchecked: datetime | None

    def __str__(self) -> str:
        """Return the state of the checks as `status` shows it."""
        text = f"deletes and edits: {self.checked} of {self.known} posts of the last days asked for"
        if self.oldest_unchecked is None:
            return text
        hours = (datetime.now(UTC) - self.oldest_unchecked) / timedelta(hours=1)
        return f"{text}, the oldest other one is {hours:.0f} h old"


class Rechecker:
    """Asks for stored posts in rounds, in the thread that calls `check_if_due`."""

    def __init__(
        self,
        checker: PostChecker,
        *,
        put: Callable[[Rechecked], bool],
        stored: Callable[[], Iterable[StoredPost]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep the tools; `stored` returns the stored posts of the last days."""
        self._checker = checker
        self._put_item = put
        self._stored = stored
        self._clock = clock
        self._round_at = clock() + SECONDS_BETWEEN_ROUNDS
        self._due_at: dict[str, tuple[float, float]] = {}

    def check_if_due(self) -> None:
        """Ask for the posts that are due, the youngest first, if it is time for a round.

        Raises:
            StoppedError: The run ends.
            ServiceUnavailableError: PostgreSQL does not answer.
        """
        if self._clock() < self._round_at:
            return
        self._round_at = self._clock() + SECONDS_BETWEEN_ROUNDS
        posts = sorted(self._stored(), key=lambda post: post.event_at, reverse=True)
        self._due_at = {
            post.status_id: self._due_at[post.status_id]
            for post in posts
            if post.status_id in self._due_at
        }
        due = [post.status_id for post in posts if self._is_due(post.status_id)]
        asked = self._ask(due[:_MOST_PER_ROUND])
        for status_id in asked:
            _, interval = self._due_at.get(status_id, (0, _FIRST_INTERVAL / 2))
            interval = min(2 * interval, _LONGEST_INTERVAL)
            self._due_at[status_id] = (self._clock() + interval, interval)
        others = [post.event_at for post in posts if post.status_id not in self._due_at]
        rechecked = Rechecked(len(posts), len(self._due_at), min(others, default=None))
        if not self._put_item(rechecked):
            raise StoppedError

    def _is_due(self, status_id: str) -> bool:
        due_at, _ = self._due_at.get(status_id, (-1.0, 0.0))
        return self._clock() >= due_at

    def _ask(self, status_ids: list[str]) -> Sequence[str]:
        """Ask for posts; return those that were."""
        try:
            unchecked = self._checker.check(status_ids)
        except ServiceUnavailableError:
            # The next round asks again, and the polls report what is wrong.
            return []
        return status_ids[: len(status_ids) - unchecked]
