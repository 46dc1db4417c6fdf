"""What the numbers rest on: sources and gaps, and the model that labels."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, LiteralString

from psycopg import Connection

from mastodon_assets.dashboard.filters import Scope
from mastodon_assets.dashboard.intervals import percent
from mastodon_assets.dashboard.views.base import (
    Column,
    Condition,
    Content,
    Figure,
    Grid,
    View,
    fetch,
    moment,
)
from mastodon_assets.ingest.source_states import SourceStatus

_SOURCE_COLUMNS = (
    Column("instance", "server", "text"),
    Column("source", "timeline", "text"),
    Column("state", "state", "text"),
    Column("last_post_at", "last post", "time"),
    Column("told_at", "state of", "time"),
    Column("open_gaps", "open gaps"),
    Column("gaps", "gaps in the period"),
    Column("recovered_count", "posts recovered"),
    Column("unrecovered", "gaps with posts missing"),
)
_SOURCES: LiteralString = """
SELECT s.instance, s.source, s.state, s.detail, s.told_at, s.last_event_at, s.last_post_at,
       count(g.status) FILTER (WHERE g.status = 'open'),
       count(g.status), coalesce(sum(g.recovered_count), 0)::bigint,
       count(g.status) FILTER (WHERE g.status IN ('partial', 'unrecoverable')),
       (SELECT u.reason FROM masto.suspicious_sources u
         WHERE u.instance = s.instance AND u.accepted_until IS NULL)
  FROM masto.ingest_sources s
  LEFT JOIN masto.stream_gaps g
    ON g.instance = s.instance AND g.source = s.source
   AND (g.status = 'open' OR (g.started_at < %(end)s
        AND (%(start)s::timestamptz IS NULL OR g.ended_at >= %(start)s)))
 WHERE {where}
 GROUP BY s.instance, s.source ORDER BY s.instance, s.source"""


_INCIDENTS: LiteralString = """
SELECT what, opened_at FROM masto.alerts WHERE {where} ORDER BY opened_at, fact"""
_MOST_INCIDENTS = 5


def read_sources(connection: Connection[Any], scope: Scope) -> Content:
    """Read the state of each source and its gaps in the period."""
    condition = Condition().add("s.instance = %(server)s", server=scope.filters.server)
    found = fetch(connection, _SOURCES, condition, start=scope.start, end=scope.end)
    incidents = _incidents(connection, scope)
    if not found:
        return Content(
            Grid(_SOURCE_COLUMNS, []),
            empty="No source yet: no ingester has recorded a state.",
            warning="\n".join(incidents) or None,
        )
    rows = [_source(row, scope.now) for row in found]
    reading = sum(row[2] == "connected" for row in rows)
    open_gaps, missing = sum(row[5] for row in rows), sum(row[8] for row in rows)
    suspicious = [f"{row[0]}: {row[11]}" for row in found if row[11]]
    return Content(
        Grid(_SOURCE_COLUMNS, rows),
        notes=[
            f"{reading} of {len(rows)} sources connected; {_gaps(open_gaps)};"
            f" {_gaps(missing, 'gap with posts that could not be recovered')}.",
        ],
        figures=[Figure("sources connected", f"{reading} of {len(rows)}", _gaps(open_gaps))],
        warning="\n".join([*incidents, *suspicious]) or None,
    )


def _incidents(connection: Connection[Any], scope: Scope) -> list[str]:
    """Return the open incidents of the platform in words, the oldest first."""
    condition = Condition().add("opened_at IS NOT NULL AND closed_at IS NULL")
    found = fetch(connection, _INCIDENTS, condition)
    named = [f"{what} (since {moment(at, scope.now)})" for what, at in found[:_MOST_INCIDENTS]]
    more = len(found) - len(named)
    return [*named, f"{more} more: mastodon-assets alerts list"] if more else named


def _gaps(count: int, name: str = "open gap") -> str:
    return f"{count or 'no'} {name if count < 2 else name.replace('gap', 'gaps')}"


def _source(row: tuple[Any, ...], now: datetime) -> list[Any]:
    instance, source, state, detail, told_at, event_at, post_at, open_gaps = row[:8]
    status = SourceStatus(
        instance, source, state, detail, told_at, event_at, post_at, None, open_gaps
    )
    state = status.present_state(now)
    return [row[0], row[1], state, row[6], row[4], row[7], row[8], row[9], row[10]]


_MODEL_COLUMNS = (Column("fact", "fact", "text"), Column("value", "value", "text"))
_MODEL: LiteralString = """
SELECT version, corpus, trained_at, promoted_at, metrics, status_reason
  FROM masto.sentiment_models WHERE {where}"""
_METRICS = (
    ("auc", "AUC (1 is perfect, 0.5 is chance)"),
    ("accuracy", "accuracy"),
    ("calibration_error", "calibration error (0 is perfect)"),
)
_METRICS_OF_CLASSES = (
    ("macro_recall", "macro-recall of three classes"),
    ("macro_f1", "macro-F1 of three classes"),
)

_METRICS_OF_OWN_POSTS = (("accuracy", "accuracy"), ("macro_recall", "macro-recall"))


def read_model(connection: Connection[Any], _scope: Scope) -> Content:
    """Read which model labels, how good it is, and on what texts."""
    rows = fetch(connection, _MODEL, Condition().add("status = 'champion'"))
    if not rows:
        return Content(
            Grid(_MODEL_COLUMNS, []),
            empty="No model yet: posts get no label until one is trained.",
        )
    version, corpus, trained_at, promoted_at, metrics, why = rows[0]
    own_posts = metrics.get("own_posts") or {}
    facts = [
        ["version", version],
        ["trained on", corpus],
        ["trained at", f"{trained_at:%d %b %Y, %H:%M} UTC"],
        *([["labels since", f"{promoted_at:%d %b %Y, %H:%M} UTC"]] if promoted_at else []),
        ["why this one", why],
        *_measured(metrics),
        *_on_own_posts(own_posts),
    ]
    return Content(
        Grid(_MODEL_COLUMNS, facts),
        notes=[_note(own_posts)],
        figures=[_figure(metrics, own_posts, corpus)],
        warning=(
            "For demonstration only: the model is trained on synthetic texts."
            if metrics.get("is_synthetic")
            else None
        ),
    )


def _figure(metrics: dict[str, Any], own_posts: dict[str, Any], corpus: str) -> Figure:
    """Return the figure for the top of the page: on these posts if it is known."""
    accuracy = own_posts.get("accuracy")
    if accuracy is None:
        return Figure("model's AUC", _auc(metrics), f"on {corpus}")
    low, high = own_posts["intervals"]["accuracy"]
    return Figure(
        "labels that are right",
        percent(accuracy),
        f"{low * 100:.0f} to {high * 100:.0f} %, n = {own_posts['rows']:,} posts",
    )


def _note(own_posts: dict[str, Any]) -> str:
    measured = "Measured on held-out texts of its own corpus."
    if not own_posts:
        return f"{measured} On other texts, such as these posts, it is usually less good."
    alpha = own_posts.get("alpha")
    agreed = "" if alpha is None else f" (Krippendorff's alpha of the coders {alpha:.2f})"
    return (
        f"{measured} On these posts: {own_posts['rows']:,} of them, drawn at random and labelled by"
        f" people{agreed}. Posts on which they disagree are left out."
    )


def _on_own_posts(own_posts: dict[str, Any]) -> list[list[str]]:
    """Return what labels of people say of the labels of these posts; nothing without them."""
    facts = []
    for name, words in _METRICS_OF_OWN_POSTS:
        if shown := _with_interval(own_posts, name):
            facts.append([f"{words} on these posts", f"{shown} on {own_posts['rows']:,} posts"])
    for language, figures in sorted((own_posts.get("languages") or {}).items()):
        shown = _with_interval(figures, "accuracy")
        facts.append(
            [f"accuracy on these posts, {language}", f"{shown} on {figures['rows']:,} posts"]
        )
    return facts


def _auc(metrics: dict[str, Any]) -> str:
    value = metrics.get("auc")
    return f"{value:.3f}" if isinstance(value, int | float) else "unknown"


def _measured(metrics: dict[str, Any]) -> list[list[str]]:
    facts = [[words, shown] for name, words in _METRICS if (shown := _with_interval(metrics, name))]
    if isinstance(metrics.get("rows"), int):
        facts.append(["measured on", f"{metrics['rows']:,} held-out texts"])
    classes = metrics.get("classes") or {}
    facts += [
        [words, shown]
        for name, words in _METRICS_OF_CLASSES
        if (shown := _with_interval(classes, name))
    ]
    languages = metrics.get("languages")
    if isinstance(languages, list) and languages:
        facts.append(["languages", ", ".join(map(str, languages))])
    return [*facts, *_of_languages(classes, languages or [], metrics.get("served_from"))]


def _of_languages(
    classes: dict[str, Any], served: Sequence[str], served_from: float | None
) -> list[list[str]]:
    """Return one fact per language that has held-out texts: how good, and whether it is served."""
    facts = []
    for language, figures in sorted((classes.get("languages") or {}).items()):
        state = "served" if language in served else "not served"
        if state == "not served" and served_from is not None:
            state = f"not served (needs an interval from {served_from:.2f} up)"
        shown = _with_interval(figures, "macro_f1") or "unknown"
        facts.append(
            [
                f"macro-F1 of three classes, {language}",
                f"{shown} on {figures['rows']:,} texts, {state}",
            ]
        )
    return facts


def _with_interval(figures: dict[str, Any], name: str) -> str | None:
    value = figures.get(name)
    if not isinstance(value, int | float):
        return None
    interval = (figures.get("intervals") or {}).get(name)
    return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


SOURCES = View(
    "sources",
    "Sources and gaps",
    "What is read, and what is missing?",
    "ingest_sources, stream_gaps, suspicious_sources, alerts",
    read_sources,
    follows="sources",
    applies=("server",),
    is_wide=True,
)
MODEL = View(
    "model",
    "The model that labels",
    "How good are the labels?",
    "sentiment_models",
    read_model,
    follows="model",
    is_wide=True,
    has_period=False,
)
