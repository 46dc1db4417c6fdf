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
from mastodon_assets.config import settings as settings_module
from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.embedded.kafka import KAFKA_VERSION, SERVER_PROPERTIES
from mastodon_assets.embedded.postgres import WITHOUT_ROWS_IN_LOG
from mastodon_assets.embedded.postgres_files import own_major
from mastodon_assets.ingest.metrics import IngestCollector, Reading
from mastodon_assets.operations.metrics_endpoint import serving_metrics
from mastodon_assets.orchestration import dagster_storage, guarded_web_server
from mastodon_assets.spark.memory import Workload, chosen_mebibytes, parse_memory
from mastodon_assets_tests.deployment.compose import (
    COMPOSE_FILE,
    DOCKER,
    FOREIGN,
    PROJECT,
    Service,
    VariableMissingError,
    declared_secrets,
    in_order_of_start,
    read_all_services,
    read_env_file,
    read_secret_files,
    read_services,
    required_variables,
    secrets_of,
)
from mastodon_assets_tests.deployment.try_image import is_task
from mastodon_assets_tests.support.ports import free_port

_ALL = read_all_services()
_OURS = sorted(set(_ALL) - set(FOREIGN))
# What Spark's own programs read (docs: Spark Standalone Mode, Cluster Launch Scripts).
_READ_BY_SPARK = {
    "SPARK_DAEMON_JAVA_OPTS",
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
_FAKE_ENVIRONMENT = {"COMPOSE_PROFILES": "demo", "SECRETS_DIR": "./secrets"}
# Files that are empty until someone fills them.
_OPTIONAL_SECRETS = {
    "alert_urls",
    "alert_webhook_url",
    "dashboard_password",
    "mastodon_access_token",
    "mastodon_handle_key",
}
# An .env of the versions that had passwords in it.
_EARLIER_ENV = """\
COMPOSE_PROFILES=live
MASTODON_API_BASE_URL=https://mastodon.example
  export MASTODON_ACCESS_TOKEN='the-token'
DASHBOARD_PASSWORD=

POSTGRES_PASSWORD=old-1
MASTO_OWNER_PASSWORD="old-2"
MASTO_WRITER_PASSWORD=old-3 # since March
MASTO_READER_PASSWORD=old-4
DAGSTER_POSTGRES_PASSWORD = old-5
SIMULATOR_TOKEN=old-6
# Keep it: without it the suppression list cannot be read.
WITHDRAWN_KEY=old-7-of-16-characters
"""


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
def test_make_env_generates_every_secret_as_a_file_that_only_its_owner_reaches(
    make_env: Path,
) -> None:
    env, folder = make_env.with_name(".env"), make_env.with_name("secrets")
    values = []
    for _ in range(2):
        ended = _run(make_env)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout == "written: docker/.env and docker/secrets\n"
        assert stat.S_IMODE(env.stat().st_mode) == 0o600
        assert read_env_file(env).keys() == required_variables()
        # Containers have users of their own.
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o644}
        assert {file.name for file in folder.iterdir()} == set(declared_secrets())
        made = read_secret_files(folder)
        assert set(declared_secrets()) - made.keys() == _OPTIONAL_SECRETS
        values += [value for name, value in made.items() if not name.startswith("database_url_")]
        assert not any(value in env.read_text(encoding="utf-8") for value in values)
        env.unlink()
        shutil.rmtree(folder)
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in values)
    assert len(set(values)) == len(values) == 16


@pytest.mark.usefixtures("processes")
def test_make_env_never_replaces_what_is_there(make_env: Path) -> None:
    assert _run(make_env).returncode == 0
    env, folder = make_env.with_name(".env"), make_env.with_name("secrets")
    before = (env.read_text(encoding="utf-8"), read_secret_files(folder))
    (folder / "simulator_token").unlink()
    (folder / "mastodon_access_token").chmod(0o600)
    assert _run(make_env).stdout == "written: files that were missing in docker/secrets\n"
    assert (folder / "mastodon_access_token").stat().st_mode & 0o777 == 0o644
    before[1]["simulator_token"] = read_secret_files(folder)["simulator_token"]
    ended = _run(make_env)
    assert ended.returncode == 0
    assert ended.stdout == "docker/.env and docker/secrets are complete; nothing changed\n"
    assert (env.read_text(encoding="utf-8"), read_secret_files(folder)) == before


