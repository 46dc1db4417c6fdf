"""Numbers for Prometheus, served on loopback.

What belongs here: the endpoint. Which numbers there are is decided by the process that counts them.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prometheus_client import CollectorRegistry, start_http_server

from mastodon_assets.errors import PlatformError


class MetricsPortError(PlatformError):
    """The port for the metrics is not to be had."""


@contextmanager
def serving_metrics(registry: CollectorRegistry, port: int | None) -> Iterator[None]:
    """Answer `http://127.0.0.1:PORT/metrics` until the end of the block; None serves nothing.

    Raises: MetricsPortError where something else has the port.
    """
    if port is None:
        yield
        return
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise MetricsPortError(
            f"the metrics cannot be served on port {port} ({error.strerror}); choose another"
        ) from error
    try:
        yield
    finally:
        # It looks twice a second whether it is to end; a socket that is over wakes it at once.
        with suppress(OSError):
            server.socket.shutdown(socket.SHUT_RDWR)
        server.shutdown()
        server.server_close()
        thread.join()
