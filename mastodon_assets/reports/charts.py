"""The four charts of the first version: a frame in, a matplotlib figure out.

What belongs here: how these charts look. What all charts share is in `figures`. The frames come
from `queries`.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from mastodon_assets.reports.figures import (
    COUNT_COLOUR,
    INK,
    LABEL_COLOURS,
    MUTED,
    SOURCE,
    TICK_SIZE,
    count_axis,
    empty_figure,
    fitted_names,
    models_line,
    name_rows,
    new_page,
    posts_text,
    range_text,
    share_text,
    write_legend,
    write_value,
)
from mastodon_assets.reports.periods import by_day_or_month

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_BARS_UP_TO = 62
_TICK_PER_DAY_UP_TO_DAYS = 8
_DAY_TICKS_UP_TO_DAYS = 92

_REASONS = {
    "unsupported_language": "language without a model",
    "no_words": "no words",
    "no_model": "no model yet",
    "not_scored": "not scored yet",
}


def sentiment_distribution(frame: pd.DataFrame) -> Figure:
    """Draw the posts per label and their share as bars.

    Args:
        frame: `label_str`, `reason`, `n`, `first_day`, `last_day`, `models`, as
            `queries.sentiment_by_reason` returns it.
    """
    title = "Sentiment of toots"
    if frame.empty:
        return empty_figure(title, "No toots yet: masto.toots_raw has no rows.")
    total = int(frame["n"].sum())
    counts = frame.groupby("label_str")["n"].sum()
    values = [int(counts.get(name, 0)) for name in LABEL_COLOURS]
    figure, axes = new_page(
        title,
        f"Public posts by label, {range_text(frame['first_day'].min(), frame['last_day'].max())}",
        [f"{SOURCE}; {posts_text(total)}.", _reasons_line(frame), models_line(frame)],
        height=4.1,
    )
    axes.barh(range(4), values, height=0.68, color=list(LABEL_COLOURS.values()))
    name_rows(axes, list(LABEL_COLOURS))
    for row, value in enumerate(values):
        write_value(axes, value, row, f"{value:,}  ({share_text(value, total)})")
    axes.set_xlim(0, max(values) * 1.35)
    count_axis(axes.xaxis, "Posts")
    return figure


def sentiment_by_day(frame: pd.DataFrame) -> Figure:
    """Draw the posts per label and day or month, stacked: bars, or steps if more than 62.

    Args:
        frame: `day`, `n_pos`, `n_neu`, `n_neg`, `n_unscored`, `n_toosts`, `models`, `n_earlier`,
            `n_later`, one row per day, as `queries.sentiment_every_day` returns it.
    """
    if frame.empty:
        return empty_figure(
            "Sentiment of toots by day", "No toots yet: masto.v_sentiment_daily has no rows."
        )
    unit, shown = by_day_or_month(frame)
    figure, axes = new_page(
        f"Sentiment of toots by {unit}",
        f"Public posts by {unit} and label, {_days_text(frame)}",
        [*_period_notes(unit, frame, "n_toosts"), models_line(frame)],
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
    count_axis(axes.yaxis, f"Posts per {unit}")
    write_legend(figure)
    return figure


def toots_per_day(frame: pd.DataFrame) -> Figure:
    """Draw the posts per day or month: bars, or steps if more than 62.

    Args:
        frame: `day`, `toots_count`, `n_earlier`, `n_later`, one row per day, as
            `queries.toots_every_day` returns it.
    """
    if frame.empty:
        return empty_figure("Toots per day", "No toots yet: masto.batch_toots_per_day has no rows.")
    unit, shown = by_day_or_month(frame)
    counts = shown["toots_count"]
    figure, axes = new_page(
        f"Toots per {unit}",
        f"Public posts by {unit}, {_days_text(frame)}",
        _period_notes(unit, frame, "toots_count"),
        height=4.4,
        tick_lines=2 if len(shown) <= _TICK_PER_DAY_UP_TO_DAYS else 1,
    )
    edges = _edges(unit, shown["day"])
    _draw_periods(axes, edges, counts * 0, counts, COUNT_COLOUR, None)
    _time_axis(axes, unit, shown["day"], edges)
    axes.set_ylim(0, int(counts.max()) * 1.1)
    count_axis(axes.yaxis, f"Posts per {unit}")
    if len(shown) <= _TICK_PER_DAY_UP_TO_DAYS:
        for day, count in zip(_day_numbers(shown["day"]), counts, strict=True):
            axes.annotate(
                f"{count:,}",
                (day, count),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=TICK_SIZE,
                color=INK,
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
        return empty_figure(title, "No hashtags yet: masto.batch_hashtag_by_hour has no rows.")
    names, families, name_note = fitted_names(f"#{name}" for name in frame["hashtag"])
    whole = frame.iloc[0]
    uses = "1 use" if whole["all_uses"] == 1 else f"{whole['all_uses']:,} uses"
    hashtags = "1 hashtag" if whole["all_hashtags"] == 1 else f"{whole['all_hashtags']:,} hashtags"
    notes = [
        f"{SOURCE}.",
        f"{uses} of {hashtags}; a post counts once for each hashtag it has.",
        name_note,
    ]
    figure, axes = new_page(
        title,
        f"The {len(frame)} hashtags in most public posts, "
        f"{range_text(whole['first_day'], whole['last_day'])}",
        notes,
        height=1.9 + 0.225 * len(frame),
        left=2.55,
    )
    axes.barh(range(len(frame)), frame["n"], height=0.68, color=COUNT_COLOUR)
    name_rows(axes, names, families)
    for row, value in enumerate(frame["n"]):
        write_value(axes, value, row, f"{value:,}")
    axes.set_xlim(0, int(frame["n"].max()) * 1.2)
    count_axis(axes.xaxis, "Posts")
    return figure


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
    axes.set_xlabel(f"{unit.capitalize()} (UTC)", fontsize=TICK_SIZE, color=MUTED)


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


def _days_text(frame: pd.DataFrame) -> str:
    return range_text(frame["day"].iloc[0], frame["day"].iloc[-1])


def _period_notes(unit: str, frame: pd.DataFrame, counts: str) -> list[str]:
    incomplete = "the first and the last" if len(frame) > 1 else "this one"
    return [
        f"{SOURCE}; {posts_text(int(frame[counts].sum()))}.",
        f"{unit.capitalize()}s are UTC; {incomplete} may be incomplete.",
        _outside_line(frame),
    ]


def _outside_line(frame: pd.DataFrame) -> str:
    """Say how many posts are dated outside the days shown."""
    earlier, later = int(frame["n_earlier"].iloc[0]), int(frame["n_later"].iloc[0])
    parts = [f"{posts_text(earlier)} dated before {frame['day'].iloc[0].isoformat()}"] * bool(
        earlier
    )
    parts += [f"{posts_text(later)} dated after {frame['day'].iloc[-1].isoformat()}"] * bool(later)
    return f"Not shown: {' and '.join(parts)}." if parts else ""


def _reasons_line(frame: pd.DataFrame) -> str:
    reasons = frame[frame["reason"].notna()]
    parts = [
        f"{_REASONS[reason]} {n:,}"
        for reason, n in zip(reasons["reason"], reasons["n"], strict=True)
    ]
    return f"Unlabelled: {', '.join(parts)}." if parts else ""
