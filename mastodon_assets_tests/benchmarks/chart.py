"""How long a message takes from Kafka to the charts that show it, by the sensor.

    python -m mastodon_assets_tests.benchmarks.chart --messages 6 --json chart.json

`mastodon-assets run` reads a simulated server in a state folder of its own, with a trained model.
Then single messages come into Kafka, each when the charts show all before it and the time
REFRESH_MIN_SECONDS is over, at another moment between two ticks of the sensor. The parts are:

    row        the stream writes the post into its table
    requested  the sensor notices it and requests a refresh
    started    the process of the run has loaded the program
    chart      the first chart with the post is written
    all        the run has ended: every table, check and chart is up to date
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
from rich.console import Console
from rich.table import Table

from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.embedded import stack as embedded
from mastodon_assets.errors import PlatformError
from mastodon_assets.kafka.client import client_config
from mastodon_assets.orchestration.dagster_home import dagster_home
from mastodon_assets.orchestration.jobs import refresh_job
from mastodon_assets.orchestration.refresh_state import shown_state
from mastodon_assets.orchestration.web_server import DEFINITIONS
from mastodon_assets.simulator.server import running, synthetic_source
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.benchmarks.refresh import run_dagster
from mastodon_assets_tests.support.commands import PROGRAM
from mastodon_assets_tests.support.ports import free_port
from mastodon_assets_tests.support.records import as_value, upsert
from mastodon_assets_tests.support.running_platform import platform_running

_CHART = "part5_toots_per_day.png"
_PARTS = ("row", "requested", "started", "chart", "all")
_SECONDS_OF_A_TICK = 15
_PATIENCE_SECONDS = 300


def main() -> None:
    """Measure, and print a line per part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=6)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            taken = _measure(Path(folder), arguments.messages)
        finally:
            # `run` leaves servers alone that `up` has started.
            embedded.down(Path(folder) / "state", wipe=True)
    table = Table("until", "median s", "shortest", "longest", "of it this part", box=None)
    before = 0.0
    for part in _PARTS:
        seconds = [each[part] for each in taken]
        middle = statistics.median(seconds)
        numbers = (middle, min(seconds), max(seconds), middle - before)
        table.add_row(part, *(f"{number:.1f}" for number in numbers))
        before = middle
    Console().print(table)
    if arguments.json:
        document = {"seconds": taken, "load": os.getloadavg()[0]}
        arguments.json.write_text(json.dumps(document, indent=2))


def _measure(folder: Path, messages: int) -> list[dict[str, float]]:
    """Return seconds since Kafka's acknowledgement for each part and message."""
    with running(synthetic_source(toots=500, days=3, seed=1)) as server:
        environment = {
            **{name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"},
            "MASTODON_ASSETS_HOME": str(folder / "state"),
            "MASTODON_API_BASE_URL": server.base_url,
            "MASTODON_ACCESS_TOKEN": server.token,
            "REPORTS_DIR": str(folder / "reports"),
            "DASHBOARD_PORT": str(free_port()),
        }
        subprocess.run([*PROGRAM, "up"], cwd=folder, env=environment, check=True)
        settings = load_settings(_env_file=None, mastodon_assets_home=folder / "state")
        home = dagster_home(folder / "state")
        train = ["asset", "materialize", "--select", "group:model", *DEFINITIONS]
        run_dagster(train, {**environment, "DAGSTER_HOME": str(home)})
        with (
            platform_running(folder, environment),
            dg.DagsterInstance.from_config(str(home)) as instance,
        ):
            _wait_until(lambda: _is_current(settings) and _last_refresh(instance) is not None)
            return [
                _measure_one(settings, instance, folder / "reports" / _CHART, number, messages)
                for number in range(messages)
            ]


def _measure_one(
    settings: Settings, instance: dg.DagsterInstance, chart: Path, number: int, messages: int
) -> dict[str, float]:
    _wait_until(lambda: _is_current(settings))
    last = _last_refresh(instance)
    assert last is not None
    due = last.create_timestamp.timestamp() + settings.refresh_min_seconds
    time.sleep(max(0.0, due - time.time()) + number * _SECONDS_OF_A_TICK / messages)
    sent = _publish(settings, f"chart-{number}")
    _wait_until(lambda: _is_stored(settings, f"chart-{number}"))
    seconds = {"row": time.time() - sent}

    run = _refresh_after(instance, sent)
    seconds |= {
        "requested": run.create_timestamp.timestamp() - sent,
        "started": (run.start_time or 0.0) - sent,
        "chart": chart.stat().st_mtime - sent,
        "all": (run.end_time or 0.0) - sent,
    }
    assert seconds["chart"] > 0, "the chart was not drawn again"
    sys.stdout.write(" ".join(f"{part} {seconds[part]:.1f}" for part in _PARTS) + "\n")
    sys.stdout.flush()
    return {part: round(value, 2) for part, value in seconds.items()}


def _refresh_after(instance: dg.DagsterInstance, sent: float) -> dg.RunRecord:
    """Wait for the end of the refresh that was requested after a time."""
    ended: list[dg.RunRecord] = []

    def has_ended() -> bool:
        last = _last_refresh(instance)
        if last and last.end_time and last.create_timestamp.timestamp() > sent:
            ended.append(last)
        return bool(ended)

    _wait_until(has_ended)
    return ended[0]


def _publish(settings: Settings, name: str) -> float:
    """Publish a post of this moment; return the time of Kafka's acknowledgement."""
    from confluent_kafka import Producer

    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.000Z}"
    message = upsert(
        name,
        created_at=now,
        received_at=now,
        uri=f"https://other.example/users/ada/statuses/{name}",
        content="a good day in the garden, and a train that was not late",
    )
    producer = Producer({**client_config(settings), "acks": "all"})
    producer.produce(settings.kafka_topic, as_value(message))
    assert producer.flush(60) == 0
    return time.time()


def _is_stored(settings: Settings, name: str) -> bool:
    with transaction(settings.postgres_url, snapshot=True) as connection:
        found = connection.execute(
            "SELECT FROM masto.toots_raw WHERE status_id = %s", (name,)
        ).fetchone()
    return found is not None


def _is_current(settings: Settings) -> bool:
    try:
        shown = shown_state(settings)
    except PlatformError:
        return False
    return 0 < shown.toots_version == shown.shown_version


def _last_refresh(instance: dg.DagsterInstance) -> dg.RunRecord | None:
    records = instance.get_run_records(dg.RunsFilter(job_name=refresh_job.name), limit=1)
    return records[0] if records else None


def _wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "waited for nothing"
        time.sleep(0.1)


if __name__ == "__main__":
    main()
