"""Rebuilding hashtags by hour from posts with very many hashtags, with the least memory.

    python -m mastodon_assets_tests.benchmarks.hashtags DATABASE_URL [posts] [hashtags per post]

It drops and recreates the schema `masto`. The posts have different hashtags and hours, so that the
table gets a row for each use, and `mastodon-assets rebuild` runs with the driver's memory of a
machine of 6 GB. A failure shows the command's last lines.
"""

import os
import subprocess
import sys
import tempfile
import time
from typing import LiteralString

from pydantic import SecretStr

from mastodon_assets.spark.memory import chosen_mebibytes
from mastodon_assets.warehouse.database import connect, transaction
from mastodon_assets.warehouse.migrate import migrate
from mastodon_assets.warehouse.tables import BATCH_HASHTAG_BY_HOUR
from mastodon_assets_tests.benchmarks.training import peak_memory

_BYTES_OF_THE_MACHINE = 6 * 2**30
# Hashtags of 60 characters: the longest that people use.
_POSTS: LiteralString = """
INSERT INTO masto.toots_raw (
    id, created_at, received_at, event_at, payload_hash, favourites, reblogs, replies, is_bot,
    is_sensitive, instance, status_id, uri, username, lang, hashtags, content_txt)
SELECT n, at, at, at, n, 0, 0, 0, false, false, 'one.example', 'h' || n,
       'https://one.example/' || n, 'user' || n %% 1000 || '@one.example', 'en',
       (SELECT array_agg(lpad(k::text, 60, md5(k::text)))
          FROM generate_series(1, %(hashtags)s) k), 'garden train'
  FROM (SELECT n, timestamptz '2026-01-01T00:00Z' + n * interval '1 hour' AS at
          FROM generate_series(1, %(posts)s) n) numbered
"""


def main(url: SecretStr, posts: int, hashtags: int) -> None:
    """Fill the table of posts, rebuild, and print seconds, rows and memory."""
    with connect(url) as connection:
        connection.execute("DROP SCHEMA IF EXISTS masto CASCADE")
    migrate(url)
    with transaction(url) as connection:
        connection.execute(_POSTS, {"posts": posts, "hashtags": hashtags})
    memory = f"{chosen_mebibytes(_BYTES_OF_THE_MACHINE, 'stream')}m"
    command = [sys.executable, "-m", "mastodon_assets.cli.main", "rebuild"]
    with tempfile.TemporaryFile("w+") as output:
        began_at = time.monotonic()
        process = subprocess.Popen(
            [*command, BATCH_HASHTAG_BY_HOUR.name],
            env={
                **os.environ,
                "DATABASE_URL": url.get_secret_value(),
                "SPARK_DRIVER_MEMORY": memory,
            },
            stdout=output,
            stderr=output,
        )
        with peak_memory(process.pid) as peak:
            status = process.wait()
        seconds = time.monotonic() - began_at
        if status:
            output.seek(0)
            sys.stdout.write(output.read()[-2000:])
    with transaction(url, snapshot=True) as connection:
        ((rows,),) = connection.execute("SELECT count(*) FROM masto.batch_hashtag_by_hour")
    sys.stdout.write(
        f"status {status}: {rows:,} rows of {posts:,} posts in {seconds:.0f} s, driver of {memory},"
        f" peak of all its processes {peak[0] / 2**30:.2f} GB\n"
    )
    raise SystemExit(status)


if __name__ == "__main__":
    given = [int(each) for each in sys.argv[2:]]
    main(SecretStr(sys.argv[1]), *(given + [5_000, 1_000][len(given) :]))
