"""The resources, in processes of their own where a JVM matters."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import SettingsError
from mastodon_assets.orchestration.resources import SettingsResource, SparkResource

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_TWO_RUNS = """
import json
import dagster as dg
import psutil
from pyspark.sql import SparkSession
from mastodon_assets.orchestration.resources import SparkResource

@dg.asset
def without_spark(spark: SparkResource) -> None: ...

@dg.asset
def counted(spark: SparkResource) -> int:
    return spark.spark_session.range(3).count()

def run(asset):
    assert dg.materialize([asset], resources={"spark": SparkResource()}).success
    java = [child for child in psutil.Process().children(recursive=True) if "java" in child.name()]
    return {"jvms": len(java), "session": SparkSession.getActiveSession() is not None}

print(json.dumps([run(without_spark), run(counted), run(counted)]))
"""


@pytest.mark.usefixtures("own_servers")
def test_a_run_without_a_spark_step_starts_no_jvm_and_one_with_it_stops_its_session(
    tmp_path: Path,
) -> None:
    script = tmp_path / "two_runs.py"
    script.write_text(_TWO_RUNS)
    environment = {**os.environ, "SPARK_MASTER": "local[1]", "DAGSTER_HOME": str(tmp_path)}
    process = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, timeout=300
    )
    assert process.returncode == 0, process.stderr.decode()
    without, first, second = json.loads(process.stdout.splitlines()[-1])
    assert without == {"jvms": 0, "session": False}
    assert first == second == {"jvms": 1, "session": False}


def test_a_session_that_was_there_before_the_run_outlives_it(spark: "SparkSession") -> None:
    @dg.asset
    def counted(spark: SparkResource) -> None:
        assert spark.spark_session.range(3).count() == 3

    assert dg.materialize([counted], resources={"spark": SparkResource()}).success
    assert spark.range(2).count() == 2


def test_a_training_gets_the_memory_of_a_training(
    spark: "SparkSession", monkeypatch: pytest.MonkeyPatch
) -> None:
    workloads: list[str] = []

    def build(settings: Settings, *, workload: str) -> "SparkSession":
        workloads.append(workload)
        return spark

    monkeypatch.setattr("mastodon_assets.orchestration.resources.build_session", build)

    @dg.asset
    def trained(spark: SparkResource) -> None:
        assert spark.session_for_training().range(3).count() == 3

    @dg.asset
    def counted(spark: SparkResource) -> None:
        assert spark.spark_session.range(3).count() == 3

    @dg.asset(deps=[counted])
    def sentiment_pipeline_model(spark: SparkResource) -> None:
        assert spark.session_for_training().range(3).count() == 3

    for asset in (trained, counted):
        assert dg.materialize([asset], resources={"spark": SparkResource()}).success
    assert workloads == ["training", "stream"]
    # In a run of both, the first asset starts the session.
    both = [counted, sentiment_pipeline_model]
    definitions = dg.Definitions(assets=both, resources={"spark": SparkResource()})
    job = definitions.get_repository_def().get_implicit_global_asset_job_def()
    assert job.execute_in_process(asset_selection=[asset.key for asset in both]).success
    assert workloads[2:] == ["training"]


def test_settings_are_read_when_asked_for_and_are_no_run_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resource = SettingsResource()
    monkeypatch.setenv("ACTIVITY_MIN_TOOTS", "9")
    assert resource.load().activity_min_toots == 9
    monkeypatch.setenv("ACTIVITY_MIN_TOOTS", "0")
    with pytest.raises(SettingsError, match="ACTIVITY_MIN_TOOTS"):
        resource.load()
    assert SettingsResource.to_config_schema().as_field().config_type.fields == {}  # type: ignore[attr-defined]


def test_a_run_reads_the_settings_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTIVITY_MIN_TOOTS", "9")
    seen: list[int] = []

    @dg.asset
    def first(settings: SettingsResource) -> None:
        seen.append(settings.load().activity_min_toots)
        monkeypatch.setenv("ACTIVITY_MIN_TOOTS", "8")

    @dg.asset(deps=[first])
    def second(settings: SettingsResource) -> None:
        seen.append(settings.load().activity_min_toots)

    for _ in range(2):
        assert dg.materialize([first, second], resources={"settings": SettingsResource()}).success
    assert seen == [9, 9, 8, 8]
