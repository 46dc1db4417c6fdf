"""Dagster's history in SQLite, kept open while a run writes its events.

What belongs here: what makes Dagster's own storage wait less for the disk. Dagster opens and closes
a database for each event. Whoever closes it last moves the write-ahead log into the database, and
waits for the disk several times. A refresh has 350 events.
"""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.storage.event_log import SqliteEventLogStorage
from sqlalchemy import event
from sqlalchemy.engine import Engine

_INDEX = "index"


class OpenHistory:
    """The databases that the events of a run go to, open until `close`."""

    def __init__(self, instance: dg.DagsterInstance, run_id: str) -> None:
        """Open the databases; none if the instance does not use SQLite."""
        storage = instance.event_log_storage
        self._connections: list[sqlite3.Connection] = []
        if not isinstance(storage, SqliteEventLogStorage):
            return
        for name in (run_id, _INDEX):
            with suppress(sqlite3.OperationalError):
                self._connections.append(_opened(Path(storage.path_for_shard(name))))
        event.listen(Engine, "connect", _do_not_wait_for_each_event)

    def close(self) -> None:
        """Close the databases, which then are complete files again."""
        if event.contains(Engine, "connect", _do_not_wait_for_each_event):
            event.remove(Engine, "connect", _do_not_wait_for_each_event)
        for connection in self._connections:
            connection.close()
        self._connections.clear()


def _opened(database: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{database.absolute().as_uri()}?mode=rw", uri=True, check_same_thread=False
    )
    # Only a connection that has read takes part in the write-ahead log.
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return connection


def _do_not_wait_for_each_event(connection: Any, _record: Any) -> None:
    """Let a loss of power take the last events; it ends the run anyway. The file stays sound."""
    if isinstance(connection, sqlite3.Connection):
        with closing(connection.cursor()) as cursor:
            cursor.execute("PRAGMA synchronous = NORMAL")
