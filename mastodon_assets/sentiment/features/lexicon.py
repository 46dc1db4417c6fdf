"""The VADER lexicon: people's ratings of single words, for words that are rare in a corpus.

What belongs here: the lexicon as weights over a model's buckets, and its fingerprint. How it enters
a fit at no cost per score: `fit`.
"""

import functools
import hashlib

import numpy as np
from numpy.typing import NDArray
from pyspark.ml.feature import HashingTF
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mastodon_assets.sentiment.features.pipeline import NEGATION_SUFFIX

# VADER (Hutto and Gilbert 2014): valences from -4 to 4, each the mean of ten people's ratings. A
# negated word counts this share of its valence.
_LARGEST_VALENCE = 4.0
_NEGATED = -0.74


def lexicon_weights(spark: SparkSession, hashing: HashingTF) -> NDArray[np.float64]:
    """Return the positive and the negative valences, -1 to 1, by bucket; shape (2, buckets).

    The words are English, each also in its negated form. `hashing` is the stage that maps a model's
    terms to buckets.
    """
    words = [(word, valence / _LARGEST_VALENCE) for word, valence in _valences()]
    negated = [(NEGATION_SUFFIX + word, _NEGATED * valence) for word, valence in words]
    rows = spark.createDataFrame([*words, *negated], "token string, valence double")
    hashed = hashing.transform(
        rows.select("valence", F.array(F.hash("token")).alias(hashing.getInputCol()))
    )
    weights = np.zeros((2, hashing.getNumFeatures()))
    for row in hashed.collect():
        weights[int(row["valence"] < 0), row[hashing.getOutputCol()].indices] = row["valence"]
    return weights


def lexicon_fingerprint() -> str:
    """Return a SHA-256 of the words and valences, whatever version of the package brings them."""
    digest = hashlib.sha256()
    for word, valence in sorted(_valences()):
        digest.update(f"{word}\t{valence}\n".encode())
    return digest.hexdigest()


@functools.cache
def _valences() -> tuple[tuple[str, float], ...]:
    """Return each word of letters with its valence, -4 to 4."""
    # The package imports a network library, and only a training needs it.
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    lexicon = SentimentIntensityAnalyzer().lexicon
    return tuple((word, valence) for word, valence in lexicon.items() if word[0].isalpha())
