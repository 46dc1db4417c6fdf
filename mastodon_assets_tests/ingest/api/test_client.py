import gzip
import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Event, Thread
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from mastodon_assets.errors import PlatformError, ServiceUnavailableError, SettingsError
from mastodon_assets.ingest.api import client as client_module
from mastodon_assets.ingest.api import event_stream, transport
from mastodon_assets.ingest.api.client import OLDEST, MastodonClient, reset_time
from mastodon_assets.ingest.api.errors import (
    NoStreamError,
    RateLimitedError,
    RefusedError,
    StreamEndedError,
    StreamSilentError,
)
from mastodon_assets.ingest.api.rate_limits import RateLimits
from mastodon_assets.ingest.api.transport import UntrustedAddressError
from mastodon_assets_tests.support.odd_server import Answer, OddServer, odd_server, stream

pytestmark = pytest.mark.usefixtures("loopback")

TOKEN = "secret-token-of-the-test"
NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
BEFORE_NOON = format_datetime(NOON - timedelta(seconds=90), usegmt=True)
STREAM = "/api/v1/streaming/public"
TIMELINE = "/api/v1/timelines/public"
ODD_URLS = (
    "wss://[",
    "wss://\0",
    "wss://a:port",
    "wss://xn--\u2603",
    "wss://a..b",
    "ws" + "s" * 99,
)


def client_of(server: OddServer, token: str | None = TOKEN) -> MastodonClient:
    return MastodonClient(server.base_url, SecretStr(token) if token else None)


def as_json(document: Any) -> Answer:
    return Answer(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("documents", "domain"),
    [
        ({"/api/v2/instance": as_json({"domain": "One.Example"})}, "one.example"),
        ({"/api/v2/instance": as_json({"domain": "münchen.example"})}, "xn--mnchen-3ya.example"),
        ({"/api/v2/instance": as_json({"domain": None})}, "127.0.0.1"),
        ({"/api/v2/instance": as_json({"domain": "[red]one.example"})}, "127.0.0.1"),
        ({"/api/v2/instance": as_json({"domain": "a" * 300})}, "127.0.0.1"),
        (
            {
                "/api/v2/instance": Answer(b"{}", 404),
                "/api/v1/instance": as_json({"uri": "https://old.example/"}),
            },
            "old.example",
        ),
        (
            {
                "/api/v2/instance": Answer(b"oops", 500),
                "/api/v1/instance": as_json({"uri": "old.example"}),
            },
            "old.example",
        ),
    ],
)
def test_the_server_names_itself(documents: dict[str, Answer], domain: str) -> None:
    with odd_server(documents) as server:
        assert client_of(server).instance_domain() == domain


@pytest.mark.parametrize(
    ("document", "url"),
    [
        ({"configuration": {"urls": {"streaming": "wss://s.example"}}}, "https://s.example"),
        ({"configuration": {"urls": {"streaming": "wss://s.example/x/"}}}, "https://s.example/x"),
        ({"configuration": {"urls": {"streaming": "https://s.example"}}}, "https://s.example"),
        ({"urls": {"streaming_api": "wss://old.example"}}, "https://old.example"),
        ({"configuration": {"urls": {"streaming": "ws://127.0.0.1:5"}}}, "http://127.0.0.1:5"),
        ({"configuration": {"urls": {"streaming": None}}, "urls": {}}, None),
        ({"configuration": None}, None),
    ],
)
def test_the_stream_is_where_the_server_says(document: dict[str, Any], url: str | None) -> None:
    with odd_server({"/api/v2/instance": as_json(document)}) as server:
        assert client_of(server).stream_url() == (url or server.base_url) + STREAM


@pytest.mark.parametrize("url", ["http://one.example", "ftp://one.example", "https://", "nonsense"])
def test_an_address_that_would_show_the_token_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="MASTODON_API_BASE_URL"):
        MastodonClient(url, SecretStr(TOKEN))


def test_a_stream_without_tls_elsewhere_is_refused() -> None:
    document = {"configuration": {"urls": {"streaming": "ws://s.example"}}}
    with (
        odd_server({"/api/v2/instance": as_json(document)}) as server,
        pytest.raises(
            UntrustedAddressError, match=r"http://s\.example as its stream, which is not"
        ),
    ):
        client_of(server).stream_url()


