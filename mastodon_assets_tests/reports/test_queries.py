"""The frames that charts and files are made from."""

from datetime import date, timedelta
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

from mastodon_assets.reports import queries
from mastodon_assets_tests.support.report_rows import (
    MONDAY,
    Post,
    insert_hashtags,
    insert_model,
    insert_posts,
)

_MIXED = [
    Post(MONDAY, "negative", 2),
    Post(MONDAY, "no_words", 1),
    Post(MONDAY, "unsupported_language", 4),
    Post(MONDAY + timedelta(days=3), "positive", 5),
    Post(MONDAY + timedelta(days=3), "neutral", 3),
    Post(MONDAY + timedelta(days=3), None, 2),
]


def test_labels_come_in_a_fixed_order_and_reasons_by_their_number(
    connection: Connection[Any],
) -> None:
    insert_posts(connection, _MIXED)
    frame = queries.sentiment_by_reason(connection)
    assert frame[["label_str", "reason", "n"]].values.tolist() == [
        ["positive", None, 5],
        ["neutral", None, 3],
        ["negative", None, 2],
        ["unlabelled", "unsupported_language", 4],
        ["unlabelled", "not_scored", 2],
        ["unlabelled", "no_words", 1],
    ]
    assert frame["first_day"].min() == MONDAY
    assert frame["last_day"].max() == MONDAY + timedelta(days=3)


def test_the_distribution_and_the_daily_view_count_the_same_posts(
    connection: Connection[Any],
) -> None:
    insert_posts(connection, _MIXED)
    distribution = queries.sentiment_distribution(connection)
    daily = queries.sentiment_daily(connection)
    assert dict(distribution.itertuples(index=False)) == {
        "positive": daily["n_pos"].sum(),
        "neutral": daily["n_neu"].sum(),
        "negative": daily["n_neg"].sum(),
        "unlabelled": daily["n_unscored"].sum(),
    }


def test_days_without_posts_between_the_first_and_the_last_are_zero(
    connection: Connection[Any],
) -> None:
    insert_posts(connection, _MIXED)
    days = [MONDAY + timedelta(days=offset) for offset in range(4)]
    toots = queries.toots_every_day(connection)
    assert toots["day"].tolist() == days
    assert toots["toots_count"].tolist() == [7, 0, 0, 10]
    sentiment = queries.sentiment_every_day(connection)
    assert sentiment["day"].tolist() == days
    assert sentiment["n_toosts"].tolist() == [7, 0, 0, 10]
    assert sentiment["n_unscored"].tolist() == [5, 0, 0, 2]


def test_a_post_dated_1970_is_counted_but_takes_no_axis(connection: Connection[Any]) -> None:
    insert_posts(connection, [Post(date(1970, 1, 1), "positive"), Post(MONDAY, "negative", 50)])
    for read, counts in (
        (queries.toots_every_day, "toots_count"),
        (queries.sentiment_every_day, "n_toosts"),
    ):
        columns = ["day", counts, "n_earlier", "n_later"]
        assert read(connection)[columns].values.tolist() == [[MONDAY, 50, 1, 0]]


def test_the_models_are_those_that_made_labels_whichever_scores_now(
    connection: Connection[Any],
) -> None:
    insert_model(connection, "a", "a.csv", "retired")
    insert_model(connection, "b", "synthetic (demo only)", "retired")
    insert_model(connection, "c", "c.csv", "champion")
    insert_posts(
        connection,
        [
            Post(MONDAY, "negative", 2, model="b"),
            Post(MONDAY, "positive", 1, model="a"),
            Post(MONDAY + timedelta(days=2), "neutral", 1, model="gone"),
            Post(MONDAY + timedelta(days=2), "no_words", 1, model="c"),
        ],
    )
    models = [["a", "a.csv"], ["b", "synthetic (demo only)"], ["gone", None]]
    assert queries.sentiment_by_reason(connection)["models"].tolist() == [models] * 4
    assert queries.sentiment_every_day(connection)["models"].tolist() == [models] * 3


def test_without_labels_there_are_no_models(connection: Connection[Any]) -> None:
    insert_model(connection, "a", "a.csv", "champion")
    insert_posts(connection, [Post(MONDAY, "no_words"), Post(MONDAY, None)])
    assert queries.sentiment_by_reason(connection)["models"].tolist() == [[], []]
    assert queries.sentiment_every_day(connection)["models"].tolist() == [[]]


def test_the_daily_frame_has_the_columns_of_the_view_and_only_days_with_posts(
    connection: Connection[Any],
) -> None:
    insert_posts(connection, _MIXED)
    frame = queries.sentiment_daily(connection)
    view = connection.execute("SELECT * FROM masto.v_sentiment_daily").description
    assert view is not None
    assert list(frame.columns) == [column.name for column in view]
    assert frame["day"].tolist() == [MONDAY, MONDAY + timedelta(days=3)]


def test_a_day_is_a_day_in_utc_whatever_the_session_says(connection: Connection[Any]) -> None:
    insert_posts(connection, [Post(MONDAY, "positive"), Post(date(2026, 10, 26), "positive")])
    connection.execute("SET LOCAL timezone = 'America/Los_Angeles'")
    days = queries.toots_every_day(connection)["day"]
    assert days.tolist() == [MONDAY + timedelta(days=offset) for offset in range(22)]


def test_hashtags_with_equal_counts_are_ordered_by_name(connection: Connection[Any]) -> None:
    insert_hashtags(connection, {"b": 3, "c": 9, "a": 3, "Ä": 3, "z": 3})
    frame = queries.top_hashtags(connection)
    assert frame["hashtag"].tolist() == ["c", "a", "b", "z", "Ä"]
    assert frame["n"].tolist() == [9, 3, 3, 3, 3]


def test_the_30_most_used_hashtags_know_of_all_the_others(connection: Connection[Any]) -> None:
    insert_hashtags(connection, {f"tag{number:02}": number for number in range(1, 41)})
    insert_hashtags(connection, {"tag40": 1}, day=MONDAY + timedelta(days=400))
    frame = queries.top_hashtags(connection)
    assert frame["hashtag"].tolist() == [f"tag{number:02}" for number in range(40, 10, -1)]
    assert frame["n"].iloc[0] == 41
    assert set(frame["all_hashtags"]) == {40}
    assert set(frame["all_uses"]) == {sum(range(41)) + 1}
    assert set(frame["first_day"]) == {MONDAY}
    assert set(frame["last_day"]) == {MONDAY + timedelta(days=400)}


def test_frames_do_not_depend_on_the_row_factory_of_the_connection(
    connection: Connection[Any],
) -> None:
    insert_hashtags(connection, {"a": 3})
    connection.row_factory = dict_row
    assert queries.top_hashtag_counts(connection).values.tolist() == [["a", 3]]
