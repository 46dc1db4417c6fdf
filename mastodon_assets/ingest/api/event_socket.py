"""A stream by WebSocket, for servers without server-sent events (GoToSocial, Akkoma, Pleroma).

What belongs here: one connection, read frame by frame. A socket that nobody reads stops the live
timelines of all members of a GoToSocial server, so whoever opens one reads it or closes it.
"""

import logging
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from urllib.parse import urlsplit

import orjson
from websockets.exceptions import (
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidHandshake,
    InvalidStatus,
    WebSocketException,
)
from websockets.sync.client import ClientConnection, connect

from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest.api import transport
from mastodon_assets.ingest.api.errors import NoStreamError, StreamEndedError, unreachable
from mastodon_assets.ingest.api.event_stream import StreamEvent

_LONGEST_FRAME_BYTES = 16 * 1024 * 1024
_POLL_SECONDS = 1
# A socket outlives its token (GoToSocial), so the token is checked by a request.
_CHECK_SECONDS = 15 * 60
# At the level DEBUG the library logs headers, and the token is one.
_silent = logging.getLogger("mastodon_assets.ingest.websockets_silenced")
_silent.propagate = False
_silent.addHandler(logging.NullHandler())


class EventSocket:
    """An open socket; iterate it in one thread, `close` it from any."""

    kind = "a WebSocket"

    def __init__(
        self, connection: ClientConnection, host: str, check_token: Callable[[], object]
    ) -> None:
        self._connection = connection
        self._host = host
        self._check_token = check_token
        self._checked_at = time.monotonic()
        self._is_closed = False
        self.last_bytes_at = time.monotonic()

    def __iter__(self) -> Iterator[StreamEvent]:
        """Yield events until the server or `close` ends the stream.

        Raises:
            StreamEndedError: The server ended the stream.
            ServiceUnavailableError: The connection broke, or pings are not answered.
            RefusedError: The token is not valid any more.
        """
        while not self._is_closed:
            try:
                frame = self._connection.recv(timeout=_POLL_SECONDS)
            except TimeoutError:
                frame = None
            except ConnectionClosedOK as error:
                if self._is_closed:
                    return
                raise StreamEndedError(f"{self._host} ended the stream") from error
            except ConnectionClosedError as error:
                if self._is_closed:
                    return
                raise ServiceUnavailableError(
                    f"{self._host}: the stream broke: the connection ended without a closing"
                    " message; is the server up?"
                ) from error
            # Without frames the library's pings are answered, or the connection breaks.
            self.last_bytes_at = time.monotonic()
            if time.monotonic() - self._checked_at >= _CHECK_SECONDS:
                self._checked_at = time.monotonic()
                self._check_token()
            if frame is not None and (event := _event_of(frame)) is not None:
                yield event

    def close(self) -> None:
        """End the stream and wake the thread that reads it."""
        self._is_closed = True
        self._connection.close_timeout = 0
        self._connection.close()


@contextmanager
def opened_socket(
    url: str,
    headers: Mapping[str, str],
    *,
    user_agent: str,
    check_token: Callable[[], object],
    refusal: Callable[[int, str], ServiceUnavailableError],
) -> Iterator[EventSocket]:
    """Open a socket at an address with `https` or `http`.

    Args:
        url: The address, with the stream's name in the query.
        headers: With the token.
        user_agent: The User-Agent header.
        check_token: Makes an authorised request; raises if the token is refused.
        refusal: Returns the error for a status and a content type.

    Raises:
        NoStreamError: The server answers, but with no socket.
        ServiceUnavailableError: The server does not answer or refuses.
    """
    host = urlsplit(url).hostname or url
    secure: ssl.SSLContext | None = transport.tls_context() if url.startswith("https") else None
    stack = ExitStack()
    try:
        connection = stack.enter_context(
            connect(
                "ws" + url.removeprefix("http"),
                ssl=secure,
                additional_headers=dict(headers),
                user_agent_header=user_agent,
                compression=None,
                proxy=transport.proxy_for(url),
                open_timeout=transport.CONNECT_SECONDS,
                max_size=_LONGEST_FRAME_BYTES,
                logger=_silent,
            )
        )
    except InvalidStatus as error:
        response = error.response
        raise refusal(response.status_code, response.headers.get("Content-Type", "")) from error
    except InvalidHandshake as error:
        raise NoStreamError(f"{host} has no event stream here, and no socket") from error
    except (WebSocketException, OSError, ValueError, ImportError) as error:
        raise unreachable(host, "no answer", error) from error
    socket = EventSocket(connection, host, check_token)
    with stack:
        try:
            yield socket
        finally:
            socket.close()


def _event_of(frame: str | bytes) -> StreamEvent | None:
    """Return the event of a frame; None for what is none."""
    try:
        document = orjson.loads(frame)
        name, payload = document["event"], document.get("payload")
        text = payload if isinstance(payload, str) else orjson.dumps(payload).decode()
    except (orjson.JSONDecodeError, TypeError, KeyError, AttributeError):
        # A payload that is nested too deeply to be written again is a TypeError too.
        return None
    return StreamEvent(name, text, datetime.now(UTC)) if isinstance(name, str) else None
