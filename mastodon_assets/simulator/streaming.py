"""The stream endpoint: who gets what of a source, when.

The history goes to one client, once. What has been handed to a connection counts as sent, whether
the client read it or not, as on a real server; if the client goes away in the middle, the next one
gets the rest. What happens after the history goes to all clients that are there.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, suppress

from starlette.responses import StreamingResponse
from starlette.types import Send

from mastodon_assets.simulator.sources import Frame, Interrupted, Source
from mastodon_assets.simulator.sse import HEARTBEAT

# Frames are sent in chunks of about this size: a frame a chunk takes several times as long.
_CHUNK_BYTES = 64 * 1024


class EventStreamResponse(StreamingResponse):
    """A stream that is closed as soon as its client is gone, and not when it is collected."""

    def __init__(self, stream: AsyncGenerator[bytes]) -> None:
        super().__init__(stream, headers={"Content-Type": "text/event-stream"})
        self._stream = stream

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._stream):
            try:
                await super().stream_response(send)
            except Interrupted as interrupted:
                if not interrupted.tail:
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                    return
                # Without a last part, the server tears the connection.
                part = {"type": "http.response.body", "body": interrupted.tail, "more_body": True}
                await send(part)


class Broadcast:
    """Serves one source to any number of clients."""

    def __init__(self, source: Source, *, heartbeat_seconds: float) -> None:
        self._source = source
        self._heartbeat_seconds = heartbeat_seconds
        self._history = source.history()
        self._history_is_taken = False
        self._history_is_sent = asyncio.Event()
        self._clients: set[_Client] = set()
        self._is_closed = False

    @asynccontextmanager
    async def posting(self) -> AsyncIterator[None]:
        """While this is open, what the source posts after its history is sent."""
        task = asyncio.create_task(self._post())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def close(self) -> None:
        """End all streams, those to come included."""
        self._is_closed = True
        self._wake_clients()

    async def stream(self, is_local: bool | None, tag: str | None) -> AsyncGenerator[bytes]:
        """The bytes for one client.

        `is_local` True or False leaves out the other kind, `tag` all that has not this hashtag.
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
                    except Interrupted as interrupted:
                        if not interrupted.is_stall:
                            raise
                        await self._stall(client)
                elif waiting := client.take():
                    yield waiting
                elif (told := client.take_interruption()) is not None:
                    if not told.is_stall:
                        raise told
                    await self._stall(client)
                elif clock() >= next_heartbeat:
                    next_heartbeat += self._heartbeat_seconds
                    yield HEARTBEAT
                else:
                    await client.wait(next_heartbeat - clock())
        finally:
            self._clients.remove(client)

    async def _rest_of_history(self, client: "_Client") -> AsyncGenerator[bytes]:
        self._history_is_taken = True
        try:
            for chunk in _chunks(frame.data for frame in self._history if client.wants(frame)):
                yield chunk
                # Sending suspends only when the connection's buffer is full. Without this a whole
                # history goes to a client that is already gone.
                await asyncio.sleep(0)
                if self._is_closed:
                    return
            self._history_is_sent.set()
        finally:
            self._history_is_taken = False
            self._wake_clients()

    async def _stall(self, client: "_Client") -> None:
        """Send nothing, until the next interruption; what happens meanwhile is lost."""
        client.is_stalled = True
        while not self._is_closed and not client.is_interrupted:
            await client.wait(self._heartbeat_seconds)

    async def _post(self) -> None:
        await self._history_is_sent.wait()
        async for told in self._source.live():
            for client in self._clients:
                if isinstance(told, Interrupted):
                    client.interrupt(told)
                else:
                    client.give(told)

    def _wake_clients(self) -> None:
        for client in self._clients:
            client.wake()


class _Client:
    """What waits to be sent to one client."""

    def __init__(self, is_local: bool | None, tag: str | None) -> None:
        self._is_local = is_local
        self._tag = None if tag is None else tag.lower()
        self._waiting = bytearray()
        self._news = asyncio.Event()
        self._interrupted: Interrupted | None = None
        self.is_stalled = False

    @property
    def is_interrupted(self) -> bool:
        return self._interrupted is not None

    def wants(self, frame: Frame) -> bool:
        has_tag = self._tag is None or frame.tags is None or self._tag in frame.tags
        return has_tag and (self._is_local is None or frame.is_local in (None, self._is_local))

    def interrupt(self, interrupted: Interrupted) -> None:
        """What waits is sent before the stream ends."""
        self._interrupted = interrupted
        self.wake()

    def take_interruption(self) -> Interrupted | None:
        taken, self._interrupted = self._interrupted, None
        return taken

    def give(self, frame: Frame) -> None:
        if not (self.is_interrupted or self.is_stalled) and self.wants(frame):
            self._waiting += frame.data
            self.wake()

    def take(self) -> bytes:
        taken = bytes(self._waiting)
        self._waiting.clear()
        return taken

    def wake(self) -> None:
        self._news.set()

    async def wait(self, seconds: float) -> None:
        """Return when there is news, or after `seconds`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), seconds)
        self._news.clear()


def _chunks(parts: Iterator[bytes]) -> Iterator[bytes]:
    chunk = bytearray()
    try:
        for part in parts:
            chunk += part
            if len(chunk) >= _CHUNK_BYTES:
                yield bytes(chunk)
                chunk.clear()
    except Interrupted:
        yield bytes(chunk)
        raise
    if chunk:
        yield bytes(chunk)
