"""The charts and CSV files by their assets' names, and the two functions that write them.

What belongs here: which query belongs to which chart or file. Importing it loads neither pandas
nor matplotlib; drawing does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mastodon_assets.reports import (
    answer_charts,
    answer_queries,
    charts,
    previews,
    queries,
    writers,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from psycopg import Connection


@dataclass(frozen=True)
class Chart:
    """A PNG file `<name>.png`.

    Attributes:
        reads: The assets it depends on. `sentiment_models`, read for the note, is none of them:
            it is upstream of `toots_sentiment`.
        counts: The column of posts that the sparkline shows.
    """

    name: str
    reads: tuple[str, ...]
    read: Callable[[Connection[Any]], pd.DataFrame]
    figure: Callable[[pd.DataFrame], Figure]
    counts: str


@dataclass(frozen=True)
class Export:
    """A CSV file `<name>.csv`."""

    name: str
    reads: tuple[str, ...]
    read: Callable[[Connection[Any]], pd.DataFrame]


@dataclass(frozen=True)
class ChartResult:
    """A chart that was written.

    Attributes:
        preview_markdown: An image 360 px wide.
        sparkline_markdown: An image of less than 900 characters, or '' if `empty`.
        rows: The rows of the frame drawn.
        empty: Whether there were no rows; the chart then says so.
    """

    path: Path
    preview_markdown: str
    sparkline_markdown: str
    rows: int
    empty: bool


@dataclass(frozen=True)
class ExportResult:
    """A CSV file that was written.

    Attributes:
        rows: The lines without the header.
    """

    path: Path
    rows: int


CHARTS: Mapping[str, Chart] = {
    chart.name: chart
    for chart in (
        Chart(
            name="part5_sentiment_distribution",
            reads=("toots_raw", "toots_sentiment"),
            read=queries.sentiment_by_reason,
            figure=charts.sentiment_distribution,
            counts="n",
        ),
        Chart(
            name="part5_sentiment_by_day_stacked",
            reads=("v_sentiment_daily", "toots_sentiment"),
            read=queries.sentiment_every_day,
            figure=charts.sentiment_by_day,
            counts="n_toosts",
        ),
        Chart(
            name="part5_toots_per_day",
            reads=("batch_toots_per_day",),
            read=queries.toots_every_day,
            figure=charts.toots_per_day,
            counts="toots_count",
        ),
        Chart(
            name="part5_top_hashtags",
            reads=("batch_top_hashtag", "batch_hashtag_by_hour"),
            read=queries.top_hashtags,
            figure=charts.top_hashtags,
            counts="n",
        ),
        Chart(
            name="hashtag_trends",
            reads=("v_hashtag_trends",),
            read=answer_queries.hashtag_trends,
            figure=answer_charts.hashtag_trends,
            counts="accounts",
        ),
        Chart(
            name="activity_by_weekday",
            reads=("v_activity_by_weekday",),
            read=answer_queries.activity_by_weekday,
            figure=answer_charts.activity_by_weekday,
            counts="toots_count",
        ),
        Chart(
            name="sentiment_by_language",
            reads=("v_sentiment_by_language",),
            read=answer_queries.sentiment_by_language,
            figure=answer_charts.sentiment_by_language,
            counts="n_labelled",
        ),
        Chart(
            name="sentiment_by_hashtag",
            reads=("v_sentiment_by_hashtag",),
            read=answer_queries.sentiment_by_hashtag,
            figure=answer_charts.sentiment_by_hashtag,
            counts="n_labelled",
        ),
        Chart(
            name="servers",
            reads=("v_servers",),
            read=answer_queries.servers,
            figure=answer_charts.servers,
            counts="toots_count",
        ),
        Chart(
            name="lateness",
            reads=("v_lateness",),
            read=answer_queries.lateness,
            figure=answer_charts.lateness,
            counts="toots_count",
        ),
    )
}

EXPORTS: Mapping[str, Export] = {
    export.name: export
    for export in (
        Export(
            name="viz_sentiment_dist",
            reads=("toots_raw", "toots_sentiment"),
            read=queries.sentiment_distribution,
        ),
        Export(
            name="viz_sentiment_daily",
            reads=("v_sentiment_daily",),
            read=queries.sentiment_daily,
        ),
        Export(
            name="viz_top_hashtags",
            reads=("batch_top_hashtag", "batch_hashtag_by_hour"),
            read=queries.top_hashtag_counts,
        ),
    )
}


def render_chart(connection: Connection[Any], name: str, reports_dir: Path) -> ChartResult:
    """Read, draw and write the chart `name` of `CHARTS` to `reports_dir/<name>.png`.

    The connection is only read from.

    Raises:
        writers.ReportFileError: The file could not be written.
    """
    chart = CHARTS[name]
    frame = chart.read(connection)
    figure = chart.figure(frame)
    path = reports_dir / f"{name}.png"
    writers.write_chart(figure, path)
    return ChartResult(
        path=path,
        preview_markdown=previews.preview_markdown(figure),
        sparkline_markdown=previews.sparkline_markdown(frame[chart.counts].tolist()),
        rows=len(frame),
        empty=frame.empty,
    )


def write_export(connection: Connection[Any], name: str, exports_dir: Path) -> ExportResult:
    """Read and write the export `name` of `EXPORTS` to `exports_dir/<name>.csv`.

    The connection is only read from. An empty table gives a file with the header alone.

    Raises:
        writers.ReportFileError: The file could not be written.
    """
    frame = EXPORTS[name].read(connection)
    path = exports_dir / f"{name}.csv"
    writers.write_csv(frame, path)
    return ExportResult(path=path, rows=len(frame))
