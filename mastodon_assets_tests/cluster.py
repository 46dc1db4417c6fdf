"""A standalone Spark cluster on loopback whose workers see nothing of the driver's disk.

What belongs here: a master and two workers as processes, each worker in a mount namespace of its
own: an empty /tmp as scratch folder, its own copy of the package, neither the project's folder nor
the cache with the connectors. One folder is shared, as a mounted volume is.
"""

import os
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

from mastodon_assets.local.artifacts import cache_dir
from mastodon_assets.local.java import java_home
from mastodon_assets.local.processes import accepts_connections
from mastodon_assets.spark_session import connector_jars
from mastodon_assets_tests.ports import free_port

_PROJECT = Path(__file__).parents[1]
_SPARK_CLASS = Path(str(pyspark.__file__)).parent / "bin" / "spark-class"
# $1 the project, $2 the cache, $3 the shared folder; the rest is the command.
_HIDE = """
set -e
mount --bind "$3" /mnt
mount -t tmpfs tmpfs /tmp
mkdir -p /tmp/copy /tmp/scratch "$3"
mount --bind /mnt "$3"
cp -r "$1/mastodon_assets" /tmp/copy/
mount -t tmpfs tmpfs "$1"
mount -t tmpfs tmpfs "$2"
cd /tmp/scratch
shift 3
exec "$@"
"""
_SECONDS = 180
# Both workers have one address: executors would take each other's disk for their own.
SEPARATE_DISKS = {"spark.shuffle.readHostLocalDisk": "false"}


def can_hide_folders() -> bool:
    """Whether this machine lets us give a process a disk of its own (user namespaces)."""
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(["unshare", "-Urm", "true"], capture_output=True)
    return tried.returncode == 0


@contextmanager
def running_cluster(folder: Path, shared: Path, *, workers: int = 2) -> Iterator[str]:
    """`spark://…` of a cluster whose workers have one core each. Logs lie in `folder`.

    The folder `shared` alone is the same on all of them and here.
    """
    port, page = free_port(), free_port()
    environment = {
        **os.environ,
        "JAVA_HOME": str(java_home(cache_dir())),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_MASTER_OPTS": "-Dspark.master.rest.enabled=false",
        "PYTHONPATH": "/tmp/copy",  # noqa: S108 - the worker's own
        "TMPDIR": "/tmp/scratch",  # noqa: S108
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
            worker += ["--webui-port", "0", "--work-dir", "/tmp/scratch/work"]  # noqa: S108
            processes.enter_context(
                _running([*_hidden(shared), *worker, f"spark://127.0.0.1:{port}"], log, environment)
            )
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
        **SEPARATE_DISKS,
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


def _is_registered(log: Path) -> bool:
    return "Successfully registered" in log.read_text(encoding="utf-8", errors="replace")


def _hidden(shared: Path) -> list[str]:
    return [
        "unshare",
        "-Urm",
        "sh",
        "-c",
        _HIDE,
        "sh",
        str(_PROJECT),
        str(cache_dir()),
        str(shared),
    ]


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
