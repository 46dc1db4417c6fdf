"""Ingest for minutes from a server in bad weather; then Kafka is compared with what happened.

    python -m mastodon_assets_tests.benchmarks.soak --minutes 10 --rate 5 --fault-every 10
    python -m mastodon_assets_tests.benchmarks.soak --minutes 6 --rate 200 --longest-walk 4

The whole ingester, a real Kafka and a real PostgreSQL; the simulator refuses what Mastodon's own
limits refuse. Exit status 1 where a post or a delete is missing that is not in the range of a gap
on record, or where a range holds a post that is not missing. At a rate that the limits cannot cover
only connections fail: what a stream keeps silent about without ending, nobody can put on record. A
gap is given up when its walk has taken an hour, or `--longest-walk` minutes. When the weather is
good again a few posts go on until all gaps are settled: a quarter of an hour in all at 5 posts/s,
half an hour at 200.
"""

import argparse
import json
import logging
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from confluent_kafka import Consumer, TopicPartition
from pydantic import SecretStr
from rich.console import Console

from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.embedded import stack as embedded
from mastodon_assets.ingest import event_queue, gap_repair, source_worker
from mastodon_assets.ingest.api import client, event_stream, rate_limits
from mastodon_assets.ingest.policy.consent import withheld_reason
from mastodon_assets.ingest.recovery import timeline_walk
from mastodon_assets.ingest.source_states import read_sources
from mastodon_assets.ingest.supervisor import ingest
from mastodon_assets.kafka.client import client_config
from mastodon_assets.simulator.chaos import CONNECTION_KINDS, KINDS, ChaosServer, Ids, Kind
from mastodon_assets.simulator.limits import ALL, PAGED, Limit, RequestLimits
from mastodon_assets.simulator.server import running
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.databases import new_database
from mastodon_assets_tests.support.ports import free_port

_TOKEN = "soak"
_POLL_SECONDS = 0.2
_HEARTBEATS_A_FAULT = 10
# What the limits can bring back (300 pages of 40 posts in 15 minutes) with room for faults.
_COVERED_RATE = 12


@dataclass(frozen=True)
class Plan:
    """`settle_seconds` is how long the ingester may take after the last fault."""

    seconds: float
    rate: float
    fault_seconds: float
    longest_walk_seconds: float
    settle_seconds: float
    every: Limit = ALL
    paged: Limit = PAGED
    commit_seconds: float = 5
    kinds: Sequence[Kind] = KINDS
    ids: Ids = "snowflake"


@dataclass
class Result:
    """`missing` are posts that should be in Kafka, `undeleted` posts there whose delete is not.

    `recorded` are those of the missing that lie in the range of a gap on record, `overstated` posts
    in such a range that are not missing. `gaps` counts by status.
    """

    posts: int
    deletes: int
    published: int
    duplicates: int
    faults: dict[str, int]
    gaps: dict[str, int]
    refused: int
    settled: bool
    missing: list[str]
    recorded: list[str]
    overstated: list[str]
    undeleted: list[str]

    @property
    def holds(self) -> bool:
        """Nothing is missing but what is on record, exactly."""
        is_exact = set(self.missing) == set(self.recorded) and not self.overstated
        # A delete in a gap that the limits left open could not be asked for.
        is_complete = "partial" not in self.gaps and "unrecoverable" not in self.gaps
        return self.settled and is_exact and not (self.undeleted and is_complete)


