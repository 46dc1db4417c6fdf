"""What a second executor costs: CPU-seconds of executors for the same messages, with one and two.

    python -m mastodon_assets_tests.benchmarks.cluster --messages 1000000 --json cluster.json

Each drain runs on a standalone cluster of its own on loopback, whose workers have one core each and
see nothing of the driver's disk, into a database of its own. CPU time is that of the executors'
processes, those of Python below them included, from the first message to the last. What they took
before is next to it: to start, and to read 200,000 other messages, as each JVM compiles for
itself what it then runs. All of them, the driver and the servers share this machine's cores: the
seconds on the wall show how two cores share that work, not how a cluster scales.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from rich.console import Console
from rich.table import Table

from mastodon_assets.config.settings import load_settings
from mastodon_assets.embedded import stack as embedded
from mastodon_assets.spark.session import ShortLivedSession
from mastodon_assets.stream.drain import drain
from mastodon_assets_tests.benchmarks.drain import _FIRST_TOPIC, _TOPIC, _check, _produce
from mastodon_assets_tests.support.cluster import driver_environment, running_cluster
from mastodon_assets_tests.support.databases import new_database

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_START_SECONDS = 120
_FIRST_MESSAGES = 200_000


@dataclass(frozen=True)
class Run:
    """A drain: seconds on the wall, CPU-seconds of executors and of the driver, JVM and Python."""

    executors: int
    messages: int
    seconds: float
    executor_cpu_seconds: float
    executor_cpu_seconds_before: float
    driver_cpu_seconds: float

    @property
    def cpu_microseconds_a_row(self) -> float:
        return 1e6 * self.executor_cpu_seconds / self.messages


def main() -> None:
    arguments = _arguments()
    if arguments.inside:
        print(json.dumps(asdict(_drain(arguments.inside, arguments.messages))))
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "state"
        stack = embedded.up(home, topics=[_TOPIC, _FIRST_TOPIC, "mastodon_errors"])
        try:
            _produce(stack.kafka_access, _FIRST_MESSAGES, _FIRST_TOPIC)
            _produce(stack.kafka_access, arguments.messages, first=_FIRST_MESSAGES)
            runs = [
                _run(stack, Path(folder) / f"run-{number}", executors, arguments.messages)
                for number, executors in enumerate(arguments.executors)
            ]
        finally:
            embedded.down(home, wipe=True)
    _print(runs)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(run) for run in runs], indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--executors", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--inside", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def _run(stack: embedded.Connection, folder: Path, executors: int, messages: int) -> Run:
    """The drain in a process of its own, as a JVM has one master all its life."""
    (folder / "shared").mkdir(parents=True)
    with (
        new_database(stack) as url,
        running_cluster(folder, folder / "shared", workers=executors) as master,
    ):
        settings = load_settings(
            mastodon_assets_home=folder / "state",
            **stack.kafka_settings,
            database_url=url,
            spark_master=master,
        )
        output = subprocess.run(
            [
                *(sys.executable, "-m", __spec__.name),
                *("--inside", str(executors), "--messages", str(messages)),
            ],
            env=driver_environment(settings),
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        ).stdout
        _check(url, _FIRST_MESSAGES + messages)
    return Run(**json.loads(output.splitlines()[-1]))


def _drain(executors: int, messages: int) -> Run:
    settings = load_settings()
    session = ShortLivedSession(settings, _tell)()
    processes = _executors(session, executors)
    drain(lambda: session, settings.model_copy(update={"kafka_topic": _FIRST_TOPIC}), report=_tell)
    driver = psutil.Process()
    at_start, driver_at_start = sum(map(_cpu_seconds, processes)), _cpu_seconds(driver)
    started = time.monotonic()
    drain(lambda: session, settings, report=_tell)
    seconds = time.monotonic() - started
    # Before the session ends, and they with it.
    at_end, driver_at_end = sum(map(_cpu_seconds, processes)), _cpu_seconds(driver)
    session.stop()
    return Run(
        executors, messages, seconds, at_end - at_start, at_start, driver_at_end - driver_at_start
    )


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def _executors(session: "SparkSession", count: int) -> list[psutil.Process]:
    """The processes of this session's executors, once all have come."""
    application = str(session.sparkContext.applicationId)
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        # The driver counts as one.
        if session.sparkContext._jsc.sc().getExecutorMemoryStatus().size() == count + 1:
            return [
                process
                for process in psutil.process_iter(["cmdline"])
                if application in (process.info["cmdline"] or ())
            ]
        time.sleep(0.1)
    raise SystemExit(f"{count} executors did not come within {_START_SECONDS} s")


def _cpu_seconds(process: psutil.Process) -> float:
    """Of the process and all below it, those that have ended included."""
    family = [process, *process.children(recursive=True)]
    return float(sum(sum(member.cpu_times()[:4]) for member in family))


def _print(runs: list[Run]) -> None:
    table = Table(
        *("executors", "wall s", "executors' CPU s", "… before", "CPU µs a row", "of the first"),
        "driver's CPU s",
        box=None,
    )
    for run in runs:
        table.add_row(
            str(run.executors),
            f"{run.seconds:.1f}",
            f"{run.executor_cpu_seconds:.1f}",
            f"{run.executor_cpu_seconds_before:.1f}",
            f"{run.cpu_microseconds_a_row:.1f}",
            f"{run.cpu_microseconds_a_row / runs[0].cpu_microseconds_a_row:.3f}",
            f"{run.driver_cpu_seconds:.1f}",
        )
    console = Console()
    console.print(table)
    console.print(f"load at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
