"""Fitting the pipeline step by step, saying how far it is.

What belongs here: the order in which stages are fitted, what is kept in between so that no text is
tokenised twice for nothing, and progress. Which texts train and what becomes of the model: `train`.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pyspark.ml import Estimator, PipelineModel, Transformer
from pyspark.sql import DataFrame, SparkSession

from mastodon_assets.sentiment.pipeline import (
    NaiveBayesRatio,
    PipelineParameters,
    cleaning_stages,
    judging_stages,
    term_stages,
    vocabulary_stages,
)

Report = Callable[[str], None]

_SECONDS_BETWEEN_REPORTS = 10.0


def fit_pipeline(
    texts: DataFrame, parameters: PipelineParameters, *, train_rows: int, report: Report
) -> PipelineModel:
    """The pipeline `text` -> `words`, `probability`, …, fitted on `texts` (text, target 0 or 1).

    `words` is empty where a text has none; `pipeline.prob_pos` reads `probability`. `train_rows` is
    the number of rows of `texts`. `report` gets a line a step and the time left.
    """
    report("step 1 of 3: the vocabulary")
    vocabulary = fit_stages(
        [
            *cleaning_stages(parameters.letter),
            *term_stages(parameters),
            *vocabulary_stages(parameters),
        ],
        texts,
    )
    presence = vocabulary.transform(texts).select("target", "presence").cache()
    try:
        report(f"step 2 of 3: the weight of each of {_entries(presence):,} words and pieces")
        ratio = NaiveBayesRatio().fit(presence)
        normalizer, regression = judging_stages(parameters, train_rows=train_rows)
        features = normalizer.transform(ratio.transform(presence))
        report(f"step 3 of 3: the regression, at most {parameters.max_iter} iterations")
        with iterations_reported(texts.sparkSession, parameters.max_iter, report):
            judge = regression.fit(features)
    finally:
        presence.unpersist()
    return PipelineModel([*vocabulary.stages, ratio, normalizer, judge])


def fit_stages(stages: Sequence[Estimator | Transformer], texts: DataFrame) -> PipelineModel:
    """Each stage fitted on what the ones before it make of `texts`; for stages without a regression."""
    fitted: list[Transformer] = []
    for stage in stages:
        transformer = stage.fit(texts) if isinstance(stage, Estimator) else stage
        fitted.append(transformer)
        texts = transformer.transform(texts)
    return PipelineModel(fitted)


@contextmanager
def iterations_reported(spark: SparkSession, max_iter: int, report: Report) -> Iterator[None]:
    """While the body fits a regression, a line each ten seconds tells the time left at most.

    Spark runs a job an iteration, and a first one for the features' deviations.
    """
    group = f"fit-{uuid.uuid4()}"
    context, ended, started = spark.sparkContext, threading.Event(), time.monotonic()

    def tell() -> None:
        while not ended.wait(_SECONDS_BETWEEN_REPORTS):
            done = len(context.statusTracker().getJobIdsForGroup(group)) - 2
            if done > 0:
                report(progress_line(done, max_iter, time.monotonic() - started))

    context.setJobGroup(group, "fitting the regression")
    teller = threading.Thread(target=tell, name="fit-progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
        context.setLocalProperty("spark.jobGroup.id", None)
        context.setLocalProperty("spark.job.description", None)


def progress_line(done: int, max_iter: int, seconds: float) -> str:
    """`iteration 20 of at most 100, at most 40 s left`; line searches may count twice."""
    done = min(done, max_iter)
    left = seconds / done * (max_iter - done)
    return f"iteration {done} of at most {max_iter}, at most {left:.0f} s left"


def _entries(presence: DataFrame) -> int:
    first = presence.first()
    return int(first["presence"].size) if first else 0
