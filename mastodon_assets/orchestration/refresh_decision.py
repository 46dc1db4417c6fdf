"""Whether to ask for a refresh: a pure function of what was read. No Dagster, no input or output.

What belongs here: the rule. Reading the facts stands in `sensors`.
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
    """What one tick read.

    `lag` counts the messages that are not in the tables; `is_topic_cut` says that the topic ends
    before the ledger. `shown_champions` are the models that scores and their charts show.
    `failed_targets` are the `target_key`s of the failed refreshes since the last that succeeded,
    newest first, None for one asked for by hand. `last_asked_at` is the start of the newest
    refresh, whatever became of it.
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
        """Names the state a refresh would bring about; the same state has the same name."""
        offsets = sorted(self.end_offsets.items())
        state = json.dumps([offsets, self.toots_version, self.champion])
        return hashlib.sha256(state.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Ask:
    """Ask for a refresh; `run_key` carries the attempt, or a failed one would never be repeated."""

    run_key: str
    reason: str


@dataclass(frozen=True)
class Skip:
    """Do nothing; `reason` is what the sensor's page shows."""

    reason: str


def decide_refresh(facts: RefreshFacts) -> Ask | Skip:
    """Ask when something is new, nothing is in flight, and it is not too soon."""
    news = _news(facts)
    if not news:
        return Skip(_nothing_new(facts))
    if facts.run_in_flight:
        return Skip(f"{news}; {facts.run_in_flight} is in flight")
    if facts.failed_targets.count(facts.target_key) >= MAX_ATTEMPTS:
        return Skip(
            f"{news}; gave up after {MAX_ATTEMPTS} refreshes of the same data failed: look at the"
            " last run, mend its cause, then materialize by hand (new messages are tried again)"
        )
    wait = facts.min_interval + _backoff(facts)
    if facts.last_asked_at and facts.now < facts.last_asked_at + wait:
        return Skip(f"{news}; {_waiting(facts, facts.last_asked_at + wait)}")
    last = int(facts.last_asked_at.timestamp()) if facts.last_asked_at else 0
    attempt = len(facts.failed_targets) + 1
    run_key = f"refresh:{facts.target_key}:after-{last}:attempt-{attempt}"
    return Ask(run_key=run_key, reason=news)


def _news(facts: RefreshFacts) -> str:
    news = []
    if facts.lag:
        news.append(f"{facts.lag} new message{'s' if facts.lag > 1 else ''}")
    if facts.is_topic_cut:
        # The refresh fails with what is lost and what to do: silence here would hide it.
        news.append("the topic ends before what the tables have read of it")
    if facts.toots_version != facts.shown_version:
        news.append("rows changed since they were last shown")
    if facts.shown_champions != {facts.champion}:
        news.append(f"scores or charts do not show model {facts.champion or 'none'} yet")
    return ", ".join(news)


def _nothing_new(facts: RefreshFacts) -> str:
    if not any(facts.end_offsets.values()):
        return "nothing to show yet: Kafka has no messages; start: mastodon-assets ingest"
    return "nothing new: tables, scores and charts show all messages"


def _backoff(facts: RefreshFacts) -> timedelta:
    failures = len(facts.failed_targets)
    if not failures:
        return timedelta(0)
    base = max(facts.min_interval, timedelta(seconds=30))
    # Bounded before the power: a long row of failures must not overflow.
    return min(base * 2 ** min(failures - 1, 10), MAX_BACKOFF)


def _waiting(facts: RefreshFacts, until: datetime) -> str:
    at = f"{until:%H:%M:%S} UTC"
    failures = len(facts.failed_targets)
    if not failures:
        return f"next refresh not before {at}"
    return (
        f"{failures} refresh{'es' if failures > 1 else ''} failed in a row; next attempt at {at}"
        f" (waits double up to {int(MAX_BACKOFF.total_seconds() // 60)} min; at most"
        f" {MAX_ATTEMPTS} attempts for the same data)"
    )
