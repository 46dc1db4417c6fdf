"""What a model keeps of its training for people and for later: curves, words, telling n-grams.

What belongs here: the keys `curves`, `reference` and `telling_ngrams` of its metrics, and its
vocabulary. All of it holds for any model, because it only asks for probabilities. What becomes of
it: `drift` and the model's charts.
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
# Counting is for a sample: n-grams of a million texts would take as long as training.
_SAMPLED_TEXTS = 100_000
_MOST_GRAMS = 500_000
# An n-gram is told where it was seen so often, in a small corpus a little less: it is then
# nobody's own.
_OFTEN = 20
_OFTEN_IN_A_SMALL_CORPUS = 5
_SMALL_CORPUS = 20_000
_TOLD = 15
# The words as `drift.words_of` finds them, for Spark: same meaning, Java's notation.
_NO_WORDS = r"\S*(?:://|@|www\.)\S*"
_WORD = r"\p{L}+(?:'\p{L}+)*"


def diagnose(
    fitted: PipelineModel, trained_on: DataFrame, train_rows: int, held_out: pa.Table
) -> tuple[dict[str, Any], list[str]]:
    """The keys for the metrics, and the vocabulary: words seen at least twice in training.

    `trained_on` has the column text and `train_rows` rows; `held_out` has text,
    target (0 or 1) and prob_pos.
    """
    grams = _count_grams(trained_on)
    vocabulary = sorted(gram for gram in grams if " " not in gram)
    targets, probabilities = held_out["target"].to_numpy(), held_out["prob_pos"].to_numpy()
    often = _OFTEN if train_rows >= _SMALL_CORPUS else _OFTEN_IN_A_SMALL_CORPUS
    frequent = [gram for gram, count in grams.items() if count >= often]
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
    """[mean probability, share of positives, rows] of each of ten equal bins that has rows."""
    bins = np.minimum((probabilities * _BINS).astype(int), _BINS - 1)
    points = []
    for number in range(_BINS):
        here = bins == number
        if rows := int(here.sum()):
            points.append([float(probabilities[here].mean()), float(targets[here].mean()), rows])
    return points


def roc(targets: Floats, probabilities: Floats) -> list[list[float]]:
    """[false positive rate, true positive rate] from (0, 0) to (1, 1), at most 51 points.

    Empty where one class is missing.
    """
    positives, negatives = float(targets.sum()), float((1 - targets).sum())
    if not positives or not negatives:
        return []
    order = np.argsort(-probabilities, kind="stable")
    # Rows of one probability are passed together.
    ends = np.append(np.flatnonzero(np.diff(probabilities[order])), len(order) - 1)
    true = np.append(0.0, np.cumsum(targets[order])[ends] / positives)
    false = np.append(0.0, np.cumsum(1 - targets[order])[ends] / negatives)
    kept = np.unique(np.linspace(0, len(true) - 1, _ROC_POINTS + 1).astype(int))
    return [[float(x), float(y)] for x, y in zip(false[kept], true[kept], strict=True)]


def _count_grams(texts: DataFrame) -> dict[str, int]:
    """Words and runs of two and three with the number of sampled texts they stand in, from 2 up."""
    counted = (
        texts.orderBy(F.xxhash64("text"))
        .limit(_SAMPLED_TEXTS)
        .select(F.explode(F.array_distinct(_grams())).alias("gram"))
        .groupBy("gram")
        .agg(F.count("*").alias("texts"))
        .where("texts >= 2 AND gram <> ''")
        .orderBy(F.desc("texts"), "gram")
        .limit(_MOST_GRAMS)
        .toArrow()
    )
    return dict(zip(*counted.to_pydict().values(), strict=True))


def _grams() -> Column:
    # Raw literals, so that a backslash is the regex's own.
    without_links = f'regexp_replace(lower(text), r"{_NO_WORDS}", " ")'
    words = f'regexp_extract_all({without_links}, r"{_WORD}", 0)'
    runs = [
        f"transform(sequence(1, greatest(size(w) - {n - 1}, 1)),"
        f" i -> array_join(slice(w, i, {n}), ' '))"
        for n in (2, 3)
    ]
    # A lambda's argument stands for the words, so that they are found once.
    return F.expr(f"flatten(transform(array({words}), w -> concat(w, {', '.join(runs)})))")


def _most_telling(
    fitted: PipelineModel, trained_on: DataFrame, grams: Iterable[str]
) -> dict[str, list[list[Any]]]:
    """By class, the n-grams to which alone the model gives the most extreme probabilities."""
    texts = pa.table({"text": pa.array(grams, pa.string())})
    scored = (
        fitted.transform(trained_on.sparkSession.createDataFrame(texts))
        .select("text", prob_pos().alias("prob_pos"))
        .toArrow()
    )
    rows = zip(*scored.to_pydict().values(), strict=True)
    pairs = sorted((list(row) for row in rows), key=lambda pair: (pair[1], pair[0]))
    return {"negative": pairs[:_TOLD], "positive": pairs[::-1][:_TOLD]}
