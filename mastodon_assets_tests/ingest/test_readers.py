"""Servers without server-sent events: read by socket, else by polling, as they answer."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from mastodon_assets.config.sources import Source
from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest import checkpoint, source_worker, supervisor
from mastodon_assets.ingest.api import event_socket, rate_limits
from mastodon_assets.ingest.api.client import MastodonClient
from mastodon_assets.ingest.api.errors import NoStreamError, RefusedError, StreamEndedError
from mastodon_assets.ingest.handler import IngestSummary
from mastodon_assets.ingest.policy.pseudonyms import Pseudonyms
from mastodon_assets.ingest.recovery import poll, recheck
from mastodon_assets.ingest.recovery.recheck import StoredPost
from mastodon_assets.ingest.source_states import SourceState
from mastodon_assets.ingest.supervisor import ingest
from mastodon_assets_tests.support.documents import status
from mastodon_assets_tests.support.log_lines import log_lines
from mastodon_assets_tests.support.mock_broker import Broker
from mastodon_assets_tests.support.odd_server import Answer, Route, odd_server
from mastodon_assets_tests.support.recordings import exchange, recorded_answer, recorded_lines
from mastodon_assets_tests.support.socket_server import SOCKET, socket_server

pytestmark = pytest.mark.usefixtures("loopback")

TOKEN = "token-of-the-test"
STREAM, TIMELINE = "/api/v1/streaming/public", "/api/v1/timelines/public"
GTS_ANSWERS = {
    "/api/v2/instance": recorded_answer("gotosocial/instance_v2"),
    STREAM: recorded_answer("gotosocial/streaming_sse_path"),
    TIMELINE: recorded_answer("gotosocial/timeline_newest_page"),
}
FRAMES = [each["text"] for each in recorded_lines("gotosocial/socket_public") if "text" in each]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poll, "_SHORTEST_PAUSE_SECONDS", 0.3)
    monkeypatch.setattr(poll, "_LONGEST_PAUSE_SECONDS", 0.6)


def run(
    broker: Broker,
    base_url: str,
    *,
    max_events: int | None = None,
    until_caught_up: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    **changes: str,
) -> IngestSummary:
    return ingest(
        broker.settings(mastodon_api_base_url=base_url, mastodon_access_token=TOKEN, **changes),
        max_events=max_events,
        until_caught_up=until_caught_up,
        should_stop=should_stop,
    )


def client_of(base_url: str, token: str | None = TOKEN, kind: str = "public") -> MastodonClient:
    source = Source(kind, "tea" if kind == "hashtag" else None)  # type: ignore[arg-type]
    return MastodonClient(base_url, SecretStr(token) if token else None, source)


def test_a_server_with_sockets_alone_is_read_by_socket(
    broker: Broker, cursors: dict[str, str]
) -> None:
    with socket_server(FRAMES, GTS_ANSWERS, token=TOKEN) as server:
        summary = run(broker, server.base_url, max_events=len(FRAMES))

    kinds = [json.loads(frame)["event"] for frame in FRAMES]
    assert summary.received == len(FRAMES)
    assert summary.errors.total() == 0
    assert summary.upserts > 0
    assert summary.deletes >= kinds.count("delete")
    assert set(cursors) == {"gts.example"}
    opened = [headers for path, headers in server.requests if path.startswith(SOCKET)]
    assert [headers["Authorization"] for headers in opened] == [f"Bearer {TOKEN}"]
    assert not any(TOKEN in path for path, _ in server.requests)


@pytest.mark.parametrize("kind", ["remote", "hashtag"])
def test_a_socket_that_would_stay_silent_is_not_opened(kind: str) -> None:
    """GoToSocial opens these too, and never sends anything."""
    with (
        socket_server([], GTS_ANSWERS, token=TOKEN) as server,
        pytest.raises(NoStreamError),
        client_of(server.base_url, kind=kind).open_events(),
    ):
        pass
    assert not any(path.startswith(SOCKET) for path, _ in server.requests)


def test_the_socket_of_local_posts_has_its_name() -> None:
    with (
        socket_server(FRAMES[:1], GTS_ANSWERS, token=TOKEN) as server,
        client_of(server.base_url, kind="local").open_events() as events,
    ):
        assert next(iter(events)).name == "update"
    assert server.requests[-1][0] == f"{SOCKET}public:local"


def test_a_socket_that_refuses_the_token_says_so() -> None:
    with (
        socket_server([], GTS_ANSWERS, token="another") as server,
        pytest.raises(RefusedError, match="401: it does not accept the token") as caught,
        client_of(server.base_url).open_events(),
    ):
        pass
    assert caught.value.is_of_token


def test_without_a_token_a_server_that_wants_one_for_streams_has_none() -> None:
    with (
        socket_server([], GTS_ANSWERS, token=TOKEN) as server,
        pytest.raises(NoStreamError),
        client_of(server.base_url, token=None).open_events(),
    ):
        pass


def test_a_revoked_token_ends_a_socket_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_socket, "_CHECK_SECONDS", 0)
    answers = GTS_ANSWERS | {TIMELINE: Answer(b"{}", 401)}
    with (
        socket_server(FRAMES, answers, token=TOKEN) as server,
        client_of(server.base_url).open_events() as events,
        pytest.raises(RefusedError) as caught,
    ):
        list(events)
    assert caught.value.is_of_token


def test_a_failure_of_the_check_does_not_end_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_socket, "_CHECK_SECONDS", 0)
    answers = GTS_ANSWERS | {TIMELINE: Answer(b"{}", 429)}
    with (
        socket_server(FRAMES[:3], answers, token=TOKEN) as server,
        client_of(server.base_url).open_events() as events,
    ):
        assert len([next(iter(events)) for _ in range(3)]) == 3


def test_what_the_server_leaves_out_for_the_account_is_reported(
    broker: Broker, cursors: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[SourceState] = []
    monkeypatch.setattr(
        checkpoint,
        "save_state",
        lambda _url, _instance, _source, state: states.append(state),
    )
    timeline = _Timeline()
    timeline.documents = [status("1")]
    routes = polled(timeline=timeline)
    routes["/api/v1/blocks"] = Answer(b"[{}, {}]")
    routes["/api/v1/mutes"] = Answer(b"[]")
    with odd_server(routes) as server, log_lines() as lines:
        run(broker, server.base_url, until_caught_up=True)
    expected = "the token's account has 2 blocks: their posts do not arrive"
    assert any(expected in line for line in lines)
    assert any(expected in (state.detail or "") for state in states)
    assert (states[0].detail or "").startswith("polling the timeline: 127.0.0.1 has no")
    assert states[-1].last_post_at is not None


def test_a_payload_nested_too_deeply_does_not_end_a_socket() -> None:
    deep = '{"event":"update","payload":' + "[" * 500 + "]" * 500 + "}"
    with (
        socket_server([deep, FRAMES[0]], GTS_ANSWERS, token=TOKEN) as server,
        client_of(server.base_url).open_events() as events,
    ):
        assert next(iter(events)).name == json.loads(FRAMES[0])["event"]


def test_a_socket_that_ends_or_breaks_is_distinguished() -> None:
    with (
        socket_server(FRAMES, GTS_ANSWERS, token=TOKEN, end=lambda _connection: None) as server,
        client_of(server.base_url).open_events() as events,
        pytest.raises(StreamEndedError),
    ):
        list(events)
    with (
        socket_server(
            [], GTS_ANSWERS, token=TOKEN, end=lambda connection: connection.socket.close()
        ) as server,
        client_of(server.base_url).open_events() as events,
        pytest.raises(ServiceUnavailableError, match="ended without a closing message"),
    ):
        list(events)


def polled(**routes: Route) -> dict[str, Route]:
    """The answers of a Takahe, which has no stream."""
    return {
        "/api/v2/instance": recorded_answer("takahe/instance_v2"),
        STREAM: recorded_answer("takahe/streaming_404"),
        "/api/v1/streaming": recorded_answer("takahe/streaming_404"),
        TIMELINE: routes["timeline"],
    }


def test_a_recorded_server_without_a_stream_is_polled(
    broker: Broker, cursors: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_worker, "_LOG_SECONDS", 0)
    newest, older = exchange("takahe/page_newest"), exchange("takahe/page_max_id")

    def page(query: Mapping[str, str]) -> Answer:
        if "max_id" not in query:
            return Answer(json.dumps(newest["body"]).encode())
        is_second = query["max_id"] == newest["body"][-1]["id"]
        return Answer(json.dumps(older["body"] if is_second else []).encode())

    with odd_server(polled(timeline=page)) as server, log_lines() as lines:
        summary = run(broker, server.base_url, until_caught_up=True)

    listed = {each["uri"] for each in newest["body"] + older["body"]}
    assert summary.received == len(listed)
    assert summary.errors.total() == 0
    assert cursors == {"takahe.example": newest["body"][0]["id"]}
    assert sum("polling the timeline" in line for line in lines) == 1
    assert any("0 reconnects, polling, " in line for line in lines)


def test_a_recorded_server_with_version_1_alone_is_polled(
    broker: Broker, cursors: dict[str, str]
) -> None:
    newest = exchange("snac/page_newest")["body"]

    def page(query: Mapping[str, str]) -> Answer:
        # An id that it does not hold gives an empty page.
        return Answer(b"[]" if query.keys() & {"max_id", "min_id"} else json.dumps(newest).encode())

    routes: dict[str, Route] = {
        "/api/v2/instance": recorded_answer("snac/instance_v2_404"),
        "/api/v1/instance": recorded_answer("snac/instance_v1"),
        STREAM: recorded_answer("snac/streaming_404"),
        TIMELINE: page,
    }
    cursors["snac.example"] = "1795941616" + "0" * 32
    with odd_server(routes) as server:
        summary = run(broker, server.base_url, until_caught_up=True)
    assert summary.received == len(newest)


def test_a_post_inside_a_boost_is_read(broker: Broker, cursors: dict[str, str]) -> None:
    boost = status("A1", content="", reblog=status("1"))
    timeline = _Timeline()
    timeline.documents = [boost]
    with odd_server(polled(timeline=timeline)) as server:
        run(broker, server.base_url, until_caught_up=True)
    assert [message["id"] for message in broker.messages()] == ["1"]


class _Timeline:
    """A timeline that grows, in pages of two; an id that it does not hold gives an empty page."""

    def __init__(self) -> None:
        self.documents: list[dict[str, Any]] = []
        self.requests = 0

    def __call__(self, query: Mapping[str, str]) -> Answer:
        self.requests += 1
        newest_first = self.documents[::-1]
        ids = [each["id"] for each in newest_first]
        if "max_id" in query:
            first = ids.index(query["max_id"]) + 1 if query["max_id"] in ids else len(ids)
            return Answer(json.dumps(newest_first[first : first + 2]).encode())
        return Answer(json.dumps(newest_first[:2]).encode())


def now_status(status_id: str, **changes: Any) -> dict[str, Any]:
    at = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    return status(status_id, created_at=at, **changes)


def test_polls_find_what_comes_late_what_is_edited_and_what_a_page_does_not_hold(
    broker: Broker, cursors: dict[str, str]
) -> None:
    timeline = _Timeline()
    timeline.documents = [now_status(each) for each in "bde"]
    deadline = time.monotonic() + 30

    def show_late() -> None:
        """Show a row with an earlier id, behind a page that has a new post and a known one."""
        first, *others = timeline.documents
        timeline.documents = [first, now_status("c"), *others, now_status("f")]

    steps: Iterator[Callable[[], None]] = iter(
        [
            show_late,
            # More than a page; then an edit.
            lambda: timeline.documents.extend(now_status(each) for each in "ghij"),
            lambda: timeline.documents.__setitem__(
                -1, now_status("j", edited_at="2026-11-29T10:00:00Z", content="<p>other</p>")
            ),
        ]
    )
    # The first poll of a new source reads one page, the next one all of the last half minute.
    expected = [2, 5, 9, 10]

    def should_stop() -> bool:
        assert time.monotonic() < deadline, broker.messages()
        if expected and len(broker.messages()) >= expected[0]:
            expected.pop(0)
            if expected:
                next(steps)()
        return not expected

    with odd_server(polled(timeline=timeline)) as server:
        summary = run(broker, server.base_url, should_stop=should_stop)

    assert sorted(message["id"] for message in broker.messages()) == list("bcdefghijj")
    assert summary.received == 10


def test_a_post_that_is_deleted_at_a_server_without_a_stream_is_deleted(
    broker: Broker, cursors: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recheck, "SECONDS_BETWEEN_ROUNDS", 0)
    known = [StoredPost(each, datetime.now(UTC)) for each in ("a", "gone")]
    monkeypatch.setattr(checkpoint, "read_recent_posts", lambda _url, _instance: known)
    timeline = _Timeline()
    timeline.documents = [now_status("a")]
    routes = polled(timeline=timeline)
    routes["/api/v1/statuses"] = recorded_answer("gotosocial/statuses_by_ids")
    routes["/api/v1/statuses/a"] = Answer(
        json.dumps(now_status("a", edited_at="2026-11-29T10:00:00Z", content="other")).encode()
    )

    def deletes() -> list[str]:
        return [each["id"] for each in broker.messages() if each["op"] == "delete"]

    with odd_server(routes) as server:
        run(broker, server.base_url, should_stop=lambda: bool(deletes()))
    assert deletes() == ["gone"]
    contents = {each["content"] for each in broker.messages() if each["op"] == "upsert"}
    assert contents == {"Good morning", "other"}


def test_a_cursor_whose_post_was_deleted_does_not_stop_the_polls(
    broker: Broker, cursors: dict[str, str], gaps: dict[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    timeline = _Timeline()
    timeline.documents = [status(each) for each in "abcdef"]
    cursors["takahe.example"] = "deleted"
    stored = [status(each)["uri"] for each in "abc"]
    monkeypatch.setattr(checkpoint, "read_stored_uris", lambda _url, _instance, _limit: stored)
    with odd_server(polled(timeline=timeline)) as server:
        run(broker, server.base_url, until_caught_up=True)

    assert {"d", "e", "f"} <= {message["id"] for message in broker.messages()}
    assert cursors == {"takahe.example": "f"}
    assert [gap.status for gap in gaps.values()] == ["recovered"]


def test_polls_know_stored_posts_under_pseudonyms(
    broker: Broker, cursors: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise each start would read the whole timeline, as far as the limits allow it."""
    key = SecretStr("a key of the operator's own")
    monkeypatch.setattr(supervisor, "record_handle_key", lambda _settings: None)
    timeline = _Timeline()
    timeline.documents = [status(each, created_at="2026-11-20T11:00:00Z") for each in "abcdef"]
    cursors["takahe.example"] = "d"
    stored = [Pseudonyms(key).uri(status(each)["uri"]) for each in "abcd"]
    monkeypatch.setattr(checkpoint, "read_stored_uris", lambda _url, _instance, _limit: stored)
    with odd_server(polled(timeline=timeline)) as server:
        run(
            broker,
            server.base_url,
            until_caught_up=True,
            mastodon_handle_key=key.get_secret_value(),
        )

    # The page of "c" and "d" shows that everything before is stored.
    assert {message["id"] for message in broker.messages()} == {"c", "d", "e", "f"}


