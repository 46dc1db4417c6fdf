"""Dead letters of both kinds, as the stream and the ingester write them."""

from typing import Any

from mastodon_assets.config.settings import Settings
from mastodon_assets.kafka.publisher import publishing
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.records import as_value


def keep(settings: Settings, *payloads: Any, reason: str = "was refused") -> None:
    """Rows of `toots_rejected` with these payloads, offsets counted up, each a second later."""
    with transaction(settings.postgres_url) as connection:
        for payload in payloads:
            connection.execute(
                "INSERT INTO masto.toots_rejected"
                " (topic, partition, kafka_offset, reason, payload, message_key, rejected_at)"
                " SELECT %s, 0, n, %s, %s, %s, '2026-11-20 12:00+00'::timestamptz"
                " + n * interval '1 s' FROM (SELECT coalesce(max(kafka_offset) + 1, 0) AS n"
                " FROM masto.toots_rejected) c",
                (settings.kafka_topic, reason, as_value(payload), b"a key"),
            )


def fail(platform: Settings, payload: str | None, **changes: str) -> None:
    """An entry of the errors topic, as the ingester writes it."""
    entry = {"reason": "contract", "error": "odd", "origin": "stream", "instance": "one.example"}
    with publishing(platform) as publisher:
        publisher.publish_error(payload=payload, **{**entry, **changes})
        publisher.flush()
