"""Pages drawn at random from a timeline that is longer than the rate limits allow to read."""

import bisect
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mastodon_assets.ingest.api import rate_limits
from mastodon_assets.ingest.api.rate_limits import RateLimitedCaller, RateLimits
from mastodon_assets.ingest.recovery.audit import AuditEnded, AuditItem, Auditor, KnownIds
from mastodon_assets.ingest.recovery.history_walk import SPARE_REQUESTS
from mastodon_assets.ingest.recovery.sampling import drawn_moments, share_of
from mastodon_assets.simulator.statuses import snowflake

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def test_one_moment_is_drawn_in_each_of_equal_parts() -> None:
    moments = drawn_moments(NOON, NOON + timedelta(hours=10), 10)
    assert [int((each - NOON).total_seconds() // 3600) for each in moments] == [*range(9, -1, -1)]


def test_a_share_has_an_interval_even_if_nothing_or_everything_is_missing() -> None:
    nothing, everything = share_of([(40, 0)] * 30), share_of([(40, 40)] * 30)
    assert (nothing.estimate, nothing.low, nothing.high) == (0, 0, 0.1)
    assert (everything.estimate, everything.low, everything.high) == (1, 0.9, 1)
    half = share_of([(40, 40), (40, 0)] * 50)
    assert half.estimate == 0.5
    assert half.low == pytest.approx(0.4, abs=0.01)
    assert half.high == pytest.approx(0.6, abs=0.01)
    assert str(half) == "about 50.0% (40.2% to 59.8%, from 100 pages drawn at random)"
    assert (share_of([]).low, share_of([]).high) == (0, 1)
    assert str(share_of([])) == "a share that is unknown, because no page could be drawn"


class _Timeline:
    """30 posts per second for an hour; the stream dropped those of one stretch."""

    dropped = range(40_000, 51_000)

    def __init__(self, now: datetime) -> None:
        self.requests = 0
        began = int((now - timedelta(hours=1)).timestamp() * 1000)
        self.ids = [
            snowflake(began + number * 1000 // 30, number % 30) for number in range(108_000)
        ]
        self._numbers = [int(each) for each in self.ids]

    def newest_page(self) -> list[Mapping[str, Any]]:
        return self._page(len(self.ids))

    def timeline_page_before(self, max_id: str) -> list[Mapping[str, Any]]:
        self.requests += 1
        return self._page(bisect.bisect_left(self._numbers, int(max_id)))

    def _page(self, end: int) -> list[Mapping[str, Any]]:
        return [{"id": each} for each in self.ids[max(0, end - 40) : end][::-1]]


class _SlowTimeline(_Timeline):
    """A post per second for an hour; the stream dropped two of three of a quarter of it."""

    dropped = range(1_200, 2_100)
    posts, pause = 3_600, 1000

    def __init__(self, now: datetime) -> None:
        self.requests = 0
        began = int((now - timedelta(hours=1)).timestamp() * 1000)
        self.ids = [snowflake(began + number * self.pause, 0) for number in range(self.posts)]
        self._numbers = [int(each) for each in self.ids]


class _Burst(_SlowTimeline):
    """A hundred posts per second for two minutes, an hour ago."""

    posts, pause = 12_000, 10


def _auditor(
    timeline: _Timeline, known: KnownIds, *, clock: Callable[[], float] = time.monotonic
) -> tuple[Auditor, list[AuditItem]]:
    """An auditor of the timeline within a server's limits, and what it puts."""
    items: list[AuditItem] = []

    def put(item: AuditItem) -> bool:
        items.append(item)
        return True

    auditor = Auditor(
        timeline,  # type: ignore[arg-type]
        caller=RateLimitedCaller(threading.Event(), spare=SPARE_REQUESTS),
        rate_limits=RateLimits(is_limited=True, clock=clock),
        put=put,
        known=known,
    )
    return auditor, items


def test_a_burst_that_is_over_is_read_in_turn_and_not_by_samples() -> None:
    now = datetime.now(UTC)
    auditor, _ = _auditor(_Burst(now), KnownIds())
    ended = auditor.audit(now - timedelta(hours=2), seconds=1)
    assert (ended.share, ended.goes_on) == (None, True)
    # As many pages as five minutes allow, after the newest one.
    assert ended.missing >= 40 * (rate_limits._EVERY_REQUESTS - SPARE_REQUESTS)


def test_an_audit_that_comes_to_a_limit_goes_on_later_in_the_same_gap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rate_limits, "_PAGED_REQUESTS", SPARE_REQUESTS + 30)
    now, clock = datetime.now(UTC), [0.0]
    timeline, known = _SlowTimeline(now), KnownIds()
    for number, status_id in enumerate(timeline.ids):
        if number not in timeline.dropped or number % 3 == 0:
            known.add(status_id)

    auditor, items = _auditor(timeline, known, clock=lambda: clock[0])
    # 30 pages reach back over 20 of 58 minutes, but for good there are more than are posted.
    since = now - timedelta(minutes=58)
    first = auditor.audit(since, seconds=1)
    clock[0] += rate_limits._PAGED_SECONDS
    auditor.audit(now - timedelta(minutes=2), seconds=1)
    clock[0] += rate_limits._PAGED_SECONDS
    auditor.audit(now - timedelta(minutes=1), seconds=1)
    clock[0] += rate_limits._PAGED_SECONDS
    auditor.audit(now - timedelta(minutes=1), seconds=1)

    ended = [item for item in items if isinstance(item, AuditEnded) and item.since == since]
    assert first.goes_on
    assert not first.is_complete
    # What may be missing is all that was not read yet.
    assert first.oldest is not None
    assert int(first.oldest) <= int(timeline.ids[121])
    assert first.newest is not None
    assert [each.goes_on for each in ended] == [True] * (len(ended) - 1) + [False]
    assert (ended[-1].is_complete, sum(each.missing for each in ended)) == (True, 600)
    # Nothing came meanwhile, but the stream had sent posts of that time.
    assert not auditor.is_stream_silent(first)
    assert (ended[-1].oldest, ended[-1].newest) == (timeline.ids[1_201], timeline.ids[2_099])


def test_a_timeline_faster_than_the_limits_is_sampled_and_what_is_wanting_read_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # So that no pause is needed.
    monkeypatch.setattr(rate_limits, "_EVERY_REQUESTS", 1_000)
    now = datetime.now(UTC)
    timeline, known = _Timeline(now), KnownIds()
    for number, status_id in enumerate(timeline.ids):
        if number not in timeline.dropped:
            known.add(status_id)
    known_limit = {each for each in timeline.ids if known.has(each)}

    auditor, items = _auditor(timeline, known)
    since = now - timedelta(minutes=54)
    ended = auditor.audit(since, seconds=30)

    assert isinstance(items[-1], AuditEnded)
    assert ended.share is not None
    assert not ended.is_complete
    # About a tenth is missing; the interval holds for any draw of one page in each part.
    assert ended.share.low <= len(timeline.dropped) / (54 * 60 * 30) <= ended.share.high
    assert timeline.requests <= rate_limits._PAGED_REQUESTS - SPARE_REQUESTS
    assert len(items) - 1 == ended.missing > 1_000
    assert known_limit.isdisjoint(item.status["id"] for item in items[:-1])  # type: ignore[union-attr]
