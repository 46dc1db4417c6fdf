"""The embedded stack as a whole: `up`, `down`, `status`, and its addresses.

What belongs here: both servers together, and `connection.json`. How a single server runs is in
`kafka` and `postgres`; the key of the suppression list is in `suppression_key`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import Any, Literal

import psutil
from filelock import FileLock, Timeout
from pydantic import SecretStr

from mastodon_assets.config.kafka_access import KafkaAccess
from mastodon_assets.config.state_folder import (
    SUPPRESSION_KEY_FILE,
    StateFolderError,
    check_own,
    make_private_folder,
)
from mastodon_assets.embedded import kafka, postgres, suppression_key
from mastodon_assets.embedded.processes import ServerElsewhereError
from mastodon_assets.errors import PlatformError
from mastodon_assets.files import write_atomically
from mastodon_assets.jvm.maven import Report, cache_dir
from mastodon_assets.kafka.topics import create_topics


class StackBusyError(PlatformError):
    """Another `up` or `down` is at work on the same state folder."""


@dataclass(frozen=True)
class Connection:
    """The addresses and logins of the embedded stack, as in `connection.json`.

    Attributes:
        kafka_bootstrap_servers: `host:port`.
        kafka_security_protocol: How clients talk to the broker.
        kafka_sasl_mechanism: How they log in.
        kafka_sasl_username: Their login.
        kafka_sasl_password: Its password; not in the repr.
        postgres_url: `postgresql://…` with the password; not in the repr.
    """

    kafka_bootstrap_servers: str
    kafka_security_protocol: str
    kafka_sasl_mechanism: str
    kafka_sasl_username: str
    kafka_sasl_password: str = field(repr=False)
    postgres_url: str = field(repr=False)

    @property
    def kafka_access(self) -> KafkaAccess:
        """How a client reaches the broker."""
        return KafkaAccess(
            self.kafka_bootstrap_servers,
            self.kafka_security_protocol,
            self.kafka_sasl_mechanism,
            self.kafka_sasl_username,
            SecretStr(self.kafka_sasl_password),
        )

    @property
    def kafka_settings(self) -> dict[str, str]:
        """The settings that let a client log in at the broker, for `load_settings`."""
        return {name: value for name, value in asdict(self).items() if name.startswith("kafka_")}


@dataclass(frozen=True)
class ServiceStatus:
    """The state of one server.

    Attributes:
        name: Its name.
        state: `unhealthy` means that it runs but does not answer.
        detail: Its address, or what is wrong.
        pid: Its process id; None if it does not run.
    """

    name: str
    state: Literal["running", "stopped", "unhealthy"]
    detail: str
    pid: int | None


def _ignore(_line: str) -> None:
    pass


def up(
    home: Path,
    *,
    topics: Sequence[str],
    own_key: SecretStr | None = None,
    upgrade: bool = False,
    report: Report = _ignore,
) -> Connection:
    """Start what does not run, create missing topics, write `connection.json`.

    Args:
        home: The state folder.
        topics: Names of topics to create.
        own_key: WITHDRAWN_KEY, if it is set.
        upgrade: Whether to upgrade data that older servers made.
        report: Receives a line per step that takes long, from several threads.

    Raises:
        PlatformError: A server does not start; a server that did start keeps running.
    """
    home = home.resolve()
    with _alone(home):
        make_private_folder(home)
        with ThreadPoolExecutor() as pool:
            cancelled = Event()
            broker = pool.submit(kafka.start, home, report, cancelled, upgrade=upgrade)
            server = pool.submit(postgres.start, home, report, cancelled, upgrade=upgrade)
            starts: list[Future[Any]] = [broker, server]
            try:
                wait(starts)
            except KeyboardInterrupt:
                # Left alone, the threads would still start servers.
                cancelled.set()
                raise
        connection = _connection(broker.result(), server.result())
        suppression_key.keep(home, connection.postgres_url, own_key)
        create_topics(broker.result(), topics)
        text = json.dumps(asdict(connection), indent=2)
        write_atomically(home / "connection.json", f"{text}\n")
        return connection


def _connection(access: KafkaAccess, postgres_url: str) -> Connection:
    assert access.sasl_username is not None, "the broker asks for a login"
    assert access.sasl_password is not None, "the broker asks for a login"
    return Connection(
        access.servers,
        access.security_protocol,
        access.sasl_mechanism,
        access.sasl_username,
        access.sasl_password.get_secret_value(),
        postgres_url,
    )


def down(
    home: Path, *, wipe: bool = False, keep_key: bool = False, report: Report = _ignore
) -> bool:
    """Stop what runs; with `wipe` also remove everything that `up` created in the state folder.

    Other files in the state folder stay, and so do the programs in the cache. With `keep_key` the
    key of the suppression list stays as well.

    Returns:
        Whether anything ran.

    Raises:
        PlatformError: A server does not stop or runs elsewhere, or a file cannot be removed.
    """
    home = home.resolve()
    with _alone(home):
        if home.exists():
            check_own(home)
        for module, name in ((kafka, "Kafka"), (postgres, "PostgreSQL")):
            if module.is_elsewhere(home):
                raise ServerElsewhereError(
                    f"{name} of {home} runs where this process cannot see it (in another"
                    " container?); stop it there"
                )
        broker, server = kafka.find(home), postgres.find(home)
        if broker:
            report("stopping Kafka")
            kafka.stop_server(broker)
        if server:
            report("stopping PostgreSQL")
            postgres.stop_server(server)
        if wipe and home.exists():
            report(f"removing the data of the embedded stack in {home}")
            postgres.wipe(home)
            kafka.wipe(home)
            (home / "connection.json").unlink(missing_ok=True)
            if not keep_key:
                (home / SUPPRESSION_KEY_FILE).unlink(missing_ok=True)
        return bool(broker or server)


def status(home: Path) -> list[ServiceStatus]:
    """Return the states of Kafka and PostgreSQL of the state folder `home`."""
    home = home.resolve()
    return [
        _service_status("Kafka", kafka.find(home), kafka.port(home), lambda: kafka.answers(home)),
        _service_status(
            "PostgreSQL", postgres.find(home), postgres.port(home), lambda: postgres.answers(home)
        ),
    ]


def is_running(home: Path) -> bool:
    """Return whether both servers of the state folder `home` have a process."""
    home = home.resolve()
    return kafka.find(home) is not None and postgres.find(home) is not None


def _service_status(
    name: str, process: psutil.Process | None, port: int | None, answers: Callable[[], bool]
) -> ServiceStatus:
    if process is None:
        return ServiceStatus(name, "stopped", "not running", None)
    if answers():
        return ServiceStatus(name, "running", f"127.0.0.1:{port}", process.pid)
    return ServiceStatus(name, "unhealthy", "does not answer; run: mastodon-assets up", process.pid)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Allow one `up` or `down` at a time. The lock is in the cache, so that a wipe leaves none."""
    locks = cache_dir() / "locks"
    locks.mkdir(exist_ok=True)
    name = sha256(str(home).encode()).hexdigest()[:16]
    try:
        with FileLock(locks / f"{name}.lock", timeout=600):
            yield
    except Timeout as error:
        raise StackBusyError(
            f"another mastodon-assets up or down has been at work on {home} for ten minutes; wait "
            "for it or stop it"
        ) from error
    except OSError as error:
        raise StateFolderError(
            f"cannot use {error.filename or home}: {error.strerror or error}; check the disk and"
            f" the file's owner"
        ) from error
