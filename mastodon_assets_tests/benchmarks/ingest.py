"""Read N posts from a server that sends as fast as it is read, until Kafka has acknowledged all.

    python -m mastodon_assets_tests.benchmarks.ingest --posts 1000000 --json ingest.json
    python -m mastodon_assets_tests.benchmarks.ingest --posts 60000 --server-rate 2000

*ours* is `mastodon-assets ingest --max N`. *baseline* is Mastodon.py's `stream_public` with the
same handler: the same consent, normalising, contract and publisher. Both read `firehose`, one after
the other, each from a process of its own; the broker and the server share the machine with them.
The time runs from the request of the stream until the process has ended with everything
acknowledged. With `--server-rate` both also read a server that sends no more posts per second than
that: a real Mastodon's streaming server was seen to send 1,600 to 2,100 to one reader.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from mastodon_assets.config.settings import Settings, as_environment, load_settings
from mastodon_assets.embedded import stack as embedded
from mastodon_assets.kafka.topics import read_topic
from mastodon_assets_tests.support.databases import new_database

_SAMPLE_SECONDS = 0.2
_MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class _Run:
    """Memory is the process's resident set, at the first and last tenth of the run, and its most.

    `server_share` is how much of one core the server used: at 1 it would be the bottleneck.
    """

    posts: int
    seconds: float
    posts_a_second: float
    cpu_seconds: float
    early_megabytes: float
    late_megabytes: float
    most_megabytes: float
    server_share: float


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "state"
        stack = embedded.up(home, topics=["mastodon_stream", "mastodon_errors"])
        try:
            with new_database(stack) as url:
                settings = load_settings(
                    **stack.kafka_settings,
                    database_url=url,
                    mastodon_assets_home=home,
                )
                rates = [0.0, arguments.server_rate] if arguments.server_rate else [0.0]
                runs = {rate: _compare(settings, arguments, rate) for rate in rates}
        finally:
            embedded.down(home, wipe=True)
    for rate, measured in runs.items():
        _print(rate, measured)
    if arguments.json:
        result = {
            str(rate): {name: asdict(run) for name, run in measured.items()}
            for rate, measured in runs.items()
        }
        arguments.json.write_text(json.dumps(result, indent=2))


def _compare(settings: Settings, arguments: argparse.Namespace, rate: float) -> dict[str, _Run]:
    """Measure both readers at a server of `rate` posts per second; 0 is no limit."""
    ours, baseline = (
        (arguments.posts, "mastodon_assets.cli.main", "ingest", "--max"),
        (
            arguments.baseline_posts,
            "mastodon_assets_tests.benchmarks.ingest_baseline",
            "--max",
        ),
    )
    return {
        "ours": _measure(settings, rate, *ours),
        "baseline": _measure(settings, rate, *baseline),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posts", type=int, default=200_000)
    parser.add_argument("--baseline-posts", type=int, default=3_000)
    parser.add_argument("--server-rate", type=float, default=0, help="posts per second")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _measure(settings: Settings, rate: float, posts: int, module: str, *arguments: str) -> _Run:
    before = _messages(settings)
    with _firehose(rate) as (server, port):
        named = settings.model_copy(update={"mastodon_api_base_url": f"http://127.0.0.1:{port}"})
        environment = {
            **os.environ,
            **as_environment(named),
            "MASTODON_ACCESS_TOKEN": "firehose",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments, str(posts)],
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        asked_at = json.loads(_line(server))["asked_at"]
        cpu_before = _cpu_seconds(server.pid)
        samples, cpu = _watch(process)
        seconds = time.time() - asked_at
        server_cpu = _cpu_seconds(server.pid) - cpu_before
    if process.returncode != 0:
        raise SystemExit(f"{module} failed")
    published = _messages(settings) - before
    if published != posts:
        raise SystemExit(f"{module}: {published} messages in Kafka of {posts} posts")
    tenth = max(1, len(samples) // 10)
    return _Run(
        posts=posts,
        seconds=seconds,
        posts_a_second=posts / seconds,
        cpu_seconds=cpu,
        early_megabytes=_mean(samples[tenth : 2 * tenth] or samples),
        late_megabytes=_mean(samples[-tenth:]),
        most_megabytes=max(samples),
        server_share=server_cpu / seconds,
    )


def _messages(settings: Settings) -> int:
    return sum(read_topic(settings, settings.kafka_topic).end.values())


@contextmanager
def _firehose(rate: float) -> "Iterator[tuple[subprocess.Popen[str], int]]":
    process = subprocess.Popen(
        [sys.executable, "-m", "mastodon_assets_tests.benchmarks.firehose", str(rate)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process, json.loads(_line(process))["port"]
    finally:
        process.terminate()
        process.wait()


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _watch(process: "subprocess.Popen[bytes]") -> tuple[list[float], float]:
    """Megabytes of the process now and then until it ends, and the CPU seconds it took."""
    samples: list[float] = []
    cpu = 0.0
    watched_suppression_list = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            samples.append(watched_suppression_list.memory_info().rss / _MEGABYTE)
            cpu = _cpu_seconds(process.pid)
        except psutil.NoSuchProcess:
            break
        time.sleep(_SAMPLE_SECONDS)
    process.wait()
    return samples, cpu


def _cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _print(rate: float, runs: dict[str, _Run]) -> None:
    server = f"server of {rate:,.0f} posts/s" if rate else "unlimited server"
    table = Table(server, *runs, "times the baseline", box=None)
    names: list[tuple[str, str]] = [
        ("posts", "posts"),
        ("seconds", "seconds"),
        ("posts_a_second", "posts/s"),
        ("cpu_seconds", "CPU seconds"),
        ("early_megabytes", "MB early"),
        ("late_megabytes", "MB late"),
        ("most_megabytes", "MB at most"),
        ("server_share", "server's share of a core"),
    ]
    for name, title in names:
        values: list[Any] = [getattr(run, name) for run in runs.values()]
        ratio = f"{values[0] / values[1]:.1f}" if name == "posts_a_second" else ""
        table.add_row(title, *(f"{value:,.2f}" for value in values), ratio)
    Console().print(table)


if __name__ == "__main__":
    main()
