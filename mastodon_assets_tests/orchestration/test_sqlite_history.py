"""Dagster's databases during and after a run, on a real instance."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log import SqliteEventLogStorage

from mastodon_assets.orchestration.dagster_home import dagster_home
from mastodon_assets.orchestration.resources import SettingsResource

pytestmark = pytest.mark.usefixtures("processes")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(dagster_home(tmp_path))) as opened:
        yield opened


def _logs(instance: dg.DagsterInstance, run_id: str) -> list[bool]:
    """Whether the write-ahead logs of the run and of the index exist."""
    storage = instance.event_log_storage
    assert isinstance(storage, SqliteEventLogStorage)
    return [Path(f"{storage.path_for_shard(name)}-wal").exists() for name in (run_id, "index")]


@pytest.mark.parametrize("fails", [False, True])
def test_the_databases_stay_open_during_a_run_and_are_complete_files_after_it(
    instance: dg.DagsterInstance, fails: bool
) -> None:
    during: list[bool] = []

    @dg.asset
    def looked_at(context: dg.AssetExecutionContext, settings: SettingsResource) -> None:
        # Nobody writes at this moment.
        during.extend(_logs(context.instance, context.run.run_id))
        if fails:
            raise ValueError("as asked")

    run = dg.materialize(
        [looked_at],
        instance=instance,
        resources={"settings": SettingsResource()},
        raise_on_error=False,
    )
    assert during == [True, True]
    assert _logs(instance, run.run_id) == [False, False]
    ended = "PIPELINE_FAILURE" if fails else "PIPELINE_SUCCESS"
    assert ended in [
        entry.dagster_event.event_type_value
        for entry in instance.all_logs(run.run_id)
        if entry.dagster_event
    ]
    assert run.success != fails
