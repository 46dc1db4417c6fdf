import time

import pytest
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import ElementwiseProduct
from pyspark.ml.linalg import Vectors, VectorUDT
from pyspark.sql import SparkSession
from pyspark.sql import types as T

from mastodon_assets.sentiment import fit
from mastodon_assets.sentiment.fit import folded, iterations_reported, progress_line


def test_the_time_left_is_an_upper_bound_from_the_iterations_done() -> None:
    assert progress_line(25, 100, 1.2) == "iteration 25 of at most 100, at most 90 s left"
    assert progress_line(120, 100, 1.2) == "iteration 100 of at most 100, at most 0 s left"


def test_folded_stages_say_the_same_where_no_weight_is_zero(spark: SparkSession) -> None:
    """Spark then hands out coefficients that must not be written to."""
    rows = spark.createDataFrame(
        [(Vectors.dense(1.0, 0.5), 1.0), (Vectors.dense(0.2, 0.9), 0.0)] * 10,
        T.StructType().add("lengths", VectorUDT()).add("target", T.DoubleType()),
    )
    weights = ElementwiseProduct(
        inputCol="lengths", outputCol="features", scalingVec=Vectors.dense(2.0, 3.0)
    )
    judge = LogisticRegression(labelCol="target", regParam=0.1).fit(weights.transform(rows))
    (folded_judge,) = folded(spark, weights, [], judge)
    expected = judge.transform(weights.transform(rows)).select("probability").collect()
    found = folded_judge.transform(rows).select("probability").collect()
    for one, other in zip(found, expected, strict=True):
        assert one.probability.toArray() == pytest.approx(other.probability.toArray(), abs=1e-12)


def test_iterations_are_told_while_they_run_and_later_jobs_are_not_counted(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "_SECONDS_BETWEEN_REPORTS", 0.01)
    lines: list[str] = []
    with iterations_reported(spark, 50, lines.append):
        deadline = time.monotonic() + 60
        while not lines and time.monotonic() < deadline:
            spark.range(10).count()
    told = len(lines)
    assert told > 0
    assert "of at most 50, at most" in lines[0]
    spark.range(10).count()
    assert len(lines) == told
