"""What an incident is, and the decisions about it: pure functions of facts, incidents and time.

What belongs here: when an incident opens and closes, and which message it is due. Neither input nor
output.

A problem that comes and goes is one incident: it opens once the problem has lasted as long as its
kind requires, and closes after a time without it. Each incident has one message at its start, one
at its end, and reminders between them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

Event = Literal["opened", "reminder", "closed"]

_NO_TIME = timedelta(0)
# How long a problem lasts before it opens an incident. Zero if its cause was waited for already.
KINDS: Mapping[str, timedelta] = {
    # A refresh that fails is repeated after half a minute.
    "run_failed": timedelta(minutes=2),
    "check_failed": _NO_TIME,
    # After a downtime, the first refresh or report may take a while.
    "asset_stale": timedelta(minutes=5),
    "source_silent": _NO_TIME,
    "source_disconnected": timedelta(minutes=10),
    "source_paused": timedelta(minutes=10),
    "source_gone": timedelta(minutes=2),
    "token_refused": _NO_TIME,
    "removals_wait": _NO_TIME,
    "gap_open": _NO_TIME,
    "kafka_down": timedelta(minutes=2),
    "stream_behind": timedelta(minutes=5),
    "stream_stalled": timedelta(minutes=10),
    "rejects": timedelta(minutes=2),
    "disk_low": timedelta(minutes=2),
}


@dataclass(frozen=True)
class Problem:
    """Something that is wrong now.

    Attributes:
        fact: What is wrong and where, as a name that stays the same while it lasts.
        kind: One of `KINDS`.
        what: A sentence for a person, without text of posts and without secrets.
    """

    fact: str
    kind: str
    what: str


@dataclass(frozen=True)
class Reading:
    """What one look at the platform has found.

    Attributes:
        problems: What is wrong now.
        unread: The kinds that could not be read: nothing is known about them.
    """

    problems: tuple[Problem, ...] = ()
    unread: frozenset[str] = frozenset()

    def __add__(self, other: "Reading") -> "Reading":
        """Return both readings as one."""
        return Reading(self.problems + other.problems, self.unread | other.unread)


@dataclass(frozen=True)
class Delivery:
    """The last message of an incident that a destination took."""

    event: Event
    at: datetime


@dataclass(frozen=True)
class Incident:
    """A problem over time, as stored in `masto.alerts`.

    Attributes:
        fact: See `Problem`; with `since` it names the incident.
        kind: See `Problem`.
        what: See `Problem`; the newest text.
        since: When the problem was seen first.
        opened_at: When the incident opened; None if the problem has not lasted long enough.
        absent_since: Since when the problem is not seen; None while it is.
        closed_at: When the incident closed; None before.
        told_at: When the first destination took the message of the start; None before.
        reminded_at: When a destination took a reminder last; None before.
        settled_at: When it had closed and every destination knew; None before.
        deliveries: Per destination, the last message that it took.
        failure: Why the last attempt to send failed; None if it did not.
    """

    fact: str
    kind: str
    what: str
    since: datetime
    opened_at: datetime | None = None
    absent_since: datetime | None = None
    closed_at: datetime | None = None
    told_at: datetime | None = None
    reminded_at: datetime | None = None
    settled_at: datetime | None = None
    deliveries: Mapping[str, Delivery] = field(default_factory=dict)
    failure: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is shown as a problem of the platform."""
        return self.opened_at is not None and self.closed_at is None


@dataclass(frozen=True)
class Changes:
    """What a decision changes: incidents to store, and those to forget that never opened."""

    saved: list[Incident] = field(default_factory=list)
    forgotten: list[Incident] = field(default_factory=list)


def decide(
    incidents: Sequence[Incident], reading: Reading, now: datetime, *, clear_after: timedelta
) -> Changes:
    """Decide what the facts change.

    Args:
        incidents: All that are not closed, at most one per fact.
        reading: The facts.
        now: The time.
        clear_after: How long a problem must be absent before its incident closes.
    """
    known = {each.fact: each for each in incidents if each.closed_at is None}
    present = {each.fact: each for each in reading.problems}
    changes = Changes()
    for fact, problem in present.items():
        before = known.get(fact)
        after = _seen(before or Incident(fact, problem.kind, problem.what, now), problem, now)
        if after != before:
            changes.saved.append(after)
    for fact, incident in known.items():
        if fact in present or incident.kind in reading.unread:
            continue
        after = replace(incident, absent_since=incident.absent_since or now)
        if now - (after.absent_since or now) >= clear_after:
            if after.opened_at is None:
                changes.forgotten.append(after)
                continue
            after = replace(after, closed_at=now)
        if after != incident:
            changes.saved.append(after)
    return changes


def due_event(
    incident: Incident, destination: str, now: datetime, *, remind_after: timedelta
) -> Event | None:
    """Return the message that a destination is due, if any.

    For an incident that closed before the first message could be sent, both are due, in their
    order.
    """
    if incident.settled_at is not None or incident.opened_at is None:
        return None
    last = incident.deliveries.get(destination)
    if last is None:
        return "opened"
    if incident.closed_at is not None:
        return "closed" if last.event != "closed" else None
    return "reminder" if now - last.at >= remind_after else None


def after_delivery(incident: Incident, event: Event, destination: str, now: datetime) -> Incident:
    """Return the incident after `destination` took a message."""
    deliveries = {**incident.deliveries, destination: Delivery(event, now)}
    # Another destination's failure stays until that one takes a message.
    is_repaired = (incident.failure or "").startswith(f"{destination}: ")
    failure = None if is_repaired else incident.failure
    taken = replace(incident, deliveries=deliveries, failure=failure)
    if event == "reminder":
        return replace(taken, reminded_at=now)
    return replace(taken, told_at=incident.told_at or now)


def after_sending(incident: Incident, destinations: Collection[str], now: datetime) -> Incident:
    """Return the incident as settled if it has closed and all `destinations` know.

    Without a destination it is settled at once: one of later days does not get old messages.
    """
    if incident.closed_at is None or incident.settled_at is not None:
        return incident
    last = [incident.deliveries.get(each) for each in destinations]
    is_known = all(each is not None and each.event == "closed" for each in last)
    return replace(incident, settled_at=now) if is_known else incident


def _seen(incident: Incident, problem: Problem, now: datetime) -> Incident:
    seen = replace(incident, what=problem.what, absent_since=None)
    if seen.opened_at is None and now - seen.since >= KINDS[problem.kind]:
        return replace(seen, opened_at=now)
    return seen
