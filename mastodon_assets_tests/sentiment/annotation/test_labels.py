"""Drawn posts and the labels of people, in the database."""

import csv
import stat
from pathlib import Path

import pytest
from pydantic import SecretStr
from pyspark.sql import SparkSession

from mastodon_assets.errors import SettingsError
from mastodon_assets.sentiment.annotation.export import export_labels, export_training
from mastodon_assets.sentiment.annotation.labels import (
    Label,
    coder_name,
    decided,
    is_disputed,
    remove_coder,
    store_label,
    waiting_for,
)
from mastodon_assets.sentiment.annotation.sample import (
    AnnotationError,
    draw_sample,
    remove_everything,
    remove_unlabelled,
)
from mastodon_assets.sentiment.training.classes import find_calibration, read_calibration
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.labelled_posts import (
    POSTED_AT,
    add_post,
    empty,
    give_label,
    sample_of,
    shown_post,
)


def _labels(*given: str) -> list[Label]:
    """Labels of one post; those after a star settle a disagreement."""
    return [
        Label(1, f"coder {place}", label.removeprefix("*"), label.startswith("*"), POSTED_AT)
        for place, label in enumerate(given)
    ]


@pytest.mark.parametrize(
    ("given", "label", "disputed"),
    [
        ([], None, False),
        (["positive"], None, False),
        (["positive", "unsure"], None, False),
        (["positive", "positive"], "positive", False),
        (["positive", "negative"], None, True),
        (["positive", "negative", "positive"], "positive", False),
        (["positive", "negative", "neutral"], None, True),
        (["positive", "negative", "*neutral"], "neutral", False),
        (["positive", "negative", "*unsure"], None, True),
        (["positive", "negative", "*neutral", "*negative"], "negative", False),
    ],
)
def test_a_label_counts_if_most_of_two_coders_gave_it_or_if_it_settles(
    given: list[str], label: str | None, disputed: bool
) -> None:
    labels = _labels(*given)
    assert (decided(labels), is_disputed(labels)) == (label, disputed)


@pytest.mark.parametrize("name", ["", "a b", "a\n", "\x1b[31m", "-x", "x" * 41])
def test_a_name_of_a_coder_is_plain(name: str) -> None:
    with pytest.raises(SettingsError, match="--coder"):
        coder_name(name)


@pytest.fixture
def url(database_url: SecretStr) -> SecretStr:
    """A database with 60 English and 40 German posts with labels, and ten in Hindi without."""
    empty(database_url)
    with transaction(database_url) as connection:
        for id_ in range(100):
            label = ("positive", "neutral", "negative")[id_ % 3]
            lang = "en" if id_ < 60 else "de-AT"
            add_post(connection, id_, f"post {id_}", lang=lang, label=label, prob_pos=id_ / 100)
        for id_ in range(100, 110):
            add_post(connection, id_, f"post {id_}", lang="hi", label=None)
        add_post(connection, 110, "\u2026", label=None, reason="no_words")
        add_post(connection, 111, "", lang="hi", label=None)
    return database_url


def test_a_draw_has_posts_of_each_language_label_and_half(url: SecretStr) -> None:
    draw = draw_sample(url, 24)
    assert draw.posts == 100
    assert len(draw.drawn) == 2 * 3 * 2
    assert sum(draw.drawn.values()) == 24
    assert min(draw.drawn.values()) >= 2
    posts = sample_of(url).posts
    assert {post.language for post in posts} == {"en", "de"}
    # 20 English posts of each label in two halves; 14 or 13 German ones.
    assert {post.stratum_posts for post in posts if post.language == "en"} == {10}
    assert {post.stratum_posts for post in posts if post.language == "de"} <= {6, 7}
    probabilities = {
        half: [post.id for post in posts if post.stratum == f"en, positive, {half} half"]
        for half in ("lower", "higher")
    }
    assert max(probabilities["lower"]) < min(probabilities["higher"])


def test_a_post_is_drawn_once_and_the_rest_is_drawn_later(url: SecretStr) -> None:
    draw_sample(url, 60)
    assert sum(draw_sample(url, 60).drawn.values()) == 40
    assert len(sample_of(url).posts) == 100
    with pytest.raises(AnnotationError, match="no post with a label of the model"):
        draw_sample(url, 60)


def test_a_draw_can_be_of_languages_and_days(url: SecretStr) -> None:
    draw_sample(url, 12, languages=["de"])
    assert {post.language for post in sample_of(url).posts} == {"de"}
    with transaction(url) as connection:
        connection.execute("UPDATE masto.toots_raw SET event_at = now() WHERE id = 0")
    assert draw_sample(url, 10, days=2).posts == 1


def test_only_a_draw_for_training_has_posts_without_a_label(url: SecretStr) -> None:
    draw_sample(url, 300)
    assert all(post.language != "hi" for post in sample_of(url).posts)
    assert draw_sample(url, 300, is_training=True).drawn == {"hi, no label": 10}
    drawn = [post for post in sample_of(url).posts if post.is_training]
    assert {post.id for post in drawn} == set(range(100, 110))


def test_all_coders_see_the_posts_in_one_random_order_and_go_on_where_they_stopped(
    url: SecretStr,
) -> None:
    draw_sample(url, 50)
    order = waiting_for(sample_of(url), "ada", languages=None, settles=False)
    assert order == waiting_for(sample_of(url), "bob", languages=None, settles=False)
    assert order != sorted(order)
    for id_ in order[:3]:
        give_label(url, id_, "ada", "unsure")
    sample = sample_of(url)
    assert waiting_for(sample, "ada", languages=None, settles=False) == order[3:]
    assert waiting_for(sample, "bob", languages=None, settles=False) == order
    german = waiting_for(sample, "bob", languages=["de"], settles=False)
    assert german == [id_ for id_ in order if id_ >= 60]