@pytest.mark.usefixtures("processes")
def test_make_env_moves_the_passwords_of_an_earlier_env_into_files(make_env: Path) -> None:
    env, folder = make_env.with_name(".env"), make_env.with_name("secrets")
    env.write_text(_EARLIER_ENV, encoding="utf-8")
    ended = _run(make_env)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == (
        "passwords, keys and tokens are moved from docker/.env to files in docker/secrets; keep"
        " that folder\n"
    )
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
    assert read_env_file(env) == {
        "COMPOSE_PROFILES": "live",
        "MASTODON_API_BASE_URL": "https://mastodon.example",
        "SECRETS_DIR": "./secrets",
    }
    values = read_secret_files(folder)
    # A role of a later version.
    assert re.fullmatch(r"[0-9a-f]{48}", values.pop("masto_moderator_password"))
    assert values == {
        "postgres_password": "old-1",
        "masto_owner_password": "old-2",
        "masto_writer_password": "old-3",
        "masto_reader_password": "old-4",
        "dagster_postgres_password": "old-5",
        "simulator_token": "old-6",
        "withdrawn_key": "old-7-of-16-characters",
        "mastodon_access_token": "the-token",
        "database_url_superuser": "postgresql://postgres:old-1@postgres:5432/mastodon",
        "database_url_writer": "postgresql://masto_writer:old-3@postgres:5432/mastodon",
        "database_url_reader": "postgresql://masto_reader:old-4@postgres:5432/mastodon",
    }


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        # The database would not know a new password; a new key could not read the list.
        ("POSTGRES_PASSWORD=old-1\n", "", "POSTGRES_PASSWORD is neither in docker/.env nor in"),
        ("WITHDRAWN_KEY=old-7-of-16-characters\n", "", "WITHDRAWN_KEY is neither in docker/.env"),
        # What Compose would read is not what is written.
        ("old-3", "old$3", "the value of MASTO_WRITER_PASSWORD has a #, $, backslash or quotation"),
        ("old-3", "it's", "the value of MASTO_WRITER_PASSWORD has a #, $, backslash or quotation"),
    ],
)
def test_make_env_loses_nothing_that_it_cannot_move(
    make_env: Path, old: str, new: str, says: str
) -> None:
    env = make_env.with_name(".env")
    text = _EARLIER_ENV.replace(old, new)
    env.write_text(text, encoding="utf-8")
    ended = _run(make_env)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert says in ended.stderr
    assert not re.search(r"old.\d|it's|the-token", ended.stderr + ended.stdout)
    assert env.read_text(encoding="utf-8") == text
    # Mended, it goes on where it ended.
    env.write_text(_EARLIER_ENV, encoding="utf-8")
    assert _run(make_env).returncode == 0
    assert len(read_secret_files(make_env.with_name("secrets"))) == 12


@pytest.mark.usefixtures("processes")
def test_make_env_asks_which_of_two_values_counts(make_env: Path) -> None:
    env, folder = make_env.with_name(".env"), make_env.with_name("secrets")
    env.write_text(_EARLIER_ENV, encoding="utf-8")
    assert _run(make_env).returncode == 0
    text = env.read_text(encoding="utf-8") + "MASTODON_ACCESS_TOKEN=another\n"
    env.write_text(text, encoding="utf-8")
    ended = _run(make_env)
    assert ended.returncode == 1
    assert ended.stderr == (
        "docker/.env and docker/secrets/mastodon_access_token have different values of"
        " MASTODON_ACCESS_TOKEN; remove the wrong one\n"
    )
    assert env.read_text(encoding="utf-8") == text
    (folder / "mastodon_access_token").unlink()
    assert _run(make_env).returncode == 0
    assert read_secret_files(folder)["mastodon_access_token"] == "another"
    assert "another" not in env.read_text(encoding="utf-8")


