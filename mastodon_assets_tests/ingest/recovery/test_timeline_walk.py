import json
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from tenacity import wait_none

from mastodon_assets.ingest.api import rate_limits
from mastodon_assets.ingest.api.client import OLDEST, MastodonClient
from mastodon_assets.ingest.api.rate_limits import RateLimitedCaller, RateLimits
from mastodon_assets.ingest.api.status_ids import id_at, id_time
from mastodon_assets.ingest.recovery import timeline_walk
from mastodon_assets.ingest.recovery.timeline_walk import (
    GonePosts,
    ListedStatus,
    TimelineWalker,
    WalkEnded,
    WalkFailed,
    WalkItem,
    WalkReachedStream,
    WalkRequest,
)
from mastodon_assets.simulator.statuses import snowflake
from mastodon_assets_tests.support.odd_server import Answer, odd_server
from mastodon_assets_tests.support.odd_server import Route as Answering
from mastodon_assets_tests.support.recordings import exchange

pytestmark = pytest.mark.usefixtures("loopback")

TIMELINE, STATUSES = "/api/v1/timelines/public", "/api/v1/statuses"
NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def minute(number: int) -> str:
    """An id made so many minutes after noon."""
    return snowflake(int((NOON + timedelta(minutes=number)).timestamp() * 1000), 1)


def walk(routes: dict[str, Answering], request: WalkRequest, *streamed: str) -> list[WalkItem]:
    found: list[WalkItem] = []

    def put(item: WalkItem) -> bool:
        found.append(item)
        return True

    with odd_server(routes) as server:
        walker = TimelineWalker(
            MastodonClient(server.base_url, SecretStr("token")),
            caller=RateLimitedCaller(threading.Event()),
            rate_limits=RateLimits(is_limited=False),
            put=put,
            streamed_ids=set(streamed),
        )
        walker.walk(request)
    return found


def timeline(*ids: str) -> Answering:
    """Pages of five numeric ids."""
    numbers = sorted(ids, key=int)

    def page(query: Mapping[str, str]) -> Answer:
        if "max_id" in query:
            listed = [each for each in numbers if int(each) < int(query["max_id"])][-5:]
        elif "min_id" in query:
            listed = [each for each in numbers if int(each) > int(query["min_id"])][:5]
        else:
            listed = numbers[-5:]
        return Answer(json.dumps([{"id": each} for each in reversed(listed)]).encode())

    return page


def listed(found: list[WalkItem]) -> list[Any]:
    return [each.status["id"] for each in found if isinstance(each, ListedStatus)]


def test_half_an_hour_before_the_cursor_is_read_again() -> None:
    ids = [minute(number) for number in range(-60, 12)]

    found = walk({TIMELINE: timeline(*ids)}, WalkRequest(minute(0), []))

    again = listed(found[found.index(WalkReachedStream()) :])
    assert listed(found)[:11] == ids[61:]
    assert set(ids[30:60]) <= set(again) <= set(ids[25:60])
    assert all(
        (each.cursor is None) == (each.status["id"] in again)
        for each in found
        if isinstance(each, ListedStatus)
    )
    assert found[-1] == WalkEnded(None)


def test_half_an_hour_is_read_again_by_the_times_in_ids_of_another_software() -> None:
    """GoToSocial makes ids of the author's time: posts that arrive late are behind the cursor."""
    ids = [
        id_at(NOON + timedelta(minutes=number), "01ARZ3NDEKTSV4RRFFQ69G5FAV") or ""
        for number in range(-60, 12)
    ]

    def page(query: Mapping[str, str]) -> Answer:
        if "max_id" in query:
            listed = [each for each in ids if each < query["max_id"]][-5:]
        else:
            listed = [each for each in ids if each > query.get("min_id", "")][:5]
        return Answer(json.dumps([{"id": each} for each in reversed(listed)]).encode())

    found = walk({TIMELINE: page}, WalkRequest(ids[60], []))

    again = listed(found[found.index(WalkReachedStream()) :])
    assert set(ids[30:60]) <= set(again) <= set(ids[25:60])


def test_the_overlap_on_a_busy_server_leaves_requests_for_the_gap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timeline_walk, "_MOST_PAGES_OF_OVERLAP", 2)
    ids = [minute(number) for number in range(-60, 12)]

    found = walk({TIMELINE: timeline(*ids)}, WalkRequest(minute(0), []))

    assert sorted(listed(found[found.index(WalkReachedStream()) :])) == ids[50:60]
    assert found[-1] == WalkEnded(None)


def test_one_page_is_read_again_if_ids_have_no_time() -> None:
    found = walk({TIMELINE: timeline(*map(str, range(1, 30)))}, WalkRequest("20", []))

    assert listed(found) == [str(each) for each in (*range(21, 30), *range(15, 20))]


def test_a_walk_ends_where_the_stream_has_sent_everything() -> None:
    ids = [str(each) for each in range(1, 40)]

    found = walk({TIMELINE: timeline(*ids)}, WalkRequest("9", []), *ids[19:])

    assert listed(found)[:15] == ids[9:24]
    assert "26" not in listed(found)


def posting_timeline(*gone: str) -> Answering:
    """Numbers from 1 on: nine are there at first, and each page that is asked for brings two more.

    `gone` are deleted as soon as the newest page was reported.
    """
    ids = [str(each) for each in range(1, 10)]

    def page(query: Mapping[str, str]) -> Answer:
        if "min_id" not in query:
            return Answer(json.dumps([{"id": each} for each in ids[:-4:-1]]).encode())
        ids.extend(str(len(ids) + more) for more in (1, 2))
        present = [each for each in ids if each not in gone and int(each) > int(query["min_id"])]
        return Answer(json.dumps([{"id": each} for each in present[:2][::-1]]).encode())

    return page


