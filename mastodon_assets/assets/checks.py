"""Blocking checks: each table is what the registry says, and the windows add up to the rows."""

import dagster as dg

from mastodon_assets.resources.settings import SettingsResource
from mastodon_assets.warehouse.registry import TABLES, Table

# Tables that are no asset of their own (ledger, tombstones, …) have no check here.
_CHECKED = (
    "toots_raw",
    "toot_metrics_windowed",
    "user_avg_length_windowed",
    "batch_active_users",
    "batch_hashtag_by_hour",
    "batch_top_hashtag",
    "batch_toots_per_day",
    "batch_avg_len_per_day",
    "batch_toots_by_lang_per_day",
    "toots_sentiment",
    "toots_engagement",
    "v_sentiment_daily",
)


def _schema_check(table: Table) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=table.name,
        name=f"{table.name}_is_as_registered",
        blocking=True,
        description="Columns and types are the registry's; no two rows share a key.",
    )
    def is_as_registered(settings: SettingsResource) -> dg.AssetCheckResult:
        from mastodon_assets.warehouse.checks import duplicate_keys, schema_differences
        from mastodon_assets.warehouse.database import transaction

        with transaction(settings.load().postgres_url, snapshot=True) as connection:
            differences = schema_differences(connection, table)
            # A key can be counted only where all its columns are there.
            has_key = not any(f"{name}: missing" in differences for name in table.key)
            duplicates = duplicate_keys(connection, table) if has_key else 0
        return dg.AssetCheckResult(
            passed=not differences and not duplicates,
            metadata={
                "differences": "; ".join(differences) or "none",
                "duplicate_keys": duplicates,
            },
        )

    return is_as_registered


@dg.asset_check(asset="toot_metrics_windowed", additional_deps=["toots_raw"], blocking=True)
def windows_add_up_to_rows(settings: SettingsResource) -> dg.AssetCheckResult:
    """The sum of `toots_count` over all windows equals the rows of `toots_raw`."""
    from mastodon_assets.warehouse.checks import window_sum_and_rows
    from mastodon_assets.warehouse.database import transaction

    with transaction(settings.load().postgres_url, snapshot=True) as connection:
        in_windows, rows = window_sum_and_rows(connection)
    return dg.AssetCheckResult(
        passed=in_windows == rows,
        metadata={"sum_of_toots_count": in_windows, "rows_of_toots_raw": rows},
    )


table_checks = [
    *(_schema_check(TABLES[name]) for name in _CHECKED),
    windows_add_up_to_rows,
]
