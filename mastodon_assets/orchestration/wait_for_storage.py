"""Waiting until Dagster's tables exist: `python -m mastodon_assets.orchestration.wait_for_storage`.

In a cluster nothing orders the start of processes. Those of Dagster that find no tables would all
create them, and damage them. What belongs here: the wait. It ends when `dagster instance migrate`
has created the tables (task `prepare`).
"""

import logging
import os
import time
from collections.abc import Mapping

import psycopg

logger = logging.getLogger(__name__)

# Of Dagster's storages of events, schedules and runs. Each creates all its tables if this one is
# absent.
_TABLES = ["event_logs", "jobs", "runs"]
_SECONDS_BETWEEN = 5
_CONNECT_SECONDS = 10


def wait_for_storage(variables: Mapping[str, str], seconds_between: float) -> None:
    """Return when Dagster's tables exist in the database that DAGSTER_POSTGRES_… name."""
    last_reason = ""
    while reason := _missing(variables):
        if reason != last_reason:
            logger.info("waiting for Dagster's tables: %s", reason)
        last_reason = reason
        time.sleep(seconds_between)


def _missing(variables: Mapping[str, str]) -> str:
    """Return why the tables cannot be used yet, in one line; empty if they can."""
    try:
        with psycopg.connect(
            host=variables["DAGSTER_POSTGRES_HOST"],
            port=variables["DAGSTER_POSTGRES_PORT"],
            user=variables["DAGSTER_POSTGRES_USER"],
            password=variables["DAGSTER_POSTGRES_PASSWORD"],
            dbname=variables["DAGSTER_POSTGRES_DB"],
            connect_timeout=_CONNECT_SECONDS,
        ) as connection:
            found = connection.execute(
                "SELECT tablename FROM pg_tables WHERE tablename = ANY(%s)", (_TABLES,)
            ).fetchall()
    except psycopg.OperationalError as error:
        return str(error).splitlines()[0]
    missing = sorted({*_TABLES} - {name for (name,) in found})
    return f"{', '.join(missing)} not there; does `prepare` run?" if missing else ""


def main() -> None:
    """Wait, and log what for."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    wait_for_storage(os.environ, _SECONDS_BETWEEN)


if __name__ == "__main__":
    main()
