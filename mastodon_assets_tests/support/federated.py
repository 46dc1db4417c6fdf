"""Two simulated servers that federate, both read into Kafka and the tables, without Spark.

What belongs here: one trial. One server blocks the other in its middle, and the other deletes some
of its own posts after that, of which the first hears nothing.
"""

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from mastodon_assets.config.settings import Settings
from mastodon_assets.ingest import event_queue, source_worker, supervisor
from mastodon_assets.ingest.policy.consent import withheld_reason
from mastodon_assets.simulator.faults import Refusal
from mastodon_assets.simulator.federation import FederatedSource
from mastodon_assets.simulator.server import SimulatorServer, running, synthetic_source
from mastodon_assets.simulator.timeline import PageRequest
from mastodon_assets.warehouse.database import connect
from mastodon_assets_tests.support.bounded_source import BoundedSource
from mastodon_assets_tests.support.merged_tables import MergedTables

HOME, ABROAD = "b.fed.example", "a.gts.example"
_SETTLE_SECONDS, _DELETED_AT_HOME = 90.0, 5


@dataclass(frozen=True)
class Federation:
    """What a trial left in the tables.

    Attributes:
        published: Posts that a server lists at the end and consent allows.
        missing: Of these, the ones that are not in the tables.
        kept_wrongly: Posts in the tables that no server lists any more.
        deleted_abroad: Deletes that the blocking server sent.
        requests: Requests to both servers.
    """

    published: int
    missing: int
    kept_wrongly: int
    deleted_abroad: int
    requests: int


def measure_federation(settings: Settings, *, posts: int, rate: float, seed: int = 5) -> Federation:
    """Run a trial on empty tables and an empty topic.

    Args:
        settings: Kafka and PostgreSQL.
        posts: Live posts of each server, a part of them local.
        rate: Posts per second of each server.
        seed: Of the posts.
    """
    home, abroad = (
        FederatedSource(
            BoundedSource(
                synthetic_source(toots=60, days=1, seed=seed, rate=rate, domain=domain), posts
            ),
            domain,
        )
        for domain in (HOME, ABROAD)
    )
    requests: list[str] = []

    def count(path: str) -> Refusal | None:
        requests.append(path)
        return None

    with ExitStack() as stack:
        home.send_to(abroad)
        abroad.send_to(home)
        servers = [
            stack.enter_context(running(source, domain=source.domain, refuse=count))
            for source in (home, abroad)
        ]
        stack.enter_context(_ingesting(settings, servers))
        tables = MergedTables(settings, stack.enter_context(connect(settings.postgres_url)))
        _merge_for(tables, posts / rate / 2)
        deleted = abroad.block()
        _merge_for(tables, posts / rate / 2)
        local = home.page(PageRequest(limit=_DELETED_AT_HOME, is_local=True))
        home.remove([entry.status_id for entry in local])
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            tables.merge()
            expected, found = _listed(home, abroad), tables.uris()
            if expected == found or time.monotonic() > deadline:
                break
            time.sleep(0.5)
    return Federation(
        len(expected), len(expected - found), len(found - expected), len(deleted), len(requests)
    )


def _merge_for(tables: MergedTables, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        tables.merge()
        time.sleep(0.3)


def _listed(*sources: FederatedSource) -> set[str]:
    """Return the uris of the posts that may be read; `noindex` is told by home alone."""
    documents: list[Mapping[str, Any]] = [
        json.loads(entry.body())
        for source in sources
        for entry in source.page(PageRequest(limit=100_000))
    ]
    refused = {
        document["uri"]
        for document in documents
        if withheld_reason(document, policy="respect") is not None
    }
    return {str(document["uri"]) for document in documents} - refused


@contextmanager
def _ingesting(settings: Settings, servers: Sequence[SimulatorServer]) -> Iterator[None]:
    ending = threading.Event()
    addresses = [server.base_url.removeprefix("http://") for server in servers]
    tokens = (f"{a}={server.token}" for a, server in zip(addresses, servers, strict=True))
    named = Settings.model_validate(
        settings.model_dump()
        | {
            "mastodon_api_base_url": ",".join(server.base_url for server in servers),
            "mastodon_access_token": ",".join(tokens),
        }
    )

    def read() -> None:
        supervisor.ingest(named, max_events=None, until_caught_up=False, should_stop=ending.is_set)

    with (
        mock.patch.object(source_worker, "_COMMIT_SECONDS", 0.5),
        mock.patch.object(event_queue, "SECONDS_BETWEEN_QUESTIONS", 0.5),
    ):
        thread = threading.Thread(target=read, name="ingest")
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()
