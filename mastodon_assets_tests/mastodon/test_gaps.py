from datetime import UTC, datetime, timedelta

from pydantic import SecretStr

from mastodon_assets.mastodon.cursors import read_cursor, save_cursor
from mastodon_assets.mastodon.gaps import Gap, read_open_gaps, read_stored_ids, save_gap
from mastodon_assets.warehouse.database import transaction

BEGAN = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def test_a_gap_is_open_until_it_is_closed(database_url: SecretStr) -> None:
    gap = Gap(BEGAN, "cut", from_id="41")
    save_gap(database_url, "one.example", gap)
    save_gap(database_url, "two.example", Gap(BEGAN, "silence", from_id=None))
    assert read_open_gaps(database_url, "one.example") == [gap]

    gap.ended_at, gap.to_id = BEGAN + timedelta(minutes=1), "52"
    save_gap(database_url, "one.example", gap)
    assert read_open_gaps(database_url, "one.example") == [gap]

    gap.recovered_count, gap.status = 10, "recovered"
    save_gap(database_url, "one.example", gap)
    assert read_open_gaps(database_url, "one.example") == []
    with transaction(database_url) as connection:
        rows = connection.execute(
            "SELECT source, from_id, to_id, recovered_count, status, reason"
            "  FROM masto.stream_gaps WHERE instance = 'one.example'"
        ).fetchall()
    assert rows == [("public", "41", "52", 10, "recovered", "cut")]


def test_a_cursor_says_when_it_was_moved(database_url: SecretStr) -> None:
    assert read_cursor(database_url, "one.example") is None
    save_cursor(database_url, "one.example", "7")
    save_cursor(database_url, "one.example", "01FV")

    cursor = read_cursor(database_url, "one.example")

    assert cursor is not None
    assert cursor.last_acked_id == "01FV"
    assert datetime.now(UTC) - cursor.updated_at < timedelta(minutes=5)


def test_no_post_is_stored_yet(database_url: SecretStr) -> None:
    assert read_stored_ids(database_url, "one.example", 10) == []