@pytest.mark.parametrize(
    "document",
    [None, [], 1, "x", *({"urls": {"streaming_api": url}} for url in ODD_URLS)],
    ids=repr,
)
def test_no_instance_document_is_a_failure_of_ours(document: Any) -> None:
    with (
        odd_server({"/api/v2/instance": as_json(document)}) as server,
        pytest.raises(PlatformError),
        client_of(server).open_stream(),
    ):
        pass


@pytest.mark.parametrize("body", [b"null", b"1", b"[" * 100_000, b"<html>", b"\xff", b""])
def test_no_answer_is_a_failure_of_ours(body: bytes) -> None:
    with odd_server({TIMELINE: Answer(body), "/api/v1/statuses": Answer(body)}) as server:
        with pytest.raises(ServiceUnavailableError):
            client_of(server).newest_page()
        with pytest.raises(ServiceUnavailableError):
            client_of(server).statuses([])


@pytest.mark.parametrize(
    ("reset", "date"),
    [
        ("soon", ""),
        ("9" * 18, "Tue, 24 Nov 2026 17:00:00 GMT"),
        ("9" * 5_000, "Tue, 24 Nov 2026 17:00:00 GMT"),
        ("0001-01-01", "Tue, 24 Nov 2026 17:00:00 GMT"),
        ("9999-12-31", "Tue, 24 Nov 1970 17:00:00 GMT"),
        ("2026-11-24T17:00:00Z", "soon"),
        ("2026-11-24T17:00:00Z", "Tue, 24 Nov 9999999999 17:00:00 GMT"),
    ],
    ids=range(7),
)
def test_a_time_that_is_none_is_no_failure_of_ours(reset: str, date: str) -> None:
    headers = dict.fromkeys(("X-RateLimit-Limit", "X-RateLimit-Remaining"), "5")
    headers |= {"X-RateLimit-Reset": reset, "Date": date}
    refused = Answer(b"{}", 429, headers=headers)
    with odd_server({STREAM: refused, TIMELINE: refused}) as server:
        with pytest.raises(RateLimitedError), client_of(server).open_stream():
            pass
        with pytest.raises(ServiceUnavailableError):
            client_of(server).newest_page()


def test_a_stream_that_moves_is_found_again() -> None:
    moved = {"configuration": {"urls": {"streaming": "ws://127.0.0.1:1"}}}
    documents = [as_json(moved), as_json({})]

    def instance(_query: Mapping[str, str]) -> Answer:
        return documents.pop(0)

    with odd_server({"/api/v2/instance": instance, STREAM: stream(b"")}) as server:
        client = client_of(server)
        with pytest.raises(ServiceUnavailableError, match="no answer"), client.open_stream():
            pass
        with client.open_stream():
            pass


def test_a_limit_of_requests_keeps_no_stream_closed_whose_place_is_known() -> None:
    away = {"configuration": {"urls": {"streaming": "ws://127.0.0.1:1"}}}
    documents = [as_json(away), Answer(b"{}", 429), as_json({})]

    def instance(_query: Mapping[str, str]) -> Answer:
        return documents.pop(0)

    with odd_server({"/api/v2/instance": instance, STREAM: stream(b"")}) as server:
        client = client_of(server)
        for _ in range(2):
            with pytest.raises(ServiceUnavailableError, match="no answer"), client.open_stream():
                pass
        with client.open_stream():
            pass


def test_events_are_read_whatever_their_line_ends() -> None:
    body = (
        b"event: update\ndata: {}\n\n:thump\n"
        b"event:delete\r\ndata:12\r\n\r\n"
        b"id: 5\nretry: 3\nevent: x\ndata: a\ndata: b\n\n"
        b":thump\n\nevent: update\ndata: \xff\xe2\x80\xa8\n\n"
        b"event: update\ndata: cut off"
    )
    with (
        odd_server({STREAM: stream(body, is_open=False)}) as server,
        client_of(server).open_stream() as events,
    ):
        read: list[tuple[str, str]] = []
        with pytest.raises(StreamEndedError, match="ended the stream"):
            read.extend((event.name, event.data) for event in events if event.data)

    assert read == [("update", "{}"), ("delete", "12"), ("x", "a\nb"), ("update", "\ufffd\u2028")]


