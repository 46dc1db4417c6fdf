from pathlib import Path

import numpy as np
from pyspark.sql import SparkSession

from mastodon_assets.sentiment.evaluation.diagnostics import _count_ngrams, reliability, roc
from mastodon_assets.sentiment.evaluation.drift import words_of
from mastodon_assets.sentiment.models.store import read_vocabulary
from mastodon_assets.sentiment.train import TrainingResult


def test_reliability_has_a_point_for_each_bin_with_rows() -> None:
    targets, probabilities = np.array([0.0, 1.0, 1.0]), np.array([0.1, 0.15, 1.0])
    assert reliability(targets, probabilities) == [[0.125, 0.5, 2], [1.0, 1.0, 1]]


def test_the_roc_goes_from_corner_to_corner_and_ties_are_one_step() -> None:
    targets = np.array([1.0, 0.0, 1.0, 0.0])
    assert roc(targets, np.array([0.9, 0.5, 0.5, 0.1])) == [
        [0.0, 0.0],
        [0.0, 0.5],
        [0.5, 1.0],
        [1.0, 1.0],
    ]
    assert roc(np.ones(3), np.ones(3)) == []
    many = roc(np.tile([0.0, 1.0], 500), np.linspace(0, 1, 1000))
    assert len(many) == 51
    assert (many[0], many[-1]) == ([0.0, 0.0], [1.0, 1.0])


def test_ngrams_are_of_one_to_three_words_seen_twice_without_links_and_handles(
    spark: SparkSession,
) -> None:
    text = "Don't go É2b @ada@one.example https://x.example"
    texts = [(f"{text} {number}",) for number in range(2)] + [("once ok",), ("ok ok",), ("",)]
    ngrams = _count_ngrams(spark.createDataFrame(texts, "text string"))
    assert ngrams == {
        "don't": 2,
        "go": 2,
        "é": 2,
        "b": 2,
        "don't go": 2,
        "go é": 2,
        "é b": 2,
        "don't go é": 2,
        "go é b": 2,
        "ok": 2,
    }
    # Spark and the check after a refresh mean the same by a word.
    assert {gram for gram in ngrams if " " not in gram} == {*words_of(text), "ok"}


def test_a_trained_model_keeps_its_diagnostics(trained: TrainingResult) -> None:
    metrics, vocabulary = trained.metrics, read_vocabulary(Path(trained.path))
    assert {"good", "bad", "not"} <= vocabulary
    assert metrics["reference"]["unknown_words"] < 0.1
    assert sum(metrics["reference"]["probabilities"]) == metrics["rows"]
    assert sum(rows for _, _, rows in metrics["curves"]["reliability"]) == metrics["rows"]
    assert metrics["curves"]["roc"][-1] == [1.0, 1.0]
    positive, negative = (metrics["telling_ngrams"][side] for side in ("positive", "negative"))
    assert len(positive) == len(negative) == 15
    assert positive[0][1] > 0.9
    assert negative[0][1] < 0.1
    assert all(len(gram.split()) <= 3 for gram, _ in positive + negative)