def test_only_disputed_posts_wait_to_be_settled(url: SecretStr) -> None:
    draw_sample(url, 50)
    first, second, third, *_ = (post.id for post in sample_of(url).posts)
    for id_, ada, bob in (
        (first, "positive", "negative"),
        (second, "neutral", "neutral"),
        (third, "positive", "unsure"),
    ):
        give_label(url, id_, "ada", ada)
        give_label(url, id_, "bob", bob)
    assert waiting_for(sample_of(url), "cleo", languages=None, settles=True) == [first]
    give_label(url, first, "cleo", "neutral", settles=True)
    sample = sample_of(url)
    assert waiting_for(sample, "dora", languages=None, settles=True) == []
    assert decided(sample.labels[first]) == "neutral"


def test_a_second_label_of_a_coder_replaces_the_first(url: SecretStr) -> None:
    draw_sample(url, 24)
    id_ = sample_of(url).posts[0].id
    give_label(url, id_, "ada", "positive")
    give_label(url, id_, "ada", "neutral")
    assert [label.label for label in sample_of(url).labels[id_]] == ["neutral"]


def test_an_edited_post_loses_its_labels_and_is_asked_again(url: SecretStr) -> None:
    draw_sample(url, 24)
    id_ = sample_of(url).posts[0].id
    give_label(url, id_, "ada", "positive")
    shown = shown_post(url, id_)
    assert shown is not None
    with transaction(url) as connection:
        connection.execute("UPDATE masto.toots_raw SET content_txt = 'no' WHERE id = %s", (id_,))
    assert not store_label(url, id_, shown.text_hash, "bob", "positive")
    sample = sample_of(url)
    assert sample.labels == {}
    assert waiting_for(sample, "ada", languages=None, settles=False)[0] == id_


def test_a_deleted_post_takes_its_labels_along(url: SecretStr) -> None:
    draw_sample(url, 24)
    id_ = sample_of(url).posts[0].id
    give_label(url, id_, "ada", "positive")
    shown = shown_post(url, id_)
    assert shown is not None
    with transaction(url) as connection:
        connection.execute("DELETE FROM masto.toots_raw WHERE id = %s", (id_,))
        assert connection.execute("SELECT FROM masto.annotations").fetchall() == []
    assert shown_post(url, id_) is None
    assert not store_label(url, id_, shown.text_hash, "bob", "positive")
    assert len(sample_of(url).posts) == 23


def test_drawn_posts_and_labels_can_be_removed(url: SecretStr) -> None:
    draw_sample(url, 24)
    id_ = sample_of(url).posts[0].id
    give_label(url, id_, "ada", "positive")
    give_label(url, id_, "bob", "positive")
    assert remove_unlabelled(url) == 23
    assert remove_coder(url, "ada") == 1
    assert [label.coder for label in sample_of(url).labels[id_]] == ["bob"]
    assert remove_everything(url) == 1
    assert sample_of(url).posts == []


@pytest.fixture
def exported(url: SecretStr, tmp_path: Path) -> Path:
    """A file to train with: three posts with odd texts."""
    empty(url)
    with transaction(url) as connection:
        for id_, text in enumerate(('so "good",\nsaid she\\', "=1+1\u2028 fine", "bad \U0001f62d")):
            add_post(connection, id_, text, lang="de-AT")
    draw_sample(url, 10, is_training=True)
    for id_, label in enumerate(("positive", "neutral", "negative")):
        for coder in ("ada", "bob"):
            give_label(url, id_, coder, label)
    path = tmp_path / "labels.csv"
    assert export_training(url, path) == {
        ("de", "positive"): 1,
        ("de", "neutral"): 1,
        ("de", "negative"): 1,
    }
    return path


def test_training_takes_the_exported_file_with_the_same_texts(
    spark: SparkSession, exported: Path
) -> None:
    calibration = find_calibration(exported)
    assert calibration is not None
    read = read_calibration(spark, calibration.path).orderBy("class").collect()
    assert [(row["text"], row["lang"], row["class"]) for row in read] == [
        ("bad \U0001f62d", "de", 0.0),
        ("=1+1\u2028 fine", "de", 1.0),
        ('so "good",\nsaid she\\', "de", 2.0),
    ]


def test_only_its_owner_reads_an_exported_file(exported: Path) -> None:
    assert stat.S_IMODE(exported.stat().st_mode) == 0o600


def test_posts_that_measure_are_not_exported_to_train_with(url: SecretStr, tmp_path: Path) -> None:
    draw_sample(url, 24)
    for post in sample_of(url).posts:
        for coder in ("ada", "bob"):
            give_label(url, post.id, coder, "positive")
    path = tmp_path / "labels.csv"
    with pytest.raises(AnnotationError, match="no post that was drawn for training"):
        export_training(url, path)
    assert not path.exists()
    assert export_labels(url, path) == 48
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert "label" not in rows[0]
    assert rows[0]["coder_label"] == "positive"
    assert rows[0]["is_training"] == "False"
    assert rows[0]["text"].startswith("post ")


def test_a_file_that_cannot_be_written_is_named(url: SecretStr, tmp_path: Path) -> None:
    draw_sample(url, 24)
    give_label(url, sample_of(url).posts[0].id, "ada", "positive")
    with pytest.raises(SettingsError, match=r"nowhere/labels\.csv: No such file.*another file"):
        export_labels(url, tmp_path / "nowhere" / "labels.csv")