@pytest.mark.parametrize("part", [b"a" * 10_000, b"data: a\n" * 2_000, b"data: a\r\n" * 2_000])
def test_an_event_without_end_is_a_disconnect(part: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "_LONGEST_EVENT_BYTES", 100_000)
    small = b"event: update\ndata: 1\n\n" * 10_000 + b"event: update\r\ndata: 1\r\n\r\n" * 10_000
    with (
        odd_server({STREAM: stream(small + part * 100)}) as server,
        client_of(server).open_stream() as events,
    ):
        read: list[str] = []
        with pytest.raises(ServiceUnavailableError, match="the stream broke"):
            read.extend(event.data for event in events)

    assert len(read) == 20_000


def test_close_ends_the_wait_of_the_reading_thread() -> None:
    with (
        odd_server({STREAM: stream(b"event: delete\ndata: 1\n\n")}) as server,
        client_of(server).open_stream() as events,
    ):
        thread = threading.Thread(target=lambda: list(events))
        thread.start()
        events.close()
        thread.join(5)
        assert not thread.is_alive()


def test_a_silent_stream_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "SILENCE_SECONDS", 0.2)
    with (
        odd_server({STREAM: stream(b"event: delete\ndata: 1\n\n")}) as server,
        client_of(server).open_stream() as events,
        pytest.raises(StreamSilentError, match="no heartbeat"),
    ):
        list(events)


def test_what_is_no_event_stream_is_an_error() -> None:
    page = Answer(b"<html>", content_type="text/html")
    with (
        odd_server({STREAM: page}) as server,
        pytest.raises(NoStreamError, match="no event stream"),
        client_of(server).open_stream(),
    ):
        pass


@pytest.mark.parametrize(
    ("status", "token", "advice"),
    [
        (401, None, "401: it wants a token; set MASTODON_ACCESS_TOKEN"),
        (401, TOKEN, "401: it does not accept the token; set MASTODON_ACCESS_TOKEN"),
        (403, TOKEN, "403: the token may not read this"),
        (418, TOKEN, "418: it refuses this request; ask its admins why"),
        (429, TOKEN, "wants fewer requests and does not say until when; wait a few minutes"),
        (503, TOKEN, "503: a fault at the server, which usually passes by itself"),
    ],
)
def test_a_refusal_is_one_line_that_says_what_to_do(
    status: int, token: str | None, advice: str
) -> None:
    refusal = Answer(json.dumps({"error": f"no {TOKEN}\n"}).encode(), status)
    with odd_server({STREAM: refusal, TIMELINE: refusal}) as server:
        client = client_of(server, token)
        with pytest.raises(ServiceUnavailableError) as of_stream, client.open_stream():
            pass
        with pytest.raises(ServiceUnavailableError) as of_timeline:
            client.timeline_page(OLDEST)

    for error in (of_stream, of_timeline):
        assert advice in str(error.value)
        assert "\n" not in str(error.value)
        assert TOKEN not in str(error.value)


def test_a_server_that_is_not_there_is_one_line() -> None:
    with odd_server({}) as server:
        gone = server
    client = MastodonClient(gone.base_url, SecretStr(TOKEN))

    with pytest.raises(
        ServiceUnavailableError, match=r"127\.0\.0\.1: no answer: the connection is refused"
    ) as caught:
        client.instance_domain()

    assert "\n" not in str(caught.value)


def test_a_page_that_is_no_json_is_an_error() -> None:
    with (
        odd_server({TIMELINE: Answer(b"<html>")}) as server,
        pytest.raises(ServiceUnavailableError, match="no JSON"),
    ):
        client_of(server).timeline_page(OLDEST)


def test_a_rate_limit_says_when_it_ends() -> None:
    limited = Answer(
        b'{"error":"Too many requests"}', 429, headers={"X-RateLimit-Reset": "2999-01-01T00:00:00Z"}
    )
    with odd_server({TIMELINE: limited, STREAM: limited}) as server:
        with pytest.raises(RateLimitedError) as of_timeline:
            client_of(server).timeline_page(OLDEST)
        with pytest.raises(RateLimitedError) as of_stream, client_of(server).open_stream():
            pass

    for caught in (of_timeline, of_stream):
        assert caught.value.reset_at is not None
        assert caught.value.reset_at.year in (2998, 2999)


