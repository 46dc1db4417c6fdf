"""The PostgreSQL server of the embedded stack: loopback only, with a generated password.

What belongs here: the server's files, its start and its end, and its one database.

Its folder `postgres/` in the state folder contains: `port`, the port of the last start, used again
while it is free; `password`; `server.log`; `data/`, the databases.

PostgreSQL refuses to run as root. Root therefore runs it as another user, who cannot enter the
state folder. In that case `data/` is in a folder of its own in `ROOT_DATA`, and `postgres/location`
names it. The binaries are in `ROOT_DATA` as well, instead of in the cache; a wipe keeps both.
"""

import os
import pwd
import secrets
import shutil
import signal
import tarfile
import tempfile
import zipfile
from hashlib import sha256
from pathlib import Path
from platform import machine, system
from threading import Event

import psutil
import psycopg
from psycopg import sql

from mastodon_assets.config.state_folder import StateDamagedError
from mastodon_assets.embedded.processes import (
    ServerStartError,
    accepts_connections,
    choose_port,
    find_server,
    is_locked,
    read_port,
    run_tool,
    server_lock,
    start_server,
    stop,
)
from mastodon_assets.errors import PlatformError
from mastodon_assets.files import read_text, write_atomically
from mastodon_assets.jvm.maven import Coordinate, Report, cache_dir, fetch_jars, provide

POSTGRES_VERSION = "18.6.0"
PLATFORMS = {
    ("Linux", "x86_64"): "linux-amd64",
    ("Linux", "aarch64"): "linux-arm64v8",
    ("Darwin", "x86_64"): "darwin-amd64",
    ("Darwin", "arm64"): "darwin-arm64v8",
}
USER = DATABASE = "mastodon"
# The server's log has the message of an error only. Its details quote rows and statements, and no
# purge reaches a log.
WITHOUT_ROWS_IN_LOG = ("log_error_verbosity=terse", "log_min_error_statement=panic")
# Not /tmp or /var/tmp: old files are deleted there, and anyone can create links in them.
ROOT_DATA = Path("/var/lib/mastodon_assets")
ROOT_RUNS_AS = ("postgres", "nobody")


class PlatformUnknownError(PlatformError):
    """There are no PostgreSQL binaries for this machine, or no user to run them as."""


