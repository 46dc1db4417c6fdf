"""The page of a chart: title, notes, axes, colours, and how numbers are written on it.

What belongs here: what all charts share. Objects of matplotlib only; no pyplot and no rcParams,
which are shared by the whole process.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from mastodon_assets.reports.text_fitting import glyph_lookup, installed_families, label, text_width

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Blue and orange stay apart with every kind of colour blindness; grey is neutral.
LABEL_COLOURS = {
    "positive": "#2B6CA3",
    "neutral": "#94A0A8",
    "negative": "#D9772B",
    "unlabelled": "#DADFE3",
}
COUNT_COLOUR = "#3D5A73"
INK = "#1F2A33"
MUTED = "#5B6770"
_WARNING = "#A3271F"
GRID = "#E6E9EB"

WIDTH_IN = 8.0
MARGIN_IN = 0.15
_DPI = 200
_NAME_WIDTH_IN = 2.15
_CORPUS_WIDTH_IN = 4.6
TICK_SIZE = 9
_NOTE_SIZE = 7.5

# Without knowing what a public stream leaves out, a reader misreads the numbers.
SOURCE = "Public posts of the observed servers, without boosts, silenced accounts and most replies"
_DEMO_ONLY = "FOR DEMONSTRATION ONLY"


def new_page(
    title: str,
    subtitle: str,
    notes: Sequence[str],
    *,
    height: float,
    left: float = 1.1,
    legend: bool = False,
    tick_lines: int = 1,
) -> tuple[Figure, Axes]:
    """Create a figure of 8 in by `height` with title, notes and empty axes; margins in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    lines = [line for line in notes if line]
    top = 1.05 if legend else 0.8
    bottom = 0.5 + 0.16 * tick_lines + 0.16 * len(lines)
    axes = figure.add_axes(
        (
            left / WIDTH_IN,
            bottom / height,
            (WIDTH_IN - left - 0.3) / WIDTH_IN,
            (height - top - bottom) / height,
        )
    )
    x = MARGIN_IN / WIDTH_IN
    _write(figure, x, 1 - MARGIN_IN / height, title, size=14, colour=INK, weight="bold")
    _write(figure, x, 1 - 0.45 / height, subtitle, size=10, colour=MUTED)
    for number, line in enumerate(reversed(lines)):
        is_warning = line.startswith(_DEMO_ONLY)
        _write(
            figure,
            x,
            (0.25 + 0.16 * number) / height,
            line,
            size=_NOTE_SIZE,
            colour=_WARNING if is_warning else MUTED,
            weight="bold" if is_warning else "normal",
        )
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(length=0, labelsize=TICK_SIZE, labelcolor=INK)
    axes.set_axisbelow(True)
    return figure, axes


def empty_figure(title: str, message: str) -> Figure:
    """Draw a page that says why there is no chart."""
    figure, axes = new_page(title, "Nothing to show", [f"{SOURCE}."], height=3.4)
    axes.set_axis_off()
    axes.text(
        0.5,
        0.5,
        message,
        transform=axes.transAxes,
        ha="center",
        va="center",
        fontsize=11,
        color=MUTED,
        parse_math=False,
    )
    return figure


def _write(
    figure: Figure, x: float, y: float, text: str, *, size: float, colour: str, **font: Any
) -> None:
    figure.text(x, y, text, fontsize=size, color=colour, va="top", parse_math=False, **font)


def name_rows(axes: Axes, names: Sequence[str], families: Sequence[str] | None = None) -> None:
    """Name the horizontal bars, the first at the top."""
    axes.set_yticks(range(len(names)), names, parse_math=False, fontfamily=families)
    axes.set_ylim(len(names) - 0.4, -0.6)


def write_value(axes: Axes, x: float, y: float, text: str) -> None:
    """Write a value to the right of its bar."""
    axes.annotate(
        text,
        (x, y),
        xytext=(4, 0),
        textcoords="offset points",
        va="center_baseline",
        fontsize=TICK_SIZE,
        color=INK,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )


def count_axis(axis: Axis, name: str) -> None:
    """Give an axis of counts whole numbers, a name and grid lines."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.set_label_text(name, fontsize=TICK_SIZE, color=MUTED)
    axis.grid(visible=True, color=GRID, linewidth=0.8)


def models_line(frame: pd.DataFrame) -> str:
    """Name the models that made the labels; a warning if one was trained on synthetic texts."""
    models = frame["models"].iloc[0]
    if not models:
        return ""
    corpora = {corpus or "a corpus that is not on record" for _, corpus in models}
    is_demo = any(corpus.startswith("synthetic") for corpus in corpora)
    by = f"model {models[0][0]}" if len(models) == 1 else f"{len(models)} models"
    if len(corpora) > 1:
        on = f"{len(corpora)} corpora" + (", a synthetic one among them" if is_demo else "")
    else:
        on = "a synthetic corpus" if is_demo else _corpus_label(corpora.pop())
    labels = f"{_DEMO_ONLY}: labels" if is_demo else "Labels"
    return f"{labels} by {by}, trained on {on}."


def _corpus_label(corpus: str) -> str:
    """Fit a file's name, of any length and script, to matplotlib's own font."""
    family = ["DejaVu Sans"]
    width = text_width(family, _NOTE_SIZE)
    return label(corpus, glyph_lookup(family), lambda text: width(text) <= _CORPUS_WIDTH_IN)


def posts_text(count: int) -> str:
    """Format a number of posts."""
    return "1 post" if count == 1 else f"{count:,} posts"


def share_text(value: int, total: int) -> str:
    """Format a share in percent; a few of many are not `0 %`."""
    percent = 100 * value / total
    return "<0.1 %" if 0 < percent < 0.1 else f"{percent:.1f} %"


def range_text(first: date, last: date) -> str:
    """Format days, one or the first and the last."""
    return first.isoformat() if first == last else f"{first.isoformat()} to {last.isoformat()}"


def write_legend(figure: Figure) -> None:
    """Write the names of what is drawn in one line below the subtitle."""
    figure.legend(
        loc="upper left",
        bbox_to_anchor=(MARGIN_IN / WIDTH_IN, 1 - 0.77 / figure.get_figheight()),
        borderpad=0,
        borderaxespad=0,
        ncols=5,
        frameon=False,
        fontsize=TICK_SIZE,
        labelcolor=INK,
        handlelength=1,
        handleheight=1,
        columnspacing=1.6,
    )


def fitted_names(
    names: Iterable[str], width_in: float = _NAME_WIDTH_IN
) -> tuple[list[str], list[str], str]:
    """Fit names from the network to a chart, as `text_fitting` describes.

    Returns:
        The names, the fonts to draw them with, and a note on what replaces missing characters,
        empty if nothing does.
    """
    families = installed_families()
    has_glyph, width = glyph_lookup(families), text_width(families, TICK_SIZE)
    fitted = [label(name, has_glyph, lambda text: width(text) <= width_in) for name in names]
    is_replaced = any("⟨" in name for name in fitted)
    note = "⟨ ⟩: code points of characters that no font of this machine has."
    return fitted, families, note if is_replaced else ""
