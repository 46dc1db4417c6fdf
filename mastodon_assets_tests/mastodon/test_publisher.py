import json
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.mastodon import publisher as publisher_module
from mastodon_assets.mastodon.normalise import to_delete, to_upsert
from mastodon_assets.mastodon.publisher import Publisher, publishing
from mastodon_assets.toots.contract import ContractError, Message
from mastodon_assets.toots.topics import TopicMissingError
from mastodon_assets_tests.mastodon.conftest import ERRORS, Broker
from mastodon_assets_tests.mastodon.documents import status

RECEIVED = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def message(status_id: str = "1", **changes: Any) -> Message:
    return to_upsert(
        status(status_id, **changes), instance="one.example", received_at=RECEIVED, origin="stream"
    )


def delete(status_id: str) -> Message:
    return to_delete(status_id, instance="one.example", received_at=RECEIVED, origin="stream")


def test_what_was_flushed_is_in_kafka(broker: Broker) -> None:
    with publishing(broker.settings()) as publisher:
        for number in range(500):
            publisher.publish(message(str(number)))
        publisher.publish(delete("3"))
        publisher.flush()

    sent = broker.messages()
    assert sorted(int(found["id"]) for found in sent if found["op"] == "upsert") == [*range(500)]
    assert [found["id"] for found in sent if found["op"] == "delete"] == ["3"]
    assert b"one.example/7" in broker.record_keys()


def test_what_breaks_the_contract_is_not_published(broker: Broker) -> None:
    with publishing(broker.settings()) as publisher:
        with pytest.raises(ContractError):
            publisher.publish(message(favourites_count="many"))
        publisher.flush()

    assert broker.messages() == []


def test_an_error_is_kept_whole(broker: Broker) -> None:
    payload = json.dumps(status("7"))
    with publishing(broker.settings()) as publisher:
        publisher.publish_error(
            reason="contract",
            error="half \ud83d of it",
            payload=payload,
            origin="stream",
            instance="one.example",
        )
        publisher.flush()

    (found,) = broker.messages(ERRORS)
    assert datetime.fromisoformat(found.pop("time")).tzinfo == UTC
    assert found == {
        "reason": "contract",
        "error": "half \ud83d of it",
        "payload": payload,
        "origin": "stream",
        "instance": "one.example",
    }


def test_a_payload_too_large_for_kafka_leaves_its_reason(broker: Broker) -> None:
    with publishing(broker.settings()) as publisher:
        with pytest.raises(ContractError, match="larger than Kafka takes"):
            publisher.publish(message(content="x" * 2_000_000))
        publisher.publish_error(
            reason="contract",
            error="too large",
            payload="x" * 2_000_000,
            origin="stream",
            instance="one.example",
        )
        publisher.flush()

    (found,) = broker.messages(ERRORS)
    assert found["payload"] is None
    assert found["error"] == "too large; larger than Kafka takes"


def test_a_missing_topic_is_named(bare_broker: Broker) -> None:
    with (
        pytest.raises(TopicMissingError, match="no topic mastodon_stream; run"),
        publishing(bare_broker.settings()),
    ):
        pass


def test_a_broker_that_is_down_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_module, "_METADATA_SECONDS", 0.5)
    nowhere = Broker("127.0.0.1:9")

    with (
        pytest.raises(ServiceUnavailableError, match=r"Kafka at 127\.0\.0\.1:9 does not answer"),
        publishing(nowhere.settings()),
    ):
        pass


class Producer:
    """The part of a producer that a test makes fail."""

    def __init__(
        self, *, delivery_error: KafkaError | None = None, error: Exception | None = None
    ) -> None:
        self.delivery_error = delivery_error
        self.error = error
        self.waiting = 0

    def produce(self, topic: str, value: bytes, key: bytes | None, *, on_delivery: Any) -> None:
        if self.error is not None:
            raise self.error
        self.waiting += 1
        if self.delivery_error is not None:
            on_delivery(self.delivery_error, None)

    def poll(self, seconds: float) -> int:
        return 0

    def flush(self, seconds: float) -> int:
        return self.waiting


def publisher_on(producer: Producer) -> Publisher:
    return Publisher(
        producer,  # type: ignore[arg-type]
        topic="stream",
        errors_topic="errors",
        servers="broker:1",
    )


def test_a_message_that_was_not_delivered_ends_the_run() -> None:
    publisher = publisher_on(Producer(delivery_error=KafkaError(KafkaError._MSG_TIMED_OUT)))
    publisher.publish(message())

    with pytest.raises(ServiceUnavailableError, match=r"broker:1 did not take a message \(.*timed"):
        publisher.publish(message())
    with pytest.raises(ServiceUnavailableError, match="did not take"):
        publisher.flush()


def test_a_message_without_an_acknowledgement_ends_the_run() -> None:
    publisher = publisher_on(Producer())
    publisher.publish(message())

    with pytest.raises(ServiceUnavailableError, match="1 messages are not acknowledged"):
        publisher.flush()


def test_a_queue_that_stays_full_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_module, "_DELIVERY_SECONDS", 0.05)

    with pytest.raises(ServiceUnavailableError, match="its queue stays full"):
        publisher_on(Producer(error=BufferError())).publish(message())


def test_a_fatal_error_of_the_producer_ends_the_run() -> None:
    fatal = KafkaException(KafkaError(KafkaError._FATAL))

    with pytest.raises(ServiceUnavailableError, match="Kafka does not take messages"):
        publisher_on(Producer(error=fatal)).publish(message())


def test_a_full_queue_is_waited_for(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    config = publisher_module.producer_config
    monkeypatch.setattr(
        publisher_module,
        "producer_config",
        lambda servers: {**config(servers), "queue.buffering.max.messages": 10},
    )
    with publishing(broker.settings()) as publisher:
        for number in range(200):
            publisher.publish(message(str(number)))
        publisher.flush()

    assert len(broker.messages()) == 200
