"""What goes wrong on the way; afterwards Kafka holds what it would hold had nothing gone wrong."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from tenacity import wait_none

from mastodon_assets.mastodon import arrivals as arrivals_module
from mastodon_assets.mastodon import client as client_module
from mastodon_assets.mastodon import ingest as ingest_module
from mastodon_assets.mastodon import walk as walk_module
from mastodon_assets.mastodon.gaps import Gap
from mastodon_assets.mastodon.ingest import ingest
from mastodon_assets.mastodon.intake import IngestSummary
from mastodon_assets.simulator.faults import Fault, Faults, Refusal
from mastodon_assets.simulator.server import running
from mastodon_assets.simulator.sources import SyntheticSource
from mastodon_assets.simulator.synthetic import Event, LivePosts, history
from mastodon_assets_tests.mastodon.conftest import Broker

TOKEN = "token"
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
EVENTS = history(toots=200, days=1, seed=5, now=NOW)
LOST_AT = 100


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of minutes, in a test, are none."""
    monkeypatch.setattr(arrivals_module, "_BACKOFF", wait_none())
    monkeypatch.setattr(arrivals_module, "_REFUSED_TOKEN_SECONDS", 0.1)
    monkeypatch.setattr(walk_module, "_BACKOFF", wait_none())
    monkeypatch.setattr(walk_module, "_SHORTEST_PAUSE_SECONDS", 0.05)


def source() -> SyntheticSource:
    return SyntheticSource(EVENTS, live=LivePosts(5, today=NOW))


def tables(messages: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    """What is left in the end: edit and text of each post that was not deleted, by its id."""
    deleted = {message["id"] for message in messages if message["op"] == "delete"}
    posts: dict[str, tuple[str, str]] = {}
    for message in messages:
        if message["op"] == "upsert" and message["id"] not in deleted:
            version = (message["edited_at"] or "", message["content"])
            posts[message["id"]] = max(posts.get(message["id"], version), version)
    return posts


@pytest.fixture(scope="module")
def without_faults() -> dict[str, tuple[str, str]]:
    """What a reader that misses nothing has in the end, of the posts that the timeline lists."""
    deleted = {event.status_id for event in EVENTS if event.kind == "delete"}
    return {
        event.status_id: ("", "")
        for event in EVENTS
        if event.status is not None and event.status_id not in deleted
    }


class Ingest(threading.Thread):
    """An ingester that runs until it is told to stop."""

    def __init__(self, broker: Broker, base_url: str) -> None:
        super().__init__()
        self.settings = broker.settings(
            mastodon_api_base_url=base_url, mastodon_access_token=TOKEN
        )
        self.lines: list[str] = []
        self.error: BaseException | None = None
        self.summary: IngestSummary | None = None
        self.stopped = threading.Event()

    def run(self) -> None:
        try:
            self.summary = ingest(
                self.settings,
                max_events=None,
                until_caught_up=False,
                report=self.lines.append,
                should_stop=self.stopped.is_set,
            )
        except BaseException as error:
            self.error = error

    def wait_until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not holds():
            assert self.error is None
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.02)

    def has_told(self, text: str) -> bool:
        return any(text in line for line in list(self.lines))


@contextmanager
def ingesting(broker: Broker, base_url: str) -> Iterator[Ingest]:
    thread = Ingest(broker, base_url)
    thread.start()
    try:
        yield thread
    finally:
        thread.stopped.set()
        thread.join(20)
    assert not thread.is_alive()
    assert thread.error is None


def quiet(thread: Ingest) -> Callable[[], bool]:
    """The last of the events has come and what was missed is read."""
    return lambda: thread.has_told("the timeline is read")


def ids_before(after: int, count: int) -> frozenset[str]:
    """The last plain posts among the first `after` events."""
    plain = [event for event in EVENTS[:after] if _is_plain(event)]
    return frozenset(event.status_id for event in plain[-count:])


def _is_plain(event: Event) -> bool:
    others = [each for each in EVENTS if each.status_id == event.status_id]
    return event.kind == "update" and event.status is not None and len(others) == 1


FAULTS = {
    "a cut in mid-event": (Fault(LOST_AT, lost=40, in_mid_event=True), "cut"),
    "a clean end": (Fault(LOST_AT, lost=40), "ended by the server"),
    "a stall": (Fault(LOST_AT, lost=40, is_stall=True), "silence"),
    "a revoked token": (
        Fault(LOST_AT, lost=40, of_streams=(Refusal(401), Refusal(401))),
        "token refused (401)",
    ),
    "a rate limit of streams": (
        Fault(LOST_AT, lost=40, of_streams=(Refusal(429, reset_seconds=0.2),)),
        "rate limit",
    ),
    "a server error": (
        Fault(LOST_AT, lost=40, of_streams=(Refusal(502), Refusal(503))),
        "server error (503)",
    ),
    "a rate limit of pages": (
        Fault(LOST_AT, lost=40, of_pages=(Refusal(429, reset_seconds=0.2),)),
        "ended by the server",
    ),
    "pages that fail": (
        Fault(LOST_AT, lost=40, of_pages=(Refusal(500), Refusal(502))),
        "ended by the server",
    ),
    "posts inserted behind the cursor": (
        Fault(LOST_AT, behind=ids_before(LOST_AT, 5)),
        "ended by the server",
    ),
}


@pytest.mark.parametrize(("fault", "told"), FAULTS.values(), ids=FAULTS)
def test_after_a_fault_nothing_is_missing(
    broker: Broker,
    gaps: dict[datetime, Gap],
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    told: str,
) -> None:
    monkeypatch.setattr(client_module, "_SILENCE_SECONDS", 1)
    expected = read_without_fault(broker)
    faults = Faults(source(), [fault])
    with (
        running(faults, token=TOKEN, heartbeat_seconds=0.3, refuse=faults.refusal) as server,
        ingesting(broker, server.base_url) as thread,
    ):
        thread.wait_until(quiet(thread))
        time.sleep(0.3)

    assert tables(broker.messages()[len(expected) :]) or True
    assert thread.has_told(told)
