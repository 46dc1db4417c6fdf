"""Whether the process of a run is alive: a file lock that the kernel holds as long as it runs.

What belongs here: taking the lock in the run's process, and finding runs whose process is gone.
Dagster's default launcher does neither. A killed run would stay "started" for hours, and every
later run would wait for it.
"""

import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

_FOLDER = "run_locks"
_PARTIAL = ".partial"
# From the last event of a starting run to its lock: its process imports Dagster and the assets.
_SECONDS_TO_START = timedelta(seconds=60)
_HAS_PROCESS = {
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
}
# Locks of this process, held until it ends: a run is not over before its last event is stored.
_held: dict[Path, int] = {}


def hold_run_lock(instance: dg.DagsterInstance, run_id: str) -> None:
    """Hold the lock of the run `run_id` until this process ends; remove the locks of ended ones."""
    lock = _lock(instance, run_id)
    if lock in _held:
        return
    lock.parent.mkdir(parents=True, exist_ok=True)
    for other in lock.parent.iterdir():
        # Another process may be about to take and rename its partial one.
        if other.suffix != _PARTIAL and not _is_held(other):
            other.unlink(missing_ok=True)
    # It appears under its name only once it is held.
    partial = lock.with_name(f"{lock.name}.{os.getpid()}{_PARTIAL}")
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    partial.rename(lock)
    _held[lock] = descriptor


def end_dead_runs(
    instance: dg.DagsterInstance, records: Iterable[dg.RunRecord]
) -> list[dg.RunRecord]:
    """Mark the runs whose process is gone as failed, or as canceled if that was requested.

    Returns:
        The records of the other runs.
    """
    return [record for record in records if not _end_if_dead(instance, record)]


def _end_if_dead(instance: dg.DagsterInstance, record: dg.RunRecord) -> bool:
    if not _is_process_gone(instance, record):
        return False
    # An ended run gives up its lock after its last event: what is read now is final.
    run = instance.get_run_by_id(record.dagster_run.run_id)
    if run is None or run.is_finished:
        return True
    message = "The process of the run is gone: it was killed, or the machine was restarted."
    if run.status == dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, message=message)
    else:
        instance.report_run_failed(run, message=message)
    return True


def _is_process_gone(instance: dg.DagsterInstance, record: dg.RunRecord) -> bool:
    # Launchers that start runs on other machines check them by themselves.
    if instance.run_launcher.supports_check_run_worker_health:
        return False
    if record.dagster_run.status not in _HAS_PROCESS:
        return False
    lock = _lock(instance, record.dagster_run.run_id)
    if lock.exists():
        return not _is_held(lock)
    return datetime.now(UTC) - record.update_timestamp > _SECONDS_TO_START


def _is_held(lock: Path) -> bool:
    with suppress(FileNotFoundError):
        descriptor = os.open(lock, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False


def _lock(instance: dg.DagsterInstance, run_id: str) -> Path:
    return Path(instance.storage_directory()) / _FOLDER / run_id
