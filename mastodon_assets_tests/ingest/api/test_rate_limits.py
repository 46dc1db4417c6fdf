"""Budgets of requests, and who may use them up."""

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from mastodon_assets.ingest.api.rate_limits import (
    OutOfTimeError,
    RateLimit,
    RateLimitedCaller,
    pause_seconds,
)


def test_a_limit_allows_that_many_requests_in_any_window() -> None:
    now = 0.0
    limit = RateLimit(3, 900, clock=lambda: now)
    for now in (0.0, 10.0, 20.0):  # noqa: B007
        assert limit.take() == 0
    now = 30.0
    assert (limit.take(), limit.left()) == (870, 0)
    now = 900.0
    assert (limit.take(), limit.left()) == (0, 0)
    assert limit.take() == 10


def test_spare_requests_are_left_to_others() -> None:
    now = 0.0
    limit = RateLimit(3, 900, clock=lambda: now)
    assert limit.take(spare=2) == 0
    now = 10.0
    assert limit.take(spare=2) == 890
    assert [limit.take(), limit.take()] == [0, 0]
    assert limit.take() == 890
    # Of what is free again, the one who spares gets nothing as long as others use it.
    now = 900.0
    assert limit.take(spare=2) == 10
    assert limit.take() == 0


def test_a_page_counts_as_a_request_too() -> None:
    now = 0.0
    every = RateLimit(3, 300, clock=lambda: now)
    paged = RateLimit(3, 900, within=every, clock=lambda: now)
    assert [paged.take(), paged.take(), every.take()] == [0, 0, 0]
    now = 10.0
    assert (paged.take(), paged.left()) == (290, 1)
    now = 300.0
    assert [paged.take(), every.take(), paged.take()] == [0, 0, 600]


def test_a_limit_of_none_allows_everything() -> None:
    limit = RateLimit(None, 900)
    assert {limit.take(spare=100) for _ in range(1000)} == {0}
    assert limit.left() is None


def test_a_pause_without_a_usable_end_is_neither_none_nor_endless() -> None:
    now, hours = datetime.now(UTC), timedelta(hours=10)
    assert [pause_seconds(end) for end in (None, now - hours, now + hours)] == [60, 5, 15 * 60]


def test_nobody_waits_for_a_request_that_comes_too_late() -> None:
    limit = RateLimit(1, 900)
    caller, deadline = RateLimitedCaller(threading.Event()), time.monotonic() + 60
    assert caller.call(limit, lambda: "answer", deadline=deadline) == "answer"
    with pytest.raises(OutOfTimeError):
        caller.call(limit, lambda: "answer", deadline=deadline)
