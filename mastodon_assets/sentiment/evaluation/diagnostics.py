"""Model diagnostics: curves, reference values, strongest n-grams and the vocabulary of a training.

What belongs here: the keys `curves`, `reference` and `telling_ngrams` of a model's metrics, and its
vocabulary. They need probabilities only, so they work for any model. `drift` and the model's charts
read them.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.ml import PipelineModel
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from mastodon_assets.sentiment.evaluation.drift import histogram, unknown_share
from mastodon_assets.sentiment.evaluation.evaluate import Floats
from mastodon_assets.sentiment.features.pipeline import prob_pos

_BINS = 10
_ROC_POINTS = 50
# A sample is counted: counting the n-grams of a million texts would take as long as training.
_SAMPLED_TEXTS = 100_000
_MAX_NGRAMS = 500_000
# An n-gram is shown if this many texts have it, fewer in a small corpus: it then identifies nobody.
_FREQUENT = 20
_FREQUENT_IN_A_SMALL_CORPUS = 5
_SMALL_CORPUS = 20_000
_SHOWN_NGRAMS = 15
# The words that `drift.words_of` finds, as Java regexes for Spark.
_NO_WORDS = r"\S*(?:://|@|www\.)\S*"
_WORD = r"\p{L}+(?:'\p{L}+)*"


def diagnose(
    fitted: PipelineModel, trained_on: DataFrame, train_rows: int, held_out: pa.Table
) -> tuple[dict[str, Any], list[str]]:
    """Return the keys for the metrics, and the vocabulary: words seen at least twice in training.

    Args:
        fitted: the fitted pipeline.
        trained_on: column text, the training texts.
        train_rows: number of rows of `trained_on`.
        held_out: columns text, target (0 or 1) and prob_pos.
    """
    ngrams = _count_ngrams(trained_on)
    vocabulary = sorted(ngram for ngram in ngrams if " " not in ngram)
    targets, probabilities = held_out["target"].to_numpy(), held_out["prob_pos"].to_numpy()
    enough = _FREQUENT if train_rows >= _SMALL_CORPUS else _FREQUENT_IN_A_SMALL_CORPUS
    frequent = [ngram for ngram, count in ngrams.items() if count >= enough]
    return {
        "curves": {
            "reliability": reliability(targets, probabilities),
            "roc": roc(targets, probabilities),
        },
        "reference": {
            "probabilities": histogram(probabilities.tolist()),
            "unknown_words": unknown_share(held_out["text"].to_pylist(), set(vocabulary)),
        },
        "telling_ngrams": _most_telling(fitted, trained_on, frequent),
    }, vocabulary


def reliability(targets: Floats, probabilities: Floats) -> list[list[float]]:
    """Return [mean probability, share of positives, rows] of each non-empty one of ten bins."""
    bins = np.minimum((probabilities * _BINS).astype(int), _BINS - 1)
    points = []
    for number in range(_BINS):
        here = bins == number
        if rows := int(here.sum()):
            points.append([float(probabilities[here].mean()), float(targets[here].mean()), rows])
    return points


def roc(targets: Floats, probabilities: Floats) -> list[list[float]]:
    """Return at most 51 points [false positive rate, true positive rate], (0, 0) to (1, 1).

    Empty if one class is missing.
    """
    positives, negatives = float(targets.sum()), float((1 - targets).sum())
    if not positives or not negatives:
        return []
    order = np.argsort(-probabilities, kind="stable")
    # Rows of the same probability form one step.
    ends = np.append(np.flatnonzero(np.diff(probabilities[order])), len(order) - 1)
    true = np.append(0.0, np.cumsum(targets[order])[ends] / positives)
    false = np.append(0.0, np.cumsum(1 - targets[order])[ends] / negatives)
    kept = np.unique(np.linspace(0, len(true) - 1, _ROC_POINTS + 1).astype(int))
    return [[float(x), float(y)] for x, y in zip(false[kept], true[kept], strict=True)]


def _count_ngrams(texts: DataFrame) -> dict[str, int]:
    """Count the sampled texts of each 1- to 3-gram of words; those of one text are left out."""
    counted = (
        texts.orderBy(F.xxhash64("text"))
        .limit(_SAMPLED_TEXTS)
        .select(F.explode(F.array_distinct(_ngrams())).alias("ngram"))
        .groupBy("ngram")
        .agg(F.count("*").alias("texts"))
        .where("texts >= 2 AND ngram <> ''")
        .orderBy(F.desc("texts"), "ngram")
        .limit(_MAX_NGRAMS)
        .toArrow()
    )
    return dict(zip(*counted.to_pydict().values(), strict=True))


def _ngrams() -> Column:
    # Raw literals, so that a backslash belongs to the regex.
    without_links = f'regexp_replace(lower(text), r"{_NO_WORDS}", " ")'
    words = f'regexp_extract_all({without_links}, r"{_WORD}", 0)'
    runs = [
        f"transform(sequence(1, greatest(size(w) - {n - 1}, 1)),"
        f" i -> array_join(slice(w, i, {n}), ' '))"
        for n in (2, 3)
    ]
    # The words are the argument of a lambda, so that they are found once.
    return F.expr(f"flatten(transform(array({words}), w -> concat(w, {', '.join(runs)})))")


def _most_telling(
    fitted: PipelineModel, trained_on: DataFrame, ngrams: Iterable[str]
) -> dict[str, list[list[Any]]]:
    """Return by class the n-grams with the most extreme probabilities when scored alone."""
    texts = pa.table({"text": pa.array(ngrams, pa.string())})
    scored = (
        fitted.transform(trained_on.sparkSession.createDataFrame(texts))
        .select("text", prob_pos().alias("prob_pos"))
        .toArrow()
    )
    rows = zip(*scored.to_pydict().values(), strict=True)
    pairs = sorted((list(row) for row in rows), key=lambda pair: (pair[1], pair[0]))
    return {"negative": pairs[:_SHOWN_NGRAMS], "positive": pairs[::-1][:_SHOWN_NGRAMS]}
