"""Comparison of a candidate with the champion, on rows that trained neither of them.

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
    """Measure both on the champion's held-out texts, for `promotion.judge`.

    A candidate trained on a damaged corpus does well on texts of that corpus, so its own held-out
    texts would not show the damage.

    Args:
        spark: the session.
        settings: the settings for the storage of models.
        champion: the present champion.
        candidate: the candidate's pipeline.
        trained_on: column text, everything that trained the candidate, templates and labelled texts
            included. These texts are left out.

    Returns:
        `champion`, its version, and either `rows` and `differences`, see `paired_differences`, or
        `unreadable`, the reason why the champion cannot be used.
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
    """Return by metric `difference`, candidate minus champion, and its 95 % interval `low`, `high`.

    A Poisson bootstrap over rows. Both models get the same resamples, so the difficulty of a row
    cancels out. None if a metric is not defined.

    Args:
        targets: 0 or 1, shape (n,).
        candidate: probabilities of 1, shape (n,).
        champion: the same of the champion.
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
    differences = {}
    for name, metric in _METRICS.items():
        # A metric is undefined for a resample without one class.
        defined = [value for value in resampled[name] if not np.isnan(value)] or [np.nan]
        low, high = np.percentile(defined, (2.5, 97.5))
        difference = metric(targets, candidate, once) - metric(targets, champion, once)
        differences[name] = {
            "difference": _number(difference),
            "low": _number(low),
            "high": _number(high),
        }
    return differences


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
