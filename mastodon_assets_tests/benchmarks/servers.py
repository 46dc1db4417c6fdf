"""Read each simulated software for a while, and count what is missing.

    python -m mastodon_assets_tests.benchmarks.servers --seconds 30 --rate 5 --unsent 0.1 --late 2
    python -m mastodon_assets_tests.benchmarks.servers --seconds 3600 --rate 5 --pace 20

Each server posts live; a stream leaves out the share `--unsent` of the posts without a disconnect,
as Mastodon's does under load. Eight writers make ids and store each post up to `--late` seconds
later, as GoToSocial does, so posts appear in another order than their ids.

Without `--pace` nothing limits requests, and audits run every three seconds instead of every ten
minutes. With it the server has Mastodon's rate limits and the ingester its usual intervals, all of
them divided by the pace, as are `--seconds`, `--late` and `--settle`; `--rate` is multiplied. So
each simulated minute has as many posts, audits and allowed requests as a real one.

*Published* are the posts that the server lists and consent allows. *Missing* are those of them that
are not in Kafka, *in gaps* the missing ones that lie in the range of a gap on record, *deleted
wrongly* deletes of posts that the server has, *refused* requests that its limits refused. *Delay*
is the longest time from a post to its receipt.
"""

import argparse
import json
import logging
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.embedded import stack as embedded
from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest import supervisor
from mastodon_assets.ingest.api import rate_limits
from mastodon_assets.ingest.api.client import MastodonClient
from mastodon_assets.ingest.api.software import Software, software_of
from mastodon_assets.ingest.api.status_ids import inner_post
from mastodon_assets.ingest.policy.consent import withheld_reason
from mastodon_assets.ingest.recovery import audit, poll
from mastodon_assets.kafka.topics import create_topics
from mastodon_assets.simulator.faults import Refusal, Unsent
from mastodon_assets.simulator.limits import ALL, PAGED, Limit, RequestLimits
from mastodon_assets.simulator.personalities import PERSONALITIES
from mastodon_assets.simulator.server import SimulatorServer, running, synthetic_source
from mastodon_assets.warehouse.database import connect, transaction
from mastodon_assets_tests.support.bounded_source import BoundedSource
from mastodon_assets_tests.support.databases import new_database
from mastodon_assets_tests.support.merged_tables import MergedTables
from mastodon_assets_tests.support.mock_broker import broker_of

_UNLIMITED_AUDIT_SECONDS, _UNLIMITED_GRACE = 3.0, timedelta(seconds=2)
_POLL_SECONDS = 3.0


@dataclass(frozen=True)
class Counts:
    """What one server published, and what became of it."""

    published: int
    in_kafka: int
    in_tables: int
    missing: int
    in_gaps: int
    deleted_wrongly: int
    requests: int
    refused: int
    longest_delay_seconds: float


@dataclass(frozen=True)
class Plan:
    """What a server does; times are in real seconds. A `pace` of None means no limits."""

    posts: int
    rate: float
    unsent: float
    late: float
    settle: float
    pace: float | None


class _Limits(RequestLimits):
    """Rate limits that leave out the requests of this program."""

    is_counting = False

    def count(self, address: str) -> tuple[bool, dict[str, str]]:
        return (True, {}) if self.is_counting else super().count(address)


def main() -> None:
    arguments = _arguments()
    if arguments.verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    pace = arguments.pace or 1
    plan = Plan(
        posts=int(arguments.seconds * arguments.rate),
        rate=arguments.rate * pace,
        unsent=arguments.unsent,
        late=arguments.late / pace,
        settle=arguments.settle / pace,
        pace=arguments.pace,
    )
    results: dict[str, Counts] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "state"
        stack = embedded.up(home, topics=["mastodon_errors"])
        try:
            for name in arguments.software or PERSONALITIES:
                topic = f"stream_of_{name}"
                create_topics(stack.kafka_access, [topic])
                with new_database(stack) as url:
                    settings = load_settings(
                        _env_file=None,
                        **stack.kafka_settings,
                        kafka_topic=topic,
                        database_url=url,
                        mastodon_assets_home=home,
                    )
                    results[name] = measure(settings, name, plan)
        finally:
            embedded.down(home, wipe=True)
    _print(results)
    if arguments.json:
        counts = {name: asdict(found) for name, found in results.items()}
        arguments.json.write_text(json.dumps(counts, indent=2))


