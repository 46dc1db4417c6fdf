"""The removal of a state folder's data: what it would remove, who still uses it, and doing it.

What belongs here: what a person has to know before data go for good.
"""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, LiteralString

import psutil

from mastodon_assets.config.settings import load_settings
from mastodon_assets.config.state_folder import DEMO_MARKER, SUPPRESSION_KEY_FILE
from mastodon_assets.embedded import postgres, stack
from mastodon_assets.errors import PlatformError
from mastodon_assets.jvm.maven import Report
from mastodon_assets.operations import kept_list
from mastodon_assets.orchestration import dagster_home
from mastodon_assets.warehouse.database import transaction

# Folders and files in the state folder, besides those of the embedded stack.
DEMO_FOLDERS = ("reports", "data", "models")
DEMO_LOGS = ("demo-materialize.log", "demo-ui.log")
_SIZES = "sizes.jsonl"
_COMMAND_CHARACTERS = 100
_WEB_PAGE_MODULES = ("mastodon_assets.orchestration.guarded_web_server", "dagster._daemon")


class StateInUseError(PlatformError):
    """Processes use the data that are to be removed. The message names them."""


def what_goes(home: Path, *, keep_list: bool = False) -> list[str]:
    """Return one line per kind of data that a wipe of the state folder removes.

    Args:
        home: The state folder.
        keep_list: Whether the suppression list and its key are kept.
    """
    home = home.resolve()
    lines = []
    if (home / "kafka").exists():
        lines.append(f"all messages in Kafka ({home / 'kafka'})")
    if (home / "postgres").exists():
        lines.append(f"all tables in PostgreSQL ({home / 'postgres'}){_listed(home, keep_list)}")
    if (home / "connection.json").exists():
        lines.append(f"the passwords of both servers ({home}/connection.json)")
    if (home / SUPPRESSION_KEY_FILE).exists() and not keep_list:
        lines.append(f"the key of the suppression list ({home / SUPPRESSION_KEY_FILE})")
    if _has_runs(home):
        lines.append(f"Dagster's runs and logs ({home / dagster_home.FOLDER})")
    if (home / DEMO_MARKER).exists():
        found = [str(home / name) for name in DEMO_FOLDERS if (home / name).exists()]
        lines += [f"the demo's {folder}" for folder in found]
    return lines


def users_of(home: Path) -> list[str]:
    """Return the processes that use the data in the state folder, each with its id."""
    home = home.resolve()
    return list(dict.fromkeys([*_connected(home), *_dagster_processes(home)]))


def check_unused(home: Path) -> None:
    """Check that no other process uses the data in the state folder.

    Raises:
        StateInUseError: A process is connected to PostgreSQL, or Dagster is at work.
    """
    home = home.resolve()
    if users := users_of(home):
        raise StateInUseError(
            f"{home} is in use by {', '.join(users)}; stop these first, then run it again"
        )


def wipe(home: Path, report: Report, *, keep_list: bool = False) -> int:
    """Stop the servers of the state folder and remove everything of ours in it.

    Dagster's runs stay if `DAGSTER_HOME` is another folder. With `keep_list` the suppression list
    and its key stay, see `kept_list`.

    Returns:
        The number of entries of the suppression list that are kept.

    Raises:
        PlatformError: The list cannot be kept, a server does not stop, or a file cannot be removed.
    """
    kept = kept_list.keep(home, report) if keep_list else 0
    stack.down(home, wipe=True, keep_key=kept > 0, report=report)
    if _has_runs(home):
        shutil.rmtree(home / dagster_home.FOLDER)
    if (home / DEMO_MARKER).exists():
        for name in DEMO_FOLDERS:
            shutil.rmtree(home / name, ignore_errors=True)
    for name in (*DEMO_LOGS, _SIZES, DEMO_MARKER):
        (home / name).unlink(missing_ok=True)
    return kept


def _has_runs(home: Path) -> bool:
    return (home / dagster_home.FOLDER / "dagster.yaml").exists()


def may_have_list(home: Path) -> bool:
    """Return whether PostgreSQL has entries of the suppression list, or is stopped."""
    home = home.resolve()
    if not (home / "postgres").exists():
        return False
    return postgres.find(home) is None or _entries(home) > 0


def _listed(home: Path, is_kept: bool) -> str:
    """Return how long the suppression list is: posts of those on it would be read again."""
    count = _entries(home)
    if is_kept:
        return ", except for the suppression list"
    return f", with {count} entries of the suppression list" if count else ""


def _entries(home: Path) -> int:
    rows = _query(home, "SELECT count(*) FROM masto.withdrawn")
    return int(rows[0][0]) if rows else 0


def _connected(home: Path) -> Iterator[str]:
    """Yield the processes that are connected to PostgreSQL of the state folder."""
    rows = _query(
        home,
        "SELECT client_port, application_name FROM pg_stat_activity"
        " WHERE client_port IS NOT NULL AND pid <> pg_backend_pid()",
    )
    processes = _by_port() if rows else {}
    for port, name in rows:
        process = processes.get(port)
        yield f"{_name(process)}" if process else f"{name or 'a program'} (elsewhere)"


def _dagster_processes(home: Path) -> Iterator[str]:
    """Yield the processes of the web page: they connect only now and then."""
    folder = str(home / dagster_home.FOLDER)
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            is_of_web_page = any(name in process.cmdline() for name in _WEB_PAGE_MODULES)
            if is_of_web_page and process.environ().get("DAGSTER_HOME") == folder:
                yield _name(process)


def _by_port() -> dict[int, psutil.Process]:
    """Return the processes of this machine by their local ports, as far as they can be seen."""
    found = {}
    for each in psutil.net_connections(kind="tcp"):
        if each.pid is not None:
            with suppress(psutil.NoSuchProcess):
                found[each.laddr.port] = psutil.Process(each.pid)
    return found


def _name(process: psutil.Process) -> str:
    try:
        command = " ".join(Path(word).name for word in process.cmdline()[:6])
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        command = "a program"
    return f"process {process.pid} ({command[:_COMMAND_CHARACTERS]})"


def _query(home: Path, statement: LiteralString) -> list[tuple[Any, ...]]:
    """Return the rows of the embedded PostgreSQL; nothing if it does not run or has no tables."""
    if postgres.find(home) is None:
        return []
    try:
        settings = load_settings(mastodon_assets_home=home, database_url=None)
        with transaction(settings.postgres_url, snapshot=True) as connection:
            return connection.execute(statement).fetchall()
    except PlatformError:
        return []
