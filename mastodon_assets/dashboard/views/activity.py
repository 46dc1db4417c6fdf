"""How much is posted: over time, by weekday and hour, by language."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, LiteralString

from psycopg import Connection

from mastodon_assets.dashboard.charts.bars import Bar, count_label, horizontal_bars
from mastodon_assets.dashboard.charts.heatmap import DAYS, week_map
from mastodon_assets.dashboard.charts.svg import SERIES
from mastodon_assets.dashboard.charts.time_series import Axis, Series, stacked_columns
from mastodon_assets.dashboard.filters import Filters, Scope, scope_at
from mastodon_assets.dashboard.intervals import percent
from mastodon_assets.dashboard.views.base import (
    IS_LANGUAGE,
    Column,
    Condition,
    Content,
    Figure,
    Grid,
    View,
    by_hour,
    fetch,
    moment,
    newest_post,
    nothing_yet,
)
from mastodon_assets.dashboard.views.periods import Grain, axis_of, grain_for, spread

_COLUMNS = (
    Column("period_start", "from", "time"),
    Column("lang", "language", "text"),
    Column("toots_count", "posts"),
)
_MOST_BARS = 12
# A pause of this length is said in words.
_PAUSE = timedelta(minutes=5)
_OTHERS = "others"


def read_minutes(connection: Connection[Any], scope: Scope) -> Content:
    """Read the posts per minute and language of the last hour, as the stream counts them."""
    last_hour = scope_at(Filters(period="1h", language=scope.filters.language), scope.now)
    content = read_posts(connection, last_hour)
    count = sum(row[2] for row in content.grid.rows)
    return replace(content, figures=[Figure("posts in the last hour", f"{count:,}", "live")])


def read_posts(connection: Connection[Any], scope: Scope) -> Content:
    """Read the posts per period and language, per minute if the period is short."""
    first = _first_post(connection, scope)
    if first is None:
        return nothing_yet(connection, _COLUMNS, scope)
    start = max(first, scope.start) if scope.start else first
    grain = grain_for(
        start if scope.start is None or scope.filters.first_day else scope.start,
        scope.end,
        shortest="minute" if scope.is_by_minute else "hour",
    )
    rows = fetch(connection, _statement(scope), _condition(scope), interval=grain.interval)
    if not rows:
        return nothing_yet(connection, _COLUMNS, scope)
    axis = axis_of(grain, scope.start or rows[0][0], min(scope.end, scope.now))
    series = _series(axis, rows)
    total = sum(row[2] for row in rows)
    unit = "posts with the hashtag" if scope.filters.hashtag else "posts"
    return Content(
        Grid(_COLUMNS, rows),
        table=_by_period(axis, series),
        draw=lambda width: stacked_columns(
            width, axis, series, f"{unit} per {grain.name}", _summary(axis, series, total, grain)
        ),
        summary=_summary(axis, series, total, grain),
        notes=_notes(connection, scope, total, axis, grain),
        figures=[Figure("posts", f"{total:,}", scope.text)],
        warning=_pause(connection, scope) if scope.is_by_minute else None,
        start=scope.start if scope.is_by_minute else scope.first_hour,
    )


def _first_post(connection: Connection[Any], scope: Scope) -> datetime | None:
    table: LiteralString = (
        "SELECT min(window_start) FROM masto.toot_metrics_windowed"
        if scope.is_by_minute
        else "SELECT min(hour) FROM masto.hourly_activity"
    )
    row = connection.execute(table).fetchone()
    found: datetime | None = row[0] if row else None
    return found


def _statement(scope: Scope) -> LiteralString:
    if scope.is_by_minute:
        return """
            SELECT date_bin(%(interval)s::interval, window_start, '2001-01-01 UTC') AS period,
                   lang, sum(toots_count)::bigint
              FROM masto.toot_metrics_windowed WHERE {where} GROUP BY 1, 2 ORDER BY 1, 2"""
    if scope.filters.hashtag:
        return """
            SELECT date_bin(%(interval)s::interval, hour, '2001-01-01 UTC') AS period,
                   lang, sum(toots_count)::bigint
              FROM masto.hourly_hashtags WHERE {where} GROUP BY 1, 2 ORDER BY 1, 2"""
    return """
        SELECT date_bin(%(interval)s::interval, hour, '2001-01-01 UTC') AS period,
               lang, sum(toots_count)::bigint
          FROM masto.hourly_activity WHERE {where} GROUP BY 1, 2 ORDER BY 1, 2"""


def _condition(scope: Scope) -> Condition:
    if scope.is_by_minute:
        condition = Condition().add("window_start >= %(start)s", start=scope.start)
        condition.add("window_start < %(end)s", end=scope.end)
        return condition.add(IS_LANGUAGE, language=scope.filters.language)
    return by_hour(scope).add("hashtag = %(hashtag)s", hashtag=scope.filters.hashtag)


def _series(axis: Axis, rows: list[tuple[Any, ...]]) -> list[Series]:
    """Return the largest languages, and all others as one."""
    totals: Counter[str] = Counter()
    counts: Mapping[str, Counter[datetime]] = defaultdict(Counter)
    for period, lang, count in rows:
        totals[lang] += count
        counts[lang][period] += count
    most = len(SERIES) if len(totals) <= len(SERIES) else len(SERIES) - 1
    named = [lang for lang, _ in totals.most_common(most)]
    others: Counter[datetime] = Counter()
    for lang in totals.keys() - set(named):
        others.update(counts[lang])
    series = [Series(lang, spread(axis, counts[lang])) for lang in named]
    return [*series, Series(_OTHERS, spread(axis, others))] if others else series


def _by_period(axis: Axis, series: list[Series]) -> Grid:
    """Return the chart's numbers, newest period first."""
    columns = [Column("period", "from (UTC)", "text"), Column("total", "all")]
    columns += [Column(each.name, each.name) for each in series]
    rows = [
        [
            axis.names[n],
            sum(each.counts[n] for each in series),
            *(each.counts[n] for each in series),
        ]
        for n in range(len(axis.starts) - 1, -1, -1)
    ]
    return Grid(columns, rows)


