"""A stream of server-sent events: one connection, read event by event."""

import socket
import time
import zlib
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
from mastodon_assets.ingest.api.transport import decoded

# Three heartbeats; a server sends one every 15 s (streaming/index.js).
SILENCE_SECONDS = 45
# Posts have a few kilobytes.
_LONGEST_EVENT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class StreamEvent:
    """An event; `data` is the text of the payload, `received_at` is by this machine's clock."""

    name: str
    data: str
    received_at: datetime


class EventStream:
    """An open stream; iterate it in one thread, `close` it from any."""

    kind = "server-sent events"

    def __init__(self, response: httpx.Response, host: str) -> None:
        self._response = response
        encoding = response.headers.pop("Content-Encoding", "")
        self._response.stream = self._bytes = _TimedBytes(response.stream, encoding)
        self._host = host
        self._is_closed = False

    @property
    def last_bytes_at(self) -> float:
        """The time of the last bytes, heartbeats included, by `time.monotonic`."""
        return self._bytes.last_bytes_at

    def __iter__(self) -> Iterator[StreamEvent]:
        """Yield events until the server or `close` ends the stream; heartbeats are no events.

        Raises:
            StreamSilentError: No byte came for 45 s.
            StreamEndedError: The server ended the stream.
            ServiceUnavailableError: The connection broke.
        """
        # The standard says UTF-8, whatever the header says.
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
        except (httpx.HTTPError, httpx.StreamError, zlib.error) as error:
            if not self._is_closed:
                raise unreachable(self._host, "the stream broke", error) from error
        if not self._is_closed:
            raise StreamEndedError(f"{self._host} ended the stream")

    def close(self) -> None:
        """End the stream and wake the thread that reads it."""
        self._is_closed = True
        sock = self._response.extensions["network_stream"].get_extra_info("socket")
        try:
            # Closing the socket would not wake a thread that waits for bytes.
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # the connection was gone already


class _TimedBytes(httpx.SyncByteStream):
    """The decompressed bytes of a response, with the time of the last ones.

    Iteration raises httpx.StreamError if an event is too long.
    """

    def __init__(self, stream: httpx.SyncByteStream | httpx.AsyncByteStream, encoding: str) -> None:
        assert isinstance(stream, httpx.SyncByteStream)
        self._stream = stream
        self._encoding = encoding
        self.last_bytes_at = time.monotonic()

    def __iter__(self) -> Iterator[bytes]:
        unended, last = 0, b""
        for chunk in decoded(iter(self._stream), self._encoding):
            self.last_bytes_at = time.monotonic()
            # The end of an event may be divided between chunks.
            recent = last + chunk
            end = max(recent.rfind(b"\n\n"), recent.rfind(b"\n\r\n"))
            unended = unended + len(chunk) if end < 0 else len(recent) - end
            last = recent[-2:]
            if unended > _LONGEST_EVENT_BYTES:
                raise httpx.StreamError("an event does not end")
            yield chunk

    def close(self) -> None:
        self._stream.close()
