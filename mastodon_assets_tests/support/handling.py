"""An event handler whose messages stay in memory."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from mastodon_assets.contract.messages import Message, encode
from mastodon_assets.ingest.api.event_stream import StreamEvent
from mastodon_assets.ingest.api.software import UNKNOWN, Software
from mastodon_assets.ingest.handler import EventHandler
from mastodon_assets.ingest.homes import Homes
from mastodon_assets.ingest.policy.admission import AdmissionPolicy
from mastodon_assets.warehouse.suppression_list import SuppressionList

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


class Topics:
    """A publisher that keeps what it gets; it checks the contract as the real one does."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.errors: list[dict[str, Any]] = []

    def publish(self, message: Message) -> None:
        self.messages.append(json.loads(encode(message)))

    def publish_error(self, **error: Any) -> None:
        self.errors.append(error)

    def kinds(self) -> list[tuple[str, str]]:
        return [(message["op"], message["id"]) for message in self.messages]


class Handling:
    """An event handler and what it published."""

    def __init__(
        self,
        *,
        instance: str = "one.example",
        policy: AdmissionPolicy | None = None,
        suppression_list: Callable[[], SuppressionList] = SuppressionList,
        software: Software = UNKNOWN,
        timeline: str = "public",
        homes: Homes | None = None,
    ) -> None:
        self.topics = Topics()
        self.handler = EventHandler(
            self.topics,  # type: ignore[arg-type]
            instance=instance,
            policy=policy or AdmissionPolicy(),
            suppression_list=suppression_list,
            software=software,
            timeline=timeline,
            homes=homes,
        )
        self.summary = self.handler.summary

    def event(self, name: str, data: Any) -> str | None:
        text = data if isinstance(data, str) else json.dumps(data)
        return self.handler.handle_event(StreamEvent(name, text, NOW))

    def listed(self, document: Any) -> None:
        self.handler.handle_listed(document, NOW)

    def payloads(self) -> list[Any]:
        return [error["payload"] for error in self.topics.errors]
