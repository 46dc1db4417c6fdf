"""What goes wrong on the way; afterwards Kafka holds what it would hold had nothing gone wrong."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from tenacity import wait_none

from mastodon_assets.contract.messages import encode
from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest import checkpoint, event_queue, gap_repair, source_worker, supervisor
from mastodon_assets.ingest.api import event_stream, rate_limits
from mastodon_assets.ingest.api.event_stream import StreamEvent
from mastodon_assets.ingest.handler import EventHandler, IngestSummary
from mastodon_assets.ingest.policy.admission import AdmissionPolicy
from mastodon_assets.ingest.policy.consent import withheld_reason
from mastodon_assets.ingest.recovery import timeline_walk
from mastodon_assets.ingest.recovery.gaps import Gap
from mastodon_assets.ingest.supervisor import ingest
from mastodon_assets.kafka import publisher as publisher_module
from mastodon_assets.kafka.publisher import Publisher
from mastodon_assets.simulator.faults import Fault, Faults, Refusal
from mastodon_assets.simulator.server import running
from mastodon_assets.simulator.sources import SyntheticSource
from mastodon_assets.simulator.sse import json_text
from mastodon_assets.simulator.synthetic import Event, LivePosts, history
from mastodon_assets.simulator.timeline import PageRequest
from mastodon_assets.warehouse.suppression_list import SuppressionList
from mastodon_assets_tests.support.log_lines import log_lines
from mastodon_assets_tests.support.mock_broker import Broker

pytestmark = pytest.mark.usefixtures("processes")

TOKEN = "token"
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
EVENTS = history(toots=300, days=1, seed=5, now=NOW)


def _first_missed() -> int:
    """The first of forty events with a delete among them, of a post that was reported before."""
    reported: set[str] = set()
    for number, event in enumerate(EVENTS):
        if event.kind == "delete" and event.status_id in reported and number > 100:
            return number - 20
        reported.update(each.status_id for each in EVENTS[max(0, number - 30) : number - 20])
    raise AssertionError("no such delete in this history")


LOST_AT, LOST = _first_missed(), 40


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of minutes, in a test, are none."""
    monkeypatch.setattr(event_queue, "_BACKOFF", wait_none())
    monkeypatch.setattr(event_queue, "REFUSED_TOKEN_SECONDS", 0.1)
    monkeypatch.setattr(source_worker, "_COMMIT_SECONDS", 0.2)
    monkeypatch.setattr(rate_limits, "_BACKOFF", wait_none())
    monkeypatch.setattr(rate_limits, "_SHORTEST_PAUSE_SECONDS", 0.05)


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
def expected() -> dict[str, tuple[str, str]]:
    """What a reader that misses nothing has in the end."""
    publisher = Collecting()
    handler = EventHandler(
        publisher,  # type: ignore[arg-type]
        instance="simulator.example",
        policy=AdmissionPolicy(),
        suppression_list=SuppressionList,
    )
    for event in EVENTS:
        data = event.data or event.status_id
        text = data if event.status is None else json_text(event.status)
        handler.handle_event(StreamEvent(event.kind, text, NOW))
    return tables([json.loads(json.dumps(message)) for message in publisher.messages])


