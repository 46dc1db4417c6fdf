import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from mastodon_assets.cli.app import app
from mastodon_assets.cli.console import escaped
from mastodon_assets.config.settings import Settings
from mastodon_assets.contract.dead_letter import NoDeadLetterError
from mastodon_assets.ingest import dead_letters as topic_dead_letters
from mastodon_assets.ingest.dead_letters import newest_errors, read_error, replay_errors
from mastodon_assets.ingest.homes import Homes
from mastodon_assets.kafka.client import client_config
from mastodon_assets.kafka.publisher import Publisher, publishing
from mastodon_assets.kafka.topics import create_topics
from mastodon_assets.stream import dead_letters
from mastodon_assets.stream.dead_letters import (
    count_rejected,
    newest_rejected,
    read_rejected,
    replay_rejected,
)
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.dead_letters import fail, keep
from mastodon_assets_tests.support.documents import account, status
from mastodon_assets_tests.support.mock_broker import broker_of
from mastodon_assets_tests.support.records import delete, upsert

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Entry = dict[str, Any]


def rows(settings: Settings, query: str) -> list[tuple[Any, ...]]:
    assert settings.database_url is not None
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        return connection.execute(query.encode()).fetchall()


def offsets(settings: Settings) -> list[int]:
    query = "SELECT kafka_offset FROM masto.toots_rejected ORDER BY 1"
    return [offset for (offset,) in rows(settings, query)]


def published(settings: Settings) -> list[Entry]:
    return broker_of(settings).messages(settings.kafka_topic)


@pytest.fixture
def platform(settings: Settings) -> Settings:
    """Settings whose errors topic is the test's own as well."""
    topic = f"errors_of_{settings.kafka_topic}"
    create_topics(settings.kafka_access, [topic])
    return settings.model_copy(update={"kafka_errors_topic": topic})


