"""The four charts: a frame in, a matplotlib figure out.

What belongs here: how a chart looks. Pure functions on matplotlib's objects; no pyplot and no
rcParams, which are shared by the whole process. The frames come from `queries`.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from mastodon_assets.reports.periods import by_day_or_month
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
_COUNT_COLOUR = "#3D5A73"
_INK = "#1F2A33"
_MUTED = "#5B6770"
_WARNING = "#A3271F"
_GRID = "#E6E9EB"

_WIDTH_IN = 8.0
_MARGIN_IN = 0.15
_DPI = 200
_BARS_UP_TO = 62
_TICK_PER_DAY_UP_TO_DAYS = 8
_DAY_TICKS_UP_TO_DAYS = 92
_HASHTAG_WIDTH_IN = 2.15
_CORPUS_WIDTH_IN = 4.6
_TICK_SIZE = 9
_NOTE_SIZE = 7.5

_REASONS = {
    "unsupported_language": "language without a model",
    "no_words": "no words",
    "no_model": "no model yet",
    "not_scored": "not scored yet",
}
# Without knowing what a public stream leaves out, a reader misreads the numbers.
_SOURCE = "Public posts of the observed servers, without boosts, silenced accounts and most replies"
_DEMO_ONLY = "FOR DEMONSTRATION ONLY"


def sentiment_distribution(frame: pd.DataFrame) -> Figure:
    """Draw the posts per label and their share as bars.

    Args:
        frame: `label_str`, `reason`, `n`, `first_day`, `last_day`, `models`, as
            `queries.sentiment_by_reason` returns it.
    """
    title = "Sentiment of toots"
    if frame.empty:
        return _empty_figure(title, "No toots yet: masto.toots_raw has no rows.")
    total = int(frame["n"].sum())
    counts = frame.groupby("label_str")["n"].sum()
    values = [int(counts.get(name, 0)) for name in LABEL_COLOURS]
    figure, axes = _page(
        title,
        f"Public posts by label, {_range(frame['first_day'].min(), frame['last_day'].max())}",
        [f"{_SOURCE}; {_posts(total)}.", _reasons_line(frame), _models_line(frame)],
        height=4.1,
    )
    axes.barh(range(4), values, height=0.68, color=list(LABEL_COLOURS.values()))
    _name_rows(axes, list(LABEL_COLOURS))
    for row, value in enumerate(values):
        _write_value(axes, value, row, f"{value:,}  ({_share(value, total)})")
    axes.set_xlim(0, max(values) * 1.35)
    _count_axis(axes.xaxis, "Posts")
    return figure


def sentiment_by_day(frame: pd.DataFrame) -> Figure:
    """Draw the posts per label and day or month, stacked: bars, or steps if more than 62.

    Args:
        frame: `day`, `n_pos`, `n_neu`, `n_neg`, `n_unscored`, `n_toosts`, `models`, `n_earlier`,
            `n_later`, one row per day, as `queries.sentiment_every_day` returns it.
    """
    if frame.empty:
        return _empty_figure(
            "Sentiment of toots by day", "No toots yet: masto.v_sentiment_daily has no rows."
        )
    unit, shown = by_day_or_month(frame)
    figure, axes = _page(
        f"Sentiment of toots by {unit}",
        f"Public posts by {unit} and label, {_range(frame['day'].iloc[0], frame['day'].iloc[-1])}",
        [*_period_notes(unit, frame, "n_toosts"), _models_line(frame)],
        height=4.9,
        legend=True,
        tick_lines=2 if len(shown) <= _TICK_PER_DAY_UP_TO_DAYS else 1,
    )
    series = ("n_pos", "n_neu", "n_neg", "n_unscored")
    edges = _edges(unit, shown["day"])
    base = shown["n_pos"] * 0
    for column, (name, colour) in zip(series, LABEL_COLOURS.items(), strict=True):
        _draw_periods(axes, edges, base, base + shown[column], colour, name)
        base = base + shown[column]
    _time_axis(axes, unit, shown["day"], edges)
    axes.set_ylim(0, int(base.max()) * 1.06)
    _count_axis(axes.yaxis, f"Posts per {unit}")
    figure.legend(
        loc="upper left",
        bbox_to_anchor=(_MARGIN_IN / _WIDTH_IN, 1 - 0.77 / figure.get_figheight()),
        borderpad=0,
        borderaxespad=0,
        ncols=4,
        frameon=False,
        fontsize=_TICK_SIZE,
        labelcolor=_INK,
        handlelength=1,
        handleheight=1,
        columnspacing=1.6,
    )
    return figure


def toots_per_day(frame: pd.DataFrame) -> Figure:
    """Draw the posts per day or month: bars, or steps if more than 62.

    Args:
        frame: `day`, `toots_count`, `n_earlier`, `n_later`, one row per day, as
            `queries.toots_every_day` returns it.
    """
    if frame.empty:
        return _empty_figure(
            "Toots per day", "No toots yet: masto.batch_toots_per_day has no rows."
        )
    unit, shown = by_day_or_month(frame)
    counts = shown["toots_count"]
    figure, axes = _page(
        f"Toots per {unit}",
        f"Public posts by {unit}, {_range(frame['day'].iloc[0], frame['day'].iloc[-1])}",
        _period_notes(unit, frame, "toots_count"),
        height=4.4,
        tick_lines=2 if len(shown) <= _TICK_PER_DAY_UP_TO_DAYS else 1,
    )
    edges = _edges(unit, shown["day"])
    _draw_periods(axes, edges, counts * 0, counts, _COUNT_COLOUR, None)
    _time_axis(axes, unit, shown["day"], edges)
    axes.set_ylim(0, int(counts.max()) * 1.1)
    _count_axis(axes.yaxis, f"Posts per {unit}")
    if len(shown) <= _TICK_PER_DAY_UP_TO_DAYS:
        for day, count in zip(_day_numbers(shown["day"]), counts, strict=True):
            axes.annotate(
                f"{count:,}",
                (day, count),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=_TICK_SIZE,
                color=_INK,
            )
    return figure


def top_hashtags(frame: pd.DataFrame) -> Figure:
    """Draw the most used hashtags and the posts that use them as bars.

    Names are drawn as `text_fitting` describes.

    Args:
        frame: `hashtag`, `n`, `all_uses`, `all_hashtags`, `first_day`, `last_day`, most used
            first, as `queries.top_hashtags` returns it.
    """
    title = "Most used hashtags"
    if frame.empty:
        return _empty_figure(title, "No hashtags yet: masto.batch_hashtag_by_hour has no rows.")
    families = installed_families()
    has_glyph = glyph_lookup(families)
    width = text_width(families, _TICK_SIZE)
    names = [
        label(f"#{name}", has_glyph, lambda text: width(text) <= _HASHTAG_WIDTH_IN)
        for name in frame["hashtag"]
    ]
    whole = frame.iloc[0]
    uses = "1 use" if whole["all_uses"] == 1 else f"{whole['all_uses']:,} uses"
    hashtags = "1 hashtag" if whole["all_hashtags"] == 1 else f"{whole['all_hashtags']:,} hashtags"
    notes = [f"{_SOURCE}.", f"{uses} of {hashtags}; a post counts once for each hashtag it has."]
    if any("⟨" in name for name in names):
        notes.append("⟨ ⟩: code points of characters that no font of this machine has.")
    figure, axes = _page(
        title,
        f"The {len(frame)} hashtags in most public posts, "
        f"{_range(whole['first_day'], whole['last_day'])}",
        notes,
        height=1.9 + 0.225 * len(frame),
        left=2.55,
    )
    axes.barh(range(len(frame)), frame["n"], height=0.68, color=_COUNT_COLOUR)
    _name_rows(axes, names, families)
    for row, value in enumerate(frame["n"]):
        _write_value(axes, value, row, f"{value:,}")
    axes.set_xlim(0, int(frame["n"].max()) * 1.2)
    _count_axis(axes.xaxis, "Posts")
    return figure


def _page(
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

    figure = Figure(figsize=(_WIDTH_IN, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    lines = [line for line in notes if line]
    top = 1.05 if legend else 0.8
    bottom = 0.5 + 0.16 * tick_lines + 0.16 * len(lines)
    axes = figure.add_axes(
        (
            left / _WIDTH_IN,
            bottom / height,
            (_WIDTH_IN - left - 0.3) / _WIDTH_IN,
            (height - top - bottom) / height,
        )
    )
    x = _MARGIN_IN / _WIDTH_IN
    _write(figure, x, 1 - _MARGIN_IN / height, title, size=14, colour=_INK, weight="bold")
    _write(figure, x, 1 - 0.45 / height, subtitle, size=10, colour=_MUTED)
    for number, line in enumerate(reversed(lines)):
        is_warning = line.startswith(_DEMO_ONLY)
        _write(
            figure,
            x,
            (0.25 + 0.16 * number) / height,
            line,
            size=_NOTE_SIZE,
            colour=_WARNING if is_warning else _MUTED,
            weight="bold" if is_warning else "normal",
        )
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_MUTED)
    axes.tick_params(length=0, labelsize=_TICK_SIZE, labelcolor=_INK)
    axes.set_axisbelow(True)
    return figure, axes


def _empty_figure(title: str, message: str) -> Figure:
    figure, axes = _page(title, "Nothing to show", [f"{_SOURCE}."], height=3.4)
    axes.set_axis_off()
    axes.text(
        0.5,
        0.5,
        message,
        transform=axes.transAxes,
        ha="center",
        va="center",
        fontsize=11,
        color=_MUTED,
        parse_math=False,
    )
    return figure


def _write(
    figure: Figure, x: float, y: float, text: str, *, size: float, colour: str, **font: Any
) -> None:
    figure.text(x, y, text, fontsize=size, color=colour, va="top", parse_math=False, **font)


def _name_rows(axes: Axes, names: Sequence[str], families: Sequence[str] | None = None) -> None:
    """Name the horizontal bars, the first at the top."""
    axes.set_yticks(range(len(names)), names, parse_math=False, fontfamily=families)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _write_value(axes: Axes, x: float, y: float, text: str) -> None:
    axes.annotate(
        text,
        (x, y),
        xytext=(4, 0),
        textcoords="offset points",
        va="center_baseline",
        fontsize=_TICK_SIZE,
        color=_INK,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )


def _count_axis(axis: Axis, name: str) -> None:
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.set_label_text(name, fontsize=_TICK_SIZE, color=_MUTED)
    axis.grid(visible=True, color=_GRID, linewidth=0.8)


def _edges(unit: str, starts: pd.Series) -> list[float]:
    """Return where the periods meet, and both ends; a day's number is in the middle of its bar."""
    last = starts.iloc[-1]
    length = 1 if unit == "day" else monthrange(last.year, last.month)[1]
    return [number - 0.5 for number in _day_numbers([*starts, last + timedelta(days=length)])]