@pytest.mark.parametrize("missing", sorted(_FAKE_ENVIRONMENT))
def test_there_is_no_default_folder_of_secrets_and_no_default_profile(missing: str) -> None:
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
        for name, secret in read["secrets"].items():
            assert Path(secret["file"]) == make_env.with_name("secrets") / name
        made = read_secret_files(make_env.with_name("secrets"))
        assert not any(value in shown.stdout for value in made.values())
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


def test_a_java_server_without_memory_ends_and_is_restarted() -> None:
    for name, variable in (
        ("kafka", "KAFKA_HEAP_OPTS"),
        ("spark-master", "SPARK_DAEMON_JAVA_OPTS"),
        ("spark-worker", "SPARK_DAEMON_JAVA_OPTS"),
    ):
        assert "-XX:+ExitOnOutOfMemoryError" in _ALL[name]["environment"][variable].split()
        assert _ALL[name]["restart"] == "unless-stopped"


def test_kafka_deletes_nothing_by_itself_because_the_tables_may_not_have_read_it() -> None:
    assert _ALL["kafka"]["environment"]["KAFKA_LOG_RETENTION_MS"] == "-1"
    assert "log.retention.ms=-1" in SERVER_PROPERTIES.splitlines()


def test_postgresqls_log_holds_no_rows_as_that_of_the_embedded_one() -> None:
    options = [part for option in WITHOUT_ROWS_IN_LOG for part in ("-c", option)]
    assert _ALL["postgres"]["command"] == ["postgres", *options]


def test_whatever_writes_posts_has_the_keys_of_the_list_and_of_handles() -> None:
    """Otherwise it would store whom the list keeps away, or a purge would find nobody."""
    writers = [
        name
        for name, service in _ALL.items()
        if secrets_of(service).get("database_url") == "database_url_writer"
    ]
    assert len(writers) == 6
    for name in writers:
        assert _secret_settings(_ALL[name]) >= {"WITHDRAWN_KEY", "MASTODON_HANDLE_KEY"}


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
    assert _ALL["postgres"]["image"] == f"postgres:{own_major()}"


def test_every_variable_is_one_that_something_reads(services: dict[str, Service]) -> None:
    settings = {name.upper() for name in Settings.model_fields}
    known = settings | _read_by_dagster() | _READ_BY_SPARK
    for name in set(services) - set(FOREIGN):
        environment = services[name].get("environment", {})
        unknown = sorted((set(environment) | _secret_settings(services[name])) - known)
        assert not unknown, (
            f"{name} gets {unknown}, which neither Settings, docker/dagster.yaml nor _READ_BY_SPARK"
            " in this file names: take it out of docker/compose.yaml, or add it where it is read"
        )
        assert all(isinstance(value, str) for value in environment.values()), name


def test_every_setting_is_given_to_a_service_or_left_out_for_a_reason() -> None:
    given = {name for service in _ALL.values() for name in service.get("environment", {})}
    given |= {name for service in _ALL.values() for name in _secret_settings(service)}
    settings = {name.upper() for name in Settings.model_fields}
    forgotten = sorted(settings - given - set(_LEFT_OUT))
    assert not forgotten, (
        f"{forgotten}: add `NAME: ${{NAME:-}}` to docker/compose.yaml, in the x-… block of the"
        " services that read it (x-model: all that scores; x-assets: all of the asset graph), or"
        " the name with a reason to _LEFT_OUT in this file"
    )
    stale = sorted(set(_LEFT_OUT) & given | set(_LEFT_OUT) - settings)
    assert not stale, f"{stale}: take it out of _LEFT_OUT in this file"


