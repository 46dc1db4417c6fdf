"""The champion and a candidate on the same rows, none of which trained either.

What belongs here: measuring the pair. What follows from it: `promotion`.
"""

from typing import Any

import numpy as np
from pyspark.ml import PipelineModel
from pyspark.sql import DataFrame, SparkSession

from mastodon_assets.config.settings import Settings
from mastodon_assets.sentiment.evaluation.evaluate import Floats, accuracy, auc
from mastodon_assets.sentiment.features.pipeline import prob_pos
from mastodon_assets.sentiment.models.registry import Model
from mastodon_assets.sentiment.models.store import ModelUnreadableError, check_usable, read_held_out
from mastodon_assets.spark.storage import storage_path

_METRICS = {"auc": auc, "accuracy": accuracy}
_RESAMPLES = 200
_SEED = 1


def compare(
    spark: SparkSession,
    settings: Settings,
    champion: Model,
    candidate: PipelineModel,
    trained_on: DataFrame,
) -> dict[str, Any]:
    """What `promotion.judge` reads as `comparison`, measured on the champion's held-out texts.

    The champion's own, because a candidate that learned from a spoilt corpus looks well on what it
    held out of it. `trained_on` has the column text: everything that trained the candidate, lessons
    and labelled texts too; what it saw there is left out.
    """
    folder = storage_path(settings, champion.path)
    try:
        check_usable(folder, spark.version)
        held_out = read_held_out(folder)
    except ModelUnreadableError as error:
        return {"champion": champion.version, "unreadable": str(error)}
    rows = spark.createDataFrame(held_out.rename_columns(["text", "target", "champion"]))
    unseen = rows.join(trained_on.select("text"), on="text", how="left_anti")
    columns = (
        candidate.transform(unseen)
        .select("target", prob_pos().alias("candidate"), "champion")
        .toArrow()
    )
    return {
        "champion": champion.version,
        "rows": columns.num_rows,
        "differences": paired_differences(
            columns["target"].to_numpy(),
            columns["candidate"].to_numpy(),
            columns["champion"].to_numpy(),
        ),
    }


def paired_differences(
    targets: Floats, candidate: Floats, champion: Floats
) -> dict[str, dict[str, float | None]]:
    """By metric `difference`, candidate minus champion, and `low` and `high`, its 95 % interval.

    All of shape (n,). A Poisson bootstrap over rows, each resample for both models alike: what
    makes a row hard for both cancels out. None where a metric is not defined.
    """
    once = np.ones(len(targets))
    generator = np.random.default_rng(_SEED)
    resampled: dict[str, list[float]] = {name: [] for name in _METRICS}
    for _ in range(_RESAMPLES):
        weights = generator.poisson(1.0, len(targets)).astype(np.float64)
        for name, metric in _METRICS.items():
            resampled[name].append(
                metric(targets, candidate, weights) - metric(targets, champion, weights)
            )
    told = {}
    for name, metric in _METRICS.items():
        # A resample without one class defines nothing; where all lack it, nor does the interval.
        defined = [value for value in resampled[name] if not np.isnan(value)] or [np.nan]
        low, high = np.percentile(defined, (2.5, 97.5))
        difference = metric(targets, candidate, once) - metric(targets, champion, once)
        told[name] = {
            "difference": _number(difference),
            "low": _number(low),
            "high": _number(high),
        }
    return told


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
