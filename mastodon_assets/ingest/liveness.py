"""Detection of streams that are open but send no posts, on busy and on quiet servers.

What belongs here: the pauses between posts, and the decision. What follows from it is in
`source_worker`.
"""

from collections import deque
from datetime import datetime, timedelta

SHORTEST_SILENCE = timedelta(minutes=10)
# A server is quieter at night; its longest pause grows, and the threshold grows with it.
_PAUSES_UNTIL_ANOMALY = 5
_REMEMBERED_PAUSES = 200
# A server with disabled feeds sends deletes and nothing else (timelines_access since Mastodon 4.5;
# mastodon#37883).
_ANOMALOUS_DELETES = 20


class LivenessMonitor:
    """The times of events of one stream, and whether its silence is an anomaly. Times are UTC."""

    def __init__(
        self, *, last_post_at: datetime | None = None, longest_pause: timedelta | None = None
    ) -> None:
        """Start with what an earlier run knew of the same source."""
        self._pauses: deque[timedelta] = deque(maxlen=_REMEMBERED_PAUSES)
        if longest_pause is not None:
            self._pauses.append(longest_pause)
        self._connected_since: datetime | None = None
        self._deletes = 0
        self.last_post_at = last_post_at
        self.last_event_at: datetime | None = None

    @property
    def longest_pause(self) -> timedelta | None:
        """The longest time between two of the latest posts; None before the second post."""
        return max(self._pauses, default=None)

    def connected(self, at: datetime) -> None:
        """Note that the stream is open; the time before it says nothing about the server."""
        self._connected_since = at
        self._deletes = 0

    def disconnected(self) -> None:
        """Note that the stream is closed."""
        self._connected_since = None

    def note_post(self, at: datetime) -> None:
        """Note a new post."""
        since = self._connected_since
        if self.last_post_at is not None and since is not None and self.last_post_at >= since:
            self._pauses.append(at - self.last_post_at)
        self.last_post_at = self.last_event_at = at
        self._deletes = 0

    def note_other(self, at: datetime, *, is_delete: bool) -> None:
        """Note an event that is not a new post."""
        self.last_event_at = at
        self._deletes += is_delete

    def anomaly(self, now: datetime) -> str | None:
        """Return one line about the silence, or None if it is no anomaly."""
        if self._connected_since is None:
            return None
        since = max(self._connected_since, self.last_post_at or self._connected_since)
        if not is_anomalous(now - since, self.longest_pause, self._deletes):
            return None
        what = "deletes but no posts" if self._deletes else "heartbeats but no posts"
        return (
            f"{what} since {since:%Y-%m-%d %H:%M}Z, though the stream is open;"
            " see: mastodon-assets doctor"
        )


def is_anomalous(silence: timedelta, longest_pause: timedelta | None, deletes: int) -> bool:
    """Return whether a time without posts is more than a quiet hour of the server.

    Args:
        silence: The time since the last post.
        longest_pause: The longest time between the latest posts; None before the second post.
        deletes: Deletes received during the silence.
    """
    has_anomalous_deletes = deletes >= _ANOMALOUS_DELETES
    if longest_pause is None:
        return has_anomalous_deletes and silence >= SHORTEST_SILENCE
    pauses = 1 if has_anomalous_deletes else _PAUSES_UNTIL_ANOMALY
    return silence >= max(SHORTEST_SILENCE, pauses * longest_pause)
