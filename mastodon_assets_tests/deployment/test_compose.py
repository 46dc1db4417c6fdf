"""docker/: what compose.yaml says agrees with the command line, the settings and with itself.

That it works is tried by docker/try-image.
"""

import re
import shutil
import stat
import subprocess
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyspark
import pytest
import yaml
from prometheus_client import CollectorRegistry

from mastodon_assets.cli.app import app
from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.embedded.kafka import KAFKA_VERSION
from mastodon_assets.embedded.postgres import POSTGRES_VERSION
from mastodon_assets.ingest.metrics import IngestCollector, Reading
from mastodon_assets.operations.metrics_endpoint import serving_metrics
from mastodon_assets.orchestration import guarded_web_server
from mastodon_assets.spark.memory import Workload, chosen_mebibytes, parse_memory
from mastodon_assets_tests.deployment.compose import (
    COMPOSE_FILE,
    DOCKER,
    FOREIGN,
    PROJECT,
    Service,
    VariableMissingError,
    in_order_of_start,
    read_all_services,
    read_env_file,
    read_services,
    required_variables,
)
from mastodon_assets_tests.deployment.try_image import is_task
from mastodon_assets_tests.support.ports import free_port

_ALL = read_all_services()
_OURS = sorted(set(_ALL) - set(FOREIGN))
# What Spark's own programs read (docs: Spark Standalone Mode, Cluster Launch Scripts).
_READ_BY_SPARK = {
    "SPARK_DAEMON_MEMORY",
    "SPARK_EXECUTOR_MEMORY",
    "SPARK_LOCAL_IP",
    "SPARK_MASTER_OPTS",
    "SPARK_WORKER_CORES",
    "SPARK_WORKER_MEMORY",
    "SPARK_WORKER_OPTS",
}
# Settings that no service is given, with the reason.
_LEFT_OUT = {
    "EXPORTS_DIR": "its default lies in the volume `files`",
    "REPORTS_DIR": "its default lies in the volume `files`",
    **dict.fromkeys(
        ("BACKUP_DIR", "BACKUP_EVERY_HOURS", "BACKUP_KEEP_DAYS"),
        "the folder is the operator's to mount",
    ),
    "MASTODON_ASSETS_HOME": "there is no embedded stack",
    "DASHBOARD_PORT": "the port in the container is fixed, the one outside is this variable",
    "MASTODON_ACCESS_TOKENS_FILE": "MASTODON_ACCESS_TOKEN takes several",
    **dict.fromkeys(
        (
            *("KAFKA_TOPIC", "KAFKA_ERRORS_TOPIC", "KAFKA_SECURITY_PROTOCOL"),
            *("KAFKA_SSL_CA_LOCATION", "KAFKA_SASL_MECHANISM", "KAFKA_SASL_USERNAME"),
            "KAFKA_SASL_PASSWORD",
        ),
        "the broker is the file's own, in its own network",
    ),
}
_FAKE_ENVIRONMENT = {
    "COMPOSE_PROFILES": "demo",
    "POSTGRES_PASSWORD": "a",
    "MASTO_OWNER_PASSWORD": "b",
    "MASTO_WRITER_PASSWORD": "c",
    "MASTO_MODERATOR_PASSWORD": "g",
    "MASTO_READER_PASSWORD": "d",
    "DAGSTER_POSTGRES_PASSWORD": "e",
    "SIMULATOR_TOKEN": "f",
    "WITHDRAWN_KEY": "g" * 16,
}


@pytest.fixture(params=["demo", "live"])
def services(request: pytest.FixtureRequest) -> dict[str, Service]:
    """Those of a profile, filled in."""
    return read_services({**_FAKE_ENVIRONMENT, "COMPOSE_PROFILES": request.param})


@pytest.fixture
def make_env(tmp_path: Path) -> Path:
    """A copy of the script in a folder of its own, where it writes `.env`."""
    return Path(shutil.copy2(DOCKER / "make-env", tmp_path))


def _run(command: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([command], capture_output=True, text=True, timeout=30)


@pytest.mark.usefixtures("processes")
def test_make_env_generates_every_password_for_its_owner_only(make_env: Path) -> None:
    env = make_env.with_name(".env")
    made = []
    for _ in range(2):
        assert _run(make_env).returncode == 0
        assert stat.S_IMODE(env.stat().st_mode) == 0o600
        made.append(read_env_file(env))
        env.unlink()
    assert made[0].keys() == required_variables()
    passwords = {name for name in made[0] if name != "COMPOSE_PROFILES"}
    values = [variables[name] for variables in made for name in passwords]
    assert len(set(values)) == 2 * len(passwords)
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in values)


