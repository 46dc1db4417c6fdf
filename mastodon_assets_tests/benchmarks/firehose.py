"""A server that sends posts as fast as they are read, in a process of its own.

What belongs here: the other end of the ingest benchmark. It is no simulator: it has no timeline,
and its posts are those of the simulator over and over, each time with an id and a uri of their own,
put into bytes that were rendered before.

    python -m mastodon_assets_tests.benchmarks.firehose [POSTS_PER_SECOND]

prints its port, and a line of JSON for each stream: when it was asked for, and how much was sent.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from mastodon_assets.ingest.policy.consent import withheld_reason
from mastodon_assets.simulator.sse import GREETING, HEARTBEAT, event_frame, json_text, utf8
from mastodon_assets.simulator.statuses import Status
from mastodon_assets.simulator.synthetic import history

_FIRST_ID = 115_600_000_000_000_000
_TEMPLATES = 1_000
_FRAMES_A_CHUNK = 32
_HEARTBEAT_SECONDS = 15
_PLACE = "{id}"
_LONGEST_TAG = 100
_ANSWERS = {
    b"/api/v2/instance": b'{"domain":"firehose.example","configuration":{"urls":{}}}',
    b"/api/v1/instance": b'{"uri":"firehose.example","urls":{}}',
    b"/api/v1/timelines/public": b"[]",
}
_STREAM = b"/api/v1/streaming/public"


def main() -> None:
    asyncio.run(_serve(float(sys.argv[1]) if len(sys.argv) > 1 else 0))


async def _serve(rate: float) -> None:
    templates = _templates()
    ids = itertools.count(_FIRST_ID)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while path := await _requested_path(reader):
                if path == _STREAM:
                    await _send_stream(writer, templates, ids, rate)
                    return
                await _send(writer, _ANSWERS.get(path))
        except ConnectionError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    _tell({"port": server.sockets[0].getsockname()[1]})
    async with server:
        await server.serve_forever()


async def _requested_path(reader: asyncio.StreamReader) -> bytes | None:
    """The path asked for, without query and closing slash; None where the client is gone."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    return head.split(b" ", 2)[1].partition(b"?")[0].rstrip(b"/")


async def _send(writer: asyncio.StreamWriter, body: bytes | None) -> None:
    status = b"404 Not Found" if body is None else b"200 OK"
    body = body or b'{"error":"Not found"}'
    writer.write(
        b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (status, len(body), body)
    )
    await writer.drain()


async def _send_stream(
    writer: asyncio.StreamWriter, templates: list[list[bytes]], ids: Iterator[int], rate: float
) -> None:
    """Send posts until the client goes away, no more than `rate` per second; 0 is no limit."""
    _tell({"asked_at": time.time()})
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        + _chunk(GREETING)
    )
    heartbeat_at = time.monotonic() + _HEARTBEAT_SECONDS
    around = itertools.cycle(templates)
    began, sent = time.monotonic(), 0
    while True:
        if rate:
            await asyncio.sleep(max(0, began + sent / rate - time.monotonic()))
            sent += _FRAMES_A_CHUNK
        frames = [(b"%d" % next(ids)).join(next(around)) for _ in range(_FRAMES_A_CHUNK)]
        writer.write(_chunk(b"".join(frames)))
        if time.monotonic() > heartbeat_at:
            heartbeat_at += _HEARTBEAT_SECONDS
            writer.write(_chunk(HEARTBEAT))
        await writer.drain()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _templates() -> list[list[bytes]]:
    """Frames of the simulator's posts, split at their id."""
    events = history(toots=_TEMPLATES, days=1, seed=1, now=datetime.now(UTC))
    statuses = [
        event.status
        for event in events
        if event.kind == "update" and event.status is not None and _is_plain(event.status)
    ]
    return [_frame(status).split(_PLACE.encode()) for status in statuses]


def _frame(status: Status) -> bytes:
    numbered = status | {
        "id": _PLACE,
        "uri": f"{status['account']['uri']}/statuses/{_PLACE}",
        "url": f"{status['account']['url']}/{_PLACE}",
    }
    return event_frame("update", utf8(json_text(numbered)))


def _is_plain(status: Status) -> bool:
    """It becomes a message: so that posts sent and messages in Kafka can be compared."""
    is_huge = any(len(tag["name"]) > _LONGEST_TAG for tag in status["tags"])
    return not is_huge and withheld_reason(status, policy="respect") is None


def _tell(what: object) -> None:
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
