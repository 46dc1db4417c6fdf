"""The charts of trends, activity, sentiment by group, servers and lateness.

What belongs here: how these charts look. What all charts share is in `figures`. The frames come
from `answer_queries`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from mastodon_assets.reports.answer_queries import DAYS, HASHTAG_DAYS
from mastodon_assets.reports.figures import (
    COUNT_COLOUR,
    GRID,
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
from mastodon_assets.reports.intervals import wilson

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_INTERVALS = "Lines: 95 % Wilson intervals, as if posts were independent of each other"
_ROW_IN = 0.225
_LEFT_IN = 2.55
# From early to late.
_LATENESS = {
    "received_1m": ("up to 1 min", "#2B6CA3"),
    "received_10m": ("10 min", "#8FB6D6"),
    "received_1h": ("1 h", "#DADFE3"),
    "received_1d": ("1 day", "#F0B98A"),
    "received_later": ("later", "#D9772B"),
}
_PALE_TO_BLUE = ("#F4F6F7", "#2B6CA3")
_DARK_FROM = 0.55


def hashtag_trends(frame: pd.DataFrame) -> Figure:
    """Draw the accounts per hashtag in an hour as bars, and how many are usual as lines.

    Args:
        frame: As `answer_queries.hashtag_trends` returns it.
    """
    title = "Trending hashtags"
    if frame.empty:
        return empty_figure(
            title, "No hashtag is used by at least 3 accounts, and by more than usual."
        )
    whole = frame.iloc[0]
    hour, days = whole["hour"], int(whole["days_compared"])
    usual = (
        f"usual: mean of this hour on {days} of the 14 days before, those with any post in it"
        if days
        else "no earlier day has posts in this hour to compare with"
    )
    names, families, name_note = fitted_names(f"#{name}" for name in frame["hashtag"])
    figure, axes = new_page(
        title,
        f"{len(frame)} of {whole['all_trends']:,} hashtags with more accounts than usual,"
        f" {hour:%Y-%m-%d %H:00} to {hour + timedelta(hours=1):%H:00} UTC",
        [
            f"{SOURCE}.",
            f"Accounts are counted, not posts; {usual}.",
            "Ordered by (accounts − usual) / √(usual + 1); at least 3 accounts.",
            name_note,
        ],
        height=_height(frame, notes=4),
        left=_LEFT_IN,
    )
    axes.barh(range(len(frame)), frame["accounts"], height=0.68, color=COUNT_COLOUR)
    name_rows(axes, names, families)
    for row, (accounts, mean) in enumerate(
        zip(frame["accounts"], frame["usual_accounts"], strict=True)
    ):
        text = f"{accounts:,}" + (f"  (usual {_mean_text(mean)})" if days else "")
        write_value(axes, accounts, row, text)
        if days:
            axes.plot([mean, mean], [row - 0.34, row + 0.34], color="#D9772B", linewidth=2)
    axes.set_xlim(0, int(frame["accounts"].max()) * 1.58)
    count_axis(axes.xaxis, "Accounts in the hour; the orange line is the usual number")
    return figure


def activity_by_weekday(frame: pd.DataFrame) -> Figure:
    """Draw the mean posts per hour of the week as a table of 7 by 24 coloured cells.

    Args:
        frame: As `answer_queries.activity_by_weekday` returns it.
    """
    from matplotlib.colors import LinearSegmentedColormap

    title = "Activity by weekday and hour"
    if frame.empty:
        return empty_figure(title, "No complete hour yet: masto.v_activity_by_weekday has no rows.")
    whole = frame.iloc[0]
    figure, axes = new_page(
        title,
        "Mean public posts per hour, times in UTC, "
        f"{range_text(whole['first_day'], whole['last_day'])}",
        [
            f"{SOURCE}; {posts_text(int(frame['toots_count'].sum()))} in"
            f" {int(frame['hours_count'].sum()):,} hours.",
            "Without the running hour and without days that have no post at all. Empty cells: no"
            " such hour was read.",
        ],
        height=3.9,
        left=0.75,
    )
    most = float(frame["mean_toots"].max())
    colours = LinearSegmentedColormap.from_list("posts", _PALE_TO_BLUE)
    for weekday, hour, mean in zip(
        frame["weekday"], frame["hour_of_day"], frame["mean_toots"], strict=True
    ):
        share = mean / most if most else 0.0
        axes.barh(weekday - 1, 0.94, left=hour + 0.03, height=0.9, color=colours(share))
        axes.text(
            hour + 0.5,
            weekday - 1,
            _short(mean),
            ha="center",
            va="center_baseline",
            fontsize=6.5,
            color="white" if share > _DARK_FROM else INK,
        )
    axes.set_xlim(0, 24)
    axes.set_xticks([hour + 0.5 for hour in range(0, 24, 3)], [f"{h:02}" for h in range(0, 24, 3)])
    axes.set_xlabel("Hour of the day (UTC), from", fontsize=TICK_SIZE, color=MUTED)
    name_rows(axes, _WEEKDAYS)
    axes.spines["bottom"].set_visible(False)
    return figure


def sentiment_by_language(frame: pd.DataFrame) -> Figure:
    """Draw the shares of positive and negative posts per language, with intervals.

    Args:
        frame: As `answer_queries.sentiment_by_language` returns it.
    """
    return _sentiment(
        frame,
        title="Sentiment by language",
        shown="language",
        empty="No labelled post yet: masto.v_sentiment_by_language has no labels.",
        names=["none declared (und)" if name == "und" else str(name) for name in frame["name"]],
        note=f"The last {DAYS} days with posts. Languages are as declared by the author's client.",
    )


def sentiment_by_hashtag(frame: pd.DataFrame) -> Figure:
    """Draw the shares of positive and negative posts per hashtag, with intervals.

    Args:
        frame: As `answer_queries.sentiment_by_hashtag` returns it.
    """
    return _sentiment(
        frame,
        title="Sentiment by hashtag",
        shown="hashtag",
        empty="No hashtag has 5 labelled posts of a day and language yet.",
        names=[f"#{name}" for name in frame["name"]],
        note=f"The last {HASHTAG_DAYS} days; those with fewer than 5 labelled posts of a hashtag"
        " and language are not counted.",
    )


def _sentiment(
    frame: pd.DataFrame, *, title: str, shown: str, empty: str, names: Sequence[str], note: str
) -> Figure:
    if frame.empty:
        return empty_figure(title, empty)
    whole = frame.iloc[0]
    fitted, families, name_note = fitted_names(names)
    labelled, total = int(whole["all_labelled"]), int(whole["n_toots"])
    figure, axes = new_page(
        title,
        f"{_part_text(len(frame), int(whole['all_names']), shown)} labelled posts,"
        f" {range_text(whole['first_day'], whole['last_day'])} UTC",
        [
            f"{SOURCE}.",
            f"{labelled:,} of {posts_text(total)} have a label ({share_text(labelled, total)}).",
            note,
            f"{_INTERVALS}; they leave out the model's errors.",
            models_line(frame),
            name_note,
        ],
        height=_height(frame, notes=6) + 0.25,
        left=_LEFT_IN,
        legend=True,
    )
    for column, shift in (("n_pos", -0.16), ("n_neg", 0.16)):
        _draw_shares(axes, frame, column, shift)
    name_rows(axes, fitted, families)
    for row, count in enumerate(frame["n_labelled"]):
        write_value(axes, 1.0, row, f"n = {count:,}")
    # A mark at 0 % is shown whole.
    axes.set_xlim(-0.01, 1.3)
    _percent_axis(axes, "Share of the labelled posts; the rest is neutral")
    write_legend(figure)
    return figure


def _draw_shares(axes: Axes, frame: pd.DataFrame, column: str, shift: float) -> None:
    name = {"n_pos": "positive", "n_neg": "negative"}[column]
    counts, totals = frame[column], frame["n_labelled"]
    intervals = [wilson(int(n), int(total)) for n, total in zip(counts, totals, strict=True)]
    rows = [row + shift for row in range(len(frame))]
    axes.hlines(
        rows,
        [low for low, _ in intervals],
        [high for _, high in intervals],
        color=LABEL_COLOURS[name],
        linewidth=1.6,
    )
    axes.scatter(counts / totals, rows, s=22, color=LABEL_COLOURS[name], label=name, zorder=3)


def servers(frame: pd.DataFrame) -> Figure:
    """Draw the posts per server as bars, with the share that was deleted.

    Args:
        frame: As `answer_queries.servers` returns it.
    """
    title = "Servers"
    if frame.empty:
        return empty_figure(title, "No toots yet: masto.v_servers has no rows.")
    figure, axes = _page_of_servers(
        frame,
        title,
        "Posts of {servers} that were read, and the share deleted, {days}",
        [
            "Deleted: deletes of posts that had been read, of these and the posts that are there."
            " Whether author or server deleted is unknown.",
            "In brackets: 95 % Wilson intervals, as if posts were independent of each other.",
        ],
    )
    axes.barh(range(len(frame)), frame["toots_count"], height=0.68, color=COUNT_COLOUR)
    for row, (posts, deletes) in enumerate(
        zip(frame["toots_count"], frame["deletes_of_stored"], strict=True)
    ):
        write_value(axes, posts, row, f"{posts:,}  ({_deleted(int(posts), int(deletes))})")
    axes.set_xlim(0, max(1, int(frame["toots_count"].max())) * 2.3)
    count_axis(axes.xaxis, "Posts")
    return figure


def _deleted(posts: int, deletes: int) -> str:
    total = posts + deletes
    if not total:
        return "none read"
    low, high = wilson(deletes, total)
    return f"deleted {share_text(deletes, total)} [{100 * low:.1f} to {100 * high:.1f} %]"


def lateness(frame: pd.DataFrame) -> Figure:
    """Draw per server how late its posts were received, as shares.

    Args:
        frame: As `answer_queries.lateness` returns it.
    """
    title = "How late posts are received"
    if frame.empty:
        return empty_figure(title, "No toots yet: masto.v_lateness has no rows.")
    figure, axes = _page_of_servers(
        frame,
        title,
        "Public posts of {servers} by time from posting or edit to receipt, {days}",
        [
            "The time of posting is what the author's server claims. Late are also posts of a"
            " backfill or an import.",
            "n: posts. In brackets: 95 % Wilson interval of the share within 1 minute.",
        ],
        legend=True,
    )
    base = frame["toots_count"] * 0.0
    for column, (name, colour) in _LATENESS.items():
        shares = frame[column] / frame["toots_count"]
        axes.barh(range(len(frame)), shares, left=base, height=0.68, color=colour, label=name)
        base = base + shares
    for row, (early, total) in enumerate(
        zip(frame["received_1m"], frame["toots_count"], strict=True)
    ):
        low, high = wilson(int(early), int(total))
        write_value(axes, 1.0, row, f"n = {total:,}  [{100 * low:.1f} to {100 * high:.1f} %]")
    axes.set_xlim(0, 1.7)
    _percent_axis(axes, "Share of the server's posts")
    write_legend(figure)
    return figure


def _part_text(shown: int, whole: int, name: str) -> str:
    """Return which of them are shown: all that have labelled posts, or those with most."""
    return f"{_counted(shown, whole, name)} with{' most' if shown < whole else ''}"


def _counted(shown: int, whole: int, name: str) -> str:
    """Return `1 server`, `5 servers`, or `25 of 1,200 servers`."""
    number = f"{shown} of {whole:,}" if shown < whole else f"{shown}"
    return f"{number} {name}{'' if whole == 1 else 's'}"


def _page_of_servers(
    frame: pd.DataFrame, title: str, subtitle: str, notes: Sequence[str], *, legend: bool = False
) -> tuple[Figure, Axes]:
    """Return a page with one row per server; `{servers}` and `{days}` are filled in."""
    whole = frame.iloc[0]
    names, families, name_note = fitted_names(frame["instance"])
    figure, axes = new_page(
        title,
        subtitle.format(
            servers=_counted(len(frame), int(whole["all_servers"]), "server"),
            days=f"{range_text(whole['first_day'], whole['last_day'])} UTC",
        ),
        [
            f"{SOURCE}; {posts_text(int(whole['all_toots']))} of the last {DAYS} days with posts.",
            *notes,
            name_note,
        ],
        height=_height(frame, notes=4) + 0.25 * legend,
        left=_LEFT_IN,
        legend=legend,
    )
    name_rows(axes, names, families)
    return figure, axes


def _height(frame: pd.DataFrame, *, notes: int) -> float:
    """Return inches for one line per row, and the page's title and notes."""
    return 1.5 + 0.16 * notes + _ROW_IN * max(3, len(frame))


def _percent_axis(axes: Axes, name: str) -> None:
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel(name, fontsize=TICK_SIZE, color=MUTED)
    axes.xaxis.grid(visible=True, color=GRID, linewidth=0.8)


def _mean_text(mean: float) -> str:
    return f"{mean:,.0f}" if mean >= 100 else f"{mean:.1f}"


def _short(mean: float) -> str:
    """Format a mean in at most four characters."""
    if mean >= 9_950:
        return f"{mean / 1000:.0f}k"
    if mean >= 995:
        return f"{mean / 1000:.1f}k"
    return f"{mean:.0f}" if mean >= 9.95 or mean == 0 else f"{mean:.1f}"
