"""What people said of single words, for those of which a corpus has few texts.

What belongs here: the lexicon, as weights over a model's buckets. How it enters a fit, and why it
costs a score nothing: `fit`.
"""

import numpy as np
from numpy.typing import NDArray
from pyspark.ml.feature import HashingTF
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mastodon_assets.sentiment.features.pipeline import NEGATION_SUFFIX

# VADER (Hutto and Gilbert 2014): valences of -4 to 4, means of ten people's; what is negated counts
# so much of itself.
_LARGEST_VALENCE = 4.0
_NEGATED = -0.74


def lexicon_weights(spark: SparkSession, hashing: HashingTF) -> NDArray[np.float64]:
    """(2, buckets): the valences, -1 to 1, of praise and of blame in the buckets of their words.

    English words, negated ones among them; `hashing` is the stage that a model finds buckets by.
    """
    # It asks for the network's library as it is imported, and only a training needs it.
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    valences = SentimentIntensityAnalyzer().lexicon.items()
    words = [(word, valence / _LARGEST_VALENCE) for word, valence in valences if word[0].isalpha()]
    negated = [(NEGATION_SUFFIX + word, _NEGATED * valence) for word, valence in words]
    rows = spark.createDataFrame([*words, *negated], "token string, valence double")
    hashed = hashing.transform(
        rows.select("valence", F.array(F.hash("token")).alias(hashing.getInputCol()))
    )
    weights = np.zeros((2, hashing.getNumFeatures()))
    for row in hashed.collect():
        weights[int(row["valence"] < 0), row[hashing.getOutputCol()].indices] = row["valence"]
    return weights
