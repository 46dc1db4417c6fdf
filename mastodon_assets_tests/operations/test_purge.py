import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from confluent_kafka import Producer
from pydantic import SecretStr
from typer.testing import CliRunner

from mastodon_assets.cli.app import app
from mastodon_assets.config.settings import Settings, as_environment
from mastodon_assets.errors import ServiceUnavailableError, SettingsError
from mastodon_assets.ingest import dead_letters as topic_dead_letters
from mastodon_assets.ingest.dead_letters import newest_errors, replay_errors
from mastodon_assets.kafka.client import client_config
from mastodon_assets.kafka.publisher import publishing
from mastodon_assets.kafka.topics import create_topics, read_topic
from mastodon_assets.operations.purge import (
    account,
    entries,
    purge,
    server,
    subjects_of_file,
    undo,
)
from mastodon_assets.stream.dead_letters import replay_rejected
from mastodon_assets.stream.merge import BatchCounts
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.handle_keys import record_handle_key
from mastodon_assets.warehouse.rows import count_rows
from mastodon_assets.warehouse.suppression_file import export_list, import_list
from mastodon_assets.warehouse.suppression_list import SuppressionKeyError, SuppressionList
from mastodon_assets.warehouse.tables import TABLES
from mastodon_assets_tests.support import documents
from mastodon_assets_tests.support.dead_letters import fail, keep
from mastodon_assets_tests.support.documents import status
from mastodon_assets_tests.support.handling import NOW
from mastodon_assets_tests.support.mock_broker import broker_of
from mastodon_assets_tests.support.records import delete, upsert
from mastodon_assets_tests.support.stored_toots import count_toots, insert_toot

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

KEY = SecretStr("a key for tests only")
BOB = account("bob@two.example")
_STORED = ["toots_raw", "toot_metrics_windowed", "user_avg_length_windowed"]
_BATCH = ["batch_active_users", "batch_hashtag_by_hour", "batch_toots_by_lang_per_day"]


@pytest.fixture
def platform(settings: Settings) -> Settings:
    """Settings with a key, whose errors topic is the test's own as well."""
    topic = f"errors_of_{settings.kafka_topic}"
    create_topics(settings.kafka_access, [topic])
    return settings.model_copy(update={"kafka_errors_topic": topic, "withdrawn_key": KEY})


