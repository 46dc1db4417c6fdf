"""How long a message takes from Kafka's acknowledgement to a row that others see.

    python -m mastodon_assets_tests.benchmarks.latency --seconds 60 --rate 50 --json latency.json

`mastodon-assets stream` runs as an operator runs it; another connection asks for new rows all the
time, and its own delay counts. The first seconds, in which Spark compiles, are left out.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from mastodon_assets.config.settings import Settings, as_environment, load_settings
from mastodon_assets.embedded import stack as embedded
from mastodon_assets.kafka.client import client_config
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.benchmarks.machine import machine
from mastodon_assets_tests.support.databases import new_database
from mastodon_assets_tests.support.records import as_value, upsert

_TOPIC = "mastodon_stream"
_POLL_SECONDS = 0.02
_PATIENCE_SECONDS = 180
# More than come between two looks. New rows stand last in a table without deletes and edits.
_NEWEST = 1_000


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "state"
        stack = embedded.up(home, topics=[_TOPIC, "mastodon_errors"])
        try:
            with new_database(stack) as url:
                settings = load_settings(
                    mastodon_assets_home=home,
                    **stack.kafka_settings,
                    database_url=url,
                )
                facts = machine(url)
                delays = _measure(settings, arguments.seconds, arguments.rate, arguments.warm_up)
        finally:
            embedded.down(home, wipe=True)
    result = {"rate": arguments.rate, "messages": len(delays), "load": round(os.getloadavg()[0], 2)}
    for percent in (50, 90, 99, 100):
        result[f"p{percent}"] = round(delays[min(len(delays) - 1, len(delays) * percent // 100)], 3)
    table = Table(*result, box=None)
    table.add_row(*map(str, result.values()))
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": facts, **result}, indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--warm-up", type=float, default=20, help="seconds that do not count")
    parser.add_argument("--rate", type=float, default=50, help="messages per second")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _measure(settings: Settings, seconds: float, rate: float, warm_up: float) -> list[float]:
    """Seconds from acknowledgement to visibility, sorted."""
    acknowledged: dict[str, float] = {}
    seen: dict[str, float] = {}
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(settings.postgres_url, seen, ended))
    watcher.start()
    with stream_at_work(settings):
        try:
            _send(settings, ["first"], acknowledged, pause=0)
            _wait(lambda: "first" in seen)
            started = time.monotonic()
            names = [str(number) for number in range(int((seconds + warm_up) * rate))]
            _send(settings, names, acknowledged, pause=1 / rate)
            _wait(lambda: len(seen) == len(names) + 1)
        finally:
            ended.set()
            watcher.join()
    counted = [name for name in names if acknowledged[name] >= started + warm_up]
    return sorted(seen[name] - acknowledged[name] for name in counted)


@contextmanager
def stream_at_work(settings: Settings) -> Iterator[None]:
    """Run `mastodon-assets stream` until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mastodon_assets.cli.main", "stream"],
        env={**os.environ, **as_environment(settings)},
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _send(
    settings: Settings, names: list[str], acknowledged: dict[str, float], *, pause: float
) -> None:
    from confluent_kafka import Producer

    producer = Producer({**client_config(settings), "acks": "all"})
    due = time.monotonic()
    for name in names:

        def note(_error: object, _message: object, name: str = name) -> None:
            acknowledged[name] = time.monotonic()

        producer.produce(_TOPIC, as_value(upsert(name)), on_delivery=note)
        due += pause
        producer.poll(max(0.0, due - time.monotonic()))
        time.sleep(max(0.0, due - time.monotonic()))
    assert producer.flush(60) == 0


def _watch(postgres_url: SecretStr, seen: dict[str, float], ended: threading.Event) -> None:
    with transaction(postgres_url) as connection:
        connection.autocommit = True
        while not ended.wait(_POLL_SECONDS):
            rows = connection.execute(
                "SELECT status_id FROM masto.toots_raw ORDER BY ctid DESC LIMIT %s", (_NEWEST,)
            ).fetchall()
            now = time.monotonic()
            for (name,) in rows:
                seen.setdefault(name, now)


def _wait(is_done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not is_done():
        assert time.monotonic() < deadline, "the stream does not keep up"
        time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    main()
