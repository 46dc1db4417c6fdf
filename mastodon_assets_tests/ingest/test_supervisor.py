import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tenacity import wait_none

from mastodon_assets.errors import ServiceUnavailableError, SettingsError
from mastodon_assets.ingest import event_queue, source_worker
from mastodon_assets.ingest.api import rate_limits
from mastodon_assets.ingest.checkpoint import later_id
from mastodon_assets.ingest.handler import IngestSummary
from mastodon_assets.ingest.supervisor import ingest
from mastodon_assets.kafka.publisher import Publisher
from mastodon_assets.simulator.recorded import RecordedSource, read_statuses
from mastodon_assets.simulator.server import running, synthetic_source
from mastodon_assets.simulator.sources import RawStream, Source
from mastodon_assets_tests.support.documents import account, status
from mastodon_assets_tests.support.log_lines import log_lines
from mastodon_assets_tests.support.mock_broker import ERRORS, Broker
from mastodon_assets_tests.support.odd_server import Answer, Route, odd_server, stream
from mastodon_assets_tests.support.shared_data import RECORDED

STREAM = "/api/v1/streaming/public"
TIMELINE = "/api/v1/timelines/public"
TOKEN = "token"


@pytest.fixture(autouse=True)
def _soon_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_worker, "_QUIET_SECONDS", 0.4)


def run(
    broker: Broker,
    base_url: str,
    *,
    token: str = TOKEN,
    max_events: int | None = None,
    until_caught_up: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    **settings: Any,
) -> IngestSummary:
    return ingest(
        broker.settings(mastodon_api_base_url=base_url, mastodon_access_token=token, **settings),
        max_events=max_events,
        until_caught_up=until_caught_up,
        should_stop=should_stop,
    )


def catch_up(broker: Broker, source: Source) -> IngestSummary:
    with running(source, token=TOKEN) as server:
        return run(broker, server.base_url, until_caught_up=True)


def event(name: str, data: Any) -> bytes:
    text = data if isinstance(data, str) else json.dumps(data)
    return f"event: {name}\ndata: {text}\n\n".encode()


def timeline(documents: list[dict[str, Any]]) -> Callable[[Mapping[str, str]], Answer]:
    """A timeline of `documents`, oldest first, in pages of two."""

    def page(query: Mapping[str, str]) -> Answer:
        ids = [document["id"] for document in documents]
        if "max_id" in query:
            end = ids.index(query["max_id"])
            return Answer(json.dumps(documents[max(0, end - 2) : end][::-1]).encode())
        if "min_id" not in query:
            return Answer(json.dumps(documents[:-3:-1]).encode())
        first = ids.index(query["min_id"]) + 1 if query["min_id"] in ids else 0
        return Answer(json.dumps(documents[first : first + 2][::-1]).encode())

    return page


@pytest.fixture
def recorded(recorded_statuses: list[dict[str, Any]]) -> RecordedSource:
    return RecordedSource(read_statuses(RECORDED / "statuses.ndjson"))


def test_every_recorded_post_that_consents_is_published_once(
    broker: Broker, cursors: dict[str, str], recorded: RecordedSource
) -> None:
    with running(recorded, token=TOKEN) as server:
        summary = run(broker, server.base_url, until_caught_up=True)
        again = run(broker, server.base_url, until_caught_up=True)

    messages = broker.messages()
    assert len({message["uri"] for message in messages}) == 1051
    assert summary.upserts == 1057
    assert {message["visibility"] for message in messages} == {"public"}
    assert {message["origin"] for message in messages} == {"simulator"}
    assert summary.received == summary.upserts + summary.duplicates + summary.withheld.total()
    # The newest page, to see that the server still lists the cursor, and a page before the cursor.
    assert 0 < again.received <= 80
    assert broker.messages(ERRORS) == []


def test_the_timeline_walk_alone_reads_every_recorded_post(
    broker: Broker, cursors: dict[str, str], recorded: RecordedSource
) -> None:
    with running(recorded, token=TOKEN) as server:
        # The stream sends its history once; here somebody else has read it.
        run(broker, server.base_url, max_events=1)
        cursors.clear()
        run(broker, server.base_url, until_caught_up=True)

    assert len({message["uri"] for message in broker.messages()}) == 1051


def test_synthetic_events_arrive_as_what_they_are(broker: Broker, cursors: dict[str, str]) -> None:
    summary = catch_up(broker, synthetic_source(toots=300, days=2, seed=7))

    messages = broker.messages()
    kinds = Counter(message["op"] for message in messages)
    assert (kinds["upsert"], kinds["delete"]) == (summary.upserts, summary.deletes)
    assert kinds["delete"] > 0
    assert any(message.get("edited_at") for message in messages)
    assert summary.cursor == cursors["simulator.example"]
    assert len(broker.messages(ERRORS)) == summary.errors.total() + summary.withheld["unreadable"]


