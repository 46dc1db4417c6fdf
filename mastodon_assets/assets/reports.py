"""Charts and CSV files from the tables."""

import dagster as dg

from mastodon_assets.resources.settings import SettingsResource


def _chart_asset(name: str, dep: str, title: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=name,
        group_name="charts",
        kinds={"matplotlib", "png"},
        deps=[dep],
        description=f"{title}.\n\n**File**: `{name}.png` in `REPORTS_DIR`\n\n**Reads**: `{dep}`"
        "\n\n**Empty input gives** a picture that says so.",
    )
    def chart(settings: SettingsResource) -> dg.MaterializeResult:
        from mastodon_assets.reports.catalogue import render_chart
        from mastodon_assets.warehouse.database import note_progress, toots_version, transaction

        loaded = settings.load()
        with transaction(loaded.postgres_url, snapshot=True) as connection:
            version = toots_version(connection)
            made = render_chart(connection, name, loaded.reports_dir)
        with transaction(loaded.postgres_url) as connection:
            note_progress(connection, name, toots_version=version)
        return dg.MaterializeResult(
            metadata={
                "preview": dg.MetadataValue.md(made.preview_markdown),
                "sparkline": dg.MetadataValue.md(made.sparkline_markdown),
                "path": dg.MetadataValue.path(str(made.path)),
                "rows": made.rows,
                "is_empty": made.empty,
            }
        )

    return chart


def _export_asset(name: str, dep: str, columns: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=name,
        group_name="exports",
        kinds={"csv"},
        deps=[dep],
        description=f"**File**: `{name}.csv` in `EXPORTS_DIR`, UTF-8 with header\n\n**Columns**:"
        f" {columns}\n\n**Reads**: `{dep}`",
    )
    def export(settings: SettingsResource) -> dg.MaterializeResult:
        from mastodon_assets.reports.catalogue import write_export
        from mastodon_assets.warehouse.database import note_progress, toots_version, transaction

        loaded = settings.load()
        with transaction(loaded.postgres_url, snapshot=True) as connection:
            version = toots_version(connection)
            made = write_export(connection, name, loaded.exports_dir)
        with transaction(loaded.postgres_url) as connection:
            note_progress(connection, name, toots_version=version)
        return dg.MaterializeResult(
            metadata={
                "path": dg.MetadataValue.path(str(made.path)),
                "dagster/row_count": made.rows,
            }
        )

    return export


chart_assets = [
    _chart_asset("part5_sentiment_distribution", "toots_sentiment", "Toots by label"),
    _chart_asset("part5_sentiment_by_day_stacked", "v_sentiment_daily", "Toots a day by label"),
    _chart_asset("part5_toots_per_day", "batch_toots_per_day", "Toots a day"),
    _chart_asset("part5_top_hashtags", "batch_hashtag_by_hour", "The most used hashtags"),
]
export_assets = [
    _export_asset("viz_sentiment_dist", "toots_sentiment", "`label_str`, `n`"),
    _export_asset(
        "viz_sentiment_daily",
        "v_sentiment_daily",
        "`day`, `n_toosts`, `n_pos`, `n_neg`, `n_neu`, `avg_prob_pos`, `n_unscored`",
    ),
    _export_asset("viz_top_hashtags", "batch_hashtag_by_hour", "`hashtag`, `n`; the 30 most used"),
]
