"""The upgrade of the embedded PostgreSQL's data to the next major version.

What belongs here: the copy from the old data folder into a new one, and the exchange of both.

The new folder gets its rows by a dump that the old server makes and the new one reads. The old
folder is only read. It is kept as `data-<major>` next to the new one. A new folder that was
compared with the old one is called `data.upgraded` until both have their names.
"""

import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import IO, Any

import psycopg
from psycopg import sql
from pydantic import SecretStr

from mastodon_assets.embedded.postgres_files import (
    USER,
    create_data,
    data_major,
    own_programs,
    programs_of,
    server_user,
)
from mastodon_assets.embedded.postgres_server import can_log_in, server_command
from mastodon_assets.embedded.processes import (
    ServerStartError,
    accepts_connections,
    choose_port,
    find_server,
    start_server,
    stop,
)
from mastodon_assets.files import last_error_line
from mastodon_assets.jvm.maven import Report
from mastodon_assets.warehouse.dump import libpq_environment

# The line of a dump that the new data folder does not need: its superuser is there.
_SUPERUSER = f"CREATE ROLE {USER};\n".encode()
_CHUNK = 1 << 20
_FAILED = "PostgreSQL's data were not upgraded, and the old ones are as before"


class DataUpgradeError(ServerStartError):
    """The data could not be upgraded; the old ones are as before."""


@dataclass(frozen=True)
class Upgrade:
    """What an upgrade works with.

    Attributes:
        home: The state folder.
        place: The folder that contains `data/`.
        password: The superuser's.
        options: Options of the servers, `name=value`.
        lock: Descriptor of the lock, which the servers inherit.
        cancelled: If it is set meanwhile, the upgrade ends.
    """

    home: Path
    place: Path
    password: str
    options: Sequence[str]
    lock: int
    cancelled: Event | None

    def run(self, report: Report) -> None:
        """Put a folder with the same rows for this version's server into the place of `data/`.

        Raises:
            DataUpgradeError: The rows cannot be copied or differ, or there is no room for them.
            PlatformUnknownError: The programs of the old version are missing.
            ServerStartError: A server does not start.
        """
        old, new = self.place / "data", self.place / "data.partial"
        major, log = data_major(old), self.home / "postgres" / "upgrade.log"
        old_programs, programs = programs_of(major), own_programs()
        _check_room(old)
        report(f"copying the data of PostgreSQL {major} for the next version")
        shutil.rmtree(self.place / "data.upgraded", ignore_errors=True)
        create_data(new, self.password, programs, log.with_name("initdb.log"))
        with (
            self._server(old, old_programs, log) as old_url,
            self._server(new, programs, log) as new_url,
        ):
            self._copy(programs, old_url, new_url, log.with_name("dump.log"))
            if _counts(old_url) != _counts(new_url):
                raise DataUpgradeError(f"{_FAILED}: the copy has other rows")
            for database in _databases(new_url):
                with psycopg.connect(new_url, dbname=database, autocommit=True) as connection:
                    connection.execute("ANALYZE")
        new.rename(self.place / "data.upgraded")
        kept = self.place / f"data-{major}"
        old.rename(kept)
        finish(self.place)
        report(
            f"PostgreSQL's data were upgraded from {major} to {data_major(old)} and compared;"
            f" the old ones are in {kept}; delete that folder soon, because no purge reaches it"
        )

    @contextmanager
    def _server(self, data: Path, programs: Path, log: Path) -> Iterator[str]:
        """Run a server that nobody else knows; yield its URL."""
        note = self.home / "postgres" / f"{data.name}.port"
        port = choose_port(note)
        url = f"postgresql://{USER}:{self.password}@127.0.0.1:{port}/postgres"
        marker = f"{_marker(self.home)}/{data.name}"
        options = (*self.options, f"port={port}", marker)
        try:
            start_server(
                "PostgreSQL",
                server_command(programs, data, options),
                lambda: accepts_connections(port) and can_log_in(url),
                cwd=self.place,
                log=log,
                lock=self.lock,
                cancelled=self.cancelled,
                user=server_user(),
            )
            yield url
        finally:
            _stop(marker)
            note.unlink(missing_ok=True)

    def _copy(self, programs: Path, old_url: str, new_url: str, log: Path) -> None:
        """Pass a dump of all databases and roles from one server to the other."""
        dump = [str(programs / "pg_dumpall"), "--no-password", "--database=postgres"]
        load = [str(programs / "psql"), "-X", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-d", "postgres"]
        with (
            log.open("wb") as errors,
            subprocess.Popen(
                dump, env=_environment(old_url), stdout=subprocess.PIPE, stderr=errors
            ) as source,
            subprocess.Popen(
                load,
                env=_environment(new_url),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            ) as target,
        ):
            assert source.stdout is not None, "it is a pipe"
            assert target.stdin is not None, "it is a pipe"
            try:
                self._pass_on(source.stdout, target.stdin)
                target.stdin.close()
            except BrokenPipeError:
                source.kill()
            except BaseException:
                source.kill()
                target.kill()
                raise
            failed = [each for each in (target, source) if each.wait() != 0]
        if failed:
            raise DataUpgradeError(f"{_FAILED}: {last_error_line(log)} (log: {log})")

    def _pass_on(self, source: IO[bytes], target: IO[bytes]) -> None:
        for line in source:
            if line == _SUPERUSER:
                break
            target.write(line)
        while chunk := source.read(_CHUNK):
            if self.cancelled and self.cancelled.is_set():
                raise DataUpgradeError(f"{_FAILED}: it was cancelled")
            target.write(chunk)


def finish(place: Path) -> None:
    """Give a compared new folder its name, also after an exchange that was interrupted."""
    upgraded, data = place / "data.upgraded", place / "data"
    if upgraded.exists() and not data.exists():
        upgraded.rename(data)


def stop_left(home: Path) -> None:
    """Stop servers that a killed upgrade left running.

    Raises:
        ServerStopError: One does not end.
    """
    for name in ("data", "data.partial"):
        _stop(f"{_marker(home)}/{name}")


def _marker(home: Path) -> str:
    return f"mastodon_assets.upgrade={home}"


def _stop(marker: str) -> None:
    server = find_server(marker)
    if server:
        stop(server, (signal.SIGINT, 60), (signal.SIGQUIT, 10), (signal.SIGKILL, 10))


def _check_room(data: Path) -> None:
    size = sum(path.lstat().st_size for path in data.rglob("*"))
    free = shutil.disk_usage(data).free
    if free < size * 1.2:
        raise DataUpgradeError(
            f"{_FAILED}: the copy needs {size * 1.2 / 2**30:,.1f} GiB and {free / 2**30:,.1f} are"
            f" free at {data}; free space"
        )


def _environment(url: str) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "TZ": "UTC", **libpq_environment(SecretStr(url))}


def _databases(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [
            name
            for (name,) in connection.execute(
                "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate"
            )
        ]


def _counts(url: str) -> dict[tuple[str, ...], Any]:
    """Count the rows of each table in each database."""
    counts = {}
    for database in _databases(url):
        with psycopg.connect(url, dbname=database) as connection:
            tables = connection.execute(
                "SELECT schemaname, tablename FROM pg_tables"
                " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
            ).fetchall()
            for table in tables:
                query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(*table))
                counts[(database, *table)] = connection.execute(query).fetchone()
    return counts
