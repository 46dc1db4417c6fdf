"""The stream through failures of all it works with: the tables are those of a quiet run."""

import errno
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka.admin import AdminClient, NewPartitions

from mastodon_assets.embedded import kafka, postgres
from mastodon_assets.kafka.client import client_config
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.fault_platform import TOPIC, Platform

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# A process whose temporary files, in the folder $1, have a small disk of their own.
_ON_A_SMALL_DISK = """
mount -t tmpfs -o size=64m tmpfs "$1"
export TMPDIR="$1" SPARK_LOCAL_DIRS="$1"
shift
exec "$@"
"""
_DISK_FULL = """
CREATE FUNCTION masto.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON masto.kafka_offsets
   FOR EACH ROW EXECUTE FUNCTION masto.refuse();
"""


def test_whatever_fails_under_a_stream_changes_no_row(
    platform: Platform, spark: "SparkSession"
) -> None:
    staging = platform.home.parent / "staging"
    staging.mkdir()
    around = ["unshare", "-Urm", "sh", "-ec", _ON_A_SMALL_DISK, "sh", str(staging)]
    with platform.running(around=around) as stream:
        platform.send()
        platform.wait_until_stored(stream)
        with platform.running() as stand_by:
            platform.wait_until_logged("standing by until it ends")
            platform.send()
            platform.kill_server(postgres.find)
            platform.send()
            platform.wait_until_stored(stream)

            platform.kill_server(kafka.find)
            platform.send()
            platform.wait_until_stored(stream)

            admin = AdminClient(client_config(platform.settings))
            admin.create_partitions([NewPartitions(TOPIC, 3)])[TOPIC].result(30)
            platform.send(partitions=3)
            platform.wait_until_stored(stream)

            # As the process sees it. Spark's notes are written with the batches, so that it may
            # or may not notice; nothing rests on them.
            seen = Path(f"/proc/{stream.pid}/root{staging}")
            for folder in seen.glob("mastodon_assets-*"):
                shutil.rmtree(folder)
            platform.send(partitions=3)
            platform.wait_until_stored(stream)

            _fill(seen / "filler")
            platform.send(partitions=3)
            platform.wait_until_stored(stream)
            (seen / "filler").unlink()

            with transaction(platform.settings.postgres_url) as connection:
                connection.execute(_DISK_FULL)
            platform.send(partitions=3)
            platform.wait_until_logged("the connection to PostgreSQL broke (could not extend file")
            with transaction(platform.settings.postgres_url) as connection:
                connection.execute("DROP FUNCTION masto.refuse CASCADE")
            platform.wait_until_stored(stream)

            os.killpg(stream.pid, signal.SIGKILL)
            stream.wait()
            platform.send(partitions=3)
            platform.wait_until_stored(stand_by)
    assert "Traceback" not in platform.log_text()
    assert "StackOverflowError" not in platform.log_text()
    assert platform.differences(spark) == []


def _fill(file: Path) -> None:
    try:
        with file.open("wb", buffering=0) as filler:
            while filler.write(bytes(1 << 16)):
                pass
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
