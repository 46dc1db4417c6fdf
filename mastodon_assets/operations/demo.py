"""The demo: the whole lineage on this machine, from a simulated post to a chart.

What belongs here: putting the parts together for a newcomer. The demo uses the embedded stack only
and ignores the settings of Kafka, PostgreSQL, Mastodon, alerts and backups in environment and
`.env`.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from mastodon_assets.config.settings import Settings, as_environment, load_settings
from mastodon_assets.config.state_folder import DEMO_MARKER
from mastodon_assets.embedded import processes, stack
from mastodon_assets.errors import PlatformError, SettingsError
from mastodon_assets.files import last_error_line
from mastodon_assets.operations.wipe import DEMO_FOLDERS, DEMO_LOGS, wipe
from mastodon_assets.orchestration import dagster_home
from mastodon_assets.orchestration.child_processes import Child
from mastodon_assets.orchestration.web_server import (
    DEFINITIONS,
    running_dagster,
    serve_web_page,
)

if TYPE_CHECKING:
    import dagster as dg

    from mastodon_assets.ingest.handler import IngestSummary
    from mastodon_assets.simulator.sources import Source

_MATERIALIZE_LOG, _UI_LOG = DEMO_LOGS
# Beginnings of the names of settings that a demo ignores.
_IGNORED = ("kafka_", "database_", "masto_", "mastodon_", "alert_", "backup_")
_MATERIALIZE_SECONDS = 1800
_POLL_SECONDS = 1
_END_STEPS = ((signal.SIGTERM, 30), (signal.SIGKILL, 10))

Report = Callable[[str], None]


@dataclass
class DemoResult:
    """The results of a demo: rows per table, files, and seconds per step."""

    settings: Settings
    ingested: "IngestSummary"
    rows: Mapping[str, int]
    charts: list[Path]
    exports: list[Path]
    champion: str
    seconds: dict[str, float] = field(default_factory=dict)


class DemoFolderError(SettingsError):
    """The state folder contains something that no demo created."""


class MaterializeError(PlatformError):
    """An asset failed. The message names it, the cause and the log."""


@contextmanager
def running_demo(
    *, toots: int, days: int, seed: int, from_file: Path | None, keep: bool, report: Report
) -> Iterator[DemoResult]:
    """Run the demo and yield its results; stop the stack at the end unless `keep`.

    Raises:
        DemoFolderError: The state folder contains something that no demo created.
        MaterializeError: An asset failed.
    """
    home = load_settings_of_demo().mastodon_assets_home.absolute()
    source = _source(toots, days, seed, from_file)
    prepare_folder(home, report)
    seconds: dict[str, float] = {}
    try:
        with _timed(seconds, "embedded stack"):
            settings, has_downloaded = _start_stack(home, report)
        if has_downloaded:
            seconds = {"embedded stack, with first download": seconds["embedded stack"]}
        # The server stays up for the assets, because one of them reads engagement from it.
        with _simulated_server(source, settings, report) as with_server:
            with _timed(seconds, "posts to Kafka"):
                ingested = _ingest(with_server)
            with _timed(seconds, "assets"):
                materialize_all(with_server, report)
        yield DemoResult(
            settings=settings,
            ingested=ingested,
            rows=_table_rows(settings.postgres_url),
            charts=sorted(settings.reports_dir.absolute().glob("*.png")),
            exports=sorted(settings.exports_dir.absolute().glob("viz_*.csv")),
            champion=_champion_corpus(settings.postgres_url),
            seconds=seconds,
        )
    finally:
        if not keep:
            report("stopping the embedded stack")
            stack.down(home)


def load_settings_of_demo(**overrides: Any) -> Settings:
    """Load the settings for a demo.

    Those of Kafka, PostgreSQL, Mastodon, alerts and backups are ignored. Charts, files and models
    are in the state folder, so that a demo never replaces those of real data. Its backups would be
    the newest ones, for which older ones are removed.
    """
    ignored: dict[str, Any] = {
        name: field.default
        for name, field in Settings.model_fields.items()
        if name.startswith(_IGNORED) and name != "mastodon_assets_home"
    }
    settings = load_settings(**{**ignored, **overrides})
    home = settings.mastodon_assets_home.absolute()
    reports, exports, models = (home / name for name in DEMO_FOLDERS)
    return settings.model_copy(
        update={"reports_dir": reports, "exports_dir": exports, "model_dir": models}
    )


def environment_of_demo(settings: Settings) -> dict[str, str]:
    """Return the environment for a process of the demo: our variables are those of `settings`.

    `DAGSTER_HOME` is absolute, as Dagster requires.
    """
    others = {
        name: value
        for name, value in os.environ.items()
        if name.lower() not in Settings.model_fields
    }
    runs = dagster_home.dagster_home(settings.mastodon_assets_home)
    return {**others, **as_environment(settings), "DAGSTER_HOME": str(runs)}


def prepare_folder(home: Path, report: Report) -> None:
    """Wipe what an earlier demo left and mark the folder as a demo's.

    Raises:
        DemoFolderError: The folder contains anything else.
    """
    if home.exists() and not home.is_dir():
        raise DemoFolderError(f"MASTODON_ASSETS_HOME={home} is not a folder; choose another one")
    if home.exists() and any(home.iterdir()):
        if not (home / DEMO_MARKER).exists():
            is_ours = (home / "connection.json").exists()
            raise DemoFolderError(
                f"MASTODON_ASSETS_HOME={home} contains something that no demo created; choose"
                " another folder for the demo"
                + (", or remove its contents: mastodon-assets down --wipe" if is_ours else "")
            )
        report(f"removing the earlier demo in {home}")
        wipe_demo(home, report)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    (home / DEMO_MARKER).touch()


def wipe_demo(home: Path, report: Report) -> None:
    """Stop what an earlier demo left running and remove everything of ours in its folder.

    Raises:
        PlatformError: A server does not stop, or a file cannot be removed.
    """
    # A killed demo leaves its Dagster process running.
    while left := processes.find_server(_in_folder(home)):
        processes.stop(left, *_END_STEPS)
    wipe(home, report)


def materialize_all(settings: Settings, report: Report) -> None:
    """Materialize every asset in a process of its own and report each.

    The process runs in the state folder, where no `.env` brings back what the demo ignores. Its
    output goes to a log there.

    Raises:
        MaterializeError: An asset failed, or the run did not start or end.
    """
    import dagster as dg

    home = settings.mastodon_assets_home.absolute()
    environment = environment_of_demo(settings)
    log = home / _MATERIALIZE_LOG
    command = ["asset", "materialize", "--select", "*", *DEFINITIONS, _in_folder(home)]
    # Opened before the process starts: two that create Dagster's tables at once damage them.
    with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        earlier = {run.run_id for run in instance.get_runs(limit=1)}
        with running_dagster(
            command, environment=environment, cwd=home, log=log, seconds_to_end=30
        ) as process:
            failure = _follow(process, instance, earlier, report)
    if process.returncode != 0:
        reason = failure or last_error_line(log) or "the run did not start"
        raise MaterializeError(f"{reason} (log: {log})")


def show_web_page(settings: Settings, port: int, report: Report) -> None:
    """Serve Dagster's web page and the dashboard on the demo's result until it is interrupted.

    Raises:
        ChildFailedError: A page ended by itself.
        KeyboardInterrupt: At SIGINT or SIGTERM.
    """
    home = settings.mastodon_assets_home.absolute()
    log = home / _UI_LOG
    report(
        f"starting Dagster's page at http://127.0.0.1:{port} and the dashboard at"
        f" {settings.dashboard_page} (log: {log}); Ctrl-C ends both"
    )
    with log.open("w", encoding="utf-8") as output:

        def write(name: str, line: str) -> None:
            output.write(f"{name:<9} {line}\n")
            output.flush()

        environment = environment_of_demo(settings)
        # Unknown -X options are ignored; another demo finds the process by this one.
        ours = [sys.executable, "-X", _in_folder(home), "-m", "mastodon_assets.cli.main"]
        serve_web_page(
            port,
            environment=environment,
            others=[Child("dashboard", [*ours, "dashboard"], environment, home)],
            target=(*DEFINITIONS, _in_folder(home)),
            cwd=home,
            write=write,
            # Another demo ends the processes that it finds in the folder.
            restart=False,
        )


def _in_folder(home: Path) -> str:
    """Return Dagster's argument for the folder; its process is found by it again."""
    return f"--working-directory={home.resolve()}"