class Collecting:
    """A publisher whose Kafka is a list."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def publish(self, message: dict[str, Any]) -> None:
        encode(message)
        self.messages.append(message)

    def publish_error(self, **error: Any) -> None:
        """Dead letters are not compared."""


class Ingest(threading.Thread):
    """An ingester that runs until it is stopped."""

    def __init__(self, broker: Broker, base_url: str) -> None:
        super().__init__()
        self.settings = broker.settings(mastodon_api_base_url=base_url, mastodon_access_token=TOKEN)
        self.lines: list[str] = []
        self.error: BaseException | None = None
        self.summary: IngestSummary | None = None
        self.stopped = threading.Event()

    def run(self) -> None:
        try:
            with log_lines() as self.lines:
                self.summary = ingest(
                    self.settings,
                    max_events=None,
                    until_caught_up=False,
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

    def end(self) -> None:
        self.stopped.set()
        self.join(20)
        assert not self.is_alive()

    def has_logged(self, text: str) -> bool:
        return any(text in line for line in list(self.lines))


@contextmanager
def ingesting(broker: Broker, base_url: str) -> Iterator[Ingest]:
    thread = Ingest(broker, base_url)
    thread.start()
    try:
        yield thread
    finally:
        thread.end()
    assert thread.error is None


def ids_before(after: int, count: int) -> frozenset[str]:
    """The last plain posts among the first `after` events."""
    plain = [event for event in EVENTS[:after] if _is_plain(event)]
    return frozenset(event.status_id for event in plain[-count:])


def _is_plain(event: Event) -> bool:
    others = [each for each in EVENTS if each.status_id == event.status_id]
    return event.kind == "update" and event.status is not None and len(others) == 1


UNAVAILABLE = Refusal(503)
FAULTS = {
    "a cut in mid-event": (Fault(LOST_AT, LOST, in_mid_event=True), "cut"),
    "a clean end": (Fault(LOST_AT, LOST), "ended by the server"),
    "a stall": (Fault(LOST_AT, LOST, is_stall=True), "silence"),
    "a revoked token": (
        Fault(LOST_AT, LOST, stream_refusals=(Refusal(401), Refusal(401))),
        "token refused (401)",
    ),
    "a rate limit of streams": (
        Fault(LOST_AT, LOST, stream_refusals=(Refusal(429, reset_seconds=0.2),)),
        "rate limit",
    ),
    "a server error": (
        Fault(LOST_AT, LOST, stream_refusals=(Refusal(502), UNAVAILABLE)),
        "server error (503)",
    ),
    "a rate limit of pages": (
        Fault(LOST_AT, LOST, page_refusals=(Refusal(429, reset_seconds=0.2),)),
        "ended by the server",
    ),
    "pages that fail": (
        Fault(LOST_AT, LOST, page_refusals=(Refusal(500), Refusal(502))),
        "ended by the server",
    ),
    "posts inserted behind the cursor": (
        Fault(LOST_AT, behind=ids_before(LOST_AT, 5)),
        "ended by the server",
    ),
}


@pytest.mark.parametrize(("fault", "logged"), FAULTS.values(), ids=FAULTS)
def test_after_a_fault_nothing_is_missing(
    broker: Broker,
    gaps: dict[datetime, Gap],
    monkeypatch: pytest.MonkeyPatch,
    expected: dict[str, tuple[str, str]],
    fault: Fault,
    logged: str,
) -> None:
    # Long where silence is not the fault: a busy machine must not add one.
    monkeypatch.setattr(event_stream, "SILENCE_SECONDS", 1 if fault.is_stall else 45)
    faults = Faults(source(), [fault])
    with (
        running(faults, token=TOKEN, heartbeat_seconds=0.3, refuse=faults.refusal) as server,
        ingesting(broker, server.base_url) as thread,
    ):
        thread.wait_until(lambda: thread.has_logged("gap backfilled"))
        thread.wait_until(lambda: tables(broker.messages()) == expected)

    assert faults.is_over
    assert thread.has_logged(logged)
    (gap,) = gaps.values()
    assert (gap.status, gap.from_id is None, gap.ended_at is None) == ("recovered", False, False)
    assert gap.recovered_count > 0


def test_one_fault_after_the_other_leaves_nothing_missing(
    broker: Broker, gaps: dict[datetime, Gap], expected: dict[str, tuple[str, str]]
) -> None:
    script = [
        Fault(30, 10, in_mid_event=True),
        Fault(70, 10, stream_refusals=(UNAVAILABLE,), page_refusals=(UNAVAILABLE,)),
        Fault(100, 10, stream_refusals=(Refusal(403),)),
        Fault(LOST_AT, LOST, page_refusals=(Refusal(429, reset_seconds=0.2),)),
        Fault(LOST_AT + 60, 10, in_mid_event=True),
    ]
    faults = Faults(source(), script)
    with (
        running(faults, token=TOKEN, refuse=faults.refusal) as server,
        ingesting(broker, server.base_url) as thread,
    ):
        thread.wait_until(lambda: faults.is_over and tables(broker.messages()) == expected)
        thread.wait_until(lambda: all(gap.status == "recovered" for gap in gaps.values()))

    assert len(gaps) >= 3


def test_a_server_that_restarts_is_still_read(
    broker: Broker, gaps: dict[datetime, Gap], expected: dict[str, tuple[str, str]]
) -> None:
    faults = Faults(source(), [Fault(LOST_AT, LOST, is_stall=True)])
    with running(faults, token=TOKEN) as server:
        port = int(server.base_url.rpartition(":")[2])
        thread = Ingest(broker, server.base_url)
        thread.start()
        thread.wait_until(lambda: faults.is_over)
    try:
        thread.wait_until(lambda: thread.has_logged("cut: 127.0.0.1: no answer"))
        with running(faults, port=port, token=TOKEN):
            thread.wait_until(lambda: tables(broker.messages()) == expected)
            thread.end()
    finally:
        thread.end()

    assert thread.error is None


def test_a_walk_that_comes_to_a_limit_goes_on_until_the_gap_is_filled(
    broker: Broker,
    gaps: dict[datetime, Gap],
    expected: dict[str, tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timeline_walk, "_LONGEST_WALK_SECONDS", -1)
    monkeypatch.setattr(gap_repair, "SECONDS_UNTIL_GOING_ON", 0.05)
    faults = Faults(source(), [Fault(LOST_AT, LOST)])
    with (
        running(faults, token=TOKEN) as server,
        ingesting(broker, server.base_url) as thread,
    ):
        thread.wait_until(lambda: any(gap.status != "open" for gap in gaps.values()))

    (gap,) = gaps.values()
    assert gap.status == "recovered"
    assert thread.has_logged("the rate limits allow no more for now")
    assert tables(broker.messages()) == expected


def test_a_timeline_that_does_not_answer_is_tried_again_and_then_given_up(
    broker: Broker, gaps: dict[datetime, Gap], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gap_repair, "SECONDS_BETWEEN_WALKS", 0.05)
    faults = Faults(source(), [Fault(LOST_AT, LOST, page_refusals=(UNAVAILABLE,) * 1000)])
    with (
        running(faults, token=TOKEN, refuse=faults.refusal) as server,
        ingesting(broker, server.base_url) as thread,
    ):
        thread.wait_until(lambda: thread.has_logged("the gap stays"))

    (gap,) = gaps.values()
    assert gap.status == "unrecoverable"
    assert sum("the timeline cannot be read" in line for line in thread.lines) == 4


BROKER = """
import signal
from confluent_kafka import Producer
cluster = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "ignored:1", "log_level": 0})
address = next(iter(cluster.list_topics(timeout=5).brokers.values()))
client = Producer({"bootstrap.servers": f"{address.host}:{address.port}", "log_level": 0})
for topic in ("mastodon_stream", "mastodon_errors"):
    client.list_topics(topic, timeout=5)
