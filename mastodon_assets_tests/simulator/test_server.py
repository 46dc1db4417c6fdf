"""The simulator as its clients see it: Mastodon.py, httpx and httpx-sse."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from mastodon import Mastodon, MastodonNetworkError, StreamListener

from mastodon_assets.errors import SettingsError
from mastodon_assets.simulator.recorded import RecordedSource, read_statuses
from mastodon_assets.simulator.server import (
    SimulatorError,
    SimulatorServer,
    run,
    running,
    synthetic_source,
)
from mastodon_assets.simulator.sources import RawStream, SyntheticSource
from mastodon_assets.simulator.synthetic import Event, LivePosts, history
from mastodon_assets_tests.support.simulator_client import (
    client,
    read_bytes,
    read_events,
    read_until_quiet,
)

pytestmark = pytest.mark.usefixtures("loopback")

NOW = datetime(2026, 11, 23, 15, 30, tzinfo=UTC)
STREAM = "/api/v1/streaming/public"
HASHTAG = "/api/v1/streaming/hashtag"
TIMELINE = "/api/v1/timelines/public"
COUNTS = ("favourites_count", "reblogs_count", "replies_count")


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return history(toots=500, days=3, seed=3, now=NOW)


@pytest.fixture(scope="module")
def server(events: list[Event]) -> Iterator[SimulatorServer]:
    with running(synthetic(events)) as running_server:
        yield running_server


@pytest.fixture(scope="module")
def mastodon(server: SimulatorServer) -> Mastodon:
    return Mastodon(access_token=server.token, api_base_url=server.base_url)


def synthetic(events: list[Event], rate: float = 0) -> SyntheticSource:
    return SyntheticSource(events, live=LivePosts(3, today=NOW), rate=rate)


def listed(events: list[Event]) -> dict[str, dict[str, Any]]:
    """What the timeline must list: versions by id, computed apart from the simulator."""
    deleted = {event.status_id for event in events if event.kind == "delete"}
    versions = [e.status for e in events if e.status is not None and e.status_id not in deleted]
    versions.sort(key=lambda status: status["edited_at"] or "")
    return {
        status["id"]: status
        for status in versions
        if status["visibility"] == "public" and status["reblog"] is None
    }


def walk(server: SimulatorServer, **filters: str) -> list[dict[str, Any]]:
    """All of the timeline, oldest first, by min_id."""
    found: list[dict[str, Any]] = []
    last = "0"
    with client(server) as http:
        while page := http.get(TIMELINE, params={"min_id": last, "limit": "40"} | filters).json():
            found += page[::-1]
            last = page[0]["id"]
    return found


# The documents.


@pytest.mark.parametrize("end", ["", "/"])
def test_both_instance_documents_name_the_simulator_and_its_streaming_server(
    server: SimulatorServer, end: str
) -> None:
    streaming = server.base_url.replace("http", "ws")
    v1 = httpx.get(f"{server.base_url}/api/v1/instance{end}").json()
    v2 = httpx.get(f"{server.base_url}/api/v2/instance{end}").json()
    assert (v1["uri"], v1["urls"]["streaming_api"]) == ("simulator.example", streaming)
    assert v2["domain"] == "simulator.example"
    assert v2["version"] == "4.5.0"
    assert v2["configuration"]["urls"]["streaming"] == streaming
    assert v2["configuration"]["timelines_access"]["live_feeds"] == {
        "local": "public",
        "remote": "public",
    }


def test_mastodon_py_understands_the_instance_and_its_streaming_health(mastodon: Mastodon) -> None:
    assert mastodon.instance_v2().domain == "simulator.example"
    assert mastodon.instance_v1().uri == "simulator.example"
    assert mastodon.stream_healthy() is True
    assert mastodon.timeline_is_available("public") is True


def test_the_owner_of_the_token_is_an_account_that_blocks_nobody(mastodon: Mastodon) -> None:
    assert mastodon.account_verify_credentials().acct == "observer"
    assert list(mastodon.blocks()) == list(mastodon.mutes()) == list(mastodon.domain_blocks()) == []


# Tokens.


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "Missing access token"),
        ({"Authorization": "Basic abc"}, "Invalid access token"),
        ({"Authorization": "Bearer"}, "Invalid access token"),
        ({"Authorization": "Bearer wrong"}, "Invalid access token"),
        ({"Authorization": "Bearer caf\xe9"}, "Invalid access token"),
    ],
)
def test_a_stream_without_the_token_is_401(
    server: SimulatorServer, headers: dict[str, str], message: str
) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    response = httpx.get(server.base_url + STREAM, headers=raw)
    assert response.status_code == 401
    assert response.json() == {"error": message}


def test_mastodon_py_cannot_stream_with_a_wrong_token(server: SimulatorServer) -> None:
    wrong = Mastodon(access_token="wrong", api_base_url=server.base_url)
    with pytest.raises(MastodonNetworkError, match="Unauthorized"):
        wrong.stream_public(StreamListener())


def test_the_timeline_is_public_but_a_wrong_token_is_401(server: SimulatorServer) -> None:
    assert httpx.get(server.base_url + TIMELINE).status_code == 200
    refused = httpx.get(server.base_url + TIMELINE, headers={"Authorization": "Bearer wrong"})
    assert refused.status_code == 401
    for path in ("/api/v1/accounts/verify_credentials", "/api/v1/blocks"):
        assert httpx.get(server.base_url + path).status_code == 401


def test_an_unknown_stream_is_400(server: SimulatorServer) -> None:
    with client(server) as http:
        assert http.get(f"{STREAM}/everywhere").status_code == 400


# The timeline.


def test_walking_by_min_id_meets_every_listed_post_once_in_its_present_version(
    server: SimulatorServer, events: list[Event]
) -> None:
    expected = listed(events)
    found = walk(server)
    assert [status["id"] for status in found] == sorted(expected, key=int)
    for status in found:
        reported = expected[status["id"]]
        # What a request is answered with is older than what the stream sent.
        assert status == reported | {name: status[name] for name in COUNTS}
        assert all(status[name] >= reported[name] for name in COUNTS)
    assert any(status["edited_at"] for status in found)


def test_local_and_remote_timelines_are_the_two_parts_of_the_whole(
    server: SimulatorServer, events: list[Event]
) -> None:
    local = {status["id"] for status in walk(server, local="true")}
    remote = {status["id"] for status in walk(server, remote="true")}
    assert local
    assert remote
    assert local | remote == set(listed(events))
    assert not local & remote


def test_mastodon_py_pages_back_to_the_first_post(mastodon: Mastodon, events: list[Event]) -> None:
    page = mastodon.timeline_public(limit=40)
    assert len(page) == 40
    everything = mastodon.fetch_remaining(page)
    assert everything is not None
    assert [status.id for status in everything] == sorted(listed(events), key=int, reverse=True)


def test_mastodon_py_goes_on_to_newer_posts(mastodon: Mastodon, events: list[Event]) -> None:
    oldest = sorted(listed(events), key=int)
    page = mastodon.timeline_public(min_id="0", limit=10)
    assert [status.id for status in page] == oldest[:10][::-1]
    newer = mastodon.fetch_previous(page)
    assert newer is not None
    assert [status.id for status in newer] == oldest[10:20][::-1]


@pytest.mark.parametrize(
    ("asked", "given"), [("", 20), ("7", 7), ("40", 40), ("80", 40), ("0", 1), ("many", 20)]
)
def test_the_limit_of_a_page_is_twenty_unless_asked_and_never_above_forty(
    server: SimulatorServer, asked: str, given: int
) -> None:
    with client(server) as http:
        assert len(http.get(TIMELINE, params={"limit": asked}).json()) == given


def test_a_page_names_its_neighbours_and_the_rate_limit(server: SimulatorServer) -> None:
    with client(server) as http:
        response = http.get(TIMELINE, params={"limit": "5", "local": "true"})
        page = response.json()
        older, newer = response.links["next"]["url"], response.links["prev"]["url"]
        assert dict(httpx.URL(older).params) == {
            "local": "true",
            "limit": "5",
            "max_id": page[-1]["id"],
        }
        assert httpx.URL(newer).params["min_id"] == page[0]["id"]
        assert int(response.headers["X-RateLimit-Limit"]) == 300
        assert int(response.headers["X-RateLimit-Remaining"]) > 0
        assert datetime.fromisoformat(response.headers["X-RateLimit-Reset"]) > datetime.now(UTC)
        assert http.get(newer).json() == []


def test_a_deleted_and_an_unknown_status_are_404_and_left_out_of_a_list(
    server: SimulatorServer, events: list[Event]
) -> None:
    deleted = next(event.status_id for event in events if event.kind == "delete")
    present, other = sorted(listed(events))[:2]
    with client(server) as http:
        assert http.get(f"/api/v1/statuses/{deleted}").status_code == 404
        assert http.get("/api/v1/statuses/1").status_code == 404
        assert http.get(f"/api/v1/statuses/{present}").json()["id"] == present
        ids = [present, deleted, "1", other, "not a number"]
        found = http.get("/api/v1/statuses", params={"id[]": ids}).json()
    assert [status["id"] for status in found] == [present, other]


def test_a_private_post_is_not_shown_to_anybody(
    server: SimulatorServer, events: list[Event]
) -> None:
    private = next(e.status_id for e in events if e.status and e.status["visibility"] == "private")
    with client(server) as http:
        assert http.get(f"/api/v1/statuses/{private}").status_code == 404


# The stream.


def test_the_stream_begins_with_a_smile_and_carries_the_history_once(events: list[Event]) -> None:
    with running(synthetic(events), heartbeat_seconds=0.05) as server:
        with client(server) as http, http.stream("GET", STREAM) as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            assert response.headers["Cache-Control"] == "private, no-store"
        received = read_bytes(server, lambda data: data.endswith(b":thump\n"))
        again = read_bytes(server, lambda data: data.endswith(b":thump\n"))
    assert received.startswith(b":)\n")
    assert again == b":)\n:thump\n"


def test_httpx_sse_reads_every_event_of_the_history_in_order(events: list[Event]) -> None:
    with running(synthetic(events)) as server:
        received = read_events(server, len(events))
    assert [event.event for event in received] == [event.kind for event in events]
    for got, sent in zip(received, events, strict=True):
        if sent.data is not None:
            assert got.data == sent.data
        elif sent.status is None:
            assert got.data == sent.status_id
        else:
            assert json.loads(got.data) == sent.status


def test_httpx_sse_does_not_end_a_line_at_unicode_separators(tmp_path: Path) -> None:
    path = tmp_path / "stream.txt"
    text = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\x1dh\x1ei"
    path.write_text(f":)\nevent: update\ndata: {text}\n\n", encoding="utf-8")
    with running(RawStream(path)) as server:
        (event,) = read_events(server, 1)
    assert event.data == text


def test_mastodon_py_reads_a_stream_of_good_statuses(events: list[Event]) -> None:
    good = [event for event in events if event.data is None]
    listener = _Counting(expected=len(good))
    # Mastodon.py notices a close at the next byte only.
    with running(synthetic(good), heartbeat_seconds=0.2) as server:
        client_ = Mastodon(access_token=server.token, api_base_url=server.base_url)
        handle = client_.stream_public(listener, run_async=True)
        deadline = time.monotonic() + 20
        while not listener.is_complete() and time.monotonic() < deadline:
            time.sleep(0.01)
        handle.close()
    assert listener.is_complete()
    assert listener.deleted == [event.status_id for event in good if event.kind == "delete"]


class _Counting(StreamListener):
    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.updates = 0
        self.deleted: list[str] = []

    def on_update(self, status: Any) -> None:
        self.updates += 1

    def on_status_update(self, status: Any) -> None:
        self.updates += 1

    def on_delete(self, status_id: Any) -> None:
        self.deleted.append(str(status_id))

    def is_complete(self) -> bool:
        return self.updates + len(self.deleted) == self.expected


@pytest.mark.parametrize(("kind", "is_local"), [("local", True), ("remote", False)])
def test_a_local_or_remote_stream_leaves_out_the_other_kind(
    events: list[Event], kind: str, is_local: bool
) -> None:
    statuses = [
        event
        for event in events
        if event.status and ("@" not in event.status["account"]["acct"]) == is_local
    ]
    with running(synthetic([e for e in events if e.status is not None])) as server:
        received = read_events(server, len(statuses), f"{STREAM}/{kind}")
    assert [json.loads(event.data)["id"] for event in received] == [e.status_id for e in statuses]


def tags_of(event: Event) -> set[str]:
    return {tag["name"].lower() for tag in event.status["tags"]} if event.status else set()


def test_a_hashtag_has_a_timeline_and_a_stream_of_the_posts_with_it_and_of_their_deletes(
    events: list[Event],
) -> None:
    reported = {event.status_id: event for event in events if event.status}
    tagged = [
        event
        for event in events
        if "photography" in tags_of(event)
        or (event.kind == "delete" and "photography" in tags_of(reported[event.status_id]))
    ]
    assert {event.kind for event in tagged} >= {"update", "delete"}
    with running(synthetic([e for e in events if e.status or e.kind == "delete"])) as server:
        received = read_events(server, len(tagged), f"{HASHTAG}?tag=PhotoGraphy")
        with client(server) as http:
            page = http.get("/api/v1/timelines/tag/Photography", params={"limit": "40"}).json()
            local = http.get("/api/v1/timelines/tag/photography?local=true&limit=40").json()
            assert http.get(HASHTAG).status_code == 400
            assert http.get(f"{HASHTAG}/everywhere?tag=cats").status_code == 400

    assert [event.event for event in received] == [event.kind for event in tagged]
    assert all(any(t["name"].lower() == "photography" for t in each["tags"]) for each in page)
    assert [each["id"] for each in page] == sorted((e["id"] for e in page), key=int, reverse=True)
    assert {each["id"] for each in local} <= {each["id"] for each in page}


@pytest.mark.parametrize(("kind", "is_local"), [("local", True), ("remote", False)])
def test_a_delete_goes_where_its_post_went(events: list[Event], kind: str, is_local: bool) -> None:
    local = {e.status_id: "@" not in e.status["account"]["acct"] for e in events if e.status}
    deletes = [e for e in events if e.kind == "delete"]
    wanted = [e.status_id for e in deletes if local[e.status_id] == is_local]
    assert 0 < len(wanted) < len(deletes)
    source = SyntheticSource(events, live=LivePosts(3, today=NOW))
    with running(source) as server:
        reported = [
            event.data
            for event in read_until_quiet(server, f"{STREAM}/{kind}")
            if event.event == "delete"
        ]
    assert reported == wanted


def test_a_server_of_another_name_has_the_same_remote_posts_and_other_local_ones() -> None:
    here, there = (
        listed(history(toots=300, days=2, seed=3, now=NOW, domain=domain))
        for domain in ("simulator.example", "other.example")
    )
    uris = [{status["uri"] for status in found.values()} for found in (here, there)]
    local = {uri for uri in uris[1] if uri.startswith("https://other.example/")}
    assert local
    assert uris[1] - local == uris[1] & uris[0]
    with running(synthetic([]), domain="other.example") as server:
        v1 = httpx.get(f"{server.base_url}/api/v1/instance").json()
        v2 = httpx.get(f"{server.base_url}/api/v2/instance").json()
    assert (v1["uri"], v2["domain"]) == ("other.example", "other.example")


@pytest.fixture
def large(tmp_path: Path) -> RecordedSource:
    """300 statuses that are more than the buffers of a connection hold: a client that does not read
    keeps the server from being done with it."""
    lines = [f'{{"id":"{number}","content":"{"x" * 100_000}"}}' for number in range(300)]
    path = tmp_path / "toots.ndjson"
    path.write_text("\n".join(lines), encoding="utf-8")
    return RecordedSource(read_statuses(path))


def ids_of(stream: bytes) -> list[int]:
    return [int(part.split(b'"')[0]) for part in stream.split(b'data: {"id":"')[1:]]


def test_the_next_client_gets_the_rest_when_the_first_one_goes(large: RecordedSource) -> None:
    with running(large, heartbeat_seconds=0.2) as server:
        first = read_events(server, 3)
        rest = read_bytes(server, lambda data: data.endswith(b":thump\n"))
    assert [json.loads(event.data)["id"] for event in first] == ["0", "1", "2"]
    ids = ids_of(rest)
    assert 3 <= ids[0] < 299
    assert ids == list(range(ids[0], 300))


def test_a_client_that_is_already_there_takes_over_the_history(large: RecordedSource) -> None:
    with (
        running(large, heartbeat_seconds=0.1) as server,
        client(server) as http,
        http.stream("GET", STREAM) as first,
    ):
        begun = first.iter_raw()
        assert next(begun) == b":)\n"
        next(begun)
        with http.stream("GET", STREAM) as second:
            chunks = second.iter_raw()
            waited = next(chunks) + next(chunks)
            first.close()
            taken_over = bytearray()
            while not taken_over.endswith(2 * b":thump\n"):
                taken_over += next(chunks)
    assert waited == b":)\n:thump\n"
    ids = ids_of(bytes(taken_over))
    assert 0 < ids[0] < 299
    assert ids == list(range(ids[0], 300))


def test_live_posts_follow_the_history_and_join_the_timeline(events: list[Event]) -> None:
    with running(synthetic(events, rate=200)) as server:
        received = read_events(server, len(events) + 40)[len(events) :]
        posted = [json.loads(event.data) for event in received]
        with client(server) as http:
            found = http.get(f"/api/v1/statuses/{posted[-1]['id']}").json()
            newest = http.get(TIMELINE).json()[0]
    assert all(event.event == "update" for event in received)
    assert found == posted[-1]
    assert int(newest["id"]) >= int(posted[-1]["id"])
    began = datetime.fromisoformat(posted[0]["created_at"])
    assert NOW < began <= datetime.fromisoformat(posted[-1]["created_at"]) <= datetime.now(UTC)


def test_two_thousand_events_are_sent_whole() -> None:
    source = synthetic_source(toots=2000, days=7, seed=1, now=NOW)
    count = sum(1 for _ in synthetic_source(toots=2000, days=7, seed=1, now=NOW).history())
    with running(source) as server:
        assert len(read_events(server, count)) == count


# Recorded sources.


def test_recorded_statuses_are_sent_and_listed_verbatim_in_file_order(recorded: Path) -> None:
    path = recorded / "statuses.ndjson"
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    with running(RecordedSource(read_statuses(path)), heartbeat_seconds=0.2) as server:
        stream = read_bytes(server, lambda data: data.endswith(b":thump\n"))
        walked = walk(server)
        with client(server) as http:
            last_page = http.get(TIMELINE, params={"limit": "40"}).content
    expected = b"".join(b"event: update\ndata: %b\n\n" % line for line in lines)
    assert stream == b":)\n" + expected + b":thump\n"
    assert walked == [json.loads(line) for line in lines]
    assert {status["visibility"] for status in walked} > {"public", "unlisted", "direct"}
    assert last_page == b"[" + b",".join(lines[:-41:-1]) + b"]"


@pytest.mark.parametrize(
    "name",
    [
        "real_mastodon_public.txt",
        "real_mastodon_burst_out_of_order.txt",
        "docs_mastodon_examples.txt",
        "mastodon_mock_0.6.1_public.txt",
    ],
)
def test_a_recorded_stream_is_served_byte_for_byte_and_stays_open(
    recorded: Path, name: str
) -> None:
    path = recorded / "sse" / name
    data = path.read_bytes()
    with running(RawStream(path), heartbeat_seconds=0.1) as server:
        received = read_bytes(
            server, lambda got: got.endswith(2 * b":thump\n") and len(got) > len(data)
        )
    assert received[: len(data)] == data
    assert set(received[len(data) :].split(b":thump\n")) == {b""}


# Start and stop.


def read_until_silent(connection: socket.socket) -> None:
    connection.settimeout(0.5)
    with suppress(TimeoutError):
        while connection.recv(1 << 20):
            pass


# An open stream never ends by itself.
@pytest.mark.timeout(120)
@pytest.mark.parametrize("reads", [True, False])
def test_it_stops_at_once_though_a_stream_is_open(events: list[Event], reads: bool) -> None:
    many = history(toots=10_000, days=3, seed=3, now=NOW)
    with running(synthetic(events if reads else many)) as server:
        host, port = server.base_url.removeprefix("http://").split(":")
        connection = socket.create_connection((host, int(port)))
        head = (
            f"GET {STREAM} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {server.token}\r\n\r\n"
        )
        connection.sendall(head.encode())
        connection.recv(100)
        if reads:
            read_until_silent(connection)
    connection.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.base_url)


def test_a_port_in_use_is_an_error_of_one_line(server: SimulatorServer) -> None:
    port = int(server.base_url.rsplit(":", 1)[1])
    with (
        pytest.raises(SimulatorError, match=f"127.0.0.1:{port} .*use another port") as caught,
        running(synthetic([]), port=port),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_a_rate_cannot_go_with_a_recording(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="leave it out to replay a file"):
        run(port=0, seed=1, toots=1, days=1, rate=1, from_file=tmp_path, report=print)


@pytest.mark.usefixtures("processes")
def test_a_run_reports_its_address_and_a_new_token_and_ends_without_error_when_interrupted() -> (
    None
):
    code = (
        "from mastodon_assets.simulator.server import run\n"
        "run(port=0, seed=1, toots=50, days=2,"
        " report=lambda server: print(server.base_url, server.token, flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        base_url, token = process.stdout.readline().split()
        assert len(token) >= 32
        assert base_url.startswith("http://127.0.0.1:")
        received = read_events(SimulatorServer(base_url, token), 50)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=10)
    finally:
        process.kill()
    assert len(received) == 50
    assert (process.returncode, output, errors) == (0, "", "")