def test_a_busy_server_is_caught_up_with(
    broker: Broker, cursors: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_worker, "_LONGEST_DRAIN_SECONDS", 1)

    # Never silent as long as that.
    summary = catch_up(broker, synthetic_source(toots=20, days=1, seed=7, rate=8))

    assert summary.upserts > 0


def test_a_run_ends_after_max_events_and_the_next_goes_on(
    broker: Broker, cursors: dict[str, str]
) -> None:
    documents = [status(str(number)) for number in range(1, 21)]
    updates = b"".join(event("update", document) for document in documents[:10])
    routes: dict[str, Route] = {STREAM: stream(updates), TIMELINE: timeline(documents)}
    with odd_server(routes) as server:
        first = run(broker, server.base_url, max_events=4)
        assert (first.received, first.cursor, cursors) == (4, "4", {"odd.example": "4"})
        assert len(broker.messages()) == 4

    with odd_server(routes | {STREAM: stream(b"")}) as server:
        second = run(broker, server.base_url, until_caught_up=True)

    assert second.cursor == "20"
    assert {message["id"] for message in broker.messages()} == {
        document["id"] for document in documents
    }


def test_max_events_counts_what_is_withheld_and_deleted(
    broker: Broker, cursors: dict[str, str]
) -> None:
    body = (
        event("filters_changed", "undefined")
        + event("update", status("1", visibility="unlisted"))
        + event("delete", "9")
        + event("status.update", status("2"))
        + event("update", "no JSON")
        + event("update", status("3"))
    )
    with odd_server({STREAM: stream(body)}) as server:
        summary = run(broker, server.base_url, max_events=4)

    assert (summary.received, summary.ignored) == (4, 1)
    assert sorted(message["op"] for message in broker.messages()) == ["delete", "upsert"]
    assert [error["reason"] for error in broker.messages(ERRORS)] == ["not_json"]


def test_an_unbounded_run_without_a_cursor_reads_only_the_stream(
    broker: Broker, cursors: dict[str, str]
) -> None:
    routes: dict[str, Route] = {
        STREAM: stream(event("update", status("5"))),
        TIMELINE: timeline([status("1")]),
    }
    with odd_server(routes) as server:
        run(broker, server.base_url, max_events=1)

    assert not any(path.startswith(TIMELINE) for path, _ in server.requests)
    assert cursors == {"odd.example": "5"}


def test_what_was_posted_between_two_runs_is_read(broker: Broker, cursors: dict[str, str]) -> None:
    cursors["odd.example"] = "2"
    documents = [status(str(number)) for number in range(1, 6)]
    with odd_server({STREAM: stream(b""), TIMELINE: timeline(documents)}) as server:
        run(broker, server.base_url, max_events=3)

    assert sorted(message["id"] for message in broker.messages()) == ["3", "4", "5"]
    assert {message["origin"] for message in broker.messages()} == {"backfill"}
    assert cursors == {"odd.example": "5"}


def test_ids_that_are_not_numbers_are_read_in_the_order_of_the_pages(
    broker: Broker, cursors: dict[str, str]
) -> None:
    documents = [status(each) for each in ("zz", "Aa", "01FV", "7", "b-b")]
    with odd_server({STREAM: stream(b""), TIMELINE: timeline(documents)}) as server:
        run(broker, server.base_url, until_caught_up=True)

    assert {message["id"] for message in broker.messages()} == {"zz", "Aa", "01FV", "7", "b-b"}
    assert cursors == {"odd.example": "b-b"}


def test_the_stream_does_not_move_the_cursor_past_an_unfinished_walk(
    broker: Broker, cursors: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "_BACKOFF", wait_none())
    asked = []

    def page(query: Mapping[str, str]) -> Answer:
        if "min_id" not in query:
            return Answer(b"[]")
        asked.append(query["min_id"])
        if len(asked) == 1:
            return Answer(json.dumps([status("2"), status("1")]).encode())
        time.sleep(0.5)  # so that the stream's post is taken before the walk breaks
        return Answer(b"oops", 503)

    with (
        odd_server({STREAM: stream(event("update", status("999"))), TIMELINE: page}) as server,
        pytest.raises(ServiceUnavailableError, match="503"),
    ):
        run(broker, server.base_url, until_caught_up=True)

    assert asked == ["0", "2", "2", "2"]
    assert cursors == {"odd.example": "2"}
    assert {message["id"] for message in broker.messages()} >= {"1", "2"}


