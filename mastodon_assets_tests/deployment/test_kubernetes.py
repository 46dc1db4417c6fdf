"""docker/kubernetes: valid objects that agree with compose.yaml, the settings and with each other.

Against a real API server: test_kubernetes_server.py.
"""

import re
import subprocess
from collections.abc import Iterator

import kubernetes_validate
import pytest
import yaml

from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.spark.memory import parse_memory
from mastodon_assets_tests.deployment.compose import DOCKER, read_all_services
from mastodon_assets_tests.deployment.manifests import (
    KUBERNETES,
    OVERLAYS,
    Manifest,
    executor_pod,
    manifests,
    pod_of,
    spark_defaults,
    workloads,
)

pytestmark = pytest.mark.usefixtures("processes")

_COMPOSE = read_all_services()
# Oldest and newest of the versions that Kubernetes supports today.
_VERSIONS = ("1.34", "1.37")
# One process each, whatever happens: the next starts when the last has ended.
_ONE_WRITER = {"code", "daemon", "stream", "ingester", "dashboard"}
_NAMES = ["code", "daemon", "dashboard", "ingester", "model", "prepare", "roles", "stream"]
_NAMES += ["webserver"]
_ADMIN_URL = "postgresql://admin:it's@db.example:5433/mastodon?sslmode=require"
_GIVEN = {"DATABASE_ADMIN_URL": _ADMIN_URL, "DAGSTER_PASSWORD": "chosen"}
# Not settings: of Dagster's storage, Kubernetes and Spark.
_OTHERS = {"DAGSTER_POSTGRES_PASSWORD", "POD_NAME", "POD_NAMESPACE", "PYSPARK_SUBMIT_ARGS"}
_OTHERS |= {"SPARK_CONF_DIR", "SPARK_EXECUTOR_IMAGE", "SPARK_LOCAL_IP"}


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _containers(pod: Manifest) -> list[Manifest]:
    return [*pod.get("initContainers", ()), *pod["containers"]]


def _main(workload: Manifest) -> Manifest:
    (container,) = pod_of(workload)["containers"]
    return dict(container)


@pytest.mark.parametrize("version", _VERSIONS)
def test_every_object_is_valid(overlay: str, version: str) -> None:
    for each in [*manifests(overlay), executor_pod()]:
        kubernetes_validate.validate(each, version, strict=True)


def test_the_same_processes_run_as_in_compose(overlay: str) -> None:
    assert sorted(workloads(overlay)) == _NAMES
    foreign = {"kafka", "postgres", "spark-master", "spark-worker", "simulator", "ingester-demo"}
    assert set(_COMPOSE) - foreign == set(_NAMES)
    for name, workload in workloads(overlay).items():
        assert _main(workload)["command"] == _COMPOSE[name]["command"], name


