"""Several sources and servers in one process: each by itself, and all of them together."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.request import urlopen

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from tenacity import wait_none

from mastodon_assets.errors import ServiceUnavailableError, SettingsError
from mastodon_assets.ingest import checkpoint, liveness, source_worker, supervisor
from mastodon_assets.ingest.api import client, event_stream
from mastodon_assets.ingest.handler import IngestSummary
from mastodon_assets.ingest.supervisor import ingest
from mastodon_assets.operations.metrics_endpoint import serving_metrics
from mastodon_assets.simulator.faults import Refusal
from mastodon_assets.simulator.server import running, synthetic_source
from mastodon_assets_tests.support.documents import account, status
from mastodon_assets_tests.support.log_lines import log_lines
from mastodon_assets_tests.support.mock_broker import Broker
from mastodon_assets_tests.support.odd_server import Answer, Route, odd_server, stream
from mastodon_assets_tests.support.ports import free_port

STREAM = "/api/v1/streaming/public"
TIMELINE = "/api/v1/timelines/public"
ONE, TWO = "one.example", "two.example"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_worker, "_QUIET_SECONDS", 0.4)
    monkeypatch.setattr(source_worker, "_COMMIT_SECONDS", 0.2)


def address(base_url: str) -> str:
    return base_url.removeprefix("http://")


def run(
    broker: Broker,
    tokens: Mapping[str, str],
    *,
    sources: str = "public",
    max_events: int | None = None,
    until_caught_up: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    **options: Any,
) -> IngestSummary:
    """Read the servers, by address, with their tokens."""
    pairs = [f"{address(url)}={token}" for url, token in tokens.items()]
    return ingest(
        broker.settings(
            mastodon_api_base_url=",".join(tokens),
            mastodon_access_token=",".join(pairs),
            mastodon_sources=sources,
        ),
        max_events=max_events,
        until_caught_up=until_caught_up,
        should_stop=should_stop,
        **options,
    )


class Running(threading.Thread):
    """An ingester that runs until it is reported to stop."""

    def __init__(self, broker: Broker, tokens: Mapping[str, str], **options: Any) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.error: BaseException | None = None
        self.stopped = threading.Event()
        self._read = partial(run, broker, tokens, should_stop=self.stopped.is_set, **options)

    def run(self) -> None:
        try:
            with log_lines() as self.lines:
                self._read()
        except BaseException as error:
            self.error = error

    def wait_for(self, text: str) -> None:
        self.wait_until(lambda: any(text in line for line in list(self.lines)))

    def wait_until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not holds():
            assert self.error is None, self.error
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.02)

    def end(self) -> None:
        self.stopped.set()
        self.join(60)
        assert not self.is_alive()


@contextmanager
def reading(broker: Broker, tokens: Mapping[str, str], **options: Any) -> Iterator[Running]:
    thread = Running(broker, tokens, **options)
    thread.start()
    try:
        yield thread
    finally:
        thread.end()
    assert thread.error is None


def events(*documents: dict[str, Any]) -> bytes:
    return b"".join(
        f"event: update\ndata: {json.dumps(document)}\n\n".encode() for document in documents
    )


def named(domain: str) -> Answer:
    return Answer(json.dumps({"domain": domain}).encode())


def test_local_remote_and_a_hashtag_are_read_together_with_a_cursor_each(
    broker: Broker, cursors: dict[str, str]
) -> None:
    tag = "photography"
    with running(synthetic_source(toots=300, days=2, seed=7)) as server:
        # The stream sends its history once; here somebody else reads it.
        run(broker, {server.base_url: server.token}, until_caught_up=True)
        cursors.clear()
        before = broker.messages()
        summary = run(
            broker,
            {server.base_url: server.token},
            sources=f"local,remote,#{tag}",
            until_caught_up=True,
        )

    posts = [message for message in broker.messages() if message not in before]
    times = Counter(post["uri"] for post in posts)
    tagged = {post["uri"] for post in posts if tag in post["hashtags"]}
    assert tagged
    assert all(times[uri] == (2 if uri in tagged else 1) for uri in times)
    assert {post["username"].endswith("@simulator.example") for post in posts} == {True, False}
    assert set(cursors) == {
        "simulator.example/local",
        "simulator.example/remote",
        f"simulator.example/hashtag:{tag}",
    }
    assert (summary.upserts, summary.cursor) == (len(posts), None)
    assert summary.instance == "simulator.example"


def test_two_servers_are_read_into_one_topic(broker: Broker, cursors: dict[str, str]) -> None:
    with (
        running(synthetic_source(toots=60, days=1, seed=5, domain=ONE), domain=ONE) as one,
        running(synthetic_source(toots=60, days=1, seed=5, domain=TWO), domain=TWO) as two,
        log_lines() as lines,
    ):
        summary = run(
            broker,
            {one.base_url: one.token, two.base_url: two.token},
            until_caught_up=True,
        )

    messages = [message for message in broker.messages() if message["op"] == "upsert"]
    uris = {
        name: {message["uri"] for message in messages if message["instance"] == name}
        for name in (ONE, TWO)
    }
    assert uris[ONE] & uris[TWO]
    assert uris[ONE] - uris[TWO]
    assert summary.upserts == len(messages)
    assert set(cursors) == {ONE, TWO}
    assert any(line.startswith(f"{ONE}/public: connected") for line in lines)
    assert any(line.startswith(f"{TWO}/public: connected") for line in lines)


def test_a_post_read_abroad_before_its_home_showed_the_refusal_is_deleted_at_once(
    broker: Broker, cursors: dict[str, str]
) -> None:
    """No table holds it: while the stream was behind, such a post was kept (observed once)."""
    uri, is_read = f"https://{ONE}/users/ada/statuses/1", threading.Event()
    at_home = status("1", uri=uri, account=account(noindex=True))
    abroad = status("A1", uri=uri, account=account(acct=f"ada@{ONE}"))

    def when_read_abroad(_query: Mapping[str, str]) -> Answer:
        is_read.wait(20)
        return stream(events(at_home))

    with (
        odd_server({STREAM: when_read_abroad, "/api/v2/instance": named(ONE)}) as home,
        odd_server({STREAM: stream(events(abroad)), "/api/v2/instance": named(TWO)}) as other,
        reading(broker, {home.base_url: "1", other.base_url: "2"}) as running_,
    ):
        running_.wait_until(lambda: len(broker.messages()) == 1)
        is_read.set()
        running_.wait_until(lambda: len(broker.messages()) == 2)

    messages = [(each["op"], each["instance"], each["id"]) for each in broker.messages()]
    assert messages == [("upsert", TWO, "A1"), ("delete", TWO, "A1")]


def test_a_source_whose_token_is_refused_stops_alone(
    broker: Broker, states: list[tuple[str, str]]
) -> None:
    with (
        odd_server({STREAM: stream(events(status("1")))}) as works,
        running(synthetic_source(toots=5, days=1, seed=1)) as other,
        reading(broker, {other.base_url: "wrong-token", works.base_url: "token"}) as thread,
    ):
        thread.wait_for("401: it does not accept the token")
        thread.wait_until(lambda: len(broker.messages()) == 1)
        thread.wait_until(lambda: ("public", "connected") in states)

    refused = [line for line in thread.lines if "401" in line]
    assert len(refused) == 1
    assert refused[0].startswith("simulator.example/public: ")
    assert refused[0].endswith("this source is tried again in 900 s")
    assert states[-1] == ("public", "stopped")
    assert not any("wrong-token" in line for line in thread.lines)


def test_a_run_that_waits_for_its_token_asks_no_more_until_then(
    broker: Broker, states: list[tuple[str, str]]
) -> None:
    registry = CollectorRegistry()
    with odd_server({STREAM: Answer(b"{}", 401)}) as server:
        tokens = {server.base_url: "wrong-token"}
        with reading(broker, tokens, waits_for_token=True, registry=registry) as thread:
            thread.wait_for("this source is tried again in 900 s")
            asked = len(server.requests)
            time.sleep(0.5)
            assert len(server.requests) == asked
            assert thread.is_alive()
            labels = {"instance": "odd.example", "source": "public"}
            assert registry.get_sample_value("mastodon_assets_ingest_refused", labels) == 1
    assert ("public", "refused") in states


def test_a_source_that_is_limited_at_its_start_is_asked_again_when_the_limit_ends(
    broker: Broker, cursors: dict[str, str]
) -> None:
    refused = Answer(b"{}", 429, headers={"Retry-After": "600"})
    with (
        odd_server({STREAM: stream(events(status("1")))}) as works,
        odd_server({"/api/v2/instance": refused}) as limited,
        reading(broker, {limited.base_url: "1", works.base_url: "2"}) as thread,
    ):
        thread.wait_for("wait until then; this source is tried again in")
    (line,) = [line for line in thread.lines if "tried again" in line]
    assert int(line.split()[-2]) > 590


def test_a_source_that_comes_up_later_is_read_then(
    broker: Broker, cursors: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_BACKOFF", wait_none())
    refused = iter([Answer(b"{}", 503), Answer(b"{}", 503)])
    routes: dict[str, Route] = {
        "/api/v2/instance": named(TWO),
        STREAM: lambda _query: next(refused, stream(events(status("2")))),
    }
    with (
        odd_server({STREAM: stream(events(status("1")))}) as works,
        odd_server(routes) as late,
        reading(broker, {works.base_url: "token", late.base_url: "token"}) as thread,
    ):
        thread.wait_until(lambda: set(cursors) == {"odd.example", TWO})

    assert sum("tried again" in line for line in thread.lines) == 2


def test_a_run_ends_with_one_line_if_no_source_can_be_read(
    broker: Broker, cursors: dict[str, str]
) -> None:
    refusal = {STREAM: Answer(b"{}", 401)}
    with (
        odd_server(refusal) as one,
        odd_server(refusal | {"/api/v2/instance": named(TWO)}) as two,
        pytest.raises(ServiceUnavailableError, match="401: it does not accept the token") as caught,
    ):
        run(broker, {one.base_url: "token", two.base_url: "token"})

    assert "\n" not in str(caught.value)


def test_catching_up_fails_with_one_source_after_the_others_have_caught_up(
    broker: Broker, cursors: dict[str, str]
) -> None:
    with (
        odd_server({STREAM: Answer(b"{}", 503)}) as fails,
        running(synthetic_source(toots=60, days=1, seed=5)) as works,
        pytest.raises(ServiceUnavailableError, match="503"),
    ):
        run(broker, {fails.base_url: "token", works.base_url: works.token}, until_caught_up=True)

    assert set(cursors) == {"simulator.example"}
    assert broker.messages()


def test_two_addresses_of_one_server_are_refused(broker: Broker, cursors: dict[str, str]) -> None:
    with (
        odd_server({STREAM: stream(b""), TIMELINE: Answer()}) as one,
        odd_server({STREAM: stream(b""), TIMELINE: Answer()}) as two,
        pytest.raises(SettingsError, match=r"are both odd\.example; leave one of them out"),
    ):
        run(broker, {one.base_url: "token", two.base_url: "token"}, until_caught_up=True)


def test_max_events_counts_all_sources_together(broker: Broker, cursors: dict[str, str]) -> None:
    posts = events(*(status(str(number)) for number in range(1, 51)))
    with (
        odd_server({STREAM: stream(posts)}) as one,
        odd_server({STREAM: stream(posts), "/api/v2/instance": named(TWO)}) as two,
    ):
        summary = run(broker, {one.base_url: "token", two.base_url: "token"}, max_events=20)

    assert summary.received in (20, 21)
    assert len(broker.messages()) == summary.received


@pytest.mark.parametrize(
    "routes",
    [
        {STREAM: Answer(b"{}", 401)},
        {STREAM: Answer(b"{}", 429, headers={"X-RateLimit-Reset": "2999-01-01T00:00:00Z"})},
        {STREAM: stream(b""), TIMELINE: Answer(b"{}", 429)},
        {STREAM: stream(b""), TIMELINE: Answer(b"", is_open=True)},
        {STREAM: Answer(b"", content_type="text/event-stream", is_open=True)},
        {"/api/v2/instance": Answer(b"", is_open=True)},
    ],
    ids=[
        "refused token",
        "rate limit of streams",
        "rate limit of pages",
        "stalled page",
        "stalled stream",
        "stalled start",
    ],
)
def test_a_stop_does_not_wait_for_a_server(
    broker: Broker,
    cursors: dict[str, str],
    routes: dict[str, Route],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "_REST_SECONDS", 600)
    monkeypatch.setattr(event_stream, "SILENCE_SECONDS", 600)
    cursors["two.example"] = "7"
    with (
        odd_server({STREAM: stream(events(status("1")))}) as works,
        odd_server({"/api/v2/instance": named(TWO)} | routes) as waits,
    ):
        thread = Running(broker, {works.base_url: "token", waits.base_url: "token"})
        thread.start()
        thread.wait_until(lambda: len(broker.messages()) == 1)
        time.sleep(0.5)
        thread.end()

    assert thread.error is None
    assert cursors["odd.example"] == "1"


def test_a_feed_that_goes_silent_is_logged_and_is_in_the_state(
    broker: Broker, states: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "SHORTEST_SILENCE", timedelta(seconds=0.5))
    posts = events(*(status(str(number)) for number in range(1, 9)))
    with (
        odd_server({STREAM: stream(posts)}) as server,
        reading(broker, {server.base_url: "token"}) as thread,
    ):
        thread.wait_for("heartbeats but no posts since")
        thread.wait_until(lambda: ("public", "silent") in states)

    assert sum("no posts since" in line for line in thread.lines) == 1


def test_the_timeline_is_backfilled_to_the_requested_time(
    broker: Broker, cursors: dict[str, str]
) -> None:
    source = synthetic_source(toots=400, days=8, seed=7)
    since = datetime.now(UTC) - timedelta(days=4)
    with running(source) as server, log_lines() as lines:
        # The stream sends its history once; here somebody else reads it.
        run(broker, {server.base_url: server.token}, until_caught_up=True)
        cursors.clear()
        before = broker.messages()
        summary = run(
            broker,
            {server.base_url: server.token},
            since=since,
            until_caught_up=True,
        )
        newest = source_newest(server.base_url)

    arrived = [
        datetime.fromtimestamp((int(message["id"]) >> 16) / 1000, UTC)
        for message in broker.messages()
        if message not in before
    ]
    assert summary.upserts == len(arrived) > 100
    # A page further at most, of eight days.
    assert since - timedelta(days=2) < min(arrived) <= since
    assert cursors["simulator.example"] == newest
    assert any("backfill: read back to" in line for line in lines)


def source_newest(base_url: str) -> str:
    return str(httpx.get(f"{base_url}{TIMELINE}?limit=1").json()[0]["id"])


def test_a_time_that_the_server_does_not_list_is_logged(
    broker: Broker, cursors: dict[str, str]
) -> None:
    with running(synthetic_source(toots=100, days=2, seed=7)) as server, log_lines() as lines:
        run(
            broker,
            {server.base_url: server.token},
            since=datetime.now(UTC) - timedelta(days=30),
            until_caught_up=True,
        )

    assert any("backfill: the server lists nothing before 20" in line for line in lines)


def test_backfill_goes_back_from_the_cursor_while_the_gap_is_filled_from_it(
    broker: Broker, cursors: dict[str, str]
) -> None:
    documents = {number: status(str(number)) for number in range(1, 10)}

    def page(query: Mapping[str, str]) -> Answer:
        low, high = int(query.get("min_id", 0)), int(query.get("max_id", 99))
        found = [document for number, document in documents.items() if low < number < high]
        listed = found[:2] if "min_id" in query else found[-2:]
        return Answer(json.dumps(listed[::-1]).encode())

    cursors["odd.example"] = "5"
    with odd_server({STREAM: stream(b""), TIMELINE: page}) as server:
        run(
            broker,
            {server.base_url: "token"},
            since=datetime(2020, 1, 1, tzinfo=UTC),
            until_caught_up=True,
        )

    assert sorted(message["id"] for message in broker.messages()) == list("12346789")
    assert cursors == {"odd.example": "9"}


def test_the_metrics_of_every_source_can_be_read_during_the_run(
    broker: Broker, cursors: dict[str, str]
) -> None:
    port = free_port()
    one_labels = {"instance": "odd.example", "source": "public"}
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}

    def number(name: str, **labels: str) -> float:
        return (found or scraped(port))[name, frozenset((one_labels | labels).items())]

    body = events(status("1"), status("2"), status("3", visibility="unlisted"))
    body += b"event: update\ndata: no JSON\n\nevent: delete\ndata: 9\n\n"
    registry = CollectorRegistry()
    with (
        odd_server({STREAM: stream(body)}) as one,
        odd_server({STREAM: Answer(b"{}", 401), "/api/v2/instance": named(TWO)}) as two,
        serving_metrics(registry, port),
        reading(
            broker, {one.base_url: "token-1", two.base_url: "token-2"}, registry=registry
        ) as thread,
    ):
        thread.wait_until(lambda: len(broker.messages()) == 3)
        thread.wait_for("401")
        # Reports of delivery come a little later.
        thread.wait_until(lambda: number("messages_in_flight") == 0)
        found = scraped(port)

    assert number("received_total") == 5
    assert number("published_total", op="upsert") == 2
    assert number("published_total", op="delete") == 1
    assert number("withheld_total", reason="not_public") == 1
    assert number("errors_total", reason="not_json") == 1
    assert number("reconnects_total") == 0
    assert number("connected") == 1
    assert number("silent") == 0
    assert number("arrivals_waiting") == 0
    assert number("messages_in_flight") == 0
    assert number("gaps", status="open") == 0
    assert 0 <= number("lag_seconds") < 60
    assert 0 <= number("seconds_since_heard") < 60
    assert number("connected", instance=TWO) == 0


def test_the_lag_is_the_age_of_the_oldest_event_that_waits(
    broker: Broker, cursors: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    is_writable = threading.Event()

    def save(*_arguments: object) -> None:
        assert is_writable.wait(20)

    def lag() -> float:
        return sum(
            sample.value
            for metric in registry.collect()
            for sample in metric.samples
            if sample.name == "mastodon_assets_ingest_lag_seconds"
        )

    monkeypatch.setattr(checkpoint, "save_state", save)
    registry = CollectorRegistry()
    with (
        odd_server({STREAM: stream(events(status("1"), status("2")))}) as server,
        reading(broker, {server.base_url: "token"}, registry=registry) as thread,
    ):
        thread.wait_until(lambda: lag() > 0)
        assert not broker.messages()
        is_writable.set()
        thread.wait_until(lambda: len(broker.messages()) == 2 and lag() == 0)


def scraped(port: int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    return {
        (sample.name.removeprefix("mastodon_assets_ingest_"), frozenset(sample.labels.items())): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_server_that_is_limited_does_not_hold_up_the_other(
    broker: Broker, cursors: dict[str, str]
) -> None:
    """Each server has a budget of its own, whatever its sources."""
    limited = [Refusal(429, reset_seconds=600)] * 3

    def refuse(path: str) -> Refusal | None:
        return limited.pop() if limited and path.startswith("/api/v1/timelines") else None

    with (
        running(synthetic_source(toots=60, days=1, seed=5, domain=ONE), domain=ONE) as one,
        running(
            synthetic_source(toots=60, days=1, seed=5, domain=TWO), domain=TWO, refuse=refuse
        ) as two,
    ):
        cursors |= {ONE: "1", TWO: "1"}
        with reading(broker, {one.base_url: one.token, two.base_url: two.token}) as thread:
            thread.wait_for(f"{ONE}/public: gap backfilled")
            assert not any(f"{TWO}/public: gap" in line for line in thread.lines)
