"""`docker/try-image`: build the image and run the demo of compose.yaml from it, to the charts.

No container engine is needed, but root, buildah and debootstrap (Debian's packages), 8 GB of disk,
6 GB of memory and a network for the build. Each service runs with its own command, variables,
volumes and health check, when what it waits for is ready, in a network of its own that has nothing
but loopback: every service's name is 127.0.0.1 there, and copies of one have addresses of their
own, as Spark takes workers of one address for users of one disk. Kafka and PostgreSQL are those of
`mastodon-assets up` instead of their images, which are not at hand without a registry.

It fails where a service does not get healthy, the sensor's refresh does not reach the charts, a
service runs as another user than the image's, writes elsewhere than to its volumes, does not end
on SIGTERM, or a secret shows. What it started is ended, and what it made is removed unless
`--keep`. Where the machine cannot try it at all it says why, with the exit status 77.
"""

import argparse
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from mastodon_assets.config.settings import load_settings
from mastodon_assets.embedded import stack
from mastodon_assets.orchestration.refresh_state import shown_state
from mastodon_assets_tests.deployment.compose import (
    DOCKER,
    FOREIGN,
    Service,
    read_env_file,
    read_secret_files,
    secrets_of,
)
from mastodon_assets_tests.deployment.compose import read_services as read_compose_services
from mastodon_assets_tests.deployment.image import (
    IMAGE,
    Buildah,
    Container,
    build,
    labels,
    make_base,
    write_environment,
)

# The user of the image.
USER_ID = 10001
KAFKA_PORT, POSTGRES_PORT = 9092, 5432
PAGES = {
    "Dagster": 3000,
    "the dashboard": 3300,
    "Spark's master": 8080,
    "the stream's Spark": 4040,
}
_PLANTED = "planted-7f3c9a51d2"
_PLANTED_FILES = (".env", "docker/.env", "data/x", "mastodon_assets/.env", ".git/config")
# What a slow machine needs as well; the bounds of what never comes.
_HEALTHY_SECONDS, _TASK_SECONDS, _CHARTS_SECONDS = 600, 900, 900
_CANNOT_TRY = 77
# All services together hold 5 GB.
_FREE_DISK, _FREE_MEMORY = 8_000_000_000, 6_000_000_000
# Nothing that builds or installs belongs into the finished image.
_BUILDERS = ("cc", "gcc", "g++", "c++", "ld", "make", "javac", "pip", "pip3")
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


class TrialError(Exception):
    """What the image or a service does not do; `log` may say why."""

    def __init__(self, message: str, log: Path | None = None) -> None:
        super().__init__(message)
        self.log = log


