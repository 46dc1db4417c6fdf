import time

import numpy as np
import pytest
from pyspark.ml import PipelineModel
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import ElementwiseProduct, VectorAssembler
from pyspark.ml.linalg import Vectors, VectorUDT
from pyspark.sql import SparkSession
from pyspark.sql import types as T

from mastodon_assets.sentiment.features.lexicon import lexicon_weights
from mastodon_assets.sentiment.features.pipeline import hashing_stage
from mastodon_assets.sentiment.training import fit
from mastodon_assets.sentiment.training.fit import (
    folded,
    iterations_reported,
    linear_model,
    progress_line,
)


def test_the_time_left_is_an_upper_bound_from_the_iterations_done() -> None:
    assert progress_line(25, 100, 1.2) == "iteration 25 of at most 100, at most 90 s left"
    assert progress_line(120, 100, 1.2) == "iteration 100 of at most 100, at most 0 s left"


@pytest.mark.parametrize("extra_vectors", [(), ("more",)])
def test_a_folded_regression_computes_what_it_computed_before(
    spark: SparkSession, extra_vectors: tuple[str, ...]
) -> None:
    """No coefficient is zero here: Spark then returns arrays that must not be written to."""
    rows = spark.createDataFrame(
        [
            (Vectors.dense(1.0, 0.5), Vectors.dense(0.3, 0.1), 1.0),
            (Vectors.dense(0.2, 0.9), Vectors.dense(0.2, 0.7), 0.0),
            (Vectors.dense(0.4, 0.1), Vectors.dense(0.9, 0.8), 2.0),
        ]
        * 10,
        T.StructType()
        .add("normalized", VectorUDT())
        .add("more", VectorUDT())
        .add("target", T.DoubleType()),
    )
    weights = ElementwiseProduct(
        inputCol="normalized", outputCol="weighted", scalingVec=Vectors.dense(2.0, 3.0)
    )
    lexicon = np.array([[0.0, 0.7], [-0.4, -0.2]])
    valences = linear_model(lexicon, np.zeros(2)).setFeaturesCol("normalized")
    valences.setRawPredictionCol("lexicon").setProbabilityCol("").setPredictionCol("")
    assembler = VectorAssembler(
        inputCols=["weighted", "lexicon", *extra_vectors], outputCol="features"
    )
    unfolded = PipelineModel([weights, valences, assembler])
    regression = LogisticRegression(labelCol="target", regParam=0.1)
    fitted = regression.fit(unfolded.transform(rows))
    stages = folded(weights, lexicon, extra_vectors, fitted)
    expected = fitted.transform(unfolded.transform(rows)).select("probability").collect()
    found = PipelineModel(stages).transform(rows).select("probability").collect()
    for one, other in zip(found, expected, strict=True):
        assert one.probability.toArray() == pytest.approx(other.probability.toArray(), abs=1e-12)


def test_the_lexicon_has_positive_negative_and_negated_words(spark: SparkSession) -> None:
    hashing = hashing_stage("terms", "presence", 2**20)
    weights = lexicon_weights(spark, hashing)
    assert np.abs(weights).max() <= 1

    def valence(token: str) -> float:
        hashed = hashing.transform(spark.sql(f"SELECT array(hash('{token}')) AS terms"))
        row = hashed.first()
        assert row is not None
        return float(weights[:, row["presence"].indices].sum())

    assert valence("wonderful") >= 0.5
    assert valence("awful") <= -0.5
    assert valence("¬wonderful") == pytest.approx(-0.74 * valence("wonderful"))
    assert valence("bus") == 0.0


def test_iterations_are_reported_while_they_run_and_later_jobs_are_not_counted(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "_SECONDS_BETWEEN_REPORTS", 0.01)
    lines: list[str] = []
    with iterations_reported(spark, 50, lines.append):
        deadline = time.monotonic() + 60
        while not lines and time.monotonic() < deadline:
            spark.range(10).count()
    reported = len(lines)
    assert reported > 0
    assert "of at most 50, at most" in lines[0]
    spark.range(10).count()
    assert len(lines) == reported
