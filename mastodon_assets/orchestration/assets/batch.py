"""The six batch tables: their sums change with `toots_raw`, or are rebuilt from all its rows."""

import dagster as dg
from pydantic import Field

from mastodon_assets.orchestration.assets.metadata import describe, row_count, table_metadata
from mastodon_assets.orchestration.resources import SettingsResource, SparkResource
from mastodon_assets.orchestration.retries import retried_after_outages
from mastodon_assets.warehouse.tables import BATCH, Table


class RebuildConfig(dg.Config):
    """Run configuration of a batch table."""

    rebuild: bool = Field(default=False, description="Compute the table from all posts.")


def _batch_asset(table: Table) -> dg.AssetsDefinition:
    @dg.asset(
        name=table.name,
        group_name="batch",
        kinds={"spark", "postgres"},
        deps=["toots_raw"],
        description=describe(
            table,
            source="`toots_raw`",
            reads="nothing: its sums change in each transaction that changes `toots_raw`. With the"
            " run configuration `rebuild: true`: all rows in one snapshot, by Spark.",
            writes="the version of the posts that it shows. A rebuild corrects sums that differ,"
            " in short transactions; readers never see a missing or partial table.",
            metadata="`rows_changed`, `is_from_all_toots`, row count.",
            raises="`ServiceUnavailableError`, `MissingTablesError`, `SparkEndedError` if Spark"
            " ran out of memory.",
        ),
        metadata=table_metadata(table),
    )
    @retried_after_outages
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
