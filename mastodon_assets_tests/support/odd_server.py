"""A server on this machine that answers as a test wants, however odd."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

INSTANCE = b'{"domain":"odd.example","configuration":{"urls":{}}}'


@dataclass(frozen=True)
class Answer:
    """`is_open` keeps the connection after the body, as a stream does."""

    body: bytes = b"[]"
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    is_open: bool = False


def stream(body: bytes, *, is_open: bool = True) -> Answer:
    return Answer(b":)\n" + body, content_type="text/event-stream", is_open=is_open)


Route = Answer | Callable[[Mapping[str, str]], Answer]


@dataclass
class OddServer:
    base_url: str
    requests: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)


@contextmanager
def odd_server(routes: Mapping[str, Route]) -> Iterator[OddServer]:
    """Serve `routes` by path; a function gets the query. The instance is `odd.example`."""
    known: dict[str, Route] = {"/api/v2/instance": Answer(INSTANCE), **routes}
    ending = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            described.requests.append((self.path, dict(self.headers)))
            route = known.get(address.path, Answer(b'{"error":"Not found"}', 404))
            query = {name: values[0] for name, values in parse_qs(address.query).items()}
            answer = route if isinstance(route, Answer) else route(query)
            self.send_response_only(answer.status)
            headers = {"Date": self.date_time_string(), "Content-Type": answer.content_type}
            for name, value in (headers | dict(answer.headers)).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)
            self.wfile.flush()
            if answer.is_open:
                ending.wait()

        def log_message(self, format: str, *args: Any) -> None:
            """Tests want no access log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    described = OddServer(f"http://127.0.0.1:{server.server_address[1]}")
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield described
    finally:
        ending.set()
        server.shutdown()
        server.server_close()
        thread.join()
