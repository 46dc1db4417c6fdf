"""What the stream process does, as materializations without a run: the web page shows it alive.

What belongs here: telling Dagster. What was done is counted in `toots.progress`.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

    from mastodon_assets.stream.metrics import StreamReport

_TABLES = ("toots_raw", "toot_metrics_windowed", "user_avg_length_windowed")


def report_to_dagster(
    home: Path | None, report: Callable[[str], None]
) -> Callable[["StreamReport"], None]:
    """A function that records a stream's report on the three ingest assets.

    `home` is an instance's folder; without one nothing is recorded. A failure is told by `report`
    and never raised: the tables are what counts, this is the picture of them.
    """

    def tell(told: "StreamReport") -> None:
        if home is None:
            return
        try:
            instance = _instance(home)
            for event in _materializations(told):
                instance.report_runless_asset_event(event)
        except Exception as error:
            # Whatever an instance's storage raises: the stream must not end for it.
            lines = str(error).strip().splitlines() or [type(error).__name__]
            report(f"Dagster's page does not show this minute: {lines[0]}")

    return tell


@cache
def _instance(home: Path) -> "dg.DagsterInstance":
    import dagster as dg

    return dg.DagsterInstance.from_config(str(home))


def _materializations(told: "StreamReport") -> "list[dg.AssetMaterialization]":
    import dagster as dg

    metadata: dict[str, dg.MetadataValue] = {
        "written_by": dg.MetadataValue.text("mastodon-assets stream"),
        "messages": dg.MetadataValue.int(told.counts.messages),
        "messages_per_second": dg.MetadataValue.float(told.rows_per_second),
        "batches": dg.MetadataValue.int(told.batches),
        "mean_batch_seconds": dg.MetadataValue.float(told.batch_seconds / told.batches),
    }
    if told.lag is not None:
        metadata["lag_messages"] = dg.MetadataValue.int(told.lag)
    return [dg.AssetMaterialization(asset_key=table, metadata={**metadata}) for table in _TABLES]
