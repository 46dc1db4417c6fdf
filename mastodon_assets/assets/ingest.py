"""Kafka to `toots_raw` and its windows: one drain writes all three."""

from collections.abc import Iterator, Mapping

import dagster as dg

from mastodon_assets.assets.catalogue import describe, row_count, table_metadata
from mastodon_assets.resources.settings import SettingsResource
from mastodon_assets.resources.spark import SparkResource
from mastodon_assets.warehouse.registry import (
    TABLES,
    TOOT_METRICS_WINDOWED,
    TOOTS_RAW,
    USER_AVG_LENGTH_WINDOWED,
)

_WINDOWS = (TOOT_METRICS_WINDOWED, USER_AVG_LENGTH_WINDOWED)

mastodon_stream = dg.AssetSpec(
    "mastodon_stream",
    group_name="source",
    kinds={"kafka"},
    description="Kafka topic: one JSON message for each change of a status. Written by"
    " `mastodon-assets ingest`, observed by `mastodon_stream_sensor`.",
)
mastodon_errors = dg.AssetSpec(
    "mastodon_errors",
    group_name="source",
    kinds={"kafka"},
    description="Kafka topic: what could not be published, whole, with the reason. Written by"
    " `mastodon-assets ingest`.",
)

_RAW_SPEC = dg.AssetSpec(
    "toots_raw",
    group_name="ingest",
    kinds={"spark", "postgres"},
    deps=[mastodon_stream],
    description=describe(
        TOOTS_RAW,
        source="Kafka topic `mastodon_stream`, by Spark Structured Streaming (`availableNow`)",
        writes="upserts by `id` in one transaction a micro-batch, together with the offsets ledger"
        " `kafka_offsets`; edits and deletes are merged in any order of arrival.",
    ),
    metadata=table_metadata(TOOTS_RAW),
)
_WINDOW_SPECS = [
    dg.AssetSpec(
        table.name,
        group_name="ingest",
        kinds={"spark", "postgres"},
        deps=["toots_raw"],
        description=describe(
            table,
            source="`toots_raw`",
            writes="moved by what a micro-batch changed, in its transaction; materialized without"
            " `toots_raw` it is rebuilt from it.",
        ),
        metadata=table_metadata(table),
    )
    for table in _WINDOWS
]


@dg.multi_asset(specs=[_RAW_SPEC, *_WINDOW_SPECS], can_subset=True, name="ingest")
def ingest_assets(
    context: dg.AssetExecutionContext, settings: SettingsResource, spark: SparkResource
) -> Iterator[dg.MaterializeResult]:
    """Drain Kafka into the three tables; windows selected alone are rebuilt from `toots_raw`."""
    from mastodon_assets.toots.drain import drain
    from mastodon_assets.toots.windows import rebuild_windows
    from mastodon_assets.warehouse.database import transaction
    from mastodon_assets.warehouse.migrate import migrate

    loaded = settings.load()
    migrate(loaded.postgres_url)
    selected = {key.to_user_string() for key in context.selected_asset_keys}
    if "toots_raw" in selected:
        summary = drain(lambda: spark.spark_session, loaded, report=context.log.info)
        counts = summary.counts
        yield dg.MaterializeResult(
            asset_key="toots_raw",
            data_version=dg.DataVersion(_join_offsets(summary.end)),
            metadata={
                "messages": counts.messages,
                "stored": counts.stored,
                "stale": counts.stale,
                "deletes": counts.deletes,
                "withheld_as_deleted": counts.deleted,
                "rejected": counts.rejected,
                "batches": summary.batches,
                "offsets_before": dg.MetadataValue.json(_named(summary.start)),
                "offsets_after": dg.MetadataValue.json(_named(summary.end)),
                **row_count(loaded.postgres_url, TOOTS_RAW),
            },
        )
    for table in _WINDOWS:
        if table.name not in selected:
            continue
        metadata = {}
        if "toots_raw" not in selected:
            with transaction(loaded.postgres_url) as connection:
                metadata["rows_changed"] = rebuild_windows(connection, table)
        yield dg.MaterializeResult(
            asset_key=table.name,
            metadata={**metadata, **row_count(loaded.postgres_url, TABLES[table.name])},
        )


def _named(offsets: Mapping[int, int]) -> dict[str, int]:
    return {str(partition): offset for partition, offset in sorted(offsets.items())}


def _join_offsets(offsets: Mapping[int, int]) -> str:
    return "-".join(str(offset) for offset in _named(offsets).values()) or "empty"