def measure(settings: Settings, name: str, plan: Plan) -> Counts:
    """Read a server of the software `name` until all its posts are in Kafka, or it takes too long.

    Args:
        settings: Kafka and PostgreSQL.
        name: The software.
        plan: What the server does.
    """
    domain = f"{name}.example"
    live = synthetic_source(toots=60, days=1, seed=1, rate=plan.rate, domain=domain)
    source = BoundedSource(live, plan.posts, late=plan.late)
    limits = None if plan.pace is None else _limits(plan.pace)
    requests: list[str] = []

    def count(path: str) -> Refusal | None:
        requests.append(path)
        return None

    began = datetime.now(UTC) - timedelta(seconds=1)
    broker = broker_of(settings)
    with (
        running(
            Unsent(source, plan.unsent),
            domain=domain,
            personality=PERSONALITIES[name],
            refuse=count,
            limits=limits,
        ) as server,
        _ingesting(settings, server, plan.pace),
    ):
        while not source.is_over:
            time.sleep(_POLL_SECONDS)
        time.sleep(plan.late)
        before = len(requests)
        if limits is not None:
            limits.is_counting = True
        listed = _listed(server, began)
        if limits is not None:
            limits.is_counting = False
        own = len(requests) - before
        deadline = time.monotonic() + plan.settle
        while True:
            messages = broker.messages(settings.kafka_topic)
            received = {each["uri"] for each in messages if each["op"] == "upsert"}
            if not listed.keys() - received or time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        made = len(requests) - own
    refused = 0 if limits is None else limits.refused
    return _counts(settings, listed, messages, requests=made, refused=refused)


def _limits(pace: float) -> _Limits:
    return _Limits(
        every=Limit(ALL.requests, ALL.seconds / pace),
        paged=Limit(PAGED.requests, PAGED.seconds / pace),
    )


@contextmanager
def _ingesting(settings: Settings, server: SimulatorServer, pace: float | None) -> Iterator[None]:
    ending = threading.Event()
    named = settings.model_copy(
        update={
            "mastodon_api_base_url": server.base_url,
            "mastodon_access_token": SecretStr(server.token),
        }
    )

    def read() -> None:
        with suppress(ServiceUnavailableError):
            # All that is asked for has been counted: it may end late.
            supervisor.ingest(
                named, max_events=None, until_caught_up=False, should_stop=ending.is_set
            )

    with _unlimited() if pace is None else _at_pace(pace):
        thread = threading.Thread(target=read, name="ingest")
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()


@contextmanager
def _unlimited() -> Iterator[None]:
    minute = _UNLIMITED_AUDIT_SECONDS / 10
    with (
        mock.patch.object(supervisor, "_MINUTE_SECONDS", minute),
        mock.patch.object(audit, "GRACE", _UNLIMITED_GRACE),
    ):
        yield


