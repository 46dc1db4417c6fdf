"""Explanations of a label: how the probability changes without each of the text's words.

What belongs here: explanations for any model, because they only need its probabilities.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import SparkSession

from mastodon_assets.sentiment.models.store import LoadedModel
from mastodon_assets.sentiment.scoring.score import MAX_SCORED, score

# A bound for very long texts: each word costs one more score.
_MAX_WORDS = 300
_SMALLEST_PROBABILITY = 1e-12


@dataclass(frozen=True)
class Explanation:
    """The label of a text, as in `toots_sentiment`, and the words that decided.

    `words` has each distinct word with its effect, the strongest first. The effect is the fall of
    the log odds of positive when all occurrences of the word are removed.
    """

    model_version: str
    prob_pos: float | None
    label_bin: int | None
    label_str: str | None
    reason: str | None
    words: tuple[tuple[str, float], ...]


def explain(
    spark: SparkSession, model: LoadedModel, text: str, lang: str, *, low: float, high: float
) -> Explanation:
    """Score the text, and the text without each of its first 300 distinct words.

    Args:
        spark: the session that scores.
        model: the model.
        text: the text.
        lang: the declared language of the text.
        low: see `score`.
        high: see `score`.
    """
    text, lang = _valid(text), _valid(lang)
    words, variants = without_each_word(text)
    texts = pa.table(
        {
            "place": range(len(variants)),
            "lang": [lang] * len(variants),
            "text": variants,
        }
    )
    scored = score(spark.createDataFrame(texts), model, low=low, high=high).toArrow()
    whole, *without = scored.sort_by("place").to_pylist()
    return Explanation(
        model_version=model.version,
        prob_pos=whole["prob_pos"],
        label_bin=whole["label_bin"],
        label_str=whole["label_str"],
        reason=whole["reason"],
        words=effects(words, whole["prob_pos"], [variant["prob_pos"] for variant in without]),
    )


def without_each_word(text: str) -> tuple[list[str], list[str]]:
    """Return the first 300 distinct words, and the text followed by the text without each of them.

    The unscored end of a long text is left out: it would move up when a word is removed.
    """
    text = text[:MAX_SCORED]
    parts = text.split()
    words = list(dict.fromkeys(part.casefold() for part in parts))[:_MAX_WORDS]
    return words, [text, *(" ".join(p for p in parts if p.casefold() != word) for word in words)]


def effects(
    words: Sequence[str], whole: float | None, without: Sequence[float | None]
) -> tuple[tuple[str, float], ...]:
    """Return each word with its effect, the strongest first; nothing for a text without a score.

    Args:
        words: The words.
        whole: The probability of positive of the text; None if it has no score.
        without: The same of the text without each word.
    """
    if whole is None:
        return ()
    found = [
        (word, _log_odds(whole) - _log_odds(probability))
        for word, probability in zip(words, without, strict=True)
    ]
    return tuple(sorted(found, key=lambda effect: -abs(effect[1])))


def _valid(text: str) -> str:
    """Replace a byte that is no UTF-8: the command line gives it as a surrogate.

    Arrow refuses these.
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _log_odds(probability: float | None) -> float:
    """Return the log odds; even odds if the remaining text cannot be scored."""
    if probability is None:
        return 0.0
    clipped = min(max(probability, _SMALLEST_PROBABILITY), 1 - _SMALLEST_PROBABILITY)
    return math.log(clipped / (1 - clipped))
