import json
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from mastodon_assets.contract.messages import ContractError, Message
from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest.policy.normalize import to_delete, to_upsert
from mastodon_assets.kafka import publisher as publisher_module
from mastodon_assets.kafka.publisher import Publisher, publishing
from mastodon_assets.kafka.topics import TopicMissingError
from mastodon_assets_tests.support.documents import status
from mastodon_assets_tests.support.mock_broker import ERRORS, STREAM, Broker

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


def test_a_post_too_large_for_the_topic_keeps_its_payload_as_a_dead_letter(broker: Broker) -> None:
    payload = "é" * 1_500_000
    with publishing(broker.settings()) as publisher:
        with pytest.raises(ContractError, match="larger than Kafka accepts"):
            publisher.publish(message(content=payload))
        publisher.publish_error(
            reason="contract", error="large", payload=payload, origin="stream", instance="x.example"
        )
        publisher.flush()

    assert broker.messages(STREAM) == []
    (found,) = broker.messages(ERRORS)
    assert (found["payload"], found["error"]) == (payload, "large")


def test_a_payload_too_large_for_kafka_leaves_its_reason(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "MAX_ERROR_BYTES", 2_000_000)
    with publishing(broker.settings()) as publisher:
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
    assert found["error"] == "too large; the payload is larger than Kafka accepts"


def test_a_topic_that_takes_less_than_the_producer_gets_the_reason_without_the_payload() -> None:
    producer = Producer(delivery_error=KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
    publisher = publisher_on(producer)

    publisher.publish_error(
        reason="contract", error="odd", payload="x", origin="stream", instance="one.example"
    )

    assert [json.loads(value)["payload"] for value in producer.values] == ["x", None]
    assert publisher.has_room()


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
        self.taken: list[bytes | None] = []
        self.values: list[bytes] = []

    def __len__(self) -> int:
        return self.waiting

    def produce(self, topic: str, value: bytes, key: bytes | None, *, on_delivery: Any) -> None:
        if self.error is not None:
            raise self.error
        self.values.append(value)
        if self.delivery_error is not None:
            on_delivery(self.delivery_error, Record(topic, value, key))
        else:
            self.waiting += 1
            self.taken.append(key)

    def poll(self, seconds: float) -> int:
        return 0

    def flush(self, seconds: float) -> int:
        return self.waiting

    def purge(self) -> None:
        self.waiting = 0


class Record:
    """A record as librdkafka gives it back."""

    def __init__(self, topic: str, value: bytes, key: bytes | None) -> None:
        self._topic, self._value, self._key = topic, value, key

    def topic(self) -> str:
        return self._topic

    def value(self) -> bytes:
        return self._value

    def key(self) -> bytes | None:
        return self._key


def publisher_on(*producers: Producer) -> Publisher:
    """A publisher that takes the next of `producers` when one is of no use any more."""
    waiting = iter(producers)
    return Publisher(
        lambda: next(waiting),  # type: ignore[arg-type, return-value]
        topic="stream",
        errors_topic="errors",
        servers="broker:1",
    )


@pytest.mark.parametrize(
    "broken",
    [
        Producer(delivery_error=KafkaError(KafkaError._ALL_BROKERS_DOWN)),
        Producer(error=KafkaException(KafkaError(KafkaError._FATAL))),
    ],
)
def test_what_kafka_refuses_is_kept_for_a_new_producer(
    broken: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "_RENEWAL_SECONDS", -1)
    sound = Producer()
    publisher = publisher_on(broken, sound)
    publisher.publish(message())

    assert (publisher.is_stuck(), publisher.has_room()) == (True, False)
    with pytest.raises(
        ServiceUnavailableError, match=r"broker:1 did not accept a message \(1 mess"
    ):
        publisher.flush()
    publisher.wait(0)

    assert sound.taken == [b"one.example/1"]
    assert (publisher.is_stuck(), publisher.has_room()) == (False, True)


def test_a_broker_that_takes_less_than_the_producer_leaves_a_reason() -> None:
    producer = Producer(delivery_error=KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
    publisher = publisher_on(producer)
    taken: list[dict[str, Any]] = []
    publisher.publish_error = lambda **error: taken.append(error)  # type: ignore[method-assign]

    publisher.publish(message())

    assert [error["error"] for error in taken] == ["larger than Kafka accepts"]
    assert publisher.has_room()


def test_a_message_without_an_acknowledgement_is_an_error_of_flush() -> None:
    publisher = publisher_on(Producer())
    publisher.publish(message())

    with pytest.raises(ServiceUnavailableError, match="1 messages are not acknowledged"):
        publisher.flush()


def test_kafka_is_stuck_when_nothing_is_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = publisher_on(Producer())
    assert not publisher.is_stuck()
    publisher.publish(message())
    assert not publisher.is_stuck()
    monkeypatch.setattr(publisher_module, "_STUCK_SECONDS", -1)
    assert publisher.is_stuck()


def test_what_waits_for_kafka_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_module, "_MAX_IN_FLIGHT", 3)
    publisher = publisher_on(Producer())
    for _ in range(3):
        assert publisher.has_room()
        publisher.publish(message())
    assert not publisher.has_room()


def test_a_queue_that_stays_full_keeps_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_module, "_STUCK_SECONDS", 0.05)
    full = Producer(error=BufferError())
    publisher = publisher_on(full)
    publisher.publish(message())

    assert publisher.is_stuck()
    assert publisher.failure == "the producer's queue stays full"
    full.error = None
    publisher.publish(message("2"))
    assert full.taken == [], "the second one waits with the first"
    assert publisher.in_flight() == 2


def test_a_full_queue_is_waited_for(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    config = publisher_module.producer_config
    monkeypatch.setattr(
        publisher_module,
        "producer_config",
        lambda settings: {**config(settings), "queue.buffering.max.messages": 10},
    )
    with publishing(broker.settings()) as publisher:
        for number in range(200):
            publisher.publish(message(str(number)))
        publisher.flush()

    assert len(broker.messages()) == 200
