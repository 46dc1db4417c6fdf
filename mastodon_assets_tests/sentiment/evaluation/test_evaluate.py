import math

import numpy as np
import pytest

from mastodon_assets.sentiment.evaluation.evaluate import Floats, auc, evaluate, evaluate_classes


def _floats(*values: float) -> Floats:
    return np.array(values, dtype=np.float64)


def test_a_perfect_ranking_has_auc_1_and_a_reversed_one_0() -> None:
    targets = _floats(0, 0, 1, 1)
    weights = np.ones(4)
    assert auc(targets, _floats(0.1, 0.2, 0.3, 0.9), weights) == 1
    assert auc(targets, _floats(0.9, 0.8, 0.2, 0.1), weights) == 0


def test_ties_count_half_in_the_auc() -> None:
    assert auc(_floats(0, 1), _floats(0.5, 0.5), np.ones(2)) == 0.5
    # Pairs: (.4, .4) half, (.4, .7) won, (.6, .4) lost, (.6, .7) won.
    assert auc(_floats(0, 0, 1, 1), _floats(0.4, 0.6, 0.4, 0.7), np.ones(4)) == pytest.approx(0.625)


def test_a_weight_of_two_is_a_row_twice() -> None:
    twice = auc(_floats(0, 1, 1, 1), _floats(0.5, 0.2, 0.2, 0.9), np.ones(4))
    weighted = auc(_floats(0, 1, 1), _floats(0.5, 0.2, 0.9), _floats(1, 2, 1))
    assert weighted == pytest.approx(twice)


def test_the_metrics_of_four_rows_are_those_computed_by_hand() -> None:
    metrics = evaluate(_floats(0, 0, 1, 1), _floats(0.1, 0.6, 0.4, 0.9))
    assert metrics["rows"] == 4
    assert metrics["auc"] == 0.75
    assert metrics["accuracy"] == 0.5
    assert metrics["macro_f1"] == 0.5
    expected = -(math.log(0.9) + math.log(0.4) + math.log(0.4) + math.log(0.9)) / 4
    assert metrics["log_loss"] == pytest.approx(expected)
    # One row a bin: gaps .1, .6, .6, .1.
    assert metrics["calibration_error"] == pytest.approx(0.35)


def test_an_interval_lies_around_its_value() -> None:
    generator = np.random.default_rng(7)
    targets = generator.integers(0, 2, 2000).astype(np.float64)
    probabilities = np.clip(targets * 0.3 + generator.random(2000) * 0.7, 0, 1)
    metrics = evaluate(targets, probabilities)
    for name in ("auc", "accuracy", "macro_f1", "log_loss"):
        low, high = metrics["intervals"][name]
        assert low < metrics[name] < high


def test_what_is_not_defined_is_none_and_not_nan() -> None:
    one_class = evaluate(_floats(1, 1), _floats(0.4, 0.9))
    assert one_class["auc"] is None
    assert one_class["accuracy"] == 0.5
    nothing = evaluate(_floats(), _floats())
    assert nothing["rows"] == 0
    assert nothing["log_loss"] is None
    assert nothing["intervals"]["accuracy"] is None


def test_the_class_metrics_of_six_rows_are_those_computed_by_hand() -> None:
    metrics = evaluate_classes(_floats(0, 0, 1, 1, 2, 2), _floats(0, 1, 1, 1, 2, 0))
    assert metrics["accuracy"] == pytest.approx(4 / 6)
    assert metrics["macro_recall"] == pytest.approx((1 / 2 + 1 + 1 / 2) / 3)
    # F1: 2*1/(2+2), 2*2/(2+3), 2*1/(2+1).
    assert metrics["macro_f1"] == pytest.approx((1 / 2 + 4 / 5 + 2 / 3) / 3)
    low, high = metrics["intervals"]["accuracy"]
    assert low <= metrics["accuracy"] <= high
