"""How good the champion is on the posts of this installation."""

from datetime import timedelta

import numpy as np
import pytest
from pydantic import SecretStr

from mastodon_assets.config.settings import Settings
from mastodon_assets.sentiment.annotation.labels import SampledPost
from mastodon_assets.sentiment.annotation.own_posts import (
    LeftOut,
    evaluate_champion,
    sample_weights,
)
from mastodon_assets.sentiment.annotation.sample import AnnotationError, draw_sample
from mastodon_assets.sentiment.models.registry import champion, register
from mastodon_assets.spark.storage import storage_path
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.labelled_posts import (
    CHAMPION,
    POSTED_AT,
    add_champion,
    add_post,
    empty,
    give_label,
    sample_of,
)


def _post(id_: int, stratum: str, posts: int, *, draw: int = 0) -> SampledPost:
    return SampledPost(id_, "en", POSTED_AT + timedelta(days=draw), False, stratum, posts)


def test_labelled_posts_of_a_stratum_share_the_posts_of_the_stratum() -> None:
    posts = [_post(1, "rare", 10), _post(2, "frequent", 60), _post(3, "frequent", 60)]
    weights = sample_weights(posts)
    assert weights.sum() == pytest.approx(3)
    assert weights / weights[0] == pytest.approx(np.array([1, 3, 3]))


def test_a_draw_counts_by_its_number_of_labelled_posts() -> None:
    posts = [
        *(_post(id_, "all", 1_000_000) for id_ in range(30)),
        *(_post(30 + id_, "all", 90, draw=1) for id_ in range(10)),
    ]
    assert sample_weights(posts) == pytest.approx(np.ones(40))


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """300 posts: all labelled positive by the model; people say negative of the last 30."""
    url = settings.postgres_url
    empty(url)
    add_champion(url)
    with transaction(url) as connection:
        for id_ in range(300):
            label = "positive" if id_ < 270 else "negative"
            add_post(connection, id_, f"post {id_}", label=label, prob_pos=id_ / 300)
    return settings


def _label_drawn(url: SecretStr, *, wrong_from: int) -> None:
    """Two coders agree with the model, apart from posts from that id on."""
    for post in sample_of(url).posts:
        by_model = "positive" if post.id < 270 else "negative"
        by_people = by_model if post.id < wrong_from else "neutral"
        for coder in ("ada", "bob"):
            give_label(url, post.id, coder, by_people)


def test_the_figures_hold_for_all_posts_and_not_for_the_drawn_ones(settings: Settings) -> None:
    url = settings.postgres_url
    draw_sample(url, 60)
    drawn = sample_of(url).posts
    rare = [post for post in drawn if "negative" in post.stratum]
    # More than their share, which is one in ten.
    assert len(rare) > 12
    _label_drawn(url, wrong_from=270)
    evaluation = evaluate_champion(settings)
    figures = evaluation.figures
    assert figures["rows"] == 60
    assert figures["accuracy"] == pytest.approx(0.9)
    low, high = figures["intervals"]["accuracy"]
    assert low < 0.9 < high
    assert figures["languages"]["en"]["accuracy"] == pytest.approx(0.9)
    assert (figures["coders"], figures["alpha"], figures["disputed"]) == (2, 1.0, 0)
    assert evaluation.left_out == LeftOut(0, 0, 0, 0)


def test_the_figures_are_in_the_metrics_and_outlive_a_repeated_training(
    settings: Settings,
) -> None:
    draw_sample(settings.postgres_url, 60)
    _label_drawn(settings.postgres_url, wrong_from=300)
    figures = evaluate_champion(settings).figures
    with transaction(settings.postgres_url) as connection:
        model = champion(connection)
        assert model is not None
        assert model.metrics == {"auc": 0.9, "own_posts": figures}
        again = register(
            connection,
            version=CHAMPION,
            trained_at=POSTED_AT,
            metrics={"auc": 0.8},
            corpus="tweets",
            path=storage_path(settings, model.path),
        )
        assert again.metrics == {"auc": 0.8, "own_posts": figures}


def test_what_cannot_be_compared_is_counted_by_reason(settings: Settings) -> None:
    url = settings.postgres_url
    draw_sample(url, 60)
    _label_drawn(url, wrong_from=300)
    ids = [post.id for post in sample_of(url).posts]
    give_label(url, ids[0], "ada", "unsure")
    give_label(url, ids[1], "ada", "neutral")
    give_label(url, ids[2], "ada", "neutral")
    give_label(url, ids[2], "cleo", "positive", settles=True)
    with transaction(url) as connection:
        connection.execute(
            "UPDATE masto.toots_sentiment SET model_version = 'another' WHERE id = %s", (ids[3],)
        )
        connection.execute(
            "UPDATE masto.toots_sentiment SET label_str = NULL, label_bin = NULL, prob_pos = NULL,"
            " reason = 'no_words' WHERE id = ANY(%s)",
            (ids[4:6],),
        )
    assert evaluate_champion(settings).left_out == LeftOut(
        unlabelled=1, disputed=1, without_model_label=2, other_model=1
    )


def test_posts_drawn_for_training_do_not_count(settings: Settings) -> None:
    draw_sample(settings.postgres_url, 60, is_training=True)
    _label_drawn(settings.postgres_url, wrong_from=300)
    with pytest.raises(AnnotationError, match=r"0 posts have .*: mastodon-assets annotate sample"):
        evaluate_champion(settings)


def test_too_few_labels_and_other_scores_say_what_to_do(settings: Settings) -> None:
    url = settings.postgres_url
    draw_sample(url, 60)
    with pytest.raises(AnnotationError, match=r"at least 20 .*: mastodon-assets annotate label"):
        evaluate_champion(settings)
    _label_drawn(url, wrong_from=300)
    with transaction(url) as connection:
        connection.execute("UPDATE masto.toots_sentiment SET model_version = 'another'")
    with pytest.raises(AnnotationError, match="mastodon-assets model rescore"):
        evaluate_champion(settings)
    empty(url)
    with pytest.raises(AnnotationError, match="no sentiment model yet"):
        evaluate_champion(settings)
