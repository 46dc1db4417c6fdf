"""The Kafka topics, and the tables that one drain writes: `toots_raw` and its windows."""

from collections.abc import Iterator, Mapping

import dagster as dg

from mastodon_assets.orchestration.assets.metadata import describe, row_count, table_metadata
from mastodon_assets.orchestration.resources import SettingsResource, SparkResource
from mastodon_assets.orchestration.retries import retried_after_outages
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
    description="Kafka topic of the posts.\n\n**Source**: `mastodon-assets ingest` and"
    " `mastodon-assets import`; `KAFKA_TOPIC` names the topic.\n\n**Rows**: one JSON message per"
    " new, edited or deleted status, as defined by"
    " `contract/message.schema.json`.\n\n**Metadata**: end offset of each partition and the number"
    " of messages kept; observed by `mastodon_stream_sensor` when they change.",
)
mastodon_errors = dg.AssetSpec(
    "mastodon_errors",
    group_name="source",
    kinds={"kafka"},
    description="Kafka topic of dead letters: events that could not be published.\n\n**Source**:"
    " `mastodon-assets ingest` and `mastodon-assets import`; `KAFKA_ERRORS_TOPIC` names the"
    " topic.\n\n**Rows**: one JSON message per event that is not a valid status, complete and with"
    " the reason.\n\n**Metadata**: the same as of `mastodon_stream`, observed together with it.",
)

_RAW_SPEC = dg.AssetSpec(
    "toots_raw",
    group_name="ingest",
    kinds={"spark", "postgres"},
    deps=[mastodon_stream],
    description=describe(
        TOOTS_RAW,
        source="Kafka topic `mastodon_stream`, by Spark Structured Streaming (`availableNow`)",
        reads="each partition from its offset in the ledger `kafka_offsets` to its end at the start"
        " of the run.",
        writes="upserts by `id`, in one transaction per micro-batch together with the ledger"
        " `kafka_offsets`. Edits and deletes are merged in any order of arrival.",
        metadata="outcomes of the messages, offsets before and after, row count. `written_by` is"
        " set if `mastodon-assets stream` is at work: the run then waits for it instead of"
        " reading.",
        raises="`DataLossError` if the topic no longer holds the next offset of the ledger;"
        " `StreamStalledError` if a stream process does not advance the ledger;"
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
            reads="the rows that a micro-batch changes, before and after; all rows if the table is"
            " materialized without `toots_raw`.",
            writes="the changes of the micro-batch, in its transaction. A rebuild writes only the"
            " rows that differ.",
            metadata="row count; `rows_changed` after a rebuild.",
            raises="the errors of `toots_raw`.",
        ),
        metadata=table_metadata(table),
    )
    for table in _WINDOWS
]


@dg.multi_asset(specs=[_RAW_SPEC, *_WINDOW_SPECS], can_subset=True, name="ingest")
@retried_after_outages
def ingest_assets(
    context: dg.AssetExecutionContext, settings: SettingsResource, spark: SparkResource
) -> Iterator[dg.MaterializeResult]:
    """Drain Kafka into the three tables; rebuild windows that are selected without `toots_raw`."""
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
                "expired": counts.expired,
                "batches": summary.batches,
                **({"written_by": str(summary.stream)} if summary.stream else {}),
                "offsets_before": dg.MetadataValue.json(_by_name(summary.start)),
                "offsets_after": dg.MetadataValue.json(_by_name(summary.end)),
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


def _by_name(offsets: Mapping[int, int]) -> dict[str, int]:
    return {str(partition): offset for partition, offset in sorted(offsets.items())}


def _join_offsets(offsets: Mapping[int, int]) -> str:
    return "-".join(str(offset) for offset in _by_name(offsets).values()) or "empty"
