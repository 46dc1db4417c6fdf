"""Kafka to `toots_raw` and its windows: one drain writes all three."""

from collections.abc import Iterator, Mapping

import dagster as dg

from mastodon_assets.orchestration.assets.metadata import describe, row_count, table_metadata
from mastodon_assets.orchestration.resources import SettingsResource, SparkResource
from mastodon_assets.warehouse.tables import (
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
    description="Kafka topic of the toots.\n\n**Rows**: one JSON message for each new, edited or"
    " deleted status, as `toots/message.schema.json` defines it\n\n**Written by**:"
    " `mastodon-assets ingest`; its name is `KAFKA_TOPIC`\n\n**Metadata**: the end offset of each"
    " partition, and messages held; observed by `mastodon_stream_sensor` when they changed",
)
mastodon_errors = dg.AssetSpec(
    "mastodon_errors",
    group_name="source",
    kinds={"kafka"},
    description="Kafka topic of what could not be published.\n\n**Rows**: one JSON message for"
    " each event of the stream that is no valid status, whole, with the reason\n\n**Written by**:"
    " `mastodon-assets ingest`; its name is `KAFKA_ERRORS_TOPIC`\n\n**Metadata**: as of"
    " `mastodon_stream`, and observed together with it",
)

_RAW_SPEC = dg.AssetSpec(
    "toots_raw",
    group_name="ingest",
    kinds={"spark", "postgres"},
    deps=[mastodon_stream],
    description=describe(
        TOOTS_RAW,
        source="Kafka topic `mastodon_stream`, by Spark Structured Streaming (`availableNow`)",
        reads="each partition from its offset in the ledger `kafka_offsets` to the end that it has"
        " at the start.",
        writes="upserts by `id` in one transaction a micro-batch, together with the offsets ledger"
        " `kafka_offsets`; edits and deletes are merged in any order of arrival.",
        metadata="what became of the messages, the offsets before and after, row count;"
        " `written_by` where `mastodon-assets stream` was at work: then the run waited for it.",
        raises="`DataLossError` where the topic no longer holds what the ledger expects next;"
        " `StreamStalledError` where a stream process does not move the ledger;"
        " `TopicMissingError`, `ServiceUnavailableError`, `LedgerConflictError`.",
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
            reads="the rows that a micro-batch changes, before and after; all rows where it is"
            " materialized without `toots_raw`.",
            writes="moved by what the micro-batch changed, in its transaction; or rebuilt, touching"
            " only what differs.",
            metadata="row count; `rows_changed` where it was rebuilt.",
            raises="as `toots_raw`.",
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
    from mastodon_assets.stream.drain import drain
    from mastodon_assets.stream.windows import rebuild_windows
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
                "messages": summary.messages,
                "stored": counts.stored,
                "stale": counts.stale,
                "deletes": counts.delete_messages,
                "withheld_as_deleted": counts.tombstoned,
                "rejected": counts.rejected,
                "withdrawn": counts.suppressed,
                "batches": summary.batches,
                **({"written_by": str(summary.stream)} if summary.stream else {}),
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