class CannotTryError(Exception):
    """The machine lets nobody build or run an image; the message says what it lacks."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="docker/try-image", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help="leave image, logs and volumes there")
    parser.add_argument("--folder", type=Path, help="where to work; what is kept is used again")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    # Both end it cleanly, also if a shell started it in the background.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    try:
        if options.inside:
            _run_services(options.folder)
        else:
            _try_image(options.folder, keep=options.keep)
    except CannotTryError as error:
        print(f"not tried: {error}", file=sys.stderr)
        raise SystemExit(_CANNOT_TRY) from None
    except TrialError as error:
        if error.log:
            _show_end(error.log)
        raise SystemExit(f"failed: {error}") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"failed: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("interrupted") from None


def _try_image(chosen: Path | None, *, keep: bool) -> None:
    _check_machine(chosen)
    folder = (chosen or Path(tempfile.mkdtemp(prefix="mastodon_assets-image-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "build.log"
    buildah = Buildah(folder)
    try:
        with _told("base image debian:bookworm-slim, by debootstrap"):
            _make_base(buildah, log)
        with _told(f"image of docker/Dockerfile (log: {log})"):
            _build(buildah, log)
        _check_image(buildah)
        for name, value in sorted(labels(buildah).items()):
            if name.startswith("org.opencontainers."):
                _say(f"label {name}: {value}")
        with _told("programs of the embedded Kafka and PostgreSQL"):
            # Fetched here: where the services run there is no network.
            stack.up(folder / "fetched", topics=[])
            stack.down(folder / "fetched", wipe=True)
        inside = [sys.executable, "-m", __spec__.name, "--inside", "--folder", str(folder)]
        if _run_to_its_end(["unshare", "--net", "--", *inside]) != 0:
            raise TrialError("the services did not work")
        _say("all of it works")
    finally:
        if keep:
            _say(f"kept: {folder}")
        else:
            shutil.rmtree(folder)


def _check_machine(chosen: Path | None) -> None:
    """Raises: CannotTryError."""
    if os.geteuid() != 0:
        raise CannotTryError("only root can build the image without a container engine")
    missing = [name for name in ("buildah", "debootstrap", "unshare") if not shutil.which(name)]
    if missing:
        raise CannotTryError(f"{', '.join(missing)}: not here; apt-get install buildah debootstrap")
    if subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True).returncode != 0:
        raise CannotTryError("no network of its own for the services (unshare --net --mount)")
    place = chosen if chosen and chosen.exists() else Path(tempfile.gettempdir())
    for what, free, needed in (
        (f"disk at {place}", shutil.disk_usage(place).free, _FREE_DISK),
        ("memory", psutil.virtual_memory().available, _FREE_MEMORY),
    ):
        if free < needed:
            raise CannotTryError(f"{what}: {free / 1e9:.1f} GB are free, {needed / 1e9:.0f} needed")


def _make_base(buildah: Buildah, log: Path) -> None:
    """Nothing of ours is in this: where it fails, it is for the machine or Debian's archive.

    Raises: CannotTryError.
    """
    try:
        make_base(buildah, log)
    except subprocess.CalledProcessError as error:
        _show_end(log)
        raise CannotTryError(f"no base image can be made here ({error})") from error


def _build(buildah: Buildah, log: Path) -> None:
    try:
        build(buildah, dict.fromkeys(_PLANTED_FILES, f"PASSWORD={_PLANTED}\n"), log)
    except subprocess.CalledProcessError as error:
        _show_end(log)
        raise TrialError("the image cannot be built") from error


def _show_end(log: Path) -> None:
    """Print what came last: the file itself is gone when this program ends."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    print("\n".join([f"--- the end of {log}", *lines[-60:], "---"]), file=sys.stderr)


def _run_to_its_end(command: list[str]) -> int:
    """Its exit status; if we are interrupted it gets SIGTERM and may clean up."""
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise


@dataclass
class Running:
    """A container of a service: its process, and how a command is run in it."""

    name: str
    process: "subprocess.Popen[bytes]"
    command: Callable[[list[str]], list[str]]
    log: Path
    grace_seconds: int

    def processes(self) -> list[psutil.Process]:
        """Those of the service, its first one first; Buildah itself is none of them."""
        if self.process.poll() is not None:
            return []
        below = psutil.Process(self.process.pid).children(recursive=True)
        return [process for process in below if "buildah" not in process.name()]