def test_before_anything_is_stored_a_second_start_reads_back_by_time(
    broker: Broker, cursors: dict[str, str], gaps: dict[Any, Any]
) -> None:
    """The whole timeline would be months of posts, as the tables know none of them."""
    timeline = _Timeline()
    hours = [f"2026-11-20T{hour:02d}:00:00Z" for hour in (1, 2, 3, 4, 5, 6, 11, 13, 14)]
    timeline.documents = [status(hour, created_at=hour) for hour in hours]
    cursors["takahe.example"] = hours[6]
    with odd_server(polled(timeline=timeline)) as server:
        run(broker, server.base_url, until_caught_up=True)

    # The earlier run ended at twelve: one page from before that is read too.
    assert sorted(message["id"] for message in broker.messages()) == hours[5:]
    assert [gap.status for gap in gaps.values()] == ["recovered"]


def test_a_post_of_the_future_does_not_lead_through_the_whole_timeline(
    broker: Broker, cursors: dict[str, str]
) -> None:
    """It is unknown and not from before the last poll, and the pages before it are unknown too."""
    timeline = _Timeline()
    old = [status(each, created_at="2026-11-20T12:00:00Z") for each in ("old 1", "old 2", "old 3")]
    future = status("future", created_at="2099-01-01T00:00:00Z")
    timeline.documents = [*old, future, now_status("a"), now_status("b")]
    polls = 0

    def page(query: Mapping[str, str]) -> Answer:
        nonlocal polls
        polls += "max_id" not in query
        if polls == 2 and len(timeline.documents) == 6:
            timeline.documents.append(now_status("c"))
        return timeline(query)

    with odd_server(polled(timeline=page)) as server:
        run(broker, server.base_url, should_stop=lambda: polls > 3)

    read = {message["id"] for message in broker.messages()}
    assert {"a", "b", "c"} <= read
    assert "old 1" not in read


