"""Streams as real servers sent them, byte for byte, through our client to the last event."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from mastodon_assets.contract.messages import encode
from mastodon_assets.ingest.api.client import MastodonClient
from mastodon_assets.ingest.api.errors import RefusedError
from mastodon_assets.ingest.api.event_stream import StreamEvent
from mastodon_assets.ingest.handler import EventHandler
from mastodon_assets.ingest.policy.admission import AdmissionPolicy
from mastodon_assets.simulator.server import running
from mastodon_assets.simulator.sources import RawStream
from mastodon_assets.warehouse.suppression_list import SuppressionList
from mastodon_assets_tests.support.odd_server import Answer, odd_server
from mastodon_assets_tests.support.shared_data import RECORDED

pytestmark = pytest.mark.usefixtures("loopback")

STREAMS = [
    "real_mastodon_public.txt",
    "real_mastodon_burst_out_of_order.txt",
    "docs_mastodon_examples.txt",
    "mastodon_mock_0.6.1_public.txt",
]


def recorded(name: str) -> Path:
    path = RECORDED / "sse" / name
    if not path.is_file():
        pytest.skip(f"no recorded stream at {path}")
    return path


def frames(path: Path) -> list[tuple[str, str]]:
    """Name and data of each event, read in another way than the client does."""
    found = []
    for block in path.read_text("utf-8").split("\n\n"):
        fields: dict[str, list[str]] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
        if "event" in fields:
            found.append((fields["event"][-1], "\n".join(fields.get("data", []))))
    return found


def read(path: Path) -> list[StreamEvent]:
    """All events of the file, as our client has them from a server that sends its bytes."""
    read_events: list[StreamEvent] = []
    expected = len(frames(path))
    with running(RawStream(path)) as server:
        client = MastodonClient(server.base_url, SecretStr(server.token))
        with client.open_stream() as stream:
            for event in stream:
                read_events.append(event)
                if len(read_events) == expected:
                    break
    return read_events


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_is_read_to_its_last_event(name: str) -> None:
    path = recorded(name)
    expected = frames(path)
    assert len(expected) > 1
    assert [(event.name, event.data) for event in read(path)] == expected


class _Kafka:
    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.errors: list[dict[str, Any]] = []

    def publish(self, message: dict[str, Any]) -> None:
        encode(message)
        self.messages.append(message)

    def publish_error(self, **document: Any) -> None:
        self.errors.append(document)


@pytest.mark.parametrize("name", STREAMS)
def test_every_event_of_a_recorded_stream_is_accounted_for(name: str) -> None:
    path = recorded(name)
    kinds = Counter(name for name, _ in frames(path))
    statuses = kinds["update"] + kinds["status.update"] + kinds["status_update"]
    kafka = _Kafka()
    handler = EventHandler(
        kafka,  # type: ignore[arg-type]
        instance="one.example",
        policy=AdmissionPolicy(),
        suppression_list=SuppressionList,
    )
    for event in read(path):
        handler.handle_event(event)

    summary = handler.summary
    assert summary.received == statuses + kinds["delete"]
    assert summary.ignored == kinds.total() - summary.received
    settled = summary.upserts + summary.duplicates + summary.withheld.total()
    assert settled + summary.errors.total() == statuses
    assert summary.errors.total() == len(kafka.errors)
    assert len(kafka.messages) == summary.upserts + summary.deletes
    assert summary.upserts > 0


def test_the_recorded_refusal_is_about_the_token() -> None:
    head, body = recorded("error_401_no_token.http.txt").read_bytes().split(b"\r\n\r\n")
    status = int(head.split()[1])
    with odd_server({"/api/v1/streaming/public": Answer(body, status)}) as server:
        client = MastodonClient(server.base_url, None)
        with pytest.raises(RefusedError, match="it wants a token") as refused, client.open_stream():
            pass
    assert refused.value.is_of_token
