"""Metrics of a model: pure functions of labels and probabilities.

What belongs here: metrics and their bootstrap intervals, in numpy. No Spark.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_RESAMPLES = 100
_SEED = 1
_CALIBRATION_BINS = 10
_SMALLEST_PROBABILITY = 1e-15


def evaluate(targets: Floats, probabilities: Floats) -> dict[str, Any]:
    """Return `rows`, each metric of `METRICS`, and under `intervals` its 95 % interval [low, high].

    The intervals come from a Poisson bootstrap over rows. None means undefined, such as the AUC of
    one class.

    Args:
        targets: 0 or 1, shape (n,).
        probabilities: probabilities of 1, shape (n,).
    """
    once = np.ones(len(targets))
    generator = np.random.default_rng(_SEED)
    resampled: dict[str, list[float]] = {name: [] for name in METRICS}
    for _ in range(_RESAMPLES):
        weights = generator.poisson(1.0, len(targets)).astype(np.float64)
        for name, metric in METRICS.items():
            resampled[name].append(metric(targets, probabilities, weights))
    return {
        "rows": len(targets),
        **{name: _number(metric(targets, probabilities, once)) for name, metric in METRICS.items()},
        "intervals": {name: _interval(values) for name, values in resampled.items()},
    }


def evaluate_classes(
    classes: Floats, predicted: Floats, weights: Floats | None = None
) -> dict[str, Any]:
    """Return `rows`, `macro_recall`, `macro_f1`, `accuracy`, and under `intervals` their intervals.

    Macro metrics are means over the classes that occur; intervals are as in `evaluate`.

    Args:
        classes: 0 to 2, shape (n,).
        predicted: 0 to 2, shape (n,).
        weights: how many rows each row represents, shape (n,); None if all represent one.
    """
    if weights is None:
        weights = np.ones(len(classes))
    generator = np.random.default_rng(_SEED)
    resampled = [
        _class_metrics(classes, predicted, weights * generator.poisson(1.0, len(classes)))
        for _ in range(_RESAMPLES)
    ]
    measured = _class_metrics(classes, predicted, weights)
    return {
        "rows": len(classes),
        **{name: _number(value) for name, value in measured.items()},
        "intervals": {name: _interval(each[name] for each in resampled) for name in measured},
    }


def auc(targets: Floats, probabilities: Floats, weights: Floats) -> float:
    """Return the probability that a positive row ranks above a negative one; ties count half."""
    levels, level = np.unique(probabilities, return_inverse=True)
    positives = np.bincount(level, weights * targets, minlength=len(levels))
    negatives = np.bincount(level, weights * (1 - targets), minlength=len(levels))
    below = np.cumsum(negatives) - negatives
    return _ratio(
        float(np.sum(positives * (below + negatives / 2))),
        float(positives.sum() * negatives.sum()),
    )


def accuracy(targets: Floats, probabilities: Floats, weights: Floats) -> float:
    """Return the share of rows on the right side of .5."""
    is_right = (probabilities >= 0.5) == (targets == 1)
    return _share(is_right, weights)


def macro_f1(targets: Floats, probabilities: Floats, weights: Floats) -> float:
    """Return the mean F1 of both classes, at .5."""
    predicted = probabilities >= 0.5
    positive, negative = (
        _f1(targets == 1, predicted, weights),
        _f1(targets == 0, ~predicted, weights),
    )
    return (positive + negative) / 2


def log_loss(targets: Floats, probabilities: Floats, weights: Floats) -> float:
    """Return the mean negative log likelihood, with the natural logarithm."""
    clipped = np.clip(probabilities, _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY)
    losses = -(targets * np.log(clipped) + (1 - targets) * np.log(1 - clipped))
    return _ratio(float(np.sum(weights * losses)), float(weights.sum()))


def calibration_error(targets: Floats, probabilities: Floats, weights: Floats) -> float:
    """Return the expected calibration error: the mean gap of ten equal bins, weighted by rows."""
    bins = np.minimum((probabilities * _CALIBRATION_BINS).astype(int), _CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights * (probabilities - targets), minlength=_CALIBRATION_BINS)
    return _ratio(float(np.abs(gaps).sum()), float(weights.sum()))


METRICS: dict[str, Callable[[Floats, Floats, Floats], float]] = {
    "auc": auc,
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "log_loss": log_loss,
    "calibration_error": calibration_error,
}


def _class_metrics(classes: Floats, predicted: Floats, weights: Floats) -> dict[str, float]:
    present = np.unique(classes)
    recalls = [_share(predicted == each, weights * (classes == each)) for each in present]
    f1s = [_f1(classes == each, predicted == each, weights) for each in present]
    return {
        "macro_recall": float(np.mean(recalls)) if len(present) else math.nan,
        "macro_f1": float(np.mean(f1s)) if len(present) else math.nan,
        "accuracy": _share(predicted == classes, weights),
    }


def _share(is_right: NDArray[np.bool_], weights: Floats) -> float:
    return _ratio(float(np.sum(weights * is_right)), float(weights.sum()))


def _f1(actual: NDArray[np.bool_], predicted: NDArray[np.bool_], weights: Floats) -> float:
    hits = float(np.sum(weights * (actual & predicted)))
    return _ratio(2 * hits, float(np.sum(weights * actual) + np.sum(weights * predicted)))


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _interval(values: Iterable[float]) -> list[float] | None:
    defined = [value for value in values if not math.isnan(value)]
    if not defined:
        return None
    low, high = np.percentile(defined, (2.5, 97.5))
    return [float(low), float(high)]