@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(hours=-1)])
@pytest.mark.parametrize("is_number", [False, True])
def test_a_rate_limit_ends_by_the_servers_clock_whatever_ours_shows(
    ahead: timedelta, is_number: bool
) -> None:
    theirs = datetime.now(UTC).replace(microsecond=0) - ahead
    reset = theirs + timedelta(seconds=120)
    headers = {
        "Date": format_datetime(theirs, usegmt=True),
        "X-RateLimit-Reset": str(int(reset.timestamp())) if is_number else reset.isoformat(),
    }
    limited = Answer(b"{}", 429, headers=headers)
    with odd_server({TIMELINE: limited, STREAM: limited}) as server:
        before = datetime.now(UTC)
        with pytest.raises(RateLimitedError) as of_timeline:
            client_of(server).timeline_page(OLDEST)
        with pytest.raises(RateLimitedError) as of_stream, client_of(server).open_stream():
            pass
        after = datetime.now(UTC)

    rounded = timedelta(seconds=1)
    for caught in (of_timeline, of_stream):
        assert caught.value.reset_at is not None
        begun_at = caught.value.reset_at - timedelta(seconds=120)
        assert before - rounded <= begun_at <= after + rounded


def test_a_post_is_gone_only_by_its_own_404_or_410() -> None:
    routes = {
        "/api/v1/statuses/1": as_json({"id": "1"}),
        "/api/v1/statuses/2": Answer(b"{}", 404),
        "/api/v1/statuses/3": Answer(b"{}", 410),
        "/api/v1/statuses/4": Answer(b"{}", 503),
        "/api/v1/statuses/5": Answer(b"{}", 401),
    }
    with odd_server(routes) as server:
        client = client_of(server)
        assert [client.status(status_id) for status_id in "123"] == [{"id": "1"}, None, None]
        for status_id in "45":
            with pytest.raises(RefusedError):
                client.status(status_id)


def test_the_token_is_in_a_header_and_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with odd_server({STREAM: stream(b"", is_open=False), TIMELINE: Answer()}) as server:
        client = client_of(server)
        client.timeline_page("5")
        with client.open_stream() as events, pytest.raises(StreamEndedError):
            list(events)

    assert server.requests
    for path, headers in server.requests:
        assert TOKEN not in path
        assert headers["Authorization"] == f"Bearer {TOKEN}"
        assert headers["User-Agent"].startswith("mastodon-assets/")
    assert TOKEN not in caplog.text


def test_a_page_follows_right_after_its_min_id() -> None:
    with odd_server({TIMELINE: Answer(b'[{"id":"7"},{"id":"6"}]')}) as server:
        page = client_of(server).timeline_page("5")

    assert [document["id"] for document in page] == ["7", "6"]
    asked = [path for path, _ in server.requests if path.startswith(TIMELINE)]
    assert len(asked) == 1
    assert "min_id=5" in asked[0]
    assert "limit=40" in asked[0]


@pytest.mark.parametrize("token", ["abc…", "abc...", "abc def", "„abc“", "abc\n"])
def test_a_token_that_was_copied_from_a_shortened_display_is_refused(token: str) -> None:
    with pytest.raises(SettingsError, match="copy it whole") as caught:
        MastodonClient("https://one.example", SecretStr(token))
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize("path", [STREAM, TIMELINE])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_the_token_does_not_follow_a_redirect_to_another_host(path: str, status: int) -> None:
    with odd_server({}) as other:
        away = Answer(b"", status, headers={"Location": f"{other.base_url}{path}"})
        with odd_server({path: away}) as server:
            client = client_of(server)
            with pytest.raises(ServiceUnavailableError, match="redirects to"):
                client.newest_page() if path == TIMELINE else client.open_stream().__enter__()
        assert other.requests == []


