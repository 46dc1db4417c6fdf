"""`mastodon-assets demo`: the whole lineage on this machine, from a simulated toot to a chart.

What belongs here: putting the parts together for a newcomer. It uses the embedded stack only,
whatever environment and `.env` say of Kafka, PostgreSQL and Mastodon.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from mastodon_assets.errors import PlatformError, SettingsError
from mastodon_assets.local import stack
from mastodon_assets.local.dagster_home import dagster_home
from mastodon_assets.settings import Settings, as_environment, load_settings

if TYPE_CHECKING:
    from mastodon_assets.mastodon.intake import IngestSummary

# Marks a state folder as a demo's: only such a one is wiped by the next demo.
_MARKER = "demo"
_LOG = "demo-materialize.log"
_MATERIALIZE_TIMEOUT = 1800

Report = Callable[[str], None]


@dataclass
class DemoResult:
    """What a demo made: rows a table, files, and the seconds of each step."""

    ingested: "IngestSummary"
    rows: Mapping[str, int]
    charts: list[Path]
    exports: list[Path]
    champion: str
    seconds: dict[str, float] = field(default_factory=dict)


class DemoFolderError(SettingsError):
    """The state folder holds something that no demo made."""


class MaterializeError(PlatformError):
    """An asset failed; the message names it, the cause and the log."""


def run_demo(
    *, toots: int, days: int, seed: int, from_file: Path | None, keep: bool, report: Report
) -> DemoResult:
    """Run it; the stack is stopped at the end unless `keep`.

    Raises: DemoFolderError, MaterializeError, and what the parts raise.
    """
    home = load_settings_of_demo().mastodon_assets_home
    prepare_folder(home, report)
    seconds: dict[str, float] = {}
    try:
        with _timed(seconds, "embedded stack"):
            settings = _start_stack(home, report)
        with _timed(seconds, "toots to Kafka"):
            ingested = _ingest(settings, toots, days, seed, from_file, report)
        with _timed(seconds, "assets"):
            materialize_all(settings, report)
        rows = _table_rows(settings.postgres_url)
        champion = _champion_corpus(settings.postgres_url)
    finally:
        if not keep:
            report("stopping the embedded stack")
            stack.down(home)
    return DemoResult(
        ingested=ingested,
        rows=rows,
        charts=sorted(settings.reports_dir.absolute().glob("part5_*.png")),
        exports=sorted(settings.exports_dir.absolute().glob("viz_*.csv")),
        champion=champion,
        seconds=seconds,
    )


def load_settings_of_demo(**overrides: Any) -> Settings:
    """The settings without what environment and `.env` say of Kafka, PostgreSQL and Mastodon."""
    ignored: dict[str, Any] = {
        name: field.default
        for name, field in Settings.model_fields.items()
        if name.startswith(("kafka_", "database_", "mastodon_")) and name != "mastodon_assets_home"
    }
    return load_settings(**{**ignored, **overrides})


def prepare_folder(home: Path, report: Report) -> None:
    """Wipe what an earlier demo left and mark the folder as a demo's.

    Raises: DemoFolderError where the folder holds anything else.
    """
    if home.exists() and any(home.iterdir()):
        if not (home / _MARKER).exists():
            raise DemoFolderError(
                f"MASTODON_ASSETS_HOME={home} holds something that no demo made; choose another"
                " folder for the demo"
            )
        report(f"wiping what an earlier demo left in {home}")
        stack.down(home, wipe=True)
        _remove_runs(home)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    (home / _MARKER).touch()


def materialize_all(settings: Settings, report: Report) -> None:
    """Materialize every asset in a process of its own, telling each as it is done.

    It runs in the state folder, where no `.env` can put in what the demo ignores, and its output
    goes to a log there. Raises: MaterializeError.
    """
    home = settings.mastodon_assets_home.absolute()
    runs = dagster_home(home)
    log = home / _LOG
    command = [sys.executable, "-m", "dagster", "asset", "materialize"]
    command += ["--select", "*", "-m", "mastodon_assets.definitions"]
    environment = {**os.environ, **as_environment(settings), "DAGSTER_HOME": str(runs)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=home, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            failure = _follow(process, runs, report)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=60)
    if process.returncode != 0:
        raise MaterializeError(f"{failure or 'the run did not start'}; see {log}")


def _start_stack(home: Path, report: Report) -> Settings:
    from mastodon_assets.warehouse.migrate import migrate

    settings = load_settings_of_demo()
    connection = stack.up(
        home, topics=[settings.kafka_topic, settings.kafka_errors_topic], report=report
    )
    migrate(SecretStr(connection.postgres_url))
    return load_settings_of_demo(
        kafka_bootstrap_servers=connection.kafka_bootstrap_servers,
        database_url=connection.postgres_url,
    )


def _ingest(
    settings: Settings,
    toots: int,
    days: int,
    seed: int,
    from_file: Path | None,
    report: Report,
) -> "IngestSummary":
    from mastodon_assets.mastodon.ingest import ingest
    from mastodon_assets.simulator.recorded import RecordedSource, read_statuses
    from mastodon_assets.simulator.server import running, synthetic_source

    source = (
        RecordedSource(read_statuses(from_file))
        if from_file
        else synthetic_source(toots=toots, days=days, seed=seed)
    )
    with running(source) as server:
        report(f"a simulated server answers at {server.base_url}")
        return ingest(
            settings.model_copy(
                update={
                    "mastodon_api_base_url": server.base_url,
                    "mastodon_access_token": SecretStr(server.token),
                }
            ),
            max_events=None,
            until_caught_up=True,
            report=report,
            should_stop=lambda: False,
        )


def _follow(process: "subprocess.Popen[bytes]", runs: Path, report: Report) -> str | None:
    """Report each materialized asset until the process ends; the first failure, if any."""
    import dagster as dg

    materialized: set[str] = set()
    deadline = time.monotonic() + _MATERIALIZE_TIMEOUT
    with dg.DagsterInstance.from_config(str(runs)) as instance:
        while True:
            is_over = process.poll() is not None
            run = next(iter(instance.get_runs(limit=1)), None)
            if run is not None:
                for name in _materialized(instance, run.run_id):
                    if name not in materialized:
                        materialized.add(name)
                        report(f"materialized {name}")
            if is_over:
                return _first_failure(instance, run.run_id) if run is not None else None
            if time.monotonic() > deadline:
                return f"not done after {_MATERIALIZE_TIMEOUT} s"
            time.sleep(0.5)


def _materialized(instance: Any, run_id: str) -> Iterator[str]:
    import dagster as dg

    for record in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        yield record.dagster_event.asset_key.to_user_string()


def _first_failure(instance: Any, run_id: str) -> str | None:
    import dagster as dg

    for record in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        error = record.dagster_event.step_failure_data.error
        cause = error.cause or error
        return f"{record.dagster_event.step_key}: {cause.message.strip().splitlines()[0]}"
    return None


def _table_rows(postgres_url: SecretStr) -> dict[str, int]:
    from mastodon_assets.warehouse.database import count_rows, transaction
    from mastodon_assets.warehouse.registry import TABLES

    with transaction(postgres_url, snapshot=True) as connection:
        return {name: count_rows(connection, table) for name, table in TABLES.items()}


def _champion_corpus(postgres_url: SecretStr) -> str:
    from mastodon_assets.warehouse.database import transaction

    with transaction(postgres_url, snapshot=True) as connection:
        row = connection.execute(
            "SELECT version, corpus FROM masto.sentiment_models WHERE status = 'champion'"
        ).fetchone()
    return f"{row[0]}, trained on {row[1]}" if row else "none"


def _remove_runs(home: Path) -> None:
    import shutil

    from mastodon_assets.local.dagster_home import FOLDER

    shutil.rmtree(home / FOLDER, ignore_errors=True)
    (home / _LOG).unlink(missing_ok=True)


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[step] = time.monotonic() - started