@pytest.fixture
def command(platform: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`command("--list", …)`: what `mastodon-assets purge --list …` prints."""
    for name, value in as_environment(platform).items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str, answer: str | None = None) -> str:
        result = CliRunner().invoke(
            app, ["purge", *arguments], input=answer, env={"COLUMNS": "200"}, standalone_mode=False
        )
        if result.exception is not None:
            raise result.exception
        return result.stdout

    return run


def by_bob(status_id: str = "9", **changes: Any) -> str:
    """A status that could not be published."""
    author = documents.account(acct="bob@two.example", url="https://two.example/@bob")
    return json.dumps(status(status_id, account=author, **changes))


def fail_all(platform: Settings, *payloads: str | None) -> None:
    """Entries of the errors topic, as the ingester writes them."""
    with publishing(platform) as publisher:
        for payload in payloads:
            publisher.publish_error(
                reason="contract",
                error="odd",
                payload=payload,
                origin="stream",
                instance="one.example",
            )
        publisher.flush()


def kept_dead_letters(platform: Settings) -> list[bytes | None]:
    found, _ = newest_errors(platform, reason="", limit=100)
    return sorted((dead_letter.payload for dead_letter in found), key=str)


def rows(settings: Settings, query: str) -> list[Any]:
    with transaction(settings.postgres_url) as connection:
        return connection.execute(query.encode()).fetchall()


def test_dead_letters_of_the_suppressed_go_and_the_others_stay_as_they_are(
    platform: Settings,
) -> None:
    by_ada = [json.dumps(status(str(number))) for number in range(5)]
    fail_all(platform, *by_ada[:2], by_bob("7"), None, *by_ada[2:4], by_bob("8"), by_ada[4])
    producer = Producer(client_config(platform))
    producer.produce(platform.kafka_errors_topic, b"not an entry")
    assert producer.flush(10) == 0

    dry = purge(platform, BOB, dry_run=True)
    assert len(kept_dead_letters(platform)) == 9
    removed = purge(platform, BOB)
    again = purge(platform, BOB)

    topic = platform.kafka_errors_topic
    assert (dry[topic], removed[topic], again[topic]) == (2, 2, 0)
    kept = [None, b"not an entry", *(payload.encode() for payload in by_ada)]
    assert kept_dead_letters(platform) == sorted(kept, key=str)


def test_a_withdrawal_that_breaks_off_loses_no_dead_letter_and_can_be_repeated(
    platform: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_all(platform, json.dumps(status("1")), by_bob("7"), by_bob("8"))

    def break_off(*_: object) -> None:
        raise ServiceUnavailableError("Kafka is away")

    with monkeypatch.context() as patched:
        patched.setattr(topic_dead_letters, "delete_records", break_off)
        with pytest.raises(
            ServiceUnavailableError, match=r"^the tables are purged, .*same command"
        ):
            purge(platform, BOB)
    assert set(kept_dead_letters(platform)) >= {json.dumps(status("1")).encode()}

    assert purge(platform, BOB)[platform.kafka_errors_topic] == 2
    assert set(kept_dead_letters(platform)) == {json.dumps(status("1")).encode()}


def test_what_an_ingester_writes_meanwhile_stays(
    platform: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(platform, by_bob("7"))
    real = topic_dead_letters._publish_again

    def publish_again(settings: Settings, records: Iterator[Any]) -> None:
        fail_all(platform, *(json.dumps(status(str(number))) for number in range(4)))
        real(settings, records)

    monkeypatch.setattr(topic_dead_letters, "_publish_again", publish_again)
    purge(platform, BOB)

    assert len(kept_dead_letters(platform)) == 4


def test_an_entry_published_again_keeps_its_time(platform: Settings) -> None:
    """So that retention takes it when it would have."""
    fail(platform, json.dumps(status("1")))
    (before,) = newest_errors(platform, reason="", limit=1)[0]
    producer = Producer(client_config(platform))
    producer.produce(
        platform.kafka_errors_topic, b"old", partition=before.partition, timestamp=1_000
    )
    document = {"reason": "r", "error": "e", "origin": "stream", "instance": "two.example"}
    producer.produce(
        platform.kafka_errors_topic,
        json.dumps({**document, "payload": by_bob(), "time": NOW.isoformat()}),
        partition=before.partition,
    )
    assert producer.flush(10) == 0

    purge(platform, BOB)

    with topic_dead_letters._reading(platform) as consumer:
        records = topic_dead_letters._records(
            platform, consumer, topic_dead_letters._bounds(platform)
        )
        times = {record.value(): record.timestamp()[1] for record in records}
    assert times[b"old"] == 1_000
    assert len(times) == 2


def test_no_replay_brings_back_a_dead_letter(platform: Settings) -> None:
    purge(platform, BOB)
    fail(platform, by_bob("1"))
    fail(platform, json.dumps(status("2")), instance="five.example")
    keep(platform, upsert("3", username="bob@two.example"), upsert("4"))

    with publishing(platform) as publisher:
        errors = replay_errors(platform, publisher)
        rejected = replay_rejected(platform.postgres_url, publisher, suppression_key=KEY)

    assert (errors.published, errors.kept) == (1, {"withheld: withdrawn": 1})
    assert (rejected.published, rejected.kept) == (1, {"withdrawn": 1})
    sent = broker_of(platform).messages(platform.kafka_topic)
    assert {message["id"] for message in sent} == {"2", "4"}


def test_all_messages_sent_again_are_as_if_the_account_had_never_posted(
    spark: "SparkSession", platform: Settings, produce: Callable[..., None]
) -> None:
    from mastodon_assets.batch.refresh import refresh_batch_table
    from mastodon_assets.stream.drain import drain

    def refreshed() -> dict[str, list[Any]]:
        for name in _BATCH:
            refresh_batch_table(lambda: spark, platform.postgres_url, name, min_toots=1)
        return {name: sorted(rows(platform, f"TABLE masto.{name}")) for name in _STORED + _BATCH}

    ada = [upsert("1", hashtags=["tea"]), upsert("2", created_at="2026-11-19T01:00:00Z")]
    bob = [
        upsert("3", username="bob@two.example", uri="https://two.example/3", language="de"),
        upsert("4", username="bob@two.example", uri="https://two.example/4", hashtags=["rum"]),
        upsert("5", username="bob@two.example", uri="https://two.example/5", favourites=-1),
    ]
    produce(ada)
    drain(lambda: spark, platform, report=print)
    expected = refreshed()
    produce([*bob, delete("77")], 1)
    assert drain(lambda: spark, platform, report=print).counts.stored == 2

    removed = purge(platform, BOB)
    assert (removed["toots_raw"], removed["toots_rejected"]) == (2, 1)
    assert refreshed() == expected
    assert removed[platform.kafka_topic] == len([*ada, *bob, delete("77")])
    state = read_topic(platform, platform.kafka_topic)
    assert state.earliest == state.end
    produce(ada)
    produce([*bob, delete("77")], 1)
    summary = drain(lambda: spark, platform, report=print)

    assert summary.counts == BatchCounts(stale=2, suppressed=3, delete_messages=1)
    for name in _STORED:
        assert sorted(rows(platform, f"TABLE masto.{name}")) == expected[name]
    with transaction(platform.postgres_url) as connection:
        for table in TABLES.values():
            stored = str(connection.execute(f"TABLE masto.{table.name}".encode()).fetchall())
            assert "bob" not in stored
            assert "two.example" not in stored


def test_a_drain_refuses_to_start_without_the_key(platform: Settings) -> None:
    from mastodon_assets.stream.drain import drain

    purge(platform, BOB)

    def no_session() -> "SparkSession":
        raise AssertionError("a session was asked for")

    with pytest.raises(SuppressionKeyError, match="WITHDRAWN_KEY is not set"):
        drain(no_session, platform.model_copy(update={"withdrawn_key": None}), report=print)


def test_under_pseudonyms_both_names_withdraw(platform: Settings) -> None:
    from mastodon_assets.ingest.policy.pseudonyms import Pseudonyms
    from mastodon_assets.warehouse.suppression_list import read_suppression_list

    handle_key = SecretStr("a key for handles only")
    hidden = platform.model_copy(update={"mastodon_handle_key": handle_key})
    purge(hidden, BOB)
    purge(hidden, server("three.example"))

    names = Pseudonyms(handle_key)
    with transaction(platform.postgres_url) as connection:
        listed: SuppressionList = read_suppression_list(connection, KEY)
    assert listed.matches("bob@two.example", None)
    assert listed.matches(names.handle("BOB@two.example"), None)
    assert listed.matches(names.handle("eve@three.example"), None)
    assert not listed.matches(names.handle("eve@two.example"), None)
    assert sorted(entry.kind for entry in entries(platform)) == ["account", "server"]


def test_a_purge_that_cannot_see_pseudonyms_is_refused(platform: Settings) -> None:
    used = platform.model_copy(update={"mastodon_handle_key": SecretStr("the key that was used")})
    record_handle_key(used)
    other = platform.model_copy(update={"mastodon_handle_key": SecretStr("another long key")})

    with pytest.raises(SettingsError, match="without MASTODON_HANDLE_KEY; set the key"):
        purge(platform, BOB)
    with pytest.raises(SettingsError, match="of another MASTODON_HANDLE_KEY; set the key"):
        purge(other, BOB)
    assert rows(platform, "TABLE masto.withdrawn") == []
    purge(used, BOB)


def test_pseudonyms_of_an_older_version_are_seen_in_the_rows(platform: Settings) -> None:
    with transaction(platform.postgres_url) as connection:
        insert_toot(connection, 1, username=f"{'a1' * 16}@{'b2' * 16}", uri="c3" * 16)

    with pytest.raises(SettingsError, match="set the key that the ingester used"):
        purge(platform, BOB)


@pytest.mark.parametrize("handle", ["sam@one.example", "@Sam@social.one.example"])
def test_the_known_handles_of_a_person_are_listed_together(platform: Settings, handle: str) -> None:
    with transaction(platform.postgres_url) as connection:
        for number, name in enumerate(["sam", "eve"]):
            uri = f"https://social.one.example/users/{name}/{number}"
            insert_toot(connection, number, username=f"{name}@one.example", uri=uri)
        count_toots(connection)

    assert purge(platform, account(handle))["toots_raw"] == 1
    assert len(rows(platform, "TABLE masto.withdrawn")) == 2
    assert undo(platform, account("sam@one.example"))


def test_undone_it_may_be_read_again(platform: Settings) -> None:
    purge(platform, BOB)

    assert undo(platform, account("@BOB@two.example"))
    assert not undo(platform, BOB)
    assert entries(platform) == []


def test_without_a_key_the_error_says_how_to_make_one(settings: Settings) -> None:
    with pytest.raises(SuppressionKeyError, match=r"set WITHDRAWN_KEY .*secrets\.token_hex"):
        purge(settings, BOB)


@pytest.mark.parametrize("handle", ["bob", "@bob", "bob@", "a b@c", "https://two.example/@bob", ""])
def test_a_handle_must_be_full(handle: str) -> None:
    with pytest.raises(SettingsError, match=r"^--account .*: allowed: a full handle"):
        account(handle)


@pytest.mark.parametrize("domain", ["https://two.example", "bob@two.example", "", "two example"])
def test_a_server_is_named_by_its_domain(domain: str) -> None:
    with pytest.raises(SettingsError, match=r"^--server .*: allowed: a domain"):
        server(domain)


def test_the_command_asks_reports_and_lists(
    platform: Settings, command: Callable[..., str]
) -> None:
    fail(platform, by_bob())
    keep(platform, upsert("3", username="bob@two.example", favourites=-1))

    with pytest.raises(typer.Abort):
        command("--account", "bob@two.example", answer="n\n")
    dry = command("--account", "bob@two.example", "--dry-run")
    reported = json.loads(command("--account", "@bob@two.example", "--yes", "--json"))
    listed = command("--list")

    assert "1  toots_rejected" in dry
    assert f"1  {platform.kafka_errors_topic}" in dry
    assert "nothing was changed" in dry
    assert (
        reported["removed"]["toots_rejected"]
        == reported["removed"][platform.kafka_errors_topic]
        == 1
    )
    assert "account" in listed
    assert "1 on the suppression list" in listed
    assert "bob" not in listed
    assert [entry["kind"] for entry in json.loads(command("--list", "--json"))] == ["account"]
    assert "taken off the suppression list" in command("--account", "bob@two.example", "--undo")
    assert "0 on the suppression list" in command("--list")
    assert "added to the suppression list" in command("--server", "five.example", answer="y\n")


@pytest.mark.parametrize(
    "arguments",
    [[], ["--account", "a@b", "--server", "b"], ["--list", "--server", "b"]],
)
def test_exactly_one_is_named(command: Callable[..., str], arguments: list[str]) -> None:
    with pytest.raises(
        typer.BadParameter,
        match="give one of --account, --server, --from, --list, --export and --import",
    ):
        command(*arguments)


def test_a_dry_run_enters_nobody(platform: Settings) -> None:
    purge(platform, BOB, dry_run=True)

    with transaction(platform.postgres_url) as connection:
        assert count_rows(connection, TABLES["withdrawn"]) == 0
    assert read_topic(platform, platform.kafka_errors_topic).end


def test_a_file_names_many_at_once(
    platform: Settings, command: Callable[..., str], tmp_path: Path
) -> None:
    file = tmp_path / "names"
    file.write_text("# asked by mail\n@Bob@two.example\n\nthree.example  # a server\n")

    assert "Removed" in command("--from", str(file), "--yes")

    kinds = sorted(row[0] for row in rows(platform, "SELECT kind FROM masto.withdrawn"))
    assert kinds == ["account", "server"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [("bob@two.example\na b@c\n", "line 2: "), ("# nobody\n", "no handle and no domain")],
)
def test_a_file_that_names_nobody_is_refused_with_its_line(
    text: str, problem: str, tmp_path: Path
) -> None:
    file = tmp_path / "names"
    file.write_text(text)
    with pytest.raises(SettingsError, match=problem):
        subjects_of_file(file)


def test_an_exported_list_keeps_the_same_people_out_elsewhere(platform: Settings) -> None:
    purge(platform, BOB)
    exported = export_list(platform)
    assert "bob" not in exported
    assert undo(platform, BOB)

    assert import_list(platform, exported) == 1
    assert import_list(platform, exported) == 0
    assert export_list(platform) == exported
    other = platform.model_copy(update={"withdrawn_key": SecretStr("another key for tests")})
    with pytest.raises(SettingsError, match="line 1 was made with another WITHDRAWN_KEY"):
        import_list(other, exported)
    with pytest.raises(SettingsError, match="line 1 is no entry"):
        import_list(platform, "bob@two.example")
