"""docker/kubernetes at a real API server: it takes all objects, and a driver starts executors.

Needs `etcd` and `kube-apiserver` in PATH. Nothing runs the pods of deployments: there are no nodes.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mastodon_assets_tests.deployment.manifests import (
    KUBERNETES,
    OVERLAYS,
    pod_of,
    rendered,
    workloads,
)
from mastodon_assets_tests.support.api_server import (
    NAMESPACE,
    ApiServer,
    ExecutorNode,
    api_server,
    programs,
)

pytestmark = [
    pytest.mark.usefixtures("own_servers"),
    pytest.mark.skipif(
        len(programs()) < 2, reason="no etcd and kube-apiserver here (mastodon_assets_tests/README)"
    ),
]

_SPARK, _OTHER = f"system:serviceaccount:{NAMESPACE}:spark", f"{NAMESPACE}:mastodon-assets"
_VERBS = ("create", "get", "list", "watch", "patch", "update", "delete", "deletecollection")
# What Spark's drivers may do; all other accounts may do nothing.
_RIGHTS = {
    "pods": set(_VERBS) - {"update"},
    "configmaps": {"create", "deletecollection"},
    "services": {"deletecollection"},
    "persistentvolumeclaims": {"list", "deletecollection"},
    "secrets": set(),
    "pods/exec": set(),
    "deployments.apps": set(),
    "roles.rbac.authorization.k8s.io": set(),
}
# A driver as in the pods, on loopback.
_DRIVER = """
from mastodon_assets.config.settings import load_settings
from mastodon_assets.spark.session import build_session

session = build_session(load_settings())
print("sum", session.sparkContext.parallelize(range(100), 4).map(lambda x: x * x).sum())
session.stop()
"""
_SECONDS = 300


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server with our namespace."""
    with api_server(tmp_path_factory.mktemp("kubernetes")) as started:
        started.kubectl("apply", "-f", str(KUBERNETES / "base" / "namespace.yaml"))
        yield started


@pytest.fixture(scope="module")
def deployed(server: ApiServer) -> ApiServer:
    """The server with the objects of `own-servers`."""
    server.kubectl("apply", "--validate=strict", "-f", "-", stdin=rendered("own-servers"))
    return server


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_accepted_without_a_warning(server: ApiServer, overlay: str) -> None:
    answer = server.kubectl(
        *("apply", "--dry-run=server", "--validate=strict", "-f", "-"), stdin=rendered(overlay)
    )
    assert len(answer.splitlines()) == rendered(overlay).count("\nkind: ")
    assert all(line.endswith("(server dry run)") for line in answer.splitlines()), answer


def test_what_is_wrong_is_refused(server: ApiServer) -> None:
    wrong = rendered("own-servers").replace("readOnlyRootFilesystem", "readOnlyRoot")
    refused = server.try_kubectl(
        *("apply", "--dry-run=server", "--validate=strict", "-f", "-"), stdin=wrong
    )
    assert refused.returncode != 0
    assert 'unknown field "spec.template.spec.containers[0].securityContext.readOnlyRoot"' in (
        refused.stdout
    )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pod_security_admits_every_pod(deployed: ApiServer, overlay: str) -> None:
    server = deployed
    for name, workload in workloads(overlay).items():
        answer = _try_pod(server, name, pod_of(workload))
        assert answer.endswith("created (server dry run)\n"), answer
    broken = json.loads(json.dumps(pod_of(workloads(overlay)["code"])))
    del broken["containers"][0]["securityContext"]["capabilities"]
    assert 'violates PodSecurity "restricted' in _try_pod(server, "broken", broken)


def _try_pod(server: ApiServer, name: str, spec: object) -> str:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }
    return server.try_kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(pod)).stdout


def test_rights_are_those_of_the_table(deployed: ApiServer) -> None:
    for account, rights in (
        (_SPARK, _RIGHTS),
        (f"system:serviceaccount:{_OTHER}", {resource: set[str]() for resource in _RIGHTS}),
    ):
        for resource, allowed in rights.items():
            may = {verb for verb in _VERBS if _can(deployed, account, verb, resource)}
            assert may == allowed, (account, resource)
    assert not _can(deployed, _SPARK, "create", "pods", "default")


