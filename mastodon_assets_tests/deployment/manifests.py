"""docker/kubernetes as kubectl renders it: the objects of an overlay."""

import subprocess
from functools import cache
from typing import Any

import yaml

from mastodon_assets_tests.deployment.compose import DOCKER
from mastodon_assets_tests.support.programs import PROGRAMS

KUBERNETES = DOCKER / "kubernetes"
OVERLAYS = ("demo", "own-servers")

Manifest = dict[str, Any]


@cache
def rendered(overlay: str) -> str:
    """The objects of an overlay as YAML."""
    folder = KUBERNETES / "overlays" / overlay
    ended = subprocess.run(
        [PROGRAMS / "kubectl", "kustomize", folder], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == "", ended.stderr
    return ended.stdout


@cache
def manifests(overlay: str) -> list[Manifest]:
    """The objects of an overlay; not to be changed."""
    return list(yaml.safe_load_all(rendered(overlay)))


def workloads(overlay: str) -> dict[str, Manifest]:
    """Deployments and jobs by name."""
    return {
        each["metadata"]["name"]: each
        for each in manifests(overlay)
        if each["kind"] in ("Deployment", "Job")
    }


def pod_of(workload: Manifest) -> Manifest:
    """The pod's specification."""
    spec: Manifest = workload["spec"]["template"]["spec"]
    return spec


def executor_pod() -> Manifest:
    """The template of Spark's executors."""
    text = (KUBERNETES / "base" / "executor.yaml").read_text(encoding="utf-8")
    template: Manifest = yaml.safe_load(text)
    return template


def spark_defaults() -> dict[str, str]:
    """The properties of spark-defaults.conf."""
    lines = (KUBERNETES / "base" / "spark-defaults.conf").read_text(encoding="utf-8").splitlines()
    pairs = (line.split(maxsplit=1) for line in lines if not line.startswith("#"))
    return {name: value.strip() for name, value in pairs}
