"""The charts and CSV files by their assets' names, and the two functions that write them.

What belongs here: which query belongs to which chart or file, and whether it must be made again.
Importing it loads neither pandas nor matplotlib; drawing does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
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
from mastodon_assets.reports.readings import Reading, Rows, fingerprint

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
    read: Reading
    figure: Callable[[pd.DataFrame], Figure]
    counts: str


@dataclass(frozen=True)
class Export:
    """A CSV file `<name>.csv`."""

    name: str
    reads: tuple[str, ...]
    read: Reading


@dataclass(frozen=True)
class FileState:
    """What a file was made of, and what it is: a file that is still both is not made again.

    Attributes:
        source: Hash of the rows read, of this package's code and of the libraries' versions.
        content: Hash of the file.
        rows: The rows of its frame.
    """

    source: str
    content: str
    rows: int

    def as_text(self) -> str:
        """Return it as JSON, for the watermark of its asset."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str | None) -> FileState | None:
        """Return what `as_text` gave; None if there is none."""
        return cls(**json.loads(text)) if text else None


@dataclass(frozen=True)
class ChartResult:
    """A chart that is up to date.

    Attributes:
        preview_markdown: An image 360 px wide, or '' if it was not drawn again.
        sparkline_markdown: An image of less than 900 characters, or '' if `empty` or not drawn
            again.
        rows: The rows of the frame drawn.
        empty: Whether there were no rows; the chart then says so.
        state: To be passed to the next `render_chart`.
        is_changed: Whether the file has another content than before.
    """

    path: Path
    preview_markdown: str
    sparkline_markdown: str
    rows: int
    empty: bool
    state: FileState
    is_changed: bool = field(compare=False)


@dataclass(frozen=True)
class ExportResult:
    """A CSV file that is up to date.

    Attributes:
        rows: The lines without the header.
        state: To be passed to the next `write_export`.
    """

    path: Path
    rows: int
    state: FileState


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


def render_chart(
    connection: Connection[Any], name: str, reports_dir: Path, earlier: FileState | None = None
) -> ChartResult:
    """Read, draw and write the chart `name` of `CHARTS` to `reports_dir/<name>.png`.

    The connection is only read from. A chart that `earlier` describes is left as it is.

    Raises:
        writers.ReportFileError: The file could not be written.
    """
    chart = CHARTS[name]
    path = reports_dir / f"{name}.png"
    rows = chart.read.rows(connection)
    source, before = _source(rows), _content(path)
    if earlier and (earlier.source, earlier.content) == (source, before):
        return ChartResult(
            path=path,
            preview_markdown="",
            sparkline_markdown="",
            rows=earlier.rows,
            empty=earlier.rows == 0,
            state=earlier,
            is_changed=False,
        )
    frame = chart.read.frame(rows)
    figure = chart.figure(frame)
    writers.write_chart(figure, path)
    state = FileState(source, _content(path) or "", len(frame))
    return ChartResult(
        path=path,
        preview_markdown=previews.preview_markdown(figure),
        sparkline_markdown=previews.sparkline_markdown(frame[chart.counts].tolist()),
        rows=len(frame),
        empty=frame.empty,
        state=state,
        is_changed=state.content != before,
    )


def write_export(
    connection: Connection[Any], name: str, exports_dir: Path, earlier: FileState | None = None
) -> ExportResult:
    """Read and write the export `name` of `EXPORTS` to `exports_dir/<name>.csv`.

    The connection is only read from. An empty table gives a file with the header alone. A file
    that `earlier` describes is left as it is.

    Raises:
        writers.ReportFileError: The file could not be written.
    """
    reading = EXPORTS[name].read
    path = exports_dir / f"{name}.csv"
    rows = reading.rows(connection)
    source = _source(rows)
    if earlier and (earlier.source, earlier.content) == (source, _content(path)):
        return ExportResult(path, earlier.rows, earlier)
    frame = reading.frame(rows)
    writers.write_csv(frame, path)
    return ExportResult(path, len(frame), FileState(source, _content(path) or "", len(frame)))


def _source(rows: Sequence[Rows]) -> str:
    return hashlib.sha256(f"{_revision()} {fingerprint(rows)}".encode()).hexdigest()


@cache
def _revision() -> str:
    """Return what decides a file besides its rows: this package's code, and the libraries."""
    code = hashlib.sha256()
    for module in sorted(Path(__file__).parent.glob("*.py")):
        code.update(module.read_bytes())
    return " ".join([code.hexdigest(), version("matplotlib"), version("pandas")])


def _content(file: Path) -> str | None:
    """Return a hash of the file's content; None if there is no file."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else None
