"""SIGKILL at random under `mastodon-assets run`: the charts become current again by themselves.

    python -m mastodon_assets_tests.benchmarks.live --minutes 60 --json live.json

A simulated server posts and deletes, and one process after another is killed: ingester, stream,
web server, daemon, a Dagster run in flight, the broker, the database. Then the server stops
posting. The exit status is 1 if the charts are not current within two minutes, or if the tables do
not hold exactly the posts that the server still lists.
"""

import argparse
import json
import os
import random
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from rich.console import Console

from mastodon_assets.config.settings import load_settings
from mastodon_assets.errors import PlatformError
from mastodon_assets.ingest.policy.consent import withheld_reason
from mastodon_assets.simulator.chaos import ChaosServer
from mastodon_assets.simulator.server import running
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.commands import PROGRAM
from mastodon_assets_tests.support.ports import free_port
from mastodon_assets_tests.support.running_platform import platform_running

# What the command line of each process has in it.
PARTS = {
    "ingester": "mastodon_assets.cli.main ingest",
    "stream": "mastodon_assets.cli.main stream",
    "web server": "guarded_web_server",
    "daemon": "dagster._daemon",
    "run in flight": "execute_run",
    "broker": "kafka.Kafka",
    "database": "bin/postgres ",
}
_TOKEN = "live"
_SECONDS_TO_START = 300
_SECONDS_TO_BE_CURRENT = 120


@dataclass
class Result:
    """What was killed how often, and what it changed.

    `seconds_to_current` counts from the server's last post, or is null if that was not seen.
    """

    minutes: float
    posts: int
    deletes: int
    kills: dict[str, int]
    runs: dict[str, int]
    seconds_to_current: float | None
    missing: list[str]
    wrongly_kept: list[str]

    @property
    def holds(self) -> bool:
        """Everything is there, and in time."""
        in_time = (
            self.seconds_to_current is not None
            and self.seconds_to_current <= _SECONDS_TO_BE_CURRENT
        )
        return in_time and not self.missing and not self.wrongly_kept


def main() -> None:
    """Run the live mode under kills and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=2, help="posts per second")
    parser.add_argument("--kill-every", type=float, default=30, help="seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = live(
            Path(folder),
            seconds=arguments.minutes * 60,
            rate=arguments.rate,
            kill_seconds=arguments.kill_every,
            seed=arguments.seed,
        )
    shown = asdict(result) | {"holds": result.holds}
    Console().print_json(json.dumps(shown))
    if arguments.json:
        arguments.json.write_text(json.dumps(shown, indent=2))
    raise SystemExit(0 if result.holds else 1)


def live(folder: Path, *, seconds: float, rate: float, kill_seconds: float, seed: int) -> Result:
    """Run the live mode in `folder`, kill for `seconds`, and compare."""
    chaos = ChaosServer(seed=seed, rate=rate, fault_seconds=3600)
    with running(chaos, token=_TOKEN) as server:
        environment = {
            **{name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"},
            "MASTODON_ASSETS_HOME": str(folder / "state"),
            "MASTODON_API_BASE_URL": server.base_url,
            "MASTODON_ACCESS_TOKEN": _TOKEN,
            "REFRESH_MIN_SECONDS": "20",
            "DASHBOARD_PORT": str(free_port()),
        }
        with platform_running(folder, environment):
            _wait_for(lambda: bool(_stored(environment)))
            # The stream does not send what was posted before.
            before = set(chaos.posts)
            kills = _kill(folder, seconds, kill_seconds, random.Random(seed))
            chaos.stop_posting()
            seconds_to_current = _seconds_to_current(environment, folder)
            return _compare(environment, chaos, before, kills, seconds / 60, seconds_to_current)


def _kill(folder: Path, seconds: float, kill_seconds: float, rng: random.Random) -> Counter[str]:
    """Kill a random process now and then; what does not run at the moment is left out."""
    kills: Counter[str] = Counter()
    report = Console(stderr=True)
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, rng.uniform(0.5, 1.5) * kill_seconds))
        part = rng.choice(list(PARTS))
        if (found := _process(part, folder)) is not None:
            found.kill()
            kills[part] += 1
            report.print(f"killed {part}; {max(0, left):.0f} s left")
    return kills


def _process(part: str, folder: Path) -> psutil.Process | None:
    """Return a process of this state folder: the parent, if there are several."""
    found = []
    for process in psutil.process_iter():
        try:
            if PARTS[part] in " ".join(process.cmdline()) and _belongs(process, folder):
                found.append(process)
        except psutil.Error:
            continue
    return min(found, key=lambda each: each.create_time(), default=None)


def _belongs(process: psutil.Process, folder: Path) -> bool:
    home = str(folder / "state")
    in_environment: bool = process.environ().get("MASTODON_ASSETS_HOME") == home
    return in_environment or home in " ".join(process.cmdline())


def _status(environment: dict[str, str], folder: Path) -> dict[str, object]:
    ended = subprocess.run(
        [*PROGRAM, "status", "--json"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    status: dict[str, object] = json.loads(ended.stdout or "{}")
    pipeline = status.get("pipeline")
    return pipeline if isinstance(pipeline, dict) else status


def _wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while not is_so():
        assert time.monotonic() < deadline, "no row arrived"
        time.sleep(2)


def _stored(environment: dict[str, str]) -> set[str]:
    """Return the status ids in the table; none before there is a table."""
    try:
        settings = load_settings(
            _env_file=None, mastodon_assets_home=Path(environment["MASTODON_ASSETS_HOME"])
        )
        with transaction(settings.postgres_url, snapshot=True) as connection:
            rows = connection.execute("SELECT status_id FROM masto.toots_raw").fetchall()
    except PlatformError:
        return set()
    return {status_id for (status_id,) in rows}


def _seconds_to_current(environment: dict[str, str], folder: Path) -> float | None:
    started = time.monotonic()
    while time.monotonic() - started < 5 * _SECONDS_TO_BE_CURRENT:
        if _status(environment, folder).get("charts_are_current"):
            return round(time.monotonic() - started, 1)
        time.sleep(1)
    return None


def _compare(
    environment: dict[str, str],
    chaos: ChaosServer,
    before: set[str],
    kills: Counter[str],
    minutes: float,
    seconds_to_current: float | None,
) -> Result:
    stored = _stored(environment)
    wanted = {
        status_id
        for status_id, status in chaos.posts.items()
        if withheld_reason(status, policy="respect") is None
    }
    return Result(
        minutes=minutes,
        posts=len(wanted),
        deletes=len(chaos.deleted & wanted),
        kills=dict(kills),
        runs=_runs(environment),
        seconds_to_current=seconds_to_current,
        missing=sorted(wanted - before - chaos.deleted - stored),
        wrongly_kept=sorted(stored & chaos.deleted),
    )


def _runs(environment: dict[str, str]) -> dict[str, int]:
    """Count Dagster's runs by status."""
    import dagster as dg

    home = Path(environment["MASTODON_ASSETS_HOME"]) / "dagster"
    with dg.DagsterInstance.from_config(str(home)) as instance:
        return dict(Counter(run.status.value for run in instance.get_runs()))


if __name__ == "__main__":
    main()
