"""How good the champion's labels are on the posts of this installation, by labels of people.

What belongs here: the comparison and its weights. Posts that were drawn for training do not count:
a model may have learned from them.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from psycopg import Connection

from mastodon_assets.config.settings import Settings
from mastodon_assets.sentiment.annotation.agreement import measure_agreement, units
from mastodon_assets.sentiment.annotation.labels import (
    LABELS,
    Sample,
    SampledPost,
    decided,
    given,
    is_disputed,
    read_sample,
)
from mastodon_assets.sentiment.annotation.sample import AnnotationError
from mastodon_assets.sentiment.evaluation.evaluate import Floats, evaluate_classes
from mastodon_assets.sentiment.models.registry import Model, champion, record_own_posts
from mastodon_assets.warehouse.database import transaction

# Fewer posts say nothing about a model or a language.
FEWEST_POSTS = 20


@dataclass(frozen=True)
class LeftOut:
    """Drawn posts that could not be compared, by reason."""

    unlabelled: int
    disputed: int
    without_model_label: int
    other_model: int


@dataclass(frozen=True)
class Evaluation:
    """The champion with its new metrics, and what was left out."""

    model: Model
    figures: dict[str, Any]
    left_out: LeftOut


@dataclass(frozen=True)
class _Compared:
    """A post with both labels."""

    post: SampledPost
    by_people: str
    by_model: str


def evaluate_champion(settings: Settings) -> Evaluation:
    """Compare the champion's stored labels with those of people and record it in its metrics.

    Raises:
        AnnotationError: There is no champion, or fewer than 20 posts have both labels.
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: The tables are missing.
        MissingRightsError: The role may not write.
    """
    with transaction(settings.postgres_url) as connection:
        model = champion(connection)
        if model is None:
            raise AnnotationError(
                "there is no sentiment model yet; to train one, materialize"
                " sentiment_pipeline_model (mastodon-assets ui)"
            )
        sample = read_sample(connection)
        compared, left_out = _compare(connection, sample, model.version)
        if len(compared) < FEWEST_POSTS:
            raise AnnotationError(
                f"{len(compared)} posts have a label of people that counts and one of the"
                f" champion, at least {FEWEST_POSTS} are needed; {_next_step(sample, left_out)}"
            )
        figures = _figures(sample, compared, left_out)
        model = record_own_posts(connection, model.version, figures)
    return Evaluation(model, figures, left_out)


def sample_weights(posts: Sequence[SampledPost]) -> Floats:
    """Return how many posts each labelled post represents, up to a factor per draw.

    Within a draw, the labelled posts of a stratum share the posts of the stratum. Each draw counts
    by its number of labelled posts, so that two draws from the same posts are as good as one.
    """
    strata = Counter((post.drawn_at, post.stratum) for post in posts)
    weights = np.array([post.stratum_posts / strata[post.drawn_at, post.stratum] for post in posts])
    draws: dict[datetime, list[int]] = defaultdict(list)
    for place, post in enumerate(posts):
        draws[post.drawn_at].append(place)
    for places in draws.values():
        weights[places] *= len(places) / weights[places].sum()
    return weights


def _compare(
    connection: Connection[Any], sample: Sample, version: str
) -> tuple[list[_Compared], LeftOut]:
    posts = [post for post in sample.posts if not post.is_training]
    scores = {
        id_: (label, model_version)
        for id_, label, model_version in connection.execute(
            "SELECT id, label_str, model_version FROM masto.toots_sentiment WHERE id = ANY(%s)",
            ([post.id for post in posts],),
        )
    }
    compared = []
    reasons: Counter[str] = Counter()
    for post in posts:
        labels = sample.labels_of(post)
        by_people = decided(labels)
        by_model, model_version = scores.get(post.id, (None, None))
        if by_people is None:
            reasons["disputed" if is_disputed(labels) else "unlabelled"] += 1
        elif model_version != version:
            reasons["other_model"] += 1
        elif by_model is None:
            reasons["without_model_label"] += 1
        else:
            compared.append(_Compared(post, by_people, by_model))
    return compared, LeftOut(
        unlabelled=reasons["unlabelled"],
        disputed=reasons["disputed"],
        without_model_label=reasons["without_model_label"],
        other_model=reasons["other_model"],
    )


def _figures(sample: Sample, compared: Sequence[_Compared], left_out: LeftOut) -> dict[str, Any]:
    by_language: dict[str, list[_Compared]] = defaultdict(list)
    for each in compared:
        by_language[each.post.language].append(each)
    measuring = Sample([post for post in sample.posts if not post.is_training], sample.labels)
    agreement = measure_agreement(units(measuring))
    coders = {label.coder for post in measuring.posts for label in given(measuring.labels_of(post))}
    return {
        **_class_figures(compared),
        "languages": {
            language: _class_figures(posts)
            for language, posts in sorted(by_language.items())
            if len(posts) >= FEWEST_POSTS
        },
        "alpha": agreement.alpha,
        "alpha_interval": agreement.interval and list(agreement.interval),
        "coders": len(coders),
        "disputed": left_out.disputed,
        "drawn_at": max(each.post.drawn_at for each in compared).isoformat(),
        "evaluated_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _class_figures(compared: Sequence[_Compared]) -> dict[str, Any]:
    places = {label: float(place) for place, label in enumerate(LABELS)}
    return evaluate_classes(
        np.array([places[each.by_people] for each in compared]),
        np.array([places[each.by_model] for each in compared]),
        sample_weights([each.post for each in compared]),
    )


def _next_step(sample: Sample, left_out: LeftOut) -> str:
    if all(post.is_training for post in sample.posts):
        return "draw posts: mastodon-assets annotate sample"
    if left_out.other_model > left_out.unlabelled:
        return "score them again: mastodon-assets model rescore"
    return "let two coders label more: mastodon-assets annotate label"
