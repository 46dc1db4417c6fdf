"""Dagster's history in a backup: runs, their events and ticks, as the SQLite files of DAGSTER_HOME.

What belongs here: copying these files out of a folder that is in use, and back. The output of runs
(`storage/`) and `dagster.yaml` are not part of it.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from mastodon_assets.errors import PlatformError
from mastodon_assets.files import PRIVATE

# The folder in a backup, with the same paths as in DAGSTER_HOME.
HISTORY = "dagster"
_RUNS = Path("history", "runs.db")
_FOLDERS = ("history", "schedules")
_SECONDS_TO_WAIT = 30


class HistoryError(PlatformError):
    """The history is not in files of DAGSTER_HOME, or one of them cannot be read."""


def save_history(home: Path, folder: Path) -> None:
    """Copy the files, each as it is at one moment, into the folder of a backup.

    Runs come before their events, so that no copied run lacks them.

    Args:
        home: DAGSTER_HOME.
        folder: The backup.

    Raises:
        HistoryError: There are no such files, or one cannot be read.
    """
    if not (home / _RUNS).exists():
        raise HistoryError(
            f"there is no history of Dagster in {home}: nothing ran yet, or it is in PostgreSQL,"
            " which pg_dump saves; leave out --history"
        )
    for path in _databases(home):
        target = folder / HISTORY / path.relative_to(home)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with (
                closing(sqlite3.connect(path, timeout=_SECONDS_TO_WAIT)) as source,
                closing(sqlite3.connect(target)) as copy,
            ):
                source.backup(copy)
        except sqlite3.Error as error:
            raise HistoryError(f"{path} cannot be copied ({error}); leave out --history") from error
        target.chmod(PRIVATE)


def restore_history(folder: Path, home: Path) -> bool:
    """Copy the files of a backup to DAGSTER_HOME; return False if there is a history already.

    Args:
        folder: The backup.
        home: DAGSTER_HOME, which exists.
    """
    if (home / _RUNS).exists():
        return False
    for name in _FOLDERS:
        source = folder / HISTORY / name
        if source.exists():
            shutil.copytree(source, home / name, dirs_exist_ok=True)
    return True


def _databases(home: Path) -> Iterator[Path]:
    yield home / _RUNS
    for name in _FOLDERS:
        for path in sorted((home / name).rglob("*.db")):
            if path != home / _RUNS:
                yield path
