"""The code location as Dagster loads it: what is in it, and what loading it costs."""

import ast
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

import mastodon_assets
from mastodon_assets.definitions import build_definitions, defs, load_once
from mastodon_assets.orchestration.jobs import refresh_job
from mastodon_assets.orchestration.refresh_state import DERIVED_ASSETS, LABELLED_ASSETS
from mastodon_assets.warehouse.tables import TABLES

_PACKAGE = Path(mastodon_assets.__file__).parent
_PROJECT = _PACKAGE.parent
_GROUPS = {
    "source": {"mastodon_stream", "mastodon_errors"},
    "ingest": {"toots_raw", "toot_metrics_windowed", "user_avg_length_windowed"},
    "batch": {
        "batch_active_users",
        "batch_hashtag_by_hour",
        "batch_top_hashtag",
        "batch_toots_per_day",
        "batch_avg_len_per_day",
        "batch_toots_by_lang_per_day",
    },
    "model": {"sentiment_corpus", "sentiment_pipeline_model"},
    "engagement": {"toots_engagement"},
    "sentiment": {"toots_sentiment", "v_sentiment_daily"},
    "answers": {
        "hourly_activity",
        "hourly_sentiment",
        "hourly_hashtags",
        "hourly_hashtag_accounts",
        "hourly_deletes",
        "v_hashtag_trends",
        "v_activity_by_weekday",
        "v_sentiment_by_language",
        "v_sentiment_by_hashtag",
        "v_servers",
        "v_lateness",
    },
    "charts": {
        "part5_sentiment_distribution",
        "part5_sentiment_by_day_stacked",
        "part5_toots_per_day",
        "part5_top_hashtags",
        "hashtag_trends",
        "activity_by_weekday",
        "sentiment_by_language",
        "sentiment_by_hashtag",
        "servers",
        "lateness",
    },
    "exports": {"viz_sentiment_dist", "viz_sentiment_daily", "viz_top_hashtags"},
}
_VIEWS = {
    name
    for name in (*_GROUPS["sentiment"], *_GROUPS["answers"])
    if name in TABLES and TABLES[name].is_view
}
_TABLE_ASSETS = sorted(set().union(*_GROUPS.values()) & TABLES.keys())

# `demo` reads the runs that it has started; it is the command line's, not the code location's.
_MAY_IMPORT_DAGSTER = {"definitions", "orchestration", "operations"}


@pytest.fixture(scope="module")
def repository() -> dg.RepositoryDefinition:
    return build_definitions().get_repository_def()


@pytest.fixture(scope="module")
def graph(repository: dg.RepositoryDefinition) -> AssetGraph:
    return repository.asset_graph


def _names(keys: Iterable[dg.AssetKey]) -> set[str]:
    return {key.to_user_string() for key in keys}


def _refreshed(repository: dg.RepositoryDefinition) -> set[str]:
    return _names(repository.get_job("refresh_job").asset_layer.executable_asset_keys)


def test_every_asset_is_in_its_group(graph: AssetGraph) -> None:
    found: dict[str, set[str]] = {}
    for key in graph.get_all_asset_keys():
        found.setdefault(str(graph.get(key).group_name), set()).add(key.to_user_string())
    assert found == _GROUPS


def test_the_graph_is_one_lineage_from_the_stream_to_charts_and_files(graph: AssetGraph) -> None:
    stream = dg.AssetKey("mastodon_stream")
    downstream = _names(dg.AssetSelection.assets(stream).downstream().resolve(graph))
    everything = set().union(*_GROUPS.values())
    # The model is trained on a corpus; what could not be published is read by nobody.
    assert everything - downstream == _GROUPS["model"] | {"mastodon_errors"}
    upstream_of_ends = dg.AssetSelection.groups("charts", "exports").upstream().resolve(graph)
    assert _GROUPS["model"] | _GROUPS["sentiment"] <= _names(upstream_of_ends)


def test_the_refresh_makes_all_but_the_model_and_training_makes_the_model(
    repository: dg.RepositoryDefinition,
) -> None:
    everything = set().union(*_GROUPS.values())
    assert _refreshed(repository) == everything - _GROUPS["source"] - _GROUPS["model"]
    train = repository.get_job("train_job").asset_layer.executable_asset_keys
    assert _names(train) == _GROUPS["model"]


def test_jobs_that_write_tables_share_a_lane_and_training_has_its_own(
    repository: dg.RepositoryDefinition,
) -> None:
    lanes = {job.name: job.tags.get("lane") for job in repository.get_all_jobs()}
    del lanes["__ASSET_JOB"]
    assert lanes.pop("backup_job") is None
    assert lanes == {"refresh_job": "toots", "engagement_job": "toots", "train_job": "model"}


