from collections.abc import Sequence
from pathlib import Path

import pytest
from pyspark.ml import PipelineModel, Transformer
from pyspark.sql import Row, SparkSession

from mastodon_assets.sentiment.features.pipeline import (
    PipelineParameters,
    cleaning_stages,
    prob_pos,
    term_stages,
)
from mastodon_assets.sentiment.models.store import LoadedModel
from mastodon_assets.sentiment.train import TrainingResult
from mastodon_assets.spark.session import file_uri

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


TOKENS: list[tuple[str | None, list[str]]] = [
    ("Not now, ok?!", ["^", "not", "¬now", ",", "ok", "?!", "$"]),
    ("wow!!!!! ...... gr8", ["^", "wow", "!!!", "!!", "...", "...", "gr8", "$"]),
    ("12345", ["^", "1234", "5", "$"]),
    ("not 7 days", ["^", "not", "7", "¬days", "$"]),
    ("https://one.example @ada 猫", ["^", "$"]),
    ("", ["^", "$"]),
    (None, ["^", "$"]),
]  # fmt: skip


def test_tokens_are_words_numbers_and_punctuation_between_two_ends(spark: SparkSession) -> None:
    rows = _cleaned(spark, [text for text, _ in TOKENS])
    for (text, expected), row in zip(TOKENS, rows, strict=True):
        assert row.tokens == expected, text


def test_each_negator_prefixes_the_words_that_follow(spark: SparkSession) -> None:
    words = (
        "not no never nothing nobody nowhere none nor neither without cannot hardly barely cant"
        " dont doesnt didnt isnt wasnt wont wouldnt couldnt shouldnt aint havent hasnt hadnt arent"
        " werent don't can't mustn't needn't"
    )
    negators = words.split()
    found = _words(spark, [f"I {negator} see" for negator in negators])
    assert found == [["i", negator, "¬see"] for negator in negators]


def test_terms_of_different_kinds_have_different_hashes(spark: SparkSession) -> None:
    (row,) = _cleaned(spark, ["abcde fghij abcde"], *term_stages(PipelineParameters()))
    # `^`, `$` and two words; four pairs; five with one between, or nothing after.
    assert len(set(row.word_ngrams)) == 4 + 4 + 5
    text = " abcde fghij abcde "
    character_ngrams = {text[at : at + n] for n in (4, 6) for at in range(len(text) + 1 - n)}
    assert len(set(row.terms)) == len(set(row.word_ngrams)) + len(character_ngrams)


def test_a_text_of_100_000_characters_without_a_break_is_tokenized(spark: SparkSession) -> None:
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


def test_negation_reverses_the_score(spark: SparkSession, model: LoadedModel) -> None:
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


def test_alone_in_a_batch_and_by_the_saved_stages_a_text_has_one_probability(
    spark: SparkSession, trained: TrainingResult, model: LoadedModel
) -> None:
    texts = [f"the {word} train is not late number {word}" for word in "abcdefghij"]
    saved = PipelineModel.load(file_uri(Path(trained.path) / "pipeline"))
    in_a_batch = _probabilities(spark, model.pipeline, texts * 20)
    alone = _probabilities(spark, model.pipeline, texts[3:4])
    by_saved_stages = _probabilities(spark, saved, texts)
    assert in_a_batch[3] == pytest.approx(alone[0], abs=1e-9)
    assert by_saved_stages == pytest.approx(in_a_batch[: len(texts)], abs=1e-9)


def _words(spark: SparkSession, texts: Sequence[str | None]) -> list[list[str]]:
    return [row.words for row in _cleaned(spark, texts)]


def _cleaned(spark: SparkSession, texts: Sequence[str | None], *further: Transformer) -> list[Row]:
    rows = spark.createDataFrame(list(enumerate(texts)), "place int, text string")
    for stage in (*cleaning_stages(), *further):
        rows = stage.transform(rows)
    return rows.orderBy("place").collect()


def _probabilities(spark: SparkSession, pipeline: PipelineModel, texts: list[str]) -> list[float]:
    rows = spark.createDataFrame(list(enumerate(texts)), "place int, text string")
    scored = pipeline.transform(rows).select("place", prob_pos().alias("prob_pos"))
    return [row.prob_pos for row in scored.orderBy("place").collect()]
