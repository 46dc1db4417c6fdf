"""The n-gram model in one pass: a stage for all stages of a saved pipeline behind the tokens.

What belongs here: which pipelines can be scored so, and the stage. It is not saved: a saved model
has Spark's own stages alone, which plain PySpark loads. The computation itself: `ngram_scores`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyspark.ml import PipelineModel, Transformer
from pyspark.ml.classification import LogisticRegressionModel
from pyspark.ml.feature import HashingTF, SQLTransformer, VectorAssembler
from pyspark.ml.functions import array_to_vector
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T
from pyspark.sql.pandas.functions import arrow_udf

from mastodon_assets.sentiment.features.ngram_scores import Head, probabilities
from mastodon_assets.sentiment.features.pipeline import (
    PipelineParameters,
    cleaning_stages,
    term_stages,
)
from mastodon_assets.spark.session import is_connect_session

if TYPE_CHECKING:
    from pyspark import Broadcast

# Class names of the stages behind the terms, of two classes and of a three-class head.
_TWO_CLASSES = ["HashingTF", "Normalizer", "LogisticRegressionModel"]
_HEAD = ["HashingTF", "Normalizer", "VectorAssembler", "LogisticRegressionModel"]
_HEAD_INPUTS = ["class_normalized", "polarity_raw"]


def in_one_pass(
    spark: SparkSession, pipeline: PipelineModel, parameters: Mapping[str, Any]
) -> PipelineModel:
    """Return a pipeline with the same `words` and `probability` that takes half the time.

    A pipeline of other stages is returned as it is: one with an embedding, for instance, or of a
    revision whose terms are others. So is each pipeline through Spark Connect, which has no
    broadcast.

    Args:
        spark: the session that scores.
        pipeline: a pipeline of `fit.fit_pipeline`, fitted or loaded.
        parameters: the parameters of its training, by the names of `PipelineParameters`.
    """
    if is_connect_session(spark):
        return pipeline
    lengths, letters = parameters.get("character_ngrams"), parameters.get("letters")
    if lengths is None or letters is None:
        return pipeline
    lengths = tuple(map(int, lengths))
    cleaning = cleaning_stages(letters)
    terms = term_stages(PipelineParameters(character_ngrams=lengths, letters=letters))
    ours = [*cleaning, *terms]
    stages, behind = pipeline.stages[: len(ours)], pipeline.stages[len(ours) :]
    if list(map(_statement, stages)) != list(map(_statement, ours)):
        return pipeline
    heads = _heads(behind)
    if not heads:
        return pipeline
    shared = spark.sparkContext.broadcast((lengths, heads))
    return PipelineModel([*cleaning, OnePassStage(shared)])


class OnePassStage(Transformer):
    """A stage `cleaned`, `tokens` -> `probability`, one Arrow batch at a time."""

    def __init__(self, shared: "Broadcast[tuple[tuple[int, ...], list[Head]]]") -> None:
        super().__init__()
        self._shared = shared

    def _transform(self, dataset: DataFrame) -> DataFrame:
        shared = self._shared

        def scored(cleaned: pa.Array, tokens: pa.Array) -> pa.Array:
            lengths, heads = shared.value
            found = probabilities(cleaned, tokens, lengths, heads)
            ends = np.arange(len(found) + 1, dtype=np.int32) * found.shape[1]
            return pa.ListArray.from_arrays(ends, found.ravel())

        probability = arrow_udf(scored, returnType=T.ArrayType(T.DoubleType()))  # type: ignore[call-overload]
        return dataset.withColumn("probability", array_to_vector(probability("cleaned", "tokens")))


def _statement(stage: Transformer) -> str | None:
    return stage.getStatement() if isinstance(stage, SQLTransformer) else None


def _heads(stages: list[Transformer]) -> list[Head]:
    """Return the regressions behind the terms; none if the stages are not those of `fit`."""
    names = [type(stage).__name__ for stage in stages]
    if names not in (_TWO_CLASSES, _TWO_CLASSES + _HEAD):
        return []
    heads: list[Head] = []
    buckets = 0
    for stage in stages:
        if isinstance(stage, HashingTF):
            if not stage.getBinary() or stage.getInputCol() != "terms":
                return []
            buckets = stage.getNumFeatures()
        if isinstance(stage, VectorAssembler) and stage.getInputCols() != _HEAD_INPUTS:
            return []
        if isinstance(stage, LogisticRegressionModel):
            coefficients = stage.coefficientMatrix.toArray()
            # The head has the raw prediction of two classes behind its buckets.
            if coefficients.shape[1] != buckets + 2 * len(heads):
                return []
            heads.append(Head(buckets, coefficients, stage.interceptVector.toArray()))
    return heads
