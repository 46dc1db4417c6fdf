"""The PostgreSQL server of the embedded stack: loopback only, with a generated password.

What belongs here: the server's start and its end, and its one database. Its files are in
`postgres_files`.

Its folder `postgres/` in the state folder contains: `port`, the port of the last start, used again
while it is free; `password`; `server.log`; `data/`, the databases, or `location`, which names where
they are; after an upgrade `upgrade.log` and `dump.log`.
"""

import secrets
import shutil
import signal
from pathlib import Path
from threading import Event

import psutil
import psycopg
from psycopg import sql

from mastodon_assets.config.state_folder import StateDamagedError
from mastodon_assets.embedded import postgres_upgrade
from mastodon_assets.embedded.postgres_files import (
    USER,
    create_data,
    data_major,
    data_place,
    outside_place,
    own_major,
    own_programs,
    provide_place,
    server_user,
)
from mastodon_assets.embedded.postgres_server import can_log_in, server_command
from mastodon_assets.embedded.processes import (
    ServerStartError,
    accepts_connections,
    choose_port,
    find_server,
    is_locked,
    read_port,
    server_lock,
    start_server,
    stop,
)
from mastodon_assets.files import read_text, write_atomically
from mastodon_assets.jvm.maven import Report

DATABASE = "mastodon"
# The server's log has the message of an error only. Its details quote rows and statements, and no
# purge reaches a log.
WITHOUT_ROWS_IN_LOG = ("log_error_verbosity=terse", "log_min_error_statement=panic")
_OPTIONS = (
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    *WITHOUT_ROWS_IN_LOG,
    # Two lines every five minutes, in a file that is renamed only at a start.
    "log_checkpoints=off",
)


class DataVersionError(ServerStartError):
    """The data are of another major version of PostgreSQL than the programs."""


def start(
    home: Path, report: Report, cancelled: Event | None = None, *, upgrade: bool = False
) -> str:
    """Start the server of the state folder `home` if needed; return its URL with the password.

    Args:
        home: The state folder.
        report: Gets a line per step that takes long.
        cancelled: If it is set meanwhile, the start ends.
        upgrade: Whether to upgrade data of an older major version.

    Raises:
        DataVersionError: The data are of another major version, and are not to be upgraded.
        PlatformUnknownError: The programs are not installed, or there is no user to run them as.
        ServerElsewhereError: A server that this process cannot see uses the state folder.
        ServerStartError: The server does not start, or the data cannot be upgraded.
        ServerStopError: A server that does not answer cannot be stopped.
        StateDamagedError: The server's files are damaged.
    """
    folder = home / "postgres"
    server = find(home)
    if server and answers(home):
        if not (upgrade and _is_older(home)):
            return _url(home)
        report("stopping PostgreSQL for its upgrade")
        stop_server(server)
    elif server:
        report("PostgreSQL runs but does not answer; restarting it")
        stop_server(server)
    folder.mkdir(mode=0o700, exist_ok=True)
    place = provide_place(home, report)
    programs = own_programs()
    postgres_upgrade.stop_left(home)
    with server_lock(place / "lock", "PostgreSQL") as lock:
        postgres_upgrade.finish(place)
        if not (place / "data").exists():
            _initialize(folder, place, programs)
        # If it is missing, fail before a server starts that nobody can log in to.
        password = _password(home)
        _check_major(place / "data", upgrade)
        if _is_older(home):
            postgres_upgrade.Upgrade(home, place, password, _OPTIONS, lock, cancelled).run(report)
        _run(home, place, programs, lock, report, cancelled)
    return _url(home)


def _is_older(home: Path) -> bool:
    return data_major(data_place(home) / "data") < own_major()


def _check_major(data: Path, upgrade: bool) -> None:
    """Check that this version's server can read the data, or may upgrade them.

    Raises:
        DataVersionError: It cannot.
    """
    found, known = data_major(data), own_major()
    if found == known or (upgrade and found < known):
        return
    advice = "run: mastodon-assets up --upgrade" if found < known else "upgrade mastodon-assets"
    raise DataVersionError(
        f"the data in {data} were made by PostgreSQL {found}, and this version brings {known};"
        f" {advice}"
    )