def main() -> None:
    arguments = _arguments()
    seconds = arguments.minutes * 60
    kinds = KINDS if arguments.rate <= _COVERED_RATE else CONNECTION_KINDS
    plan = Plan(
        seconds=seconds,
        rate=arguments.rate,
        fault_seconds=arguments.fault_every,
        longest_walk_seconds=arguments.longest_walk * 60,
        # A walk that is given up is followed by one for the gaps that came meanwhile; each asks for
        # deletes too, which takes a quarter of an hour inside the limits.
        settle_seconds=2 * arguments.longest_walk * 60 + 3600,
        kinds=kinds,
    )
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "state"
        stack = embedded.up(home, topics=["mastodon_stream", "mastodon_errors"])
        try:
            with new_database(stack) as url:
                settings = load_settings(
                    _env_file=None,
                    **stack.kafka_settings,
                    database_url=url,
                    mastodon_assets_home=home,
                )
                result = soak(settings, plan, report=Console(stderr=True).print)
        finally:
            embedded.down(home, wipe=True)
    shown = asdict(result) | {
        name: len(getattr(result, name)) for name in ("missing", "recorded", "overstated")
    }
    Console().print_json(json.dumps(shown | {"holds": result.holds}))
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(result) | {"holds": result.holds}, indent=2))
    raise SystemExit(0 if result.holds else 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=float, default=5, help="posts per second")
    parser.add_argument("--fault-every", type=float, default=10, help="seconds")
    parser.add_argument("--longest-walk", type=float, default=60, help="minutes")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def soak(settings: Settings, plan: Plan, *, report: Callable[[str], None]) -> Result:
    """Run the plan and compare."""
    chaos = ChaosServer(
        seed=1, rate=plan.rate, fault_seconds=plan.fault_seconds, kinds=plan.kinds, ids=plan.ids
    )
    limits = RequestLimits(every=plan.every, paged=plan.paged)
    port = free_port()
    named = settings.model_copy(
        update={
            "mastodon_api_base_url": f"http://127.0.0.1:{port}",
            "mastodon_access_token": SecretStr(_TOKEN),
        }
    )
    with _as_from_far_away(plan), _serving(chaos, plan, limits, port):
        reader = _Ingest(named, report)
        reader.start()
        reader.wait_until_connected()
        # The stream does not send what was posted before.
        before = set(chaos.posts)
        chaos.start_faults()
        time.sleep(plan.seconds)
        chaos.stop_faults()
        # A gap whose walk was given up is closed by the next post of the stream.
        settled = _wait_until_settled(
            settings, plan.settle_seconds, quiet_seconds=3 * plan.commit_seconds
        )
        chaos.stop_posting()
        settled = _wait_until_read(settings, chaos, plan.settle_seconds) and settled
        reader.end()
    return _compare(settings, chaos, before, settled=settled, refused=limits.refused)


