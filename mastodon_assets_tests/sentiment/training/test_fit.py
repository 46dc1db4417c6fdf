import gc
import time

import numpy as np
import pytest
from py4j.java_gateway import JavaObject, is_instance_of  # type: ignore[import-untyped]
from pyspark.ml import PipelineModel
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import ElementwiseProduct, VectorAssembler
from pyspark.ml.linalg import Vectors, VectorUDT
from pyspark.sql import SparkSession
from pyspark.sql import types as T

from mastodon_assets.sentiment.features.lexicon import lexicon_weights
from mastodon_assets.sentiment.features.pipeline import PipelineParameters, hashing_stage
from mastodon_assets.sentiment.training import fit
from mastodon_assets.sentiment.training.fit import (
    fit_pipeline,
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


def _columns_held_by_the_jvm(spark: SparkSession) -> set[str]:
    """The columns of all data frames that this process keeps in the JVM."""
    gateway = spark.sparkContext._gateway
    return {
        name
        for held in gc.get_objects()
        if isinstance(held, JavaObject)
        and is_instance_of(gateway, held, "org.apache.spark.sql.Dataset")
        for name in held.columns()
    }


def test_features_and_their_names_are_gone_when_the_regression_begins(spark: SparkSession) -> None:
    texts = spark.createDataFrame(
        [("a good day", 1.0), ("a bad day", 0.0)] * 10, "text string, target double"
    )
    parameters = PipelineParameters(character_ngrams=(5,), buckets=2**10, max_iter=2)
    held: set[str] = set()

    def report(line: str) -> None:
        if line.startswith("regression"):
            held.update(_columns_held_by_the_jvm(spark))

    gc.collect()
    # Python's own collection comes at any time, or never.
    gc.disable()
    try:
        fit_pipeline(texts, parameters, train_rows=20, report=report)
    finally:
        gc.enable()
    assert "target" in held
    assert "weighted" not in held


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
