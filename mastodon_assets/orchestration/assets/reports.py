"""The charts and CSV files."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from psycopg import Connection

from mastodon_assets.config.settings import Settings
from mastodon_assets.orchestration.resources import SettingsResource
from mastodon_assets.orchestration.retries import retried_after_outages
from mastodon_assets.reports.specs import CHARTS, EXPORTS, FileState

if TYPE_CHECKING:
    from mastodon_assets.reports.specs import ChartResult


def _chart_asset(name: str, *, rows: str, shows: str) -> dg.AssetsDefinition:
    reads = CHARTS[name].reads

    @dg.asset(
        name=name,
        group_name="charts",
        kinds={"matplotlib", "png"},
        deps=reads,
        check_specs=[
            dg.AssetCheckSpec(
                f"{name}_is_a_picture",
                asset=name,
                description="The file is a complete PNG, and only without rows it says so.",
            )
        ],
        description=_entry(
            f"A chart of {rows}.",
            reads=reads,
            file=f"`{name}.png` in `REPORTS_DIR`, 8 inches wide, replaced atomically if it is not"
            " what the same rows and the same code gave before.",
            empty="a picture that says so",
            metadata="`path`, `dashboard` (its URL), `rows` (number of rows drawn), `is_empty`; if"
            " the chart changed also `preview` (the chart, 360 px wide) and `sparkline`.",
        ),
    )
    @retried_after_outages
    def chart(settings: SettingsResource) -> dg.MaterializeResult:
        from mastodon_assets.reports.specs import render_chart

        loaded = settings.load()
        with _recording_progress(loaded, name, shows) as progress:
            made = render_chart(
                progress.connection, name, loaded.reports_dir, progress.earlier_file
            )
            progress.file = made.state
        return dg.MaterializeResult(
            metadata={
                # They are most of what a run leaves in Dagster's history.
                **(_pictures(made) if made.is_changed else {}),
                "path": dg.MetadataValue.path(str(made.path.absolute())),
                "dashboard": dg.MetadataValue.url(loaded.dashboard_page),
                "rows": made.rows,
                "is_empty": made.empty,
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name=f"{name}_is_a_picture",
                    passed=_is_complete_png(made.path) and made.empty == (made.rows == 0),
                )
            ],
        )

    return chart


def _pictures(chart: "ChartResult") -> dict[str, dg.MetadataValue]:
    pictures = {"preview": chart.preview_markdown, "sparkline": chart.sparkline_markdown}
    return {name: dg.MetadataValue.md(text) for name, text in pictures.items() if text}


def _is_complete_png(file: Path) -> bool:
    content = file.read_bytes()
    return content.startswith(b"\x89PNG\r\n\x1a\n") and content.endswith(b"IEND\xaeB`\x82")


def _count_csv_rows(file: Path) -> int:
    """Return the number of rows below the header."""
    with file.open(encoding="utf-8", newline="") as lines:
        return sum(1 for _ in csv.reader(lines)) - 1


def _export_asset(name: str, *, rows: str, columns: str, shows: str) -> dg.AssetsDefinition:
    reads = EXPORTS[name].reads

    @dg.asset(
        name=name,
        group_name="exports",
        kinds={"csv"},
        deps=reads,
        check_specs=[
            dg.AssetCheckSpec(
                f"{name}_has_every_row",
                asset=name,
                description="The file has a header and the rows that were read.",
            )
        ],
        description=_entry(
            f"A CSV file of {rows}.",
            reads=reads,
            file=f"`{name}.csv` in `EXPORTS_DIR`, UTF-8 with a header, replaced atomically if it is"
            f" not what the same rows and the same code gave before. Columns: {columns}.",
            empty="a file with the header only",
            metadata="`path`, row count.",
        ),
    )
    @retried_after_outages
    def export(settings: SettingsResource) -> dg.MaterializeResult:
        from mastodon_assets.reports.specs import write_export

        loaded = settings.load()
        with _recording_progress(loaded, name, shows) as progress:
            made = write_export(
                progress.connection, name, loaded.exports_dir, progress.earlier_file
            )
            progress.file = made.state
        return dg.MaterializeResult(
            metadata={
                "path": dg.MetadataValue.path(str(made.path.absolute())),
                "dagster/row_count": made.rows,
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name=f"{name}_has_every_row",
                    passed=_count_csv_rows(made.path) == made.rows,
                )
            ],
        )

    return export


def _entry(summary: str, *, reads: tuple[str, ...], file: str, empty: str, metadata: str) -> str:
    sources = " and ".join(f"`{table}`" for table in reads)
    return (
        f"{summary}\n\n**Source**: {sources}\n\n**Writes**: {file}\n\n"
        f"**Empty input gives** {empty}.\n\n**Metadata**: {metadata}\n\n"
        "**Raises**: `ReportFileError` if the file cannot be written."
    )


@dataclass
class _Progress:
    """A snapshot to read from, the file as its last run left it, and as this one does."""

    connection: Connection[Any]
    earlier_file: FileState | None
    file: FileState | None = None


@contextmanager
def _recording_progress(settings: Settings, asset: str, shows: str) -> Iterator[_Progress]:
    """Open a snapshot to read from; at its end `asset` shows the version that `shows` has in it.

    That is not the newest version of the posts: a chart drawn between drain and scoring is as old
    as the scores in it.
    """
    from mastodon_assets.warehouse.database import transaction
    from mastodon_assets.warehouse.watermarks import set_watermark

    with transaction(settings.postgres_url, snapshot=True) as connection:
        recorded = {
            name: tuple(values)
            for name, *values in connection.execute(
                "SELECT asset, toots_version, model_version, parameters FROM masto.asset_progress"
                " WHERE asset = ANY(%s)",
                ([asset, shows],),
            )
        }
        before = recorded.get(asset)
        progress = _Progress(connection, FileState.from_text(before[2] if before else None))
        yield progress
    version, model, _ = recorded.get(shows, (0, None, None))
    file = progress.file.as_text() if progress.file else None
    if before != (version, model, file):
        with transaction(settings.postgres_url) as connection:
            set_watermark(
                connection, asset, toots_version=version, model_version=model, parameters=file
            )


chart_assets = [
    _chart_asset(
        "part5_sentiment_distribution",
        rows="the posts by label, with the reasons for posts without one",
        shows="toots_sentiment",
    ),
    _chart_asset(
        "part5_sentiment_by_day_stacked",
        rows="the posts per day, stacked by label",
        shows="toots_sentiment",
    ),
    _chart_asset("part5_toots_per_day", rows="the posts per day", shows="batch_toots_per_day"),
    _chart_asset("part5_top_hashtags", rows="the 30 most used hashtags", shows="batch_top_hashtag"),
    _chart_asset(
        "hashtag_trends",
        rows="the hashtags that more accounts use than usual, with the usual number",
        shows="hourly_hashtag_accounts",
    ),
    _chart_asset(
        "activity_by_weekday",
        rows="the mean posts per hour of the week",
        shows="hourly_activity",
    ),
    _chart_asset(
        "sentiment_by_language",
        rows="the labels of the last 30 days per language, as shares with intervals",
        shows="hourly_sentiment",
    ),
    _chart_asset(
        "sentiment_by_hashtag",
        rows="the labels of the last 7 days per hashtag, as shares with intervals",
        shows="hourly_hashtags",
    ),
    _chart_asset(
        "servers",
        rows="the posts of the last 30 days per server, with the share deleted",
        shows="hourly_activity",
    ),
    _chart_asset(
        "lateness",
        rows="how late the posts of the last 30 days were received, per server",
        shows="hourly_activity",
    ),
]
export_assets = [
    _export_asset(
        "viz_sentiment_dist",
        rows="the posts by label",
        columns="`label_str` (`unlabelled` if there is none), `n`",
        shows="toots_sentiment",
    ),
    _export_asset(
        "viz_sentiment_daily",
        rows="the labels per day, all rows of the view",
        columns="`day`, `n_toosts`, `n_pos`, `n_neg`, `n_neu`, `avg_prob_pos`, `n_unscored`",
        shows="toots_sentiment",
    ),
    _export_asset(
        "viz_top_hashtags",
        rows="the 30 most used hashtags",
        columns="`hashtag`, `n`",
        shows="batch_top_hashtag",
    ),
]
