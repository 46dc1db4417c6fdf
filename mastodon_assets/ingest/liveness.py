"""Streams that are open and tell no posts: when that is odd, and when a quiet server is just quiet.

What belongs here: what is known of the pauses between posts, and the judgement. What comes of it
stands in `source_run`.
"""

from collections import deque
from datetime import datetime, timedelta

SHORTEST_SILENCE = timedelta(minutes=10)
# A server is quieter at night: its pauses grow, and what is odd grows with them.
_USUAL_PAUSES = 5
_REMEMBERED_PAUSES = 200
# A server with its feeds disabled goes on telling deletes, and nothing else.
_ANOMALOUS_DELETES = 20


class LivenessMonitor:
    """What the stream of one source tells, as far as its silence is concerned. Times are UTC."""

    def __init__(
        self, *, last_post_at: datetime | None = None, longest_pause: timedelta | None = None
    ) -> None:
        """What an earlier run knew of the same source goes on counting."""
        self._pauses: deque[timedelta] = deque(maxlen=_REMEMBERED_PAUSES)
        if longest_pause is not None:
            self._pauses.append(longest_pause)
        self._listening_since: datetime | None = None
        self._deletes = 0
        self.last_post_at = last_post_at
        self.last_event_at: datetime | None = None

    @property
    def longest_pause(self) -> timedelta | None:
        """The longest between two posts, of the latest ones; None before the second."""
        return max(self._pauses, default=None)

    def connected(self, at: datetime) -> None:
        """The stream is open: what was not told before says nothing about the server."""
        self._listening_since = at
        self._deletes = 0

    def disconnected(self) -> None:
        self._listening_since = None

    def note_post(self, at: datetime) -> None:
        since = self._listening_since
        if self.last_post_at is not None and since is not None and self.last_post_at >= since:
            self._pauses.append(at - self.last_post_at)
        self.last_post_at = self.last_event_at = at
        self._deletes = 0

    def note_other(self, at: datetime, *, is_delete: bool) -> None:
        """An event that is no new post."""
        self.last_event_at = at
        self._deletes += is_delete

    def anomaly(self, now: datetime) -> str | None:
        """What is odd about the silence, in a line; None while nothing is."""
        if self._listening_since is None:
            return None
        since = max(self._listening_since, self.last_post_at or self._listening_since)
        if not is_anomalous(now - since, self.longest_pause, self._deletes):
            return None
        what = "deletes but no posts" if self._deletes else "heartbeats but no posts"
        return (
            f"{what} since {since:%Y-%m-%d %H:%M}Z, though the stream is open;"
            " see: mastodon-assets doctor"
        )


def is_anomalous(silence: timedelta, longest_pause: timedelta | None, deletes: int) -> bool:
    """Whether a time without posts is more than a quiet hour of the server.

    `longest_pause` is the longest between its latest posts, None where it never told two; `deletes`
    came during the silence.
    """
    has_anomalous_deletes = deletes >= _ANOMALOUS_DELETES
    if longest_pause is None:
        return has_anomalous_deletes and silence >= SHORTEST_SILENCE
    pauses = 1 if has_anomalous_deletes else _USUAL_PAUSES
    return silence >= max(SHORTEST_SILENCE, pauses * longest_pause)
