from collections.abc import Sequence
from pathlib import Path

import pytest
from pyspark.ml import PipelineModel
from pyspark.sql import SparkSession

from mastodon_assets.sentiment.pipeline import cleaning_stages, prob_pos
from mastodon_assets.sentiment.store import LoadedModel
from mastodon_assets.spark_session import file_uri

CASES: list[tuple[str | None, list[str]]] = [
    ("I'm NOT happy, don't ask", ["i'm", "not", "¬happy", "don't", "¬ask"]),
    ("Don’t worry", ["don't", "¬worry"]),
    ("see https://one.example/great?x=1 now", ["see", "now"]),
    ("see www.great.example now", ["see", "now"]),
    ("see one.example/@ada/great… now", ["see", "now"]),
    ("great-shop.com is closed", ["is", "closed"]),
    ("great.Thanks", ["great", "thanks"]),
    ("@happy@one.example hello @sad", ["hello"]),
    ("mail ada.love@one.example today", ["mail", "today"]),
    (":blobcat_happy: hi:) at 10:30:45", ["hi", "at"]),
    ("not bad at all, it is good", ["not", "¬bad", "¬at", "¬all", "it", "is", "good"]),
    ("not cheap but good", ["not", "¬cheap", "but", "good"]),
    ('dont say "never" again. ok', ["dont", "¬say", "¬never", "¬again", "ok"]),
    ("no :) I mean it", ["no", "happy", "i", "mean", "it"]),
    ("a knot, a ¬ sign, nothing", ["a", "knot", "a", "sign", "nothing"]),
    (
        "I ❤️ it <3 :-( 😀😢👍 :D",
        ["i", "love", "it", "love", "sad", "happy", "sad", "great", "happy"],
    ),
    ("items (7 and 8) at 8:30", ["items", "and", "at"]),
    ("#HappyMonday #sad", ["happy", "monday", "sad"]),
    ("I have an iPhone", ["i", "have", "an", "iphone"]),
    ("soooo goooood", ["soo", "good"]),
    ("ein schöner Tag, gr8", ["ein", "schöner", "tag", "gr8"]),
    ("https://one.example @ada :sad:", []),
    ("猫はかわいい", []),
    ("Привет", []),
    ("😀😀 12345 !!!", ["happy", "happy"]),
    ("🚋🏠 12345 !!!", []),
    ("", []),
    (None, []),
]


def test_words_of_a_text(spark: SparkSession) -> None:
    found = _words(spark, [text for text, _ in CASES])
    for (text, expected), words in zip(CASES, found, strict=True):
        assert words == expected, text


def test_a_text_of_100_000_characters_without_a_break_does_no_harm(spark: SparkSession) -> None:
    units = [
        "a",
        "a-",
        "a.",
        "a'",
        "a@",
        ":a",
        "#aB",
        "@",
        ".com/",
        "www.",
        "not ",
        "n't",
        'not"',
        ":)",
    ]
    found = _words(spark, [unit * (100_000 // len(unit)) for unit in units])
    assert len(found) == len(units)
    assert found[0] == ["aa"]


def test_negation_turns_the_score(spark: SparkSession, model: LoadedModel) -> None:
    happy, not_happy = _probabilities(spark, model.pipeline, ["I am happy", "I am not happy"])
    assert happy > 0.55
    assert not_happy < 0.45


def test_a_link_or_a_handle_changes_nothing(spark: SparkSession, model: LoadedModel) -> None:
    plain, dressed = _probabilities(
        spark,
        model.pipeline,
        ["what a day", "@happy what a day https://love.example/great :sad_cat:"],
    )
    assert plain == dressed


def test_alone_in_a_batch_and_after_saving_a_text_has_one_probability(
    spark: SparkSession, model: LoadedModel, tmp_path: Path
) -> None:
    texts = [f"the {word} train is not late number {word}" for word in "abcdefghij"]
    model.pipeline.save(file_uri(tmp_path / "pipeline"))
    saved = PipelineModel.load(file_uri(tmp_path / "pipeline"))
    in_a_batch = _probabilities(spark, model.pipeline, texts * 20)
    alone = _probabilities(spark, model.pipeline, texts[3:4])
    after_saving = _probabilities(spark, saved, texts)
    assert in_a_batch[3] == pytest.approx(alone[0], abs=1e-9)
    assert after_saving == pytest.approx(in_a_batch[: len(texts)], abs=1e-9)


def _words(spark: SparkSession, texts: Sequence[str | None]) -> list[list[str]]:
    rows = spark.createDataFrame(list(enumerate(texts)), "place int, text string")
    for stage in cleaning_stages():
        rows = stage.transform(rows)
    return [row.words for row in rows.orderBy("place").collect()]


def _probabilities(spark: SparkSession, pipeline: PipelineModel, texts: list[str]) -> list[float]:
    rows = spark.createDataFrame(list(enumerate(texts)), "place int, text string")
    scored = pipeline.transform(rows).select("place", prob_pos().alias("prob_pos"))
    return [row.prob_pos for row in scored.orderBy("place").collect()]
