"""What all tests share: their cost, the embedded stack, databases, topics, one Spark session.

Each server is started on first use and once per worker. No test is skipped for want of a server:
the project brings its own, and a test without it must fail.
"""

import gc
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer
from filelock import FileLock
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from pydantic import SecretStr

from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.embedded import stack as embedded
from mastodon_assets_tests.support.databases import left_database, without_fsync
from mastodon_assets_tests.support.java import QUICK_JVM, quick_starts
from mastodon_assets_tests.support.mock_broker import ERRORS, STREAM, Broker
from mastodon_assets_tests.support.shared_data import SHARED_DATA

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from mastodon_assets.sentiment.train import TrainingResult

# What a test may be skipped for in CI: recordings and cases that are no part of the project, and
# programs that not every machine can get.
_NOT_OURS = (
    *(str(SHARED_DATA), "MASTODON_ASSETS_CASES"),
    *("promtool", "kube-apiserver", "moto_server", "PostgreSQL 17"),
)

_topics = count(1)

# The same examples in every run. How long one takes says how busy the machine is, nothing else.
hypothesis_settings.register_profile(
    "repeatable", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("repeatable")


# What a test costs, cheapest first. A test costs what the dearest of its fixtures costs.
_COSTS = ("unit", "component", "system", "chaos")
_COST_OF_FIXTURE = {
    "loopback": "component",
    "processes": "component",
    "bare_broker": "component",
    "own_servers": "system",
    "stack": "system",
    "spark": "system",
}
# When the files of a cost have their turn, from first to last.
_TURNS = {"chaos": (0.0, 0.5), "system": (0.0, 1.0), "component": (0.0, 1.0), "unit": (1.0, 2.0)}
_FAULTS = Path(__file__).parent / "faults"
# What Python reports of itself when code leaves the process.
_LEAVES_THE_PROCESS = {
    "socket.connect": "loopback",
    "socket.bind": "loopback",
    "subprocess.Popen": "processes",
    "os.posix_spawn": "processes",
}


# Modules and collected tests stay until the end. To look through them again and again took a tenth
# of the time of tests in Python, and half of that of their collection.
gc.disable()


def pytest_collection_finish() -> None:
    """Search for garbage from now on, among what tests make."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test by its cost, so that `-m unit` and the like select by it.

    Workers get the files in the order that `_turns` gives.
    """
    for item in items:
        item.add_marker(_cost(item))
    if hasattr(config, "workerinput"):
        turns = _turns(items)
        items.sort(key=lambda item: (turns[item.path], -_COSTS.index(_cost(item))))


def _turns(items: list[pytest.Item]) -> dict[Path, float]:
    """Return each file's place in the order, from 0 to 1, or to 2 for files of unit tests alone.

    Faults and servers in the process mostly wait, Spark and Dagster compute: spread among each
    other, they leave no core idle. The cheap files at the end let all workers end together.
    """
    costs: dict[Path, str] = {}
    for item in items:
        costs[item.path] = max(costs.get(item.path, "unit"), _cost(item), key=_COSTS.index)
    turns = {}
    for cost, (first, last) in _TURNS.items():
        files = [file for file, of_file in costs.items() if of_file == cost]
        for place, file in enumerate(files):
            turns[file] = first + (last - first) * place / len(files)
    return turns


def _cost(item: pytest.Item) -> str:
    if item.get_closest_marker("chaos") or item.path.is_relative_to(_FAULTS):
        return "chaos"
    fixtures = getattr(item, "fixturenames", ())
    costs = [_COST_OF_FIXTURE[name] for name in fixtures if name in _COST_OF_FIXTURE]
    return max(costs, key=_COSTS.index, default="unit")


@pytest.fixture
def loopback() -> None:
    """The right to use sockets: the test starts or asks a server on this machine."""


@pytest.fixture
def processes() -> None:
    """The right to start processes."""


@pytest.fixture(scope="session")
def own_servers() -> None:
    """The right to start servers, Java or Dagster apart from those that the tests share."""


class _Watch:
    """Notes whether a unit test leaves its process.

    An audit hook cannot be removed, so there is one, which does nothing while no unit test runs.
    """

    def __init__(self) -> None:
        self.fixture_missed: str | None = None
        self.is_on = False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, _arguments: tuple[object, ...]) -> None:
        if self.is_on and event in _LEAVES_THE_PROCESS and _is_by_the_test():
            self.fixture_missed = _LEAVES_THE_PROCESS[event]


def _is_by_the_test() -> bool:
    """Whether the caller runs in the test's thread and is not Py4J, which frees Java's objects."""
    if threading.current_thread() is not threading.main_thread():
        return False
    frame = sys._getframe()
    while (caller := frame.f_back) is not None:
        if "py4j" in caller.f_code.co_filename:
            return False
        frame = caller
    return True


@pytest.fixture(scope="session")
def _watch() -> _Watch:
    return _Watch()


