"""What it costs that very many posts wait for a score: finding, reading and writing, without Spark.

    python -m mastodon_assets_tests.benchmarks.scores DATABASE_URL [posts]

It drops and recreates the schema `masto`. All posts are queued, as after a long absence of the
refresh. They are read in the chunks in which the refresh scores them. Then the refresh itself runs,
without a model, so that its time is that of reading and writing.
"""

import sys
import time
from typing import NoReturn

from pydantic import SecretStr

from mastodon_assets.config.settings import load_settings
from mastodon_assets.sentiment.scoring.relabel import thresholds
from mastodon_assets.sentiment.scoring.score import Pending, pending_chunks, score_pending
from mastodon_assets.warehouse.database import connect, transaction
from mastodon_assets.warehouse.migrate import migrate
from mastodon_assets.warehouse.rollups import rebuild_rollups
from mastodon_assets.warehouse.watermarks import set_watermark
from mastodon_assets_tests.benchmarks.size import put_posts


def main(url: SecretStr, posts: int) -> None:
    """Fill the tables, and print seconds and CPU seconds of both steps."""
    settings = load_settings(database_url=url)
    with connect(url) as connection:
        connection.execute("DROP SCHEMA IF EXISTS masto CASCADE")
    migrate(url)
    with transaction(url) as connection:
        put_posts(connection, posts)
        connection.execute("INSERT INTO masto.toots_unscored (id) SELECT id FROM masto.toots_raw")
        # The champion, none, has seen all other posts.
        set_watermark(
            connection, "toots_sentiment", toots_version=0, parameters=thresholds(settings)
        )
        rebuild_rollups(connection)
    with connect(url) as connection:
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE")
    began = time.monotonic(), time.process_time()
    read = sum(
        chunk.num_rows for chunk, _ in pending_chunks(url, Pending(champion=None, is_queued=True))
    )
    _say(f"{read:,} waiting posts read", began)
    began = time.monotonic(), time.process_time()
    scored = score_pending(_no_session, settings, lambda _: None).scored
    _say(f"{scored:,} posts read and scored without a model", began)


def _no_session() -> NoReturn:
    raise AssertionError("there is no model, so Spark is not needed")


def _say(what: str, began: tuple[float, float]) -> None:
    seconds, cpu = time.monotonic() - began[0], time.process_time() - began[1]
    sys.stdout.write(f"{what} in {seconds:.1f} s, {cpu:.1f} CPU seconds of this process\n")


if __name__ == "__main__":
    main(SecretStr(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000)
