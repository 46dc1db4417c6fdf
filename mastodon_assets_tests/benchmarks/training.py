"""Training benchmark: memory and minutes for a corpus of any size.

    python -m mastodon_assets_tests.benchmarks.training --rows 1600000 --json training.json
    python -m mastodon_assets_tests.benchmarks.training --rows 1600000 --limit-gb 6

The corpus is built from halves of the texts of a smaller one: the first half of one text and the
second half of another of the same class. So words and lengths are real and few texts repeat.

`--limit-gb` puts the training's processes into a memory cgroup of that size; it needs root and
Linux's cgroup v1 or v2. The peak is the largest sum of the proportional set sizes of the training's
processes, sampled each second. PostgreSQL and Kafka run outside the cgroup and are not counted.
"""

import argparse
import csv
import gzip
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from mastodon_assets.config.settings import load_settings
from mastodon_assets.embedded import stack as embedded
from mastodon_assets.warehouse.migrate import migrate
from mastodon_assets_tests.support.shared_data import SHARED_DATA

_CORPUS = SHARED_DATA / "sentiment" / "sentiment140.csv.gz"
_CGROUPS = Path("/sys/fs/cgroup")
_COMMAND = (sys.executable, "-m", "mastodon_assets_tests.benchmarks.training")
# A prime, so that each round pairs other halves.
_STRIDE = 7919


def main() -> None:
    """Measure, or train in the child process."""
    arguments = _arguments()
    if arguments.child:
        _train()
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        corpus = Path(folder) / "corpus.csv"
        write_corpus(arguments.corpus, corpus, arguments.rows)
        home = Path(folder) / "state"
        stack = embedded.up(home, topics=[])
        try:
            result = _measure(Path(folder), corpus, stack.postgres_url, arguments.limit_gb)
        finally:
            embedded.down(home, wipe=True)
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


def write_corpus(source: Path, target: Path, rows: int) -> None:
    """Write `rows` rows in Sentiment140's format, built from halves of the texts in `source`."""
    halves: dict[str, list[tuple[str, str]]] = {"0": [], "4": []}
    with gzip.open(source, "rt", encoding="iso-8859-1", newline="") as file:
        for row in csv.reader(file):
            words = row[5].split(" ")
            middle = (len(words) + 1) // 2
            if row[0] in halves:
                halves[row[0]].append((" ".join(words[:middle]), " ".join(words[middle:])))
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        for number, (label, text) in zip(range(rows), _combined(halves), strict=False):
            writer.writerow([label, str(number), "", "", "", text])


def _combined(halves: dict[str, list[tuple[str, str]]]) -> Iterator[tuple[str, str]]:
    shift = 0
    while True:
        # Classes in turn, so that a few rows have both.
        for place in range(max(map(len, halves.values()))):
            for label, pairs in halves.items():
                if place >= len(pairs):
                    continue
                first, _ = pairs[place]
                second = pairs[(place + shift) % len(pairs)][1]
                yield label, f"{first} {second}".strip()
        shift += _STRIDE


def _measure(
    folder: Path, corpus: Path, postgres_url: str, limit_gb: float | None
) -> dict[str, Any]:
    settings = load_settings(database_url=postgres_url)
    migrate(settings.postgres_url)
    environment = {
        **os.environ,
        "DATABASE_URL": postgres_url,
        "SENTIMENT_CORPUS": str(corpus),
        "MODEL_DIR": str(folder / "models"),
        "SPARK_LOCAL_DIRS": str(folder / "spark"),
    }
    started = time.monotonic()
    with _cgroup(limit_gb) as join:
        child = subprocess.Popen([*_COMMAND, "--child"], env=environment, preexec_fn=join)  # noqa: PLW1509
        with peak_memory(child.pid) as peak:
            exit_status = child.wait()
    return {
        "rows": sum(1 for _ in corpus.open(encoding="utf-8")),
        "exit_status": exit_status,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "peak_gb": round(peak[0] / 2**30, 2),
        "limit_gb": limit_gb,
        "machine_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }


@contextmanager
def peak_memory(process_id: int) -> Iterator[list[int]]:
    """Yield a list whose one number becomes the peak of the process tree, in bytes."""
    peak, ended = [0], threading.Event()

    def sample() -> None:
        while not ended.wait(1):
            peak[0] = max(peak[0], _tree_memory(process_id))

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield peak
    finally:
        ended.set()
        sampler.join()


def _tree_memory(process_id: int) -> int:
    total = 0
    try:
        root = psutil.Process(process_id)
        for process in (root, *root.children(recursive=True)):
            total += process.memory_full_info().pss
    except psutil.Error:
        pass
    return total


@contextmanager
def _cgroup(limit_gb: float | None) -> Iterator[Any]:
    """Yield a function that moves its process into a memory cgroup; None without a limit."""
    if limit_gb is None:
        yield None
        return
    is_v1 = (_CGROUPS / "memory").is_dir()
    group = (_CGROUPS / "memory" if is_v1 else _CGROUPS) / f"training-{os.getpid()}"
    group.mkdir()
    limit = "memory.limit_in_bytes" if is_v1 else "memory.max"
    (group / limit).write_text(str(int(limit_gb * 2**30)))
    try:
        yield lambda: (group / "cgroup.procs").write_text(str(os.getpid()))
    finally:
        # The JVM and its workers end a moment after the process that started them.
        left = (group / "cgroup.procs").read_text(encoding="ascii").split()
        for process_id in map(int, left):
            with suppress(psutil.Error):
                psutil.Process(process_id).wait(60)
        group.rmdir()


def _train() -> None:
    from mastodon_assets.sentiment.train import train
    from mastodon_assets.spark.session import build_session

    settings = load_settings()
    started = time.monotonic()

    def report(line: str) -> None:
        print(f"{time.monotonic() - started:7.1f} s  {line}", flush=True)

    train(lambda: build_session(settings, workload="training"), settings, report)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=_CORPUS)
    parser.add_argument("--rows", type=int, default=1_600_000)
    parser.add_argument("--limit-gb", type=float)
    parser.add_argument("--folder", type=Path, help="where the corpus and Spark's files go")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
