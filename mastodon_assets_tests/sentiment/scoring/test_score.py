from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pyspark.sql import Row, SparkSession

from mastodon_assets.config.settings import Settings
from mastodon_assets.sentiment.models.store import LoadedModel, ModelUnreadableError, load_model
from mastodon_assets.sentiment.scoring import score as score_module
from mastodon_assets.sentiment.scoring.score import (
    read_posts,
    score,
    score_pending,
    write_scores,
)
from mastodon_assets.sentiment.train import TrainingResult, train
from mastodon_assets.spark.jvm_end import SparkEndedError
from mastodon_assets.warehouse import locks
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.rollups import days_that_differ, rebuild_rollups
from mastodon_assets.warehouse.rows import count_rows
from mastodon_assets.warehouse.tables import TOOTS_UNSCORED
from mastodon_assets.warehouse.watermarks import bump_toots_version
from mastodon_assets_tests.support.ended_jvm import ended_jvm

CREATED = datetime(2026, 11, 20, 11, 59, tzinfo=UTC)


def _ignore(line: str) -> None:
    pass


def _score(
    spark: SparkSession,
    model: LoadedModel | None,
    *toots: tuple[str, str],
    low: float = 0.45,
    high: float = 0.55,
) -> list[Row]:
    rows = [(number, number * 10, CREATED, lang, text) for number, (lang, text) in enumerate(toots)]
    frame = spark.createDataFrame(
        rows, "id long, payload_hash long, created_at timestamp, lang string, text string"
    )
    return score(frame, model, low=low, high=high).orderBy("id").collect()


def test_a_labelled_toot_keeps_its_columns_and_names_its_model(
    spark: SparkSession, model: LoadedModel
) -> None:
    (row,) = _score(spark, model, ("en", "I am so happy @ada"))
    assert (row.id, row.payload_hash, row.lang, row.text) == (0, 0, "en", "I am so happy @ada")
    assert row.label_str == "positive"
    assert row.label_bin == 1
    assert row.prob_pos > 0.55
    assert row.reason is None
    assert row.model_version == model.version


def test_texts_without_words_are_not_labelled(spark: SparkSession, model: LoadedModel) -> None:
    rows = _score(
        spark,
        model,
        ("en", "https://happy.example/good"),
        ("en", "@happy@one.example @good"),
        ("en", ":happy_cat: 🚋 12345"),
        ("en", ""),
    )
    for row in rows:
        assert row.reason == "no_words", row.text
        assert row.label_str is row.label_bin is row.prob_pos is None
        assert row.model_version == model.version


def test_a_language_counts_by_the_first_part_of_its_tag(
    spark: SparkSession, model: LoadedModel
) -> None:
    tags = ("en", "EN", "en-GB", "en_US")
    rows = _score(spark, model, *((tag, "a good day") for tag in tags))
    assert [(row.lang, row.reason) for row in rows] == [(tag, None) for tag in tags]


def test_a_language_the_model_was_not_measured_for_is_not_labelled(
    spark: SparkSession, model: LoadedModel
) -> None:
    tags = ("ja", "und", "", "eng-x", "zh-TW", "sr-Latn", "de-en")
    rows = _score(spark, model, *((tag, "a good day") for tag in tags))
    assert [row.lang for row in rows] == list(tags)
    for row in rows:
        assert row.reason == "unsupported_language", row.lang
        assert row.label_str is row.label_bin is row.prob_pos is None
        assert row.text == "a good day"


