"""Which posts get the words that decided their label."""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mastodon_assets.dashboard import explanations
from mastodon_assets.dashboard.explanations import Explanations
from mastodon_assets.dashboard.posts import Post
from mastodon_assets.sentiment.scoring.explain import effects


class _Model:
    """Gives each text the same probability, and each word an effect by its length."""

    version = "v1"

    def __init__(self) -> None:
        self.texts: list[str] = []

    def words(self, text: str, lang: str) -> tuple[float | None, tuple[tuple[str, float], ...]]:
        self.texts.append(text)
        words = text.split()
        return 0.9, effects(words, 0.9, [0.9 - len(word) / 100 for word in words])


def _post(text: str, **changed: Any) -> Post:
    values: dict[str, Any] = {
        "event_at": datetime(2026, 11, 20, tzinfo=UTC),
        "username": "ada@one.example",
        "instance": "one.example",
        "lang": "en",
        "hashtags": [],
        "is_sensitive": False,
        "is_bot": False,
        "edited_at": None,
        "text": text,
        "is_cut": False,
        "label": "positive",
        "prob_pos": 0.9,
        "reason": None,
        "model_version": "v1",
        "model_path": "/models/v1",
        **changed,
    }
    return Post(**values)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> _Model:
    found = _Model()
    monkeypatch.setattr(explanations, "_load", lambda path: found)
    return found


def test_the_strongest_words_of_a_post_are_computed_once(model: _Model) -> None:
    shown, post = Explanations(), _post("a bb ccc dddd eeeee ffffff")
    (words,) = shown.of([post])
    assert [word for word, _ in words] == ["ffffff", "eeeee", "dddd", "ccc", "bb"]
    assert all(effect > 0 for _, effect in words)
    assert shown.of([post, post]) == [words, words]
    assert model.texts == [post.text]


def test_a_look_does_not_wait_for_all_words(model: _Model, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, posts = Explanations(), [_post("first"), _post("second")]
    monkeypatch.setattr(explanations, "_SECONDS", -1.0)
    assert shown.of(posts) == [(), ()]
    monkeypatch.undo()
    monkeypatch.setattr(explanations, "_load", lambda path: model)
    assert all(shown.of(posts))


@pytest.mark.parametrize(
    "changed",
    [
        {"prob_pos": None, "reason": "no_words", "label": None},
        {"prob_pos": 0.8},
        {"model_version": "v0"},
        {"text": "word " * 101},
    ],
)
def test_a_post_has_no_words_without_a_label_or_if_they_would_explain_another(
    model: _Model, changed: dict[str, Any]
) -> None:
    assert Explanations().of([_post("happy"), _post(**{"text": "sad", **changed})])[1] == ()


def test_without_a_model_that_can_be_read_posts_have_no_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shown = Explanations()
    with caplog.at_level(logging.INFO):
        for path in (str(tmp_path), tmp_path.as_uri(), "s3a://bucket/v1"):
            assert shown.of([_post("happy", model_path=path)] * 2) == [(), ()]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO"]


def test_a_failure_leaves_the_posts_without_words(
    model: _Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(model, "words", None)
    assert Explanations().of([_post("happy")]) == [()]
    assert "the words that decided could not be computed" in caplog.text
