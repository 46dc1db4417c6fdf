import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from mastodon_assets.kafka.topics import TopicState
from mastodon_assets.stream.ledger import advance_ledger, open_ledger
from mastodon_assets.stream.stream_lock import (
    StreamStalledError,
    stream_lock_owner,
    take_stream_lock,
    wait_for_stream,
)
from mastodon_assets.warehouse.database import connect

_TARGET = TopicState("a_topic", "topic-id", earliest={0: 0}, end={0: 3})


@contextmanager
def _stream(postgres_url: SecretStr, topic: str = "a_topic") -> Iterator[psycopg.Connection[Any]]:
    with connect(postgres_url) as connection:
        with connection.transaction():
            assert take_stream_lock(connection, topic)
            open_ledger(connection, _TARGET, accept_data_loss=False)
        yield connection


def _advance(connection: psycopg.Connection[Any], end: int) -> None:
    with connection.transaction():
        advance_ledger(connection, "a_topic", "topic-id", 0, start=0, end=end)


def test_without_a_stream_there_is_nothing_to_wait_for(fresh_database_url: SecretStr) -> None:
    waited = wait_for_stream(fresh_database_url, _TARGET, print)
    assert (waited.start, waited.owner) == ({}, None)


def test_the_wait_ends_when_the_stream_has_passed_the_offsets(
    fresh_database_url: SecretStr,
) -> None:
    with _stream(fresh_database_url) as connection:
        timer = threading.Timer(0.5, _advance, (connection, 3))
        timer.start()
        reported: list[str] = []
        waited = wait_for_stream(fresh_database_url, _TARGET, reported.append)
        timer.join()
        assert waited.start == {0: 0}
        assert waited.owner is not None
        assert waited.owner.pid == connection.info.backend_pid
        assert f"PostgreSQL pid {waited.owner.pid}" in reported[0]


def test_the_wait_ends_when_the_stream_does(fresh_database_url: SecretStr) -> None:
    with _stream(fresh_database_url) as connection:
        timer = threading.Timer(0.5, connection.close)
        timer.start()
        waited = wait_for_stream(fresh_database_url, _TARGET, print)
        timer.join()
    assert waited.owner is not None


def test_a_stream_that_stands_still_is_named(fresh_database_url: SecretStr) -> None:
    with _stream(fresh_database_url) as connection:
        with pytest.raises(StreamStalledError) as raised:
            wait_for_stream(fresh_database_url, _TARGET, print, stall_seconds=0.1)
        assert f"PostgreSQL pid {connection.info.backend_pid}, since 2" in str(raised.value)
    assert "3 messages behind; stop that process" in str(raised.value)


def test_a_topic_has_one_stream_and_another_topic_another(fresh_database_url: SecretStr) -> None:
    with _stream(fresh_database_url), connect(fresh_database_url) as other:
        assert not take_stream_lock(other, "a_topic")
        assert stream_lock_owner(other, "another") is None
        assert take_stream_lock(other, "another")
        owner = stream_lock_owner(other, "another")
        assert owner is not None
        assert owner.pid == other.info.backend_pid