def test_the_sensor_asks_for_the_refresh_and_the_schedule_for_training_at_night(
    repository: dg.RepositoryDefinition,
) -> None:
    sensors = {sensor.name: sensor for sensor in repository.sensor_defs}
    assert set(sensors) == {"mastodon_stream_sensor", "retention_sensor", "alert_sensor"}
    sensor = sensors["mastodon_stream_sensor"]
    schedules = {schedule.name: schedule for schedule in repository.schedule_defs}
    schedule = schedules.pop("nightly_training_schedule")
    assert {name: other.job_name for name, other in schedules.items()} == {
        "engagement_schedule": "engagement_job",
        "backup_schedule": "backup_job",
    }
    assert (sensor.name, sensor.job_name) == ("mastodon_stream_sensor", refresh_job.name)
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert (schedule.job_name, schedule.execution_timezone) == ("train_job", "UTC")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING


def test_progress_is_kept_for_all_that_the_refresh_derives(
    repository: dg.RepositoryDefinition,
) -> None:
    # The drain keeps the ledger, a view is never behind, and readings depend on the time.
    others = _GROUPS["ingest"] | _GROUPS["engagement"] | _VIEWS
    assert set(DERIVED_ASSETS) == _refreshed(repository) - others
    assert set(LABELLED_ASSETS) <= set(DERIVED_ASSETS)


def test_the_assets_that_show_labels_are_those_downstream_of_the_scores(graph: AssetGraph) -> None:
    scores = dg.AssetSelection.assets("toots_sentiment").downstream().resolve(graph)
    assert set(LABELLED_ASSETS) == _names(scores) - _VIEWS


@pytest.mark.parametrize("name", _TABLE_ASSETS)
def test_a_table_asset_has_the_registrys_columns(name: str, graph: AssetGraph) -> None:
    metadata = graph.get(dg.AssetKey(name)).metadata
    schema = metadata["dagster/column_schema"]
    assert [
        (column.name, column.type, column.constraints.nullable, column.description)
        for column in schema.columns
    ] == [
        (column.name, column.type, column.nullable, column.comment)
        for column in TABLES[name].columns
    ]
    assert metadata["dagster/table_name"] == f"masto.{name}"


def test_every_table_asset_has_a_blocking_check_of_its_schema(
    repository: dg.RepositoryDefinition,
) -> None:
    blocking = {
        key.asset_key.to_user_string()
        for key in repository.asset_graph.asset_check_keys
        if repository.asset_graph.get_check_spec(key).blocking
        and key.name == f"{key.asset_key.to_user_string()}_is_as_registered"
    }
    assert blocking == set(_TABLE_ASSETS)
    assert len(_TABLE_ASSETS) == 23


def test_each_asset_can_be_materialized_alone_with_its_checks(
    repository: dg.RepositoryDefinition,
) -> None:
    job = repository.get_implicit_global_asset_job_def()
    graph = repository.asset_graph
    for asset in graph.materializable_asset_keys:
        alone = job.get_subset(asset_selection={asset})
        assert alone.asset_layer.selected_asset_keys == {asset}
        assert {key.asset_key for key in alone.asset_layer.asset_graph.asset_check_keys} <= {asset}


def test_every_asset_has_a_catalogue_entry(graph: AssetGraph) -> None:
    for key in graph.get_all_asset_keys():
        summary, *parts = (graph.get(key).description or "").split("\n\n")
        assert summary.endswith("."), key
        assert any("**Metadata**" in part for part in parts), key
        assert graph.get(key).kinds, key


def test_a_table_assets_entry_describes_every_column(graph: AssetGraph) -> None:
    for name in _TABLE_ASSETS:
        entry = graph.get(dg.AssetKey(name)).description or ""
        for title in ("Source", "Rows", "Reads", "Writes", "Metadata", "Raises"):
            assert f"**{title}**: " in entry
        for column in TABLES[name].columns:
            assert f"| `{column.name}` | {column.type} |" in entry


def test_definitions_are_built_again_with_overrides() -> None:
    class Other(dg.ConfigurableResource[None]):
        pass

    first, second = build_definitions(), build_definitions(resources={"spark": Other()})
    assert first is not second
    assert isinstance((second.resources or {})["spark"], Other)
    assert set(first.resources or {}) == {"settings", "spark"}


