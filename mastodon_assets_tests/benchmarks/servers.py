"""Read each simulated software for a while, and count what is missing.

    python -m mastodon_assets_tests.benchmarks.servers --seconds 30 --rate 5 --unsent 0.1 --late 2

Each server posts live; a stream leaves out the share `--unsent` of the posts without a disconnect,
as Mastodon's does under load, and the timeline lists each post up to `--late` seconds after its id
was made, as GoToSocial does with several writers. Audits run every three seconds instead of every
ten minutes. *Published* are the posts that the server lists and consent allows, *missing* those of
them that are not in Kafka, *deleted wrongly* deletes of posts that the server has. *Delay* is the
longest time from a post to its receipt.
"""

import argparse
import json
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
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
from mastodon_assets.ingest import supervisor
from mastodon_assets.ingest.api.software import Software, software_of
from mastodon_assets.ingest.api.status_ids import inner_post
from mastodon_assets.ingest.policy.consent import withheld_reason
from mastodon_assets.ingest.recovery import audit
from mastodon_assets.kafka.topics import create_topics
from mastodon_assets.simulator.faults import Refusal, Unsent
from mastodon_assets.simulator.personalities import PERSONALITIES
from mastodon_assets.simulator.server import SimulatorServer, running, synthetic_source
from mastodon_assets.simulator.sources import Frame, Source, StreamInterrupted
from mastodon_assets.simulator.timeline import Entry, PageRequest
from mastodon_assets_tests.support.databases import new_database
from mastodon_assets_tests.support.mock_broker import broker_of

_AUDIT_SECONDS, _GRACE_SECONDS, _SETTLE_SECONDS = 3.0, 2.0, 60.0


@dataclass(frozen=True)
class Counts:
    """What one server published, and what became of it."""

    published: int
    in_kafka: int
    missing: int
    deleted_wrongly: int
    requests: int
    longest_delay_seconds: float


class _Bounded:
    """A source that posts `posts` live posts and no more."""

    def __init__(self, source: Source, posts: int, late: float) -> None:
        self._source = source
        self._posts = posts
        self._late = late
        self.greeting = source.greeting
        self.is_over = False

    def history(self) -> Iterator[Frame]:
        return self._source.history()

    async def live(self) -> AsyncIterator[Frame | StreamInterrupted]:
        posted = 0
        async for item in self._source.live():
            yield item
            posted += 1
            if posted == self._posts:
                break
        self.is_over = True

    def page(self, request: PageRequest) -> list[Entry]:
        now = time.time()
        return [entry for entry in self._source.page(request) if self._shown_at(entry) <= now]

    def _shown_at(self, entry: Entry) -> float:
        """Return when the row of an id appears: its own time, and a part of the delay."""
        share = int(entry.status_id) % 1009 / 1009
        return (int(entry.status_id) >> 16) / 1000 + share * self._late

    def status(self, status_id: str) -> bytes | None:
        return self._source.status(status_id)


def main() -> None:
    arguments = _arguments()
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
                        **stack.kafka_settings,
                        kafka_topic=topic,
                        database_url=url,
                        mastodon_assets_home=home,
                    )
                    results[name] = measure(
                        settings,
                        name,
                        posts=int(arguments.seconds * arguments.rate),
                        rate=arguments.rate,
                        unsent=arguments.unsent,
                        late=arguments.late,
                    )
        finally:
            embedded.down(home, wipe=True)
    _print(results)
    if arguments.json:
        counts = {name: asdict(found) for name, found in results.items()}
        arguments.json.write_text(json.dumps(counts, indent=2))


def measure(
    settings: Settings, name: str, *, posts: int, rate: float, unsent: float, late: float
) -> Counts:
    """Read a server of the software `name` until all its posts are in Kafka, or for a minute."""
    domain = f"{name}.example"
    source = _Bounded(
        synthetic_source(toots=60, days=1, seed=1, rate=rate, domain=domain), posts, late
    )
    requests: list[str] = []

    def count(path: str) -> Refusal | None:
        requests.append(path)
        return None

    began = datetime.now(UTC) - timedelta(seconds=1)
    broker = broker_of(settings)
    found = Counts(0, 0, 0, 0, 0, 0)
    with (
        running(
            Unsent(source, unsent), domain=domain, personality=PERSONALITIES[name], refuse=count
        ) as server,
        _ingesting(settings, server),
    ):
        deadline = time.monotonic() + posts / rate + _SETTLE_SECONDS
        while time.monotonic() < deadline:
            time.sleep(1 + late)
            if not source.is_over:
                continue
            made = len(requests)
            listed = _listed(server, began)
            del requests[made:]
            messages = broker.messages(settings.kafka_topic)
            found = _counts(listed, messages, len(requests))
            if not found.missing:
                break
    return found


@contextmanager
def _ingesting(settings: Settings, server: SimulatorServer) -> Iterator[None]:
    ending = threading.Event()
    named = settings.model_copy(
        update={
            "mastodon_api_base_url": server.base_url,
            "mastodon_access_token": SecretStr(server.token),
            "audit_minutes": 1,
        }
    )

    def read() -> None:
        supervisor.ingest(named, max_events=None, until_caught_up=False, should_stop=ending.is_set)

    with (
        mock.patch.object(supervisor, "_MINUTE_SECONDS", _AUDIT_SECONDS),
        mock.patch.object(audit, "GRACE", timedelta(seconds=_GRACE_SECONDS)),
    ):
        thread = threading.Thread(target=read, name="ingest")
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()


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
    listed: Mapping[str, Mapping[str, Any]], messages: list[dict[str, Any]], requests: int
) -> Counts:
    upserts = {each["uri"]: each for each in messages if each["op"] == "upsert"}
    deleted = {each["id"] for each in messages if each["op"] == "delete"}
    delays = [
        datetime.fromisoformat(upserts[uri]["received_at"])
        - datetime.fromisoformat(upserts[uri]["created_at"])
        for uri in listed
        if uri in upserts
    ]
    return Counts(
        published=len(listed),
        in_kafka=len(listed.keys() & upserts.keys()),
        missing=len(listed.keys() - upserts.keys()),
        deleted_wrongly=sum(status["id"] in deleted for status in listed.values()),
        requests=requests,
        longest_delay_seconds=max(delays, default=timedelta()).total_seconds(),
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rate", type=float, default=5)
    parser.add_argument("--unsent", type=float, default=0.1)
    parser.add_argument("--late", type=float, default=2)
    parser.add_argument("--software", action="append", choices=list(PERSONALITIES))
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _print(results: Mapping[str, Counts]) -> None:
    table = Table("software", *(name.replace("_", " ") for name in Counts.__dataclass_fields__))
    for name, counts in results.items():
        values = asdict(counts).values()
        shown = (f"{each:,.1f}" if isinstance(each, float) else f"{each:,}" for each in values)
        table.add_row(name, *shown)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
