"""The HTTP endpoint for Prometheus.

What belongs here: the endpoint. The process that counts decides which metrics there are.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prometheus_client import CollectorRegistry, start_http_server

from mastodon_assets.errors import PlatformError


class MetricsPortError(PlatformError):
    """The port for the metrics is taken or not allowed."""


@contextmanager
def serving_metrics(
    registry: CollectorRegistry, port: int | None, host: str = "127.0.0.1"
) -> Iterator[None]:
    """Serve `registry` at `http://HOST:PORT/metrics` until the block ends.

    Args:
        registry: The metrics to serve.
        port: The port; None serves nothing.
        host: The address to listen on.

    Raises:
        MetricsPortError: The port is taken or not allowed.
    """
    if port is None:
        yield
        return
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise MetricsPortError(
            f"cannot serve metrics at {host}:{port} ({error.strerror}); choose another port"
        ) from error
    try:
        yield
    finally:
        # The server polls twice a second for its end; closing the socket wakes it at once.
        with suppress(OSError):
            server.socket.shutdown(socket.SHUT_RDWR)
        server.shutdown()
        server.server_close()
        thread.join()
