"""The same code on a Spark cluster whose executors see nothing of the driver's disk."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mastodon_assets.settings import Settings, as_environment
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.cluster import can_hide_folders, running_cluster
from mastodon_assets_tests.records import upsert

pytestmark = pytest.mark.skipif(not can_hide_folders(), reason="no user namespaces (unshare)")


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as url:
        yield url


def run(settings: Settings, *steps: str) -> dict[str, Any]:
    ended = attempt(settings, *steps)
    assert ended.returncode == 0, ended.stderr[-4000:]
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def attempt(settings: Settings, *steps: str) -> subprocess.CompletedProcess[str]:
    environment = {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_EXECUTOR_MEMORY": "512m"}
    return subprocess.run(
        [sys.executable, "-m", "mastodon_assets_tests.integration.cluster_run", *steps],
        env={**os.environ, **environment, **as_environment(settings)},
        capture_output=True,
        text=True,
        timeout=400,
    )


def test_kafka_to_tables_and_batch_tables_on_two_workers(
    master: str, settings: Settings, produce: Callable[..., None]
) -> None:
    for partition in range(4):
        produce(
            [upsert(f"{partition}{number}", uri=f"u:{partition}:{number}") for number in range(50)],
            partition,
        )
    done = run(settings.model_copy(update={"spark_master": master}), "drain", "batch")
    assert done["stored"] == 200
    assert done["batch"]["batch_toots_per_day"] == 1
    with transaction(settings.postgres_url, snapshot=True) as connection:
        assert connection.execute(
            "SELECT toots_count FROM masto.batch_toots_per_day"
        ).fetchall() == [(200,)]
