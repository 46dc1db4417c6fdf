"""The charts of a model."""

import numpy as np
from matplotlib.axes import Axes

from mastodon_assets.reports.model_charts import model_figure, ngrams_markdown
from mastodon_assets.reports.previews import preview_markdown

_CURVES = {"reliability": [[0.1, 0.2, 5], [0.9, 0.8, 5]], "roc": [[0.0, 0.0], [0.2, 0.9], [1, 1]]}


def _points(axes: Axes) -> list[list[float]]:
    """The curve, which is drawn after the diagonal."""
    points: list[list[float]] = np.asarray(axes.lines[1].get_xydata()).tolist()
    return points


def test_the_figure_names_the_measures_and_is_small_enough_for_metadata() -> None:
    figure = model_figure({"curves": _CURVES, "auc": 0.9123, "calibration_error": None})
    assert [axes.get_title() for axes in figure.axes] == [
        "Reliability (error undefined)",
        "ROC (AUC 0.912)",
    ]
    assert _points(figure.axes[0]) == [[0.1, 0.2], [0.9, 0.8]]
    assert len(preview_markdown(figure)) < 60_000


def test_a_model_without_a_curve_has_an_empty_chart() -> None:
    figure = model_figure({"curves": {"reliability": [], "roc": []}})
    assert _points(figure.axes[1]) == []


def test_the_ngrams_are_a_table_with_a_gap_where_one_side_has_fewer() -> None:
    ngrams = {"positive": [["good day", 0.987], ["fine", 0.9]], "negative": [["sad", 0.0123]]}
    assert ngrams_markdown(ngrams).splitlines()[2:] == [
        "| good day | 0.987 | sad | 0.012 |",
        "| fine | 0.900 |  |  |",
    ]