def _source(toots: int, days: int, seed: int, from_file: Path | None) -> "Source":
    from mastodon_assets.simulator.recorded import RecordedSource, read_statuses
    from mastodon_assets.simulator.server import synthetic_source

    if from_file is not None:
        return RecordedSource(read_statuses(from_file))
    return synthetic_source(toots=toots, days=days, seed=seed)


def _start_stack(home: Path, report: Report) -> tuple[Settings, bool]:
    """Start the stack; return settings with its addresses, and whether it downloaded programs."""
    from mastodon_assets.spark.session import connector_jars
    from mastodon_assets.warehouse.migrate import migrate

    downloads: list[str] = []

    def note(line: str) -> None:
        if line.startswith("fetching "):
            downloads.append(line)
        report(line)

    settings = load_settings_of_demo()
    connector_jars(note)
    connection = stack.up(
        home, topics=[settings.kafka_topic, settings.kafka_errors_topic], report=note
    )
    migrate(SecretStr(connection.postgres_url))
    settings = load_settings_of_demo(
        **connection.kafka_settings,
        database_url=connection.postgres_url,
    )
    return settings, bool(downloads)


@contextmanager
def _simulated_server(source: "Source", settings: Settings, report: Report) -> Iterator[Settings]:
    """Run a server that serves `source` until the block ends; yield settings that name it."""
    from mastodon_assets.simulator.server import running

    with running(source) as server:
        report(f"the simulated server is at {server.base_url}")
        yield settings.model_copy(
            update={
                "mastodon_api_base_url": server.base_url,
                "mastodon_access_token": SecretStr(server.token),
            }
        )


