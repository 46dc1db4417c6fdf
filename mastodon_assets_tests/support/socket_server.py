"""A server with a stream by WebSocket alone, which answers other requests as a test wants."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from mastodon_assets_tests.support.odd_server import Answer

SOCKET = "/api/v1/streaming?stream="


@dataclass
class SocketServer:
    """Where it is, and the requests it got: path and headers."""

    base_url: str = ""
    requests: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)


@contextmanager
def socket_server(
    frames: Sequence[str],
    answers: Mapping[str, Answer],
    *,
    token: str,
    end: Callable[[ServerConnection], None] | None = None,
) -> Iterator[SocketServer]:
    """Send `frames` to each socket with the token; then keep it open, or `end` it."""
    described, ending = SocketServer(), threading.Event()

    def process(connection: ServerConnection, request: Request) -> Response | None:
        described.requests.append((request.path, dict(request.headers.raw_items())))
        if request.path.startswith(SOCKET):
            if request.headers.get("Authorization") == f"Bearer {token}":
                return None
            return _response(Answer(b'{"error":"Unauthorized"}', 401))
        path = request.path.partition("?")[0]
        return _response(answers.get(path, Answer(b'{"error":"Not Found"}', 404)))

    def handle(connection: ServerConnection) -> None:
        for frame in frames:
            connection.send(frame)
        if end is not None:
            end(connection)
        else:
            ending.wait()

    with serve(handle, "127.0.0.1", 0, process_request=process) as server:
        described.base_url = f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield described
        finally:
            ending.set()
            server.shutdown()
            thread.join()


def _response(answer: Answer) -> Response:
    headers = Headers(
        {"Content-Type": answer.content_type, "Content-Length": str(len(answer.body))}
    )
    headers["Connection"] = "close"
    return Response(answer.status, "", headers, answer.body)