@pytest.mark.usefixtures("processes")
def test_the_settings_take_every_value(
    services: dict[str, Service],
    make_env: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert _run(make_env).returncode == 0
    for name in set(services) - set(FOREIGN):
        with monkeypatch.context() as patch:
            for variable, value in services[name].get("environment", {}).items():
                patch.setenv(variable, value)
            place = tmp_path / name
            place.mkdir()
            for target, source in secrets_of(services[name]).items():
                shutil.copy(make_env.with_name("secrets") / source, place / target)
            patch.setattr(settings_module, "SECRETS", place)
            settings = load_settings()
            values = {path.name: path.read_text().strip() for path in place.iterdir()}
            for field in values.keys() & Settings.model_fields.keys():
                read = getattr(settings, field)
                assert (read.get_secret_value() if read else "") == values[field]


def test_no_secret_is_a_variable_unless_someone_sets_it() -> None:
    secret = {
        name.upper()
        for name, field in Settings.model_fields.items()
        if "SecretStr" in str(field.annotation)
    } | {"POSTGRES_PASSWORD", "DAGSTER_POSTGRES_PASSWORD"}
    for name, service in _ALL.items():
        for variable in service.get("environment", {}).keys() & secret:
            assert variable.lower() in _OPTIONAL_SECRETS
            assert variable in _secret_settings(service), name
            assert service["environment"][variable] == f"${{{variable}:-}}"


def test_each_secret_is_a_file_of_the_folder_and_has_a_reader() -> None:
    files = declared_secrets()
    for name, file in files.items():
        assert file == f"${{SECRETS_DIR:?run ./make-env first}}/{name}"
    used = {source for service in _ALL.values() for source in secrets_of(service).values()}
    assert used == set(files)


def test_postgresql_reads_its_passwords_from_files() -> None:
    """POSTGRES_PASSWORD_FILE is its image's; psql runs what is between backticks."""
    mounted = {f"/run/secrets/{name}" for name in secrets_of(_ALL["postgres"])}
    script = (DOCKER / "postgres-init.sql").read_text(encoding="utf-8")
    read = {*re.findall(r"`cat ([\w/]+)`", script)}
    read.add(_ALL["postgres"]["environment"]["POSTGRES_PASSWORD_FILE"])
    assert read == mounted


def test_dagsters_processes_have_what_its_instance_reads() -> None:
    for name in ("prepare", "code", "webserver", "daemon", "model", "stream"):
        given = set(_ALL[name]["environment"]) | _secret_settings(_ALL[name])
        assert given >= _read_by_dagster()


def _read_by_dagster() -> set[str]:
    text = (DOCKER / "dagster.yaml").read_text(encoding="utf-8")
    assert f"module: {dagster_storage.__name__}\n" in text
    return {*re.findall(r"\{env: (\w+)\}", text), "DAGSTER_POSTGRES_PASSWORD"}


def _secret_settings(service: Service) -> set[str]:
    """The settings that the service finds in files."""
    return {target.upper() for target in secrets_of(service)}


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
    assert {host for host, _ in asked} >= {"kafka", "spark-master", "code"}
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


@pytest.mark.usefixtures("processes")
def test_the_databases_of_the_urls_are_those_that_are_made(make_env: Path) -> None:
    assert _run(make_env).returncode == 0
    made = re.findall(r"CREATE DATABASE (\w+)", (DOCKER / "postgres-init.sql").read_text())
    secrets = read_secret_files(make_env.with_name("secrets"))
    urls = [urlsplit(value) for name, value in secrets.items() if name.startswith("database_url_")]
    assert {(url.hostname, url.port) for url in urls} == {("postgres", 5432)}
    environments = [service.get("environment", {}) for service in _ALL.values()]
    named = {url.path[1:] for url in urls}
    named |= {e["DAGSTER_POSTGRES_DB"] for e in environments if "DAGSTER_POSTGRES_DB" in e}
    assert sorted(named) == sorted(made)


def test_only_the_task_that_makes_roles_is_superuser() -> None:
    users = {name: secrets_of(service).get("database_url") for name, service in _ALL.items()}
    others = {
        name: source
        for name, source in users.items()
        if source not in (None, "database_url_writer")
    }
    assert others == {"roles": "database_url_superuser", "dashboard": "database_url_reader"}


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
