"""The six batch tables, computed by Spark from `toots_raw`."""

import dagster as dg

from mastodon_assets.assets.catalogue import describe, row_count, table_metadata
from mastodon_assets.resources.settings import SettingsResource
from mastodon_assets.resources.spark import SparkResource
from mastodon_assets.warehouse.registry import (
    BATCH_ACTIVE_USERS,
    BATCH_AVG_LEN_PER_DAY,
    BATCH_HASHTAG_BY_HOUR,
    BATCH_TOOTS_BY_LANG_PER_DAY,
    BATCH_TOOTS_PER_DAY,
    BATCH_TOP_HASHTAG,
    Table,
)


def _batch_asset(table: Table) -> dg.AssetsDefinition:
    @dg.asset(
        name=table.name,
        group_name="batch",
        kinds={"spark", "postgres"},
        deps=["toots_raw"],
        description=describe(
            table,
            source="`toots_raw`",
            reads="all its rows in one snapshot, by Spark.",
            writes="computed whole, then the difference is written in one transaction: readers"
            " never see a missing or half table, and a run without changes writes nothing.",
            metadata="`rows_changed`, row count.",
            raises="`ServiceUnavailableError`, `MissingTablesError`.",
        ),
        metadata=table_metadata(table),
    )
    def batch_table(settings: SettingsResource, spark: SparkResource) -> dg.MaterializeResult:
        from mastodon_assets.batch.tables import refresh_batch_table

        loaded = settings.load()
        changed = refresh_batch_table(
            spark.spark_session,
            loaded.postgres_url,
            table.name,
            min_toots=loaded.activity_min_toots,
        )
        return dg.MaterializeResult(
            metadata={"rows_changed": changed, **row_count(loaded.postgres_url, table)}
        )

    return batch_table


batch_assets = [
    _batch_asset(table)
    for table in (
        BATCH_ACTIVE_USERS,
        BATCH_HASHTAG_BY_HOUR,
        BATCH_TOP_HASHTAG,
        BATCH_TOOTS_PER_DAY,
        BATCH_AVG_LEN_PER_DAY,
        BATCH_TOOTS_BY_LANG_PER_DAY,
    )
]
