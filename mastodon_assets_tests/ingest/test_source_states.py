"""What a source was last seen to do, in the database and in `status`."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest import source_states
from mastodon_assets.ingest.recovery import cursors, gaps
from mastodon_assets.ingest.recovery.cursors import save_cursor
from mastodon_assets.ingest.recovery.gaps import Gap, save_gap
from mastodon_assets.ingest.source_states import (
    SourceState,
    SourceStatus,
    read_sources,
    read_state,
    save_state,
)
from mastodon_assets.warehouse.database import transaction

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
CONNECTED = SourceState("connected", None, NOON, NOON, timedelta(seconds=1.5))


def test_a_state_is_read_as_it_was_saved(fresh_database_url: SecretStr) -> None:
    url = fresh_database_url
    assert read_state(url, "one.example", "local") is None
    for state in (CONNECTED, SourceState("refused", "token refused (401)", None, None, None)):
        save_state(url, "one.example", "local", state)
        assert read_state(url, "one.example", "local") == state
    assert read_state(url, "one.example", "public") is None


def test_status_shows_each_source_with_its_cursor_and_open_gaps(
    fresh_database_url: SecretStr,
) -> None:
    url = fresh_database_url
    for source in ("public", "hashtag:tea"):
        save_state(url, "one.example", source, CONNECTED)
    save_cursor(url, "one.example", "public", "41", "rules")
    now = datetime.now(UTC)
    for days, status in ((8, "partial"), (6, "partial"), (1, "unrecoverable"), (2, "recovered")):
        gap = Gap(now - timedelta(days=days), "cut", from_id=None)
        gap.status = status  # type: ignore[assignment]
        save_gap(url, "one.example", "public", gap)
    for minute, status in enumerate(("open", "open", "recovered")):
        gap = Gap(NOON + timedelta(minutes=minute), "cut", from_id=None)
        gap.status = status  # type: ignore[assignment]
        save_gap(url, "one.example", "public", gap)

    found = read_sources(url)

    assert [(each.source, each.cursor, each.open_gaps) for each in found] == [
        ("hashtag:tea", None, 0),
        ("public", "41", 2),
    ]
    assert [each.incomplete_gaps for each in found] == [0, 2]
    assert all(each.last_post_at == NOON for each in found)


@pytest.mark.parametrize(
    ("state", "age", "shown"),
    [
        ("connected", 59, "connected"),
        ("connected", 61, "not running"),
        ("refused", 61, "refused"),
        ("refused", 1000, "not running"),
        ("stopped", 9999, "stopped"),
    ],
)
def test_a_source_without_a_record_for_a_minute_is_not_running(
    state: str, age: int, shown: str
) -> None:
    reported = NOON - timedelta(seconds=age)
    source = SourceStatus("one.example", "public", state, None, reported, None, None, None, 0)
    assert source.present_state(NOON) == shown


def test_a_locked_table_holds_up_neither_the_feed_nor_a_reader(
    fresh_database_url: SecretStr, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = fresh_database_url
    for module in (source_states, cursors, gaps):
        monkeypatch.setattr(module, "FEED_SECONDS", 0.1)
        monkeypatch.setattr(module, "PERSON_SECONDS", 0.1)
    attempts = (
        lambda: save_state(url, "one.example", "public", CONNECTED),
        lambda: save_cursor(url, "one.example", "public", "41", "rules"),
        lambda: save_gap(url, "one.example", "public", Gap(NOON, "cut", from_id=None)),
        lambda: read_sources(url),
    )
    with transaction(url) as other:
        other.execute("LOCK TABLE masto.ingest_sources, masto.ingest_cursors, masto.stream_gaps")
        for attempt in attempts:
            with pytest.raises(ServiceUnavailableError, match="may be locked"):
                attempt()
