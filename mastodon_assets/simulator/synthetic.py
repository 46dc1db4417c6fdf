"""A synthetic history of a Mastodon server: posts, edits and deletes in the order of arrival.

What belongs here: which event happens when. Statuses are in `statuses`, the stream's format is in
`sse`. Pure: the same arguments give the same events.
"""

import hashlib
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from mastodon_assets.simulator.accounts import LOCAL_DOMAIN, Author
from mastodon_assets.simulator.sse import json_text
from mastodon_assets.simulator.statuses import Composer, MoodWeights, Status, snowflake, timestamp

EventKind = Literal["update", "status.update", "delete"]

_SECOND = 1000
_HOUR = 3600 * _SECOND
_DAY = 24 * _HOUR

EDITED_SHARE = 0.03
DELETED_SHARE = 0.02
LATE_SHARE = 0.02
REPEATED_SHARE = 0.005
BOOSTED_SHARE = 0.004
UNLISTED_SHARE = 0.004
PRIVATE_SHARE = 0.002
# Share of the edits and deletes that overtake the post itself; seen in bursts on a real server.
_OVERTAKING_SHARE = 0.25
_LONGEST_DELAY_HOURS = 18
_FUTURE_LANGUAGES = ("en", "de", "ja")
_TOOTS_PER_POISON = 400

# Posts by hour of the day, UTC.
_HOUR_WEIGHTS = (3, 2, 1, 1, 1, 2, 4, 7, 9, 9, 8, 9, 11, 10, 9, 9, 10, 12, 14, 16, 16, 13, 9, 5)


@dataclass(frozen=True)
class Event:
    """An event of the stream.

    Attributes:
        kind: The kind of event.
        status_id: The id of the post.
        status: The status of an `update` or `status.update`; the timeline lists it too.
        data: The data line of a payload that breaks a naive reader; `status` is then None.
    """

    kind: EventKind
    status_id: str
    status: Status | None = None
    data: str | None = None


@dataclass
class _Post:
    """A post of the history with its events. Times are in milliseconds since 1970."""

    author: Author
    status: Status
    arrived: int
    is_plain: bool
    events: list[tuple[int, Event]] = field(default_factory=list)


def history(
    *, toots: int, days: int, seed: int, now: datetime, domain: str = LOCAL_DOMAIN
) -> list[Event]:
    """Return the events at `domain` on the `days` whole UTC days before the midnight before `now`.

    There are `toots` distinct posts, edits of 3 % and deletes of 2 % of them, some posts twice, and
    `toots`/400 (rounded up) poison payloads. A few posts are created up to 18 hours before they
    arrive. At most one post per language has a `created_at` four hours after `now`. It has no
    hashtag, edit or delete, so no count depends on the hour at which it is received.

    Raises:
        ValueError: `toots` or `days` is less than 1, or `now` has no time zone.
    """
    if toots < 1 or days < 1:
        raise ValueError(f"toots and days must be at least 1, not {toots} and {days}")
    if now.tzinfo is None:
        raise ValueError("now must have a time zone")
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    end = _milliseconds(midnight)
    writer = _HistoryWriter(
        seed=seed,
        start=end - days * _DAY,
        end=end,
        yesterday=midnight - timedelta(days=1),
        domain=domain,
    )
    return writer.write(toots, future=_milliseconds(now + timedelta(hours=4)))


class LivePosts:
    """New posts one after the other, at the requested times."""

    def __init__(self, seed: int, *, today: datetime, domain: str = LOCAL_DOMAIN) -> None:
        self._composer = Composer(seed, purpose="live", today=today.date(), domain=domain)
        self._last_arrived = 0
        self._rank = 0

    def post(self, now: datetime) -> Event:
        """Return the next post. Its id is greater than the one before."""
        self._last_arrived = max(_milliseconds(now), self._last_arrived + 1)
        self._rank += 1
        status = self._composer.status(
            self._composer.author(),
            _mood_weights(0.45),
            arrived=self._last_arrived,
            created=self._last_arrived,
            rank=self._rank,
        )
        return Event("update", status["id"], status)


