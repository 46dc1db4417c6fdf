"""Accounts that refuse while posts of theirs are stored, in real tables and topics."""

import json
import time

from pydantic import SecretStr

from mastodon_assets.config.settings import Settings
from mastodon_assets.ingest.stored_posts import PostAlias, posts_of_accounts
from mastodon_assets.ingest.supervisor import ingest
from mastodon_assets.stream.merge import prepare_session, write_batch
from mastodon_assets.warehouse.database import connect
from mastodon_assets_tests.support.documents import account, status
from mastodon_assets_tests.support.mock_broker import broker_of
from mastodon_assets_tests.support.odd_server import odd_server, stream
from mastodon_assets_tests.support.records import TOPIC, on_partition, staged, upsert

HOME, ABROAD = "odd.example", "abroad.example"


def store_posts(database_url: SecretStr) -> None:
    """Ada's posts as her own server and another one know them, and one of somebody else."""
    ada = {"username": f"ada@{HOME}"}
    messages = [
        upsert("1", instance=HOME, **ada),
        upsert("2", instance=HOME, uri="https://odd.example/2", **ada),
        upsert("20", instance=ABROAD, uri="https://odd.example/2", **ada),
        upsert("30", instance=ABROAD, uri="https://odd.example/3", **ada),
        upsert("4", instance=HOME, username=f"bob@{HOME}"),
    ]
    with connect(database_url) as connection:
        prepare_session(connection)
        connection.commit()
        with connection.transaction():
            write_batch(connection, staged(on_partition(messages)), {TOPIC: "topic-id"})


def test_an_account_is_removed_as_far_as_the_server_that_shows_it_knows_it(
    fresh_database_url: SecretStr,
) -> None:
    store_posts(fresh_database_url)

    def found(instance: str) -> set[PostAlias]:
        names = [f"ada@{HOME}", "nobody@odd.example"]
        return set(posts_of_accounts(fresh_database_url, instance, names, own_domain=instance))

    assert found(HOME) == {PostAlias(HOME, "1"), PostAlias(HOME, "2"), PostAlias(ABROAD, "30")}
    assert found(ABROAD) == {PostAlias(ABROAD, "20"), PostAlias(ABROAD, "30")}
    assert found("third.example") == set()


def test_the_ingester_deletes_the_stored_posts_of_an_account_that_it_sees_refuse(
    settings: Settings,
) -> None:
    store_posts(settings.postgres_url)
    refusing = status("5", account=account(acct="ada", noindex=True))
    event = f"event: update\ndata: {json.dumps(refusing)}\n\n".encode()
    broker, deadline = broker_of(settings), time.monotonic() + 60

    def deletes() -> set[tuple[str, str, str]]:
        messages = broker.messages(settings.kafka_topic)
        return {(each["op"], each["instance"], each["id"]) for each in messages}

    def is_over() -> bool:
        assert time.monotonic() < deadline
        return bool(deletes())

    with odd_server({"/api/v1/streaming/public": stream(event)}) as server:
        update = {
            "mastodon_api_base_url": server.base_url,
            "mastodon_access_token": SecretStr("token"),
            "kafka_errors_topic": settings.kafka_topic,
        }
        ingest(
            settings.model_copy(update=update),
            max_events=None,
            until_caught_up=False,
            should_stop=is_over,
        )
    assert deletes() == {("delete", HOME, "1"), ("delete", HOME, "2"), ("delete", ABROAD, "30")}
