from pyspark.sql import SparkSession

from mastodon_assets.sentiment.evaluation.behavioural_suites import (
    abstention_texts,
    negation_pairs,
    suite_figures,
)
from mastodon_assets.sentiment.models.store import LoadedModel
from mastodon_assets.sentiment.scoring.score import score
from mastodon_assets.sentiment.train import TrainingResult
from mastodon_assets.sentiment.training.synthetic import synthetic_texts


def test_there_are_200_different_pairs_and_none_trains_a_model() -> None:
    pairs = negation_pairs()
    assert len(set(pairs)) == len(pairs) == 200
    texts = {text for pair in pairs for text in pair}
    assert not texts & {text for text, _ in synthetic_texts()}


def test_a_model_turns_with_negation_and_abstains_without_a_reason_to_decide(
    trained: TrainingResult,
) -> None:
    suites = trained.metrics["suites"]
    # A model of made-up sentences knows few words; one of a real corpus reaches far more.
    assert suites["negation"]["rows"] == 200
    assert suites["negation"]["accuracy"] >= 0.5
    assert suites["abstention"] == {"rows": len(abstention_texts(["en"])), "share": 1.0}


def test_what_a_model_serves_is_no_reason_to_abstain(
    spark: SparkSession, model: LoadedModel
) -> None:
    assert not [text for text, _ in abstention_texts(["en", "ja"]) if "猫" in text]
    none = LoadedModel("x", (), model.pipeline)
    assert suite_figures(spark, none)["negation"]["accuracy"] == 0


def test_a_text_declared_as_english_that_is_not_has_no_label(
    spark: SparkSession, model: LoadedModel
) -> None:
    texts = [
        ("Heute ist wirklich ein schrecklich trauriger Tag für uns alle", "en"),
        ("Aujourd'hui il fait très beau et je suis vraiment contente", "en-GB"),
        ("I am really happy with the weather in our garden today", "und"),
        ("I am really happy with the weather in our garden today", None),
        ("I am really happy with the weather in our garden today", "de"),
        ("I am really happy with the weather in our garden today", "EN_us"),
        ("happy", "en"),
        ("happy", "und"),
        (None, "en"),
    ]
    rows = spark.createDataFrame(
        [(place, *text) for place, text in enumerate(texts)], "place int, text string, lang string"
    )
    scored = score(rows, model, low=0.45, high=0.55).orderBy("place").collect()
    assert [row.reason for row in scored] == [
        "unsupported_language",
        "unsupported_language",
        None,
        None,
        None,
        None,
        None,
        "unsupported_language",
        "no_words",
    ]
    assert [row.lang for row in scored] == [lang for _, lang in texts]
