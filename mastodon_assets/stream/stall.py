"""The end of a query that makes no progress although there are messages to read.

What belongs here: noticing it. A thread of Spark that died, or a write that waits for a lock of
PostgreSQL, would otherwise hold the stream forever.
"""

import time

from mastodon_assets.errors import ServiceUnavailableError


class QueryStalledError(ServiceUnavailableError):
    """A query committed nothing for a long time although there are messages to read."""


class StallWatch:
    """Measures the time since the last progress of one query."""

    def __init__(self, topic: str, seconds: float) -> None:
        """Start the time.

        Args:
            topic: The topic that is read.
            seconds: The longest time without progress.
        """
        self._topic = topic
        self._seconds = seconds
        self._batches = 0
        self._since = time.monotonic()

    def check(self, *, batches: int, behind: int) -> None:
        """Compare with the last check.

        Args:
            batches: Batches committed so far.
            behind: Messages that are to be read.

        Raises:
            QueryStalledError: There was no progress for too long.
        """
        now = time.monotonic()
        if batches != self._batches or not behind:
            self._batches, self._since = batches, now
        elif now - self._since > self._seconds:
            raise QueryStalledError(
                f"{self._topic}: no batch was written for {self._seconds:.0f} s although"
                f" {behind:,} messages are to be read; the query was ended (if batches take longer,"
                " set STREAM_STALL_SECONDS to more), run it again"
            )
