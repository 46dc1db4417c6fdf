"""The fit of the n-gram pipeline, step by step, with progress.

What belongs here: the order in which stages are fitted, what is stored in between so that no text
is tokenized twice, and progress lines. Which texts train, and how the model is stored: `train`.
"""

import gc
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
from mastodon_assets.spark.session import is_connect_session

Report = Callable[[str], None]

_SECONDS_BETWEEN_REPORTS = 10.0
# Jobs before the iterations: the features' deviations, and the rows put into blocks.
_PREPARING_JOBS = 2


def fit_pipeline(
    texts: DataFrame,
    parameters: PipelineParameters,
    *,
    train_rows: int,
    report: Report,
    labelled: DataFrame | None = None,
) -> PipelineModel:
    """Fit the pipeline `text` -> `words`, `probability`, ….

    `words` is an empty array if a text has none. `pipeline.prob_pos` and `pipeline.label_str` read
    `probability`.

    Args:
        texts: columns text and target (0 negative, 1 positive).
        parameters: parameters of the pipeline.
        train_rows: number of rows of `texts`.
        report: gets one line per step, and the time left.
        labelled: columns text and class (0 negative, 1 neutral, 2 positive); with it the
            probability is of three classes, else of two.
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
    """Fit the stages `text` -> `probability`, or `polarity` if a head follows."""
    report("two classes: weights of word and character n-grams")
    stages = [*cleaning_stages(parameters.letters), *term_stages(parameters)]
    regression = regression_of(parameters, train_rows=train_rows, has_head=has_head)
    terms = PipelineModel(stages).transform(texts)
    return [
        *stages,
        *fit_regression(terms, presence_stages(parameters.buckets), regression, report),
    ]


def fit_head(
    scored: DataFrame,
    parameters: PipelineParameters,
    report: Report,
    *,
    extra_vectors: tuple[str, ...] = ("polarity_raw",),
) -> list[Transformer]:
    """Fit the stages `terms` and the columns `extra_vectors` -> `probability` of three classes."""
    report("three classes: weights of word and character n-grams")
    weighted, rows = with_class_weight(scored)
    regression = head_regression(
        parameters.head_inverse_regularization, train_rows=rows, max_iter=parameters.max_iter
    )
    stages = presence_stages(parameters.head_buckets, prefix="class_")
    return fit_regression(weighted, stages, regression, report, extra_vectors=extra_vectors)


def fit_regression(
    rows: DataFrame,
    stages: tuple[HashingTF, Normalizer],
    regression: LogisticRegression,
    report: Report,
    *,
    extra_vectors: tuple[str, ...] = (),
) -> list[Transformer]:
    """Fit `regression` on `stages` and return both, with the stages in between.

    The regression learns one weight per bucket, one for the positive and one for the negative
    valences of the lexicon's words, and those of `extra_vectors`. Spark Connect cannot build the
    lexicon's stage, so a fit through it has no lexicon (see `has_lexicon`).

    Args:
        rows: columns terms, word_ngrams, `extra_vectors` and the regression's label.
        stages: the two stages of `presence_stages`.
        regression: the unfitted regression.
        report: gets one line per step, and the time left.
        extra_vectors: columns with vectors that are features too.
    """
    spark = rows.sparkSession
    presence, normalizer = stages
    counted = presence.getOutputCol()
    labels = [regression.getLabelCol()]
    if regression.isSet(regression.weightCol):
        labels.append(regression.getWeightCol())
    word_ngrams = hashing_stage("word_ngrams", "word_ngrams_presence", presence.getNumFeatures())
    hashed = PipelineModel([presence, word_ngrams]).transform(rows)
    hashed = hashed.select(*labels, counted, "word_ngrams_presence", *extra_vectors)
    # On disk: memory is for numbers per bucket, whatever the number of rows.
    hashed = hashed.persist(StorageLevel.DISK_ONLY)
    try:
        weights = fit_weights(
            hashed,
            labels[0],
            presence=counted,
            word_ngrams="word_ngrams_presence",
            normalized=normalizer.getOutputCol(),
            output="weighted",
        )
        lexicon = lexicon_weights(spark, presence) if has_lexicon(spark) else None
        inputs = _input_stages(weights, lexicon, extra_vectors, regression.getFeaturesCol())
        features = detached(
            PipelineModel([normalizer, *inputs]).transform(hashed),
            *labels,
            regression.getFeaturesCol(),
        )
    finally:
        hashed.unpersist()
    # PySpark's objects are parts of cycles. Until Python finds them, the JVM keeps the data frames
    # in between; the names of their features alone are 400 MB.
    gc.collect()
    report(f"regression, at most {regression.getMaxIter()} iterations")
    with iterations_reported(spark, regression.getMaxIter(), report):
        fitted = regression.fit(features)
    if lexicon is None:
        return [presence, normalizer, *inputs, fitted]
    return [presence, normalizer, *folded(weights, lexicon, extra_vectors, fitted)]


def has_lexicon(spark: SparkSession) -> bool:
    """Return whether a fit through this session uses the lexicon: not through Spark Connect."""
    return not is_connect_session(spark)


def _input_stages(
    weights: ElementwiseProduct,
    lexicon: NDArray[np.float64] | None,
    extra_vectors: Sequence[str],
    output: str,
) -> list[Transformer]:
    """Build the stages `normalized` and `extra_vectors` -> the features of the regression."""
    if lexicon is None:
        names = [weights.getOutputCol(), *extra_vectors]
        return [weights, VectorAssembler(inputCols=names, outputCol=output)]
    valences = linear_model(lexicon, np.zeros(len(lexicon))).setRawPredictionCol("valences")
    valences.setFeaturesCol(weights.getInputCol()).setProbabilityCol("").setPredictionCol("")
    names = [weights.getOutputCol(), "valences", *extra_vectors]
    return [weights, valences, VectorAssembler(inputCols=names, outputCol=output)]


def folded(
    weights: ElementwiseProduct,
    lexicon: NDArray[np.float64],
    extra_vectors: Sequence[str],
    fitted: LogisticRegressionModel,
) -> list[Transformer]:
    """Return stages that compute what `fitted` computes, but faster.

    `fitted` has three groups of features: `normalized` times `weights`, the sums of `normalized`
    times each row of `lexicon`, and `extra_vectors`. The first two are linear in `normalized`, so
    they become one coefficient per bucket. Zeros are stored: if there are many, Spark drops them
    and walks all the others for each text, which took more than half of a score's time.
    """
    scaling = weights.getScalingVec().toArray()
    of_buckets, of_lexicon, of_others = np.split(
        fitted.coefficientMatrix.toArray(), np.cumsum([len(scaling), len(lexicon)]), axis=1
    )
    model = linear_model(
        np.hstack([of_buckets * scaling + of_lexicon @ lexicon, of_others]),
        fitted.interceptVector.toArray(),
    )
    for name in ("featuresCol", "probabilityCol", "rawPredictionCol", "predictionCol"):
        model.set(model.getParam(name), fitted.getOrDefault(name))
    if not extra_vectors:
        return [model.setFeaturesCol(weights.getInputCol())]
    inputs = [weights.getInputCol(), *extra_vectors]
    return [VectorAssembler(inputCols=inputs, outputCol=fitted.getFeaturesCol()), model]


def linear_model(
    coefficients: NDArray[np.float64], intercepts: NDArray[np.float64]
) -> LogisticRegressionModel:
    """Build a model from one row of coefficients per class, or one row for two classes."""
    rows, columns = coefficients.shape
    java_model = JavaParams._new_java_obj(  # noqa: SLF001 - there is no public way
        "org.apache.spark.ml.classification.LogisticRegressionModel",
        f"LogisticRegression_{uuid.uuid4().hex[:12]}",
        DenseMatrix(rows, columns, coefficients.ravel(), isTransposed=True),
        Vectors.dense(intercepts),
        max(2, rows),
        rows > 1,
    )
    return LogisticRegressionModel(java_model)


def detached(rows: DataFrame, *columns: str) -> DataFrame:
    """Store the columns on disk, without their lineage and without the names of their features.

    Each iteration of a regression ships both to the tasks, with the scaling vectors and some
    hundred thousand names: ten times the cost of the iteration itself. On disk, because a fit reads
    its rows twice and then keeps blocks of its own.
    """
    return rows.select(*(F.col(name).alias(name, metadata={}) for name in columns)).localCheckpoint(
        storageLevel=StorageLevel.DISK_ONLY
    )


@contextmanager
def iterations_reported(spark: SparkSession, max_iter: int, report: Report) -> Iterator[None]:
    """Report an upper bound of the time left, every ten seconds while the body fits a regression.

    Spark runs one job per iteration, after some that prepare; the first iteration reads the rows.
    Spark Connect does not list jobs, so there it reports nothing.
    """
    if is_connect_session(spark):
        yield
        return
    group = f"fit-{uuid.uuid4()}"
    context, ended = spark.sparkContext, threading.Event()

    def report_regularly() -> None:
        first: tuple[int, float] | None = None
        while not ended.wait(_SECONDS_BETWEEN_REPORTS):
            done, now = len(context.statusTracker().getJobIdsForGroup(group)), time.monotonic()
            if first is None:
                first = (done, now) if done > _PREPARING_JOBS else None
            elif done > first[0]:
                pace = (now - first[1]) / (done - first[0])
                report(progress_line(done - _PREPARING_JOBS, max_iter, pace))

    context.setJobGroup(group, "fitting the regression")
    reporter = threading.Thread(target=report_regularly, name="fit-progress", daemon=True)
    reporter.start()
    try:
        yield
    finally:
        ended.set()
        reporter.join()
        # Later jobs of this thread do not belong to the fit.
        context.setJobGroup("", "")


def progress_line(done: int, max_iter: int, seconds_each: float) -> str:
    """Return a line such as `iteration 20 of at most 100, at most 40 s left`.

    A line search may count twice, so `done` is capped.
    """
    done = min(done, max_iter)
    left = seconds_each * (max_iter - done)
    return f"iteration {done} of at most {max_iter}, at most {left:.0f} s left"