def test_workspace_and_project_name_the_same_code_location() -> None:
    workspace = yaml.safe_load((_PROJECT / "workspace.yaml").read_text())
    (storage_path,) = [entry["python_module"] for entry in workspace["load_from"]]
    tool = tomllib.loads((_PROJECT / "pyproject.toml").read_text())["tool"]
    assert storage_path["module_name"] == "mastodon_assets.definitions"
    assert tool["dagster"]["module_name"] == storage_path["module_name"]
    assert tool["dagster"]["code_location_name"] == storage_path["location_name"]
    assert tool["dg"]["project"]["code_location_target_module"] == storage_path["module_name"]
    assert tool["dg"]["project"]["root_module"] == "mastodon_assets"


_LOAD = """
import json, sys
from mastodon_assets.definitions import build_definitions, defs
build_definitions().get_repository_def().load_all_definitions()
import psutil
print(json.dumps({
    "modules": sorted(sys.modules),
    "children": [child.name() for child in psutil.Process().children(recursive=True)],
}))
"""


@pytest.mark.usefixtures("processes")
def test_definitions_load_with_an_empty_environment_and_nothing_heavy(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(_PROJECT), "HOME": str(tmp_path)}
    command = [sys.executable, "-c", _LOAD]
    process = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, check=True, timeout=120
    )
    loaded = json.loads(process.stdout)
    heavy = {
        "pyspark.ml",
        "pandas",
        "matplotlib",
        "numpy",
        "mastodon",
        "confluent_kafka",
    }
    assert heavy & set(loaded["modules"]) == set()
    assert loaded["children"] == []
    assert list(tmp_path.iterdir()) == []


def _imports() -> Iterator[tuple[Path, str]]:
    """Each module of the package with each name it imports, wherever in it."""
    for path in sorted(_PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"relative import in {path}"
                yield path, str(node.module)
                yield from ((path, f"{node.module}.{alias.name}") for alias in node.names)


def _part(path: Path) -> str:
    """The folder, or module, of the package that a file belongs to."""
    return path.relative_to(_PACKAGE).parts[0].removesuffix(".py")


def test_only_the_orchestration_and_the_demo_import_dagster() -> None:
    importing = {
        _part(path) for path, name in _imports() if name.split(".")[0].startswith("dagster")
    }
    assert importing == _MAY_IMPORT_DAGSTER


@pytest.mark.usefixtures("processes")
def test_the_command_line_loads_without_dagster() -> None:
    probe = (
        "import mastodon_assets.cli.app, mastodon_assets.operations.demo, sys;"
        " print('dagster' in sys.modules)"
    )
    command = [sys.executable, "-c", probe]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"False\n"


def test_packages_import_nothing_of_their_own_accord() -> None:
    for path in _PACKAGE.rglob("__init__.py"):
        (docstring,) = ast.parse(path.read_text(encoding="utf-8")).body
        assert isinstance(docstring, ast.Expr)


def test_what_a_refresh_or_a_training_brings_up_to_date_has_a_freshness_policy(
    repository: dg.RepositoryDefinition, graph: AssetGraph
) -> None:
    with_policy = {key for key in graph.get_all_asset_keys() if graph.get(key).freshness_policy}
    assert (
        _names(with_policy) == (_refreshed(repository) | _GROUPS["model"]) - _GROUPS["engagement"]
    )


def test_views_and_the_model_have_the_version_of_what_decides_them(graph: AssetGraph) -> None:
    versions = {
        key.to_user_string(): graph.get(key).code_version for key in graph.get_all_asset_keys()
    }
    versioned = {name for name, version in versions.items() if version}
    views = {name for name, table in TABLES.items() if table.is_view}
    assert versioned == (views & versions.keys()) | {"sentiment_pipeline_model"}


def test_owners_and_links_come_from_the_settings_and_a_wrong_setting_hides_no_asset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ASSET_OWNERS", "team:data, ada@one.example")
    monkeypatch.setenv("SPARK_UI_PORT", "4040")
    load_once.cache_clear()
    graph = defs().get_repository_def().asset_graph
    assert list(graph.get(dg.AssetKey("toots_raw")).owners) == ["team:data", "ada@one.example"]
    assert graph.get(dg.AssetKey("toots_raw")).metadata.keys() >= {"spark_page", "dashboard"}
    assert "spark_page" not in graph.get(dg.AssetKey("batch_toots_per_day")).metadata
    monkeypatch.setenv("ASSET_OWNERS", "nobody")
    load_once.cache_clear()
    wrong = defs().get_repository_def().asset_graph
    assert wrong.get_all_asset_keys() == graph.get_all_asset_keys()
    load_once.cache_clear()
