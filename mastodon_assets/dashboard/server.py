"""The web server of the dashboard, until it is interrupted."""

import logging
import socket

import uvicorn

from mastodon_assets.config.settings import Settings
from mastodon_assets.dashboard.application import Dashboard, Metrics
from mastodon_assets.dashboard.database import Database, reader_url
from mastodon_assets.errors import PlatformError

logger = logging.getLogger(__name__)

# For answers that are being sent.
_GRACE_SECONDS = 1


class DashboardPortError(PlatformError):
    """The port is taken, or not allowed. The message says how to choose another."""


def serve(
    settings: Settings, port: int, host: str = "127.0.0.1", *, metrics: Metrics | None = None
) -> None:
    """Serve the dashboard until SIGINT or SIGTERM.

    Args:
        settings: The settings.
        port: The port; 0 chooses a free one, which the log names.
        host: The address to listen on.
        metrics: Returns what `/metrics` serves; None serves nothing.

    Raises:
        SettingsError: No database is known.
        ServiceUnavailableError: The database does not answer.
        DashboardPortError: The port is taken or not allowed.
    """
    # Whoever starts it waits for an answer; later it waits for the database itself.
    Database(reader_url(settings)).check()
    server = build_server(settings, metrics)
    listener = _listen(host, port)
    with listener:
        address = f"http://{host}:{listener.getsockname()[1]}"
        logger.info("the dashboard is at %s; Ctrl-C ends it", address)
        server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """Uvicorn, but a stop ends open streams; alone it would wait for their clients."""

    def __init__(self, dashboard: Dashboard) -> None:
        self._dashboard = dashboard
        super().__init__(
            uvicorn.Config(
                dashboard.application(),
                loop="asyncio",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._dashboard.close()
        await super().shutdown(sockets)


def build_server(settings: Settings, metrics: Metrics | None = None) -> uvicorn.Server:
    """Return the server of a dashboard.

    Args:
        settings: The settings.
        metrics: Returns what `/metrics` serves; None serves nothing.

    Raises:
        SettingsError: No database is known.
    """
    return _Server(Dashboard(settings, metrics))


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise DashboardPortError(
            f"cannot serve the dashboard at {host}:{port} ({error.strerror}); stop what listens"
            " there or choose another port with --port or DASHBOARD_PORT"
        ) from error
    return listener