@pytest.mark.parametrize("address", ["http://[", "//["])
def test_a_redirect_to_no_address_is_a_refusal(address: str) -> None:
    away = Answer(b"", 302, headers={"Location": address})
    with (
        odd_server({TIMELINE: away}) as server,
        pytest.raises(RefusedError, match="redirects to"),
    ):
        client_of(server).newest_page()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_on_the_same_host_is_followed(status: int) -> None:
    moved = {
        path: Answer(b"", status, headers={"Location": f"/moved{path}"})
        for path in (STREAM, TIMELINE)
    }
    routes = moved | {f"/moved{TIMELINE}": as_json([{"id": "1"}]), f"/moved{STREAM}": stream(b"")}
    with odd_server(routes) as server:
        client = client_of(server)
        assert client.newest_page() == [{"id": "1"}]
        with client.open_stream():
            pass
        authorizations = {headers.get("Authorization") for _, headers in server.requests}
    assert authorizations == {f"Bearer {TOKEN}"}


def test_a_redirect_without_end_is_an_error() -> None:
    again = Answer(b"", 302, headers={"Location": TIMELINE})
    with (
        odd_server({TIMELINE: again}) as server,
        pytest.raises(RefusedError, match="redirects without end"),
    ):
        client_of(server).newest_page()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "7", "X-RateLimit-Reset": "2999-01-01T00:00:00Z"}, 7),
        ({"Retry-After": format_datetime(NOON, usegmt=True), "Date": BEFORE_NOON}, 91),
        ({"X-RateLimit-Reset": NOON.isoformat(), "Date": BEFORE_NOON}, 91),
        ({"X-RateLimit-Reset": str(int(NOON.timestamp())), "Date": BEFORE_NOON}, 91),
    ],
)
def test_a_limit_ends_when_the_server_says(headers: dict[str, str], seconds: int) -> None:
    reset_at = reset_time(httpx.Headers(headers))
    assert reset_at is not None
    assert abs((reset_at - datetime.now(UTC)).total_seconds() - seconds) < 60


@pytest.mark.parametrize("text", ["", "soon", "9" * 5000, "-1"])
def test_a_limit_without_a_usable_end_has_none(text: str) -> None:
    found = reset_time(httpx.Headers({"Retry-After": text, "X-RateLimit-Reset": "soon"}))
    assert found is None or text.startswith("9")


def test_an_unreadable_reset_with_an_answer_changes_nothing() -> None:
    page = Answer(b'[{"id":"1"}]', headers={"X-RateLimit-Reset": "soon"})
    with odd_server({TIMELINE: page}) as server:
        assert client_of(server).newest_page() == [{"id": "1"}]


def test_a_page_of_a_protection_does_not_accuse_the_token() -> None:
    blocked = Answer(b"<html>Checking your browser", 403, content_type="text/html; charset=UTF-8")
    with odd_server({STREAM: blocked, TIMELINE: blocked}) as server:
        client = client_of(server)
        with pytest.raises(RefusedError, match="not the API") as of_stream, client.open_stream():
            pass
        with pytest.raises(RefusedError, match="not the API") as of_page:
            client.newest_page()
    assert not of_stream.value.is_of_token
    assert not of_page.value.is_of_token


def test_a_refusal_in_plain_text_is_about_the_token() -> None:
    """Takahe answers this on every address."""
    refused = Answer(b"Invalid Bearer token", 400, content_type="text/html; charset=utf-8")
    with (
        odd_server({TIMELINE: refused}) as server,
        pytest.raises(RefusedError, match="does not accept the token") as caught,
    ):
        client_of(server).newest_page()
    assert caught.value.is_of_token


def test_a_body_that_unpacks_to_more_than_any_page_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "LARGEST_BODY_BYTES", 1_000_000)
    bomb = gzip.compress(b" " * 100_000_000)
    page = Answer(bomb, headers={"Content-Encoding": "gzip"})
    with (
        odd_server({TIMELINE: page}) as server,
        pytest.raises(ServiceUnavailableError, match="more than"),
    ):
        client_of(server).newest_page()