def gone(found: list[WalkItem]) -> list[str]:
    return [each for item in found if isinstance(item, GonePosts) for each in item.status_ids]


def test_a_walk_from_the_oldest_post_ends_where_the_timeline_ended_when_it_began() -> None:
    found = walk({TIMELINE: posting_timeline()}, WalkRequest(OLDEST, []))

    assert listed(found) == [str(each) for each in range(1, 11)]
    assert found[-2:] == [WalkReachedStream(), WalkEnded(None)]


def test_a_walk_from_the_oldest_post_ends_although_the_newest_was_deleted() -> None:
    found = walk({TIMELINE: posting_timeline("9")}, WalkRequest(OLDEST, []))

    assert listed(found)[:9] == [*map(str, range(1, 9)), "10"]
    assert len(listed(found)) < 14
    assert found[-1] == WalkEnded(None)


def test_a_post_that_is_missing_is_deleted_only_by_its_own_answer() -> None:
    routes: dict[str, Answering] = {
        TIMELINE: timeline("1", "2", "3", "4", "5"),
        STATUSES: Answer(b'[{"id": "2"}]'),
        f"{STATUSES}/1": Answer(b"{}", 404),
        f"{STATUSES}/3": Answer(b'{"id": "3"}'),
        f"{STATUSES}/4": Answer(b"{}", 410),
    }

    found = walk(routes, WalkRequest("5", ["1", "2", "3", "4"]))

    assert gone(found) == ["1", "4"]
    assert found[-1] == WalkEnded(None)


def test_deletes_are_looked_for_although_there_was_no_time_for_all_posts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timeline_walk, "_LONGEST_WALK_SECONDS", -1)
    routes: dict[str, Answering] = {
        TIMELINE: timeline(*map(str, range(1, 30))),
        STATUSES: Answer(b'[{"id": "2"}]'),
        f"{STATUSES}/1": Answer(b"{}", 404),
    }

    found = walk(routes, WalkRequest("2", ["1", "2"]))

    assert gone(found) == ["1"]
    assert WalkReachedStream() not in found
    assert found[-1] == WalkEnded(
        "more was posted than the server's rate limits allow to be read", goes_on=True
    )


@pytest.mark.parametrize("status_code", [401, 403, 500, 503])
def test_a_refusal_deletes_nothing(status_code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "_BACKOFF", wait_none())
    routes: dict[str, Answering] = {
        TIMELINE: timeline("1", "2"),
        STATUSES: Answer(b"[]"),
        f"{STATUSES}/1": Answer(b"{}", status_code),
    }

    found = walk(routes, WalkRequest("2", ["1"]))

    assert not any(isinstance(each, GonePosts) for each in found)
    assert isinstance(found[-1], WalkFailed)


@pytest.mark.parametrize("status_code", [403, 404, 405])
def test_a_server_without_posts_by_ids_is_asked_for_each_post(
    status_code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline_walk, "_MOST_SINGLE_REQUESTS", 2)
    routes: dict[str, Answering] = {
        TIMELINE: timeline("1", "2", "3", "4"),
        STATUSES: Answer(b"{}", status_code),
        f"{STATUSES}/3": Answer(b'{"id": "3"}'),
    }

    found = walk(routes, WalkRequest("4", ["3", "2", "1"]))

    assert gone(found) == ["2"]
    assert found[-1] == WalkEnded(
        "deletes of 1 posts, the server does not serve posts by their ids (Mastodon 4.3 does)"
    )


def test_a_server_that_lists_nothing_is_reported() -> None:
    found = walk({TIMELINE: Answer(b"[]")}, WalkRequest("2", ["1"]))

    assert found == [WalkEnded("the server lists no posts")]


def test_a_start_that_the_server_does_not_hold_is_walked_from_the_newest_page() -> None:
    """An id that it does not hold gives an empty page, as if nothing had been posted."""
    ids = ["aa", "bb", "cc", "dd"]

    def page(query: Mapping[str, str]) -> Answer:
        if "min_id" in query:
            return Answer(b"[]")
        if "max_id" in query and query["max_id"] not in ids:
            return Answer(b"[]")
        end = ids.index(query["max_id"]) if "max_id" in query else len(ids)
        listed = ids[max(0, end - 2) : end]
        return Answer(json.dumps([{"id": each} for each in reversed(listed)]).encode())

    found = walk({TIMELINE: page}, WalkRequest("gone", ["aa"]))
    assert listed(found) == ["cc", "dd", "aa", "bb"]
    assert WalkReachedStream() in found

    lost = walk({TIMELINE: page}, WalkRequest("gone", []))
    assert WalkReachedStream() not in lost
    assert lost[-1] == WalkEnded("the server lists no posts")


@pytest.mark.parametrize(
    "status_id", ["1", "1763640000000", "01FV", "9" * 40, "9" * 5000, "", "１２"]
)
def test_an_id_that_is_no_snowflake_has_no_time(status_id: str) -> None:
    assert id_time(status_id) is None


def test_ids_that_are_built_from_times_have_one_and_can_be_made() -> None:
    assert id_time(minute(0)) == NOON
    for name in ("takahe/page_newest", "gotosocial/timeline_newest_page"):
        for each in exchange(name)["body"]:
            found = id_time(each["id"])
            assert found is not None
            posted = datetime.fromisoformat(each["created_at"])
            assert abs(found - posted) < timedelta(minutes=5)
            first = id_at(found, each["id"])
            assert first is not None
            assert len(first) == len(each["id"])
            assert id_time(first) == found
    assert id_time(id_at(NOON, minute(5)) or "") == NOON
    assert id_at(NOON, "1795941616" + "f" * 32) is None