def test_a_very_long_text_is_scored_by_its_beginning_and_kept_whole(
    spark: SparkSession, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A text of MAX_SCORED characters takes seconds.
    monkeypatch.setattr(score_module, "MAX_SCORED", 500)
    beginning = "I am so happy 😀. " * 30
    whole = beginning + "I am so sad. " * 1_000
    long, short = _score(spark, model, ("en", whole), ("en", whole[:500]))
    assert long.text == whole
    assert (long.label_str, long.prob_pos) == ("positive", short.prob_pos)


def test_without_a_model_every_toot_says_so(spark: SparkSession) -> None:
    for row in _score(spark, None, ("en", "a good day"), ("ja", "猫"), ("en", "")):
        assert row.reason == "no_model"
        assert row.label_str is row.prob_pos is row.model_version is None


def test_the_edges_of_the_neutral_band_belong_to_the_labels(
    spark: SparkSession, model: LoadedModel
) -> None:
    toot = ("en", "this album is good")
    probability = _score(spark, model, toot)[0].prob_pos
    assert 0.5 < probability < 0.99

    def label(low: float, high: float) -> tuple[str, int]:
        (row,) = _score(spark, model, toot, low=low, high=high)
        return row.label_str, row.label_bin

    assert label(0.1, probability) == ("positive", 1)
    assert label(0.1, probability + 1e-9) == ("neutral", 1)
    assert label(probability, 0.999) == ("negative", 1)
    assert label(probability - 1e-9, 0.999) == ("neutral", 1)


# The refresh of toots_sentiment.


@pytest.fixture
def url(database_url: SecretStr) -> SecretStr:
    """The module's database with no toots and no scores."""
    with transaction(database_url) as connection:
        connection.execute(
            "TRUNCATE masto.toots_raw, masto.toots_sentiment, masto.toots_unscored,"
            " masto.asset_progress CASCADE"
        )
    return database_url


@pytest.fixture
def champion_model(
    spark: SparkSession, settings: Settings, trained: TrainingResult
) -> TrainingResult:
    """The synthetic model as champion, whatever an earlier test did to the table."""
    return train(lambda: spark, settings, _ignore)


def _put_toot(url: SecretStr, id_: int, text: str, *, lang: str = "en", payload: int = 1) -> None:
    with transaction(url) as connection:
        connection.execute("DELETE FROM masto.toots_raw WHERE id = %s", (id_,))
        connection.execute(
            """
            INSERT INTO masto.toots_raw
                   (id, created_at, received_at, event_at, payload_hash, favourites, reblogs,
                    replies, is_bot, is_sensitive, instance, status_id, uri, username, lang,
                    hashtags, content_txt)
            VALUES (%(id)s, %(at)s, %(at)s, %(at)s, %(payload)s, 0, 0, 0, false, false,
                    'one.example', %(key)s, %(key)s, 'ada@one.example', %(lang)s, '{}', %(text)s)
            """,
            {
                "id": id_,
                "at": CREATED,
                "payload": payload,
                "key": str(id_),
                "lang": lang,
                "text": text,
            },
        )
        # As the merge queues it.
        connection.execute(
            "INSERT INTO masto.toots_unscored VALUES (%s) ON CONFLICT DO NOTHING", (id_,)
        )
        bump_toots_version(connection)


def _rows(url: SecretStr) -> dict[int, dict[str, Any]]:
    with transaction(url) as connection:
        cursor = connection.execute("SELECT * FROM masto.toots_sentiment ORDER BY id")
        assert cursor.description is not None
        names = [column.name for column in cursor.description]
        return {
            row["id"]: row for row in (dict(zip(names, values, strict=True)) for values in cursor)
        }


def _progress(url: SecretStr) -> tuple[int, str | None, int]:
    """toots_version and model_version noted, and the version that the toots have."""
    with transaction(url) as connection:
        row = connection.execute(
            "SELECT p.toots_version, p.model_version, d.version"
            "  FROM masto.asset_progress p, masto.data_versions d"
            " WHERE p.asset = 'toots_sentiment' AND d.dataset = 'toots_raw'"
        ).fetchone()
    assert row is not None
    noted, model, toots = row
    return noted, model, toots


def test_after_a_refresh_every_toot_has_one_row_and_progress_is_noted(
    spark: SparkSession, settings: Settings, url: SecretStr, champion_model: TrainingResult
) -> None:
    _put_toot(url, 1, "I am so happy")
    _put_toot(url, -2, "I am not happy")
    _put_toot(url, 3, "今日は", lang="ja")
    _put_toot(url, -(2**63), "https://one.example/")
    result = score_pending(lambda: spark, settings, _ignore)
    rows = _rows(url)
    assert {id_: row["label_str"] or row["reason"] for id_, row in rows.items()} == {
        1: "positive",
        -2: "negative",
        3: "unsupported_language",
        -(2**63): "no_words",
    }
    assert result.scored == 4
    assert result.by_outcome == {
        "positive": 1,
        "negative": 1,
        "unsupported_language": 1,
        "no_words": 1,
    }
    assert rows[1]["created_at"] == CREATED
    noted, model_version, current = _progress(url)
    assert (noted, model_version) == (current, champion_model.version)


def test_scoring_twice_changes_no_row(
    spark: SparkSession, settings: Settings, url: SecretStr, champion_model: TrainingResult
) -> None:
    _put_toot(url, 1, "I am so happy")
    _put_toot(url, 2, "今日は", lang="ja")
    score_pending(lambda: spark, settings, _ignore)
    before = _rows(url)
    assert score_pending(lambda: spark, settings, _ignore).scored == 0
    assert _rows(url) == before


def test_an_edited_toot_is_scored_again_and_others_are_not(
    spark: SparkSession, settings: Settings, url: SecretStr, champion_model: TrainingResult
) -> None:
    _put_toot(url, 1, "I am so happy")
    _put_toot(url, 2, "what a good day")
    score_pending(lambda: spark, settings, _ignore)
    before = _rows(url)
    _put_toot(url, 1, "I am so sad", payload=2)
    assert score_pending(lambda: spark, settings, _ignore).by_outcome == {"negative": 1}
    after = _rows(url)
    assert after[1]["text"] == "I am so sad"
    assert after[2] == before[2]


def test_a_refresh_looks_at_what_changed_and_a_rebuild_at_all(
    spark: SparkSession, settings: Settings, url: SecretStr, champion_model: TrainingResult
) -> None:
    _put_toot(url, 1, "I am so happy")
    assert score_pending(lambda: spark, settings, _ignore).scored == 1
    _put_toot(url, 2, "what a good day")
    with transaction(url) as connection:
        # As another program might.
        connection.execute("DELETE FROM masto.toots_sentiment")
    assert score_pending(lambda: spark, settings, _ignore).scored == 1
    assert set(_rows(url)) == {2}
    with transaction(url, snapshot=True) as connection:
        assert count_rows(connection, TOOTS_UNSCORED) == 0
    assert score_pending(lambda: spark, settings, _ignore, rebuild=True).scored == 1
    assert set(_rows(url)) == {1, 2}


def test_a_toot_edited_or_deleted_between_scoring_and_writing_is_left_for_the_next_refresh(
    spark: SparkSession, settings: Settings, url: SecretStr, champion_model: TrainingResult
) -> None:
    model = load_model(spark, Path(champion_model.path))
    for id_ in (1, 2, 3):
        _put_toot(url, id_, "I am so happy")
    with transaction(url, snapshot=True) as connection:
        pending = read_posts(connection, [3, 2, 1])
    scored = score(spark.createDataFrame(pending), model, low=0.45, high=0.55).toArrow()
    _put_toot(url, 2, "I am so sad", payload=2)
    with transaction(url) as connection:
        connection.execute("DELETE FROM masto.toots_raw WHERE id = 3")

    assert write_scores(url, scored) == {"positive": 1}

    assert set(_rows(url)) == {1}
    assert score_pending(lambda: spark, settings, _ignore).by_outcome == {"negative": 1}
    assert {id_: row["label_str"] for id_, row in _rows(url).items()} == {
        1: "positive",
        2: "negative",
    }


def test_what_had_no_model_is_scored_at_the_first_refresh_after_one_exists(
    spark: SparkSession, settings: Settings, url: SecretStr, champion_model: TrainingResult
) -> None:
    with transaction(url) as connection:
        connection.execute("DELETE FROM masto.sentiment_models")
    _put_toot(url, 1, "I am so happy")
    lines: list[str] = []
    assert score_pending(lambda: spark, settings, lines.append).by_outcome == {"no_model": 1}
    assert any("no sentiment model" in line for line in lines)
    assert score_pending(lambda: spark, settings, _ignore).scored == 0
    assert _progress(url)[1] is None
    train(lambda: spark, settings, _ignore)
    assert score_pending(lambda: spark, settings, _ignore).by_outcome == {"positive": 1}
    assert _progress(url)[1] == champion_model.version


def test_a_new_champion_scores_again_by_choice_and_what_was_broken_off_goes_on(
    spark: SparkSession,
    settings: Settings,
    url: SecretStr,
    champion_model: TrainingResult,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(5):
        _put_toot(url, number, "I am so happy")
    score_pending(lambda: spark, settings, _ignore)
    _, _, version = _progress(url)
    # As an earlier champion left them, one of them already scored again.
    with transaction(url) as connection:
        connection.execute(
            "UPDATE masto.toots_sentiment SET model_version = 'old', prob_pos = 0.5,"
            " label_str = 'neutral' WHERE id > 0"
        )
    assert score_pending(lambda: spark, settings, _ignore).scored == 0
    monkeypatch.setattr(score_module, "_ROWS_PER_CHUNK", 3)
    lines: list[str] = []
    assert score_pending(lambda: spark, settings, lines.append, rescore=True).by_outcome == {
        "positive": 4
    }
    assert "scored 3 of 4 posts" in lines
    assert "scored 4 of 4 posts" in lines
    rows = _rows(url)
    assert len(rows) == 5
    assert {row["model_version"] for row in rows.values()} == {champion_model.version}
    # Charts and files show other labels: they are due.
    assert _progress(url)[2] > version
    version = _progress(url)[2]
    assert score_pending(lambda: spark, settings, _ignore, rescore=True).scored == 0
    assert _progress(url)[2] == version


def test_one_post_scored_again_moves_only_its_hour_and_its_day(
    spark: SparkSession, settings: Settings, url: SecretStr, champion_model: TrainingResult
) -> None:
    days = {number: CREATED - timedelta(days=number) for number in range(3)}
    for number, at in days.items():
        _put_toot(url, number, "I am so happy")
        with transaction(url) as connection:
            connection.execute(
                "UPDATE masto.toots_raw SET event_at = %s WHERE id = %s", (at, number)
            )
    score_pending(lambda: spark, settings, _ignore)
    with transaction(url) as connection:
        # As an earlier champion left it.
        connection.execute(
            "UPDATE masto.toots_sentiment SET model_version = 'old', prob_pos = 0.1,"
            " label_str = 'negative' WHERE id = 1"
        )
        rebuild_rollups(connection)
        connection.execute("DELETE FROM masto.changed_hours")
    before = _totals(url)
    assert score_pending(lambda: spark, settings, _ignore, rescore=True).scored == 1
    after = _totals(url)
    assert {day for day, *_ in before ^ after} == {days[1].date()}
    with transaction(url, snapshot=True) as connection:
        hours = connection.execute("SELECT hour FROM masto.changed_hours").fetchall()
    assert hours == [(days[1].replace(minute=0, second=0, microsecond=0),)]


def _totals(url: SecretStr) -> set[tuple[Any, ...]]:
    """The rows of the sums, each with the transaction that wrote it."""
    with transaction(url, snapshot=True) as connection:
        found = connection.execute(
            "SELECT day, outcome, toots_count, xmin::text FROM masto.sentiment_totals"
        )
        return set(found)


def test_a_jvm_without_memory_is_named_and_the_posts_wait_for_the_next_refresh(
    spark: SparkSession, settings: Settings, url: SecretStr, champion_model: TrainingResult
) -> None:
    _put_toot(url, 1, "I am so happy")
    with ended_jvm() as session, pytest.raises(SparkEndedError, match="SPARK_DRIVER_MEMORY"):
        score_pending(session, settings, _ignore)
    assert score_pending(lambda: spark, settings, _ignore).scored == 1


def test_many_chunks_give_the_same_as_one(
    spark: SparkSession,
    settings: Settings,
    url: SecretStr,
    champion_model: TrainingResult,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = ["I am so happy", "I am so sad", "https://one.example/", "what a good day", "ugly soup"]
    for number, text in enumerate(texts):
        _put_toot(url, number - 2, text)
    score_pending(lambda: spark, settings, _ignore)
    in_one = {id_: (row["prob_pos"], row["reason"]) for id_, row in _rows(url).items()}
    with transaction(url) as connection:
        connection.execute("TRUNCATE masto.toots_sentiment")
    monkeypatch.setattr(score_module, "_ROWS_PER_CHUNK", 3)
    monkeypatch.setattr(locks, "_FIRST_CHUNK", 2)
    monkeypatch.setattr(locks, "_LARGEST_CHUNK", 2)
    assert score_pending(lambda: spark, settings, _ignore, rebuild=True).scored == 5
    assert {id_: (row["prob_pos"], row["reason"]) for id_, row in _rows(url).items()} == in_one


def test_a_champion_that_cannot_be_read_is_an_error_and_writes_nothing(
    spark: SparkSession,
    settings: Settings,
    url: SecretStr,
    champion_model: TrainingResult,
    tmp_path: Path,
) -> None:
    _put_toot(url, 1, "I am so happy")
    with transaction(url) as connection:
        connection.execute(
            "UPDATE masto.sentiment_models SET path = %s", (str(tmp_path / "nosuch"),)
        )
    with pytest.raises(ModelUnreadableError, match="nosuch"):
        score_pending(lambda: spark, settings, _ignore)
    assert _rows(url) == {}
    with transaction(url) as connection:
        connection.execute("DELETE FROM masto.sentiment_models")


def _no_spark() -> SparkSession:
    raise AssertionError("Spark was started")


def test_spark_is_not_started_when_no_post_waits_for_a_model(
    settings: Settings, url: SecretStr, champion_model: TrainingResult
) -> None:
    assert score_pending(_no_spark, settings, _ignore).scored == 0
    with transaction(url) as connection:
        connection.execute("DELETE FROM masto.sentiment_models")
    _put_toot(url, 1, "I am so happy")
    assert score_pending(_no_spark, settings, _ignore).by_outcome == {"no_model": 1}


def test_changed_thresholds_are_applied_to_stored_scores_without_spark(
    spark: SparkSession, settings: Settings, url: SecretStr, champion_model: TrainingResult
) -> None:
    texts = ("I am so happy", "I am so sad", "the bus stops at the square", "what a good day")
    for number, text in enumerate(texts):
        _put_toot(url, number, text)
    score_pending(lambda: spark, settings, _ignore)
    with transaction(url) as connection:
        rebuild_rollups(connection)
    before = _rows(url)
    _, _, version = _progress(url)
    # Just above the second probability, exactly at the third.
    probabilities = sorted(row["prob_pos"] for row in before.values())
    low, high = probabilities[1], probabilities[2]
    changed = settings.model_copy(update={"neutral_low": low - 1e-9, "neutral_high": high + 1e-9})

    result = score_pending(_no_spark, changed, _ignore)

    after = _rows(url)
    expected = {
        row.id: row.label_str
        for row in _score(
            spark,
            load_model(spark, Path(champion_model.path)),
            *(("en", text) for text in texts),
            low=low - 1e-9,
            high=high + 1e-9,
        )
    }
    assert {id_: row["label_str"] for id_, row in after.items()} == expected
    assert result.relabelled == sum(
        before[id_]["label_str"] != label for id_, label in expected.items()
    )
    assert result.relabelled > 0
    assert [row | {"label_str": ""} for row in after.values()] == [
        row | {"label_str": ""} for row in before.values()
    ]
    # Charts are due, sums are right, and a second refresh has nothing to do.
    assert _progress(url)[2] > version
    with transaction(url) as connection:
        assert days_that_differ(connection, None) == []
    assert score_pending(_no_spark, changed, _ignore).relabelled == 0


def test_labels_of_a_three_class_model_have_no_thresholds(
    spark: SparkSession, settings: Settings, url: SecretStr, champion_model: TrainingResult
) -> None:
    _put_toot(url, 1, "I am so happy")
    score_pending(lambda: spark, settings, _ignore)
    with transaction(url) as connection:
        connection.execute(
            "UPDATE masto.sentiment_models SET metrics = metrics || '{\"classes\": {}}'"
        )
    changed = settings.model_copy(update={"neutral_low": 0.0, "neutral_high": 1.0})
    assert score_pending(_no_spark, changed, _ignore).relabelled == 0
    assert _rows(url)[1]["label_str"] == "positive"
    with transaction(url) as connection:
        connection.execute("DELETE FROM masto.sentiment_models")
