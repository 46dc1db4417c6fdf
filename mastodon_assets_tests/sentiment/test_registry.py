from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from mastodon_assets.sentiment.registry import Model, champion, find, model_version, register
from mastodon_assets.sentiment.synthetic import SYNTHETIC_CORPUS
from mastodon_assets.warehouse.database import connect, transaction


@pytest.fixture
def connection(database_url: SecretStr) -> Iterator[psycopg.Connection[Any]]:
    """A connection whose work is rolled back."""
    connection = connect(database_url)
    connection.execute("DELETE FROM masto.sentiment_models")
    yield connection
    connection.rollback()
    connection.close()


def _register(connection: psycopg.Connection[Any], version: str, corpus: str) -> Model:
    return register(
        connection,
        version=version,
        trained_at=datetime(2026, 11, 20, tzinfo=UTC),
        metrics={"auc": 0.9},
        corpus=corpus,
        path=Path("/models") / version,
    )


def _statuses(connection: psycopg.Connection[Any]) -> dict[str, str]:
    return dict(connection.execute("SELECT version, status FROM masto.sentiment_models").fetchall())


def test_a_version_depends_on_corpus_parameters_and_code() -> None:
    version = model_version("c", {"a": 1, "b": 2}, "x")
    assert version == model_version("c", {"b": 2, "a": 1}, "x")
    others = {
        model_version("d", {"a": 1, "b": 2}, "x"),
        model_version("c", {"a": 1, "b": 3}, "x"),
        model_version("c", {"a": 1, "b": 2}, "y"),
    }
    assert len(others | {version}) == 4
    assert len(version) == 16
    assert set(version) <= set("0123456789abcdef")


def test_without_models_there_is_no_champion(connection: psycopg.Connection[Any]) -> None:
    assert champion(connection) is None
    assert find(connection, "a") is None


def test_the_first_model_becomes_champion_and_a_later_one_retires_it(
    connection: psycopg.Connection[Any],
) -> None:
    first = _register(connection, "a", "corpus.csv")
    assert first == champion(connection) == find(connection, "a")
    assert first.metrics == {"auc": 0.9}
    assert first.path == "/models/a"
    _register(connection, "b", "corpus.csv")
    assert _statuses(connection) == {"a": "retired", "b": "champion"}


def test_a_synthetic_model_gives_way_to_a_real_one_and_never_takes_its_place(
    connection: psycopg.Connection[Any],
) -> None:
    _register(connection, "demo", SYNTHETIC_CORPUS)
    _register(connection, "demo 2", SYNTHETIC_CORPUS)
    _register(connection, "real", "corpus.csv")
    assert _register(connection, "demo 3", SYNTHETIC_CORPUS).status == "candidate"
    assert _statuses(connection) == {
        "demo": "retired",
        "demo 2": "retired",
        "real": "champion",
        "demo 3": "candidate",
    }


def test_a_version_registered_again_keeps_its_status(connection: psycopg.Connection[Any]) -> None:
    _register(connection, "a", "corpus.csv")
    _register(connection, "b", "corpus.csv")
    assert _register(connection, "a", "corpus.csv").status == "retired"
    assert _statuses(connection) == {"a": "retired", "b": "champion"}


def test_readers_see_one_champion_until_the_switch_is_committed(database_url: SecretStr) -> None:
    with transaction(database_url) as connection:
        connection.execute("DELETE FROM masto.sentiment_models")
        _register(connection, "a", "corpus.csv")
    with transaction(database_url) as writer, transaction(database_url) as reader:
        _register(writer, "b", "corpus.csv")
        seen = champion(reader)
        assert seen is not None
        assert seen.version == "a"
