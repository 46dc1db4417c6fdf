"""The charts of a model: reliability diagram, ROC curve, table of its strongest n-grams.

What belongs here: how a model's metrics look. `sentiment.evaluation.diagnostics` computes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINE = "#2B6CA3"
_IDEAL = "#94A0A8"


def model_figure(metrics: Mapping[str, Any]) -> Figure:
    """Draw the reliability diagram and the ROC curve side by side.

    Args:
        metrics: `curves` (`reliability` as `[predicted, observed, posts]`, `roc` as `[false
            positive rate, true positive rate]`), `auc` and `calibration_error` or None.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    curves = metrics["curves"]
    _draw(
        left,
        [point[:2] for point in curves["reliability"]],
        title=f"Reliability (error {_shown(metrics.get('calibration_error'))})",
        labels=("probability of positive", "share of positives"),
        marker="o",
    )
    _draw(
        right,
        curves["roc"],
        title=f"ROC (AUC {_shown(metrics.get('auc'))})",
        labels=("false positives", "true positives"),
        marker="",
    )
    return figure


def ngrams_markdown(ngrams: Mapping[str, Sequence[Sequence[Any]]]) -> str:
    """Format n-grams as a Markdown table.

    Args:
        ngrams: `positive` and `negative`, each a list of `[n-gram, probability of positive]`.
    """
    lines = ["| positive | | negative | |", "|---|---|---|---|"]
    rows = max(len(ngrams["positive"]), len(ngrams["negative"]))
    for number in range(rows):
        cells = [_cells(ngrams[side], number) for side in ("positive", "negative")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(pairs: Sequence[Sequence[Any]], number: int) -> str:
    if number >= len(pairs):
        return " | "
    ngram, probability = pairs[number]
    return f"{ngram} | {probability:.3f}"


def _draw(
    axes: Axes,
    points: Sequence[Sequence[float]],
    *,
    title: str,
    labels: tuple[str, str],
    marker: str,
) -> None:
    axes.plot([0, 1], [0, 1], color=_IDEAL, linewidth=1, linestyle="--")
    axes.plot(
        [point[0] for point in points],
        [point[1] for point in points],
        color=_LINE,
        marker=marker,
        markersize=4,
    )
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(labels[0], fontsize=8)
    axes.set_ylabel(labels[1], fontsize=8)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.tick_params(labelsize=7)


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