@pytest.fixture(autouse=True)
def _a_unit_test_stays_in_its_process(
    request: pytest.FixtureRequest, _watch: _Watch
) -> Iterator[None]:
    """Fail a test that is marked as cheaper than it is."""
    _watch.fixture_missed, _watch.is_on = None, "unit" in request.keywords
    yield
    _watch.is_on = False
    if _watch.fixture_missed is not None:
        pytest.fail(f"needs the fixture `{_watch.fixture_missed}`: it is no unit test")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI, a test skipped for a missing server or browser is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("CI"):
        return
    for report in reporter.stats.get("skipped", []):
        if not any(each in str(report.longrepr) for each in _NOT_OURS):
            reporter.write_line(f"skipped in CI, which is a failure: {report.nodeid}", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session", autouse=True)
def _only_our_own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No setting of the machine, and no `.env` of the current folder, reaches a test."""
    patch = pytest.MonkeyPatch()
    for name in Settings.model_fields:
        patch.delenv(name.upper(), raising=False)
    patch.delenv("DAGSTER_HOME", raising=False)
    patch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
    # How fast a command ends says how busy the machine is.
    patch.setenv("STOP_SECONDS", "60")
    for variable, options in quick_starts().items():
        patch.setenv(variable, options)
    patch.chdir(tmp_path_factory.mktemp("cwd"))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def stack_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stack") / "state"


@pytest.fixture(scope="session")
def stack(stack_folder: Path) -> Iterator[embedded.Connection]:
    """Kafka and PostgreSQL, up for the whole run."""
    try:
        connection = embedded.up(stack_folder, topics=["mastodon_stream", "mastodon_errors"])
        without_fsync(connection)
        yield connection
    finally:
        embedded.down(stack_folder, wipe=True)


@pytest.fixture(scope="module")
def database_url(stack: embedded.Connection) -> Iterator[SecretStr]:
    """An empty, migrated database of the module's own."""
    with left_database(stack) as url:
        yield url


@pytest.fixture
def fresh_database_url(stack: embedded.Connection) -> Iterator[SecretStr]:
    """An empty, migrated database of the test's own."""
    with left_database(stack) as url:
        yield url


@pytest.fixture
def topic(stack: embedded.Connection) -> str:
    """A topic of the test's own with four partitions."""
    from mastodon_assets.kafka.topics import create_topics

    name = f"stream_{next(_topics)}"
    create_topics(stack.kafka_access, [name])
    return name


@pytest.fixture
def settings(
    stack: embedded.Connection, fresh_database_url: SecretStr, topic: str, tmp_path: Path
) -> Settings:
    """Settings with a database and a topic of the test's own; files go to its folder."""
    return load_settings(
        mastodon_assets_home=tmp_path / "state",
        **stack.kafka_settings,
        kafka_topic=topic,
        database_url=fresh_database_url,
        reports_dir=tmp_path / "reports",
        exports_dir=tmp_path / "data",
        model_dir=tmp_path / "models",
        spark_master="local[2]",
    )


@pytest.fixture
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The same settings in the environment, where Dagster's resources read them."""
    from mastodon_assets.config.settings import as_environment

    for name, value in as_environment(settings).items():
        monkeypatch.setenv(name, value)
    return settings


@pytest.fixture(scope="session")
def spark() -> Iterator["SparkSession"]:
    """The one session of the run, configured as the product configures it."""
    from mastodon_assets.spark.session import build_session

    session = build_session(load_settings(spark_master="local[2]"), jvm_options=QUICK_JVM)
    yield session
    session.stop()


@pytest.fixture(scope="session")
def synthetic_model(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[["SparkSession", Settings], "TrainingResult"]:
    """`synthetic_model(spark, settings)`: registered with these settings, trained once per run.

    A complete folder is registered and not trained again, so each place gets a copy.
    """
    from mastodon_assets.sentiment.train import train

    # Of all workers: their temporary folders are in one of the run's.
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    base = tmp_path_factory.getbasetemp()
    kept = (base.parent if is_worker else base) / "kept_models"

    def registered(spark: "SparkSession", settings: Settings) -> "TrainingResult":
        with FileLock(f"{kept}.lock"):
            if kept.exists():
                shutil.copytree(kept, settings.model_dir, dirs_exist_ok=True)
            result = train(lambda: spark, settings, lambda line: None)
            if not kept.exists():
                shutil.copytree(result.path, kept / result.version)
        return result

    return registered


@pytest.fixture
def produce(stack: embedded.Connection, topic: str) -> Callable[..., None]:
    """`produce(messages, partition=0)`: to the test's topic, all acknowledged."""
    from confluent_kafka import Producer

    from mastodon_assets.kafka.client import config_of
    from mastodon_assets_tests.support.records import as_value

    producer = Producer({**config_of(stack.kafka_access), "acks": "all"})

    def send(messages: list[object], partition: int = 0) -> None:
        for message in messages:
            producer.produce(topic, value=as_value(message), key=b"key", partition=partition)
        assert producer.flush(30) == 0

    return send


@pytest.fixture
def bare_broker() -> Iterator[Broker]:
    """A broker without topics."""
    producer = Producer(
        {"test.mock.num.brokers": 1, "bootstrap.servers": "ignored:1", "log_level": 0}
    )
    address = next(iter(producer.list_topics(timeout=5).brokers.values()))
    yield Broker(f"{address.host}:{address.port}")
    producer.flush(1)


@pytest.fixture
def broker(bare_broker: Broker) -> Broker:
    producer = Producer({"bootstrap.servers": bare_broker.servers, "log_level": 0})
    for topic in (STREAM, ERRORS):
        producer.list_topics(topic, timeout=5)
    return bare_broker
