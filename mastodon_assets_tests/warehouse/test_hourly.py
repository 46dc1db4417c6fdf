"""The hourly tables and their views: changed hours, concurrent writers, what is a trend."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from mastodon_assets.batch import hourly as batch
from mastodon_assets.batch.hourly import compare_next_hours, refresh_hourly_tables
from mastodon_assets.stream.removal import Removal
from mastodon_assets.warehouse import hourly, locks
from mastodon_assets.warehouse.changed_hours import mark_hours
from mastodon_assets.warehouse.daily import rebuild_daily
from mastodon_assets.warehouse.database import connect
from mastodon_assets.warehouse.hourly import HourlyRefresh, refresh_hours
from mastodon_assets.warehouse.locks import HOURLY_LOCK, take_write_lock
from mastodon_assets.warehouse.tables import DAILY, HOURLY, HOURLY_HASHTAGS, HOURLY_SENTIMENT
from mastodon_assets.warehouse.watermarks import set_watermark
from mastodon_assets_tests.support.hourly_rows import (
    daily_rows,
    hourly_rows,
    stored_rows,
    sum_days,
)
from mastodon_assets_tests.support.merge_sink import Sink, opened_sink
from mastodon_assets_tests.support.records import delete, upsert

_HOUR = datetime(2026, 11, 20, 11, tzinfo=UTC)
# The views leave out what is not over by the clock of the machine.
_PAST = {"created_at": "2024-11-22T10:10:00Z", "received_at": "2024-11-22T10:10:30Z"}


@pytest.fixture(scope="module")
def opened(database_url: SecretStr) -> Iterator[Sink]:
    with opened_sink(database_url) as sink:
        yield sink


@pytest.fixture
def sink(opened: Sink) -> Sink:
    opened.empty()
    with opened.connection.transaction():
        opened.connection.execute("DELETE FROM masto.asset_progress")
    return opened


@pytest.fixture
def refresher(database_url: SecretStr, sink: Sink) -> Iterator[psycopg.Connection[Any]]:
    """A connection besides the one that writes posts."""
    with connect(database_url) as connection:
        yield connection


def assert_all_rows_are_right(sink: Sink) -> None:
    for expected in (hourly_rows(sink), daily_rows(sink)):
        assert {name: stored_rows(sink, name) for name in expected} == expected


def marks(sink: Sink) -> list[Any]:
    return [hour for (hour,) in sink.rows("SELECT hour FROM masto.changed_hours ORDER BY 1")]


def test_names_as_long_as_the_contract_allows_fit_into_every_index(sink: Sink) -> None:
    """Of an index's row 2,704 bytes are left, and letters without repetition do not compress."""
    letters = [chr(code) for code in range(0x20000, 0x2A6D6)]

    def name(size: int, first: int) -> str:
        return "".join(letters[(first + 7919 * n) % len(letters)] for n in range(size))

    sink.write(
        upsert(
            name(255, 1),
            # A server's name is ASCII, and a label of it has 63 letters at the most.
            instance=".".join(f"{number:063x}" for number in range(4))[:253],
            uri=name(4096, 3),
            username=name(500, 4),
            user_id=name(255, 5),
            language=name(255, 6),
            hashtags=[name(500, 7), name(500, 8)],
            visibility=name(255, 9),
            in_reply_to_id=name(255, 10),
        )
    )
    assert refresh_hours(sink.connection).is_complete
    assert_all_rows_are_right(sink)


def test_only_the_changed_hours_are_computed(sink: Sink) -> None:
    sink.write(upsert("1"), upsert("2", created_at="2026-11-19T10:00:00Z"), delete("9"))
    assert refresh_hours(sink.connection).hours == 3
    with sink.connection.transaction():
        # An hour without a mark is not looked at.
        sink.connection.execute("UPDATE masto.hourly_activity SET toots_count = 7")
    sink.write(upsert("1", edited_at="2026-11-20T12:30:00Z", language="de"))
    assert marks(sink) == [_HOUR]
    refreshed = refresh_hours(sink.connection)
    assert refreshed == HourlyRefresh(
        1,
        {
            "hourly_activity": 2,
            "hourly_sentiment": 2,
            "hourly_hashtags": 2,
            "hourly_hashtag_accounts": 0,
            "hourly_deletes": 0,
        },
        is_complete=True,
    )
    counts = "SELECT hour, lang, toots_count FROM masto.hourly_activity ORDER BY 1"
    assert sink.rows(counts) == [
        (datetime(2026, 11, 19, 10, tzinfo=UTC), "en", 7),
        (_HOUR, "de", 1),
    ]


