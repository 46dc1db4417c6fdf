"""Fitting the pipeline step by step, saying how far it is.

What belongs here: the order in which stages are fitted, what is kept in between so that no text is
tokenised twice, and progress. Which texts train and what becomes of the model: `train`.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from pyspark import StorageLevel
from pyspark.ml import PipelineModel, Transformer
from pyspark.ml.classification import LogisticRegression, LogisticRegressionModel
from pyspark.ml.feature import ElementwiseProduct, HashingTF, Normalizer, VectorAssembler
from pyspark.ml.linalg import DenseMatrix, Vectors
from pyspark.ml.wrapper import JavaParams
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mastodon_assets.sentiment.features.lexicon import lexicon_weights
from mastodon_assets.sentiment.features.pipeline import (
    PipelineParameters,
    cleaning_stages,
    fit_weights,
    hashing_stage,
    presence_stages,
    regression_of,
    term_stages,
)
from mastodon_assets.sentiment.training.classes import head_regression, with_class_weight

Report = Callable[[str], None]

_SECONDS_BETWEEN_REPORTS = 10.0
# The deviations of the features, and the rows put into blocks.
_PREPARING_JOBS = 2


def fit_pipeline(
    texts: DataFrame,
    parameters: PipelineParameters,
    *,
    train_rows: int,
    report: Report,
    labelled: DataFrame | None = None,
) -> PipelineModel:
    """The pipeline `text` -> `words`, `probability`, …, fitted on `texts` (text, target 0 or 1).

    `words` is empty where a text has none; `pipeline.prob_pos` and `pipeline.label_str` read
    `probability`, which is of two classes, or of three with `labelled` (text, class 0 to 2).
    `train_rows` is the number of rows of `texts`. `report` gets a line a step and the time left.
    """
    stages = fit_two_classes(
        texts, parameters, train_rows=train_rows, report=report, has_head=labelled is not None
    )
    if labelled is not None:
        stages += fit_head(PipelineModel(stages).transform(labelled), parameters, report)
    return PipelineModel(stages)


def fit_two_classes(
    texts: DataFrame,
    parameters: PipelineParameters,
    *,
    train_rows: int,
    report: Report,
    has_head: bool,
) -> list[Transformer]:
    """The stages `text` -> `probability`, or `polarity` with a head."""
    report("two classes: the weights of grams and pieces")
    stages = [*cleaning_stages(parameters.letters), *term_stages(parameters)]
    regression = regression_of(parameters, train_rows=train_rows, has_head=has_head)
    found = PipelineModel(stages).transform(texts)
    return [
        *stages,
        *fit_regression(found, presence_stages(parameters.buckets), regression, report),
    ]


def fit_head(
    judged: DataFrame,
    parameters: PipelineParameters,
    report: Report,
    *,
    beside: tuple[str, ...] = ("polarity_raw",),
) -> list[Transformer]:
    """The stages terms and the vectors `beside` them -> `probability` of three classes."""
    report("three classes: the weights of grams and pieces")
    found, rows = with_class_weight(judged)
    regression = head_regression(
        parameters.head_inverse_regularization, train_rows=rows, max_iter=parameters.max_iter
    )
    stages = presence_stages(parameters.head_buckets, prefix="class_")
    return fit_regression(found, stages, regression, report, beside=beside)


def fit_regression(
    rows: DataFrame,
    stages: tuple[HashingTF, Normalizer],
    regression: LogisticRegression,
    report: Report,
    *,
    beside: tuple[str, ...] = (),
) -> list[Transformer]:
    """`stages`, and those after them -> what `regression` gives.

    `rows` has terms, grams, the vectors `beside` them and the regression's label. It learns a
    weight for each bucket, one for all praise and one for all blame in the lexicon's words, and
    those of `beside`. A model cannot be made through Spark Connect: there it goes without lexicon.
    """
    spark = rows.sparkSession
    presence, normalizer = stages
    counted = presence.getOutputCol()
    labels = [regression.getLabelCol()]
    if regression.isSet(regression.weightCol):
        labels.append(regression.getWeightCol())
    grams = hashing_stage("grams", "grams_presence", presence.getNumFeatures())
    found = PipelineModel([presence, grams]).transform(rows)
    found = found.select(*labels, counted, "grams_presence", *beside).cache()
    try:
        weights = fit_weights(
            found,
            labels[0],
            presence=counted,
            grams="grams_presence",
            lengths=normalizer.getOutputCol(),
            output="weighted",
        )
        lexicon = None if _has_no_jvm(spark) else lexicon_weights(spark, presence)
        inputs = _input_stages(weights, lexicon, beside, regression.getFeaturesCol())
        assembled = PipelineModel([normalizer, *inputs]).transform(found)
        features = alone(assembled, *labels, regression.getFeaturesCol())
    finally:
        # Before the fit, which needs the memory: dozens of numbers a bucket.
        found.unpersist()
    report(f"the regression, at most {regression.getMaxIter()} iterations")
    with iterations_reported(spark, regression.getMaxIter(), report):
        judge = regression.fit(features)
    fitted = [*inputs, judge] if lexicon is None else folded(weights, lexicon, beside, judge)
    return [presence, normalizer, *fitted]


def _input_stages(
    weights: ElementwiseProduct,
    lexicon: NDArray[np.float64] | None,
    beside: Sequence[str],
    output: str,
) -> list[Transformer]:
    """lengths and the vectors `beside` them -> all that the regression is fitted on."""
    if lexicon is None:
        names = [weights.getOutputCol(), *beside]
        return [weights, VectorAssembler(inputCols=names, outputCol=output)]
    valences = linear_model(lexicon, np.zeros(len(lexicon))).setRawPredictionCol("valences")
    valences.setFeaturesCol(weights.getInputCol()).setProbabilityCol("").setPredictionCol("")
    names = [weights.getOutputCol(), "valences", *beside]
    return [weights, valences, VectorAssembler(inputCols=names, outputCol=output)]


def folded(
    weights: ElementwiseProduct,
    lexicon: NDArray[np.float64],
    beside: Sequence[str],
    judge: LogisticRegressionModel,
) -> list[Transformer]:
    """Stages that say of `lengths` and the vectors `beside` them what `judge` says, but faster.

    `judge` was fitted on `lengths` times `weights`, the sums of `lengths` times each row of
    `lexicon`, and `beside`. All but the last are linear in `lengths`, so they go into one
    coefficient a bucket. These are stored with their zeros: Spark drops them where they are many,
    and then walks all that is left for each text, more than half of the time that a score took.
    """
    scaling = weights.getScalingVec().toArray()
    of_buckets, of_lexicon, of_others = np.split(
        judge.coefficientMatrix.toArray(), np.cumsum([len(scaling), len(lexicon)]), axis=1
    )
    made = linear_model(
        np.hstack([of_buckets * scaling + of_lexicon @ lexicon, of_others]),
        judge.interceptVector.toArray(),
    )
    for name in ("featuresCol", "probabilityCol", "rawPredictionCol", "predictionCol"):
        made.set(made.getParam(name), judge.getOrDefault(name))
    if not beside:
        return [made.setFeaturesCol(weights.getInputCol())]
    inputs = [weights.getInputCol(), *beside]
    return [VectorAssembler(inputCols=inputs, outputCol=judge.getFeaturesCol()), made]


def linear_model(
    coefficients: NDArray[np.float64], intercepts: NDArray[np.float64]
) -> LogisticRegressionModel:
    """The model with a row of coefficients a class, or one row for two classes."""
    rows, columns = coefficients.shape
    made = JavaParams._new_java_obj(
        "org.apache.spark.ml.classification.LogisticRegressionModel",
        f"LogisticRegression_{uuid.uuid4().hex[:12]}",
        DenseMatrix(rows, columns, coefficients.ravel(), isTransposed=True),
        Vectors.dense(intercepts),
        max(2, rows),
        rows > 1,
    )
    return LogisticRegressionModel(made)


def alone(rows: DataFrame, *columns: str) -> DataFrame:
    """The columns without the way they were made, and without the names of their features.

    Each iteration of a regression ships both to the tasks, with the scaling vectors and some
    hundred thousand names in it: ten times the cost of the iteration itself. On disk, as a fit
    reads its rows twice and then has blocks of its own.
    """
    return rows.select(*(F.col(name).alias(name, metadata={}) for name in columns)).localCheckpoint(
        storageLevel=StorageLevel.DISK_ONLY
    )


@contextmanager
def iterations_reported(spark: SparkSession, max_iter: int, report: Report) -> Iterator[None]:
    """While the body fits a regression, a line each ten seconds tells the time left at most.

    Spark runs a job an iteration, after some that prepare; the first iteration reads the rows.
    Spark Connect does not tell of jobs: there it is silent.
    """
    if _has_no_jvm(spark):
        yield
        return
    group = f"fit-{uuid.uuid4()}"
    context, ended = spark.sparkContext, threading.Event()

    def tell() -> None:
        first: tuple[int, float] | None = None
        while not ended.wait(_SECONDS_BETWEEN_REPORTS):
            done, now = len(context.statusTracker().getJobIdsForGroup(group)), time.monotonic()
            if first is None:
                first = (done, now) if done > _PREPARING_JOBS else None
            elif done > first[0]:
                pace = (now - first[1]) / (done - first[0])
                report(progress_line(done - _PREPARING_JOBS, max_iter, pace))

    context.setJobGroup(group, "fitting the regression")
    teller = threading.Thread(target=tell, name="fit-progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
        # Jobs that follow in this thread are none of the fit's.
        context.setJobGroup("", "")


def _has_no_jvm(spark: SparkSession) -> bool:
    return type(spark).__module__.startswith("pyspark.sql.connect")


def progress_line(done: int, max_iter: int, seconds_each: float) -> str:
    """`iteration 20 of at most 100, at most 40 s left`; line searches may count twice."""
    done = min(done, max_iter)
    left = seconds_each * (max_iter - done)
    return f"iteration {done} of at most {max_iter}, at most {left:.0f} s left"