def start(home: Path, report: Report, cancelled: Event | None = None) -> str:
    """Start the server of the state folder `home` if needed; return its URL with the password.

    Raises:
        ArtifactError: The programs cannot be downloaded.
        JavaNotFoundError: There is no Java, which the download needs.
        PlatformUnknownError: There are no binaries for this machine, or no user to run them as.
        ServerElsewhereError: A server that this process cannot see uses the state folder.
        ServerStartError: The server does not start.
        ServerStopError: A server that does not answer cannot be stopped.
        StateDamagedError: The server's files are damaged.
    """
    folder = home / "postgres"
    server = find(home)
    if server and answers(home):
        return _url(home)
    if server:
        report("PostgreSQL runs but does not answer; restarting it")
        stop_server(server)
    folder.mkdir(mode=0o700, exist_ok=True)
    place = _place(home, report)
    binaries = _binaries(report)
    with server_lock(place / "lock", "PostgreSQL") as lock:
        if not (place / "data").exists():
            _initialize(folder, place, binaries)
        _password(home)  # if it is missing, fail before a server starts that nobody can log in to
        _run(home, place, binaries, lock, report, cancelled)
    return _url(home)


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
    try:
        psycopg.connect(_url(home), dbname="postgres", connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


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
    outside = _outside_place(home)
    for folder in (outside, home / "postgres"):
        if folder and folder.exists():
            with server_lock(folder / "lock", "PostgreSQL"):
                shutil.rmtree(folder)


def is_elsewhere(home: Path) -> bool:
    """Return whether a server runs on the state folder that this process cannot see."""
    place = _outside_place(home) or home / "postgres"
    return find(home) is None and is_locked(place / "lock")


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
    binaries: Path,
    lock: int,
    report: Report,
    cancelled: Event | None,
) -> None:
    folder = home / "postgres"
    data = place / "data"
    server_port = choose_port(folder / "port")
    report(f"starting PostgreSQL on 127.0.0.1:{server_port}")
    options = (
        "listen_addresses=127.0.0.1",
        f"port={server_port}",
        "unix_socket_directories=",
        *WITHOUT_ROWS_IN_LOG,
        # Two lines every five minutes, in a file that is renamed only at a start.
        "log_checkpoints=off",
        _marker(home),
    )
    start_server(
        "PostgreSQL",
        [
            *(str(binaries / "bin" / "postgres"), "-D", str(data)),
            *(part for option in options for part in ("-c", option)),
        ],
        lambda: answers(home),
        cwd=place,
        log=folder / "server.log",
        lock=lock,
        cancelled=cancelled,
        environment=_ended_server(data),
        user=_server_user(),
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


def _initialize(folder: Path, place: Path, binaries: Path) -> None:
    """Create `data/`, complete or not at all, and a new password.

    Raises:
        ServerStartError: PostgreSQL's tool fails.
    """
    password = secrets.token_urlsafe(24)
    write_atomically(folder / "password", f"{password}\n")
    partial = place / "data.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    user = _server_user()
    with tempfile.NamedTemporaryFile("w", dir=place) as password_file:
        password_file.write(f"{password}\n")
        password_file.flush()
        if user is not None:
            os.chown(password_file.name, user, -1)
            os.chown(partial, user, pwd.getpwuid(user).pw_gid)
        run_tool(
            "creating PostgreSQL's data folder",
            [
                *(str(binaries / "bin" / "initdb"), "-D", str(partial), "-U", USER),
                *("--auth=scram-sha-256", f"--pwfile={password_file.name}"),
                # On any machine letters of all scripts have case, and order is by code point.
                *("-E", "UTF8", "--locale=C"),
                *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            ],
            cwd=place,
            log=folder / "initdb.log",
            user=user,
        )
    partial.rename(place / "data")


def _binaries(report: Report) -> Path:
    """Return the folder with PostgreSQL's `bin/`, `lib/` and `share/`; its user can enter it."""
    platform = PLATFORMS.get((system(), machine()))
    if platform is None:
        raise PlatformUnknownError(
            f"there is no PostgreSQL for {system()} on {machine()}; start one yourself and set "
            "DATABASE_URL"
        )
    name = f"postgres-{POSTGRES_VERSION}-{platform}"

    def unpack(target: Path) -> None:
        coordinate = Coordinate(
            "io.zonky.test.postgres", f"embedded-postgres-binaries-{platform}", POSTGRES_VERSION
        )
        jars = fetch_jars(f"{name}-jar", [coordinate], size="15 MB", report=report)
        _unpack(next(jars.glob("*.jar")), target)

    parent = _root_data() if _server_user() is not None else cache_dir()
    return provide(parent / name, unpack, lock=parent / "unpack.lock")


def _unpack(jar: Path, target: Path) -> None:
    with zipfile.ZipFile(jar) as archive:
        inner = next(name for name in archive.namelist() if name.endswith(".txz"))
        with archive.open(inner) as file, tarfile.open(fileobj=file, mode="r|xz") as tar:
            # This form also works with Python before 3.11.4, which relies on the jar's checksum.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            tar.extractall(target)  # noqa: S202
    # The server may run as another user, whatever the umask.
    for folder in target.rglob("*/"):
        folder.chmod(0o755)


def _server_user() -> int | None:
    """Return the id of the user that root runs the server as; None for anyone but root.

    Raises:
        PlatformUnknownError: The machine has no such user.
    """
    if os.geteuid() != 0:
        return None
    for name in ROOT_RUNS_AS:
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise PlatformUnknownError(
        f"PostgreSQL does not run as root, and there is no user {' or '.join(ROOT_RUNS_AS)}; "
        "run as another user"
    )


def _place(home: Path, report: Report) -> Path:
    """Return the folder that contains `data/`; create it if missing."""
    if _server_user() is None:
        return home / "postgres"
    outside = _outside_place(home)
    if outside:
        return outside
    # Reported and never reused: its password was in the state folder, and if that was moved the
    # data are in use.
    prefix = f"{sha256(str(home).encode()).hexdigest()[:16]}-"
    for left in _root_data().glob(f"{prefix}*"):
        report(f"{left} belongs to an earlier state folder at {home}; delete it if that is gone")
    place = Path(tempfile.mkdtemp(prefix=prefix, dir=ROOT_DATA))
    place.chmod(0o755)
    write_atomically(home / "postgres" / "location", f"{place}\n")
    return place


def _outside_place(home: Path) -> Path | None:
    """Return the folder in `ROOT_DATA` that `postgres/location` names, if it exists.

    Raises:
        StateDamagedError: The file names another folder.
    """
    note = home / "postgres" / "location"
    stored = read_text(note)
    if not stored:
        return None
    place = Path(stored)
    if place.parent != ROOT_DATA:
        raise StateDamagedError(f"{note} should name a folder in {ROOT_DATA}, not {stored}")
    return place if place.is_dir() else None


def _root_data() -> Path:
    """Return `ROOT_DATA`; create it if missing, so that all users can pass through it.

    Raises:
        ServerStartError: It cannot be created.
    """
    try:
        ROOT_DATA.mkdir(parents=True, exist_ok=True)
        ROOT_DATA.chmod(0o755)
    except OSError as error:
        raise ServerStartError(
            f"cannot create {ROOT_DATA} ({error.strerror}), where PostgreSQL started by root keeps "
            "its data; run as another user"
        ) from error
    return ROOT_DATA
