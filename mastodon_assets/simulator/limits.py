"""Rate limits as Mastodon has them.

What belongs here: counting requests. Source: config/initializers/rack_attack.rb of Mastodon. A
window begins at a multiple of its length, not at the first request.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

_PAGE_PARAMETERS = frozenset({"page", "min_id", "max_id", "since_id"})


@dataclass(frozen=True)
class Limit:
    """At most `requests` in each window of `seconds`."""

    requests: int
    seconds: float


# Per token; a request with a page parameter counts for both.
ALL = Limit(300, 5 * 60)
PAGED = Limit(300, 15 * 60)


class RequestLimits:
    """Counts the requests of a token; `clock` returns seconds since 1970."""

    def __init__(
        self, *, every: Limit = ALL, paged: Limit = PAGED, clock: Callable[[], float] = time.time
    ) -> None:
        self._every = every
        self._paged = paged
        self._clock = clock
        self._made: Counter[tuple[Limit, int]] = Counter()
        self._lock = threading.Lock()
        self.refused = 0

    def count(self, address: str) -> tuple[bool, dict[str, str]]:
        """Count a request for `address` (path and query); streams do not count.

        Returns:
            Whether the request is allowed, and the headers of the limit that is nearest.
        """
        address_parts = urlsplit(address)
        if address_parts.path.startswith("/api/v1/streaming"):
            return True, {}
        is_paged = not _PAGE_PARAMETERS.isdisjoint(parse_qs(address_parts.query))
        now = self._clock()
        with self._lock:
            left = []
            for limit in (self._every, self._paged) if is_paged else (self._every,):
                window = int(now // limit.seconds)
                self._made[limit, window] += 1
                left.append((limit.requests - self._made[limit, window], limit, window))
            remaining, limit, window = min(left, key=lambda each: each[0])
            self.refused += remaining < 0
        reset = datetime.fromtimestamp((window + 1) * limit.seconds, UTC)
        return remaining >= 0, {
            "X-RateLimit-Limit": str(limit.requests),
            "X-RateLimit-Remaining": str(max(0, remaining)),
            "X-RateLimit-Reset": reset.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
