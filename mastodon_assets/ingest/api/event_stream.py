"""The stream of server-sent events: one connection, read event by event."""

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
from httpx_sse import EventSource, SSEError

from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest.api.errors import (
    StreamEndedError,
    StreamSilentError,
    unreachable,
)

# Three heartbeats: a server sends one every 15 s (streaming/index.js).
SILENCE_SECONDS = 45
# Posts have a few kilobytes.
_LONGEST_EVENT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class StreamEvent:
    """An event as it came; `data` is the payload's text, `received_at` our clock."""

    name: str
    data: str
    received_at: datetime


class EventStream:
    """An open stream: iterate it in one thread, `close` it from any."""

    def __init__(self, response: httpx.Response, host: str) -> None:
        self._response = response
        self._response.stream = self._bytes = _TimedBytes(response.stream)
        self._host = host
        self._is_closed = False

    @property
    def heard_at(self) -> float:
        """When the last bytes came, heartbeats included, by `time.monotonic`."""
        return self._bytes.heard_at

    def __iter__(self) -> Iterator[StreamEvent]:
        """Events until the server or `close` ends the stream; heartbeats are no events.

        Raises: StreamSilentError after 45 s without a byte, StreamEndedError at a clean end,
        ServiceUnavailableError where the connection breaks.
        """
        # By the standard a stream is UTF-8, whatever its header says.
        self._response.encoding = "utf-8"
        try:
            for event in EventSource(self._response).iter_sse():
                yield StreamEvent(event.event, event.data, datetime.now(UTC))
        except SSEError as error:
            raise ServiceUnavailableError(
                f"{self._host} sent no event stream; is MASTODON_API_BASE_URL a Mastodon server?"
            ) from error
        except httpx.ReadTimeout as error:
            raise StreamSilentError(
                f"{self._host}: no heartbeat for {SILENCE_SECONDS} s; is the server up?"
            ) from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            if not self._is_closed:
                raise unreachable(self._host, "the stream broke", error) from error
        if not self._is_closed:
            raise StreamEndedError(f"{self._host} ended the stream")

    def close(self) -> None:
        """End the stream, and the wait of the thread that reads it."""
        self._is_closed = True
        sock = self._response.extensions["network_stream"].get_extra_info("socket")
        try:
            # A reader that waits for bytes is not woken by a mere close of the socket.
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # the connection was gone already


class _TimedBytes(httpx.SyncByteStream):
    """The bytes of a response, and when the last of them came.

    Raises: httpx.StreamError where an event does not end, which somebody would have to hold.
    """

    def __init__(self, stream: httpx.SyncByteStream | httpx.AsyncByteStream) -> None:
        assert isinstance(stream, httpx.SyncByteStream)
        self._stream = stream
        self.heard_at = time.monotonic()

    def __iter__(self) -> Iterator[bytes]:
        unended = 0
        for chunk in self._stream:
            self.heard_at = time.monotonic()
            end = max(chunk.rfind(b"\n\n"), chunk.rfind(b"\n\r\n"))
            unended = unended + len(chunk) if end < 0 else len(chunk) - end
            if unended > _LONGEST_EVENT_BYTES:
                raise httpx.StreamError("an event does not end")
            yield chunk

    def close(self) -> None:
        self._stream.close()
