"""The decision whether to request a refresh: a pure function of the facts.

What belongs here: the rule, without Dagster, input or output. The facts are read in `sensors`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

MAX_BACKOFF = timedelta(hours=1)
MAX_ATTEMPTS = 8


@dataclass(frozen=True)
class RefreshFacts:
    """The facts that one tick has read.

    Attributes:
        now: Time of the tick.
        lag: Messages in Kafka that are not in the tables.
        is_topic_cut: The topic ends before an offset that the ledger holds.
        end_offsets: End of the topic by partition.
        toots_version: Version of `toots_raw`.
        shown_version: Oldest version that a derived asset shows.
        champion: Version of the model that scores, if there is one.
        shown_champions: Models whose labels scores and charts show.
        run_in_flight: Name of a run to wait for, if there is one.
        last_asked_at: Creation of the newest refresh, whatever its outcome.
        failed_targets: `target_key` of each failed refresh since the last success, newest first;
            None for a refresh started by hand.
        min_interval: Least time between two refreshes.
    """

    now: datetime
    lag: int
    is_topic_cut: bool
    end_offsets: Mapping[int, int]
    toots_version: int
    shown_version: int
    champion: str | None
    shown_champions: frozenset[str | None]
    run_in_flight: str | None
    last_asked_at: datetime | None
    failed_targets: Sequence[str | None]
    min_interval: timedelta

    @property
    def target_key(self) -> str:
        """Key of the state that a refresh would bring about; equal states have equal keys."""
        offsets = sorted(self.end_offsets.items())
        state = json.dumps([offsets, self.toots_version, self.champion])
        return hashlib.sha256(state.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Ask:
    """Request a refresh.

    `run_key` contains the attempt: Dagster never repeats a key, not even of a failed run.
    """

    run_key: str
    reason: str


@dataclass(frozen=True)
class Skip:
    """Request nothing; `reason` is shown on the sensor's page.

    `is_current` says that there is nothing to refresh: the assets show what there is.
    """

    reason: str
    is_current: bool = False


def decide_refresh(facts: RefreshFacts) -> Ask | Skip:
    """Request a refresh if something is new, no run is in flight and the last one is old enough."""
    changes = _changes(facts)
    if not changes:
        return Skip(_nothing_new(facts), is_current=facts.run_in_flight is None)
    if facts.run_in_flight:
        return Skip(f"{changes}; waiting for {facts.run_in_flight}")
    if facts.failed_targets.count(facts.target_key) >= MAX_ATTEMPTS:
        return Skip(
            f"{changes}; gave up after {MAX_ATTEMPTS} failed refreshes of the same data. Look at"
            f" the last run, fix its cause, then materialize by hand. New messages are tried"
            f" again."
        )
    wait = facts.min_interval + _backoff(facts)
    if facts.last_asked_at and facts.now < facts.last_asked_at + wait:
        return Skip(f"{changes}; {_waiting(facts, facts.last_asked_at + wait)}")
    last = int(facts.last_asked_at.timestamp()) if facts.last_asked_at else 0
    attempt = len(facts.failed_targets) + 1
    run_key = f"refresh:{facts.target_key}:after-{last}:attempt-{attempt}"
    return Ask(run_key=run_key, reason=changes)


def _changes(facts: RefreshFacts) -> str:
    changes = []
    if facts.lag:
        changes.append(f"{facts.lag} new message{'s' if facts.lag > 1 else ''}")
    if facts.is_topic_cut:
        # The refresh fails and says what is lost and what to do; skipping would hide it.
        changes.append("the topic ends before the offsets that the tables have read")
    if facts.toots_version != facts.shown_version:
        changes.append("rows changed since the last refresh")
    if facts.shown_champions != {facts.champion}:
        changes.append(f"scores or charts do not show model {facts.champion or 'none'} yet")
    return ", ".join(changes)


def _nothing_new(facts: RefreshFacts) -> str:
    if not any(facts.end_offsets.values()):
        return "Kafka has no messages yet; start: mastodon-assets ingest"
    return "nothing new: tables, scores and charts show all messages"


def _backoff(facts: RefreshFacts) -> timedelta:
    failures = len(facts.failed_targets)
    if not failures:
        return timedelta(0)
    base = max(facts.min_interval, timedelta(seconds=30))
    # The exponent is bounded because a long series of failures would overflow.
    doublings: int = 2 ** min(failures - 1, 10)
    return min(base * doublings, MAX_BACKOFF)


def _waiting(facts: RefreshFacts, until: datetime) -> str:
    at = f"{until:%H:%M:%S} UTC"
    failures = len(facts.failed_targets)
    if not failures:
        return f"next refresh not before {at}"
    return (
        f"{failures} refresh{'es' if failures > 1 else ''} failed in a row; next attempt at {at}"
        f" (the wait doubles up to {int(MAX_BACKOFF.total_seconds() // 60)} min; at most"
        f" {MAX_ATTEMPTS} attempts for the same data)"
    )
