"""A standalone Spark cluster on loopback whose workers see nothing of the driver's disk.

What belongs here: a master and two workers as processes, each worker in a mount namespace of its
own: an empty /tmp as scratch folder, its own copy of the package, neither the project's folder nor
the cache with the connectors. What it keeps is what another machine would have installed, Java and
the Python environment, wherever they lie; one folder is shared, as a mounted volume is.
"""

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import pyspark

from mastodon_assets.config.settings import Settings, as_environment
from mastodon_assets.embedded.processes import accepts_connections
from mastodon_assets.jvm.java import java_home
from mastodon_assets.jvm.maven import cache_dir
from mastodon_assets.spark.session import connector_jars
from mastodon_assets_tests.support.java import QUICK_JVM
from mastodon_assets_tests.support.ports import free_port

PROJECT = Path(__file__).parents[2]
_SPARK_CLASS = Path(str(pyspark.__file__)).parent / "bin" / "spark-class"
# In a worker's namespace: its copy of the package, where it starts, and what it keeps.
_OWN = Path("/mnt")
_TEMPORARY = Path("/tmp")  # noqa: S108
_SECONDS = 180
# Both workers have one address: executors would take each other's disk for their own.
_SEPARATE_DISKS = {"spark.shuffle.readHostLocalDisk": "false"}


def can_hide_folders() -> bool:
    """Whether this machine lets us give a process a disk of its own (user namespaces)."""
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(["unshare", "-Urm", "true"], capture_output=True)
    return tried.returncode == 0


def on_its_own_disk(command: Sequence[str], project: Path, kept: Sequence[Path]) -> list[str]:
    """The command that runs `command` where the project, the cache and /tmp are empty.

    The folders of `kept` are there nevertheless, also where they lie in one of those; the package
    is where PYTHONPATH, set to /mnt, finds it.
    """
    places = {folder: _OWN / f"kept-{number}" for number, folder in enumerate(kept)}
    steps = [
        "set -e",
        f"mount -t tmpfs tmpfs {_OWN}",
        *(_mount("--rbind", folder, place) for folder, place in places.items()),
        f"cp -r {shlex.quote(str(project / 'mastodon_assets'))} {_OWN}",
        *(_mount("-t", "tmpfs", "tmpfs", folder) for folder in (_TEMPORARY, project, cache_dir())),
        *(_mount("--rbind", place, folder) for folder, place in places.items()),
        f"cd {_OWN}",
        'exec "$@"',
    ]
    return ["unshare", "-Urm", "sh", "-c", "\n".join(steps), "sh", *command]


def _mount(*arguments: str | Path) -> str:
    """A line of shell that mounts; the last argument is where, made if it is not there."""
    where = shlex.quote(str(arguments[-1]))
    return f"mkdir -p {where}; mount {shlex.join(map(str, arguments))}"


@contextmanager
def running_cluster(folder: Path, shared: Path, *, workers: int = 2) -> Iterator[str]:
    """`spark://…` of a cluster whose workers have one core each. Logs lie in `folder`.

    The folder `shared` alone is the same on all of them and here.
    """
    port, page = free_port(), free_port()
    java = java_home(cache_dir())
    environment = {
        **os.environ,
        "JAVA_HOME": str(java),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_MASTER_OPTS": "-Dspark.master.rest.enabled=false",
        "PYTHONPATH": str(_OWN),
        "TMPDIR": str(_TEMPORARY),
    }
    with ExitStack() as processes:
        master = [str(_SPARK_CLASS), "org.apache.spark.deploy.master.Master"]
        master += ["--host", "127.0.0.1", "--port", str(port), "--webui-port", str(page)]
        processes.enter_context(_running(master, folder / "master.log", environment, cwd=folder))
        _wait(lambda: accepts_connections(port), folder / "master.log")
        logs = [folder / f"worker_{number}.log" for number in range(workers)]
        for log in logs:
            worker = [str(_SPARK_CLASS), "org.apache.spark.deploy.worker.Worker"]
            worker += ["--cores", "1", "--memory", "1g", "--host", "127.0.0.1"]
            worker += ["--webui-port", "0", "--work-dir", str(_TEMPORARY / "work")]
            worker += [f"spark://127.0.0.1:{port}"]
            apart = on_its_own_disk(worker, PROJECT, kept=[shared, Path(sys.prefix), java])
            processes.enter_context(_running(apart, log, environment))
        for log in logs:
            _wait(partial(_is_registered, log), log)
        yield f"spark://127.0.0.1:{port}"


@contextmanager
def running_connect_server(folder: Path, master: str) -> Iterator[str]:
    """`sc://…` of a server of Spark Connect that works on the cluster. Its log lies in `folder`."""
    port = free_port()
    log = folder / "connect.log"
    configuration = {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
        "spark.ui.enabled": "false",
        "spark.executor.memory": "512m",
        "spark.executor.extraJavaOptions": QUICK_JVM,
        **_SEPARATE_DISKS,
    }
    command = [str(_SPARK_CLASS), "org.apache.spark.deploy.SparkSubmit", "--master", master]
    command += ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer"]
    command += ["--jars", ",".join(str(jar) for jar in connector_jars())]
    for name, value in configuration.items():
        command += ["--conf", f"{name}={value}"]
    environment = {
        **os.environ,
        "JAVA_HOME": str(java_home(cache_dir())),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": sys.executable,
    }
    with _running([*command, "spark-internal"], log, environment, cwd=folder):
        _wait(lambda: accepts_connections(port), log)
        yield f"sc://127.0.0.1:{port}"


def driver_environment(settings: Settings) -> dict[str, str]:
    """The variables of a process that has `settings` and works on the cluster."""
    folder = settings.mastodon_assets_home / "spark"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spark-defaults.conf").write_text(
        "".join(f"{name} {value}\n" for name, value in _SEPARATE_DISKS.items())
    )
    return {
        **os.environ,
        # The tests' modules; the package itself is installed.
        "PYTHONPATH": str(PROJECT),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_EXECUTOR_MEMORY": "512m",
        "SPARK_CONF_DIR": str(folder),
        **as_environment(settings),
    }


def _is_registered(log: Path) -> bool:
    return "Successfully registered" in log.read_text(encoding="utf-8", errors="replace")


@contextmanager
def _running(
    command: Sequence[str], log: Path, environment: dict[str, str], cwd: Path | None = None
) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield
    finally:
        # A worker's executors are its children, in its namespace.
        family = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        try:
            process.wait(30)
        finally:
            for member in family:
                with suppress(psutil.NoSuchProcess):
                    member.kill()
            process.kill()
            process.wait()


def _wait(is_ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + _SECONDS
    while not is_ready():
        assert time.monotonic() < deadline, log.read_text(errors="replace")[-2000:]
        time.sleep(0.2)
