"""Rate limits of a server: how many requests, how long to wait, which failures to retry.

What belongs here: limits, pauses and retries. What is requested is in `recovery`.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from tenacity import (
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_attempt,
    wait_random_exponential,
)

from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest.api.errors import RateLimitedError, RefusedError

logger = logging.getLogger(__name__)

# rack_attack.rb allows a token 300 requests in five minutes, and 300 with min_id or max_id in 15.
# Of the former some are left to other programs of the account and to opening the stream.
_PAGED_REQUESTS, _PAGED_SECONDS = 300, 15 * 60
_EVERY_REQUESTS, _EVERY_SECONDS = 200, 5 * 60
_LONGEST_PAUSE_SECONDS = 15 * 60
_SHORTEST_PAUSE_SECONDS = 5
_PAUSES_IN_A_ROW = 3
_ATTEMPTS = 3
_BACKOFF = wait_random_exponential(multiplier=1, max=10)

_Answer = TypeVar("_Answer")


class StoppedError(Exception):
    """Raised if the run ends: nothing more should be requested."""


class OutOfTimeError(Exception):
    """Raised if the next request is allowed only after the deadline."""


class RateLimit:
    """A limit of `requests` in any `seconds`, of all threads together; None is no limit.

    Each request also counts in the limit `within`.
    """

    def __init__(
        self,
        requests: int | None,
        seconds: float,
        *,
        within: "RateLimit | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._within = within
        self._clock = clock
        self._limit = requests
        self._made_at: deque[float] = deque()
        self._lock = threading.Lock()

    def take(self, *, spare: int = 0) -> float:
        """Count a request if it is allowed now.

        Args:
            spare: Requests that are left to callers with a smaller `spare`.

        Returns:
            0 if the request may be made, otherwise the seconds until one may.
        """
        if self._limit is None:
            return 0
        with self._lock:
            self._forget_old()
            too_many = len(self._made_at) - (self._limit - spare)
            if too_many < 0:
                seconds = self._within.take(spare=spare) if self._within else 0
                if not seconds:
                    self._made_at.append(self._clock())
                return seconds
            # Two clock readings may be equal; then the caller asks again at once.
            return max(0.01, self._made_at[too_many] + self._seconds - self._clock())

    def count(self) -> None:
        """Count a request that is made in any case."""
        if self._limit is not None:
            with self._lock:
                self._made_at.append(self._clock())

    def left(self) -> int | None:
        """Return how many requests may be made now; None without a limit."""
        if self._limit is None:
            return None
        with self._lock:
            self._forget_old()
            return max(0, self._limit - len(self._made_at))

    def per_second(self, *, spare: int = 0) -> float | None:
        """Return how many requests may be made for good, if `spare` are left to others."""
        return None if self._limit is None else (self._limit - spare) / self._seconds

    def _forget_old(self) -> None:
        while self._made_at and self._made_at[0] + self._seconds <= self._clock():
            self._made_at.popleft()


class RateLimits:
    """The limits of one server for one token: for pages of timelines, and for every request."""

    def __init__(self, *, is_limited: bool, clock: Callable[[], float] = time.monotonic) -> None:
        every, paged = (_EVERY_REQUESTS, _PAGED_REQUESTS) if is_limited else (None, None)
        self.every = RateLimit(every, _EVERY_SECONDS, clock=clock)
        self.paged = RateLimit(paged, _PAGED_SECONDS, within=self.every, clock=clock)
        self.one_at_a_time = threading.Lock()


class RateLimitedCaller:
    """Makes requests with pauses and retries; leaves `spare` of each limit to urgent callers.

    A `spare` below zero allows as many requests more, before all others.
    """

    def __init__(self, stopping: threading.Event, *, spare: int = 0) -> None:
        self._stopping = stopping
        self.spare = spare

    def call(
        self,
        limit: RateLimit,
        request: Callable[[], _Answer],
        *,
        deadline: float = math.inf,
    ) -> _Answer:
        """Make a request within a limit, and return its answer.

        Args:
            limit: Counts the request.
            request: Makes the request.
            deadline: A time of `time.monotonic`; no pause goes beyond it.

        Raises:
            StoppedError: The run ends.
            OutOfTimeError: The limit allows the request only after the deadline.
            ServiceUnavailableError: The server does not answer, or refuses.
        """
        for attempt in range(_PAUSES_IN_A_ROW + 1):
            try:
                return self._attempt(limit, request, deadline)
            except RateLimitedError as error:
                if attempt == _PAUSES_IN_A_ROW:
                    raise
                logger.warning("requests wait: %s", error)
                self._pause(pause_seconds(error.reset_at), deadline)
        raise AssertionError("the last attempt returns or raises")

    def _attempt(
        self, limit: RateLimit, request: Callable[[], _Answer], deadline: float
    ) -> _Answer:
        def once() -> _Answer:
            while seconds := limit.take(spare=self.spare):
                self._pause(seconds, deadline)
            if self._stopping.is_set():
                raise StoppedError
            return request()

        return Retrying(
            retry=retry_if_exception(_is_transient),
            wait=_BACKOFF,
            stop=stop_after_attempt(_ATTEMPTS),
            sleep=sleep_using_event(self._stopping),
            reraise=True,
        )(once)

    def _pause(self, seconds: float, deadline: float) -> None:
        if time.monotonic() + seconds > deadline:
            raise OutOfTimeError
        if self._stopping.wait(seconds):
            raise StoppedError


def pause_seconds(reset_at: datetime | None) -> float:
    """Return the seconds to wait for a limit that ends at `reset_at`."""
    seconds = 60 if reset_at is None else (reset_at - datetime.now(UTC)).total_seconds()
    return min(max(seconds, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, RefusedError):
        return error.status_code >= 500
    return isinstance(error, ServiceUnavailableError) and not isinstance(error, RateLimitedError)
