"""Mastodon's WebSocket: one connection, several streams.

What belongs here: subscriptions, and the frames they send. The token was checked before. Refusals
and names of streams are those of Mastodon's streaming server 4.6 (streaming/index.js).
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from mastodon_assets.simulator.sse import json_text
from mastodon_assets.simulator.streaming import events_of

# Yields the bytes of a stream: of local posts, remote posts or both, and of a hashtag.
OpenStream = Callable[[bool | None, str | None], AsyncGenerator[bytes]]
_IS_LOCAL: Mapping[str, bool | None] = {
    "public": None,
    "public:local": True,
    "public:remote": False,
    "hashtag": None,
    "hashtag:local": True,
}


class SocketSession:
    """An accepted socket; `run` sends frames until the client leaves."""

    def __init__(self, socket: WebSocket, open_stream: OpenStream) -> None:
        self._socket = socket
        self._open_stream = open_stream
        self._tasks: dict[tuple[str, str | None], asyncio.Task[None]] = {}

    async def run(self, name: str | None, tag: str | None) -> None:
        """Send the stream that the address names, if any, and those that frames subscribe to."""
        try:
            if name:
                await self._subscribe(name, tag)
            with suppress(WebSocketDisconnect):
                while True:
                    await self._handle(await self._socket.receive_text())
        finally:
            for task in self._tasks.values():
                task.cancel()

    async def _handle(self, text: str) -> None:
        """Handle a frame of the client; one that is no request is ignored."""
        try:
            request: Any = json.loads(text)
            kind, name, tag = request["type"], request["stream"], request.get("tag")
        except (ValueError, TypeError, KeyError, AttributeError):
            return
        if kind == "subscribe":
            await self._subscribe(name, tag)
        elif kind == "unsubscribe" and (task := self._tasks.pop((name, tag), None)) is not None:
            task.cancel()

    async def _subscribe(self, name: str, tag: str | None) -> None:
        if name not in _IS_LOCAL:
            await self._refuse("Unknown stream type")
        elif name.startswith("hashtag") and not tag:
            await self._refuse("Missing tag name parameter")
        elif (name, tag) not in self._tasks:
            self._tasks[name, tag] = asyncio.create_task(self._send(name, tag))

    async def _refuse(self, error: str) -> None:
        await self._socket.send_text(json_text({"error": error, "status": 400}))

    async def _send(self, name: str, tag: str | None) -> None:
        of_stream = [name] if tag is None else [name, tag]
        async with aclosing(self._open_stream(_IS_LOCAL[name], tag)) as chunks:
            async for kind, payload in events_of(chunks):
                frame = {"stream": of_stream, "event": kind, "payload": payload}
                await self._socket.send_text(json_text(frame))
