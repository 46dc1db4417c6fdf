"""Materializations that the stream process records without a run.

What belongs here: what Dagster's web page shows of a stream at work. Its counts are in
`stream.metrics`.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mastodon_assets.orchestration.dagster_home import opened_instance

if TYPE_CHECKING:
    import dagster as dg

    from mastodon_assets.stream.metrics import StreamReport

logger = logging.getLogger(__name__)

_TABLES = ("toots_raw", "toot_metrics_windowed", "user_avg_length_windowed")


def report_to_dagster(home: Path | None) -> Callable[["StreamReport"], None]:
    """Return a function that records a stream's report on the three ingest assets.

    A failure is logged and never raised: the tables are complete without it.

    Args:
        home: Folder of a Dagster instance; None records nothing.
    """

    def record(report: "StreamReport") -> None:
        if home is None:
            return
        try:
            instance = opened_instance(home)
            for event in _materializations(report):
                instance.report_runless_asset_event(event)
        except Exception as error:  # noqa: BLE001 - whatever a storage raises, the stream goes on
            lines = str(error).strip().splitlines() or [type(error).__name__]
            logger.warning("the web page does not show the last minute: %s", lines[0])

    return record


def _materializations(report: "StreamReport") -> "list[dg.AssetMaterialization]":
    import dagster as dg

    metadata: dict[str, dg.MetadataValue] = {
        "written_by": dg.MetadataValue.text("mastodon-assets stream"),
        "messages": dg.MetadataValue.int(report.counts.messages),
        "messages_per_second": dg.MetadataValue.float(report.rows_per_second),
        "batches": dg.MetadataValue.int(report.batches),
        "mean_batch_seconds": dg.MetadataValue.float(report.batch_seconds / report.batches),
    }
    if report.lag is not None:
        metadata["lag_messages"] = dg.MetadataValue.int(report.lag)
    return [dg.AssetMaterialization(asset_key=table, metadata={**metadata}) for table in _TABLES]