def find(home: Path) -> psutil.Process | None:
    """Find the running server of the state folder `home`."""
    return find_server(_marker(home))


def port(home: Path) -> int | None:
    """Return the server's port of its last start; None if it never started."""
    return read_port(home / "postgres" / "port")


def answers(home: Path) -> bool:
    """Return whether our user can log in (the database may not exist yet)."""
    server_port = port(home)
    if server_port is None or not accepts_connections(server_port):
        return False
    return can_log_in(_url(home))


def stop_server(server: psutil.Process) -> None:
    """Stop the server and its connections; SIGINT asks for a fast shutdown.

    Raises:
        ServerStopError: The server does not end.
    """
    stop(server, (signal.SIGINT, 30), (signal.SIGQUIT, 10), (signal.SIGKILL, 10))


def wipe(home: Path) -> None:
    """Remove the databases, wherever they are, and everything else that `start` created.

    Raises:
        ServerElsewhereError: A server that this process cannot see uses them.
    """
    outside = outside_place(home)
    for folder in (outside, home / "postgres"):
        if folder and folder.exists():
            with server_lock(folder / "lock", "PostgreSQL"):
                shutil.rmtree(folder)


def is_elsewhere(home: Path) -> bool:
    """Return whether a server runs on the state folder that this process cannot see."""
    return find(home) is None and is_locked(data_place(home) / "lock")


def _marker(home: Path) -> str:
    # A setting with a dot in its name is free for extensions, and appears in the command line.
    return f"mastodon_assets.state_folder={home}"


def _url(home: Path) -> str:
    """Return the database's URL with the password.

    Raises:
        StateDamagedError: The password's file is missing.
    """
    return f"postgresql://{USER}:{_password(home)}@127.0.0.1:{port(home)}/{DATABASE}"


def _password(home: Path) -> str:
    note = home / "postgres" / "password"
    password = read_text(note)
    if not password:
        raise StateDamagedError(
            f"{note} is missing, so that nobody can log in; restore that file, or delete all data: "
            "mastodon-assets down --wipe"
        )
    return password


def _run(
    home: Path,
    place: Path,
    programs: Path,
    lock: int,
    report: Report,
    cancelled: Event | None,
) -> None:
    folder = home / "postgres"
    data = place / "data"
    server_port = choose_port(folder / "port")
    report(f"starting PostgreSQL on 127.0.0.1:{server_port}")
    options = (*_OPTIONS, f"port={server_port}", _marker(home))
    start_server(
        "PostgreSQL",
        server_command(programs, data, options),
        lambda: answers(home),
        cwd=place,
        log=folder / "server.log",
        lock=lock,
        cancelled=cancelled,
        environment=_ended_server(data),
        user=server_user(),
    )
    _create_database(_url(home))


def _create_database(server_url: str) -> None:
    try:
        with psycopg.connect(server_url, dbname="postgres", autocommit=True) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
            if known.fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    except psycopg.Error as error:
        reason = str(error).splitlines()[0]
        raise ServerStartError(f"could not create the database {DATABASE}: {reason}") from error


def _ended_server(data: Path) -> dict[str, str]:
    """Return a variable that names the ended server of `postmaster.pid`, if another has its id.

    That happens after a restart of the machine or container. PostgreSQL would take any process with
    this id for the server and refuse to start, unless it is named as its grandparent. Whether the
    server lives is known by the lock, which the caller holds; and PostgreSQL still checks the
    server's shared memory. The file itself is left to PostgreSQL.
    """
    try:
        words = (data / "postmaster.pid").read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return {}
    return {"PG_GRANDPARENT_PID": words[0]} if words and words[0].isdecimal() else {}


def _initialize(folder: Path, place: Path, programs: Path) -> None:
    """Create `data/`, complete or not at all, and a new password.

    Raises:
        ServerStartError: PostgreSQL's tool fails.
    """
    password = secrets.token_urlsafe(24)
    write_atomically(folder / "password", f"{password}\n")
    partial = place / "data.partial"
    create_data(partial, password, programs, folder / "initdb.log")
    partial.rename(place / "data")