def test_a_stop_ends_the_run_with_everything_acknowledged(
    broker: Broker, cursors: dict[str, str]
) -> None:
    body = event("update", status("1")) + event("update", status("2"))
    started = time.monotonic()
    with odd_server({STREAM: stream(body)}) as server:
        summary = run(broker, server.base_url, should_stop=lambda: time.monotonic() > started + 0.6)

    assert summary.received == len(broker.messages()) == 2
    assert cursors == {"odd.example": "2"}


def test_the_cursor_stays_where_kafka_did_not_acknowledge(
    broker: Broker, cursors: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_publisher: Publisher, _seconds: float) -> None:
        raise ServiceUnavailableError("Kafka is gone")

    monkeypatch.setattr(Publisher, "flush", fail)
    with (
        odd_server({STREAM: stream(event("update", status("1")))}) as server,
        pytest.raises(ServiceUnavailableError, match="Kafka is gone"),
    ):
        run(broker, server.base_url, max_events=1)

    assert cursors == {}


def test_progress_is_committed_and_logged_during_a_run(
    broker: Broker, cursors: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_worker, "_COMMIT_SECONDS", 0)
    monkeypatch.setattr(source_worker, "_LOG_SECONDS", 0)
    with (
        odd_server({STREAM: stream(event("update", status("1")))}) as server,
        log_lines() as seen,
    ):
        ingest(
            broker.settings(mastodon_api_base_url=server.base_url, mastodon_access_token=TOKEN),
            max_events=None,
            until_caught_up=False,
            should_stop=lambda: cursors == {"odd.example": "1"},
        )

    assert (
        "odd.example/public: connected by server-sent events, reading the stream from now on"
        in seen
    )
    assert any(
        re.search(
            r"events/s; 1 received, 1 published, 0 deleted, 0 withheld, 0 dropped, 0 rejected;"
            r" lag \d\.\d s, 0 reconnects, last bytes 0 s ago, 0 waiting$",
            line,
        )
        for line in seen
    )
    assert seen[-1].endswith("all acknowledged")


def test_catching_up_with_a_server_that_ends_every_stream_is_an_error_in_the_end(
    broker: Broker, cursors: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_queue, "_BACKOFF", wait_none())
    monkeypatch.setattr(source_worker, "_RECONNECTS_WHEN_CATCHING_UP", 2)
    pages, walked = timeline([status("1")]), threading.Event()

    def page(query: Mapping[str, str]) -> Answer:
        answer = pages(query)
        if answer.body == b"[]":
            walked.set()
        return answer

    def ended(_query: Mapping[str, str]) -> Answer:
        if [path for path, _ in server.requests].count(STREAM) > 2:
            walked.wait(2)
        return stream(event("update", status("1")), is_open=False)

    with (
        odd_server({STREAM: ended, TIMELINE: page}) as server,
        pytest.raises(ServiceUnavailableError, match=r"127\.0\.0\.1 ended the stream"),
    ):
        run(broker, server.base_url, until_caught_up=True)

    assert [path for path, _ in server.requests].count(STREAM) >= 3
    assert {message["id"] for message in broker.messages()} == {"1"}
    assert cursors == {"odd.example": "1"}


def test_a_timeline_that_never_ends_is_an_error(broker: Broker, cursors: dict[str, str]) -> None:
    def full(query: Mapping[str, str]) -> Answer:
        page = [status("2"), status("1")] if "min_id" in query else [status("9")]
        return Answer(json.dumps(page).encode())

    with (
        odd_server({STREAM: stream(b""), TIMELINE: full}) as server,
        pytest.raises(ServiceUnavailableError, match="lists the same page again"),
    ):
        run(broker, server.base_url, until_caught_up=True)

    assert len(broker.messages()) == 2


def test_a_page_without_statuses_is_an_error_that_says_so(
    broker: Broker, cursors: dict[str, str]
) -> None:
    with (
        odd_server({STREAM: stream(b""), TIMELINE: Answer(b'["a", {"b": 1}]')}) as server,
        pytest.raises(ServiceUnavailableError, match="does not continue"),
    ):
        run(broker, server.base_url, until_caught_up=True)

    assert {error["reason"] for error in broker.messages(ERRORS)} == {"unreadable"}


def test_a_rate_limit_is_waited_for(
    broker: Broker, cursors: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "_SHORTEST_PAUSE_SECONDS", 0.1)
    pages = timeline([status("1"), status("2"), status("3")])
    asked = []

    def page(query: Mapping[str, str]) -> Answer:
        asked.append(query)
        if len(asked) == 2:
            reset = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
            return Answer(b"{}", 429, headers={"X-RateLimit-Reset": reset})
        return pages(query)

    with odd_server({STREAM: stream(b""), TIMELINE: page}) as server:
        run(broker, server.base_url, until_caught_up=True)

    assert len(broker.messages()) == 3


