"""Posts that the timeline lists and the open stream does not send."""

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mastodon_assets.ingest import supervisor
from mastodon_assets.ingest.api import rate_limits
from mastodon_assets.ingest.recovery import audit
from mastodon_assets.ingest.recovery.gaps import Gap
from mastodon_assets.ingest.supervisor import ingest
from mastodon_assets.simulator.faults import Unsent
from mastodon_assets.simulator.personalities import GOTOSOCIAL
from mastodon_assets.simulator.server import running, synthetic_source
from mastodon_assets_tests.support.bounded_source import BoundedSource
from mastodon_assets_tests.support.documents import status
from mastodon_assets_tests.support.log_lines import log_lines
from mastodon_assets_tests.support.mock_broker import Broker
from mastodon_assets_tests.support.odd_server import Answer, Route, odd_server, stream

TOKEN = "token-of-the-test"
STREAM, TIMELINE = "/api/v1/streaming/public", "/api/v1/timelines/public"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_MINUTE_SECONDS", 0.03)
    monkeypatch.setattr(rate_limits, "_SHORTEST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(audit, "GRACE", timedelta(seconds=0.5))


class _Server:
    """It lists posts of the time since it was first asked, and streams those in `sent`."""

    def __init__(self, listed: int, sent: range) -> None:
        self.pages = 0
        self._listed = listed
        self._sent = sent
        self._at = ""

    def routes(self) -> dict[str, Route]:
        return {STREAM: self._stream, TIMELINE: self._page}

    def _document(self, number: int) -> dict[str, Any]:
        # A moment after the stream is open.
        self._at = self._at or (datetime.now(UTC) + timedelta(seconds=0.3)).isoformat()
        return status(str(number), created_at=self._at)

    def _stream(self, _query: Mapping[str, str]) -> Answer:
        documents = [self._document(number) for number in self._sent]
        events = [f"event: update\ndata: {json.dumps(each)}\n\n" for each in documents]
        return stream("".join(events).encode())

    def _page(self, query: Mapping[str, str]) -> Answer:
        self.pages += 1
        end = int(query.get("max_id", self._listed + 1))
        numbers = range(max(1, end - 3), end)
        return Answer(json.dumps([self._document(each) for each in numbers][::-1]).encode())


def run(broker: Broker, base_url: str, should_stop: Callable[[], bool], token: str = TOKEN) -> None:
    deadline = time.monotonic() + 30

    def is_over() -> bool:
        assert time.monotonic() < deadline
        return should_stop()

    ingest(
        broker.settings(mastodon_api_base_url=base_url, mastodon_access_token=token),
        max_events=None,
        until_caught_up=False,
        should_stop=is_over,
    )


def test_what_an_open_stream_does_not_send_is_published_and_noted_as_a_gap(
    broker: Broker, gaps: dict[datetime, Gap]
) -> None:
    server = _Server(listed=12, sent=range(1, 9))
    with odd_server(server.routes()) as odd, log_lines() as lines:
        run(broker, odd.base_url, lambda: any(gap.status != "open" for gap in gaps.values()))

    assert sorted(int(message["id"]) for message in broker.messages()) == list(range(1, 13))
    origins = {int(each["id"]): each["origin"] for each in broker.messages()}
    assert {origins[number] for number in range(9, 13)} == {"backfill"}
    (gap,) = gaps.values()
    assert (gap.reason, gap.status, gap.recovered_count) == ("not_streamed", "recovered", 4)
    assert (gap.from_id, gap.to_id) == ("9", "12")
    assert any(
        "did not send 4 of 12 posts that the timeline lists; 4 of them published" in line
        for line in lines
    )


def test_what_the_socket_of_another_software_never_sends_is_found_on_its_timeline(
    broker: Broker, gaps: dict[datetime, Gap]
) -> None:
    """As a GoToSocial was seen: 2 of 96 posts that it listed were never sent."""
    domain = "a.gts.example"
    live = synthetic_source(toots=20, days=1, seed=1, rate=40, domain=domain)
    source = BoundedSource(live, 96)

    def found() -> list[Gap]:
        return [gap for gap in gaps.values() if gap.recovered_count]

    def is_over() -> bool:
        return source.is_over and sum(gap.recovered_count for gap in found()) >= 2

    with running(Unsent(source, 2 / 96), domain=domain, personality=GOTOSOCIAL) as server:
        run(broker, server.base_url, is_over, token=server.token)

    assert sum(gap.recovered_count for gap in found()) == 2
    assert {(gap.reason, gap.status) for gap in found()} == {("not_streamed", "recovered")}
    backfilled = [each["id"] for each in broker.messages() if each["origin"] == "backfill"]
    assert sorted(backfilled) == sorted(gap.from_id or "" for gap in found())
    assert {len(status_id) for status_id in backfilled} == {26}


def test_an_audit_that_misses_nothing_is_no_gap(broker: Broker, gaps: dict[datetime, Gap]) -> None:
    server = _Server(listed=8, sent=range(1, 9))
    with odd_server(server.routes()) as odd:
        run(broker, odd.base_url, lambda: server.pages > 9)

    assert len(broker.messages()) == 8
    assert gaps == {}


def test_a_stream_that_is_open_and_silent_is_left_for_polling(
    broker: Broker, gaps: dict[datetime, Gap]
) -> None:
    server = _Server(listed=12, sent=range(0))
    with odd_server(server.routes()) as odd, log_lines() as lines:
        run(broker, odd.base_url, lambda: any("polling the timeline" in line for line in lines))

    closed = "silence: the stream is open but sends no posts; reconnecting in"
    assert any(closed in line for line in lines)
    assert not any("ended by the server" in line for line in lines)
    assert sorted(int(message["id"]) for message in broker.messages()) == list(range(1, 13))
