"""The script of faults, as a client sees it."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import httpx
import pytest
from httpx_sse import EventSource

from mastodon_assets.simulator.faults import Fault, Faults, Refusal
from mastodon_assets.simulator.server import SimulatorServer, running
from mastodon_assets.simulator.sources import Frame, StreamInterrupted, SyntheticSource
from mastodon_assets.simulator.synthetic import LivePosts, history
from mastodon_assets_tests.support.simulator_client import client

pytestmark = pytest.mark.usefixtures("loopback")

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
EVENTS = history(toots=40, days=1, seed=3, now=NOW)
STREAM = "/api/v1/streaming/public"


def faulty(*faults: Fault) -> Faults:
    return Faults(SyntheticSource(EVENTS, live=LivePosts(3, today=NOW)), faults)


def read(server: SimulatorServer) -> Iterator[str]:
    """The data of each event of one stream, until it ends."""
    with client(server) as http, http.stream("GET", STREAM) as response:
        response.raise_for_status()
        yield from (event.data for event in EventSource(response).iter_sse())


def test_what_is_lost_is_in_no_stream() -> None:
    with running(faulty(Fault(10, lost=5))) as server:
        first = list(read(server))
        after = read(server)
        rest = [next(after) for _ in EVENTS[15:]]
        after.close()  # type: ignore[attr-defined]

    assert (len(first), len(rest)) == (10, len(EVENTS) - 15)
    assert EVENTS[15].status_id in rest[0]


def test_a_connection_torn_in_mid_event_is_an_error_of_the_client() -> None:
    reported: list[str] = []
    with (
        running(faulty(Fault(10, lost=1, in_mid_event=True))) as server,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        reported.extend(read(server))

    assert len(reported) == 10


def test_a_stalled_stream_has_no_heartbeat() -> None:
    with (
        running(faulty(Fault(2, is_stall=True)), heartbeat_seconds=0.05) as server,
        client(server) as http,
        http.stream("GET", STREAM, timeout=0.5) as response,
    ):
        chunks: list[bytes] = []
        with pytest.raises(httpx.ReadTimeout):
            chunks.extend(response.iter_raw())

    assert b"".join(chunks).count(b"event: ") == 2


def test_what_happens_during_a_stall_is_not_sent_when_the_stream_ends() -> None:
    class Stalling(SyntheticSource):
        async def live(self) -> AsyncIterator[Frame | StreamInterrupted]:
            yield Frame(b"event: delete\ndata: before\n\n", is_local=None)
            yield StreamInterrupted(b"", is_stall=True)
            await asyncio.sleep(0.2)
            yield Frame(b"event: delete\ndata: meanwhile\n\n", is_local=None)
            yield StreamInterrupted(b"", is_stall=False)

    with running(Stalling([], live=LivePosts(3, today=NOW))) as server:
        assert list(read(server)) == ["before"]


def test_refusals_come_after_the_fault_and_end() -> None:
    fault = Fault(
        1,
        stream_refusals=(Refusal(401),),
        page_refusals=(Refusal(429, reset_seconds=60), Refusal(503)),
    )
    faults = faulty(fault)
    with running(faults, refuse=faults.refusal) as server, client(server) as http:
        assert http.get("/api/v1/timelines/public").status_code == 200
        list(read(server))
        limited = http.get("/api/v1/timelines/public")
        reset = datetime.fromisoformat(limited.headers["X-RateLimit-Reset"])
        assert (limited.status_code, reset.timestamp() > time.time()) == (429, True)
        assert http.get("/api/v1/timelines/public").status_code == 503
        assert http.get("/api/v1/timelines/public").status_code == 200
        with pytest.raises(httpx.HTTPStatusError, match="401"):
            list(read(server))


def test_a_post_that_comes_late_is_listed_behind_others() -> None:
    late = next(event for event in EVENTS[5:] if event.kind == "update" and event.status)
    faults = faulty(Fault(EVENTS.index(late) + 3, behind=frozenset({late.status_id})))
    with running(faults) as server, client(server) as http:

        def listed() -> set[str]:
            page = http.get("/api/v1/timelines/public", params={"limit": 40})
            return {status["id"] for status in page.json()}

        before = listed()
        reported = list(read(server))
        assert listed() - before == {late.status_id}

    assert not any(f'"id":"{late.status_id}"' in data for data in reported)
