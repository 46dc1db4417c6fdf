"""The stream endpoint: which client gets which frames of a source.

The history goes to one client, once. Bytes that a connection accepted count as sent, even if the
client did not read them, as on a real server. If the client disconnects in the middle, the next one
gets the rest. Frames after the history go to all connected clients.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, suppress

from starlette.responses import StreamingResponse
from starlette.types import Send

from mastodon_assets.simulator.sources import Frame, Source, StreamInterrupted
from mastodon_assets.simulator.sse import HEARTBEAT

# Frames are sent in chunks of about this size; one chunk per frame takes several times as long.
_CHUNK_BYTES = 64 * 1024
_EVENT_PARTS = re.compile(rb"event: [^\n]*\n|(?:(?!event: )[^\n]*\n)+|[^\n]+\Z")
_EVENT = re.compile(rb"event: ([^\n]*)\ndata: ([^\n]*)\n\n")


class EventStreamResponse(StreamingResponse):
    """A stream that is closed as soon as its client disconnects, not when it is collected."""

    def __init__(self, stream: AsyncGenerator[bytes]) -> None:
        super().__init__(stream, headers={"Content-Type": "text/event-stream"})
        self._stream = stream

    async def stream_response(self, send: Send) -> None:
        """Send the stream, and end it as the interruption says."""
        async with aclosing(self._stream):
            try:
                await super().stream_response(send)
            except StreamInterrupted as interrupted:
                if not interrupted.tail:
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                    return
                # Without a last part, the server resets the connection.
                part = {"type": "http.response.body", "body": interrupted.tail, "more_body": True}
                await send(part)


class Broadcast:
    """Serves one source to any number of clients."""

    def __init__(
        self,
        source: Source,
        *,
        heartbeat_seconds: float,
        heartbeat: bytes = HEARTBEAT,
        has_stream: bool = True,
    ) -> None:
        self._source = source
        self._heartbeat = heartbeat
        self._heartbeat_seconds = heartbeat_seconds
        self._history = source.history()
        self._history_is_taken = False
        self._history_is_sent = asyncio.Event()
        if not has_stream:
            # Nobody will take it, and new posts would wait for it.
            self._history_is_sent.set()
        self._clients: set[_Client] = set()
        self._is_closed = False

    @asynccontextmanager
    async def posting(self) -> AsyncIterator[None]:
        """Send what the source posts after its history, as long as the context is open."""
        task = asyncio.create_task(self._post())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def close(self) -> None:
        """End all streams, including later ones."""
        self._is_closed = True
        self._wake_clients()

    def end_streams(self) -> None:
        """End the open streams properly, as when their token is revoked; from any thread."""
        for client in list(self._clients):
            client.interrupt_soon(StreamInterrupted(b"", is_stall=False))

    async def stream(self, is_local: bool | None, tag: str | None) -> AsyncGenerator[bytes]:
        """Yield the bytes for one client.

        Args:
            is_local: Only local (True) or remote (False) posts; None for both.
            tag: Only posts with this hashtag; None for all.
        """
        client = _Client(is_local, tag)
        self._clients.add(client)
        clock = asyncio.get_running_loop().time
        try:
            yield self._source.greeting
            next_heartbeat = clock() + self._heartbeat_seconds
            while not self._is_closed:
                if not self._history_is_taken and not self._history_is_sent.is_set():
                    try:
                        async with aclosing(self._rest_of_history(client)) as chunks:
                            async for chunk in chunks:
                                yield chunk
                    except StreamInterrupted as interrupted:
                        if not interrupted.is_stall:
                            raise
                        await self._stall(client)
                elif waiting := client.take_waiting():
                    yield waiting
                elif (interruption := client.take_interruption()) is not None:
                    if not interruption.is_stall:
                        raise interruption
                    await self._stall(client)
                elif clock() >= next_heartbeat:
                    next_heartbeat += self._heartbeat_seconds
                    yield self._heartbeat
                else:
                    await client.wait(next_heartbeat - clock())
        finally:
            self._clients.remove(client)

    async def _rest_of_history(self, client: "_Client") -> AsyncGenerator[bytes]:
        self._history_is_taken = True
        try:
            for chunk in _chunks(frame.data for frame in self._history if client.wants(frame)):
                yield chunk
                # Sending suspends only if the connection's buffer is full. Without this, a whole
                # history goes to a client that has disconnected.
                await asyncio.sleep(0)
                if self._is_closed:
                    return
            self._history_is_sent.set()
        finally:
            self._history_is_taken = False
            self._wake_clients()

    async def _stall(self, client: "_Client") -> None:
        """Send nothing until the next interruption; frames in between are lost."""
        client.is_stalled = True
        while not self._is_closed and not client.is_interrupted:
            await client.wait(self._heartbeat_seconds)

    async def _post(self) -> None:
        await self._history_is_sent.wait()
        async for item in self._source.live():
            for client in self._clients:
                if isinstance(item, StreamInterrupted):
                    client.interrupt(item)
                else:
                    client.enqueue(item)

    def _wake_clients(self) -> None:
        for client in self._clients:
            client.wake()


class _Client:
    """The frames that wait to be sent to one client."""

    def __init__(self, is_local: bool | None, tag: str | None) -> None:
        self._is_local = is_local
        self._tag = None if tag is None else tag.lower()
        self._waiting = bytearray()
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._interruption: StreamInterrupted | None = None
        self.is_stalled = False

    @property
    def is_interrupted(self) -> bool:
        return self._interruption is not None

    def wants(self, frame: Frame) -> bool:
        has_tag = self._tag is None or frame.tags is None or self._tag in frame.tags
        return has_tag and (self._is_local is None or frame.is_local in (None, self._is_local))

    def interrupt(self, interrupted: StreamInterrupted) -> None:
        """End the stream after the waiting bytes are sent."""
        self._interruption = interrupted
        self.wake()

    def interrupt_soon(self, interrupted: StreamInterrupted) -> None:
        """Do the same from another thread."""
        self._loop.call_soon_threadsafe(self.interrupt, interrupted)

    def take_interruption(self) -> StreamInterrupted | None:
        taken, self._interruption = self._interruption, None
        return taken

    def enqueue(self, frame: Frame) -> None:
        if not (self.is_interrupted or self.is_stalled) and self.wants(frame):
            self._waiting += frame.data
            self.wake()

    def take_waiting(self) -> bytes:
        taken = bytes(self._waiting)
        self._waiting.clear()
        return taken

    def wake(self) -> None:
        self._changed.set()

    async def wait(self, seconds: float) -> None:
        """Return when something happens, or after `seconds`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)
        self._changed.clear()


async def two_chunks(stream: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """Yield the name of each event and its data apart, as Mastodon's server sends them."""
    async with aclosing(stream):
        async for chunk in stream:
            for part in _EVENT_PARTS.findall(chunk):
                yield part
                # As in `_rest_of_history`.
                await asyncio.sleep(0)


async def events_of(stream: AsyncIterator[bytes]) -> AsyncIterator[tuple[str, str]]:
    """Yield kind and data of the events in a stream; chunks hold whole events."""
    async for chunk in stream:
        for kind, data in _EVENT.findall(chunk):
            yield kind.decode(), data.decode("utf-8", "replace")


def _chunks(parts: Iterator[bytes]) -> Iterator[bytes]:
    chunk = bytearray()
    try:
        for part in parts:
            chunk += part
            if len(chunk) >= _CHUNK_BYTES:
                yield bytes(chunk)
                chunk.clear()
    except StreamInterrupted:
        yield bytes(chunk)
        raise
    if chunk:
        yield bytes(chunk)