def test_an_edit_moves_a_post_to_another_hour_and_a_delete_takes_it_away(sink: Sink) -> None:
    sink.write(upsert("1"), upsert("2"))
    refresh_hours(sink.connection)
    moved = "2026-11-20T08:00:00Z"
    sink.write(upsert("1", created_at=moved, edited_at="2026-11-20T12:30:00Z"), delete("2"))
    assert marks(sink) == [_HOUR - timedelta(hours=3), _HOUR, _HOUR + timedelta(hours=1)]
    refresh_hours(sink.connection)
    assert_all_rows_are_right(sink)
    assert sink.rows("SELECT hour, toots_count FROM masto.hourly_activity") == [
        (_HOUR - timedelta(hours=3), 1)
    ]


def test_an_account_that_is_purged_is_not_counted_after_the_next_refresh(sink: Sink) -> None:
    sink.write(upsert("1"), upsert("2", username="bob@one.example", hashtags=["tea"]))
    refresh_hours(sink.connection)
    condition = "username = %(name)s"
    Removal(sink.connection, condition, {"name": "bob@one.example"}).remove()
    refresh_hours(sink.connection)
    assert_all_rows_are_right(sink)
    assert sink.rows("SELECT hashtag FROM masto.hourly_hashtags") == [("news",)]


def test_a_delete_of_a_post_that_is_purged_is_no_more_one_of_a_stored_post(sink: Sink) -> None:
    sink.write(upsert("1"))
    deleted_at = _HOUR + timedelta(hours=3)
    with sink.connection.transaction():
        # As if its home had shown the post again after another server deleted it.
        sink.connection.execute(
            "INSERT INTO masto.toots_deleted VALUES ('one.example', '1', %s)", (deleted_at,)
        )
        mark_hours(sink.connection, [deleted_at])
    refresh_hours(sink.connection)
    Removal(sink.connection, "username = %(name)s", {"name": "ada@one.example"}).remove()
    refresh_hours(sink.connection)
    assert_all_rows_are_right(sink)
    assert sink.rows("SELECT deletes_count, stored_count FROM masto.hourly_deletes") == [(1, 0)]


