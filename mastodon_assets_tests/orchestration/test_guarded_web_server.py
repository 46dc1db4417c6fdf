"""The check of Host and Origin, in front of an application that serves everything."""

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from mastodon_assets.orchestration.guarded_web_server import guarded

_HERE = "http://localhost:3000"
_FOREIGN = "https://evil.example"
# The test client asks for a WebSocket of `testserver`.
_HOST = {"host": "localhost:3000"}


async def _page(_request: object) -> PlainTextResponse:
    return PlainTextResponse("served")


async def _socket(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("served")
    await socket.close()


@pytest.fixture
def client() -> TestClient:
    routes = [
        WebSocketRoute("/graphql", _socket),
        Route("/{path:path}", _page, methods=["GET", "POST"]),
    ]
    return TestClient(guarded(Starlette(routes=routes), ["localhost", "127.0.0.1"]), base_url=_HERE)


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/runs", {}),
        ("POST", "/graphql", {}),
        ("POST", "/graphql", {"origin": _HERE, "sec-fetch-site": "same-origin"}),
        ("GET", "/graphql", {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}),
        ("GET", "/runs", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}),
        ("GET", "/runs", {"host": "127.0.0.1:3000"}),
    ],
)
def test_own_pages_programs_and_links_are_served(
    client: TestClient, method: str, path: str, headers: dict[str, str]
) -> None:
    assert client.request(method, path, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "/graphql", {"origin": _FOREIGN}),
        ("POST", "/graphql", {"origin": "null"}),
        ("POST", "/graphql", {"origin": "http://["}),
        ("POST", "/graphql", {"origin": "http://localhost:8000"}),
        ("GET", "/graphql?query=mutation%20{x}", {}),
        ("GET", "/graphql", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}),
        ("GET", "/logs/x", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}),
        ("POST", "/report", {"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate"}),
    ],
)
def test_what_a_page_of_another_origin_asks_is_refused(
    client: TestClient, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = client.request(method, path, headers=headers)
    assert answer.status_code == 403
    assert answer.text.startswith("refused: ")


def test_a_foreign_host_is_refused(client: TestClient) -> None:
    assert client.get("/runs", headers={"host": "evil.example"}).status_code == 400


def test_a_websocket_of_our_page_is_served(client: TestClient) -> None:
    with client.websocket_connect("/graphql", headers={"origin": _HERE, **_HOST}) as socket:
        assert socket.receive_text() == "served"


@pytest.mark.parametrize("headers", [{"origin": _FOREIGN, **_HOST}, {"host": "evil.example"}])
def test_a_websocket_of_another_origin_is_refused(
    client: TestClient, headers: dict[str, str]
) -> None:
    with (
        pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)),
        client.websocket_connect("/graphql", headers=headers),
    ):
        raise AssertionError("it was accepted")
