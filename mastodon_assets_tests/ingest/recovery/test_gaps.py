import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from mastodon_assets.ingest import checkpoint
from mastodon_assets.ingest.handler import IngestSummary
from mastodon_assets.ingest.policy.pseudonyms import Pseudonyms
from mastodon_assets.ingest.recovery.cursors import read_cursor, save_cursor
from mastodon_assets.ingest.recovery.gaps import (
    Gap,
    read_known_accounts,
    read_open_gaps,
    read_stored_posts,
    save_gap,
)
from mastodon_assets.ingest.supervisor import ingest
from mastodon_assets.stream.merge import prepare_session, write_batch
from mastodon_assets.warehouse.database import connect, transaction
from mastodon_assets_tests.support.documents import status
from mastodon_assets_tests.support.mock_broker import Broker
from mastodon_assets_tests.support.odd_server import Answer, Route, odd_server, stream
from mastodon_assets_tests.support.records import TOPIC, on_partition, staged, upsert

BEGAN = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def test_a_gap_is_open_until_it_is_closed(database_url: SecretStr) -> None:
    gap = Gap(BEGAN, "cut", from_id="41")
    save_gap(database_url, "one.example", "public", gap)
    save_gap(database_url, "two.example", "public", Gap(BEGAN, "silence", from_id=None))
    assert read_open_gaps(database_url, "one.example", "public") == [gap]

    gap.ended_at, gap.to_id = BEGAN + timedelta(minutes=1), "52"
    save_gap(database_url, "one.example", "public", gap)
    assert read_open_gaps(database_url, "one.example", "public") == [gap]

    gap.recovered_count, gap.status = 10, "recovered"
    save_gap(database_url, "one.example", "public", gap)
    assert read_open_gaps(database_url, "one.example", "public") == []
    with transaction(database_url) as connection:
        rows = connection.execute(
            "SELECT source, from_id, to_id, recovered_count, status, reason"
            "  FROM masto.stream_gaps WHERE instance = 'one.example'"
        ).fetchall()
    assert rows == [("public", "41", "52", 10, "recovered", "cut")]


def test_a_cursor_says_when_it_was_moved_and_under_which_rules(database_url: SecretStr) -> None:
    assert read_cursor(database_url, "one.example", "public") is None
    save_cursor(database_url, "one.example", "public", "7", "consent 1 respect")
    save_cursor(database_url, "one.example", "public", "01FV", "consent 2 respect")
    save_cursor(database_url, "one.example", "local", "8", "consent 2 respect")

    cursor = read_cursor(database_url, "one.example", "public")

    assert cursor is not None
    assert cursor.last_acked_id == "01FV"
    assert datetime.now(UTC) - cursor.updated_at < timedelta(minutes=5)
    with transaction(database_url) as connection:
        rows = connection.execute(
            "SELECT source, rules FROM masto.ingest_cursors ORDER BY source"
        ).fetchall()
    assert rows == [("local", "consent 2 respect"), ("public", "consent 2 respect")]


def test_the_posts_stored_last_before_the_cursor_are_known(fresh_database_url: SecretStr) -> None:
    url = fresh_database_url
    store(url, "one.example", {"old": 60 * 24 * 3, "b": 60 * 24, "a": 5, "c": 60 * 30})
    store(url, "two.example", {"z": 1})
    assert read_stored_posts(url, "one.example", 10) == []

    save_cursor(url, "one.example", "public", "a", "rules")

    assert read_stored_posts(url, "one.example", 10) == [("a", None), ("b", None), ("c", None)]
    assert read_stored_posts(url, "one.example", 1) == [("a", None)]


def test_accounts_under_pseudonyms_are_not_asked_for(fresh_database_url: SecretStr) -> None:
    """Their ids are hashes: each server answers 404, and their posts would be removed."""
    now = datetime.now(UTC).isoformat()
    pseudonyms = Pseudonyms(SecretStr("a key of the operator's own"))
    messages = [
        upsert("1", user_id="7", created_at=now, received_at=now),
        upsert(
            "2",
            user_id="0123456789abcdef" * 2,
            username=pseudonyms.handle("bob@one.example"),
            created_at=now,
            received_at=now,
        ),
    ]
    with connect(fresh_database_url) as connection:
        prepare_session(connection)
        connection.commit()
        with connection.transaction():
            write_batch(connection, staged(on_partition(messages)), {TOPIC: "topic-id"})

    found = read_known_accounts(fresh_database_url, "one.example")
    assert [(account.account_id, account.username) for account in found] == [
        ("7", "ada@one.example")
    ]


def store(url: SecretStr, instance: str, minutes_ago: Mapping[str, int]) -> None:
    """Posts of so many minutes ago, by the id they have at `instance`."""
    with transaction(url) as connection:
        for number, (status_id, minutes) in enumerate(minutes_ago.items()):
            at = datetime.now(UTC) - timedelta(minutes=minutes)
            connection.execute(
                """
                WITH toot AS (
                    INSERT INTO masto.toots_raw (id, instance, status_id, uri, created_at,
                           received_at, event_at, username, lang, content_txt, hashtags,
                           favourites, reblogs, replies, is_bot, is_sensitive, payload_hash)
                    VALUES (hashtext(%(uri)s), %(instance)s, %(status_id)s, %(uri)s, %(at)s,
                           %(at)s, %(at)s, 'ada', 'en', '', '{}', 0, 0, 0, false, false, 0)
                 RETURNING id, instance, status_id)
                INSERT INTO masto.toot_aliases (id, instance, status_id) SELECT * FROM toot
                """,
                {
                    "uri": f"{instance}/{number}",
                    "instance": instance,
                    "status_id": status_id,
                    "at": at,
                },
            )


def test_what_happened_between_two_runs_is_a_gap_that_is_filled(
    broker: Broker, database_url: SecretStr, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With real tables: the post 1 was deleted and 3 was posted while nobody read."""
    before, after = [status("1"), status("2")], [status("2"), status("3")]

    def run(documents: list[dict[str, Any]]) -> IngestSummary:
        def page(query: Mapping[str, str]) -> Answer:
            low, high = int(query.get("min_id", 0)), int(query.get("max_id", 9))
            listed = [each for each in documents if low < int(each["id"]) < high]
            return Answer(json.dumps(listed[::-1]).encode())

        routes: dict[str, Route] = {
            "/api/v1/streaming/public": stream(b""),
            "/api/v1/timelines/public": page,
            "/api/v1/statuses": Answer(json.dumps([status("2")]).encode()),
        }
        with odd_server(routes) as server:
            return ingest(
                broker.settings(mastodon_api_base_url=server.base_url, database_url=database_url),
                max_events=None,
                until_caught_up=True,
                should_stop=lambda: False,
            )

    first = run(before)
    stored = [("2", None), ("1", None)]
    monkeypatch.setattr(checkpoint, "read_stored_posts", lambda _url, _instance, _limit: stored)
    second = run(after)

    assert (first.cursor, second.cursor) == ("2", "3")
    sent = sorted((message["op"], message["id"]) for message in broker.messages())
    assert sent == [
        ("delete", "1"),
        ("upsert", "1"),
        ("upsert", "2"),
        ("upsert", "3"),
    ]
    with transaction(database_url) as connection:
        rows = connection.execute(
            "SELECT from_id, reason, recovered_count, status, ended_at > started_at"
            "  FROM masto.stream_gaps WHERE instance = 'odd.example'"
        ).fetchall()
    assert rows == [("2", "no ingest was running", 2, "recovered", True)]