def _ingest(settings: Settings) -> "IngestSummary":
    from mastodon_assets.ingest.supervisor import ingest

    return ingest(
        settings,
        max_events=None,
        until_caught_up=True,
        should_stop=lambda: False,
    )


def _follow(
    process: "subprocess.Popen[bytes]",
    instance: "dg.DagsterInstance",
    earlier: set[str],
    report: Report,
) -> str | None:
    """Report each materialized asset until the process ends; return the first failure, if any."""
    reported: set[str] = set()
    deadline = time.monotonic() + _MATERIALIZE_SECONDS
    while True:
        is_over = process.poll() is not None
        run_id = _started_run(instance, earlier)
        for name in _materialized(instance, run_id) if run_id else ():
            if name not in reported:
                reported.add(name)
                report(f"materialized {name}")
        if is_over:
            return _first_failure(instance, run_id) if run_id else None
        if time.monotonic() > deadline:
            return f"the assets are not materialized after {_MATERIALIZE_SECONDS} s"
        time.sleep(_POLL_SECONDS)


def _started_run(instance: "dg.DagsterInstance", earlier: set[str]) -> str | None:
    """Return the id of the new run once its process has created the file of its events."""
    import dagster as dg

    run = next(iter(instance.get_runs(limit=1)), None)
    is_new = run is not None and run.run_id not in earlier
    not_yet = (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING)
    return run.run_id if run and is_new and run.status not in not_yet else None


def _materialized(instance: "dg.DagsterInstance", run_id: str) -> Iterator[str]:
    import dagster as dg

    for record in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        if record.dagster_event and record.dagster_event.asset_key:
            yield record.dagster_event.asset_key.to_user_string()


def _first_failure(instance: "dg.DagsterInstance", run_id: str) -> str | None:
    import dagster as dg

    for record in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        event = record.dagster_event
        error = event.step_failure_data.error if event else None
        if event and error:
            message = (error.cause or error).message.strip().splitlines()[0]
            without_module = re.sub(r"^([a-z_]\w*[.])+", "", message)
            return f"{event.step_key}: {without_module}"
    return None


def _table_rows(postgres_url: SecretStr) -> dict[str, int]:
    from mastodon_assets.warehouse.database import transaction
    from mastodon_assets.warehouse.rows import count_rows
    from mastodon_assets.warehouse.tables import TABLES

    with transaction(postgres_url, snapshot=True) as connection:
        return {name: count_rows(connection, table) for name, table in TABLES.items()}


def _champion_corpus(postgres_url: SecretStr) -> str:
    from mastodon_assets.warehouse.database import transaction

    with transaction(postgres_url, snapshot=True) as connection:
        row = connection.execute(
            "SELECT version, corpus FROM masto.sentiment_models WHERE status = 'champion'"
        ).fetchone()
    return f"{row[0]}, trained on {row[1]}" if row else "none"


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[step] = time.monotonic() - started