def _time_axis(axes: Axes, unit: str, starts: pd.Series, edges: Sequence[float]) -> None:
    # Empty days around a single one, so that its bar is not as broad as the page.
    margin = max(0.1, (6 - len(starts)) / 2)
    axes.set_xlim(edges[0] - margin, edges[-1] + margin)
    if len(starts) <= _TICK_PER_DAY_UP_TO_DAYS:
        axes.set_xticks(_day_numbers(starts), [f"{day:%a}\n{day.isoformat()}" for day in starts])
    elif unit == "month":
        step = _months_per_tick(len(starts))
        # In the middle of the bar: at the first of a month a label would be between two bars.
        ticks = [
            (middle, _month_label(start))
            for middle, start in zip(_middles(edges), starts, strict=True)
            if (12 * start.year + start.month - 1) % step == 0
        ]
        axes.set_xticks(*zip(*ticks, strict=True))
    elif len(starts) <= _DAY_TICKS_UP_TO_DAYS:
        shown = starts[:: -(-len(starts) // 8)]
        axes.set_xticks(_day_numbers(shown), [f"{day:%d %b}" for day in shown])
    else:
        firsts = [day for day in starts if day.day == 1]
        axes.set_xticks(_day_numbers(firsts), [_month_label(day) for day in firsts])
    axes.set_xlabel(f"{unit.capitalize()} (UTC)", fontsize=_TICK_SIZE, color=_MUTED)


def _month_label(month: date) -> str:
    """Name the year in its January."""
    return f"{month:%Y}" if month.month == 1 else f"{month:%b}"


def _months_per_tick(months: int) -> int:
    """Return a step that gives at most 12 ticks; whole years if more than half a year."""
    return next((step for step in (2, 3, 4, 6) if months <= 12 * step), 12 * -(-months // 144))


def _middles(edges: Sequence[float]) -> list[float]:
    return [(left + right) / 2 for left, right in pairwise(edges)]


def _draw_periods(
    axes: Axes,
    edges: Sequence[float],
    base: pd.Series,
    top: pd.Series,
    colour: str,
    name: str | None,
) -> None:
    if len(top) <= _BARS_UP_TO:
        widths = [0.8 * (right - left) for left, right in pairwise(edges)]
        axes.bar(_middles(edges), top - base, bottom=base, width=widths, color=colour, label=name)
        return
    # A step is as broad as its period; the last one needs an end.
    axes.fill_between(
        edges,
        [*base, base.iloc[-1]],
        [*top, top.iloc[-1]],
        step="post",
        color=colour,
        linewidth=0,
        label=name,
    )


def _day_numbers(days: Iterable[date]) -> list[float]:
    """Convert to days since 1970, matplotlib's numbers for dates."""
    return [float(day.toordinal() - date(1970, 1, 1).toordinal()) for day in days]


def _period_notes(unit: str, frame: pd.DataFrame, counts: str) -> list[str]:
    incomplete = "the first and the last" if len(frame) > 1 else "this one"
    return [
        f"{_SOURCE}; {_posts(int(frame[counts].sum()))}.",
        f"{unit.capitalize()}s are UTC; {incomplete} may be incomplete.",
        _outside_line(frame),
    ]


def _outside_line(frame: pd.DataFrame) -> str:
    """Say how many posts are dated outside the days shown."""
    earlier, later = int(frame["n_earlier"].iloc[0]), int(frame["n_later"].iloc[0])
    parts = [f"{_posts(earlier)} dated before {frame['day'].iloc[0].isoformat()}"] * bool(earlier)
    parts += [f"{_posts(later)} dated after {frame['day'].iloc[-1].isoformat()}"] * bool(later)
    return f"Not shown: {' and '.join(parts)}." if parts else ""


def _reasons_line(frame: pd.DataFrame) -> str:
    reasons = frame[frame["reason"].notna()]
    parts = [
        f"{_REASONS[reason]} {n:,}"
        for reason, n in zip(reasons["reason"], reasons["n"], strict=True)
    ]
    return f"Unlabelled: {', '.join(parts)}." if parts else ""


def _models_line(frame: pd.DataFrame) -> str:
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


def _posts(count: int) -> str:
    return "1 post" if count == 1 else f"{count:,} posts"


def _share(value: int, total: int) -> str:
    """Format a share in percent; a few of many are not `0 %`."""
    percent = 100 * value / total
    return "<0.1 %" if 0 < percent < 0.1 else f"{percent:.1f} %"


def _range(first: date, last: date) -> str:
    return first.isoformat() if first == last else f"{first.isoformat()} to {last.isoformat()}"
