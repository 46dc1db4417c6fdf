"""The embedded stack as a whole: `up`, `down`, `status`, and where to connect.

What belongs here: both servers together, and `connection.json`. What does not: how one of them is
run (kafka.py, postgres.py), tables, Dagster.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Literal

import psutil
from filelock import FileLock, Timeout

from mastodon_assets.config.state_folder import StateFolderError, check_own, make_private_folder
from mastodon_assets.embedded import kafka, postgres
from mastodon_assets.errors import PlatformError
from mastodon_assets.files import read_text, write_atomically
from mastodon_assets.jvm.maven import Report, cache_dir
from mastodon_assets.kafka.topics import create_topics

_KEY_BYTES = 32


class StackBusyError(PlatformError):
    """Another `up` or `down` works on the same state folder."""


@dataclass(frozen=True)
class Connection:
    """Where the embedded stack listens.

    `kafka_bootstrap_servers` is `host:port`; `postgres_url` is `postgresql://…` with the password,
    and therefore not in the repr. `withdrawn_key` is a random key for the list of the withdrawn; it
    stays as long as the data does.
    """

    kafka_bootstrap_servers: str
    postgres_url: str = field(repr=False)
    withdrawn_key: str = field(repr=False)


@dataclass(frozen=True)
class ServiceStatus:
    """One server: `detail` says where it listens or lies; `pid` is None where it does not run."""

    name: str
    state: Literal["running", "stopped", "unhealthy"]
    detail: str
    pid: int | None


def _say_nothing(_line: str) -> None:
    pass


def up(home: Path, *, topics: Sequence[str], report: Report = _say_nothing) -> Connection:
    """Bring up what does not run, create the topics that are absent, write `connection.json`.

    `report` gets one line for each step that takes long, from several threads.
    Raises: PlatformError in one line; what came up until then stays up.
    """
    home = home.resolve()
    with _alone(home):
        make_private_folder(home)
        with ThreadPoolExecutor() as pool:
            broker = pool.submit(kafka.start, home, report)
            server = pool.submit(postgres.start, home, report)
        connection = Connection(broker.result(), server.result(), _withdrawn_key(home))
        create_topics(connection.kafka_bootstrap_servers, topics)
        text = json.dumps(asdict(connection), indent=2)
        write_atomically(home / "connection.json", f"{text}\n")
        return connection


def down(home: Path, *, wipe: bool = False, report: Report = _say_nothing) -> None:
    """Stop what runs. With `wipe` also remove all that `up` made in the state folder `home`.

    Other things in the state folder stay, and so does the cache with the programs.
    Raises: PlatformError in one line.
    """
    home = home.resolve()
    with _alone(home):
        if home.exists():
            check_own(home)
        broker, server = kafka.find(home), postgres.find(home)
        if broker:
            report("stopping Kafka")
            kafka.stop_server(broker)
        if server:
            report("stopping PostgreSQL")
            postgres.stop_server(server)
        if wipe and home.exists():
            report(f"removing what the embedded stack made in {home}")
            postgres.wipe(home)
            kafka.wipe(home)
            (home / "connection.json").unlink(missing_ok=True)


def status(home: Path) -> list[ServiceStatus]:
    """What runs of the stack in the state folder `home`: Kafka, then PostgreSQL."""
    home = home.resolve()
    return [
        _service_status("Kafka", kafka.find(home), kafka.port(home), lambda: kafka.answers(home)),
        _service_status(
            "PostgreSQL", postgres.find(home), postgres.port(home), lambda: postgres.answers(home)
        ),
    ]


def _withdrawn_key(home: Path) -> str:
    """The one that an earlier `up` made, else a new one."""
    text = read_text(home / "connection.json")
    try:
        made = json.loads(text or "{}")["withdrawn_key"]
    except (ValueError, KeyError, TypeError):
        # No file, one of before there was such a key, or a damaged one.
        return secrets.token_hex(_KEY_BYTES)
    return str(made)


def _service_status(
    name: str, process: psutil.Process | None, port: int | None, answers: Callable[[], bool]
) -> ServiceStatus:
    if process is None:
        return ServiceStatus(name, "stopped", "not running", None)
    if answers():
        return ServiceStatus(name, "running", f"127.0.0.1:{port}", process.pid)
    return ServiceStatus(name, "unhealthy", "does not answer; run up or down", process.pid)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One `up` or `down` at a time. The lock lies in the cache, so that a wipe leaves none."""
    locks = cache_dir() / "locks"
    locks.mkdir(exist_ok=True)
    name = sha256(str(home).encode()).hexdigest()[:16]
    try:
        with FileLock(locks / f"{name}.lock", timeout=600):
            yield
    except Timeout as error:
        raise StackBusyError(
            f"another mastodon-assets up or down has been at work on {home} for ten minutes; "
            "wait for it or stop it"
        ) from error
    except OSError as error:
        raise StateFolderError(
            f"cannot work on {error.filename or home}: {error.strerror or error}; look at the "
            "disk and at who owns it"
        ) from error