def test_more_than_the_limits_allow_is_a_gap_of_the_polling(
    broker: Broker, cursors: dict[str, str], gaps: dict[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MastodonClient, "is_on_this_machine", False)
    monkeypatch.setattr(rate_limits, "_PAGED_REQUESTS", 2)
    monkeypatch.setattr(poll, "_LONGEST_POLL_SECONDS", 1)
    timeline = _Timeline()
    timeline.documents = [now_status(each) for each in "abcdefghi"]
    cursors["takahe.example"] = "a"
    with odd_server(polled(timeline=timeline)) as server:
        run(broker, server.base_url, until_caught_up=True)

    assert sorted(message["id"] for message in broker.messages()) == list("defghi")
    (gap,) = gaps.values()
    assert (gap.status, "rate limits" in gap.reason) == ("partial", True)


def test_a_timeline_that_becomes_empty_is_reported_once(
    broker: Broker, cursors: dict[str, str]
) -> None:
    timeline = _Timeline()
    timeline.documents = [now_status("a")]
    empty = 0

    def page(query: Mapping[str, str]) -> Answer:
        nonlocal empty
        empty += bool(broker.messages())
        return Answer(b"[]") if empty else timeline(query)

    with odd_server(polled(timeline=page)) as server, log_lines() as lines:
        run(broker, server.base_url, should_stop=lambda: empty > 3)
    assert sum("the timeline is empty, though there were posts before" in line for line in lines)


def test_an_empty_timeline_is_no_recovery(
    broker: Broker, cursors: dict[str, str], gaps: dict[Any, Any]
) -> None:
    cursors["takahe.example"] = "5"
    with odd_server(polled(timeline=Answer(b"[]"))) as server:
        run(broker, server.base_url, until_caught_up=True)
    assert [gap.status for gap in gaps.values()] == ["open"]
    assert cursors == {"takahe.example": "5"}
