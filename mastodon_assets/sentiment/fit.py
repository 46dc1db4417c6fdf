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
from pyspark.ml import PipelineModel, Transformer
from pyspark.ml.classification import LogisticRegression, LogisticRegressionModel
from pyspark.ml.feature import ElementwiseProduct, HashingTF, VectorAssembler
from pyspark.ml.linalg import DenseMatrix, Vectors
from pyspark.ml.wrapper import JavaParams
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mastodon_assets.sentiment.classes import head_regression, with_class_weight
from mastodon_assets.sentiment.lexicon import lexicon_weights
from mastodon_assets.sentiment.pipeline import (
    PipelineParameters,
    cleaning_stages,
    fit_weights,
    hashing_stage,
    presence_stages,
    regression_of,
    term_stages,
)

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
    steps = 2 if labelled is None else 3
    stages = fit_two_classes(
        texts,
        parameters,
        train_rows=train_rows,
        report=report,
        has_head=labelled is not None,
        steps=steps,
    )
    if labelled is not None:
        report(f"step 3 of {steps}: three classes, at most {parameters.max_iter} iterations")
        stages += fit_head(PipelineModel(stages).transform(labelled), parameters, report)
    return PipelineModel(stages)


def fit_two_classes(
    texts: DataFrame,
    parameters: PipelineParameters,
    *,
    train_rows: int,
    report: Report,
    has_head: bool,
    steps: int = 2,
) -> list[Transformer]:
    """The first two of `steps`: the stages `text` -> `probability`, or `polarity` with a head."""
    report(f"step 1 of {steps}: the weights of grams and pieces")
    presence, normalizer = presence_stages(parameters.buckets)
    stages: list[Transformer] = [
        *cleaning_stages(parameters.letters),
        *term_stages(parameters),
        presence,
        normalizer,
    ]
    counted = [*stages, hashing_stage("grams", "grams_presence", parameters.buckets)]
    found = PipelineModel(counted).transform(texts)
    found = found.select("target", "presence", "grams_presence", "lengths").cache()
    try:
        weights = fit_weights(
            found,
            "target",
            presence="presence",
            grams="grams_presence",
            lengths="lengths",
            output="weighted",
        )
        regression = regression_of(parameters, train_rows=train_rows, has_head=has_head)
        report(f"step 2 of {steps}: two classes, at most {parameters.max_iter} iterations")
        judge = fit_regression(
            found.select("target", "lengths"), presence, weights, regression, report
        )
    finally:
        found.unpersist()
    return [*stages, *judge]


def fit_head(
    judged: DataFrame,
    parameters: PipelineParameters,
    report: Report,
    *,
    beside: tuple[str, ...] = ("polarity_raw",),
) -> list[Transformer]:
    """The stages terms and the vectors `beside` them -> `probability` of three classes."""
    presence, normalizer = presence_stages(parameters.head_buckets, prefix="class_")
    counted: list[Transformer] = [
        presence,
        normalizer,
        hashing_stage("grams", "class_grams_presence", parameters.head_buckets),
    ]
    found, rows = with_class_weight(PipelineModel(counted).transform(judged))
    kept = ("class", "class_weight", "class_lengths", *beside)
    found = found.select("class_presence", "class_grams_presence", *kept).cache()
    try:
        weights = fit_weights(
            found,
            "class",
            presence="class_presence",
            grams="class_grams_presence",
            lengths="class_lengths",
            output="class_weighted",
        )
        regression = head_regression(
            parameters.head_inverse_regularization, train_rows=rows, max_iter=parameters.max_iter
        )
        judge = fit_regression(
            found.select(*kept), presence, weights, regression, report, beside=beside
        )
    finally:
        found.unpersist()
    return [presence, normalizer, *judge]


def fit_regression(
    rows: DataFrame,
    presence: HashingTF,
    weights: ElementwiseProduct,
    regression: LogisticRegression,
    report: Report,
    *,
    beside: tuple[str, ...] = (),
) -> list[Transformer]:
    """The stages lengths and the vectors `beside` them -> what `regression` gives.

    `rows` has these, and else only what the regression asks for. It learns a weight for each bucket
    of `presence`, one for all praise and one for all blame in the lexicon's words, and those of
    `beside`. A model cannot be made through Spark Connect: there it goes without the lexicon.
    """
    spark, lengths = rows.sparkSession, weights.getInputCol()
    others = [name for name in rows.columns if name not in (lengths, *beside)]
    stages: list[Transformer] = [weights]
    inputs = [weights.getOutputCol(), *beside]
    if not _has_no_jvm(spark):
        lexicon = lexicon_weights(spark, presence)
        marked = linear_model(lexicon, np.zeros(2))
        marked.setFeaturesCol(lengths).setRawPredictionCol("lexicon")
        marked.setProbabilityCol("").setPredictionCol("")
        stages, inputs = [weights, marked], [weights.getOutputCol(), "lexicon", *beside]
    assembler = VectorAssembler(inputCols=inputs, outputCol=regression.getFeaturesCol())
    assembled = PipelineModel([*stages, assembler]).transform(rows)
    features = alone(assembled, *others, regression.getFeaturesCol())
    with iterations_reported(spark, regression.getMaxIter(), report):
        judge = regression.fit(features)
    if _has_no_jvm(spark):
        return [weights, assembler, judge]
    return folded(weights, lexicon, beside, judge)


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
    hundred thousand names in it: ten times the cost of the iteration itself.
    """
    return rows.select(
        *(F.col(name).alias(name, metadata={}) for name in columns)
    ).localCheckpoint()


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
