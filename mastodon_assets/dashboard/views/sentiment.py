"""How the posts sound: sentiment by day, by language and by hashtag, and posts without a label."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, LiteralString

from psycopg import Connection

from mastodon_assets.dashboard.charts.bars import (
    Bar,
    StackedBar,
    count_label,
    horizontal_bars,
    stacked_shares,
)
from mastodon_assets.dashboard.charts.time_series import Shares, shares_over_time
from mastodon_assets.dashboard.filters import Scope
from mastodon_assets.dashboard.intervals import MIN_POSTS, Share, percent, share
from mastodon_assets.dashboard.views.base import (
    IS_LANGUAGE,
    Column,
    Content,
    Figure,
    Grid,
    View,
    by_day,
    days,
    fetch,
    nothing_yet,
    with_interval,
)
from mastodon_assets.dashboard.views.periods import axis_of, floor, grain_for, midnight

_LABELS = ("positive", "neutral", "negative")
_LEGEND = tuple((name, name) for name in _LABELS)
_MOST_BARS = 12
_COUNTS = (
    Column("n_toots", "posts"),
    Column("n_pos", "positive"),
    Column("n_neu", "neutral"),
    Column("n_neg", "negative"),
    Column("n_unscored", "without label"),
    Column("share_pos", "share positive", "share"),
    Column("share_pos_low", "from", "share"),
    Column("share_pos_high", "to", "share"),
    Column("share_neg", "share negative", "share"),
    Column("share_neg_low", "from", "share"),
    Column("share_neg_high", "to", "share"),
)
_WITHHELD = f"Labels of fewer than {MIN_POSTS} posts are withheld."
# Posts with a label and without: n_toots, n_pos, n_neu, n_neg, n_unscored.
Counts = Sequence[int]


def with_shares(counts: Counts) -> list[Any]:
    """Return the counts with shares and intervals; all of that is None for too few labels."""
    posts, positive, neutral, negative, unscored = map(int, counts)
    labelled = positive + neutral + negative
    if labelled < MIN_POSTS:
        return [posts, *([None] * 3), posts if labelled == 0 else None, *([None] * 6)]
    shares = [share(count, labelled) for count in (positive, negative)]
    numbers = [number for each in shares if each for number in (each.value, each.low, each.high)]
    return [posts, positive, neutral, negative, unscored, *numbers]


_BY_DAY_COLUMNS = (Column("day", "day", "day"), *_COUNTS)
_DAILY: LiteralString = """
SELECT day, n_toosts, n_pos, n_neu, n_neg, n_unscored
  FROM masto.v_sentiment_daily WHERE {where} ORDER BY day"""
_DAILY_PART: LiteralString = """
SELECT day, sum(n_toots), sum(n_pos), sum(n_neu), sum(n_neg), sum(n_unscored)
  FROM masto.v_sentiment_by_language WHERE {where} GROUP BY day ORDER BY day"""
_DAILY_HASHTAG: LiteralString = """
SELECT day, sum(n_toots), sum(n_pos), sum(n_neu), sum(n_neg), sum(n_unscored)
  FROM masto.v_sentiment_by_hashtag WHERE {where} GROUP BY day ORDER BY day"""


def read_by_day(connection: Connection[Any], scope: Scope) -> Content:
    """Read the labels per day with shares and intervals."""
    rows = _days(connection, scope)
    if not rows:
        return nothing_yet(connection, _BY_DAY_COLUMNS, scope)
    grain = grain_for(midnight(rows[0][0]), midnight(rows[-1][0]), shortest="day")
    first = max(scope.first_day, rows[0][0]) if scope.first_day else rows[0][0]
    axis = axis_of(grain, midnight(first), midnight(rows[-1][0]) + timedelta(days=1))
    sums: dict[datetime, list[int]] = defaultdict(lambda: [0] * 5)
    for day, *counts in rows:
        at = floor(grain, midnight(day))
        sums[at] = [int(a) + int(b) for a, b in zip(sums[at], counts, strict=True)]
    totals = [sum(sums[at][1:4]) for at in axis.starts]
    series = [
        Shares(
            name, name, [share(sums[at][i], n) for at, n in zip(axis.starts, totals, strict=True)]
        )
        for name, i in (("positive", 1), ("negative", 3))
    ]
    labelled = [sum(int(row[i]) for row in rows) for i in (2, 3, 4)]
    summary = _summary(rows, labelled, grain.name)
    return Content(
        Grid(_BY_DAY_COLUMNS, [[day, *with_shares(counts)] for day, *counts in rows]),
        table=Grid(
            _BY_DAY_COLUMNS, [[day, *with_shares(counts)] for day, *counts in reversed(rows)]
        ),
        draw=lambda width: shares_over_time(width, axis, series, totals, summary),
        summary=summary,
        notes=[
            f"n = {sum(labelled):,} labelled posts of {sum(int(row[1]) for row in rows):,}."
            f" Per {grain.name}; bars and bands are 95 % intervals (Wilson). {_WITHHELD}",
            *_limits(scope),
        ],
        figures=_figures(rows, scope),
        start=scope.first_midnight,
    )


def _days(connection: Connection[Any], scope: Scope) -> list[tuple[Any, ...]]:
    filters = scope.filters
    if filters.hashtag:
        condition = days(scope).add("hashtag = %(hashtag)s", hashtag=filters.hashtag)
        condition.add(IS_LANGUAGE, language=filters.language)
        return fetch(connection, _DAILY_HASHTAG, condition)
    if filters.language or filters.server:
        return fetch(connection, _DAILY_PART, by_day(scope))
    return fetch(connection, _DAILY, days(scope))


def _limits(scope: Scope) -> list[str]:
    if not scope.filters.hashtag:
        return []
    limits = [
        "Days on which the hashtag has fewer than 5 labelled posts of a language are left out."
    ]
    if scope.filters.server:
        limits.append("The filter by server does not apply to labels of a hashtag.")
    return limits


def _summary(rows: Sequence[tuple[Any, ...]], labelled: Sequence[int], unit: str) -> str:
    total = sum(labelled)
    shares = [with_interval(share(count, total)) for count in labelled]
    return (
        f"Share of positive and negative posts per {unit} from {rows[0][0]} to {rows[-1][0]}."
        f" Over all: positive {shares[0]}, neutral {shares[1]}, negative {shares[2]};"
        f" n = {total:,}."
    )


def _figures(rows: Sequence[tuple[Any, ...]], scope: Scope) -> list[Figure]:
    """Return the shares of the newest day with enough labels."""
    enough = [row for row in rows if row[2] + row[3] + row[4] >= MIN_POSTS]
    day, _, positive, neutral, negative, _ = (enough or rows)[-1]
    labelled = int(positive + neutral + negative)
    when = "today so far" if day == scope.now.date() else f"on {day:%d %b}"
    return [
        Figure(f"{name} {when}", _value(share(int(count), labelled)), _detail(count, labelled))
        for name, count in (("positive", positive), ("negative", negative))
    ]


def _value(value: Share | None) -> str:
    return "withheld" if value is None else percent(value.value)


def _detail(count: int, labelled: int) -> str:
    found = share(int(count), labelled)
    if found is None:
        return f"fewer than {MIN_POSTS} labelled posts"
    return f"{found.low * 100:.0f} to {found.high * 100:.0f} %, n = {labelled:,}"


_LANGUAGE_COLUMNS = (Column("lang", "language", "text"), *_COUNTS)
_LANGUAGES: LiteralString = """
SELECT lang, sum(n_toots), sum(n_pos), sum(n_neu), sum(n_neg), sum(n_unscored)
  FROM masto.v_sentiment_by_language WHERE {where} GROUP BY lang ORDER BY 2 DESC, 1"""


def read_language_sentiment(connection: Connection[Any], scope: Scope) -> Content:
    """Read the labels per language, languages without labels left out."""
    rows = [
        row
        for row in fetch(connection, _LANGUAGES, by_day(scope))
        if int(row[2]) + int(row[3]) + int(row[4]) > 0
    ]
    return _stacked(connection, scope, rows, _LANGUAGE_COLUMNS, "language")


_HASHTAG_COLUMNS = (Column("hashtag", "hashtag", "tag"), *_COUNTS)
_HASHTAGS: LiteralString = """
SELECT hashtag, sum(n_toots), sum(n_pos), sum(n_neu), sum(n_neg), sum(n_unscored)
  FROM masto.v_sentiment_by_hashtag WHERE {where}
 GROUP BY hashtag ORDER BY sum(n_pos + n_neu + n_neg) DESC, 1 LIMIT 200"""


def read_hashtag_sentiment(connection: Connection[Any], scope: Scope) -> Content:
    """Read the labels per hashtag, of days with enough labels."""
    condition = days(scope).add(IS_LANGUAGE, language=scope.filters.language)
    condition.add("hashtag = %(hashtag)s", hashtag=scope.filters.hashtag)
    rows = fetch(connection, _HASHTAGS, condition)
    return _stacked(connection, scope, rows, _HASHTAG_COLUMNS, "hashtag")


def _stacked(
    connection: Connection[Any],
    scope: Scope,
    rows: Sequence[tuple[Any, ...]],
    columns: Sequence[Column],
    unit: str,
) -> Content:
    if not rows:
        nothing = nothing_yet(connection, columns, scope)
        if nothing.empty and nothing.empty.startswith("No posts match"):
            return Content(nothing.grid, empty=f"No {unit} has enough labelled posts here.")
        return nothing
    bars = [_stacked_bar(unit, row) for row in rows[:_MOST_BARS]]
    labelled = sum(int(row[2]) + int(row[3]) + int(row[4]) for row in rows)
    first = rows[0]
    of_first = int(first[2]) + int(first[3]) + int(first[4])
    summary = (
        f"Shares of positive, neutral and negative posts per {unit}, {len(rows)} in all."
        f" {first[0]}: positive {with_interval(share(int(first[2]), of_first))}, n = {of_first:,}."
    )
    note = f"n = {labelled:,} labelled posts. {_WITHHELD}"
    if unit == "hashtag":
        note += (
            " A hashtag counts on days on which it has 5 labelled posts of a language; a post"
            " counts once for each of its hashtags."
        )
    return Content(
        Grid(columns, [[name, *with_shares(counts)] for name, *counts in rows]),
        draw=lambda width: stacked_shares(width, bars, _LEGEND, summary),
        summary=summary,
        notes=[note],
        start=scope.first_midnight,
    )


def _stacked_bar(unit: str, row: tuple[Any, ...]) -> StackedBar:
    name, _, positive, neutral, negative, _ = row
    total = int(positive + neutral + negative)
    shown = f"#{name}" if unit == "hashtag" else name
    if total < MIN_POSTS:
        return StackedBar(shown, "", ())
    counts = zip(_LABELS, (positive, neutral, negative), strict=True)
    return StackedBar(
        shown, f"n = {total:,}", [(label, int(count) / total) for label, count in counts]
    )


_REASONS = {
    "unsupported_language": "other language",
    "no_words": "no words",
    "no_model": "no model yet",
    "not_scored": "not scored yet",
}
_REASON_COLUMNS = (
    Column("reason", "reason", "text"),
    Column("toots_count", "posts"),
    Column("share", "share of all posts", "share"),
)
_OUTCOMES: LiteralString = """
SELECT outcome, sum(toots_count)::bigint
  FROM masto.sentiment_totals WHERE {where} GROUP BY outcome ORDER BY 2 DESC, 1"""


def read_unlabelled(connection: Connection[Any], scope: Scope) -> Content:
    """Read how many posts have no label, and why."""
    counts: dict[str, int] = dict(fetch(connection, _OUTCOMES, days(scope)))
    total = sum(counts.values())
    if not total:
        return nothing_yet(connection, _REASON_COLUMNS, scope)
    rows: list[list[Any]] = [
        [reason, count, count / total] for reason, count in counts.items() if reason not in _LABELS
    ]
    unlabelled = sum(row[1] for row in rows)
    bars = [Bar(_REASONS.get(r, r), float(n), count_label(n, n / total)) for r, n, _ in rows]
    summary = (
        f"{unlabelled:,} of {total:,} posts have no label ({percent(unlabelled / total)}): "
        + (", ".join(f"{_REASONS.get(r, r)} {n:,}" for r, n, _ in rows) or "none")
        + "."
    )
    return Content(
        Grid(_REASON_COLUMNS, rows),
        table=Grid(_REASON_COLUMNS, [[_REASONS.get(r, r), n, s] for r, n, s in rows]),
        draw=(lambda width: horizontal_bars(width, bars, summary)) if rows else None,
        summary=summary,
        notes=[summary],
        empty=None if rows else f"All {total:,} posts have a label.",
        start=scope.first_midnight,
    )


BY_DAY = View(
    "sentiment",
    "Sentiment by day",
    "How positive and how negative are the posts?",
    "v_sentiment_daily, or v_sentiment_by_language and v_sentiment_by_hashtag under filters",
    read_by_day,
    follows="answers",
    applies=("language", "hashtag", "server"),
    is_wide=True,
)
LANGUAGE_SENTIMENT = View(
    "language-sentiment",
    "Sentiment by language",
    "Do languages differ?",
    "v_sentiment_by_language",
    read_language_sentiment,
    follows="answers",
    applies=("language", "server"),
)
HASHTAG_SENTIMENT = View(
    "hashtag-sentiment",
    "Sentiment by hashtag",
    "How do people feel about what they tag?",
    "v_sentiment_by_hashtag",
    read_hashtag_sentiment,
    follows="answers",
    applies=("language", "hashtag"),
)
UNLABELLED = View(
    "unlabelled",
    "Posts without a label",
    "How many posts does the model not label, and why?",
    "sentiment_totals",
    read_unlabelled,
    follows="answers",
)
