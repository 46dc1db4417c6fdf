"""Runs whose process is killed, with a real process and a real instance."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from mastodon_assets.orchestration.run_liveness import end_dead_runs, hold_run_lock

pytestmark = pytest.mark.usefixtures("processes")

_STATUS = dg.DagsterRunStatus
_RUN = """
import time
import dagster as dg
from mastodon_assets.orchestration.resources import SettingsResource

@dg.asset
def long(settings: SettingsResource) -> None:
    print("started", flush=True)
    time.sleep(600)

with dg.DagsterInstance.get() as instance:
    dg.materialize([long], resources={"settings": SettingsResource()}, instance=instance)
"""


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.get() as opened:
        yield opened


@contextmanager
def _running(folder: Path) -> "Iterator[subprocess.Popen[bytes]]":
    with subprocess.Popen(
        [sys.executable, "-c", _RUN],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        try:
            yield process
        finally:
            process.kill()


def _only_run(instance: dg.DagsterInstance) -> dg.RunRecord:
    (record,) = instance.get_run_records()
    return record


def test_a_run_is_left_alone_while_its_process_lives_and_failed_once_it_is_killed(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    with _running(tmp_path) as process:
        assert end_dead_runs(instance, [_only_run(instance)]) != []
        assert _only_run(instance).dagster_run.status == _STATUS.STARTED
        process.kill()
        process.wait()
        assert end_dead_runs(instance, [_only_run(instance)]) == []
    assert _only_run(instance).dagster_run.status == _STATUS.FAILURE


def test_a_killed_run_that_was_to_be_canceled_is_canceled(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    with _running(tmp_path) as process:
        process.kill()
        process.wait()
    instance.report_run_canceling(_only_run(instance).dagster_run)
    end_dead_runs(instance, [_only_run(instance)])
    assert _only_run(instance).dagster_run.status == _STATUS.CANCELED


def test_locks_of_ended_processes_are_removed_and_held_ones_stay(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    folder = Path(instance.storage_directory()) / "run_locks"
    with _running(tmp_path) as process:
        (held,) = folder.iterdir()
        hold_run_lock(instance, "mine")
        assert set(folder.iterdir()) == {held, folder / "mine"}
        process.kill()
        process.wait()
    # Of a run that starts at the same moment, between creating its file and locking it.
    partial = folder / "starting.4711.partial"
    partial.touch()
    hold_run_lock(instance, "another")
    assert partial.exists()
    partial.unlink()
    assert set(folder.iterdir()) == {folder / "mine", folder / "another"}