def _summary(axis: Axis, series: list[Series], total: int, grain: Grain) -> str:
    by_size = ", ".join(f"{each.name} {sum(each.counts):,}" for each in series)
    return (
        f"Posts per {grain.name} from {axis.names[0]} to {axis.names[-1]} UTC:"
        f" {total:,} in all; {by_size}."
    )


def _notes(
    connection: Connection[Any], scope: Scope, total: int, axis: Axis, grain: Grain
) -> list[str]:
    start = scope.start if scope.is_by_minute else scope.first_hour
    parts = [
        name
        for name, is_part in (
            ("first", start is not None and axis.starts[0] < start),
            ("last", axis.starts[-1] + grain.length > min(scope.end, scope.now)),
        )
        if is_part
    ]
    verb = "columns are" if len(parts) > 1 else "column is"
    incomplete = f" The {' and the '.join(parts)} {verb} not complete." if parts else ""
    notes = [f"n = {total:,} posts.{incomplete}"]
    if not scope.is_by_minute:
        notes.append(as_of(connection))
    return notes


def as_of(connection: Connection[Any]) -> str:
    """Say up to when the hourly numbers are complete."""
    row = connection.execute(
        "SELECT updated_at FROM masto.asset_progress WHERE asset = 'hourly_activity'"
    ).fetchone()
    if row is None:
        return "Hourly numbers are updated by each refresh."
    return f"Hourly numbers as of the refresh at {row[0]:%d %b, %H:%M} UTC."


def _pause(connection: Connection[Any], scope: Scope) -> str | None:
    newest = newest_post(connection)
    if newest is None or scope.filters.first_day or scope.now - newest < _PAUSE:
        return None
    return f"Nothing since {moment(newest, scope.now)}."


_WEEK_COLUMNS = (
    Column("weekday", "weekday"),
    Column("hour_of_day", "hour (UTC)"),
    Column("toots_count", "posts"),
    Column("hours_count", "hours observed"),
    Column("mean_toots", "posts per hour", "decimal"),
)
# As the view v_activity_by_weekday, for a part of the hours.
_WEEK: LiteralString = """
WITH observed AS (
    SELECT hour, sum(toots_count) FILTER (WHERE {where}) AS toots_count
      FROM masto.hourly_activity
     WHERE hour < date_trunc('hour', %(now)s, 'UTC') AND hour < %(until)s
       AND (%(since)s::timestamptz IS NULL OR hour >= %(since)s)
     GROUP BY hour
),
hours AS (
    SELECT day + number * interval '1 hour' AS hour
      FROM (SELECT DISTINCT date_trunc('day', hour, 'UTC') AS day FROM observed) days,
           generate_series(0, 23) number,
           (SELECT min(hour) AS first, max(hour) AS last FROM observed) span
     WHERE day + number * interval '1 hour' BETWEEN span.first AND span.last
)
SELECT extract(isodow FROM hour AT TIME ZONE 'UTC')::integer,
       extract(hour FROM hour AT TIME ZONE 'UTC')::integer,
       coalesce(sum(toots_count), 0)::bigint,
       count(*),
       (coalesce(sum(toots_count), 0) / count(*))::double precision
  FROM hours LEFT JOIN observed USING (hour)
 GROUP BY 1, 2 ORDER BY 1, 2"""