@pytest.mark.usefixtures("processes")
def test_make_env_never_replaces_what_is_there(make_env: Path) -> None:
    env = make_env.with_name(".env")
    env.write_text("POSTGRES_PASSWORD=in-use\n", encoding="utf-8")
    ended = _run(make_env)
    assert ended.returncode == 1
    assert ended.stderr == "docker/.env exists and is kept\n"
    assert env.read_text(encoding="utf-8") == "POSTGRES_PASSWORD=in-use\n"


@pytest.mark.parametrize("missing", sorted(_FAKE_ENVIRONMENT))
def test_there_is_no_default_password_and_no_default_profile(missing: str) -> None:
    variables = {name: value for name, value in _FAKE_ENVIRONMENT.items() if name != missing}
    with pytest.raises((VariableMissingError, KeyError), match=missing):
        read_services(variables)


@pytest.mark.usefixtures("processes")
def test_compose_itself_takes_the_file(make_env: Path) -> None:
    command = _compose_command()
    if command is None:
        pytest.skip("no docker-compose here; apt-get install docker-compose")
    assert _run(make_env).returncode == 0
    for name in ("compose.yaml", "postgres-init.sql"):
        shutil.copy2(DOCKER / name, make_env.parent)
    for profile, ingester in (("demo", "ingester-demo"), ("live", "ingester")):
        env = make_env.with_name(".env")
        text = re.sub(r"(?m)^COMPOSE_PROFILES=.*$", f"COMPOSE_PROFILES={profile}", env.read_text())
        env.write_text(text, encoding="utf-8")
        shown = subprocess.run(
            [*command, "config"], cwd=make_env.parent, capture_output=True, text=True, timeout=60
        )
        assert shown.returncode == 0, shown.stderr
        read = yaml.safe_load(shown.stdout)
        assert read["services"][ingester]["command"] == [
            "mastodon-assets",
            "ingest",
            "--wait-for-token",
        ]
        assert read["volumes"]["postgres"]["name"] == f"mastodon_assets_{profile}_postgres"
    env.unlink()
    refused = subprocess.run(
        [*command, "config"], cwd=make_env.parent, capture_output=True, text=True, timeout=60
    )
    assert refused.returncode != 0
    assert "run ./make-env first" in refused.stderr


def _compose_command() -> list[str] | None:
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if shutil.which("docker"):
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True)
        if plugin.returncode == 0:
            return ["docker", "compose"]
    return None


def test_each_waits_for_what_is_healthy_or_done(services: dict[str, Service]) -> None:
    assert sorted(in_order_of_start(services)) == sorted(services)
    for service in services.values():
        for awaited, how in service.get("depends_on", {}).items():
            ends = is_task(services[awaited])
            wanted = "service_completed_successfully" if ends else "service_healthy"
            assert how == {"condition": wanted}


@pytest.mark.parametrize("name", sorted(_ALL))
def test_each_has_limits_and_is_looked_after(name: str) -> None:
    service = _ALL[name]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert re.fullmatch(r"\d+s", service["stop_grace_period"])
    assert ("healthcheck" in service) != is_task(service)
    assert service["restart"] == ("on-failure:5" if is_task(service) else "unless-stopped")
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")


def _mebibytes(memory: str) -> int:
    return parse_memory(memory) // 2**20


def _with_overhead(heap: int) -> float:
    """Mebibytes of a JVM, with what Spark itself allows for outside the heap."""
    return heap + max(384, heap / 10)


@pytest.mark.parametrize(
    ("name", "workloads"),
    [("stream", ["stream"]), ("model", ["training"]), ("code", ["stream", "training"])],
)
def test_drivers_that_run_at_once_fit_their_container_by_the_memory_that_they_choose(
    services: dict[str, Service], name: str, workloads: list[Workload]
) -> None:
    service = services[name]
    assert service["environment"]["SPARK_DRIVER_MEMORY"] == ""
    limit = parse_memory(service["mem_limit"])
    heaps = [chosen_mebibytes(limit, workload) for workload in workloads]
    # Each driver has a Python process; `code` has one more.
    python = 512 * (len(workloads) + (name == "code"))
    assert sum(map(_with_overhead, heaps)) + python <= _mebibytes(service["mem_limit"])