print(f"{address.host}:{address.port}", flush=True)
signal.pause()
"""


@pytest.fixture
def broker_process() -> Iterator[tuple[Broker, "subprocess.Popen[str]"]]:
    """A broker that can be halted by a signal; what it took it keeps."""
    with subprocess.Popen(
        [sys.executable, "-c", BROKER], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield Broker(process.stdout.readline().strip()), process
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()


def test_kafka_may_go_away_and_come_back(
    broker_process: tuple[Broker, "subprocess.Popen[str]"],
    gaps: dict[datetime, Gap],
    cursors: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publisher_module, "_STUCK_SECONDS", 0.5)
    broker, process = broker_process
    posting = SyntheticSource(EVENTS, live=LivePosts(5, today=NOW), rate=30)
    with running(posting, token=TOKEN) as server, ingesting(broker, server.base_url) as thread:
        thread.wait_until(lambda: len(broker.messages()) > len(EVENTS))
        process.send_signal(signal.SIGSTOP)
        thread.wait_until(lambda: thread.has_logged("reading pauses"))
        thread.wait_until(lambda: bool(gaps))
        assert [gap.status for gap in gaps.values()] == ["open"]
        process.send_signal(signal.SIGCONT)
        thread.wait_until(lambda: thread.has_logged("gap backfilled"))

    posted = posting.page(
        PageRequest(limit=1000, max_id=str(int(cursors["simulator.example"]) + 1))
    )
    published = {message["id"] for message in broker.messages()}
    live = {entry.status_id for entry in posted} - {event.status_id for event in EVENTS}
    assert len(live) > 30
    assert live <= published | withheld(posting, live)
    assert [(gap.reason, gap.status) for gap in gaps.values()] == [("Kafka away", "recovered")]


def test_the_state_says_paused_while_kafka_is_away(
    broker_process: tuple[Broker, "subprocess.Popen[str]"],
    states: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else `status` would take it for an ingester that does not run."""
    monkeypatch.setattr(publisher_module, "_STUCK_SECONDS", 0.5)
    monkeypatch.setattr(checkpoint, "_RECORD_SECONDS", 0)
    broker, process = broker_process
    posting = SyntheticSource(EVENTS, live=LivePosts(5, today=NOW), rate=30)
    with running(posting, token=TOKEN) as server, ingesting(broker, server.base_url) as thread:
        thread.wait_until(lambda: thread.has_logged("connected"))
        process.send_signal(signal.SIGSTOP)
        thread.wait_until(lambda: states.count(("public", "paused")) >= 3)
        process.send_signal(signal.SIGCONT)
        thread.wait_until(lambda: thread.has_logged("reading continues"))


