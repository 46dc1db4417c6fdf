"""The walk back into the past: where it ends, and what it leaves to more urgent walks."""

import json
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from tenacity import wait_none

from mastodon_assets.ingest.api import rate_limits
from mastodon_assets.ingest.api.client import MastodonClient
from mastodon_assets.ingest.api.rate_limits import RateLimitedCaller, RateLimits
from mastodon_assets.ingest.recovery.history_walk import (
    HistoryEnded,
    HistoryFailed,
    HistoryItem,
    HistoryPage,
    HistoryStatus,
    HistoryWalker,
    parse_since,
)
from mastodon_assets.simulator.statuses import snowflake
from mastodon_assets_tests.support.odd_server import Answer, Route, odd_server

pytestmark = pytest.mark.usefixtures("loopback")

TIMELINE = "/api/v1/timelines/public"
NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def hour(number: int) -> datetime:
    return NOON + timedelta(hours=number)


def status_id(number: int) -> str:
    return snowflake(int(hour(number).timestamp() * 1000), 1)


def timeline(ids: list[str], created_at: Mapping[str, str] | None = None) -> Route:
    """Pages of three, of ids that stand oldest first."""

    def page(query: Mapping[str, str]) -> Answer:
        end = ids.index(query["max_id"]) if "max_id" in query else len(ids)
        listed = ids[max(0, end - 3) : end][::-1]
        return Answer(
            json.dumps(
                [{"id": each, "created_at": (created_at or {}).get(each)} for each in listed]
            ).encode()
        )

    return page


def walk(route: Route, since: datetime, max_id: str | None = None) -> list[HistoryItem]:
    found: list[HistoryItem] = []

    def put(item: HistoryItem) -> bool:
        found.append(item)
        return True

    with odd_server({TIMELINE: route}) as server:
        walker = HistoryWalker(
            MastodonClient(server.base_url, None),
            caller=RateLimitedCaller(threading.Event()),
            rate_limits=RateLimits(is_limited=False),
            put=put,
        )
        walker.walk(since, max_id)
    return found


def listed(found: list[HistoryItem]) -> list[str]:
    return [str(each.status["id"]) for each in found if isinstance(each, HistoryStatus)]


def test_pages_are_asked_for_until_the_time_is_reached() -> None:
    ids = [status_id(number) for number in range(-20, 0)]

    found = walk(timeline(ids), since=hour(-8))

    assert listed(found) == ids[::-1][:9]
    pages = [each for each in found if isinstance(each, HistoryPage)]
    assert [page.reached for page in pages] == [hour(-3), hour(-6), hour(-9)]
    assert pages[0].newest == ids[-1]
    assert found[-1] == HistoryEnded(is_complete=True)


def test_the_walk_continues_from_where_it_was() -> None:
    ids = [status_id(number) for number in range(-20, 0)]
    assert listed(walk(timeline(ids), hour(-12), max_id=ids[10])) == ids[7:10][::-1]


def test_a_server_that_lists_nothing_older_is_reported() -> None:
    ids = [status_id(number) for number in range(-4, 0)]
    found = walk(timeline(ids), since=hour(-100))
    assert listed(found) == ids[::-1]
    assert found[-1] == HistoryEnded(is_complete=False)


def test_the_latest_claimed_time_of_a_page_counts_if_ids_have_no_time() -> None:
    claims = {each: hour(number).isoformat() for number, each in enumerate("abcdef", start=-6)}
    # Six hours old, as its author's server says, and listed among the newest.
    claims["e"] = hour(-100).isoformat()

    found = walk(timeline(list("abcdef"), claims), since=hour(-5))

    assert listed(found) == list("fedcba")
    assert found[-1] == HistoryEnded(is_complete=False)


def test_a_failure_comes_after_what_the_server_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rate_limits, "_BACKOFF", wait_none())
    ids = [status_id(number) for number in range(-6, 0)]
    answer = timeline(ids)

    def page(query: Mapping[str, str]) -> Answer:
        assert callable(answer)
        return Answer(b"oops", 503) if "max_id" in query else answer(query)

    found = walk(page, since=hour(-100))

    assert listed(found) == ids[::-1][:3]
    assert isinstance(found[-1], HistoryFailed)


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("7d", NOON - timedelta(days=7)),
        ("12h", NOON - timedelta(hours=12)),
        ("90m", NOON - timedelta(minutes=90)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-20T10:00:00+02:00", datetime(2026, 11, 20, 8, 0, tzinfo=UTC)),
    ],
)
def test_a_time_is_an_age_or_a_date(text: str, since: datetime) -> None:
    assert parse_since(text, NOON) == since


@pytest.mark.parametrize("text", ["", "7", "d", "0d", "7w", "-7d", "2027-01-01", "yesterday", "٧d"])
def test_another_form_and_the_future_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_since(text, NOON)