def read_week(connection: Connection[Any], scope: Scope) -> Content:
    """Read the mean number of posts per weekday and hour."""
    rows = fetch(
        connection,
        _WEEK,
        by_hour(scope),
        now=scope.now,
        since=scope.first_hour,
        until=scope.end,
    )
    total = sum(row[2] for row in rows)
    if not total:
        return nothing_yet(connection, _WEEK_COLUMNS, scope)
    means = {(row[0], row[1]): row[4] for row in rows}
    busiest = max(rows, key=lambda row: row[4])
    summary = (
        f"Mean posts per weekday and hour, UTC. The busiest hour is {DAYS[busiest[0] - 1]}"
        f" {busiest[1]:02d}:00 with {busiest[4]:,.1f} posts."
    )
    hours = sum(row[3] for row in rows)
    return Content(
        Grid(_WEEK_COLUMNS, rows),
        table=_weekday_table(means),
        draw=lambda width: week_map(width, means, summary),
        summary=summary,
        notes=[
            f"n = {total:,} posts in {hours:,} complete hours. Hours in UTC, not in the"
            " authors' time zones.",
            *(["Fewer than 7 days: weekdays without data are empty."] if hours < 7 * 24 else []),
        ],
        start=scope.first_hour,
    )


def _weekday_table(means: Mapping[tuple[int, int], float]) -> Grid:
    columns = [Column("hour", "hour (UTC)", "text")]
    columns += [Column(day, day, "decimal") for day in DAYS]
    rows = [
        [f"{hour:02d}:00", *(means.get((day, hour)) for day in range(1, 8))] for hour in range(24)
    ]
    return Grid(columns, rows)


_LANGUAGE_COLUMNS = (
    Column("lang", "language", "text"),
    Column("toots_count", "posts"),
    Column("share", "share", "share"),
)
_LANGUAGES: LiteralString = """
SELECT lang, sum(toots_count)::bigint
  FROM masto.hourly_activity WHERE {where} GROUP BY lang ORDER BY 2 DESC, 1"""


def read_languages(connection: Connection[Any], scope: Scope) -> Content:
    """Read the posts per language."""
    counts = fetch(connection, _LANGUAGES, by_hour(scope))
    if not counts:
        return nothing_yet(connection, _LANGUAGE_COLUMNS, scope)
    total = sum(count for _, count in counts)
    bars = [
        Bar(lang, float(count), count_label(count, count / total))
        for lang, count in counts[:_MOST_BARS]
    ]
    most = ", ".join(f"{lang} {percent(count / total)}" for lang, count in counts[:5])
    summary = f"Posts per language, {len(counts)} languages: {most}; n = {total:,} posts."
    hidden = len(counts) - len(bars)
    return Content(
        Grid(_LANGUAGE_COLUMNS, [[lang, count, count / total] for lang, count in counts]),
        draw=lambda width: horizontal_bars(width, bars, summary),
        summary=summary,
        notes=[
            f"n = {total:,} posts in {len(counts):,} languages as declared by the authors; und:"
            " none."
            + (
                f" The chart leaves out {hidden:,} languages, the table has them." if hidden else ""
            ),
        ],
        start=scope.first_hour,
    )


MINUTES = View(
    "minutes",
    "Posts per minute",
    "What arrives now?",
    "toot_metrics_windowed",
    read_minutes,
    follows="posts",
    applies=("language",),
    is_wide=True,
    has_period=False,
)
POSTS = View(
    "posts",
    "Posts over time",
    "How much is posted, and in which languages?",
    "hourly_activity, hourly_hashtags; toot_metrics_windowed up to 6 hours",
    read_posts,
    follows="answers",
    applies=("language", "hashtag", "server"),
    is_wide=True,
)
WEEK = View(
    "week",
    "Activity by weekday and hour",
    "When do people post?",
    "hourly_activity",
    read_week,
    follows="answers",
    applies=("language", "server"),
)
LANGUAGES = View(
    "languages",
    "Languages",
    "In which languages do people post?",
    "hourly_activity",
    read_languages,
    follows="answers",
    applies=("language", "server"),
)