def _can(
    server: ApiServer, account: str, verb: str, resource: str, namespace: str = NAMESPACE
) -> bool:
    name, _, subresource = resource.partition("/")
    asked = ["auth", "can-i", verb, name, f"--subresource={subresource}", "-n", namespace]
    answer = server.try_kubectl(*asked, "--as", account).stdout
    assert answer.strip().splitlines()[-1] in ("yes", "no"), answer
    return answer.strip().endswith("yes")


def test_a_driver_starts_executors_by_its_rights_and_they_compute(
    deployed: ApiServer, tmp_path: Path
) -> None:
    server = deployed
    _create_driver_pod(server)
    folder = tmp_path / "spark"
    folder.mkdir()
    defaults = (KUBERNETES / "base" / "spark-defaults.conf").read_text(encoding="utf-8")
    mounted = "/etc/mastodon_assets/spark"
    assert mounted in defaults
    (folder / "spark-defaults.conf").write_text(
        defaults.replace(mounted, str(KUBERNETES / "base")), encoding="utf-8"
    )
    token = server.kubectl("create", "token", "spark", "-n", NAMESPACE).strip()
    (tmp_path / "token").write_text(token, encoding="utf-8")
    arguments = {
        "spark.kubernetes.namespace": NAMESPACE,
        "spark.kubernetes.driver.pod.name": "driver",
        "spark.kubernetes.container.image": "registry.example/mastodon_assets:0.1.0",
        # In a pod both are mounted.
        "spark.kubernetes.authenticate.oauthTokenFile": str(tmp_path / "token"),
        "spark.kubernetes.authenticate.caCertFile": str(server.ca),
    }
    options = " ".join(f"--conf {name}={value}" for name, value in arguments.items())
    with (tmp_path / "log").open("w", encoding="utf-8") as log:
        driver = subprocess.Popen(
            [sys.executable, "-c", _DRIVER],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ
            | {
                "PYSPARK_SUBMIT_ARGS": f"{options} pyspark-shell",
                "SPARK_CONF_DIR": str(folder),
                "SPARK_LOCAL_IP": "127.0.0.1",
                "SPARK_MASTER": f"k8s://{server.url}",
            },
        )
    node = ExecutorNode(server, tmp_path)
    deadline = time.monotonic() + _SECONDS
    try:
        while driver.poll() is None and time.monotonic() < deadline:
            node.look()
            time.sleep(0.5)
    finally:
        driver.kill()
        node.close()
    output = driver.communicate()[0]
    log_text = (tmp_path / "log").read_text(encoding="utf-8")
    assert output == "sum 328350\n", log_text[-4000:]
    _check_executors(node)
    asked = server.requests_of(_SPARK)
    assert {each for each in asked if each[2] == 403} == set()
    assert {resource for _, resource, _ in asked} <= _RIGHTS.keys()


def _create_driver_pod(server: ApiServer) -> None:
    spec = {**pod_of(workloads("own-servers")["code"])}
    driver = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "driver", "namespace": NAMESPACE},
        "spec": spec,
    }
    server.kubectl("apply", "-f", "-", stdin=json.dumps(driver))


def _check_executors(node: ExecutorNode) -> None:
    assert len(node.pods) == 2
    for pod in node.pods.values():
        (owner,) = pod["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"]) == ("Pod", "driver")
        assert pod["metadata"]["labels"]["mastodon-assets/spark"] == "executor"
        spec = pod["spec"]
        assert spec["serviceAccountName"] == "mastodon-assets"
        assert spec["automountServiceAccountToken"] is False
        (container,) = spec["containers"]
        assert container["image"] == "registry.example/mastodon_assets:0.1.0"
        assert container["resources"]["limits"]["memory"] == "1408Mi"
        assert container["resources"]["requests"] == {"cpu": "500m", "memory": "1408Mi"}
        mounts = {each["mountPath"] for each in container["volumeMounts"]}
        assert {"/tmp", "/var/lib/mastodon_assets"} <= mounts  # noqa: S108
