"""A chaos server: live posts and deletes, with a fault at regular intervals.

What belongs here: faults by the clock, for soak tests. Faults at exact frames of a history are in
`faults`. The server keeps what really happened, so that a reader can be compared with it.
"""

import asyncio
import math
import random
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

from mastodon_assets.simulator import sse
from mastodon_assets.simulator.faults import Refusal
from mastodon_assets.simulator.sources import Frame, StreamInterrupted, entry_of, frame_of
from mastodon_assets.simulator.statuses import Status
from mastodon_assets.simulator.synthetic import Event, LivePosts
from mastodon_assets.simulator.timeline import Entry, PageRequest, Timeline

Kind = Literal[
    "cut in mid-event",
    "clean end",
    "stall",
    "token refused",
    "rate limit",
    "unavailable",
    "deletes only",
    "burst out of order",
    "malformed events",
    "posts behind the cursor",
    "restart",
]
Ids = Literal["snowflake", "flake", "ulid"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# Faults that end the stream, so that every reader notices them.
CONNECTION_KINDS: tuple[Kind, ...] = (
    "cut in mid-event",
    "clean end",
    "stall",
    "unavailable",
    "restart",
)

_DELETED_SHARE = 0.1
# Posts per second after the faults: enough to see that a stream continues.
_FINAL_RATE = 2
_RECENT = 200
_BURST = 20
_BEHIND = timedelta(seconds=20)
_ALPHABETS: Mapping[Ids, str] = {
    "flake": "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    "ulid": "0123456789ABCDEFGHJKMNPQRSTVWXYZ",
}
_LENGTHS: Mapping[Ids, int] = {"flake": 18, "ulid": 26}
_MALFORMED = (
    b'event: update\ndata: {"id": \n\n',
    b"event: update\ndata: <html><body>502 Bad Gateway</body></html>\n\n",
    b"event: update\ndata: null\n\n",
    b"event: update\ndata: [1, 2]\n\n",
    b"event: update\ndata: \xff\xfe\n\n",
    b"event: update\n\n",
    b"event:delete\r\ndata:\r\n\r\n",
    b'event: delete\ndata: {"id": 1}\n\n',
    b"event: filters_changed\ndata: undefined\n\n",
    b"no field at all\n\n",
    b": a comment\n\n",
    b"id: 7\nretry: 10\n\n",
)


class ChaosServer:
    """A source whose posts all come live.

    Attributes:
        posts: All posts that ever existed, by id.
        deleted: Ids of the deleted posts.
        faults: Number of faults by kind.
        restart_wanted: Set if whoever runs the server has to restart it.
    """

    greeting = sse.GREETING

    def __init__(
        self,
        *,
        seed: int,
        rate: float,
        fault_seconds: float,
        kinds: Sequence[Kind] = KINDS,
        ids: Ids = "snowflake",
    ) -> None:
        """Post `rate` times per second, with a fault of the next kind every `fault_seconds`."""
        now = datetime.now(UTC)
        self._rng = random.Random(f"chaos {seed}")  # noqa: S311
        self._live = LivePosts(seed, today=now)
        self._late = LivePosts(seed + 1, today=now)
        self._rate = rate
        self._fault_seconds = fault_seconds
        self._kinds = deque(kinds)
        self._ids = ids
        self._next_post_at = time.monotonic()
        self._next_fault_at = math.inf
        self._down_until = self._only_deletes_until = 0.0
        self._positions: dict[str, int] = {}
        self._timeline = Timeline([], position_of=lambda key: self._positions.get(key, 0))
        self._recent_ids: deque[str] = deque(maxlen=_RECENT)
        self._refusals: dict[bool, deque[Refusal]] = {True: deque(), False: deque()}
        self._faults_stopped = self._posting_stopped = False
        self.posts: dict[str, Status] = {}
        self.deleted: set[str] = set()
        self.faults: Counter[str] = Counter()
        self.restart_wanted = threading.Event()

    def start_faults(self) -> None:
        """Start the faults; the first one comes after the usual interval."""
        self._next_fault_at = time.monotonic() + self._fault_seconds

    def is_between(self, status_id: str, after: str | None, before: str | None) -> bool:
        """Return whether the timeline lists the post between two others; None is an open end."""
        position = self._positions[status_id]
        first = self._positions.get(after, 0) if after is not None else 0
        end = self._positions.get(before, 0) if before is not None else position + 1
        return first < position < end

    def stop_faults(self) -> None:
        """End the streams a last time, so that readers backfill what they missed.

        From then on there are few posts and no faults.
        """
        self._only_deletes_until = 0
        self._faults_stopped = True
        self._rate = min(self._rate, _FINAL_RATE)
        self._kinds = deque(["clean end"])
        self._next_fault_at = time.monotonic()

    def stop_posting(self) -> None:
        """Post nothing from now on."""
        self._posting_stopped = True

    def newest_id(self) -> str:
        """Return the id of the newest post."""
        return self._recent_ids[-1]

    def history(self) -> Iterator[Frame]:
        """Return nothing: all posts are live."""
        return iter(())

    async def live(self) -> AsyncIterator[Frame | StreamInterrupted]:
        """Yield posts, deletes and faults as they happen."""
        while True:
            await asyncio.sleep(max(0, self._next_post_at - time.monotonic()))
            self._next_post_at += 1 / self._rate
            if self._posting_stopped:
                continue
            events = self._deletes(1) if self._rng.random() < _DELETED_SHARE else []
            # Last, so that a reader who has the newest post has everything before it.
            events.append(self._post(self._live, datetime.now(UTC)))
            for frame in self._frames(events):
                yield frame
            if self._kinds and time.monotonic() >= self._next_fault_at:
                for item in self._next_fault():
                    yield item

    def page(self, request: PageRequest) -> list[Entry]:
        """Return a page of the timeline, newest first."""
        return self._timeline.page(request)

    def status(self, status_id: str) -> bytes | None:
        """Return the present version of a status; None if unknown or deleted."""
        if status_id not in self.posts or status_id in self.deleted:
            return None
        return entry_of(self.posts[status_id], position=0).body()

    def refusal(self, path: str) -> Refusal | None:
        """Return the error for a request for `path`; None for the real answer."""
        is_stream = path.startswith("/api/v1/streaming/public")
        if not is_stream and not path.startswith(("/api/v1/timelines", "/api/v1/statuses")):
            return None
        waiting = self._refusals[is_stream]
        if waiting:
            return waiting.popleft()
        return Refusal(503) if is_stream and time.monotonic() < self._down_until else None

    def _next_fault(self) -> Iterator[Frame | StreamInterrupted]:
        kind = self._kinds.popleft()
        if not self._faults_stopped:
            self._kinds.append(kind)
        self._next_fault_at += self._fault_seconds
        self.faults[kind] += 1
        # Refusals of an earlier fault that nobody met do not outlive it.
        for refusals in self._refusals.values():
            refusals.clear()
        make: Mapping[Kind, Callable[[], Iterator[Frame | StreamInterrupted]]] = {
            "cut in mid-event": self._reset_connections,
            "clean end": self._end_streams,
            "stall": lambda: iter([StreamInterrupted(b"", is_stall=True)]),
            "token refused": lambda: self._end_streams(stream_refusals=[Refusal(401)]),
            "rate limit": lambda: self._end_streams(
                stream_refusals=[Refusal(429, reset_seconds=1)],
                page_refusals=[Refusal(429, reset_seconds=1)] * 2,
            ),
            "unavailable": lambda: self._end_streams(page_refusals=[Refusal(503)] * 2),
            "deletes only": self._mute,
            "burst out of order": self._burst,
            "malformed events": lambda: (Frame(data, is_local=None) for data in _MALFORMED),
            "posts behind the cursor": self._insert_behind,
            "restart": self._restart,
        }
        return make[kind]()

    def _reset_connections(self) -> Iterator[Frame | StreamInterrupted]:
        frame = self._frame(self._post(self._live, datetime.now(UTC)))
        self._go_down()
        yield StreamInterrupted(frame.data[: len(frame.data) // 2], is_stall=False)

    def _end_streams(
        self, *, stream_refusals: Sequence[Refusal] = (), page_refusals: Sequence[Refusal] = ()
    ) -> Iterator[Frame | StreamInterrupted]:
        self._refusals[True].extend(stream_refusals)
        self._refusals[False].extend(page_refusals)
        self._go_down()
        yield StreamInterrupted(b"", is_stall=False)

    def _mute(self) -> Iterator[Frame | StreamInterrupted]:
        """Send only deletes for a while."""
        self._only_deletes_until = time.monotonic() + self._fault_seconds / 4
        yield from ()

    def _burst(self) -> Iterator[Frame | StreamInterrupted]:
        """Send deletes first, even of posts that are not sent yet, then posts in any order."""
        posts = [self._post(self._live, datetime.now(UTC)) for _ in range(_BURST)]
        deletes = self._deletes(_BURST // 4)
        self._rng.shuffle(posts)
        yield from self._frames([*deletes, *posts])

    def _insert_behind(self) -> Iterator[Frame | StreamInterrupted]:
        """Add posts that the server fetched late: their ids are old, and no stream sends them."""
        for _ in range(3):
            self._post(self._late, datetime.now(UTC) - _BEHIND)
        return self._end_streams()

    def _restart(self) -> Iterator[Frame | StreamInterrupted]:
        self.restart_wanted.set()
        yield from ()

    def _go_down(self) -> None:
        self._down_until = time.monotonic() + self._fault_seconds / 5

    def _frames(self, events: Sequence[Event]) -> Iterator[Frame]:
        sends_posts = time.monotonic() >= self._only_deletes_until
        return (self._frame(event) for event in events if sends_posts or event.kind == "delete")

    def _frame(self, event: Event) -> Frame:
        return frame_of(event, self.posts[event.status_id])

    def _post(self, posts: LivePosts, at: datetime) -> Event:
        status = posts.post(at).status
        assert status is not None
        position = int(status["id"])
        status = status | {"id": self._id_of(position)}
        self.posts[status["id"]] = status
        self._positions[status["id"]] = position
        self._timeline.insert(entry_of(status, position=position))
        self._recent_ids.append(status["id"])
        return Event("update", status["id"], status)

    def _deletes(self, count: int) -> list[Event]:
        alive = [status_id for status_id in self._recent_ids if status_id not in self.deleted]
        gone = self._rng.sample(alive, min(count, len(alive)))
        for status_id in gone:
            self.deleted.add(status_id)
            self._timeline.remove(self._positions[status_id])
        return [Event("delete", status_id) for status_id in gone]

    def _id_of(self, number: int) -> str:
        """Return an id in the style of the simulated software; ids sort as `number` does."""
        if self._ids == "snowflake":
            return str(number)
        alphabet, digits = _ALPHABETS[self._ids], ""
        while number:
            number, digit = divmod(number, len(alphabet))
            digits = alphabet[digit] + digits
        return digits.rjust(_LENGTHS[self._ids], alphabet[0])
