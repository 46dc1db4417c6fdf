"""Fitting the pipeline step by step, saying how far it is.

What belongs here: the order in which stages are fitted, what is kept in between so that no text is
tokenised twice, and progress. Which texts train and what becomes of the model: `train`.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pyspark.ml import PipelineModel, Transformer
from pyspark.ml.classification import LogisticRegressionModel
from pyspark.ml.feature import ElementwiseProduct, VectorAssembler
from pyspark.ml.linalg import DenseMatrix
from pyspark.ml.wrapper import JavaParams
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mastodon_assets.sentiment.classes import head_stages, with_class_weight
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
    stages: list[Transformer] = [
        *cleaning_stages(parameters.letters),
        *term_stages(parameters),
        *presence_stages(parameters.buckets),
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
            output="features",
        )
        regression = regression_of(parameters, train_rows=train_rows, has_head=has_head)
        features = alone(weights.transform(found), "target", "features")
        report(f"step 2 of {steps}: two classes, at most {parameters.max_iter} iterations")
        with iterations_reported(texts.sparkSession, parameters.max_iter, report):
            judge = regression.fit(features)
    finally:
        found.unpersist()
    return [*stages, *folded(texts.sparkSession, weights, [], judge)]


def fit_head(
    judged: DataFrame,
    parameters: PipelineParameters,
    report: Report,
    *,
    beside: tuple[str, ...] = ("polarity_raw",),
) -> list[Transformer]:
    """The stages terms and the vectors `beside` them -> `probability` of three classes."""
    stages: list[Transformer] = [*presence_stages(parameters.head_buckets, prefix="class_")]
    counted = [*stages, hashing_stage("grams", "class_grams_presence", parameters.head_buckets)]
    weighted, rows = with_class_weight(PipelineModel(counted).transform(judged))
    weighted = weighted.select(
        "class",
        "class_weight",
        "class_presence",
        "class_grams_presence",
        "class_lengths",
        *beside,
    ).cache()
    try:
        weights = fit_weights(
            weighted,
            "class",
            presence="class_presence",
            grams="class_grams_presence",
            lengths="class_lengths",
            output="class_weights",
        )
        assembler, regression = head_stages(
            parameters.head_inverse_regularization, train_rows=rows, max_iter=parameters.max_iter
        )
        assembler.setInputCols(["class_weights", *beside])
        assembled = assembler.transform(weights.transform(weighted))
        features = alone(assembled, "class", "class_weight", "class_features")
        with iterations_reported(judged.sparkSession, parameters.max_iter, report):
            judge = regression.fit(features)
    finally:
        weighted.unpersist()
    return [*stages, *folded(judged.sparkSession, weights, [assembler], judge)]


def folded(
    spark: SparkSession,
    weights: ElementwiseProduct,
    between: list[VectorAssembler],
    judge: LogisticRegressionModel,
) -> list[Transformer]:
    """Stages that do what `weights`, `between` and `judge` do, one after the other, but faster.

    The weights go into the coefficients, and these are stored with their zeros. Spark drops zeros
    where they are many, and then walks all that is left for each text: more than half of the time
    that a score took. The assembler's first input, or the judge's only one, is `weights`' output.
    A model cannot be made through Spark Connect: there the stages stay as they are.
    """
    if _has_no_jvm(spark):
        return [weights, *between, judge]
    # A copy: where most are not zero, Spark hands out what must not be written to.
    coefficients = judge.coefficientMatrix.toArray().copy()
    scaling = weights.getScalingVec().toArray()
    coefficients[:, : len(scaling)] *= scaling
    rows, columns = coefficients.shape
    made = LogisticRegressionModel(
        JavaParams._new_java_obj(
            "org.apache.spark.ml.classification.LogisticRegressionModel",
            judge.uid,
            DenseMatrix(rows, columns, coefficients.ravel(), isTransposed=True),
            judge.interceptVector,
            judge.numClasses,
            rows > 1,
        )
    )
    for name in ("featuresCol", "probabilityCol", "rawPredictionCol", "predictionCol"):
        made.set(made.getParam(name), judge.getOrDefault(name))
    for assembler in between:
        assembler.setInputCols([weights.getInputCol(), *assembler.getInputCols()[1:]])
    if not between:
        made.setFeaturesCol(weights.getInputCol())
    return [*between, made]


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
