"""The reader with another writer at work."""

from collections.abc import Callable

from mastodon_assets.config.settings import Settings
from mastodon_assets.kafka.topics import read_topic
from mastodon_assets.stream.ledger import advance_ledger
from mastodon_assets.stream.query import opened_reader
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.records import upsert


def test_a_ledger_that_another_writer_brought_past_the_target_is_no_loss(
    settings: Settings, produce: Callable[..., None]
) -> None:
    target = read_topic(settings, settings.kafka_topic)
    with opened_reader(settings, target, lambda _batch: None):
        pass
    produce([upsert("1"), upsert("2")])
    with transaction(settings.postgres_url) as connection:
        advance_ledger(connection, target.topic, target.topic_id, 0, start=0, end=2)
    with opened_reader(settings, target, lambda _batch: None) as reader:
        assert reader.start[0] == 2
        assert reader.lag() == 0
