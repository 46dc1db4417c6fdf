"""Budgets of requests, and who may use them up."""

import threading
import time
from bisect import bisect_left
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from mastodon_assets.ingest.api import rate_limits
from mastodon_assets.ingest.api.errors import RateLimitedError
from mastodon_assets.ingest.api.rate_limits import (
    OutOfTimeError,
    RateLimit,
    RateLimitedCaller,
    RateLimits,
    pause_seconds,
)
from mastodon_assets.ingest.recovery.history_walk import SPARE_REQUESTS
from mastodon_assets.ingest.recovery.home_questions import RESERVED_REQUESTS
from mastodon_assets.simulator.limits import RequestLimits
from mastodon_assets_tests.support.handling import NOW
from mastodon_assets_tests.support.log_lines import log_lines


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


def test_in_hours_of_greed_a_server_refuses_no_request_and_home_is_asked_at_once() -> None:
    """Walk, audit, checks and questions to home all take what they get, by a simulated clock."""
    now = 0.0
    limits = RateLimits(is_limited=True, clock=lambda: now)
    # It counts by windows that begin at other times than the first request.
    server = RequestLimits(clock=lambda: now + 123)
    made: Counter[str] = Counter()
    times: list[float] = []
    for tick in range(2 * 3600 * 2):
        now = tick / 2
        requests = {
            "walk?min_id=1": limits.paged.take(),
            "audit?max_id=1": limits.paged.take(spare=SPARE_REQUESTS),
            "check": limits.every.take(spare=SPARE_REQUESTS),
            "read": limits.every.take(),
        }
        if tick % 20 == 0:
            requests["home"] = limits.every.take(spare=-RESERVED_REQUESTS)
            # A stream is opened again and again: what is made in any case counts too.
            if tick % 1200 == 0:
                limits.every.count()
                requests["opened"] = 0
        for name, waits in requests.items():
            if not waits:
                made[name] += 1
                times.append(now)
                assert server.count(f"/api/v1/{name}")[0], (now, made)
    assert server.refused == 0
    most = max(bisect_left(times, begun + 300) - place for place, begun in enumerate(times))
    assert 200 < most <= 300
    # One question each ten seconds: the limit of all others is used up, and it goes out.
    assert made["home"] == 2 * 3600 / 10
    assert made["walk?min_id=1"] > 0


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


def test_a_wait_that_the_server_asks_for_is_logged_with_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rate_limits, "_SHORTEST_PAUSE_SECONDS", 0)
    refusals = [RateLimitedError("one.example wants fewer requests until 9:30", NOW)]

    def request() -> str:
        if refusals:
            raise refusals.pop()
        return "page"

    caller = RateLimitedCaller(threading.Event())
    with log_lines() as lines:
        assert caller.call(RateLimit(None, 1), request) == "page"
    assert lines == ["requests wait: one.example wants fewer requests until 9:30"]