@pytest.fixture
def command(platform: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`command("list", …)`: what `mastodon-assets rejected list …` prints."""
    from mastodon_assets.config.settings import as_environment

    for name, value in as_environment(platform).items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["rejected", *arguments], env={"COLUMNS": "200"})
        if result.exception is not None:
            raise result.exception
        return result.stdout

    return run


def test_what_keeps_the_contract_now_is_published_as_it_was_and_the_rest_stays(
    settings: Settings,
) -> None:
    keep(settings, upsert("1"), b"garbage", delete("2"), None, upsert("3", favourites=-1))

    with publishing(settings) as publisher:
        summary = replay_rejected(settings.postgres_url, publisher)

    assert summary.published == 2
    assert summary.kept.total() == 3
    assert summary.kept["no value"] == 1
    assert sorted(published(settings), key=lambda found: found["id"]) == [upsert("1"), delete("2")]
    keys = broker_of(settings).record_keys(settings.kafka_topic)
    assert keys == [b"a key", b"a key"]
    assert offsets(settings) == [1, 3, 4]


def test_a_second_replay_finds_nothing_to_publish(settings: Settings) -> None:
    keep(settings, upsert("1"), b"garbage")
    with publishing(settings) as publisher:
        replay_rejected(settings.postgres_url, publisher)
        again = replay_rejected(settings.postgres_url, publisher)

    assert again.published == 0
    assert len(published(settings)) == 1
    assert offsets(settings) == [1]


def test_a_dry_run_counts_and_changes_nothing(settings: Settings) -> None:
    keep(settings, upsert("1"), b"garbage")

    summary = replay_rejected(settings.postgres_url, None)

    assert (summary.published, summary.kept.total()) == (1, 1)
    assert published(settings) == []
    assert offsets(settings) == [0, 1]


def test_more_than_one_page_is_replayed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "_REPLAYED_AT_ONCE", 2)
    keep(settings, *(upsert(str(number)) for number in range(5)), b"garbage")

    with publishing(settings) as publisher:
        assert replay_rejected(settings.postgres_url, publisher).published == 5

    assert offsets(settings) == [5]


def test_what_the_stream_rejects_again_meanwhile_waits_for_the_next_replay(
    settings: Settings,
) -> None:
    class Stream(Publisher):
        """The message arrives, and is rejected again at once."""

        def publish_record(self, value: bytes, key: bytes | None) -> None:
            assert offsets(settings) == [0], "it is published again and again"
            with transaction(settings.postgres_url) as connection:
                connection.execute(
                    "INSERT INTO masto.toots_rejected (topic, partition, kafka_offset, reason,"
                    " payload) SELECT %s, 0, max(kafka_offset) + 1, 'cannot be handled', %s"
                    " FROM masto.toots_rejected",
                    (settings.kafka_topic, value),
                )

    keep(settings, upsert("1"))
    producer = Producer(client_config(settings))
    publisher = Stream(lambda: producer, topic="none", errors_topic="none", servers="none")

    assert replay_rejected(settings.postgres_url, publisher).published == 1
    assert offsets(settings) == [1]


def test_a_limit_counts_what_is_published_not_what_is_tried(settings: Settings) -> None:
    keep(settings, b"garbage", b"rubbish", upsert("1"), upsert("2"))

    with publishing(settings) as publisher:
        assert replay_rejected(settings.postgres_url, publisher, limit=1).published == 1

    assert offsets(settings) == [0, 1, 3]


def test_a_reason_chooses_what_is_replayed(settings: Settings) -> None:
    keep(settings, upsert("1"), reason="Hashtags: too many")
    keep(settings, upsert("2"), reason="100%: another")

    with publishing(settings) as publisher:
        assert replay_rejected(settings.postgres_url, publisher, reason="hash").published == 1

    assert [found["id"] for found in published(settings)] == ["1"]
    assert [
        dead_letter.offset
        for dead_letter in newest_rejected(settings.postgres_url, reason="0%", limit=9)
    ]


def test_a_row_stays_where_kafka_does_not_acknowledge(settings: Settings) -> None:
    class Deaf(Publisher):
        def flush(self, seconds: float = 0) -> None:
            raise ConnectionError

    keep(settings, upsert("1"))
    producer = Producer(client_config(settings))
    deaf = Deaf(lambda: producer, topic=settings.kafka_topic, errors_topic="none", servers="none")

    with pytest.raises(ConnectionError):
        replay_rejected(settings.postgres_url, deaf)

    assert offsets(settings) == [0]
    producer.flush(5)


def test_a_message_that_the_tables_would_refuse_again_stays(settings: Settings) -> None:
    with transaction(settings.postgres_url) as connection:
        connection.execute(
            "INSERT INTO masto.toot_aliases (instance, status_id, id) VALUES ('one.example','1',5)"
        )
    keep(settings, upsert("1"))

    with publishing(settings) as publisher:
        summary = replay_rejected(settings.postgres_url, publisher)

    assert summary.kept == {"id: this server gave it to another uri": 1}
    assert offsets(settings) == [0]


def test_replayed_messages_reach_the_tables_and_twice_changes_no_row(
    settings: Settings, produce: Callable[..., None], spark: "SparkSession"
) -> None:
    from mastodon_assets.stream.drain import drain

    first_version = {"id": "9", "created_at": "2026-11-20T11:00:00Z", "username": "ada"}
    produce([upsert("1"), b"garbage"])
    drain(lambda: spark, settings, report=lambda _line: None)
    keep(settings, upsert("2"), first_version)
    with publishing(settings) as publisher:
        assert replay_rejected(settings.postgres_url, publisher).published == 2
    drain(lambda: spark, settings, report=lambda _line: None)
    before = rows(settings, "SELECT * FROM masto.toots_raw ORDER BY id")

    # As after a crash between acknowledgement and removal.
    keep(settings, upsert("2"), first_version)
    with publishing(settings) as publisher:
        replay_rejected(settings.postgres_url, publisher)
    drain(lambda: spark, settings, report=lambda _line: None)

    assert len(before) == 3
    assert rows(settings, "SELECT * FROM masto.toots_raw ORDER BY id") == before
    assert count_rejected(settings.postgres_url, reason="").total() == 1


def test_a_post_that_failed_is_published_if_it_passes_today(platform: Settings) -> None:
    fail(platform, json.dumps(status("1")), origin="backfill")
    fail(platform, None, reason="unreadable")
    fail(platform, json.dumps(status("2", account=account(noindex=True))))
    fail(platform, json.dumps(status("3", favourites_count="many")))
    fail(platform, json.dumps(status("4"))[:-5])

    with publishing(platform) as publisher:
        summary = replay_errors(platform, publisher)

    (found,) = published(platform)
    assert (found["id"], found["origin"], found["instance"]) == ("1", "backfill", "one.example")
    assert summary.published == 1
    assert summary.kept["withheld: noindex"] == 1
    assert summary.kept["without a payload"] == 1
    assert summary.kept["the payload is not JSON"] == 1
    assert summary.kept.total() == 4


def test_no_replay_brings_back_a_post_whose_account_has_refused_since(platform: Settings) -> None:
    for number, name in enumerate(("ada", "bo")):
        fail(platform, json.dumps(status(str(number), account=account(acct=name))))
    homes = Homes(platform.postgres_url)
    homes.load()
    homes.note_answer("ada@one.example", "one.example", "noindex")
    homes.save()
    with publishing(platform) as publisher:
        summary = replay_errors(platform, publisher)
    assert [found["username"] for found in published(platform)] == ["bo@one.example"]
    assert dict(summary.kept) == {"withheld: refused_at_home": 1}


def test_the_next_replay_goes_on_behind_the_last_one_or_again_from_the_oldest(
    platform: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_dead_letters, "_COMMIT_EVERY", 2)
    for number in range(5):
        fail(platform, json.dumps(status(str(number))))

    with publishing(platform) as publisher:
        assert replay_errors(platform, None).published == 5
        assert replay_errors(platform, publisher, reason="contract").published == 5
        assert replay_errors(platform, publisher, limit=2).published == 2
        assert replay_errors(platform, publisher).published == 3
        assert replay_errors(platform, publisher).published == 0
        assert replay_errors(platform, publisher, again=True).published == 5

    sent = published(platform)
    # A repetition is the same message, so that the merge makes nothing of it.
    assert len({json.dumps(found, sort_keys=True) for found in sent}) == 5
    assert len(sent) == 15


def test_what_the_ingester_did_not_write_stops_no_replay(platform: Settings) -> None:
    producer = Producer(client_config(platform))
    for odd in (None, b"", b"\xff", b"[]", b'{"payload":1}', b"[" * 100_000, b'{"payload":null}'):
        producer.produce(platform.kafka_errors_topic, odd)
    assert producer.flush(10) == 0

    with publishing(platform) as publisher:
        summary = replay_errors(platform, publisher)
    dead_letters, counts = newest_errors(platform, reason="", limit=3)

    assert summary.kept == {"not an entry of the ingester": 7}
    assert len(dead_letters) == 3
    assert counts.total() == 7


def test_list_shows_the_newest_of_both_escaped_and_counts_reasons(
    platform: Settings, command: Callable[..., str]
) -> None:
    keep(platform, b"\x1b[31mred\xff", b"x" * 500, reason="not JSON [bold]")
    fail(platform, json.dumps(status("1")), error="\x1b]0;title\x07")

    text = command("list")
    document = json.loads(command("list", "--json"))

    assert "\x1b" not in text
    assert "\\x1b[31mred\\xff" in text
    assert "3 dead letters" in text
    assert "2  not JSON [bold]" in text
    assert [dead_letter["topic"] for dead_letter in document["dead_letters"]] == [
        platform.kafka_errors_topic,
        platform.kafka_topic,
        platform.kafka_topic,
    ]
    assert document["dead_letters"][1]["payload"] == "x" * 60 + "…"
    assert document["reasons"]["not JSON [bold]"] == 2
    assert "1 dead letter\n" in command("list", "--reason", "CONTRACT")


def test_show_gives_all_of_one_and_its_bytes(
    platform: Settings, command: Callable[..., str]
) -> None:
    payload = json.dumps(status("1"))
    keep(platform, b"caf\xc3\xa9 \x00 [red]")
    fail(platform, payload)
    (dead_letter,), _ = newest_errors(platform, reason="", limit=1)

    shown = command("show", platform.kafka_topic, "0", "0")
    place = (dead_letter.topic, str(dead_letter.partition), str(dead_letter.offset))

    assert "café \\x00 [red]" in shown
    assert "2026-11-20 12:00:00Z" in shown
    assert "was refused" in shown
    assert "a key" in shown
    assert command("show", *place, "--raw") == payload
    assert (
        read_error(platform, dead_letter.partition, dead_letter.offset).payload == payload.encode()
    )


def test_a_place_without_a_dead_letter_is_named(platform: Settings) -> None:
    with pytest.raises(NoDeadLetterError, match="no dead letter at x 0 7; see"):
        read_rejected(platform.postgres_url, "x", 0, 7)
    with pytest.raises(NoDeadLetterError, match=f"at {platform.kafka_errors_topic} 0 7; see"):
        read_error(platform, 0, 7)


def test_the_command_replays_both_kinds(platform: Settings, command: Callable[..., str]) -> None:
    keep(platform, upsert("1"), b"garbage")
    fail(platform, json.dumps(status("2")))

    dry = command("replay", "--dry-run")
    reported = command("replay")

    assert "refused by the tables: 1 would be published, 1 not" in dry
    assert "not published by the ingester: 1 would be published, 0 not" in dry
    assert "refused by the tables: 1 published, 1 not" in reported
    assert "not published by the ingester: 1 published, 0 not" in reported
    assert {found["id"] for found in published(platform)} == {"1", "2"}


def test_nothing_in_an_escaped_text_moves_a_terminal() -> None:
    assert (
        escaped("a\r\n\x9b\u202e\u2028é".encode() + b"\x80") == "a\\r\\n\\x9b\\u202e\\u2028é\\x80"
    )


def test_a_time_of_refusal_is_utc(settings: Settings) -> None:
    keep(settings, b"x")

    (dead_letter,) = newest_rejected(settings.postgres_url, reason="", limit=1)

    assert dead_letter.at == datetime(2026, 11, 20, 12, tzinfo=UTC)
