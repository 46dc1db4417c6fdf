"""The simulator answers like other software, held against recordings of it."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from mastodon_assets.simulator.faults import ServerFaults, UnknownDeletes, Unsent
from mastodon_assets.simulator.personalities import PERSONALITIES, IdForm, Ids
from mastodon_assets.simulator.server import SimulatorServer, running, synthetic_source
from mastodon_assets.simulator.statuses import snowflake
from mastodon_assets_tests.support.recordings import exchange, recorded_lines, recorded_text

VALID = "valid"
pytestmark = pytest.mark.usefixtures("loopback")

_HEADERS = ("content-type", "server", "x-creator", "link", "location")
TIMELINE = "/api/v1/timelines/public"
# Recording, path, and which token it got. `ID` is the newest post, `GONE` none.
_ANSWERS = {
    "gotosocial": [
        ("instance_v1", "/api/v1/instance", "none"),
        ("instance_v2", "/api/v2/instance", "none"),
        ("nodeinfo_wellknown", "/.well-known/nodeinfo", "none"),
        ("nodeinfo", "/nodeinfo/2.0", "none"),
        ("timeline_newest_page", f"{TIMELINE}?limit=4", "valid"),
        ("timeline_oldest_page_min_id_0", f"{TIMELINE}?limit=4&min_id=0", "valid"),
        ("timeline_end_empty", f"{TIMELINE}?limit=4&min_id=ZZZ", "valid"),
        ("timeline_no_token", f"{TIMELINE}?limit=1", "none"),
        ("timeline_wrong_token", f"{TIMELINE}?limit=1", "wrong"),
        ("statuses_by_ids", "/api/v1/statuses?id[]=ID", "valid"),
        ("status_gone", "/api/v1/statuses/GONE", "valid"),
        ("streaming_sse_path", "/api/v1/streaming/public", "valid"),
        ("streaming_health", "/api/v1/streaming/health", "none"),
        ("streaming_without_upgrade", "/api/v1/streaming?stream=public", "valid"),
        ("domain_blocks", "/api/v1/domain_blocks", "valid"),
        ("redirect_trailing_slash", "/api/v2/instance/", "none"),
        ("no_user_agent", "/api/v1/instance", "no agent"),
    ],
    "takahe": [
        ("instance_v1", "/api/v1/instance", "none"),
        ("instance_v2", "/api/v2/instance", "none"),
        ("instance_v2_slash_404", "/api/v2/instance/", "none"),
        ("nodeinfo_links", "/.well-known/nodeinfo", "none"),
        ("nodeinfo", "/nodeinfo/2.0/", "none"),
        ("page_newest", f"{TIMELINE}?limit=6", "valid"),
        ("page_max_id", f"{TIMELINE}?limit=4&max_id=ID", "valid"),
        ("page_min_id_end", f"{TIMELINE}?limit=4&min_id=ID", "valid"),
        ("page_odd_id_500", f"{TIMELINE}?limit=4&max_id=abc", "valid"),
        ("wrong_token_400", f"{TIMELINE}?limit=1", "wrong"),
        ("statuses_by_ids_403_read_statuses", "/api/v1/statuses?id[]=ID", "valid"),
        ("status_gone_404", "/api/v1/statuses/GONE", "valid"),
        ("streaming_404", "/api/v1/streaming/public", "valid"),
        ("streaming_health_404", "/api/v1/streaming/health", "none"),
        ("blocks_404", "/api/v1/blocks", "valid"),
        ("tag_without_token_401", "/api/v1/timelines/tag/harbour", "none"),
    ],
    "snac": [
        ("instance_v1", "/api/v1/instance", "none"),
        ("instance_v2_404", "/api/v2/instance", "none"),
        ("nodeinfo_links", "/.well-known/nodeinfo", "none"),
        ("nodeinfo", "/nodeinfo_2_0", "none"),
        ("page_newest", f"{TIMELINE}?limit=6", "none"),
        ("page_max_id", f"{TIMELINE}?limit=4&max_id=ID", "none"),
        ("page_min_id_0_empty", f"{TIMELINE}?limit=4&min_id=0", "none"),
        ("page_max_id_of_a_post_that_went_empty", f"{TIMELINE}?limit=4&max_id=GONE", "none"),
        ("wrong_token_is_ignored_200", f"{TIMELINE}?limit=1", "wrong"),
        ("statuses_by_ids_404", "/api/v1/statuses?id[]=ID", "valid"),
        ("status_gone_404", "/api/v1/statuses/GONE", "valid"),
        ("status_without_token_401", "/api/v1/statuses/ID", "none"),
        ("streaming_404", "/api/v1/streaming/public", "valid"),
        ("verify_wrong_token_422", "/api/v1/accounts/verify_credentials", "wrong"),
    ],
}
# A client that leaves events unread does not see the server's answer to its close.
_CLOSE_SECONDS = 0.5


@contextmanager
def simulated(name: str, **options: Any) -> Iterator[SimulatorServer]:
    source = synthetic_source(toots=60, days=1, seed=1, domain=f"{name}.example")
    with running(
        options.pop("source", source),
        personality=PERSONALITIES[name],
        domain=f"{name}.example",
        **options,
    ) as server:
        yield server


def headers_of(server: SimulatorServer, token: str) -> dict[str, str]:
    tokens = {"valid": f"Bearer {server.token}", "wrong": "Bearer wrong"}
    headers = {"User-Agent": "" if token == "no agent" else "test"}
    return headers | ({"Authorization": tokens[token]} if token in tokens else {})


def get(server: SimulatorServer, path: str, token: str = VALID) -> httpx.Response:
    return httpx.get(f"{server.base_url}{path}", headers=headers_of(server, token))


@pytest.mark.parametrize("name", _ANSWERS)
def test_answers_are_those_that_were_recorded(name: str) -> None:
    with simulated(name) as server:
        page = get(server, f"{TIMELINE}?limit=1").json()
        status_id = page[0]["id"]
        gone = f"{status_id[:-6]}000000"
        for recording, path, token in _ANSWERS[name]:
            expected = exchange(f"{name}/{recording}")
            found = get(server, path.replace("ID", status_id).replace("GONE", gone), token)
            about = f"{recording}: {found.status_code} {found.text[:200]}"
            assert found.status_code == expected["status"], about
            for header in _HEADERS:
                given = expected["headers"].get(header)
                kind = (given or "").partition(";")[0]
                assert (header in found.headers) == (header in expected["headers"]), (about, header)
                if header in ("content-type", "server", "x-creator"):
                    assert found.headers.get(header, "").startswith(kind), (about, header)
            body = expected["body"]
            if isinstance(body, str):
                assert found.text[:8] == body[:8], about
            elif isinstance(body, list):
                assert bool(found.json()) == bool(body), about
            elif found.status_code >= 400:
                assert found.json() == body, about
            else:
                assert set(found.json()) == set(body), about


@pytest.mark.parametrize("name", PERSONALITIES)
def test_the_accounts_of_listed_posts_are_shown_and_no_others(name: str) -> None:
    """The ingester asks for them, and removes the posts of those that are gone."""
    faults = ServerFaults()
    with simulated(name, faults=faults) as server:
        for listed in get(server, f"{TIMELINE}?limit=40").json():
            account = listed["account"]
            path = f"/api/v1/accounts/{account['id']}"
            shown = get(server, path)
            assert (shown.status_code, shown.json()["acct"]) == (200, account["acct"])
        assert get(server, f"{path}0").status_code == 404
        faults.is_gone = True
        assert get(server, path).status_code == 404


@pytest.mark.parametrize(
    ("name", "recording"),
    [
        ("gotosocial", "timeline_newest_page"),
        ("takahe", "page_newest"),
        ("snac", "page_newest"),
    ],
)
def test_posts_have_the_keys_that_were_recorded(name: str, recording: str) -> None:
    recorded = exchange(f"{name}/{recording}")["body"]
    with simulated(name) as server:
        page = get(server, f"{TIMELINE}?limit=40").json()
    assert set().union(*page) == set().union(*recorded)
    accounts = (
        set().union(*(each["account"] for each in documents)) for documents in (page, recorded)
    )
    assert next(accounts) == next(accounts)
    sample = max((each for each in page if each["reblog"] is None), key=len)
    for key, value in recorded[0].items():
        if value is not None and sample[key] is not None:
            assert isinstance(sample[key], type(value)), key


@pytest.mark.parametrize("name", PERSONALITIES)
def test_a_timeline_can_be_paged_through_by_the_ids_it_lists(name: str) -> None:
    with simulated(name) as server:
        everything = get(server, f"{TIMELINE}?limit=40").json()
        seen, path = [], f"{TIMELINE}?limit=7"
        while page := get(server, path).json():
            seen += page
            path = f"{TIMELINE}?limit=7&max_id={page[-1]['id']}"
            assert len(seen) < 100
        known = [each["id"] for each in everything]
        assert [each["id"] for each in seen][: len(known)] == known
        one = next(each for each in everything if each["reblog"] is None)
        assert get(server, f"/api/v1/statuses/{one['id']}").json()["uri"] == one["uri"]


def test_ids_go_to_a_form_and_back() -> None:
    status_id = snowflake(1_795_940_000_123, 7)
    forms: tuple[IdForm, ...] = ("snowflake", "ulid", "takahe", "snac")
    for form in forms:
        ids = Ids(form)
        assert ids.given(ids.own(status_id, None)) == status_id
    snac = Ids("snac")
    assert snac.given(snac.own(status_id, "2026-12-01T00:00:00Z")) == status_id
    assert snac.own(status_id, "2026-12-01T00:00:00Z") != snac.own(status_id, None)


def test_a_stream_of_mastodon_is_cut_into_chunks_and_refused_as_recorded() -> None:
    path = "/api/v1/streaming/public"
    with simulated("mastodon-4.6", heartbeat_seconds=0.1) as server:

        def refusal(path: str, **headers: str) -> tuple[int, str]:
            found = httpx.get(f"{server.base_url}{path}", headers=headers)
            assert found.headers["Access-Control-Allow-Origin"] == "*"
            assert found.headers["X-Powered-By"] == "Express"
            return found.status_code, found.json()["error"]

        unknown = (400, "Unknown channel requested")
        for wrong in ("/api/v1/streaming/nosuch", "/api/v1/streaming", f"{path}/", f"{path}/no"):
            assert refusal(wrong) == unknown
        assert refusal(path) == (401, "Missing access token")
        for given in ("Bearer wrong", f"bearer {server.token}"):
            assert refusal(path, Authorization=given) == (401, "Invalid access token")
        assert refusal(f"{path}?access_token=wrong") == (401, "Invalid access token")
        tag = "/api/v1/streaming/hashtag?tag="
        missing = (400, "Missing tag name parameter")
        assert refusal(tag, Authorization=f"Bearer {server.token}") == missing

        chunks: list[bytes] = []
        with httpx.stream("GET", f"{server.base_url}{path}?access_token={server.token}") as stream:
            for chunk in stream.iter_raw():
                chunks.append(chunk)
                if b"".join(chunks).endswith(b":thump\n\n"):
                    break
    assert chunks[0] == b":)\n"
    whole = b"".join(chunks)
    assert whole.count(b"event: update\ndata: {") >= 50
    assert not any(chunk.startswith(b"event: ") and b"data: " in chunk for chunk in chunks[:2])


def socket_url(server: SimulatorServer, query: str) -> str:
    return f"ws://{urlsplit(server.base_url).netloc}/api/v1/streaming{query}"


def test_a_socket_is_the_recorded_one_and_outlives_its_token() -> None:
    recorded = json.loads(
        next(e["text"] for e in recorded_lines("gotosocial/socket_public") if "text" in e)
    )
    faults = ServerFaults()
    with simulated("gotosocial", faults=faults) as server:
        valid = {"Authorization": f"Bearer {server.token}"}
        address = socket_url(server, "?stream=public")
        with connect(address, additional_headers=valid, close_timeout=_CLOSE_SECONDS) as socket:
            frame = json.loads(socket.recv(timeout=10))
            assert set(frame) == set(recorded)
            assert frame["stream"] == ["public"]
            assert set(json.loads(frame["payload"])) >= {"id", "uri", "account"}
            faults.is_revoked = True
            assert get(server, f"{TIMELINE}?limit=1").status_code == 401
            assert json.loads(socket.recv(timeout=10))["event"]
            faults.is_revoked = False
        with (
            connect(socket_url(server, "?stream=public:remote"), additional_headers=valid) as idle,
            pytest.raises(TimeoutError),
        ):
            idle.recv(timeout=0.2)
        with pytest.raises(InvalidStatus) as caught:
            connect(socket_url(server, "?stream=public"))
        assert caught.value.response.status_code == 401
    for name in ("takahe", "snac"):
        with simulated(name) as server, pytest.raises(InvalidStatus) as caught:
            connect(socket_url(server, "?stream=public"))
        assert caught.value.response.status_code == 404


def test_a_stop_tears_streams_as_recorded() -> None:
    """Mastodon sends no last chunk, GoToSocial no closing frame."""
    assert not recorded_text("mastodon_streaming/ended_by_sigterm_chunked.raw").endswith("0\n\n")
    with ExitStack() as opened:
        with simulated("mastodon-4.6") as server:
            path = f"{server.base_url}/api/v1/streaming/public"
            headers = headers_of(server, VALID)
            response = opened.enter_context(httpx.stream("GET", path, headers=headers, timeout=10))
            chunks = response.iter_raw()
            assert next(chunks).startswith(b":)")
        with pytest.raises(httpx.TransportError):
            list(chunks)

    recorded = recorded_lines("gotosocial/socket_at_shutdown")
    (code,) = (each["code"] for each in recorded if "end" in each)
    with ExitStack() as opened:
        with simulated("gotosocial") as server:
            valid = {"Authorization": f"Bearer {server.token}"}
            address = socket_url(server, "?stream=public")
            socket = opened.enter_context(connect(address, additional_headers=valid))
            assert socket.recv(timeout=10)
        with pytest.raises(ConnectionClosedError) as caught:
            list(socket)
    assert caught.value.rcvd is None
    assert code == 1006


def test_a_socket_of_mastodon_carries_several_streams_and_the_payloads_that_were_recorded() -> None:
    events = re.findall(
        r"event: (\S+)\ndata: (.*)\n", recorded_text("mastodon_streaming/public_events.http")
    )
    recorded = next(json.loads(data) for kind, data in events if kind == "update")

    def opened(query: str = "", **options: Any) -> Any:
        return connect(socket_url(server, query), close_timeout=_CLOSE_SECONDS, **options)

    with simulated("mastodon-4.6") as server:
        for token in (None, "wrong"):
            with pytest.raises(InvalidStatus) as caught:
                opened(f"?stream=public&access_token={token}" if token else "?stream=public")
            response = caught.value.response
            assert response.status_code == 401
            assert response.body is not None
            expected = {None: "Missing access token", "wrong": "Invalid access token"}[token]
            assert json.loads(response.body) == {"error": expected}

        with opened(f"?stream=public&access_token={server.token}") as socket:
            frame = json.loads(socket.recv(timeout=10))
        assert (frame["stream"], set(frame)) == (["public"], {"stream", "event", "payload"})
        # Collections are new in 4.6, and no reader needs them.
        assert set(recorded) - {"tagged_collections"} <= set(json.loads(frame["payload"]))

    # The history goes to one client, once.
    with simulated("mastodon-4.6") as server:
        protocol: Any = [server.token]
        with opened(subprotocols=protocol) as socket:
            assert socket.subprotocol == server.token
            for text in (
                "no JSON",
                '{"type": "subscribe", "stream": "public:nosuch"}',
                '{"type": "subscribe", "stream": "hashtag"}',
                '{"type": "subscribe", "stream": "public:remote"}',
            ):
                socket.send(text)
            frames = [json.loads(socket.recv(timeout=10)) for _ in range(4)]
            errors = [each["error"] for each in frames[:2]]
            assert errors == ["Unknown stream type", "Missing tag name parameter"]
            assert {tuple(each["stream"]) for each in frames[2:]} == {("public:remote",)}
            socket.send('{"type": "unsubscribe", "stream": "public:remote"}')


def test_takahe_lists_no_replies() -> None:
    replies = {}
    for name in ("gotosocial", "takahe"):
        with simulated(name) as server:
            page = get(server, f"{TIMELINE}?limit=40").json()
            replies[name] = [each for each in page if each["in_reply_to_id"] is not None]
            assert len(page) == 40
    assert replies["gotosocial"]
    assert replies["takahe"] == []


def test_deletes_of_posts_that_were_never_public_can_be_sent() -> None:
    source = UnknownDeletes(synthetic_source(toots=60, days=1, seed=1), every=10)
    with simulated("gotosocial", source=source) as server:
        headers = {"Authorization": f"Bearer {server.token}"}
        address = socket_url(server, "?stream=public")
        with connect(address, additional_headers=headers, close_timeout=_CLOSE_SECONDS) as socket:
            frames: list[dict[str, Any]] = []
            while sum(each["event"] == "delete" for each in frames) < 5:
                frames.append(json.loads(socket.recv(timeout=10)))
        ids = Ids("ulid")
        unknown = {ids.own(each, None) for each in source.ids}
        deleted = {each["payload"] for each in frames if each["event"] == "delete"}
        found = deleted & unknown
        assert found
        for status_id in found:
            assert get(server, f"/api/v1/statuses/{status_id}").status_code == 404


def test_faults_that_were_seen_can_be_switched_on() -> None:
    faults = ServerFaults()
    source = synthetic_source(toots=60, days=1, seed=1)
    with simulated("mastodon-4.6", source=Unsent(source, 0.5), faults=faults) as server:
        listed = get(server, f"{TIMELINE}?limit=40").json()
        url = f"{server.base_url}/api/v1/streaming/public"
        with httpx.stream("GET", url, headers=headers_of(server, "valid")) as stream:
            ending = threading.Timer(0.5, faults.end_streams)
            ending.start()
            sent = b"".join(stream.iter_raw())
        assert len(listed) == 40
        assert sent.count(b"event: update") < 40

        faults.is_gone = True
        assert get(server, TIMELINE).json() == []
        assert get(server, f"/api/v1/statuses?id[]={listed[0]['id']}").json() == []
        assert get(server, f"/api/v1/statuses/{listed[0]['id']}").status_code == 404


def recorded_streams() -> Iterator[tuple[str, dict[str, str], int, str]]:
    """Path, headers, status and body of the requests to a real streaming server by GET."""
    for block in recorded_text("mastodon_streaming/answers_real.txt").split("### ")[1:]:
        request, _, answer = block.partition("\n")
        options, _, path = request.partition("BASE")
        is_other = re.search(r"-[XI] |tok-write|/(list|user|direct)", request) or not answer.strip()
        if is_other or not path.startswith("/api/v1/streaming"):
            continue
        headers = dict(re.findall(r"-H ([\w-]+): (.*?) (?=-H|$)", options))
        head, _, body = answer.partition("\n\n")
        yield path, headers, int(head.split()[1]), body.strip()


def test_a_stream_answers_what_a_real_streaming_server_answered() -> None:
    checked = 0
    with simulated("mastodon-4.6") as server:
        for path, headers, status_code, body in recorded_streams():
            given = {
                name: value.replace("tok-read", server.token) for name, value in headers.items()
            }
            url = server.base_url + path.replace("tok-read", server.token)
            with httpx.stream("GET", url, headers=given) as found:
                assert found.status_code == status_code, (path, headers)
                if body.startswith("{"):
                    assert json.loads(found.read()) == json.loads(body), (path, headers)
                elif body.startswith(":)"):
                    assert next(found.iter_raw()).startswith(b":)\n"), (path, headers)
            checked += 1
    assert checked >= 20
