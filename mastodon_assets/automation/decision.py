"""Whether to ask for a refresh: a pure function of what was read. No Dagster, no input or output.

What belongs here: the rule. Reading the facts stands in `sensors`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

MAX_BACKOFF = timedelta(hours=1)
MAX_ATTEMPTS = 8


@dataclass(frozen=True)
class RefreshFacts:
    """What one tick read.

    `failures` counts the failed refreshes since the last that succeeded; `failed_target` is the
    `target_key` that the last of them was asked for. `last_asked_at` is the start of the newest
    refresh, whatever became of it.
    """

    now: datetime
    lag: int
    end_offsets: Mapping[int, int]
    toots_version: int
    shown_version: int
    champion: str | None
    shown_champion: str | None
    run_in_flight: str | None
    last_asked_at: datetime | None
    failures: int
    failed_target: str | None
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
        return Skip("nothing new: tables, scores and charts show all messages")
    if facts.run_in_flight:
        return Skip(f"{news}; run {facts.run_in_flight} is in flight")
    if facts.failures >= MAX_ATTEMPTS and facts.failed_target == facts.target_key:
        return Skip(
            f"{news}; gave up after {facts.failures} failed refreshes in a row: look at the last"
            " run, then materialize by hand (new messages are tried again)"
        )
    wait = facts.min_interval + _backoff(facts)
    if facts.last_asked_at and facts.now < facts.last_asked_at + wait:
        return Skip(f"{news}; {_waiting(facts, facts.last_asked_at + wait)}")
    last = int(facts.last_asked_at.timestamp()) if facts.last_asked_at else 0
    run_key = f"refresh:{facts.target_key}:after-{last}:attempt-{facts.failures + 1}"
    return Ask(run_key=run_key, reason=news)


def _news(facts: RefreshFacts) -> str:
    news = []
    if facts.lag:
        news.append(f"{facts.lag} new messages")
    if facts.toots_version != facts.shown_version:
        news.append("rows changed since they were last shown")
    if facts.champion != facts.shown_champion:
        news.append(f"model {facts.champion} is the new champion")
    return ", ".join(news)


def _backoff(facts: RefreshFacts) -> timedelta:
    if not facts.failures:
        return timedelta(0)
    base = max(facts.min_interval, timedelta(seconds=30))
    # Bounded before the power: a long row of failures must not overflow.
    return min(base * 2 ** min(facts.failures - 1, 10), MAX_BACKOFF)


def _waiting(facts: RefreshFacts, until: datetime) -> str:
    at = f"{until:%H:%M:%S} UTC"
    if not facts.failures:
        return f"next refresh not before {at}"
    return (
        f"{facts.failures} of at most {MAX_ATTEMPTS} attempts failed; next at {at}"
        f" (back-off doubles, at most {int(MAX_BACKOFF.total_seconds() // 60)} min)"
    )
