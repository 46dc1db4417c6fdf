"""A server in bad weather, as a client sees it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent

from mastodon_assets.simulator.chaos import ChaosServer, Ids, Kind
from mastodon_assets.simulator.server import SimulatorServer, running
from mastodon_assets_tests.support.simulator_client import client

pytestmark = pytest.mark.usefixtures("loopback")

STREAM = "/api/v1/streaming/public"
TIMELINE = "/api/v1/timelines/public"


@contextmanager
def chaotic(*kinds: Kind, ids: Ids = "snowflake") -> Iterator[tuple[ChaosServer, SimulatorServer]]:
    chaos = ChaosServer(seed=3, rate=50, fault_seconds=0.3, kinds=kinds, ids=ids)
    with running(chaos, heartbeat_seconds=0.05, refuse=chaos.refusal) as server:
        yield chaos, server


def read(chaos: ChaosServer, server: SimulatorServer, most: int = 400) -> list[ServerSentEvent]:
    """Events of one stream until it ends, or there are `most`; faults begin with it."""
    events: list[ServerSentEvent] = []
    with client(server) as http, http.stream("GET", STREAM, timeout=2) as response:
        chaos.start_faults()
        for event in EventSource(response).iter_sse():
            events.append(event)
            if len(events) == most:
                break
    return events


def test_posts_and_deletes_of_the_stream_are_those_that_happened() -> None:
    with chaotic() as (chaos, server):
        events = read(chaos, server, most=100)

    reported = {json.loads(event.data)["id"] for event in events if event.event == "update"}
    deleted = {event.data for event in events if event.event == "delete"}
    assert reported <= set(chaos.posts)
    assert deleted <= chaos.deleted
    assert len(deleted) > 0


def test_a_clean_end_is_followed_by_refusals_for_a_while() -> None:
    with chaotic("clean end") as (chaos, server), client(server) as http:
        events = read(chaos, server)
        assert 0 < len(events) < 400
        assert http.get(STREAM).status_code == 503
    assert chaos.faults["clean end"] >= 1


def test_a_refused_token_is_one_answer() -> None:
    with chaotic("token refused") as (chaos, server), client(server) as http:
        read(chaos, server)
        assert http.get(STREAM).status_code == 401
        assert http.get(TIMELINE).status_code == 200


def test_a_live_stream_is_torn_in_mid_event() -> None:
    with chaotic("cut in mid-event") as (chaos, server), pytest.raises(httpx.RemoteProtocolError):
        read(chaos, server)


def test_a_live_stream_stalls_without_a_heartbeat() -> None:
    with chaotic("stall") as (chaos, server), client(server) as http:
        chaos.start_faults()
        with (
            http.stream("GET", STREAM, timeout=0.2) as response,
            pytest.raises(httpx.ReadTimeout),
        ):
            for _ in response.iter_raw():
                pass


def test_a_feed_of_deletes_alone_has_no_posts_for_a_while() -> None:
    with chaotic("deletes only") as (chaos, server):
        events = read(chaos, server, most=60)
    reported = {json.loads(event.data)["id"] for event in events if event.event == "update"}
    newest = max(int(status_id) for status_id in reported)
    missed = {status_id for status_id in chaos.posts if int(status_id) < newest} - reported
    assert len(missed) >= 2


def test_posts_behind_the_cursor_are_listed_and_not_streamed() -> None:
    with chaotic("posts behind the cursor") as (chaos, server), client(server) as http:
        events = read(chaos, server)
        reported = {json.loads(event.data)["id"] for event in events if event.event == "update"}
        page = http.get(TIMELINE, params={"min_id": "0", "limit": "40"}).json()
    oldest = min(reported, key=int)
    behind = [status["id"] for status in page if int(status["id"]) < int(oldest)]
    assert len(behind) >= 3
    assert not reported & set(behind)


@pytest.mark.parametrize(("ids", "length"), [("flake", 18), ("ulid", 26)])
def test_ids_of_other_software_are_paged_in_their_order(ids: Ids, length: int) -> None:
    with chaotic(ids=ids) as (chaos, server), client(server) as http:
        read(chaos, server, most=100)
        chaos.stop_posting()
        found: list[str] = []
        last = "0"
        while page := http.get(TIMELINE, params={"min_id": last, "limit": "40"}).json():
            found += [status["id"] for status in reversed(page)]
            last = page[0]["id"]
    assert {len(status_id) for status_id in found} == {length}
    assert not any(status_id.isdecimal() for status_id in found)
    assert found == sorted(found)
    assert set(found) == set(chaos.posts) - chaos.deleted
