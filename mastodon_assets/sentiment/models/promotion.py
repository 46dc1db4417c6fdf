"""The promotion rule: whether a candidate replaces the champion, a pure function of metrics.

What belongs here: the rule and its margins. Measuring both on the same rows: `comparison`; rows of
`sentiment_models`: `registry`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# The value of `sentiment_models.corpus` for a model that was trained on the synthetic corpus.
SYNTHETIC_CORPUS = "synthetic (demo only)"

# How much worse on the test set still counts as not worse. The whole 95 percent interval of the
# difference, candidate minus champion on the same rows, must be above it. A test set that is too
# small to decide keeps the champion.
TEST_MARGINS = {"auc": 0.005, "accuracy": 0.005}
# The suites are fixed sentences, so their figures are compared directly. Two in 200 negation pairs
# may be lost; a text that cannot be scored must never get a label.
SUITE_MARGINS = {("negation", "accuracy"): 0.01, ("abstention", "share"): 0.0}
# Macro-recall of three classes, if both models were measured on the held-out fifth of one labelled
# file. The interval of 10,000 texts is twice as wide.
CLASSES_MARGIN = 0.01


@dataclass(frozen=True)
class Verdict:
    """The decision; `reason` is one line that says why the model is promoted or not."""

    is_promoted: bool
    reason: str


@dataclass(frozen=True)
class Champion:
    """The present champion, as the rule needs it."""

    version: str
    corpus: str
    metrics: Mapping[str, Any]


def judge(metrics: Mapping[str, Any], corpus: str, champion: Champion | None) -> Verdict:
    """Decide about a candidate with these `metrics`.

    A figure that one of the two models does not have decides nothing. The keys that are read:

    - `comparison`, from `comparison.compare`: the champion's version and either `differences` (by
      metric the difference and its interval) or `unreadable` (the reason);
    - `suites`: `negation.accuracy` and `abstention.share`, both 0 to 1;
    - `classes.macro_recall`, with `calibration_sha256`, the labelled file.
    """
    if champion is None:
        return Verdict(True, "the first model")
    if corpus == SYNTHETIC_CORPUS and champion.corpus != SYNTHETIC_CORPUS:
        return Verdict(False, "trained on the synthetic corpus, the champion on a real one")
    if corpus != SYNTHETIC_CORPUS and champion.corpus == SYNTHETIC_CORPUS:
        return Verdict(True, "the champion was trained on the synthetic corpus")
    comparison = metrics.get("comparison") or {}
    if comparison.get("champion") != champion.version:
        return Verdict(False, f"not compared with the champion {champion.version}")
    if reason := comparison.get("unreadable"):
        return Verdict(True, f"the champion {champion.version} cannot be used: {reason}")
    worse = [
        *_worse_on_the_test_set(comparison["differences"]),
        *_worse_on_suites(metrics, champion.metrics),
        *_worse_on_classes(metrics, champion.metrics),
    ]
    if worse:
        return Verdict(False, f"worse than the champion {champion.version}: {'; '.join(worse)}")
    return Verdict(
        True, f"not worse than {champion.version}: {_summary(comparison['differences'])}"
    )


def needs_comparison(corpus: str, champion_corpus: str) -> bool:
    """Return whether the rule reads `comparison`: if both models are real, or both synthetic."""
    return (corpus == SYNTHETIC_CORPUS) == (champion_corpus == SYNTHETIC_CORPUS)


def _worse_on_the_test_set(differences: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    worse = []
    for name, margin in TEST_MARGINS.items():
        measured = differences[name]
        low = measured["low"]
        if low is None:
            worse.append(f"{name} is not defined on the test set")
        elif low < -margin:
            worse.append(f"{name} {_signed(measured)}, allowed from {-margin:+.3f} up")
    return worse


def _worse_on_suites(candidate: Mapping[str, Any], champion: Mapping[str, Any]) -> list[str]:
    worse = []
    for (suite, figure), margin in SUITE_MARGINS.items():
        new, old = _suite(candidate, suite, figure), _suite(champion, suite, figure)
        if new is not None and old is not None and new < old - margin:
            worse.append(f"{suite} {figure} {new:.3f} after {old:.3f}")
    return worse


def _worse_on_classes(candidate: Mapping[str, Any], champion: Mapping[str, Any]) -> list[str]:
    new, old = ((each.get("classes") or {}).get("macro_recall") for each in (candidate, champion))
    is_one_file = candidate.get("calibration_sha256") == champion.get("calibration_sha256")
    if is_one_file and new is not None and old is not None and new < old - CLASSES_MARGIN:
        return [f"three classes macro_recall {new:.3f} after {old:.3f}"]
    return []


def _suite(metrics: Mapping[str, Any], suite: str, figure: str) -> float | None:
    value = ((metrics.get("suites") or {}).get(suite) or {}).get(figure)
    return None if value is None else float(value)


def _summary(differences: Mapping[str, Mapping[str, float | None]]) -> str:
    return "; ".join(f"{name} {_signed(differences[name])}" for name in TEST_MARGINS)


def _signed(measured: Mapping[str, float | None]) -> str:
    return (
        f"{measured['difference']:+.4f}, 95 % interval"
        f" {measured['low']:+.4f} to {measured['high']:+.4f}"
    )