class _HistoryWriter:
    def __init__(
        self, *, seed: int, start: int, end: int, yesterday: datetime, domain: str
    ) -> None:
        self._rng = random.Random(f"history {seed}")  # noqa: S311
        self._composer = Composer(seed, purpose="toots", today=yesterday.date(), domain=domain)
        self._start = start
        self._end = end
        days = (end - start) // _DAY
        phase = self._rng.random() * 7
        self._day_weights = [self._rng.uniform(0.7, 1.3) for _ in range(days)]
        self._moods = [
            _mood_weights(
                0.42
                + 0.16 * math.sin((day + phase) * math.tau / 7)
                + self._rng.uniform(-0.05, 0.05)
            )
            for day in range(days)
        ]

    def write(self, toots: int, *, future: int) -> list[Event]:
        rng = self._rng
        poison = math.ceil(toots / _TOOTS_PER_POISON)
        arrivals = self._arrival_times(toots + poison)
        poisoned = set(rng.sample(range(len(arrivals)), poison))
        special = _Special.choose(rng, toots)
        posts: list[_Post] = []
        poison_events: list[tuple[int, Event]] = []
        kinds = rng.sample(_POISONS, len(_POISONS))
        for rank, arrived in enumerate(arrivals):
            if rank in poisoned:
                make = kinds[len(poison_events) % len(kinds)]
                poison_events.append((arrived, self._poison(make, arrived, rank)))
            else:
                posts.append(self._post(posts, special, arrived, rank))
        self._date_ahead(posts, special, future)
        for index, post in enumerate(posts):
            post.events.append((post.arrived, Event("update", post.status["id"], post.status)))
            self._follow_up(post, index, special)
        events = [item for post in posts for item in post.events] + poison_events
        events.sort(key=lambda item: item[0])
        return [event for _, event in events]

    def _arrival_times(self, count: int) -> list[int]:
        days = self._rng.choices(range(len(self._day_weights)), self._day_weights, k=count)
        hours = self._rng.choices(range(24), _HOUR_WEIGHTS, k=count)
        return sorted(
            self._start + day * _DAY + hour * _HOUR + self._rng.randrange(_HOUR)
            for day, hour in zip(days, hours, strict=True)
        )

    def _mood_of_day(self, moment: int) -> MoodWeights:
        return self._moods[(moment - self._start) // _DAY]

    def _post(self, earlier: list[_Post], special: "_Special", arrived: int, rank: int) -> _Post:
        index = len(earlier)
        author = self._composer.author()
        moods = self._mood_of_day(arrived)
        if index in special.boosted and any(post.is_plain for post in earlier[-20:]):
            original = self._rng.choice([post for post in earlier[-20:] if post.is_plain])
            boost = self._composer.boost(original.status, author, arrived=arrived, rank=rank)
            return _Post(author, boost, arrived, is_plain=False)
        # Late by hours, but never before the first day; otherwise by the time of federation.
        longest = min(_LONGEST_DELAY_HOURS * _HOUR, arrived - self._start)
        is_late = index in special.late
        delay = int(longest * self._rng.uniform(0.1, 1)) if is_late else self._rng.randrange(900)
        status = self._composer.status(
            author, moods, arrived=arrived, created=max(self._start, arrived - delay), rank=rank
        )
        if index in special.unlisted:
            status["visibility"] = "unlisted"
        elif index in special.private:
            status["visibility"] = "private"
        return _Post(author, status, arrived, is_plain=status["visibility"] == "public")

    def _date_ahead(self, posts: list[_Post], special: "_Special", future: int) -> None:
        for language in _FUTURE_LANGUAGES:
            for index in range(len(posts) - 1, -1, -1):
                post = posts[index]
                if (
                    post.status["language"] == language
                    and post.is_plain
                    and not special.is_followed_up(index)
                    and not post.status["tags"]
                ):
                    post.status["created_at"] = timestamp(future)
                    break

    def _follow_up(self, post: _Post, index: int, special: "_Special") -> None:
        """Add the post's edits, its delete and its second arrival to its events."""
        rng = self._rng
        for _ in range(special.edits[index]):
            overtakes = rng.random() < _OVERTAKING_SHARE
            arrived = self._overtaking(post) if overtakes else self._later(post, 6 * _HOUR)
            edited = post.arrived + rng.randrange(1, 900) if overtakes else arrived
            version = self._composer.edit(
                post.status, post.author, self._mood_of_day(post.arrived), edited=edited
            )
            post.events.append((arrived, Event("status.update", version["id"], version)))
        if index in special.deleted:
            overtakes = rng.random() < _OVERTAKING_SHARE
            arrived = self._overtaking(post) if overtakes else self._later(post, 12 * _HOUR)
            post.events.append((arrived, Event("delete", post.status["id"])))
        if index in special.repeated:
            again = self._later(post, _HOUR)
            post.events.append((again, Event("update", post.status["id"], post.status)))

    def _overtaking(self, post: _Post) -> int:
        return post.arrived - self._rng.randrange(1, 50)

    def _later(self, post: _Post, longest: int) -> int:
        """Return a time after the post's arrival, if possible before the history's end."""
        latest = max(post.arrived, self._end - 1)
        return min(post.arrived + self._rng.randrange(10 * _SECOND, longest), latest)

    def _poison(self, make: "_Poison", arrived: int, rank: int) -> Event:
        status = self._composer.status(
            self._composer.author(),
            self._mood_of_day(arrived),
            arrived=arrived,
            created=arrived,
            rank=rank,
        )
        poison = make(status)
        status_id = snowflake(arrived, rank)
        if isinstance(poison, str):
            return Event("update", status_id, data=poison)
        return Event("update", status_id, poison)


@dataclass(frozen=True)
class _Special:
    """The numbers of the posts that are late, boosted, edited and so on."""

    late: frozenset[int]
    boosted: frozenset[int]
    unlisted: frozenset[int]
    private: frozenset[int]
    repeated: frozenset[int]
    deleted: frozenset[int]
    edits: Counter[int]

    @classmethod
    def choose(cls, rng: random.Random, toots: int) -> "_Special":
        def some(share: float) -> frozenset[int]:
            return frozenset(rng.sample(range(toots), _count(share, toots)))

        return cls(
            late=some(LATE_SHARE),
            boosted=some(BOOSTED_SHARE),
            unlisted=some(UNLISTED_SHARE),
            private=some(PRIVATE_SHARE),
            repeated=some(REPEATED_SHARE),
            deleted=some(DELETED_SHARE),
            # A post may be drawn twice: then it has two edits.
            edits=Counter(rng.choices(range(toots), k=_count(EDITED_SHARE, toots))),
        )

    def is_followed_up(self, index: int) -> bool:
        return index in self.repeated or index in self.deleted or index in self.edits


def _count(share: float, toots: int) -> int:
    return max(1, round(share * toots))


def _mood_weights(positive: float) -> MoodWeights:
    return {"positive": positive, "negative": 0.78 - positive, "neutral": 0.22}


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


# Poison: payloads that break a naive reader. A function gets a valid status, which it may change.
# It returns a status that a server may send, or the text of a data line.
_Poison = Callable[[Status], Status | str]


def _cut_json(status: Status) -> str:
    text = json_text(status)
    return text[: len(text) // 2]


def _null(_status: Status) -> str:
    return "null"


def _without_id(status: Status) -> str:
    del status["id"]
    return json_text(status)


def _without_account(status: Status) -> str:
    del status["account"]
    return json_text(status)


def _null_content(status: Status) -> str:
    return json_text(status | {"content": None})


def _absurd_time(status: Status) -> str:
    return json_text(status | {"created_at": "yesterday"})


def _id_of_another_software(status: Status) -> str:
    """Return a status with an id as Pleroma has it, which is not a number."""
    flake = f"AuR{int(status['id']):x}"
    return json_text(status | {"id": flake, "uri": f"{status['account']['uri']}/objects/{flake}"})


def _huge_hashtag(status: Status) -> Status:
    """Return a status with a tag longer than a key of a PostgreSQL index may be."""
    name = hashlib.shake_256(b"a very long hashtag").hexdigest(4500)
    tag = {"name": name, "url": f"https://simulator.example/tags/{name}"}
    return status | {"tags": [*status["tags"], tag]}


def _lone_surrogate(status: Status) -> Status:
    """Return a status with half an emoji, which JSON allows and UTF-8 does not."""
    return status | {"content": "<p>half an emoji \ud83d and good night</p>"}


def _null_character(status: Status) -> Status:
    return status | {"content": "<p>a zero \x00 in the middle</p>"}


_POISONS: tuple[_Poison, ...] = (
    _cut_json,
    _null,
    _without_id,
    _without_account,
    _null_content,
    _absurd_time,
    _id_of_another_software,
    _huge_hashtag,
    _lone_surrogate,
    _null_character,
)