def test_a_rate_limit_without_end_is_an_error(
    broker: Broker, cursors: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "_SHORTEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(rate_limits, "_LONGEST_PAUSE_SECONDS", 0.01)
    with (
        odd_server({STREAM: stream(b""), TIMELINE: Answer(b"{}", 429)}) as server,
        pytest.raises(ServiceUnavailableError, match="wants fewer requests"),
    ):
        run(broker, server.base_url, until_caught_up=True)


# The limit ends in minutes.
@pytest.mark.timeout(120)
def test_a_stop_does_not_wait_for_a_rate_limit(
    broker: Broker, cursors: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "_SHORTEST_PAUSE_SECONDS", 15 * 60)
    started = time.monotonic()
    with odd_server({STREAM: stream(b""), TIMELINE: Answer(b"{}", 429)}) as server:
        run(
            broker,
            server.base_url,
            until_caught_up=True,
            should_stop=lambda: time.monotonic() > started + 1,
        )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "real_mastodon_public.txt",
            {
                "received": 23,
                "upserts": 14,
                "deletes": 2,
                "duplicates": 2,
                "ignored": 3,
                "withheld": {"not_public": 2, "noindex": 2, "boost": 1},
            },
        ),
        (
            # Four deletes of the server, four for edits that are withheld.
            "real_mastodon_burst_out_of_order.txt",
            {
                "received": 28,
                "upserts": 16,
                "deletes": 8,
                "duplicates": 1,
                "ignored": 0,
                "withheld": {"not_public": 6, "noindex": 1},
            },
        ),
        (
            "docs_mastodon_examples.txt",
            {
                "received": 11,
                "upserts": 5,
                "deletes": 4,
                "duplicates": 1,
                "ignored": 6,
                "withheld": {"not_public": 2},
            },
        ),
        (
            "mastodon_mock_0.6.1_public.txt",
            {
                "received": 2,
                "upserts": 2,
                "deletes": 0,
                "duplicates": 0,
                "ignored": 0,
                "withheld": {},
            },
        ),
    ],
)
def test_recorded_streams_are_read_byte_for_byte(
    broker: Broker, cursors: dict[str, str], name: str, expected: dict[str, Any]
) -> None:
    path = RECORDED / "sse" / name
    if not path.is_file():
        pytest.skip(f"no recorded stream at {path}")

    summary = catch_up(broker, RawStream(path))

    counted = {field: getattr(summary, field) for field in expected}
    kinds = Counter(message["op"] for message in broker.messages())
    assert counted == expected
    assert (kinds["upsert"], kinds["delete"]) == (expected["upserts"], expected["deletes"])
    assert broker.messages(ERRORS) == []


def test_opt_in_is_read_from_the_settings(broker: Broker, cursors: dict[str, str]) -> None:
    body = event("update", status("1")) + event(
        "update", status("2", account=account(acct="bob@one.example", indexable=False))
    )
    with odd_server({STREAM: stream(body)}) as server:
        summary = run(broker, server.base_url, max_events=2, mastodon_consent="opt-in")

    assert summary.withheld == {"not_indexable": 1}
    assert [message["id"] for message in broker.messages()] == ["1"]


def test_there_is_no_default_server(broker: Broker) -> None:
    with pytest.raises(SettingsError, match="set MASTODON_API_BASE_URL"):
        ingest(
            broker.settings(),
            max_events=1,
            until_caught_up=False,
            should_stop=lambda: False,
        )


def test_a_wrong_token_ends_the_run_with_one_line(broker: Broker, cursors: dict[str, str]) -> None:
    with (
        running(synthetic_source(toots=5, days=1, seed=1), token=TOKEN) as server,
        pytest.raises(ServiceUnavailableError, match="401: it does not accept the token"),
    ):
        run(broker, server.base_url, token="wrong")


@pytest.mark.parametrize(
    ("known", "new", "later"),
    [
        (None, "5", "5"),
        (None, "01FV", "01FV"),
        ("9", "10", "10"),
        ("10", "9", "10"),
        ("5", "5", "5"),
        ("01FV", "01FA", "01FA"),
        ("5", "01FV", "5"),
        ("01FV", "5", "01FV"),
        ("9", "１０", "9"),
    ],
)
def test_the_later_of_two_ids_is_the_larger_number_or_the_last_text(
    known: str | None, new: str, later: str
) -> None:
    assert later_id(known, new) == later
