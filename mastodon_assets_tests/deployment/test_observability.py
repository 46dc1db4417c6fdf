"""docker/observability: every metric named there exists, and the rules do what their tests say."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from mastodon_assets.config.settings import load_settings
from mastodon_assets.ingest.metrics import IngestCollector
from mastodon_assets.operations.platform_metrics import PlatformCollector
from mastodon_assets.stream.metrics import StreamProgress
from mastodon_assets_tests.deployment.compose import DOCKER, PROJECT

_FOLDER = DOCKER / "observability"
_NAME = re.compile(r"\bmastodon_assets_[a-z_]+\b")
_JOBS = {"mastodon_assets_stream", "mastodon_assets_ingest"}
_METRICS = PROJECT / "mastodon_assets" / "docs" / "reference" / "metrics.md"


def _served() -> set[str]:
    """The names of all samples that our processes serve."""
    registry = CollectorRegistry()
    settings = load_settings()
    StreamProgress(settings, on_report=lambda _: None, registry=registry)
    metrics = [
        *IngestCollector(list).describe(),
        *PlatformCollector(settings).describe(),
        *registry.collect(),
    ]
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    return {
        metric.name + ending for metric in metrics for ending in endings.get(metric.type, ("",))
    }


def _expressions() -> Iterator[str]:
    rules = yaml.safe_load((_FOLDER / "rules.yaml").read_text(encoding="utf-8"))
    for group in rules["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    board = json.loads((_FOLDER / "grafana-board.json").read_text(encoding="utf-8"))
    for panel in board["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def test_every_metric_that_rules_and_board_name_is_served() -> None:
    named = set(_NAME.findall("\n".join(_expressions()))) - {"mastodon_assets_"}
    assert len(named) > 20
    assert named - _served() == set()


def test_every_metric_that_is_served_is_described() -> None:
    described = _METRICS.read_text(encoding="utf-8")
    for name in _served():
        short = re.sub(r"^mastodon_assets_ingest_|_(bucket|sum|count)$", "", name)
        assert f"`{short}`" in described, name


def test_prometheus_asks_the_ports_that_compose_opens() -> None:
    config = yaml.safe_load((_FOLDER / "prometheus.yaml").read_text(encoding="utf-8"))
    jobs = {each["job_name"]: each["static_configs"] for each in config["scrape_configs"]}
    assert jobs == {
        "mastodon_assets_stream": [{"targets": ["stream:9101"]}],
        "mastodon_assets_ingest": [{"targets": ["ingester:9102"]}],
    }
    assert jobs.keys() == _JOBS
    compose = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    assert 'STREAM_METRICS_PORT: "9101"' in compose
    assert 'INGEST_METRICS_PORT: "9102"' in compose


@pytest.mark.usefixtures("processes")
def test_the_rules_fire_as_their_tests_say(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here; it is in the package prometheus")
    for arguments in (["test", "rules", "rules_test.yaml"], ["check", "config", "prometheus.yaml"]):
        ended = subprocess.run(
            [promtool, *arguments], cwd=_FOLDER, capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
