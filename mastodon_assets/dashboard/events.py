"""Server-sent events: parts of the page as they change, with ids, retry and heartbeats."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from mastodon_assets.dashboard.poller import Poller
from mastodon_assets.dashboard.rendering import Section

MOST_VIEWERS = 300
HEARTBEAT_SECONDS = 15.0
_RETRY_MILLISECONDS = 3000
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
# Number seen so far to the parts that changed since; None ends the stream.
Changes = Callable[[int], Awaitable[list[Section] | None]]


class Viewers:
    """How many streams are open: each costs memory, so they are bounded."""

    def __init__(self) -> None:
        self.count = 0


def event_stream(
    request: Request,
    poller: Poller,
    viewers: Viewers,
    changes: Changes,
    state: Callable[[], Mapping[str, Any]],
) -> Response:
    """Return a stream that sends what changed since the number that the client has seen.

    A client that comes back says that number by `Last-Event-ID`, at first by `seen`. The number of
    another process counts as none.
    """
    if viewers.count >= MOST_VIEWERS:
        return PlainTextResponse(
            "too many viewers; try again later", status_code=503, headers={"Retry-After": "30"}
        )
    given = request.headers.get("last-event-id") or request.query_params.get("seen", "")
    process, _, number = given.partition(".")
    is_ours = process == poller.process and number.isdecimal()
    seen = min(int(number[:18]), poller.number) if is_ours else -1
    return StreamingResponse(
        _events(seen, poller, viewers, changes, state),
        media_type="text/event-stream",
        headers=_HEADERS,
    )


async def _events(
    seen: int,
    poller: Poller,
    viewers: Viewers,
    changes: Changes,
    state: Callable[[], Mapping[str, Any]],
) -> AsyncIterator[bytes]:
    sent: dict[str, str] = {}
    viewers.count += 1
    try:
        yield f"retry: {_RETRY_MILLISECONDS}\n\n".encode()
        while not poller.is_closed:
            if poller.number > seen:
                number = poller.number
                sections = await changes(seen)
                if sections is None:
                    yield b"event: over\ndata: {}\n\n"
                    return
                for section in sections:
                    if sent.get(section.name) != section.html:
                        sent[section.name] = section.html
                        yield section.event
                seen = number
                yield (
                    f"id: {poller.process}.{number}\nevent: state\ndata: ".encode()
                    + orjson.dumps(state())
                    + b"\n\n"
                )
            elif not await poller.wait(seen, HEARTBEAT_SECONDS):
                # Also finds out that the client has gone. With the time of the last check.
                yield b"event: state\ndata: " + orjson.dumps(state()) + b"\n\n"
    finally:
        viewers.count -= 1
