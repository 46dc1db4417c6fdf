from typing import Any

import pytest

from mastodon_assets.sentiment.models.promotion import (
    SYNTHETIC_CORPUS,
    Champion,
    judge,
    needs_comparison,
)


def _metrics(
    *,
    auc_low: float | None = 0.0,
    accuracy_low: float | None = 0.0,
    suites: dict[str, dict[str, float]] | None = None,
) -> dict[str, Any]:
    lows = {"auc": auc_low, "accuracy": accuracy_low}
    return {
        "comparison": {
            "champion": "old",
            "differences": {
                name: {"difference": low, "low": low, "high": low} for name, low in lows.items()
            },
        },
        "suites": suites or {},
    }


def _champion(**suites: dict[str, float]) -> Champion:
    return Champion("old", "corpus.csv", {"suites": suites})


def test_a_candidate_may_be_as_much_worse_as_the_margin_and_no_more() -> None:
    assert judge(_metrics(auc_low=-0.005), "corpus.csv", _champion()).is_promoted
    verdict = judge(_metrics(auc_low=-0.0051), "corpus.csv", _champion())
    assert not verdict.is_promoted
    assert verdict.reason == (
        "worse than the champion old: auc -0.0051, 95 % interval -0.0051 to -0.0051,"
        " allowed from -0.005 up"
    )
    assert not judge(_metrics(accuracy_low=-0.006), "corpus.csv", _champion()).is_promoted


def test_a_difference_that_is_not_defined_is_not_promoted() -> None:
    verdict = judge(_metrics(auc_low=None), "corpus.csv", _champion())
    assert not verdict.is_promoted
    assert "auc is not defined" in verdict.reason


@pytest.mark.parametrize(
    ("suite", "figure", "new", "old", "is_promoted"),
    [
        ("negation", "accuracy", 0.95, 0.96, True),
        ("negation", "accuracy", 0.94, 0.96, False),
        ("abstention", "share", 1.0, 1.0, True),
        ("abstention", "share", 0.99, 1.0, False),
    ],
)
def test_a_candidate_that_is_worse_on_a_suite_is_refused(
    suite: str, figure: str, new: float, old: float, is_promoted: bool
) -> None:
    verdict = judge(
        _metrics(suites={suite: {figure: new}}), "corpus.csv", _champion(**{suite: {figure: old}})
    )
    assert verdict.is_promoted == is_promoted
    if not is_promoted:
        assert f"{suite} {figure} {new:.3f} after {old:.3f}" in verdict.reason


def test_a_suite_that_one_of_both_was_not_measured_on_decides_nothing() -> None:
    measured = {"negation": {"accuracy": 0.5}}
    assert judge(_metrics(suites=measured), "corpus.csv", _champion()).is_promoted
    assert judge(_metrics(), "corpus.csv", _champion(**measured)).is_promoted


@pytest.mark.parametrize(
    ("file", "macro_recall", "is_promoted"),
    [("a", 0.69, True), ("a", 0.685, True), ("a", 0.65, False), ("b", 0.65, True)],
)
def test_three_classes_count_where_both_were_measured_on_one_file(
    file: str, macro_recall: float, is_promoted: bool
) -> None:
    def measured(file: str, macro_recall: float) -> dict[str, Any]:
        return {"calibration_sha256": file, "classes": {"macro_recall": macro_recall}}

    champion = Champion("old", "corpus.csv", measured("a", 0.69))
    verdict = judge({**_metrics(), **measured(file, macro_recall)}, "corpus.csv", champion)
    assert verdict.is_promoted == is_promoted
    if not is_promoted:
        assert "three classes macro_recall 0.650 after 0.690" in verdict.reason


def test_a_champion_that_cannot_be_used_is_replaced() -> None:
    metrics = {"comparison": {"champion": "old", "unreadable": "trained with Spark 3.5.1"}}
    verdict = judge(metrics, "corpus.csv", _champion())
    assert verdict.is_promoted
    assert verdict.reason == "the champion old cannot be used: trained with Spark 3.5.1"


def test_only_models_of_one_kind_are_compared() -> None:
    assert needs_comparison("a.csv", "b.csv")
    assert needs_comparison(SYNTHETIC_CORPUS, SYNTHETIC_CORPUS)
    assert not needs_comparison("a.csv", SYNTHETIC_CORPUS)
    assert not needs_comparison(SYNTHETIC_CORPUS, "a.csv")
    assert judge({}, "a.csv", Champion("old", SYNTHETIC_CORPUS, {})).is_promoted
    assert not judge({}, SYNTHETIC_CORPUS, _champion()).is_promoted
