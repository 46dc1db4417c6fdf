"""Accounts that refuse while posts of theirs are stored, in real tables and topics."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pydantic import SecretStr

from mastodon_assets.config.settings import Settings
from mastodon_assets.ingest import stored_posts
from mastodon_assets.ingest.removal_brake import Suspicion, read_suspicious
from mastodon_assets.ingest.stored_posts import PostAlias, PublishedPosts, posts_of_accounts
from mastodon_assets.ingest.supervisor import ingest
from mastodon_assets.operations.accept_source import accept_source
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


def read_refusing(
    settings: Settings, names: Sequence[str], is_over: Callable[[], bool], **changes: Any
) -> None:
    """Read a stream of posts by accounts that refuse now, until `is_over`."""
    deadline = time.monotonic() + 60
    events = b"".join(
        f"event: update\ndata: {json.dumps(refusing)}\n\n".encode()
        for refusing in (
            status(f"5{name}", account=account(acct=name, noindex=True)) for name in names
        )
    )

    def should_stop() -> bool:
        assert time.monotonic() < deadline
        return is_over()

    with odd_server({"/api/v1/streaming/public": stream(events)}) as server:
        update = {
            "mastodon_api_base_url": server.base_url,
            "mastodon_access_token": SecretStr("token"),
            "kafka_errors_topic": settings.kafka_topic,
            **changes,
        }
        ingest(
            settings.model_copy(update=update),
            max_events=None,
            until_caught_up=False,
            should_stop=should_stop,
        )


def deletes(settings: Settings) -> set[tuple[str, str, str]]:
    messages = broker_of(settings).messages(settings.kafka_topic)
    return {(each["op"], each["instance"], each["id"]) for each in messages}


def test_the_ingester_deletes_the_stored_posts_of_an_account_that_it_sees_refuse(
    settings: Settings,
) -> None:
    store_posts(settings.postgres_url)
    read_refusing(settings, ["ada"], lambda: bool(deletes(settings)))
    assert deletes(settings) == {
        ("delete", HOME, "1"),
        ("delete", HOME, "2"),
        ("delete", ABROAD, "30"),
    }


def test_posts_of_many_accounts_that_refuse_at_once_wait_for_a_person(settings: Settings) -> None:
    """As where a server says of all accounts that they refuse, after an update that went wrong."""
    store_posts(settings.postgres_url)
    suspicious: dict[str, Suspicion] = {}

    def is_held() -> bool:
        suspicious.update(read_suspicious(settings.postgres_url))
        return bool(suspicious)

    read_refusing(settings, ["ada", "bob"], is_held, removal_brake_min=2)
    assert deletes(settings) == set()
    found = suspicious[HOME]
    assert found.reason == "2 of 2 accounts that were read refuse now, or are gone"
    assert set(found.status_ids) == {"1", "2", "4"}

    assert accept_source(settings, HOME) == 3
    # Whoever refuses by now is seen again.
    read_refusing(
        settings, ["ada", "bob"], lambda: len(deletes(settings)) == 4, removal_brake_min=2
    )


def test_of_published_posts_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_posts, "_PUBLISHED_POSTS", 2)
    published = PublishedPosts()
    posts = [PostAlias("one.example", each) for each in "abc"]
    for post in posts:
        published.note(post, "ada@one.example")
    found = published.of_accounts("one.example", ["ada@one.example"], own_domain="one.example")
    assert found == posts[1:]
