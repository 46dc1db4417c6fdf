"""The six batch tables: moved by what changed in `toots_raw`, or computed from all of it."""

import dagster as dg
from pydantic import Field

from mastodon_assets.orchestration.assets.metadata import describe, row_count, table_metadata
from mastodon_assets.orchestration.resources import SettingsResource, SparkResource
from mastodon_assets.warehouse.tables import BATCH, Table


class RebuildConfig(dg.Config):
    """How the table is brought up to date."""

    rebuild: bool = Field(default=False, description="Compute it from all toots.")


def _batch_asset(table: Table) -> dg.AssetsDefinition:
    @dg.asset(
        name=table.name,
        group_name="batch",
        kinds={"spark", "postgres"},
        deps=["toots_raw"],
        description=describe(
            table,
            source="`toots_raw`",
            reads="what changed since the last time, from the journal `toot_changes`; where that"
            " does not reach back so far, or by the configuration `rebuild: true`, all its rows in"
            " one snapshot, by Spark.",
            writes="the difference, in one transaction: readers never see a missing or half table,"
            " and a run without changes writes nothing.",
            metadata="`rows_changed`, `is_from_all_toots`, row count.",
            raises="`ServiceUnavailableError`, `MissingTablesError`.",
        ),
        metadata=table_metadata(table),
    )
    def batch_table(
        config: RebuildConfig, settings: SettingsResource, spark: SparkResource
    ) -> dg.MaterializeResult:
        from mastodon_assets.batch.refresh import refresh_batch_table

        loaded = settings.load()
        refreshed = refresh_batch_table(
            lambda: spark.spark_session,
            loaded.postgres_url,
            table.name,
            min_toots=loaded.activity_min_toots,
            rebuild=config.rebuild,
        )
        return dg.MaterializeResult(
            metadata={
                "rows_changed": refreshed.rows_changed,
                "is_from_all_toots": refreshed.is_from_all,
                **row_count(loaded.postgres_url, table),
            }
        )

    return batch_table


batch_assets = [_batch_asset(table) for table in BATCH]
