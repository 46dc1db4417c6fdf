"""What is wrong according to Dagster: failed runs, failed checks, assets that are not fresh.

What belongs here: reading Dagster's storage. Texts have names only, because the message of an
error may quote a post.
"""

from collections.abc import Iterator, Set

import dagster as dg
from dagster._core.definitions.freshness import FreshnessState
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from mastodon_assets.alerts.incidents import Problem, Reading
from mastodon_assets.orchestration.jobs import BY_HAND, JOBS, refresh_job

_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]


def read_dagster_facts(
    instance: dg.DagsterInstance,
    assets: Set[dg.AssetKey],
    checks: Set[dg.AssetCheckKey],
) -> Reading:
    """Look at the last run of each job, the last result of each check, and freshness.

    Args:
        instance: Dagster's instance.
        assets: The assets of the code location.
        checks: The checks of the code location.
    """
    return Reading(
        (
            *_failed_runs(instance),
            *_failed_checks(instance, checks),
            *_stale_assets(instance, assets),
        )
    )


def _failed_runs(instance: dg.DagsterInstance) -> Iterator[Problem]:
    """Yield the jobs whose last run failed; who starts a run by hand sees it fail."""
    for job in JOBS:
        last = _last_run(instance, job.name, _ENDED)
        if last is None or last.dagster_run.status != dg.DagsterRunStatus.FAILURE:
            continue
        if job is refresh_job and _was_repaired_by_hand(instance, last):
            continue
        run = last.dagster_run.run_id[:8]
        yield Problem(
            f"run_failed {job.name}", "run_failed", f"the last run of {job.name} failed (run {run})"
        )


def _was_repaired_by_hand(instance: dg.DagsterInstance, failed: dg.RunRecord) -> bool:
    by_hand = _last_run(instance, BY_HAND, [dg.DagsterRunStatus.SUCCESS])
    return by_hand is not None and by_hand.create_timestamp > failed.create_timestamp


def _last_run(
    instance: dg.DagsterInstance, job: str, statuses: list[dg.DagsterRunStatus]
) -> dg.RunRecord | None:
    records = instance.get_run_records(dg.RunsFilter(job_name=job, statuses=statuses), limit=1)
    return records[0] if records else None


def _failed_checks(
    instance: dg.DagsterInstance, checks: Set[dg.AssetCheckKey]
) -> Iterator[Problem]:
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(checks))
    for key, record in records.items():
        if record.status == AssetCheckExecutionRecordStatus.FAILED:
            asset = key.asset_key.to_user_string()
            yield Problem(
                f"check_failed {asset}:{key.name}",
                "check_failed",
                f"the check {key.name} of {asset} failed",
            )


def _stale_assets(instance: dg.DagsterInstance, assets: Set[dg.AssetKey]) -> Iterator[Problem]:
    for key, record in instance.get_freshness_state_records(list(assets)).items():
        if record.freshness_state == FreshnessState.FAIL:
            asset = key.to_user_string()
            yield Problem(f"asset_stale {asset}", "asset_stale", f"{asset} is older than allowed")