def test_a_worker_has_room_for_the_stream_a_refresh_and_a_training(
    services: dict[str, Service],
) -> None:
    worker = services["spark-worker"]
    executors = [
        _mebibytes(services[name]["environment"]["SPARK_EXECUTOR_MEMORY"])
        for name in ("stream", "code", "code")
    ]
    assert sum(executors) <= _mebibytes(worker["environment"]["SPARK_WORKER_MEMORY"])
    assert len(executors) <= int(worker["environment"]["SPARK_WORKER_CORES"])
    daemon = _mebibytes(worker["environment"]["SPARK_DAEMON_MEMORY"])
    assert daemon + sum(map(_with_overhead, executors)) <= _mebibytes(worker["mem_limit"])


@pytest.mark.parametrize("name", sorted(_ALL))
def test_each_has_bounded_logs_and_processes_and_gains_no_rights(name: str) -> None:
    service = _ALL[name]
    assert service["logging"]["driver"] == "json-file"
    assert {"max-size", "max-file"} <= service["logging"]["options"].keys()
    assert service["pids_limit"] > 0
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert any(place.partition(":")[0] == "/tmp" for place in service["tmpfs"])  # noqa: S108
    # PostgreSQL's entrypoint alone starts as root, and gives that up.
    assert ("cap_add" in service) == (name == "postgres")


def test_kafka_and_postgresql_have_room_where_their_starts_write() -> None:
    """As in apache/kafka's KafkaDockerWrapper and in the entrypoint of PostgreSQL's image."""
    for name, places in (
        ("kafka", {"/opt/kafka/config", "/opt/kafka/logs"}),
        ("postgres", {"/var/run/postgresql"}),
    ):
        assert {place.partition(":")[0] for place in _ALL[name]["tmpfs"]} >= places
    assert _ALL["kafka"]["environment"]["KAFKA_LOG_DIRS"] in _ALL["kafka"]["volumes"][0]
    assert "-loggc" not in _ALL["kafka"]["environment"]["EXTRA_ARGS"]


def test_the_image_runs_as_a_numeric_user_and_sparks_pages_end_nothing() -> None:
    users = re.findall(r"(?m)^USER (.*)$", (DOCKER / "Dockerfile").read_text(encoding="utf-8"))
    assert users == ["10001:10001"]
    assert (
        "-Dspark.ui.killEnabled=false" in _ALL["spark-master"]["environment"]["SPARK_MASTER_OPTS"]
    )


@pytest.mark.usefixtures("loopback")
def test_an_ingester_is_unhealthy_while_a_server_refuses_its_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    readings = [Reading("one.example", "public"), Reading("two.example", "public")]
    registry = CollectorRegistry()
    registry.register(IngestCollector(lambda: readings))
    _, program, option, code = _ALL["ingester"]["healthcheck"]["test"]
    assert (program, option) == ("python", "-c")
    port = free_port()
    code = code.replace(":9102/", f":{port}/")
    with serving_metrics(registry, port):
        for is_refused in (False, True):
            readings[1] = Reading("two.example", "public", is_refused=is_refused)
            with pytest.raises(SystemExit) as ended:
                exec(code)  # noqa: S102
            assert bool(ended.value.code) == is_refused


@pytest.mark.parametrize("name", _OURS)
def test_each_of_ours_has_no_rights(name: str) -> None:
    service = _ALL[name]
    assert service["image"] == "mastodon_assets"
    assert not service.get("privileged")
    assert "user" not in service


def test_the_image_is_built_once_and_never_looked_for_in_a_registry() -> None:
    assert [name for name in _OURS if "build" in _ALL[name]] == ["roles"]
    assert {_ALL[name]["pull_policy"] for name in _OURS} == {"never"}