def test_an_hour_that_changes_meanwhile_keeps_its_mark(
    sink: Sink, refresher: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sink.write(upsert("1"))

    def write_first(connection: psycopg.Connection[Any]) -> None:
        """Commit a post after the hour was computed, before its rows are written."""
        monkeypatch.setattr(hourly, "take_write_lock", take_write_lock)
        sink.write(upsert("2"))
        take_write_lock(connection)

    monkeypatch.setattr(hourly, "take_write_lock", write_first)
    refresh_hours(refresher)
    assert marks(sink) == [_HOUR]
    assert sink.rows("SELECT toots_count FROM masto.hourly_activity") == [(1,)]
    refresh_hours(refresher)
    assert marks(sink) == []
    assert_all_rows_are_right(sink)


def test_writers_do_not_wait_while_an_hour_is_computed(
    sink: Sink, refresher: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sink.write(upsert("1"))
    compute = hourly._compute

    def write_meanwhile(*arguments: Any) -> dict[str, int]:
        counts = compute(*arguments)
        monkeypatch.setattr(hourly, "_compute", compute)
        sink.write(upsert("2"))
        return counts

    monkeypatch.setattr(hourly, "_compute", write_meanwhile)
    refresh_hours(refresher)
    assert marks(sink) == [_HOUR]


def test_a_refresh_that_is_interrupted_is_completed_by_the_next(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink.write(upsert("1"), upsert("2", created_at="2026-11-19T10:00:00Z"))
    monkeypatch.setattr(hourly, "_FIRST_HOURS", 1)
    compute = hourly._compute

    def fail_at_the_second(*arguments: Any) -> dict[str, int]:
        if not sink.rows("TABLE masto.hourly_activity"):
            return compute(*arguments)
        raise ConnectionResetError

    with monkeypatch.context() as patch:
        patch.setattr(hourly, "_compute", fail_at_the_second)
        with pytest.raises(ConnectionResetError):
            refresh_hours(sink.connection)
    assert len(marks(sink)) == 1
    assert refresh_hours(sink.connection).hours == 1
    assert_all_rows_are_right(sink)


def test_of_two_refreshes_one_waits_or_does_nothing(
    sink: Sink, refresher: psycopg.Connection[Any]
) -> None:
    sink.write(upsert("1"))
    refresher.execute("SELECT pg_advisory_lock(%s)", (HOURLY_LOCK,))
    refresher.commit()
    assert refresh_hours(sink.connection, waits_for_others=False) == HourlyRefresh(
        0, {}, is_complete=False
    )
    refresher.execute("SELECT pg_advisory_unlock(%s)", (HOURLY_LOCK,))
    refresher.commit()
    assert refresh_hours(sink.connection, waits_for_others=False).is_complete


def test_an_hour_with_many_rows_is_written_in_several_transactions(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hourly, "_MOST_ROWS", 10)
    monkeypatch.setattr(locks, "_FIRST_CHUNK", 3)
    tags = [f"tag{number}" for number in range(20)]
    sink.write(upsert("1", hashtags=tags), upsert("2", hashtags=tags[:9], language="de"))
    assert refresh_hours(sink.connection).rows_changed["hourly_hashtags"] == 29
    assert marks(sink) == []
    assert_all_rows_are_right(sink)
    sink.write(delete("1"))
    refresh_hours(sink.connection)
    assert_all_rows_are_right(sink)


def test_a_long_refresh_says_how_far_it_is(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hourly, "_SECONDS_BETWEEN_REPORTS", 0.0)
    monkeypatch.setattr(hourly, "_FIRST_HOURS", 1)
    sink.write(upsert("1"), upsert("2", created_at="2026-11-19T10:00:00Z"))
    lines: list[str] = []
    refresh_hours(sink.connection, report=lines.append)
    assert lines == [f"hourly tables: {done} of 2 hours computed" for done in (1, 2)]


def test_daily_sums_that_differ_from_their_hours_are_found_and_rebuilt(
    sink: Sink, database_url: SecretStr
) -> None:
    sink.write(upsert("1"), upsert("2", created_at="2026-11-19T10:00:00Z"))
    refresh_hours(sink.connection)
    with sink.connection.transaction():
        sink.connection.execute("DELETE FROM masto.daily_sentiment WHERE day = '2026-11-20'")
        sink.connection.execute("UPDATE masto.daily_hashtags SET n_neg = 7")
    day = datetime(2026, 11, 20, tzinfo=UTC)
    _, differing = compare_next_hours(database_url)
    assert differing == {
        "daily_sentiment": [day],
        "daily_hashtags": [day - timedelta(days=1), day],
    }
    assert [rebuild_daily(sink.connection, table) for table in DAILY] == [1, 2]
    assert_all_rows_are_right(sink)
    assert compare_next_hours(database_url)[1] == {}


def test_hours_per_chunk_follow_the_time_that_the_last_chunk_took() -> None:
    assert hourly._next_most(4, 0.01, 0.1) == 8
    assert hourly._next_most(200, 0.01, 0.1) == 240
    assert hourly._next_most(8, 0.4, 0.5) == 4
    assert hourly._next_most(8, 0.1, 16) == 1
    assert hourly._next_most(1, 5, 5) == 1


def test_the_tables_show_the_posts_and_those_with_labels_the_scores(
    sink: Sink, database_url: SecretStr
) -> None:
    sink.write(upsert("1"))
    before = sink.version()
    with sink.connection.transaction():
        set_watermark(
            sink.connection, "toots_sentiment", toots_version=before - 1, model_version="m"
        )
    refresh_hourly_tables(database_url, print)
    shown = sink.rows(
        "SELECT asset, toots_version, model_version FROM masto.asset_progress"
        " WHERE asset LIKE 'hourly%'"
    )
    labelled = (HOURLY_SENTIMENT, HOURLY_HASHTAGS)
    assert sorted(shown) == sorted(
        (table.name, before - 1, "m") if table in labelled else (table.name, before, None)
        for table in HOURLY
    )


def test_all_hours_are_compared_in_turn_and_one_that_differs_again(
    sink: Sink, database_url: SecretStr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "_POSTS_COMPARED", 3)
    times = [f"2026-11-{day}T{hour}:30:00Z" for day in (18, 20) for hour in (10, 11)]
    sink.write(*(upsert(str(number), created_at=at) for number, at in enumerate(times)))
    refresh_hours(sink.connection)
    hours = [datetime.fromisoformat(at).replace(minute=0) for at in times]
    assert compare_next_hours(database_url) == (hours[:3], {})
    with sink.connection.transaction():
        sink.connection.execute(
            "DELETE FROM masto.hourly_hashtag_accounts WHERE hour = %s", (hours[3],)
        )
    differing = {"hourly_hashtag_accounts": [hours[3]]}
    for _ in range(2):
        assert compare_next_hours(database_url) == (hours[3:], differing)
    sink.write(upsert("9", created_at=times[3]))
    # It waits for the refresh.
    assert compare_next_hours(database_url) == (hours[3:], {})
    assert compare_next_hours(database_url) == (hours[:3], {})
    monkeypatch.setattr(batch, "_POSTS_COMPARED", 100)
    monkeypatch.setattr(batch, "_HOURS_COMPARED", 1)
    assert compare_next_hours(database_url) == (hours[3:], {})
    monkeypatch.setattr(batch, "_HOURS_COMPARED", 100)
    for _ in range(2):
        assert compare_next_hours(database_url) == (hours, {})


@pytest.fixture
def hashtags(sink: Sink) -> Callable[..., None]:
    """`hashtags(hours_ago, tea=3)`: accounts per hashtag in a complete hour."""

    def put(hours_ago: int, **accounts: int) -> None:
        hour = "date_trunc('hour', now(), 'UTC') - %s * interval '1 hour'"
        with sink.connection.transaction():
            sink.connection.execute(
                f"INSERT INTO masto.hourly_activity VALUES ({hour}, 9, 9, 9, 0, 0, 0, 0, 'one', 'en')".encode(),  # noqa: S608, E501 - constants
                (hours_ago,),
            )
            for name, count in accounts.items():
                sink.connection.execute(
                    f"INSERT INTO masto.hourly_hashtag_accounts VALUES ({hour}, %s, %s)".encode(),  # noqa: S608 - constants
                    (hours_ago, count, name),
                )

    return put


_TRENDS = """
SELECT hashtag, accounts, usual_accounts, days_compared, ratio, round(score::numeric, 2)::text
  FROM masto.v_hashtag_trends ORDER BY score DESC, hashtag
"""


def test_a_hashtag_trends_by_the_accounts_above_its_usual(
    sink: Sink, hashtags: Callable[..., None]
) -> None:
    # The running hour is not complete, and an hour of another time of day is not compared.
    hashtags(0, late=50)
    hashtags(1, new=4, often=40, less=3, two=2)
    hashtags(2, new=100)
    hashtags(25, often=30, less=9)
    hashtags(49, often=34)
    hashtags(1 + 24 * 15, new=70)
    assert sink.rows(_TRENDS) == [
        ("new", 4, 0.0, 2, None, "4.00"),
        ("often", 40, 32.0, 2, 1.25, "1.39"),
    ]


def test_without_an_earlier_day_accounts_alone_order_the_hashtags(
    sink: Sink, hashtags: Callable[..., None]
) -> None:
    hashtags(3, tea=3, rum=5)
    assert sink.rows(_TRENDS) == [
        ("rum", 5, None, 0, None, "5.00"),
        ("tea", 3, None, 0, None, "3.00"),
    ]


def test_a_flood_by_one_account_is_no_trend(sink: Sink) -> None:
    languages = ["en", "de", "fr", "es"]
    flood = [
        upsert(str(number), username="spam@one.example", language=lang, hashtags=["flood"], **_PAST)
        for number, lang in enumerate(languages * 10)
    ]
    people = [
        upsert(f"p{number}", username=f"user{number}@one.example", hashtags=["tea"], **_PAST)
        for number in range(3)
    ]
    sink.write(*flood, *people)
    refresh_hours(sink.connection)
    assert sink.rows("SELECT hashtag, accounts FROM masto.v_hashtag_trends") == [("tea", 3)]


def test_views_sum_up_days_and_hours_of_the_week(sink: Sink) -> None:
    friday = ["2024-11-22T10:10:00Z", "2024-11-22T10:20:00Z", "2024-11-22T12:00:00Z"]
    sink.write(
        *(upsert(str(n), created_at=at, received_at=at) for n, at in enumerate(friday)),
        upsert(
            "late",
            instance="two.example",
            uri="https://two.example/late",
            created_at="2024-11-15T10:00:00Z",
            received_at="2024-11-22T10:00:00Z",
        ),
        delete("0", received_at="2024-11-22T12:30:00Z"),
        delete("never read", received_at="2024-11-22T12:30:00Z"),
    )
    refresh_hours(sink.connection)
    day, earlier = date(2024, 11, 22), date(2024, 11, 15)
    assert sink.rows(
        "SELECT * FROM masto.v_activity_by_weekday WHERE weekday = 5 AND hour_of_day < 13"
        " AND hours_count > 1 ORDER BY 2"
    ) == [(5, 10, 2, 2, 1.0), (5, 11, 0, 2, 0.0), (5, 12, 1, 2, 0.5)]
    assert sink.rows("SELECT * FROM masto.v_servers ORDER BY day") == [
        (earlier, "two.example", 1, 1.0, 0, 0, 0.0),
        (day, "one.example", 2, 1.0, 2, 1, 1 / 3),
    ]
    assert sink.rows("SELECT * FROM masto.v_lateness ORDER BY day") == [
        (earlier, "two.example", 1, 0, 0, 0, 0, 1),
        (day, "one.example", 2, 2, 0, 0, 0, 0),
    ]


def test_sentiment_of_a_hashtag_is_shown_from_five_labels_on(sink: Sink) -> None:
    with sink.connection.transaction():
        sink.connection.execute(
            "INSERT INTO masto.hourly_hashtags"
            " VALUES (%(at)s, 4, 4, 1, 1, 1, 'few', 'one', 'en'),"
            "        (%(at)s, 4, 4, 1, 1, 1, 'many', 'one', 'en'),"
            "        (%(at)s, 3, 3, 2, 0, 0, 'many', 'two', 'en'),"
            "        (%(at)s, 3, 3, 2, 0, 0, 'few', 'two', 'de')",
            {"at": _HOUR},
        )
        sum_days(sink.connection)
    assert sink.rows("SELECT * FROM masto.v_sentiment_by_hashtag") == [
        (date(2026, 11, 20), "many", "en", 7, 3, 1, 1, 2)
    ]
    # Nor can a condition of the reader's own look at the others.
    with sink.connection.transaction():
        sink.connection.execute(
            "CREATE FUNCTION pg_temp.seen(labels bigint) RETURNS boolean COST 0.000001"
            " LANGUAGE plpgsql AS $$ BEGIN ASSERT labels >= 5, 'it sees too few'; RETURN true;"
            " END $$"
        )
    looks = (
        "SELECT hashtag FROM masto.v_sentiment_by_hashtag WHERE pg_temp.seen(n_pos + n_neu + n_neg)"
    )
    assert sink.rows(looks) == [("many",)]


def test_sentiment_of_a_language_has_its_mean_over_labelled_posts(sink: Sink) -> None:
    with sink.connection.transaction():
        sink.connection.execute(
            "INSERT INTO masto.hourly_sentiment"
            " VALUES (%(at)s, 3, 'one', 'en', 'positive', 2.4), (%(at)s, 1, 'one', 'en',"
            " 'negative', 0.4), (%(at)s, 9, 'one', 'en', 'no_words', 0),"
            " (%(at)s, 2, 'one', 'xx', 'unsupported_language', 0)",
            {"at": _HOUR},
        )
        sum_days(sink.connection)
    assert sink.rows("SELECT * FROM masto.v_sentiment_by_language ORDER BY lang") == [
        (date(2026, 11, 20), "one", "en", 13, 3, 0, 1, 9, 0.7),
        (date(2026, 11, 20), "one", "xx", 2, 0, 0, 0, 2, None),
    ]


def test_readers_see_no_labels_of_an_hour_or_a_day() -> None:
    for sentiment, hashtags in ((HOURLY_SENTIMENT, HOURLY_HASHTAGS), DAILY):
        assert sentiment.readable_columns == ()
        assert not {"n_pos", "n_neu", "n_neg"} & set(hashtags.readable_columns)
