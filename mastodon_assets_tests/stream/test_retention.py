"""Rows that are too old: what goes, what stays frozen, and what is still compared."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from mastodon_assets.config.settings import load_settings
from mastodon_assets.stream.merge import BatchCounts
from mastodon_assets.stream.retention import (
    RemovedRows,
    count_unknown_deletes,
    remove_old_rows,
)
from mastodon_assets.stream.windows import WINDOW_SUMS, rebuild_windows
from mastodon_assets.warehouse.checks import (
    days_to_compare,
    window_sum_and_rows,
    windows_and_rows,
)
from mastodon_assets.warehouse.hourly import rebuild_hourly, refresh_hours
from mastodon_assets.warehouse.post_sums import ALL_POSTS, POST_SUMS
from mastodon_assets.warehouse.rollups import days_that_differ, rebuild_rollups
from mastodon_assets.warehouse.sum_tables import correct_sums
from mastodon_assets.warehouse.tables import TABLES
from mastodon_assets_tests.support.hourly_rows import hourly_rows, stored_rows
from mastodon_assets_tests.support.merge_sink import Sink, opened_sink
from mastodon_assets_tests.support.records import delete, upsert

NOW = datetime(2026, 11, 20, 15, 0, tzinfo=UTC)
OLD, EDGE, NEW = "2026-11-17T23:59:59Z", "2026-11-18T00:00:00Z", "2026-11-20T10:00:00Z"
_FROZEN = (
    "batch_toots_per_day",
    "batch_toots_by_lang_per_day",
    "batch_hashtag_by_hour",
    "batch_avg_len_per_day",
    "batch_top_hashtag",
    "hashtag_totals",
    "v_sentiment_daily",
    "toot_metrics_windowed",
)


@pytest.fixture(scope="module")
def opened(database_url: SecretStr) -> Iterator[Sink]:
    with opened_sink(database_url) as sink:
        yield sink


@pytest.fixture
def sink(opened: Sink) -> Sink:
    opened.empty()
    with opened.connection.transaction():
        opened.connection.execute("UPDATE masto.retention_horizons SET first_day = '0001-01-01'")
    return opened


def remove(url: SecretStr, *, seconds: float = 60, **days: int | None) -> RemovedRows:
    return remove_old_rows(load_settings(database_url=url, **days), NOW, seconds=seconds)


def by(name: str, status_id: str, created_at: str, **changes: Any) -> dict[str, Any]:
    return upsert(
        status_id,
        username=f"{name}@one.example",
        created_at=created_at,
        received_at=created_at,
        **changes,
    )


def write_days(sink: Sink) -> None:
    sink.write(
        by("old", "1", OLD, hashtags=["tea"]),
        by("both", "2", OLD, hashtags=["tea", "rum"], language="de"),
        by("both", "3", NEW, hashtags=["rum"]),
        by("new", "4", EDGE, hashtags=["rum"]),
    )


def tables(sink: Sink) -> dict[str, list[Any]]:
    return {name: sorted(sink.rows(f"TABLE masto.{name}")) for name in _FROZEN}


def assert_all_agree(sink: Sink) -> None:
    """Checks find no difference, and rebuilds change nothing."""
    with sink.connection.transaction():
        in_windows, rows = window_sum_and_rows(sink.connection)
        assert in_windows == rows
        days = [date(2026, 11, 17), date(2026, 11, 18), date(2026, 11, 20)]
        assert all(a == b for _, a, b in windows_and_rows(sink.connection, days[1:]))
        assert days_that_differ(sink.connection, None) == []
    for sums in POST_SUMS:
        query = sums.query(ALL_POSTS)
        assert correct_sums(sink.connection, sums.sum_table, lambda _, q=query: q) == 0  # type: ignore[misc]
    for window in WINDOW_SUMS.values():
        assert rebuild_windows(sink.connection, window.table) == 0
    assert rebuild_rollups(sink.connection) == 0


def test_old_posts_go_with_what_names_persons_and_counts_stay(
    sink: Sink, database_url: SecretStr
) -> None:
    write_days(sink)
    before = tables(sink)

    assert remove(database_url, posts_keep_days=2) == RemovedRows(2, 0, 0, is_complete=True)

    assert sink.rows("SELECT status_id FROM masto.toots_raw ORDER BY 1") == [("3",), ("4",)]
    for name in ("user_totals", "user_avg_length_windowed"):
        users = sorted(str(row) for row in sink.rows(f"TABLE masto.{name}"))
        assert len(users) == 2
        assert "old@one.example" not in str(users)
    for name in ("toot_aliases", "toots_unscored"):
        assert len(sink.rows(f"TABLE masto.{name}")) == 2
    assert tables(sink) == before
    assert_all_agree(sink)
    assert remove(database_url, posts_keep_days=2) == RemovedRows(0, 0, 0, is_complete=True)


def test_hours_are_brought_up_to_date_before_they_are_frozen(
    sink: Sink, database_url: SecretStr
) -> None:
    write_days(sink)
    refresh_hours(sink.connection)
    sink.write(by("late", "5", OLD, hashtags=["tea"]))
    expected = hourly_rows(sink)
    # Without the time to do so, the horizon waits.
    assert not remove(database_url, seconds=0, posts_keep_days=2).is_complete
    assert len(sink.rows("TABLE masto.toots_raw")) == 5

    assert remove(database_url, posts_keep_days=2) == RemovedRows(3, 0, 0, is_complete=True)

    # The removal marked the hour again; nothing is left to compute it from.
    refresh_hours(sink.connection)
    assert {name: stored_rows(sink, name) for name in expected} == expected
    assert sink.rows("TABLE masto.changed_hours") == []
    assert [rebuild_hourly(sink.connection, TABLES[name]) for name in expected] == [0] * 5


def test_a_message_older_than_the_horizon_is_counted_and_not_stored(
    sink: Sink, database_url: SecretStr
) -> None:
    write_days(sink)
    remove(database_url, posts_keep_days=2)
    before = tables(sink) | sink.tables()

    # The horizon does not move back.
    remove(database_url, posts_keep_days=9)
    counts = sink.write(
        by("old", "1", OLD, edited_at=NEW),
        by("late", "9", OLD),
        delete("2"),
        b"garbage",
    )

    assert counts == BatchCounts(expired=2, delete_messages=1, rejected=1)
    after = tables(sink) | sink.tables()
    assert len(after.pop("toots_deleted")) == 1
    assert before.pop("toots_deleted") == []
    assert after == before
    assert sink.write(by("late", "10", EDGE)) == BatchCounts(stored=1)
    assert_all_agree(sink)


def test_a_removal_without_time_moves_the_horizon_and_the_next_one_completes_it(
    sink: Sink, database_url: SecretStr
) -> None:
    write_days(sink)
    refresh_hours(sink.connection)
    before = tables(sink)

    assert remove(database_url, posts_keep_days=2, seconds=0) == RemovedRows(
        0, 0, 0, is_complete=False
    )

    assert sink.rows("SELECT count(*) FROM masto.toots_raw") == [(4,)]
    assert_all_agree(sink)
    # A delete takes the row, and the frozen counts stay.
    sink.write(delete("1"), delete("3"))
    assert sink.rows("SELECT username FROM masto.user_totals ORDER BY 1") == [
        ("both@one.example",),
        ("new@one.example",),
    ]
    assert (
        sink.rows("TABLE masto.batch_toots_per_day ORDER BY 1")[0]
        == (before["batch_toots_per_day"][0])
    )
    assert_all_agree(sink)
    assert remove(database_url).posts == 1
    assert_all_agree(sink)


def test_old_windows_go_and_late_posts_make_none(sink: Sink, database_url: SecretStr) -> None:
    write_days(sink)

    assert remove(database_url, windows_keep_days=2) == RemovedRows(0, 4, 0, is_complete=True)

    for late in (by("late", "9", OLD), by("late", "9", OLD, edited_at=NEW, content="longer")):
        assert sink.write(late) == BatchCounts(stored=1)
    assert sink.write(delete("1")).delete_messages == 1
    for name in WINDOW_SUMS:
        windows = sink.rows(f"TABLE masto.{name}")
        assert min(row[0] for row in windows) == datetime(2026, 11, 18, tzinfo=UTC)
    assert sink.rows("SELECT toots_count FROM masto.batch_toots_per_day ORDER BY day LIMIT 1") == [
        (2,)
    ]
    assert_all_agree(sink)


def test_dead_letters_go_after_their_days(sink: Sink, database_url: SecretStr) -> None:
    sink.write(b"old", b"new")
    with sink.connection.transaction():
        sink.connection.execute(
            "UPDATE masto.toots_rejected SET rejected_at = %s - kafka_offset * interval '0 day'"
            " - CASE kafka_offset WHEN 0 THEN interval '8 days' ELSE interval '6 days' END",
            (NOW,),
        )
    assert remove(database_url, rejected_keep_days=7) == RemovedRows(0, 0, 1, is_complete=True)
    assert sink.rows("SELECT payload FROM masto.toots_rejected") == [(b"new",)]


def test_deletes_of_posts_that_were_never_stored_go_after_their_days(
    sink: Sink, database_url: SecretStr
) -> None:
    old, new = "2026-10-01T00:00:00Z", "2026-11-19T00:00:00Z"
    sink.write(upsert("known"), delete("known", received_at=old), delete("old", received_at=old))
    sink.write(delete("new", received_at=new))
    assert count_unknown_deletes(database_url) == 2
    with sink.connection.transaction():
        sink.connection.execute("TRUNCATE masto.changed_hours")
    assert remove(database_url).deletes == 1
    # The hour in which it is counted is computed again.
    assert sink.rows("SELECT hour FROM masto.changed_hours") == [(datetime.fromisoformat(old),)]
    assert count_unknown_deletes(database_url) == 1
    assert remove(database_url, unknown_deletes_keep_days=1).deletes == 1
    # What was stored stays out for good.
    assert sink.rows("SELECT status_id FROM masto.toots_deleted") == [("known",)]
    assert sink.write(upsert("known")).tombstoned == 1


def test_of_days_before_the_horizon_none_is_compared(sink: Sink, database_url: SecretStr) -> None:
    first = datetime(2026, 9, 1, tzinfo=UTC)
    days = [(first + timedelta(days=n)).isoformat() for n in range(80)]
    sink.write(*(by("ada", str(number), day) for number, day in enumerate(days)))
    with sink.connection.transaction():
        sink.connection.execute(
            "INSERT INTO masto.asset_progress (asset, toots_version) VALUES ('check', 0)"
        )
        assert len(days_to_compare(sink.connection, "check") or []) == 80
    remove(database_url, posts_keep_days=40)
    with sink.connection.transaction():
        compared = days_to_compare(sink.connection, "check")
        sink.connection.execute("DELETE FROM masto.asset_progress")
    assert compared is not None
    assert min(compared) == date(2026, 10, 11)
    assert_all_agree(sink)


def test_filled_gaps_go_after_their_days_and_others_with_their_windows(
    sink: Sink, database_url: SecretStr
) -> None:
    old, new = NOW - timedelta(days=100), NOW - timedelta(days=80)
    gaps = [
        ("filled", old, old, "recovered"),
        ("filled lately", old, new, "recovered"),
        ("missing", old, old, "partial"),
        ("lost", old, old, "unrecoverable"),
        ("open", old, None, "open"),
        # The stream is back, but what it missed was not read yet.
        ("waiting", old, old, "open"),
    ]
    with sink.connection.transaction():
        sink.connection.execute("TRUNCATE masto.stream_gaps")
        for instance, started_at, ended_at, status in gaps:
            sink.connection.execute(
                "INSERT INTO masto.stream_gaps VALUES (%s, 'public', %s, %s, NULL, NULL, 'x', 0,"
                " %s)",
                (instance, started_at, ended_at, status),
            )

    def left() -> set[str]:
        return {row[0] for row in sink.rows("SELECT instance FROM masto.stream_gaps")}

    assert remove(database_url).gaps == 1
    assert left() == {"filled lately", "missing", "lost", "open", "waiting"}
    assert remove(database_url, windows_keep_days=90).gaps == 2
    assert left() == {"filled lately", "open", "waiting"}
    assert remove(database_url, windows_keep_days=90).gaps == 0
