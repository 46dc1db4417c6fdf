"""Requests inside a server's limits: how many, how long to wait, which failures to try again.

What belongs here: the patience. What is asked for stands in `walk` and `history`.
"""

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

# rack_attack.rb counts requests with min_id or max_id so, and all of a token by 300 in five
# minutes. Some are left to other programs of the same account, and to what opens a stream: a walk
# that used them up would keep it closed.
_PAGED_REQUESTS, _PAGED_SECONDS = 300, 15 * 60
_EVERY_REQUESTS, _EVERY_SECONDS = 200, 5 * 60
_LONGEST_PAUSE_SECONDS = 15 * 60
_SHORTEST_PAUSE_SECONDS = 5
_PAUSES_IN_A_ROW = 3
_TRIES = 3
_BACKOFF = wait_random_exponential(multiplier=1, max=10)

_Answer = TypeVar("_Answer")


class StoppedError(Exception):
    """The run ends; nothing more is to be asked."""


class OutOfTimeError(Exception):
    """The next request may be made only when there is no time left for it."""


class RateLimit:
    """At most `requests` in any `seconds`, of all threads together; None does not limit.

    Each of them counts in the budget `within`, too.
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
        """0 where a request may be made now, which counts it; else the seconds until one may.

        `spare` requests are left to those who ask with a smaller one.
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
            # Two clock readings may be equal: then this one is asked again at once.
            return max(0.01, self._made_at[too_many] + self._seconds - self._clock())

    def left(self) -> int | None:
        """How many requests may be made now; None without a limit."""
        if self._limit is None:
            return None
        with self._lock:
            self._forget_old()
            return self._limit - len(self._made_at)

    def _forget_old(self) -> None:
        while self._made_at and self._made_at[0] + self._seconds <= self._clock():
            self._made_at.popleft()


class RateLimits:
    """What one server allows one token: pages of a timeline, and requests of every kind."""

    def __init__(self, *, is_limited: bool) -> None:
        every, paged = (_EVERY_REQUESTS, _PAGED_REQUESTS) if is_limited else (None, None)
        self.every = RateLimit(every, _EVERY_SECONDS)
        self.paged = RateLimit(paged, _PAGED_SECONDS, within=self.every)


class RateLimitedCaller:
    """Asks, with pauses and a few tries; `spare` is left of each budget to more urgent askers."""

    def __init__(self, stopping: threading.Event, *, spare: int = 0) -> None:
        self._stopping = stopping
        self._spare = spare

    def ask(
        self,
        budget: RateLimit,
        ask: Callable[[], _Answer],
        *,
        deadline: float = math.inf,
    ) -> _Answer:
        """The answer. Raises: StoppedError, OutOfTimeError, ServiceUnavailableError.

        A limit that was reached is waited for, unless that is after `deadline` (of
        `time.monotonic`); what no second try can mend is not tried again.
        """
        for attempt in range(_PAUSES_IN_A_ROW + 1):
            try:
                return self._try(budget, ask, deadline)
            except RateLimitedError as error:
                if attempt == _PAUSES_IN_A_ROW:
                    raise
                self._pause(pause_seconds(error.reset_at), deadline)
        raise AssertionError("the last attempt returns or raises")

    def _try(self, budget: RateLimit, ask: Callable[[], _Answer], deadline: float) -> _Answer:
        def once() -> _Answer:
            while seconds := budget.take(spare=self._spare):
                self._pause(seconds, deadline)
            if self._stopping.is_set():
                raise StoppedError
            return ask()

        return Retrying(
            retry=retry_if_exception(_may_pass),
            wait=_BACKOFF,
            stop=stop_after_attempt(_TRIES),
            sleep=sleep_using_event(self._stopping),
            reraise=True,
        )(once)

    def _pause(self, seconds: float, deadline: float) -> None:
        if time.monotonic() + seconds > deadline:
            raise OutOfTimeError
        if self._stopping.wait(seconds):
            raise StoppedError


def pause_seconds(reset_at: datetime | None) -> float:
    """How long to wait for a limit that ends at `reset_at`."""
    wanted = 60 if reset_at is None else (reset_at - datetime.now(UTC)).total_seconds()
    return min(max(wanted, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, RefusedError):
        return error.status_code >= 500
    return isinstance(error, ServiceUnavailableError) and not isinstance(error, RateLimitedError)
