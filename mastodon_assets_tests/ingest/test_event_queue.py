"""The queue between the threads that read and the one that handles."""

import threading
import time
from datetime import UTC, datetime

import orjson
import pytest
from pydantic import SecretStr
from tenacity import RetryCallState

from mastodon_assets.ingest import event_queue
from mastodon_assets.ingest.api.client import MastodonClient
from mastodon_assets.ingest.api.event_stream import StreamEvent
from mastodon_assets.ingest.api.rate_limits import RateLimits
from mastodon_assets.ingest.event_queue import Connected, Disconnected, opened_event_queue
from mastodon_assets.ingest.recovery.poll import PollStart
from mastodon_assets.ingest.recovery.timeline_walk import ListedStatus
from mastodon_assets_tests.support.documents import status
from mastodon_assets_tests.support.odd_server import odd_server, stream

pytestmark = pytest.mark.usefixtures("loopback")

STREAM = "/api/v1/streaming/public"


def test_a_stream_is_closed_and_not_left_unread_while_the_queue_is_full_of_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_queue, "_QUEUE_BYTES", 100_000)
    monkeypatch.setattr(event_queue, "_FULL_SECONDS", 0.1)
    large = b"event: update\ndata: " + b"a" * 30_000 + b"\n\n"
    with odd_server({STREAM: stream(large * 50)}) as server:
        client = MastodonClient(server.base_url, SecretStr("token"))
        start = PollStart(None, False, list)
        with opened_event_queue(client, RateLimits(is_limited=False), start) as queue:
            deadline = time.monotonic() + 20
            while queue.seconds_since_last_bytes() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            while queue.seconds_since_last_bytes() is not None and time.monotonic() < deadline:
                time.sleep(0.01)
            assert queue.waiting() == 5
            oldest = queue.oldest_event_at()
            items = [queue.next(1) for _ in range(6)]

    assert isinstance(items[0], Connected)
    received = [item.received_at for item in items[1:5] if isinstance(item, StreamEvent)]
    assert len(received) == 4
    assert oldest == min(received)
    assert isinstance(items[5], Disconnected)
    assert items[5].reason == "queue full"


def test_an_answer_nested_as_deep_as_json_may_be_waits_and_is_handed_out() -> None:
    """The text of such a document cannot be made: Python's stack is not that deep."""
    deep = orjson.loads("[" * 1000 + "]" * 1000)
    waiting = event_queue._ByteBoundedQueue(10)
    for status_id in ("1", "2"):
        waiting.put(ListedStatus(status(status_id, extra=deep), None, datetime.now(UTC)))

    handed_out = [waiting.get_nowait(), waiting.get_nowait()]
    assert [item.status["id"] for item in handed_out if isinstance(item, ListedStatus)] == [
        "1",
        "2",
    ]
    assert waiting.empty()


def test_a_stream_that_ends_after_each_event_is_opened_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts: list[int] = []
    backoff = event_queue._BACKOFF

    def noted(state: RetryCallState) -> float:
        attempts.append(state.attempt_number)
        backoff(state)
        return 0.0

    monkeypatch.setattr(event_queue, "_BACKOFF", noted)
    short = stream(b"event: delete\ndata: 1\n\n", is_open=False)
    with odd_server({STREAM: short}) as server:
        client = MastodonClient(server.base_url, SecretStr("token"))
        start = PollStart(None, False, list)
        with opened_event_queue(client, RateLimits(is_limited=False), start) as queue:
            waited = threading.Event()
            while len(attempts) < 4 and not waited.wait(0.01):
                queue.next(0.1)

    assert attempts[:4] == [1, 2, 3, 4]
