"""The embedded stack as a whole: `up`, `down`, `status`, and where to connect.

What belongs here: both servers together, and `connection.json`. What does not: how one of them is
run (kafka.py, postgres.py), tables, Dagster.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Literal

import psutil
from filelock import FileLock, Timeout

from mastodon_assets.errors import PlatformError
from mastodon_assets.local import kafka, postgres
from mastodon_assets.local.artifacts import Report, cache_dir
from mastodon_assets.local.files import (
    check_own,
    make_private_folder,
    read_text,
    write_atomically,
)
from mastodon_assets.local.processes import read_port


class StackBusyError(PlatformError):
    """Another `up` or `down` works on the same state folder."""


@dataclass(frozen=True)
class Connection:
    """Where the embedded stack listens.

    `kafka_bootstrap_servers` is `host:port`; `postgres_url` is `postgresql://…` with the password,
    and therefore not in the repr.
    """

    kafka_bootstrap_servers: str
    postgres_url: str = field(repr=False)


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
        connection = Connection(broker.result(), server.result())
        kafka.create_topics(connection.kafka_bootstrap_servers, topics)
        if read_connection(home) != connection:
            _write_connection(home, connection)
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
            kafka.stop_broker(broker)
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
    connection = read_connection(home)
    return [
        _service_status(
            "Kafka",
            kafka.find(home),
            read_port(home / "kafka" / "broker.port"),
            kafka.answers,
            log=home / "kafka" / "broker.log",
        ),
        _service_status(
            "PostgreSQL",
            postgres.find(home),
            read_port(home / "postgres" / "port"),
            lambda _port: connection is not None and postgres.answers(connection.postgres_url),
            log=home / "postgres" / "server.log",
        ),
    ]
