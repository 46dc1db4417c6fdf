"""Clients of the simulated server."""

from collections.abc import Callable
from contextlib import suppress
from itertools import islice

import httpx
from httpx_sse import ServerSentEvent, connect_sse

from mastodon_assets.simulator.server import SimulatorServer


def client(server: SimulatorServer) -> httpx.Client:
    return httpx.Client(
        base_url=server.base_url,
        headers={"Authorization": f"Bearer {server.token}"},
        timeout=httpx.Timeout(5),
    )


def read_events(
    server: SimulatorServer, count: int, path: str = "/api/v1/streaming/public"
) -> list[ServerSentEvent]:
    """The first `count` events of a new stream."""
    with client(server) as http, connect_sse(http, "GET", path) as stream:
        return list(islice(stream.iter_sse(), count))


def read_until_quiet(server: SimulatorServer, path: str) -> list[ServerSentEvent]:
    """The events of a new stream until it has been quiet for half a second."""
    events: list[ServerSentEvent] = []
    with client(server) as http, suppress(httpx.ReadTimeout):
        http.timeout = httpx.Timeout(5, read=0.5)
        with connect_sse(http, "GET", path) as stream:
            events.extend(stream.iter_sse())
    return events


def read_bytes(
    server: SimulatorServer,
    until: Callable[[bytearray], bool],
    path: str = "/api/v1/streaming/public",
) -> bytes:
    """The bytes of a new stream until they satisfy `until`."""
    received = bytearray()
    with client(server) as http, http.stream("GET", path) as response:
        response.raise_for_status()
        for chunk in response.iter_raw():
            received += chunk
            if until(received):
                break
    return bytes(received)