@dataclass
class Trial:
    """The services of compose.yaml, as processes from the image."""

    folder: Path
    services: Mapping[str, Service]
    # The folder that make-env wrote.
    secrets: Path
    container: Container
    hosts: Path
    ready: dict[str, threading.Event] = field(default_factory=dict)
    running: list[Running] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)
    # Variables of a login. The embedded broker asks for one; that of the containers does not.
    login: Mapping[str, str] = field(default_factory=dict)
    # When the last service that was waited for got healthy, by time.monotonic().
    healthy_at: float = 0

    def up(self) -> None:
        """Start all, each when what it waits for is ready; return when the last one is.

        Raises: TrialError.
        """
        self.ready = {name: threading.Event() for name in self.services}
        ours = [name for name in self.services if name not in FOREIGN]
        for name in FOREIGN:
            self.ready[name].set()
        with ThreadPoolExecutor(max_workers=len(ours)) as pool:
            started = [pool.submit(self._bring_up, name) for name in ours]
            try:
                done, _ = wait(started, return_when=FIRST_EXCEPTION)
            finally:
                # The others give up then, which is no failure of theirs.
                self.is_over.set()
            for future in done:
                future.result()

    def down(self) -> list[str]:
        """End all; names of those that did not end by themselves within their grace period."""
        return [late for running in reversed(self.running) if (late := _end(running))]

    def users(self) -> dict[int, str]:
        """A service for each user id that processes of services have."""
        users = {}
        for running in self.running:
            for process in running.processes():
                with suppress(psutil.NoSuchProcess):
                    users[process.uids().effective] = running.name
        return users

    def memory_bytes(self) -> int:
        """What all processes hold, shared pages counted once (PSS)."""
        held = 0
        for process in (one for running in self.running for one in running.processes()):
            with suppress(psutil.NoSuchProcess):
                held += process.memory_full_info().pss
        return held

    def _bring_up(self, name: str) -> None:
        service = self.services[name]
        for awaited in service.get("depends_on", {}):
            while not self.ready[awaited].wait(0.2):
                if self.is_over.is_set():
                    return
        started = time.monotonic()
        running = [self._start(name, host) for host in _host_names(name, service)]
        for one in running:
            if is_task(service):
                self._wait_until_done(one)
            else:
                self._wait_until_healthy(one, service["healthcheck"]["test"][1:])
                self.healthy_at = time.monotonic()
        self.ready[name].set()
        word = "done" if is_task(service) else "healthy"
        _say(f"{name}: {word} after {time.monotonic() - started:.1f} s")

    def _start(self, name: str, host: str) -> Running:
        service = self.services[name]
        place = self.folder / "containers" / host
        place.mkdir(parents=True)
        environment = place / "environment"
        variables = dict(service.get("environment", {}))
        if "KAFKA_BOOTSTRAP_SERVERS" in variables:
            variables |= self.login
        write_environment(environment, variables, USER_ID)
        mounts = {
            self.hosts: "/etc/hosts",
            **self._mounts(service, place),
            **{
                self.secrets / source: f"/run/secrets/{target}"
                for target, source in secrets_of(service).items()
            },
        }
        log = self.folder / "logs" / f"{host}.log"

        def command(arguments: list[str]) -> list[str]:
            return self.container.command(arguments, environment, mounts, hostname=host)

        with log.open("wb") as output:
            process = subprocess.Popen(
                command(service["command"]),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        grace = int(service["stop_grace_period"].removesuffix("s"))
        running = Running(host, process, command, log, grace)
        self.running.append(running)
        return running

    def _mounts(self, service: Service, place: Path) -> dict[Path, str]:
        """Folders on the machine for the service's volumes and memory disks."""
        mounts = {}
        for index, volume in enumerate(service.get("volumes", [])):
            source, _, target = volume.rpartition(":")
            folder = self.folder / "volumes" / source if source else place / f"volume-{index}"
            mounts[folder] = target
        for index, target in enumerate(service.get("tmpfs", [])):
            mounts[place / f"tmpfs-{index}"] = target.partition(":")[0]
        for folder in mounts:
            folder.mkdir(parents=True, exist_ok=True)
            os.chown(folder, USER_ID, USER_ID)
        return mounts

    def _wait_until_done(self, running: Running) -> None:
        deadline = time.monotonic() + _TASK_SECONDS
        while running.process.poll() is None:
            if self.is_over.wait(0.5):
                return
            if time.monotonic() > deadline:
                raise TrialError(f"{running.name} takes too long", running.log)
        if running.process.returncode != 0:
            status = running.process.returncode
            raise TrialError(f"{running.name} ended with status {status}", running.log)

    def _wait_until_healthy(self, running: Running, check: list[str]) -> None:
        deadline = time.monotonic() + _HEALTHY_SECONDS
        while time.monotonic() < deadline:
            if self.is_over.is_set():
                return
            if running.process.poll() is not None:
                raise TrialError(f"{running.name} ended by itself", running.log)
            answered = subprocess.run(
                running.command(check), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            if answered.returncode == 0:
                return
            time.sleep(1)
        raise TrialError(f"{running.name} does not get healthy", running.log)


def is_task(service: Service) -> bool:
    """Whether the service ends when its work is done."""
    return str(service.get("restart", "")).startswith("on-failure")


def _run_services(folder: Path) -> None:
    """The part that has a network of its own."""
    _bring_up_loopback()
    shutil.rmtree(folder / "logs", ignore_errors=True)
    (folder / "logs").mkdir()
    written = _make_env(folder)
    services = read_compose_services(read_env_file(written / ".env"))
    secrets = read_secret_files(written / "secrets")
    container = Container(Buildah(folder))
    started = time.monotonic()
    hosts = _write_hosts(folder, services)
    trial = Trial(folder, services, written / "secrets", container, hosts)
    try:
        with _servers(folder, secrets) as (database, login):
            trial.login = login
            try:
                trial.up()
                _say(
                    f"all services healthy {trial.healthy_at - started:.1f} s after up, tasks done"
                    f" {time.monotonic() - started:.1f} s after it"
                )
                _wait_for_charts(folder, database)
                _look_at_pages()
                _ask_doctor(trial)
                _back_up(trial)
                _say(f"memory of our services together: {trial.memory_bytes() / 1e9:.1f} GB")
                shown = _processes_that_show(secrets)
                users = trial.users()
            finally:
                late = trial.down()
            # Nothing writes to them any more.
            shown += _files_that_show(folder, secrets)
        problems = [
            *(f"{where} shows a secret" for where in shown),
            *(f"{path} was written outside of volumes" for path in _written(trial)),
            *(f"{name} did not end in its grace period" for name in late),
            *(f"{name} runs as user {user}" for user, name in users.items() if user != USER_ID),
        ]
        if problems:
            rest = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
            raise TrialError("; ".join(problems[:10]) + rest)
        _say(
            f"every service ran as user {USER_ID}, wrote to its volumes only, showed no secret and"
            " ended on SIGTERM"
        )
    finally:
        container.remove()
        for made in ("containers", "volumes"):
            shutil.rmtree(folder / made, ignore_errors=True)


def _make_env(folder: Path) -> Path:
    """The folder in which make-env wrote `.env` and `secrets`."""
    place = folder / "make-env"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    shutil.copy2(DOCKER / "make-env", place)
    subprocess.run([place / "make-env"], check=True, stdout=subprocess.DEVNULL)
    return place


@contextmanager
def _servers(
    folder: Path, secrets: Mapping[str, str]
) -> Iterator[tuple[SecretStr, dict[str, str]]]:
    """Kafka and PostgreSQL as the images of compose.yaml have them: ports, databases, superuser.

    Yields the superuser's URL of the platform's database, and the variables of the broker's login.
    """
    home = folder / "stack"
    for name, port in (("kafka/broker.port", KAFKA_PORT), ("postgres/port", POSTGRES_PORT)):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(f"{port}\n", encoding="ascii")
    try:
        connection = stack.up(home, topics=[])
        _make_databases(connection.postgres_url, secrets)
        password = secrets["postgres_password"]
        url = SecretStr(f"postgresql://postgres:{password}@127.0.0.1:{POSTGRES_PORT}/mastodon")
        login = {name.upper(): value for name, value in connection.kafka_settings.items()}
        del login["KAFKA_BOOTSTRAP_SERVERS"]
        yield url, login
    finally:
        stack.down(home, wipe=True)


def _make_databases(server_url: str, secrets: Mapping[str, str]) -> None:
    """What PostgreSQL's image does at its first start: its superuser, and postgres-init.sql."""
    with psycopg.connect(make_conninfo(server_url, dbname="postgres"), autocommit=True) as server:
        server.execute("DROP DATABASE mastodon")
        server.execute(
            sql.SQL("CREATE ROLE postgres SUPERUSER LOGIN PASSWORD {}").format(
                sql.Literal(secrets["postgres_password"])
            )
        )
        script = (DOCKER / "postgres-init.sql").read_text(encoding="utf-8")
        script = re.sub(r"(?m)^--.*$", "", script)
        read = dict(re.findall(r"(?m)^\\set (\w+) `cat /run/secrets/(\w+)`$", script))
        script = re.sub(r"(?m)^\\set .*$", "", script)
        for name, file in read.items():
            literal = sql.Literal(secrets[file]).as_string(server)
            script = script.replace(f":'{name}'", literal)
        for statement in filter(None, map(str.strip, script.split(";"))):
            server.execute(statement.encode())


def _host_names(name: str, service: Service) -> list[str]:
    """The names of the service's copies; of its own where it is one."""
    copies = service.get("deploy", {}).get("replicas", 1)
    return [name] if copies == 1 else [f"{name}-{number}" for number in range(1, copies + 1)]


def _write_hosts(folder: Path, services: Mapping[str, Service]) -> Path:
    path = folder / "hosts"
    lines = [f"127.0.0.1 {name}" for name in ("localhost", *services)]
    copies = [
        host
        for name, service in services.items()
        for host in _host_names(name, service)
        if host != name
    ]
    lines += [f"127.0.1.{number} {host}" for number, host in enumerate(copies, 1)]
    path.write_text("\n".join(lines) + "\n", encoding="ascii")
    return path


def _bring_up_loopback() -> None:
    with socket.socket() as control:
        request = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack("16xh14x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def _wait_for_charts(folder: Path, database: SecretStr) -> None:
    """Until the sensor's refresh has drawn what the first model scored. Raises: TrialError."""
    settings = load_settings(database_url=database)
    files = folder / "volumes/files"
    log = folder / "logs/code.log"
    started = time.monotonic()
    while time.monotonic() < started + _CHARTS_SECONDS:
        shown = shown_state(settings)
        if shown.champion and shown.shown_champions == {shown.champion}:
            break
        time.sleep(2)
    else:
        raise TrialError(f"no charts of the champion after {_CHARTS_SECONDS} s", log)
    charts = sorted(path.name for path in (files / "reports").glob("part5_*.png"))
    exports = sorted(path.name for path in (files / "data").glob("viz_*.csv"))
    if len(charts) != 4 or len(exports) != 3:
        raise TrialError(f"of four charts and three files there are {charts} and {exports}", log)
    with psycopg.connect(database.get_secret_value()) as connection:
        query = (
            "SELECT (SELECT count(*) FROM masto.toots_raw),"
            " (SELECT count(*) FROM masto.toots_sentiment WHERE label_str IS NOT NULL)"
        )
        stored, labelled = connection.execute(query).fetchone() or (0, 0)
    if not labelled:
        raise TrialError("no toot has a label", log)
    _say(
        f"the sensor's refresh drew {len(charts)} charts and {len(exports)} files of {stored:,}"
        f" toots, {labelled:,} of them labelled, {time.monotonic() - started:.1f} s after that"
    )


def _look_at_pages() -> None:
    for name, port in PAGES.items():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
            if answer.status != 200:
                raise TrialError(f"the page of {name} answers {answer.status}")
    master = _read_json("http://127.0.0.1:8080/json/")
    if master["aliveworkers"] != 2:
        raise TrialError(f"of two Spark workers {master['aliveworkers']} are alive")
    applications = [*master["activeapps"], *master["completedapps"]]
    _say(
        f"pages answer: {', '.join(PAGES)}; two Spark workers ran {len(applications)} applications"
    )


def _ask_doctor(trial: Trial) -> None:
    """As `docker compose exec code mastodon-assets doctor`."""
    asked = _in_code(trial, "doctor")
    findings = asked.stdout.splitlines()
    if asked.returncode != 0:
        raise TrialError("; ".join(line for line in findings if not line.startswith("green")))
    _say(f"the doctor looked at {len(findings)} things and found nothing that does not work")


def _back_up(trial: Trial) -> None:
    """As `docker compose exec code mastodon-assets backup`, while everything runs."""
    made = _in_code(trial, "backup", "--json")
    if made.returncode != 0:
        raise TrialError("the backup failed")
    manifest = json.loads(made.stdout)
    _say(
        f"a backup of {manifest['rows']['toots_raw']:,} posts and {len(manifest['models'])} model"
        f" has {manifest['bytes'] / 2**20:.1f} MiB"
    )


def _in_code(trial: Trial, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """A command in the container of the code location; its errors are shown."""
    code = next(running for running in trial.running if running.name == "code")
    return subprocess.run(
        code.command(["mastodon-assets", *arguments]), stdout=subprocess.PIPE, text=True
    )


def _read_json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310
        return json.load(answer)


def _processes_that_show(secrets: Mapping[str, str]) -> list[str]:
    """Those with one of the generated passwords among their arguments."""
    shown = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            arguments = "\0".join(process.cmdline()).encode()
            if any(value in arguments for value in _values(secrets)):
                shown.append(f"process {process.pid}")
    return shown


def _files_that_show(folder: Path, secrets: Mapping[str, str]) -> list[str]:
    """Files with one of them: logs of services, servers and executors, output of runs, volumes,
    variables of containers.
    """
    places = [
        *(folder / "logs", folder / "volumes", folder / "stack/postgres/server.log"),
        *(folder / "containers").glob("*/volume-*"),
        *(folder / "containers").glob("*/tmpfs-*"),
        *(folder / "containers").glob("*/environment"),
    ]
    below = (path for place in places for path in (place, *place.rglob("*")))
    contents = ((path, path.read_bytes()) for path in below if path.is_file())
    return [str(path) for path, content in contents if any(v in content for v in _values(secrets))]


def _values(secrets: Mapping[str, str]) -> list[bytes]:
    return [value.encode() for value in secrets.values()]


def _written(trial: Trial) -> list[str]:
    """What was written into the root file system, where a read-only one would have refused."""
    root = trial.container.root
    # Made when the container was there and nothing ran in it.
    since = trial.hosts.stat().st_ctime
    # Places at which Buildah mounts something.
    mounted = {"run/environment", "run/.containerenv", "etc/hosts", "etc/resolv.conf"}
    paths = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    written = (path for path in paths if path.stat().st_ctime > since)
    names = (path.relative_to(root).as_posix() for path in written)
    return [name for name in names if name not in mounted and not name.startswith("run/secrets/")]


def _check_image(buildah: Buildah) -> None:
    """What must not be in it: secrets that lay about, and what builds. Raises: TrialError."""
    container = Container(buildah)
    try:
        _say(f"image size: {container.size_bytes() / 1e9:.2f} GB")
        found = subprocess.run(
            ["grep", "-rlFs", _PLANTED, str(container.root)], stdout=subprocess.PIPE, text=True
        ).stdout.split()
        for folder in ("usr/bin", "usr/local/bin", "opt/mastodon_assets/venv/bin"):
            paths = [container.root / folder / name for name in _BUILDERS]
            # Links lead out of the image; here they count as what they are.
            found += [str(path) for path in paths if os.path.lexists(path)]
    finally:
        container.remove()
    if _PLANTED in buildah.ask("inspect", "--type", "image", IMAGE):
        found.append("its description")
    if found:
        raise TrialError(f"the image holds what must not be there: {', '.join(found[:10])}")
    _say("the image holds no planted secret, no compiler and no installer")


def _end(running: Running) -> str | None:
    """Ask the service to end, as Docker does; return its name if it had to be killed."""
    processes = running.processes()
    if processes:
        with suppress(psutil.NoSuchProcess):
            processes[0].send_signal(signal.SIGTERM)
    _, left = psutil.wait_procs(processes, timeout=running.grace_seconds)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    running.process.wait(running.grace_seconds)
    return running.name if left else None


@contextmanager
def _told(what: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    _say(f"{what}: {time.monotonic() - started:.0f} s")


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S', time.gmtime())} {line}", flush=True)


if __name__ == "__main__":
    main()
