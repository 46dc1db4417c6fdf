"""A Kafka broker inside librdkafka, recorded statuses, and cursors without a database."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from mastodon_assets.ingest import checkpoint, removal_brake, supervisor
from mastodon_assets.ingest.homes import Homes
from mastodon_assets.ingest.recovery.cursors import Cursor
from mastodon_assets.ingest.recovery.gaps import Gap
from mastodon_assets.warehouse.suppression_list import SuppressionList
from mastodon_assets_tests.support.shared_data import RECORDED

LEFT_AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


class _HomesInMemory(Homes):
    """What one run knows, and no other."""

    def load(self) -> None:
        self._key = b"a key"

    def save(self) -> None:
        """Nothing is recorded."""

    def take_questions(self, instance: str) -> list[str]:
        return []


@pytest.fixture
def cursors(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A replacement of `masto.ingest_cursors`: instance to id, of the public source.

    Other sources have keys such as `one.example/local`. No gap, state or post is stored, and nobody
    has withdrawn.
    """
    saved: dict[str, str] = {}

    def key(instance: str, source: str) -> str:
        return instance if source == "public" else f"{instance}/{source}"

    def read(_url: object, instance: str, source: str) -> Cursor | None:
        last = saved.get(key(instance, source))
        return None if last is None else Cursor(last, LEFT_AT)

    def save(_url: object, instance: str, source: str, newest: str, _rules: str) -> None:
        saved[key(instance, source)] = newest

    monkeypatch.setattr(checkpoint, "read_cursor", read)
    monkeypatch.setattr(checkpoint, "save_cursor", save)
    monkeypatch.setattr(supervisor, "watched_suppression_list", lambda _settings: SuppressionList)
    monkeypatch.setattr(checkpoint, "read_open_gaps", lambda _url, _instance, _source: [])
    monkeypatch.setattr(checkpoint, "read_stored_posts", lambda _url, _instance, _limit: [])
    monkeypatch.setattr(checkpoint, "posts_of_accounts", lambda *_arguments, **_options: [])
    monkeypatch.setattr(checkpoint, "read_stored_uris", lambda _url, _instance, _limit: [])
    monkeypatch.setattr(checkpoint, "read_recent_posts", lambda _url, _instance: [])
    monkeypatch.setattr(checkpoint, "read_known_accounts", lambda _url, _instance: [])
    monkeypatch.setattr(checkpoint, "read_accounts_with_posts", lambda _url, _names: set())
    monkeypatch.setattr(supervisor, "Homes", _HomesInMemory)
    monkeypatch.setattr(checkpoint, "save_gap", lambda _url, _instance, _source, _gap: None)
    monkeypatch.setattr(checkpoint, "read_state", lambda _url, _instance, _source: None)
    monkeypatch.setattr(checkpoint, "save_state", lambda _url, _instance, _source, _state: None)
    monkeypatch.setattr(removal_brake, "read_suspicion", lambda _url, _instance: None)
    monkeypatch.setattr(supervisor, "claim_address", lambda *_arguments, **_options: None)
    return saved


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch, cursors: dict[str, str]) -> list[tuple[str, str]]:
    """A replacement of `masto.ingest_sources`: source and state, each as it was reported."""
    reported: list[tuple[str, str]] = []
    monkeypatch.setattr(
        checkpoint,
        "save_state",
        lambda _url, _instance, source, state: reported.append((source, state.name)),
    )
    return reported


@pytest.fixture
def gaps(monkeypatch: pytest.MonkeyPatch, cursors: dict[str, str]) -> dict[datetime, Gap]:
    """A replacement of `masto.stream_gaps`: a copy of each gap as it was saved last."""
    saved: dict[datetime, Gap] = {}
    monkeypatch.setattr(
        checkpoint,
        "save_gap",
        lambda _url, _instance, _source, gap: saved.update({gap.started_at: replace(gap)}),
    )
    return saved


@pytest.fixture(scope="session")
def recorded_statuses() -> list[dict[str, Any]]:
    path = RECORDED / "statuses.ndjson"
    if not path.is_file():
        pytest.skip(f"no recorded statuses at {path}")
    return [json.loads(line) for line in path.read_bytes().splitlines() if line]