@contextmanager
def _at_pace(pace: float) -> Iterator[None]:
    """Divide the ingester's intervals, and limit it as it is limited at a foreign server."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(MastodonClient, "is_on_this_machine", False))
        for module, name in (
            (supervisor, "_MINUTE_SECONDS"),
            (audit, "GRACE"),
            (audit, "OVERLAP"),
            (poll, "OVERLAP"),
            (poll, "_SHORTEST_PAUSE_SECONDS"),
            (poll, "_LONGEST_PAUSE_SECONDS"),
            (poll, "_LONGEST_POLL_SECONDS"),
            (rate_limits, "_PAGED_SECONDS"),
            (rate_limits, "_EVERY_SECONDS"),
            (rate_limits, "_SHORTEST_PAUSE_SECONDS"),
        ):
            divided = getattr(module, name) / pace
            stack.enter_context(mock.patch.object(module, name, divided))
        yield


def _listed(server: SimulatorServer, began: datetime) -> dict[str, Mapping[str, Any]]:
    """Return the live posts that the server lists and consent allows, by uri."""
    headers = {"Authorization": f"Bearer {server.token}", "User-Agent": "benchmark"}
    with httpx.Client(base_url=server.base_url, headers=headers) as client:
        path = httpx.URL(client.get("/.well-known/nodeinfo").json()["links"][0]["href"]).path
        software: Software = software_of(client.get(path).json())
        found: dict[str, Mapping[str, Any]] = {}
        max_id, now = "", datetime.now(UTC)
        while page := client.get(f"/api/v1/timelines/public?limit=40{max_id}").json():
            for listed in page:
                status = software.said(inner_post(listed))
                # The history has posts with a time in the future.
                is_live = began <= datetime.fromisoformat(status["created_at"]) <= now
                if is_live and withheld_reason(status, policy="respect") is None:
                    found[status["uri"]] = status
            if datetime.fromisoformat(inner_post(page[-1])["created_at"]) < began:
                return found
            max_id = f"&max_id={page[-1]['id']}"
    return found


def _counts(
    settings: Settings,
    listed: Mapping[str, Mapping[str, Any]],
    messages: list[dict[str, Any]],
    *,
    requests: int,
    refused: int,
) -> Counts:
    upserts: dict[str, dict[str, Any]] = {}
    for each in messages:
        if each["op"] == "upsert":
            upserts.setdefault(each["uri"], each)
    deleted = {each["id"] for each in messages if each["op"] == "delete"}
    with connect(settings.postgres_url) as connection:
        tables = MergedTables(settings, connection)
        tables.merge()
        stored = tables.uris()
    missing = [listed[uri]["id"] for uri in listed.keys() - upserts.keys()]
    delays = [
        datetime.fromisoformat(upserts[uri]["received_at"])
        - datetime.fromisoformat(upserts[uri]["created_at"])
        for uri in listed
        if uri in upserts
    ]
    return Counts(
        published=len(listed),
        in_kafka=len(listed.keys() & upserts.keys()),
        in_tables=len(listed.keys() & stored),
        missing=len(missing),
        in_gaps=_in_gaps(settings, missing),
        deleted_wrongly=sum(status["id"] in deleted for status in listed.values()),
        requests=requests,
        refused=refused,
        longest_delay_seconds=max(delays, default=timedelta()).total_seconds(),
    )


def _in_gaps(settings: Settings, ids: list[str]) -> int:
    """Return how many of the ids lie in the range of a gap that is not recovered."""
    with transaction(settings.postgres_url, snapshot=True) as connection:
        ranges = connection.execute(
            "SELECT from_id, to_id FROM masto.stream_gaps WHERE status <> 'recovered'"
        ).fetchall()
    return sum(any(_is_between(each, *bounds) for bounds in ranges) for each in ids)


def _is_between(status_id: str, from_id: str | None, to_id: str | None) -> bool:
    def order(each: str) -> tuple[int, str]:
        return len(each), each

    is_after = from_id is None or order(from_id) <= order(status_id)
    return is_after and (to_id is None or order(status_id) <= order(to_id))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rate", type=float, default=5)
    parser.add_argument("--unsent", type=float, default=0.1)
    parser.add_argument("--late", type=float, default=2)
    parser.add_argument("--settle", type=float, default=60)
    parser.add_argument("--pace", type=float)
    parser.add_argument("--software", action="append", choices=list(PERSONALITIES))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--verbose", action="store_true", help="log what the ingester logs")
    return parser.parse_args()


def _print(results: Mapping[str, Counts]) -> None:
    table = Table("software", *(name.replace("_", " ") for name in Counts.__dataclass_fields__))
    for name, counts in results.items():
        values = asdict(counts).values()
        shown = (f"{each:,.1f}" if isinstance(each, float) else f"{each:,}" for each in values)
        table.add_row(name, *shown)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