def test_kafka_and_postgresql_are_the_versions_that_are_tested() -> None:
    assert _ALL["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    assert _ALL["postgres"]["image"] == f"postgres:{POSTGRES_VERSION.split('.')[0]}"


def test_every_variable_is_one_that_something_reads(services: dict[str, Service]) -> None:
    settings = {name.upper() for name in Settings.model_fields}
    known = settings | _read_by_dagster() | _READ_BY_SPARK
    for name in set(services) - set(FOREIGN):
        environment = services[name].get("environment", {})
        unknown = sorted(set(environment) - known)
        assert not unknown, (
            f"{name} gets {unknown}, which neither Settings, docker/dagster.yaml nor _READ_BY_SPARK"
            " in this file names: take it out of docker/compose.yaml, or add it where it is read"
        )
        assert all(isinstance(value, str) for value in environment.values()), name


def test_every_setting_is_given_to_a_service_or_left_out_for_a_reason() -> None:
    given = {name for service in _ALL.values() for name in service.get("environment", {})}
    settings = {name.upper() for name in Settings.model_fields}
    forgotten = sorted(settings - given - set(_LEFT_OUT))
    assert not forgotten, (
        f"{forgotten}: add `NAME: ${{NAME:-}}` to docker/compose.yaml, in the x-… block of the"
        " services that read it (x-model: all that scores; x-assets: all of the asset graph), or"
        " the name with a reason to _LEFT_OUT in this file"
    )
    stale = sorted(set(_LEFT_OUT) & given | set(_LEFT_OUT) - settings)
    assert not stale, f"{stale}: take it out of _LEFT_OUT in this file"


def test_the_settings_take_every_value(
    services: dict[str, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in set(services) - set(FOREIGN):
        with monkeypatch.context() as patch:
            for variable, value in services[name].get("environment", {}).items():
                patch.setenv(variable, value)
            load_settings()


def test_dagsters_processes_have_what_its_instance_reads() -> None:
    for name in ("prepare", "code", "webserver", "daemon", "model", "stream"):
        assert set(_ALL[name]["environment"]) >= _read_by_dagster()


def _read_by_dagster() -> set[str]:
    return set(re.findall(r"\{env: (\w+)\}", (DOCKER / "dagster.yaml").read_text()))


@pytest.mark.usefixtures("loopback")
@pytest.mark.parametrize("name", _OURS)
def test_every_command_is_one_that_there_is(name: str) -> None:
    for command in _commands(_ALL[name]):
        _check_command(command)


@pytest.mark.usefixtures("loopback")
@pytest.mark.parametrize("wrong", ["mastodon-assets strem", "dagster api grpc --prot 1"])
def test_a_command_that_there_is_not_is_found(wrong: str) -> None:
    with pytest.raises(AssertionError, match=r"has no command|unknown option"):
        _check_command(wrong.split())


def _commands(service: Service) -> Iterator[list[str]]:
    """The service's command, and its health check unless that is a line of Python."""
    command = service["command"]
    if command[:2] == ["sh", "-c"]:
        yield from (part.split() for part in command[2].split(" && "))
    else:
        yield command
    check = service.get("healthcheck", {}).get("test", ["CMD", "python"])
    assert check[0] == "CMD"
    if check[1] != "python":
        yield check[1:]


def _check_command(command: list[str]) -> None:
    """Fails where the program has no such command or option."""
    program, *arguments = command
    if program == "spark-class":
        jar = next(Path(pyspark.__file__).parent.glob("jars/spark-core_*.jar"))
        assert f"{arguments[0].replace('.', '/')}.class" in zipfile.ZipFile(jar).namelist()
        return
    if arguments[:2] == ["-m", guarded_web_server.__name__]:
        program, arguments = "dagster-webserver", arguments[2:]
    found = _click_program(program)
    while hasattr(found, "commands"):
        name = arguments.pop(0)
        assert name in found.commands, f"{program} has no command {name}"
        found = found.commands[name]
    options = {option for parameter in found.params for option in parameter.opts}
    assert {a for a in arguments if a.startswith("-")} <= options, f"{command}: unknown option"


def _click_program(name: str) -> Any:
    import typer
    from dagster._cli import create_dagster_cli
    from dagster._daemon.cli import create_dagster_daemon_cli
    from dagster_webserver.cli import create_dagster_webserver_cli

    programs: dict[str, Any] = {
        "mastodon-assets": lambda: typer.main.get_command(app),
        "dagster": create_dagster_cli,
        "dagster-daemon": create_dagster_daemon_cli,
        "dagster-webserver": create_dagster_webserver_cli,
    }
    return programs[name]()


def test_every_address_is_one_that_a_service_listens_on(services: dict[str, Service]) -> None:
    listens = {name: _listens_on(name, service) for name, service in services.items()}
    asked = [
        address
        for name, service in services.items()
        for text in [*service.get("environment", {}).values(), *service.get("command", [])]
        for address in _addresses(name, str(text), services)
    ]
    workspace = yaml.safe_load((DOCKER / "workspace.yaml").read_text())
    server = workspace["load_from"][0]["grpc_server"]
    asked.append((server["host"], server["port"]))
    assert {host for host, _ in asked} >= {"kafka", "postgres", "spark-master", "code"}
    for host, port in asked:
        assert port in listens[host], f"{host}:{port}"


def test_every_published_port_and_every_health_check_is_one_that_is_listened_on(
    services: dict[str, Service],
) -> None:
    published = []
    for name, service in services.items():
        listens = _listens_on(name, service)
        for port in service.get("ports", []):
            _, outside, inside = port.split(":")
            assert outside == inside
            assert int(inside) in listens, name
            published.append(int(inside))
        check = " ".join(service.get("healthcheck", {}).get("test", []))
        checked = re.findall(r"(?:127\.0\.0\.1[:/]|--port )(\d+)", check)
        assert all(int(port) in listens for port in checked), name
        assert checked or is_task(service) or name in ("postgres", "daemon"), name
    assert sorted(published) == [3000, 3300, 4040, 8080]


def _listens_on(name: str, service: Service) -> set[int]:
    if name == "postgres":
        return {5432}
    environment = service.get("environment", {})
    command = " ".join(service.get("command", []))
    listeners = re.findall(r":(\d+)", environment.get("KAFKA_LISTENERS", ""))
    options = re.findall(r"--(?:webui-)?port (\d+)", command)
    settings = [
        value
        for variable, value in environment.items()
        if variable.endswith("_PORT") and variable != "DAGSTER_POSTGRES_PORT"
    ]
    return {int(port) for port in (*listeners, *options, *settings)}


def _addresses(name: str, text: str, services: Mapping[str, Service]) -> Iterator[tuple[str, int]]:
    """Each `host:port` in `text`; of loopback, the service whose network it is."""
    for host, port in re.findall(r"(?:\A|[/@,])([\w.-]+):(\d+)\b", text):
        own = services[name].get("network_mode", f"service:{name}").removeprefix("service:")
        service = own if host == "127.0.0.1" else host
        assert service in services, f"{name}: {text}"
        yield service, int(port)


def test_the_databases_of_the_urls_are_those_that_are_made() -> None:
    made = re.findall(r"CREATE DATABASE (\w+)", (DOCKER / "postgres-init.sql").read_text())
    services = read_services(_FAKE_ENVIRONMENT)
    environments = [services[name].get("environment", {}) for name in _OURS if name in services]
    named = {urlsplit(e["DATABASE_URL"]).path[1:] for e in environments if "DATABASE_URL" in e}
    named |= {e["DAGSTER_POSTGRES_DB"] for e in environments if "DAGSTER_POSTGRES_DB" in e}
    assert sorted(named) == sorted(made)


def test_only_the_task_that_makes_roles_is_superuser() -> None:
    users = {
        name: urlsplit(service["environment"]["DATABASE_URL"]).username
        for name, service in read_services(_FAKE_ENVIRONMENT).items()
        if "DATABASE_URL" in service.get("environment", {})
    }
    others = {name: user for name, user in users.items() if user != "masto_writer"}
    assert others == {"roles": "postgres", "dashboard": "masto_reader"}


def test_volumes_of_ours_belong_to_the_user_of_the_image() -> None:
    made = (DOCKER / "Dockerfile").read_text()
    targets = {
        volume.rpartition(":")[2] for name in _OURS for volume in _ALL[name].get("volumes", [])
    }
    assert targets
    assert all(target in made for target in targets)


def test_the_image_has_its_version_and_names_no_architecture() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert f'org.opencontainers.image.version="{version}"' in text
    assert not re.search(r"amd64|arm64|x86_64|aarch64|--platform", text + COMPOSE_FILE.read_text())


def test_what_the_image_copies_is_all_that_the_build_sees() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    copied = {
        source
        for line in re.findall(r"(?m)^COPY (?!--from)(.+)$", text)
        for source in line.split()[:-1]
    }
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
