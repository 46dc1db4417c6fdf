"""Reading a range of offsets again."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from mastodon_assets.config.settings import Settings
from mastodon_assets.kafka.topics import TopicState
from mastodon_assets.spark.jvm_end import SparkEndedError
from mastodon_assets.stream.drain import drain
from mastodon_assets.stream.removal import Removal
from mastodon_assets.stream.replay import ReplayRangeError, chosen_ranges, replay
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.ended_jvm import ended_jvm
from mastodon_assets_tests.support.fault_platform import tables
from mastodon_assets_tests.support.records import delete, upsert

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_STATE = TopicState("a_topic", "id", earliest={0: 2, 1: 0}, end={0: 9, 1: 5})
_LEDGER = {0: 7, 1: 0}


def _chosen(**given: int | None) -> dict[int, tuple[int, int]]:
    wanted: dict[str, Any] = {"partition": None, "start": None, "end": None, **given}
    return chosen_ranges(_STATE, _LEDGER, **wanted)


def test_what_is_read_again_is_what_the_topic_holds_and_the_tables_have_read() -> None:
    assert _chosen() == {0: (2, 7)}
    assert _chosen(partition=1) == {}
    assert _chosen(partition=0, start=3) == {0: (3, 7)}
    assert _chosen(partition=0, start=3, end=5) == {0: (3, 5)}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"partition": 0, "start": 1}, r"a_topic\[0\]: offsets 1 to 7 .* holds 2 and later"),
        ({"partition": 0, "end": 8}, r"offsets 2 to 8 .* have those before 7"),
        ({"partition": 4}, "a_topic has no partition 4; it has 0, 1"),
    ],
)
def test_a_range_that_the_topic_lacks_is_refused_with_its_bounds(
    given: dict[str, int], problem: str
) -> None:
    with pytest.raises(ReplayRangeError, match=problem):
        _chosen(**given)


def test_a_replay_brings_back_what_is_missing_and_twice_changes_nothing(
    spark: "SparkSession", settings: Settings, produce: Callable[..., None]
) -> None:
    bob = "bob@one.example"
    produce([upsert("1"), upsert("2", username=bob), delete("1"), b"garbage", upsert("3")])
    produce([upsert("4", username=bob), upsert("5")], partition=1)
    drain(lambda: spark, settings, report=print)
    right = tables(settings.postgres_url)

    with ended_jvm() as session, pytest.raises(SparkEndedError, match="SPARK_DRIVER_MEMORY"):
        replay(session, settings, report=print)

    def again(**wanted: int) -> int:
        return replay(lambda: spark, settings, report=print, **wanted).counts.stored

    assert again() == 0
    assert tables(settings.postgres_url) == right
    with transaction(settings.postgres_url) as connection:
        assert Removal(connection, "username = %(bob)s", {"bob": bob}).remove()
        connection.execute("UPDATE masto.toots_rejected SET reason = 'of yesterday'")
        connection.execute(
            "INSERT INTO masto.toots_rejected (topic, partition, kafka_offset, reason)"
            " VALUES (%s, 0, 4, 'of yesterday')",
            (settings.kafka_topic,),
        )
    assert tables(settings.postgres_url) != right
    assert again(partition=0, start=1, end=2) == 1
    assert again(partition=1) == 1
    assert again(partition=0, start=3) == 0
    assert tables(settings.postgres_url) == right
