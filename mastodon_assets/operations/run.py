"""The live mode: ingester, stream, web page and dashboard together under one supervisor.

What belongs here: which processes that takes. How each works is the business of its own command.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping

from mastodon_assets.config.settings import Settings
from mastodon_assets.embedded import stack
from mastodon_assets.errors import PlatformError, SettingsError
from mastodon_assets.operations.servers import start_servers
from mastodon_assets.orchestration.child_processes import (
    Child,
    WriteLine,
    supervise,
    write_to_stderr,
)
from mastodon_assets.orchestration.dagster_home import dagster_home
from mastodon_assets.orchestration.web_server import code_location, web_page_children

_SECONDS_TO_END = 5
_SECONDS_BETWEEN_CHECKS = 10

Report = Callable[[str], None]


def run(
    settings: Settings, port: int, report: Report, *, write: WriteLine = write_to_stderr
) -> None:
    """Run ingester, stream, web page and dashboard until SIGINT or SIGTERM; restart what ends.

    The embedded Kafka and PostgreSQL are started first, watched, and stopped at the end, unless
    the settings name other servers or they ran before.

    Args:
        settings: The settings; the processes read them again from the environment and `.env`.
        port: Port of Dagster's web page on 127.0.0.1.
        report: Receives one line per step.
        write: Receives every line that the processes print, with the name of the process.

    Raises:
        SettingsError: No Mastodon server is configured.
        KeyboardInterrupt: At either signal, after all processes have ended.
        ChildFailedError: A process rejects its settings or fails at its first start.
        PlatformError: The embedded servers do not start.
    """
    if settings.mastodon_api_base_url is None:
        raise SettingsError("no server to read from; set MASTODON_API_BASE_URL")
    home = settings.mastodon_assets_home
    is_embedded = settings.kafka_bootstrap_servers is None and settings.database_url is None
    ran_before = stack.is_running(home)
    try:
        if is_embedded:
            _start_servers(settings, report)
        report(
            f"starting the web page at http://127.0.0.1:{port} and the dashboard at"
            f" {settings.dashboard_page}; Ctrl-C ends everything"
        )
        watch = _watch(settings, report) if is_embedded else _nothing
        supervise(
            _children(settings, port), write, seconds_to_end=_SECONDS_TO_END, each_round=watch
        )
    finally:
        if is_embedded and not ran_before:
            stack.down(home, report=report)


def _children(settings: Settings, port: int) -> list[Child]:
    home = dagster_home(settings.mastodon_assets_home)
    environment = {**os.environ, "DAGSTER_HOME": str(home)}
    ours = [sys.executable, "-m", "mastodon_assets.cli.main"]
    return [
        *(Child(name, [*ours, name], environment) for name in ("ingest", "stream")),
        *web_page_children(port, environment=environment, target=code_location()),
        Child("dashboard", [*ours, "dashboard"], _with_web_page(environment, settings, port)),
    ]


def _with_web_page(
    environment: Mapping[str, str], settings: Settings, port: int
) -> Mapping[str, str]:
    """Let the dashboard link to the web page of this run, unless the settings name another."""
    if "dagster_url" in settings.model_fields_set:
        return environment
    return {**environment, "DAGSTER_URL": f"http://127.0.0.1:{port}"}


def _start_servers(settings: Settings, report: Report) -> None:
    if restored := start_servers(settings, report).restored:
        report(f"{restored:,} entries of the kept suppression list added")


def _watch(settings: Settings, report: Report) -> Callable[[], None]:
    """Return a function that now and then restarts an embedded server that has ended."""
    next_check = time.monotonic() + _SECONDS_BETWEEN_CHECKS

    def watch() -> None:
        nonlocal next_check
        if time.monotonic() < next_check:
            return
        try:
            if not stack.is_running(settings.mastodon_assets_home):
                _start_servers(settings, report)
        except PlatformError as error:
            report(str(error))
        next_check = time.monotonic() + _SECONDS_BETWEEN_CHECKS

    return watch


def _nothing() -> None:
    pass