def test_a_compressed_page_and_stream_are_read() -> None:
    body = gzip.compress(b":)\nevent: delete\ndata: 1\n\n")
    packed = {"Content-Encoding": "gzip"}
    routes = {
        TIMELINE: Answer(gzip.compress(b'[{"id":"1"}]'), headers=packed),
        STREAM: Answer(body, content_type="text/event-stream", headers=packed),
    }
    with odd_server(routes) as server:
        client = client_of(server)
        assert client.newest_page() == [{"id": "1"}]
        read: list[str] = []
        with client.open_stream() as events, pytest.raises(StreamEndedError):
            read.extend(event.data for event in events)
        assert read == ["1"]


def test_an_event_that_unpacks_to_more_than_any_post_is_a_disconnect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_stream, "_LONGEST_EVENT_BYTES", 1_000_000)
    bomb = gzip.compress(b"data: " + b"a" * 100_000_000)
    answer = Answer(bomb, content_type="text/event-stream", headers={"Content-Encoding": "gzip"})
    with (
        odd_server({STREAM: answer}) as server,
        client_of(server).open_stream() as events,
        pytest.raises(ServiceUnavailableError, match="the stream broke"),
    ):
        list(events)


def test_a_body_that_never_ends_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_REST_SECONDS", -1)
    with (
        odd_server({TIMELINE: Answer(b"[")}) as server,
        pytest.raises(ServiceUnavailableError, match="was not complete after"),
    ):
        client_of(server).newest_page()


@contextmanager
def dripping(beginning: bytes) -> Iterator[str]:
    """A server that sends this, and then a byte of the same line again and again."""
    ending = Event()

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65_536)
            with suppress(OSError):
                self.request.sendall(beginning)
                while not ending.wait(0.02):
                    self.request.sendall(b"x")

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            ending.set()
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "beginning",
    [
        b"HTTP/1.1 200 OK\r\nX-Header: ",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[]",
    ],
    ids=["headers", "size of a chunk", "body without a length"],
)
def test_an_answer_that_drips_byte_by_byte_has_a_deadline(
    beginning: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_REST_SECONDS", 0.5)
    with dripping(beginning) as base_url:
        client = MastodonClient(base_url, SecretStr("token"))
        for ask in (client.newest_page, lambda: client.status("1")):
            with pytest.raises(ServiceUnavailableError, match="was not complete after"):
                ask()


def test_the_headers_of_a_stream_have_a_deadline() -> None:
    with (
        dripping(b"HTTP/1.1 200 OK\r\nX-Header: ") as base_url,
        httpx.Client() as http,
        pytest.raises(ServiceUnavailableError, match="was not complete after"),
        transport.opened(http, base_url, {}, seconds=0.5, is_stream=True),
    ):
        pass


def test_an_administrator_finds_a_contact_in_the_user_agent() -> None:
    with odd_server({TIMELINE: Answer()}) as server:
        MastodonClient(server.base_url, None, contact="ops@one.example").newest_page()
        ((_, headers),) = server.requests
    assert headers["User-Agent"].endswith(" (+ops@one.example)")


def test_a_rotated_token_is_read_again_after_a_refusal() -> None:
    token = SecretStr("old-token")

    def answer(_query: Mapping[str, str]) -> Answer:
        used = server.requests[-1][1]["Authorization"]
        return as_json([]) if used == "Bearer new-token" else Answer(b"{}", 401)

    with odd_server({TIMELINE: answer}) as server:
        client = MastodonClient(server.base_url, token, reload_token=lambda: SecretStr("new-token"))
        assert client.newest_page() == []
        assert client.newest_page() == []
        assert len(server.requests) == 3


def test_the_instance_document_is_requested_once_without_a_slash() -> None:
    documents = {
        "/api/v2/instance": Answer(b"", 404),
        "/api/v1/instance": as_json({"uri": "a.example"}),
    }
    with odd_server(documents) as server:
        client = client_of(server)
        assert [client.instance_domain() for _ in range(3)] == ["a.example"] * 3
        assert [path for path, _ in server.requests] == ["/api/v2/instance", "/api/v1/instance"]


def test_requests_for_documents_and_streams_count_in_the_limit() -> None:
    limits = RateLimits(is_limited=True)
    before = limits.every.left()
    with odd_server({STREAM: stream(b"")}) as server:
        client = MastodonClient(server.base_url, None, rate_limits=limits)
        with client.open_stream():
            pass
    assert before is not None
    assert limits.every.left() == before - 2