def test_every_pod_is_restricted_and_has_a_read_only_root(overlay: str) -> None:
    for pod in [*map(pod_of, workloads(overlay).values()), executor_pod()["spec"]]:
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (10001,) * 3
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert all({"hostPath"}.isdisjoint(volume) for volume in pod["volumes"])
        for container in _containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }
            assert {"mountPath": "/tmp", "name": "tmp"} in container["volumeMounts"]  # noqa: S108
    (namespace,) = [each for each in manifests(overlay) if each["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_only_sparks_drivers_have_a_token(overlay: str) -> None:
    drivers = {"code", "stream", "model"}
    for name, workload in workloads(overlay).items():
        pod = pod_of(workload)
        assert pod["serviceAccountName"] == ("spark" if name in drivers else "mastodon-assets")
        assert pod["automountServiceAccountToken"] is (name in drivers)
    executor = executor_pod()["spec"]
    assert executor["serviceAccountName"] == "mastodon-assets"
    assert executor["automountServiceAccountToken"] is False


def _mebibytes(text: str) -> int:
    units = {"m": "m", "g": "g", "Mi": "m", "Gi": "g"}
    number, unit = re.fullmatch(r"(\d+)([A-Za-z]+)", text).groups()  # type: ignore[union-attr]
    return parse_memory(number + units[unit]) >> 20


def test_memory_is_that_of_compose(overlay: str) -> None:
    for name, workload in workloads(overlay).items():
        resources = _main(workload)["resources"]
        limit = _mebibytes(resources["limits"]["memory"])
        assert limit == _mebibytes(_COMPOSE[name]["mem_limit"]), name
        assert _mebibytes(resources["requests"]["memory"]) * 2 == limit, name
        for container in _containers(pod_of(workload)):
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_an_executor_has_the_memory_of_a_core_of_composes_workers() -> None:
    defaults, worker = spark_defaults(), _COMPOSE["spark-worker"]
    heap, overhead = defaults["spark.executor.memory"], defaults["spark.executor.memoryOverhead"]
    assert defaults["spark.executor.cores"] == "1"
    assert heap in _COMPOSE["code"]["environment"]["SPARK_EXECUTOR_MEMORY"]
    share = _mebibytes(worker["mem_limit"]) / int(worker["environment"]["SPARK_WORKER_CORES"])
    assert _mebibytes(heap) + _mebibytes(overhead) >= share


def test_executors_of_two_applications_have_different_names() -> None:
    assert "spark.kubernetes.executor.podNamePrefix" not in spark_defaults()


def test_there_is_never_a_second_writer(overlay: str) -> None:
    deployments = {
        name: each["spec"]
        for name, each in workloads(overlay).items()
        if each["kind"] == "Deployment"
    }
    recreated = {
        name for name, spec in deployments.items() if spec.get("strategy") == {"type": "Recreate"}
    }
    assert recreated == _ONE_WRITER
    assert {spec["replicas"] for spec in deployments.values()} == {1}


def test_every_deployment_has_probes_that_ask_a_port_of_its_own(overlay: str) -> None:
    for name, workload in workloads(overlay).items():
        if workload["kind"] == "Job":
            continue
        container = _main(workload)
        assert {"startupProbe", "livenessProbe"} <= set(container), name
        # No service leads to the daemon.
        assert "readinessProbe" in container or name == "daemon"
        ports = {each["name"]: each["containerPort"] for each in container.get("ports", ())}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            check = container.get(probe, {})
            if "httpGet" in check:
                assert check["httpGet"]["port"] in ports
            if "grpc" in check:
                assert check["grpc"] == {"port": ports["grpc"], "service": "DagsterApi"}


def test_the_health_checks_with_commands_are_those_of_compose() -> None:
    live, demo = workloads("own-servers"), workloads("demo")
    checks = {
        "ingester": _main(live["ingester"])["readinessProbe"],
        "daemon": _main(live["daemon"])["livenessProbe"],
        "simulator": pod_of(demo["ingester"])["initContainers"][0]["startupProbe"],
    }
    for name, probe in checks.items():
        assert ["CMD", *probe["exec"]["command"]] == _COMPOSE[name]["healthcheck"]["test"]


def test_no_secret_is_in_a_manifest_and_make_secrets_makes_all(overlay: str) -> None:
    assert [each for each in manifests(overlay) if each["kind"] == "Secret"] == []
    made = {each["metadata"]["name"]: each["stringData"] for each in _secrets()}
    for name, workload in workloads(overlay).items():
        for container in _containers(pod_of(workload)):
            for variable in container.get("env", ()):
                if not _is_secret(variable["name"]):
                    assert "secretKeyRef" not in variable.get("valueFrom", {}), variable
                    continue
                reference = variable["valueFrom"]["secretKeyRef"]
                needed = not reference.get("optional")
                assert not needed or reference["key"] in made[reference["name"]], name


def _is_secret(variable: str) -> bool:
    if variable == "DAGSTER_POSTGRES_PASSWORD":
        return True
    field = Settings.model_fields.get(variable.lower())
    is_login = variable == "KAFKA_SASL_USERNAME"
    return is_login or (field is not None and "SecretStr" in str(field.annotation))


def test_each_process_gets_only_the_secrets_it_needs(overlay: str) -> None:
    got = {
        name: set(_secret_names(workload)) - {"kafka", "alerts"}
        for name, workload in workloads(overlay).items()
    }
    writer = {"database/writer_url", "keys/withdrawn_key", "keys/handle_key"}
    passwords = {"owner_password", "writer_password", "moderator_password", "reader_password"}
    assert got == {
        "roles": {"database-admin/url", *(f"database/{each}" for each in passwords)},
        "prepare": {*writer, "dagster/password"},
        "code": {*writer, "dagster/password", "mastodon/access_token"},
        "model": {*writer, "dagster/password"},
        "stream": {*writer, "dagster/password"},
        "ingester": {*writer, "mastodon/access_token"},
        "webserver": {"dagster/password"},
        "daemon": {"dagster/password"},
        "dashboard": {
            *("database/reader_url", "database/moderator_password", "dashboard/password")
        },
    }


def _secret_names(workload: Manifest) -> Iterator[str]:
    for container in _containers(pod_of(workload)):
        for variable in container.get("env", ()):
            if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                whole = reference["name"] in ("kafka", "alerts")
                yield reference["name"] if whole else f"{reference['name']}/{reference['key']}"


def _secrets(**variables: str) -> list[Manifest]:
    ended = subprocess.run(
        [KUBERNETES / "make-secrets"],
        env={"PATH": "/usr/bin:/bin", **_GIVEN, **variables},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 0, ended.stderr
    return list(yaml.safe_load_all(ended.stdout))


@pytest.mark.parametrize("missing", ["DATABASE_ADMIN_URL", "DAGSTER_PASSWORD"])
def test_make_secrets_says_what_it_needs(missing: str) -> None:
    given = {name: value for name, value in _GIVEN.items() if name != missing}
    ended = subprocess.run(
        [KUBERNETES / "make-secrets"], env=given, capture_output=True, text=True, timeout=30
    )
    assert (ended.returncode != 0, ended.stdout) == (True, "")
    assert f"{missing}: set it to" in ended.stderr


def test_make_secrets_generates_passwords_and_keeps_the_place() -> None:
    first, second = (
        {each["metadata"]["name"]: each["stringData"] for each in _secrets()} for _ in range(2)
    )
    assert first["database-admin"] == {"url": _ADMIN_URL}
    database = first["database"]
    place = "db.example:5433/mastodon?sslmode=require"
    assert database["writer_url"] == (
        f"postgresql://masto_writer:{database['writer_password']}@{place}"
    )
    assert database["reader_url"].endswith(f":{database['reader_password']}@{place}")
    assert "kafka" not in first
    assert "handle_key" not in first["keys"]
    generated = [
        value
        for secrets in (first, second)
        for name in ("database", "keys", "mastodon")
        for key, value in secrets[name].items()
        if not key.endswith("_url")
    ]
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in generated)
    assert len(set(generated)) == len(generated)


def test_make_secrets_passes_on_what_it_is_given() -> None:
    given = _secrets(
        KAFKA_SASL_USERNAME="ada", KAFKA_SASL_PASSWORD="p'w", MASTODON_ACCESS_TOKEN="tok"
    )
    made = {each["metadata"]["name"]: each["stringData"] for each in given}
    assert made["kafka"] == {"username": "ada", "password": "p'w"}
    assert made["mastodon"] == {"access_token": "tok"}


def test_every_variable_is_one_that_something_reads(
    overlay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {name.upper() for name in Settings.model_fields} | _OTHERS
    known |= set(re.findall(r"\{env: (\w+)\}", (DOCKER / "dagster.yaml").read_text("utf-8")))
    maps = {
        each["metadata"]["name"]: each["data"]
        for each in manifests(overlay)
        if each["kind"] == "ConfigMap"
    }
    for name, workload in workloads(overlay).items():
        with monkeypatch.context() as patch:
            for container in _containers(pod_of(workload)):
                for source in container.get("envFrom", ()):
                    for variable, value in maps[source["configMapRef"]["name"]].items():
                        assert variable in known, variable
                        patch.setenv(variable, value)
                for variable in container.get("env", ()):
                    assert variable["name"] in known, (name, variable["name"])
            # The login comes from a secret.
            patch.setenv("KAFKA_SECURITY_PROTOCOL", "PLAINTEXT")
            patch.delenv("KAFKA_SSL_CA_LOCATION", raising=False)
            load_settings()


def test_processes_of_dagster_wait_for_its_tables(overlay: str) -> None:
    waiting = {
        name
        for name, workload in workloads(overlay).items()
        if any(
            each["name"] == "wait-for-prepare"
            for each in pod_of(workload).get("initContainers", ())
        )
    }
    assert waiting == {"code", "webserver", "daemon", "stream", "model"}


def test_executors_have_the_image_of_their_driver(overlay: str) -> None:
    for name, workload in workloads(overlay).items():
        container = _main(workload)
        variables = {each["name"]: each.get("value") for each in container.get("env", ())}
        if pod_of(workload)["serviceAccountName"] == "spark":
            image = container["image"]
            # `demo` starts none.
            assert overlay == "demo" or variables["SPARK_EXECUTOR_IMAGE"] == image, name
    images = {each["image"] for w in workloads(overlay).values() for each in _containers(pod_of(w))}
    assert len(images) == 1


def test_everything_is_denied_but_what_a_policy_allows(overlay: str) -> None:
    policies = {
        each["metadata"]["name"]: each["spec"]
        for each in manifests(overlay)
        if each["kind"] == "NetworkPolicy"
    }
    assert policies.pop("deny-all") == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, spec in policies.items():
        for rule in (*spec.get("ingress", ()), *spec.get("egress", ())):
            assert rule["ports"], name
        for rule in spec.get("ingress", ()):
            assert rule["from"], f"{name}: from anywhere"
    labels = [w["spec"]["template"]["metadata"]["labels"] for w in workloads(overlay).values()]
    labels.append(executor_pod()["metadata"]["labels"])
    for name, spec in policies.items():
        assert any(_selects(spec["podSelector"], each) for each in labels), f"{name}: no pod"


def _selects(selector: Manifest, labels: Manifest) -> bool:
    wanted = selector.get("matchLabels", {}).items()
    if not all(labels.get(key) == value for key, value in wanted):
        return False
    return all(
        labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", ())
    )


def test_the_ports_of_spark_are_those_that_are_allowed() -> None:
    defaults = spark_defaults()
    policies = {
        each["metadata"]["name"]: each["spec"]
        for each in manifests("own-servers")
        if each["kind"] == "NetworkPolicy"
    }
    (rule,) = policies["spark-driver"]["ingress"]
    # Spark tries 16 more ports.
    assert [(each["port"], each["endPort"]) for each in rule["ports"]] == [
        (int(defaults[name]), int(defaults[name]) + 16)
        for name in ("spark.driver.port", "spark.driver.blockManager.port")
    ]
    (rule,) = policies["spark-executor"]["ingress"]
    assert [each["port"] for each in rule["ports"]] == [int(defaults["spark.blockManager.port"])]


def test_every_claim_map_and_selector_leads_somewhere(overlay: str) -> None:
    by_kind: dict[str, dict[str, Manifest]] = {}
    for each in manifests(overlay):
        by_kind.setdefault(each["kind"], {})[each["metadata"]["name"]] = each
    for workload in workloads(overlay).values():
        volumes = pod_of(workload)["volumes"]
        for volume in volumes:
            if claim := volume.get("persistentVolumeClaim"):
                assert claim["claimName"] in by_kind["PersistentVolumeClaim"]
            config = volume.get("configMap", {"optional": True})
            assert config.get("optional") or config["name"] in by_kind["ConfigMap"]
        named = {volume["name"] for volume in volumes}
        for container in _containers(pod_of(workload)):
            assert {mount["name"] for mount in container["volumeMounts"]} <= named
    for name, service in by_kind["Service"].items():
        workload = workloads(overlay)[name]
        assert service["spec"]["selector"].items() <= (
            workload["spec"]["template"]["metadata"]["labels"].items()
        )
        ports = {each["name"]: each["containerPort"] for each in _main(workload)["ports"]}
        assert {each["name"]: each["port"] for each in service["spec"]["ports"]} == ports
