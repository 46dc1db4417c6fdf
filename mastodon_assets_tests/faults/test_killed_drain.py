import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mastodon_assets.config.settings import Settings, as_environment
from mastodon_assets.embedded.stack import Connection
from mastodon_assets.stream.drain import drain
from mastodon_assets.warehouse.checks import window_sum_and_rows
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.databases import new_database
from mastodon_assets_tests.support.fault_platform import tables
from mastodon_assets_tests.support.records import delete, upsert

_KILLED_DRAIN = Path(__file__).parents[1] / "support" / "killed_drain.py"

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def _messages(partition: int) -> list[Any]:
    messages: list[Any] = [
        upsert(f"{partition}-{number}", username=f"user{number % 7}@one.example")
        for number in range(40)
    ]
    messages += [
        upsert(f"{partition}-3", edited_at="2026-11-20T12:01:00Z", content="edited"),
        delete(f"{partition}-4"),
        b"garbage",
        upsert(f"{partition}-5"),
    ]
    return messages


@pytest.mark.parametrize("moment", ["before-commit", "after-commit"])
def test_a_kill_at_any_side_of_the_commit_changes_no_row(
    moment: str,
    stack: Connection,
    spark: "SparkSession",
    settings: Settings,
    produce: Callable[..., None],
) -> None:
    for partition in range(4):
        produce(_messages(partition), partition)
    small = settings.model_copy(update={"max_offsets_per_batch": 50})
    killed = subprocess.run(
        [sys.executable, str(_KILLED_DRAIN), moment, "2"],
        env={**os.environ, **as_environment(small)},
        start_new_session=True,
        capture_output=True,
        timeout=180,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr.decode()[-2000:]
    after_kill = tables(settings.postgres_url)
    stored = sum(row[-1] for row in after_kill["kafka_offsets"])
    # Batches have at most 50 messages: one is in the tables, or two.
    assert stored in (range(1, 51) if moment == "before-commit" else range(51, 101))
    with transaction(settings.postgres_url, snapshot=True) as connection:
        in_windows, rows = window_sum_and_rows(connection)
    assert in_windows == rows > 0

    drain(lambda: spark, small, report=print)
    with new_database(stack) as without_faults:
        drain(
            lambda: spark,
            settings.model_copy(update={"database_url": without_faults}),
            report=print,
        )
        assert tables(settings.postgres_url) == tables(without_faults)