def withheld(posting: SyntheticSource, ids: set[str]) -> set[str]:
    statuses = {status_id: json.loads(posting.status(status_id) or b"null") for status_id in ids}
    return {
        status_id
        for status_id, status in statuses.items()
        if withheld_reason(status, policy="respect")
    }


def test_a_stop_does_not_wait_for_kafka(
    broker_process: tuple[Broker, "subprocess.Popen[str]"],
    cursors: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(source_worker, "FLUSH_SECONDS", 600)
    broker, process = broker_process
    posting = SyntheticSource(EVENTS, live=LivePosts(5, today=NOW), rate=30)
    with running(posting, token=TOKEN) as server:
        thread = Ingest(broker, server.base_url)
        thread.start()
        thread.wait_until(lambda: thread.has_logged("connected"))
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        thread.stopped.set()
        thread.join(60)

    assert not thread.is_alive()
    assert isinstance(thread.error, ServiceUnavailableError)
    assert "not acknowledged" in str(thread.error)


def test_a_stop_does_not_wait_for_postgresql(
    broker: Broker, cursors: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a statement and answers nothing."""
    is_asked, is_back = threading.Event(), threading.Event()

    def save_cursor(*_: object) -> None:
        is_asked.set()
        is_back.wait()

    flushes: list[float] = []
    flush = Publisher.flush

    def noted_flush(publisher: Publisher, seconds: float) -> None:
        flushes.append(seconds)
        flush(publisher, seconds)

    monkeypatch.setattr(source_worker, "_COMMIT_SECONDS", 600)
    monkeypatch.setattr(Publisher, "flush", noted_flush)
    monkeypatch.setattr(checkpoint, "save_cursor", save_cursor)
    posting = SyntheticSource(EVENTS, live=LivePosts(5, today=NOW), rate=30)
    try:
        with running(posting, token=TOKEN) as server:
            thread = Ingest(broker, server.base_url)
            thread.start()
            thread.wait_until(lambda: len(broker.messages()) > 10)
            thread.stopped.set()
            thread.join(60)
            assert not thread.is_alive()
            assert is_asked.wait(60)
    finally:
        is_back.set()

    assert "simulator.example/public did not end in time" in str(thread.error)
    assert [seconds <= supervisor._END_SECONDS / 2 for seconds in flushes] == [True]
