from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from mastodon_assets.sentiment.models.promotion import SYNTHETIC_CORPUS
from mastodon_assets.sentiment.models.registry import (
    Model,
    PromotionRefusedError,
    UnknownModelError,
    all_models,
    champion,
    find,
    model_version,
    predecessor,
    promote,
    register,
    roll_back,
)
from mastodon_assets.warehouse.database import connect, transaction


@pytest.fixture
def connection(database_url: SecretStr) -> Iterator[psycopg.Connection[Any]]:
    """A connection whose work is rolled back."""
    connection = connect(database_url)
    connection.execute("DELETE FROM masto.sentiment_models")
    yield connection
    connection.rollback()
    connection.close()


def _register(
    connection: psycopg.Connection[Any],
    version: str,
    corpus: str,
    *,
    after: str | None = None,
    low: float = 0.0,
    force: bool = False,
) -> Model:
    """A model that was compared with the champion `after`: its AUC is at least `low` better."""
    differences = {
        name: {"difference": low + 0.001, "low": low, "high": low + 0.002}
        for name in ("auc", "accuracy")
    }
    comparison = {"comparison": {"champion": after, "differences": differences}} if after else {}
    return register(
        connection,
        version=version,
        trained_at=datetime(2026, 11, 20, tzinfo=UTC),
        metrics={"auc": 0.9, **comparison},
        corpus=corpus,
        path=Path("/models") / version,
        force=force,
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


def test_the_first_model_becomes_champion_and_one_that_is_not_worse_retires_it(
    connection: psycopg.Connection[Any],
) -> None:
    first = _register(connection, "a", "corpus.csv")
    assert first == champion(connection) == find(connection, "a")
    assert first.metrics == {"auc": 0.9}
    assert first.path == "/models/a"
    second = _register(connection, "b", "corpus.csv", after="a")
    assert second.status_reason.startswith("not worse than a: auc +0.0010, 95 % interval")
    assert _statuses(connection) == {"a": "retired", "b": "champion"}
    retired = find(connection, "a")
    assert retired is not None
    assert retired.status_reason.startswith("b took its place")


def test_a_worse_model_stays_a_candidate_and_says_why(
    connection: psycopg.Connection[Any],
) -> None:
    _register(connection, "a", "corpus.csv")
    worse = _register(connection, "b", "corpus.csv", after="a", low=-0.02)
    assert (worse.status, worse.promoted_at) == ("candidate", None)
    assert worse.status_reason.startswith("worse than the champion a: auc -0.0190, 95 %")
    with pytest.raises(PromotionRefusedError, match="worse than the champion a"):
        promote(connection, "b")
    assert _statuses(connection) == {"a": "champion", "b": "candidate"}
    assert promote(connection, "b", force=True).status == "champion"
    assert _statuses(connection) == {"a": "retired", "b": "champion"}


def test_a_worse_model_is_champion_where_that_is_forced(
    connection: psycopg.Connection[Any],
) -> None:
    _register(connection, "a", "corpus.csv")
    forced = _register(connection, "b", "corpus.csv", after="a", low=-0.02, force=True)
    assert forced.status == "champion"
    assert forced.status_reason.startswith("forced, although worse than the champion a")


def test_a_model_compared_with_an_earlier_champion_is_not_promoted(
    connection: psycopg.Connection[Any],
) -> None:
    _register(connection, "a", "corpus.csv")
    _register(connection, "b", "corpus.csv", after="a")
    late = _register(connection, "c", "corpus.csv", after="a")
    assert (late.status, late.status_reason) == ("candidate", "not compared with the champion b")


def test_a_synthetic_model_gives_way_to_a_real_one_and_never_takes_its_place(
    connection: psycopg.Connection[Any],
) -> None:
    _register(connection, "demo", SYNTHETIC_CORPUS)
    _register(connection, "demo 2", SYNTHETIC_CORPUS, after="demo")
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
    _register(connection, "b", "corpus.csv", after="a")
    assert _register(connection, "a", "corpus.csv", after="b").status == "retired"
    assert _statuses(connection) == {"a": "retired", "b": "champion"}


def test_rolling_back_goes_back_one_champion_at_a_time(
    connection: psycopg.Connection[Any],
) -> None:
    for version, after in (("a", None), ("b", "a"), ("c", "b")):
        _register(connection, version, "corpus.csv", after=after)
    assert predecessor(connection).version == "b"
    assert roll_back(connection).status_reason == "rolled back from c"
    assert roll_back(connection).version == "a"
    with pytest.raises(PromotionRefusedError, match="no model was champion before"):
        roll_back(connection)
    assert _statuses(connection) == {"a": "champion", "b": "retired", "c": "retired"}
    # Who was champion before needs no force to be it again.
    assert promote(connection, "c").status == "champion"
    assert predecessor(connection).version == "a"


def test_a_version_that_is_not_there_cannot_be_promoted(
    connection: psycopg.Connection[Any],
) -> None:
    with pytest.raises(UnknownModelError, match="there is no model 'nosuch'"):
        promote(connection, "nosuch")


def test_all_models_are_listed_with_the_newest_first(connection: psycopg.Connection[Any]) -> None:
    _register(connection, "a", "corpus.csv")
    _register(connection, "b", "corpus.csv", after="a")
    connection.execute(
        "UPDATE masto.sentiment_models SET trained_at = '2026-11-21' WHERE version = 'b'"
    )
    assert [model.version for model in all_models(connection)] == ["b", "a"]


def test_readers_see_one_champion_until_the_switch_is_committed(database_url: SecretStr) -> None:
    with transaction(database_url) as connection:
        connection.execute("DELETE FROM masto.sentiment_models")
        _register(connection, "a", "corpus.csv")
    with transaction(database_url) as writer, transaction(database_url) as reader:
        _register(writer, "b", "corpus.csv", after="a")
        seen = champion(reader)
        assert seen is not None
        assert seen.version == "a"
