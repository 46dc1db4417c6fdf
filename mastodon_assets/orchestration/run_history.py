"""What Dagster's storage says of the last refresh and of its own daemon.

What belongs here: reading it from outside of Dagster's processes.
"""

from dataclasses import dataclass
from pathlib import Path

from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.orchestration.dagster_home import opened_instance


@dataclass(frozen=True)
class DagsterState:
    """The last refresh that succeeded, and the daemon; None if there was none yet.

    Attributes:
        refreshed_at: End of the refresh, as a Unix time.
        refresh_seconds: How long it took.
        heartbeat_at: Last sign of life of the daemon's sensors, as a Unix time.
    """

    refreshed_at: float | None
    refresh_seconds: float | None
    heartbeat_at: float | None


def read_dagster_state(home: Path) -> DagsterState:
    """Read the state from the instance in `home`.

    Raises:
        ServiceUnavailableError: Dagster's storage cannot be read.
    """
    import dagster as dg

    from mastodon_assets.orchestration.jobs import refresh_job

    try:
        instance = opened_instance(home)
        succeeded = dg.RunsFilter(job_name=refresh_job.name, statuses=[dg.DagsterRunStatus.SUCCESS])
        records = instance.get_run_records(succeeded, limit=1)
        heartbeat = instance.get_daemon_heartbeats().get("SENSOR")
    except Exception as error:
        raise ServiceUnavailableError(
            f"Dagster's storage cannot be read ({type(error).__name__}); see {home}"
        ) from error
    started, ended = (records[0].start_time, records[0].end_time) if records else (None, None)
    return DagsterState(
        refreshed_at=ended,
        refresh_seconds=ended - started if started and ended else None,
        heartbeat_at=heartbeat.timestamp if heartbeat else None,
    )