class _LineHandler(logging.Handler):
    def __init__(self, report: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        self._report(record.getMessage())


class _Ingest(threading.Thread):
    def __init__(self, settings: Settings, report: Callable[[str], None]) -> None:
        super().__init__(name="ingest", daemon=True)
        self._settings = settings
        self._report = report
        self._is_connected = threading.Event()
        self._stopped = threading.Event()
        self._error: BaseException | None = None

    def run(self) -> None:
        handler = _LineHandler(self._tell)
        logger = logging.getLogger("mastodon_assets.ingest")
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        try:
            ingest(
                self._settings,
                max_events=None,
                until_caught_up=False,
                should_stop=self._stopped.is_set,
            )
        except BaseException as error:
            self._error = error
            self._is_connected.set()
        finally:
            logger.removeHandler(handler)

    def wait_until_connected(self) -> None:
        assert self._is_connected.wait(30), "no connection"
        self._raise()

    def end(self) -> None:
        self._stopped.set()
        self.join(60)
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _tell(self, line: str) -> None:
        self._report(line)
        if "connected" in line:
            self._is_connected.set()


@contextmanager
def _as_from_far_away(plan: Plan) -> Iterator[None]:
    """The ingester with limits as for a foreign server, and with waits in the plan's measure."""
    every = Limit(plan.every.requests * 2 // 3, plan.every.seconds)
    with (
        mock.patch.object(client.MastodonClient, "is_on_this_machine", False),
        mock.patch.object(
            event_stream, "SILENCE_SECONDS", 3 * plan.fault_seconds / _HEARTBEATS_A_FAULT
        ),
        mock.patch.object(event_queue, "REFUSED_TOKEN_SECONDS", plan.fault_seconds / 4),
        mock.patch.object(rate_limits, "_PAGED_REQUESTS", plan.paged.requests),
        mock.patch.object(rate_limits, "_PAGED_SECONDS", plan.paged.seconds),
        mock.patch.object(rate_limits, "_EVERY_REQUESTS", every.requests),
        mock.patch.object(rate_limits, "_EVERY_SECONDS", every.seconds),
        mock.patch.object(source_worker, "_COMMIT_SECONDS", plan.commit_seconds),
        mock.patch.object(timeline_walk, "_LONGEST_WALK_SECONDS", plan.longest_walk_seconds),
        mock.patch.object(
            gap_repair, "SECONDS_UNTIL_GOING_ON", min(60, plan.longest_walk_seconds / 8)
        ),
    ):
        yield


@contextmanager
def _serving(chaos: ChaosServer, plan: Plan, limits: RequestLimits, port: int) -> Iterator[None]:
    """The server, down for a moment whenever the chaos wants it to begin again."""
    ending, is_up = threading.Event(), threading.Event()

    def serve() -> None:
        while not ending.is_set():
            with running(
                chaos,
                port=port,
                token=_TOKEN,
                heartbeat_seconds=plan.fault_seconds / _HEARTBEATS_A_FAULT,
                refuse=chaos.refusal,
                limits=limits,
            ):
                is_up.set()
                while not ending.is_set() and not chaos.restart_wanted.wait(_POLL_SECONDS):
                    pass
            chaos.restart_wanted.clear()
            ending.wait(plan.fault_seconds / 5)

    thread = threading.Thread(target=serve, name="server")
    thread.start()
    try:
        assert is_up.wait(30), "the server did not come up"
        yield
    finally:
        ending.set()
        thread.join()


def _wait_until_settled(settings: Settings, seconds: float, *, quiet_seconds: float) -> bool:
    """No gap waits any more, and none was recorded for `quiet_seconds`."""
    deadline = time.monotonic() + seconds
    quiet_since = None
    while time.monotonic() < deadline:
        is_open = "open" in _gap_counts(settings)
        now = time.monotonic()
        quiet_since = None if is_open else quiet_since or now
        if quiet_since is not None and now - quiet_since > quiet_seconds:
            return True
        time.sleep(_POLL_SECONDS)
    return False


def _wait_until_read(settings: Settings, chaos: ChaosServer, seconds: float) -> bool:
    """Everything up to the newest post is acknowledged by Kafka, and no gap waits."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        if _cursor(settings) == chaos.newest_id() and "open" not in _gap_counts(settings):
            return True
    return False


def _cursor(settings: Settings) -> str | None:
    (source,) = read_sources(settings.postgres_url)
    return source.cursor


def _gap_counts(settings: Settings) -> dict[str, int]:
    return dict(Counter(status for status, _, _ in _gaps(settings)))


def _gaps(settings: Settings) -> list[tuple[str, str | None, str | None]]:
    with transaction(settings.postgres_url, snapshot=True) as connection:
        return connection.execute(
            "SELECT status, from_id, to_id FROM masto.stream_gaps ORDER BY started_at"
        ).fetchall()


def _compare(
    settings: Settings, chaos: ChaosServer, before: set[str], *, settled: bool, refused: int
) -> Result:
    messages = read_messages(settings)
    upserts = Counter(message["id"] for message in messages if message["op"] == "upsert")
    deleted = {message["id"] for message in messages if message["op"] == "delete"}
    wanted = {
        status_id
        for status_id, status in chaos.posts.items()
        if status_id not in before and withheld_reason(status, policy="respect") is None
    }
    alive = wanted - chaos.deleted
    missing = alive - set(upserts)
    in_ranges = {
        status_id
        for status, from_id, to_id in _gaps(settings)
        if status in ("partial", "unrecoverable")
        for status_id in alive
        if chaos.is_between(status_id, from_id, to_id)
    }
    return Result(
        posts=len(wanted),
        deletes=len(chaos.deleted & wanted),
        published=len(messages),
        duplicates=sum(upserts.values()) - len(upserts),
        faults=dict(chaos.faults),
        gaps=_gap_counts(settings),
        refused=refused,
        settled=settled,
        missing=sorted(missing),
        recorded=sorted(missing & in_ranges),
        overstated=sorted(in_ranges - missing),
        undeleted=sorted((chaos.deleted & set(upserts)) - deleted),
    )


def read_messages(settings: Settings) -> list[dict[str, Any]]:
    """All messages of the topic."""
    consumer = Consumer({**client_config(settings), "group.id": "soak"})
    topic = settings.kafka_topic
    try:
        messages: list[dict[str, Any]] = []
        for partition in consumer.list_topics(topic, timeout=5).topics[topic].partitions:
            first, end = consumer.get_watermark_offsets(TopicPartition(topic, partition))
            consumer.assign([TopicPartition(topic, partition, first)])
            for _ in range(end - first):
                record = consumer.poll(10)
                assert record is not None
                value = record.value()
                assert value is not None
                messages.append(json.loads(value))
        return messages
    finally:
        consumer.close()


if __name__ == "__main__":
    main()
