"""What another connection sees of a drain: whole batches, with all that derives from them."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from mastodon_assets.config.settings import Settings
from mastodon_assets.stream.drain import drain
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.records import delete, upsert

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SUMS = """
SELECT (SELECT count(*) FROM masto.toots_raw),
       (SELECT coalesce(sum(toots_count), 0) FROM masto.toot_metrics_windowed),
       (SELECT coalesce(sum(toots_count), 0) FROM masto.user_avg_length_windowed),
       (SELECT coalesce(sum(n_toosts), 0) FROM masto.v_sentiment_daily)
"""


def test_at_every_commit_the_windows_add_up_to_the_rows(
    spark: "SparkSession", settings: Settings, produce: Callable[..., None]
) -> None:
    for partition in range(4):
        produce(
            [upsert(f"{partition}-{number}") for number in range(40)]
            + [delete(f"{partition}-{number}") for number in range(0, 40, 4)],
            partition,
        )
    seen: set[tuple[int, ...]] = set()
    is_over = threading.Event()

    def look() -> None:
        with transaction(settings.postgres_url) as connection:
            connection.autocommit = True
            # One statement sees one moment.
            while not is_over.is_set():
                row = connection.execute(_SUMS).fetchone()
                assert row is not None
                seen.add(tuple(map(int, row)))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        small = settings.model_copy(update={"max_offsets_per_batch": 50})
        summary = drain(lambda: spark, small, report=print)
    finally:
        is_over.set()
        looking.join()
    assert summary.batches >= 4
    assert len(seen) >= 3, "too quick to be seen"
    assert all(len(set(sums)) == 1 for sums in seen), seen
    assert (120,) * 4 in seen
